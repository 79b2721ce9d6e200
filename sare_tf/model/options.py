"""Options of the network."""

from sare_tf.model.registry import AGGREGATIONS, BACKBONES
from sare_tf.runtime.common_options import WeightsOptions
from sare_tf.runtime.options import Options, option, options, path_option


@options
class CheckpointsFolderOptions(Options):
    """The checkpoints."""

    checkpoints: str | None = path_option(
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
class ModelOptions(WeightsOptions):
    """The backbone, and what makes one descriptor of its feature map."""

    backbone: str = option(
        "vgg16",
        "Network below the aggregation: a .keras file of any Keras model that "
        "takes RGB images, 0..255, and outputs feature maps or tokens; or "
        f"{', '.join(BACKBONES)}. small trains from scratch; torchvision_*, "
        "mobilenet_*, efficientnet_b0, convnext_tiny and dinov2_* take the "
        "published files as --weights.",
    )
    aggregation: str = option(
        "netvlad",
        "How the feature map becomes one descriptor.",
        choices=tuple(AGGREGATIONS),
    )
    num_clusters: int = option(
        64,
        "Clusters of the aggregations that have clusters: netvlad, salad ...",
        minimum=2,
    )
    cut_layer: str | None = option(
        None,
        "Layer of the backbone whose output is the feature map. Default: the "
        "backbone's own.",
    )
    train_from: str | None = option(
        None,
        "First layer or block of the backbone that is trained, such as block8 "
        "of a vision transformer, with all layers after it. aggregation: none "
        "of the backbone is trained. Default: the backbone's own.",
    )
    netvlad_centres: str | None = path_option(
        None,
        "Centres for NetVLAD to start from, instead of k-means: a .mat file of "
        "the authors of NetVLAD, or .npy, [clusters, channels].",
    )

    def __post_init__(self):
        super().__post_init__()
        if self.backbone not in BACKBONES and not self.backbone.endswith(
            ".keras"
        ):
            raise ValueError(
                f"Expected backbone to be one of {', '.join(BACKBONES)}, or a "
                f".keras file. Received: backbone={self.backbone!r}."
            )
