"""checkpoints/ -> a file of weights that PyTorch loads.

    python -m sare_tf.export_weights --checkpoints=runs/sfrs \
        --format=openibl --out=sfrs.pth

For VGG16 with NetVLAD:

    openibl           state_dict of OpenIBL's `embednet`, or with whitening of
                      its hub model, `embednetpca`; for images as MatConvNet's
                      and Keras's VGG16 takes them
    pytorch_netvlad   checkpoint that pytorch-NetVlad's --resume takes; for
                      images as torchvision's VGG16 takes them

Both round trips, in and out again, are exact. What export fits, its whitening,
is not in a checkpoint, and so not in these files.
"""

from pathlib import Path

from absl import logging

from sare_tf import flags
from sare_tf.runtime import run_lock
from sare_tf.training.run_folder import load_embedder
from sare_tf.weights import network_building, weight_files
from sare_tf.weights.options import ExportWeightsOptions


@run_lock.one_at_a_time("out")
def run(options: ExportWeightsOptions) -> Path:
    """Writes the weights of a checkpoint.

    Args:
        options: the folder of a training or of an import, the epoch, and the
            new file, .pth, with its format.

    Returns:
        The file.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: a network that has no place in the format, or a file that
            exists.
    """
    out = Path(options.out)
    if out.exists():
        raise ValueError(
            f"Expected a new file. Received: out={str(out)!r}, which exists. "
            "Choose another --out, or remove it."
        )
    embedder = load_embedder(options.checkpoints, epoch=options.epoch)
    found = network_building.take_apart(embedder)
    if not found.aggregation.clamped:
        logging.warning(
            "PyTorch's networks lengthen the part of a cluster that hardly any "
            "location is assigned to; this one does not. Where there is one, "
            "descriptors differ there and here."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    weight_files.write(out, found, format_name=options.format)
    logging.info("Weights for %s in %s.", options.format, out)
    return out


def main(argv) -> None:
    del argv
    run(ExportWeightsOptions.from_flags())


if __name__ == "__main__":
    flags.start(main)
