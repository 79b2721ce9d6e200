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

from absl import flags, logging

from sare_tf import export, weights
from sare_tf import flags as stage_flags
from sare_tf.training.run_folder import read_state
from sare_tf.weights import network_building

FLAGS = flags.FLAGS


def run(
    *,
    checkpoints: str | Path,
    out: str | Path,
    format_name: str,
    epoch: str | None = None,
) -> Path:
    """Writes the weights of a checkpoint.

    Args:
        checkpoints: folder of a training or of an import.
        out: the file, .pth.
        format_name: openibl or pytorch_netvlad.
        epoch: name of the epoch's folder; the best one by default.

    Returns:
        `out`.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: an unknown format, a network that has no place in it, or
            an `out` that exists.
    """
    out = Path(out)
    if out.exists():
        raise ValueError(
            f"Expected a new file. Received: out={str(out)!r}, which exists. "
            "Choose another --out, or remove it."
        )
    _, state = read_state(checkpoints)
    embedder = export.load_embedder(Path(checkpoints), epoch or state["best"])
    found = network_building.take_apart(embedder)
    if not found.aggregation.clamped:
        logging.warning(
            "PyTorch's networks lengthen the part of a cluster that hardly any "
            "location is assigned to; this one does not. Where there is one, "
            "descriptors differ there and here."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    weights.write(out, found, format_name=format_name)
    logging.info("Weights for %s in %s.", format_name, out)
    return out


def main(argv) -> None:
    del argv
    stage_flags.required("checkpoints", "out")
    run(
        checkpoints=FLAGS.checkpoints,
        out=FLAGS.out,
        format_name=FLAGS.format,
    )


if __name__ == "__main__":
    stage_flags.start(main)
