"""checkpoints/ -> a file of weights that PyTorch loads.

    python -m sare_tf.export_weights --checkpoints=runs/sfrs \
        --format=openibl --out=sfrs.pth

For VGG16 with NetVLAD:

    openibl           state_dict of OpenIBL's `embednet`, or with whitening of
                      its hub model, `embednetpca`; for images as MatConvNet's
                      and Keras's VGG16 takes them
    pytorch_netvlad   checkpoint that pytorch-NetVlad's --resume takes; for
                      images as torchvision's VGG16 takes them

A file that ends in .safetensors is written as safetensors, with the arrays of
the state_dict. Importing the file again gives the same network. The whitening
that `export` fits is not in a checkpoint, and so not in these files.
"""

from pathlib import Path

from absl import logging

from sare_tf import flags
from sare_tf.runtime import atomic_files, run_lock, stage_results
from sare_tf.training.run_folder import load_embedder
from sare_tf.weights import network_building, weight_files
from sare_tf.weights.options import ExportWeightsOptions


@run_lock.one_at_a_time("out")
def run(options: ExportWeightsOptions) -> Path:
    """Writes the weights of a checkpoint.

    Args:
        options: the folder of a training or of an import, the epoch, and the
            new file, .pth or .safetensors, with its format.

    Returns:
        The file.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: the format has no place for the network, or the file
            exists.
    """
    out = Path(options.out)
    atomic_files.check_new(out, kind="file")
    embedder = load_embedder(options.checkpoints, epoch=options.epoch)
    network = network_building.take_apart(embedder)
    if not network.aggregation.clamped:
        logging.warning(
            "PyTorch's networks lengthen the residuals of a cluster to which "
            "hardly any location is assigned; this network does not. For "
            "images with such clusters, descriptors there and here differ."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    weight_files.write(out, network, format_name=options.format)
    stage_results.report(
        "export_weights",
        f"Weights for {options.format} in {out}.",
        path=out,
        format=options.format,
    )
    return out


def main(argv) -> None:
    del argv
    run(ExportWeightsOptions.from_flags())


if __name__ == "__main__":
    flags.start(main)
