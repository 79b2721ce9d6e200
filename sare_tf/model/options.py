"""Options of the network."""

from sare_tf.model.registry import AGGREGATIONS, BACKBONES
from sare_tf.runtime.options import Options, option, options


@options
class CheckpointsFolderOptions(Options):
    """The checkpoints."""

    checkpoints: str | None = option(
        None, "Folder of the training checkpoints."
    )


@options
class WhiteningOptions(Options):
    """The length of whitened descriptors."""

    whitening_dimension: int = option(
        0,
        "Length of whitened descriptors, 4096 in the paper; 0: no whitening. "
        "The descriptors of a smaller one are the first numbers of a larger "
        "one, normalised again. Without this flag, import_weights keeps the "
        "whitening of its source.",
        minimum=0,
    )


@options
class ModelOptions(Options):
    """The backbone, and what makes one descriptor of its feature map."""

    backbone: str = option(
        "vgg16",
        "Convolutional network below the aggregation. small trains from "
        "scratch; torchvision_*, mobilenet_*, efficientnet_b0 and "
        "convnext_tiny take torchvision's published files as --weights.",
        choices=tuple(BACKBONES),
    )
    aggregation: str = option(
        "netvlad",
        "How the feature map becomes one descriptor.",
        choices=tuple(AGGREGATIONS),
    )
    num_clusters: int = option(64, "NetVLAD clusters.", minimum=2)
    weights: str | None = option(
        None,
        "Backbone weights to start from: imagenet, or a local file of Keras "
        "(.h5, .keras), PyTorch (.pth), safetensors or NumPy (.npz).",
    )
    cut_layer: str | None = option(
        None,
        "Layer of the backbone whose output is the feature map. Default: the "
        "backbone's own.",
    )
    train_from: str | None = option(
        None,
        "First layer of the backbone that is trained, with all layers after "
        "it. aggregation: none of the backbone is trained. Default: the "
        "backbone's own.",
    )
    netvlad_centres: str | None = option(
        None,
        "Centres for NetVLAD to start from, instead of k-means: a .mat file of "
        "the authors of NetVLAD, or .npy, [clusters, channels].",
    )
