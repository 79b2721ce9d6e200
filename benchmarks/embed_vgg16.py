"""Compares the speed of descriptors of VGG16 and NetVLAD with PyTorch.

    python -m benchmarks.embed_vgg16
    python -m benchmarks.embed_vgg16 --backend=jax --dtype=bfloat16 \
        --height=480 --width=640 --clusters=64

Needs the extra `bench`. The other flags are those of `benchmarks.step`, which
also explains the last column. Like mining and the index, the benchmark turns
images of uint8 in memory into descriptors in memory: by Keras's `predict`, and
by a plain loop in PyTorch in inference mode. It first compares the descriptors
of both.
"""

import os

import numpy as np
import torch
from absl import app, flags

from benchmarks import step, torch_reference

FLAGS = flags.FLAGS
flags.DEFINE_integer("photographs", 64, "Images of a timed call.", 1)
flags.DEFINE_integer("batch", 32, "Images embedded at a time.", 1)


def torch_embed(network, device, photographs):
    """Embeds photographs, uint8 [N, H, W, 3] -> [N, D]."""
    descriptors = []
    with (
        torch.inference_mode(),
        torch.autocast(
            device, dtype=torch.bfloat16, enabled=FLAGS.dtype == "bfloat16"
        ),
    ):
        for start in range(0, len(photographs), FLAGS.batch):
            batch = torch.from_numpy(photographs[start : start + FLAGS.batch])
            descriptors.append(network(batch.to(device)).cpu())
    return torch.cat(descriptors).numpy()


def main(argv):
    del argv
    os.environ["KERAS_BACKEND"] = FLAGS.backend
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shape = (FLAGS.photographs, FLAGS.height, FLAGS.width, 3)
    photographs = step.pictures(np.random.default_rng(0), FLAGS.photographs)
    _, embedder = step.keras_network()
    weights = torch_reference.weights_of(embedder)
    plain = torch_reference.Reference(weights).to(device).eval()
    last = torch_reference.Reference(weights).to(device).eval()
    last = last.to(memory_format=torch.channels_last)
    networks = {"PyTorch": plain, "PyTorch, channels last": last}
    if device == "cuda":
        networks["PyTorch, channels last, compiled"] = torch.compile(last)

    no_targets = np.zeros(FLAGS.photographs, np.float32)
    data = step.in_batches((photographs, no_targets), FLAGS.batch)
    data.pop("y", None)

    def ours():
        return embedder.predict(**data, verbose=0)

    difference = np.abs(ours() - torch_embed(plain, device, photographs)).max()
    print(
        f"{shape[0]} images of {shape[1]} x {shape[2]} pixels in batches of "
        f"{FLAGS.batch}, {FLAGS.clusters} clusters, {FLAGS.dtype}, Keras on "
        f"{FLAGS.backend}, {device}. Largest difference of descriptors: "
        f"{difference:.0e}.\n"
    )
    calls = {
        name: lambda network=network: torch_embed(network, device, photographs)
        for name, network in networks.items()
    }
    calls[f"sare_tf, Keras on {FLAGS.backend}"] = ours
    torch_reference.compare(
        calls,
        repeats=FLAGS.repeats,
        images=shape[0],
        flops=shape[0]
        * torch_reference.convolution_flops(
            FLAGS.height, FLAGS.width, trained=False
        ),
        device=device,
        dtype=getattr(torch, FLAGS.dtype),
    )


if __name__ == "__main__":
    app.run(main)
