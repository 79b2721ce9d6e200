"""Names of backbones, of aggregations and of effects of augmentation.

What they name is imported when it is used: the names are also those of flags,
which need no Keras.
"""

import dataclasses
from typing import Any

from sare_tf.model.vit_architectures import DINOV2, IMPLICIT

# Channel means of ImageNet, blue, green, red: keras.applications, mode caffe.
CAFFE = {
    "mean": (103.939, 116.779, 123.68),
    "deviation": (1.0, 1.0, 1.0),
    "blue_first": True,
}
# Image range to -1..1: keras.applications.mobilenet_v3, rescaling layer.
_MINUS_ONE_TO_ONE = {"mean": (127.5,) * 3, "deviation": (127.5,) * 3}
# ImageNet mean and deviation: keras.applications.efficientnet_v2, B0.
TORCHVISION = {
    "mean": tuple(255.0 * x for x in (0.485, 0.456, 0.406)),
    "deviation": tuple(255.0 * x for x in (0.229, 0.224, 0.225)),
}

# Layer that turns a feature map into a descriptor: its module and class.
AGGREGATIONS = {
    "netvlad": "netvlad.NetVLAD",
    "gem": "pooling.GeM",
    "mac": "pooling.MAC",
    "spoc": "pooling.SPoC",
    "rmac": "pooling.RMAC",
    "gem_linear": "heads.gem_linear.GeMLinear",
    "convap": "heads.convap.ConvAP",
    "mixvpr": "heads.mixvpr.MixVPR",
    "salad": "heads.salad.SALAD",
    "salad_linear": "heads.salad_linear.SALADLinear",
    "boq": "heads.boq.BoQ",
    "supervlad": "heads.supervlad.SuperVLAD",
    "netvlad_linear": "heads.netvlad_linear.NetVLADLinear",
    "hard_vlad": "heads.hard_vlad.HardVLAD",
    "class_token": "heads.class_token.UnitClassToken",
}
# Those that need no training.
POOLINGS = ("gem", "mac", "spoc", "rmac")
# Those whose centres come from images before training.
WITH_CENTRES = ("netvlad", "netvlad_linear", "hard_vlad")
WITH_CLUSTERS = (*WITH_CENTRES, "salad", "salad_linear", "supervlad")
# Those that take the class token of a vision transformer.
WITH_CLASS_TOKEN = ("salad", "salad_linear", "class_token")
# Types that exported backbones compute in; see `precision`.
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
# Effect of augmentation -> numbers that it draws for each image, in the order
# in which effects are applied.
AUGMENTATION_DRAWS = {
    "randaugment": 6,
    "crop": 3,
    "perspective": 8,
    "colour": 5,
    "grey": 1,
    "erase": 5,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Backbone:
    """How a backbone is made.

    Attributes:
        network: function that makes the whole network, with its module.
        arguments: of that function.
        preprocessing: arguments of `backbones.Preprocessing`.
        cut_layer: name of the layer whose output is the feature map.
        train_from: name of the first layer that is trained.
        assign: function that assigns the arrays of a published file, which
            has them by name, with its module; None: there is none.
        published_arrays: number of arrays of torchvision's file without its
            classifier; None: the network is not torchvision's.
    """

    network: str
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    preprocessing: dict[str, Any]
    cut_layer: str
    train_from: str
    assign: str | None = None
    published_arrays: int | None = None

    @property
    def path_draws(self) -> int:
        """Random numbers of an image for stochastic depth; 0: it has none."""
        architecture = self.arguments.get("architecture")
        # One for each of the two branches of a block.
        return 2 * architecture.depth if architecture else 0

    @property
    def is_application(self) -> bool:
        """Whether it is one of keras.applications, with ImageNet weights."""
        return self.network.startswith("keras.applications.")


def _torchvision(network: str, **settings: Any) -> Backbone:
    return Backbone(
        network=f"sare_tf.model.torchvision.{network}",
        preprocessing=TORCHVISION,
        assign="sare_tf.model.torchvision.published_weights.assign",
        **settings,
    )


# Cut at stride 16. VGG16 as the paper has it; ResNets up to conv4_x, trained in
# it, as in the deep-visual-geo-localization-benchmark; the cuts of the others
# are ours.
_TORCHVISION_BACKBONES = {
    "torchvision_vgg16": _torchvision(
        "vgg.build",
        cut_layer="features_28",
        train_from="features_24",
        published_arrays=26,
    ),
    "torchvision_resnet18": _torchvision(
        "resnets.build",
        arguments={"blocks": (2, 2, 2, 2), "bottleneck": False},
        cut_layer="layer3_1_out",
        train_from="layer3_0_conv1",
        published_arrays=100,
    ),
    "torchvision_resnet34": _torchvision(
        "resnets.build",
        arguments={"blocks": (3, 4, 6, 3), "bottleneck": False},
        cut_layer="layer3_5_out",
        train_from="layer3_0_conv1",
        published_arrays=180,
    ),
    "torchvision_resnet50": _torchvision(
        "resnets.build",
        arguments={"blocks": (3, 4, 6, 3), "bottleneck": True},
        cut_layer="layer3_5_out",
        train_from="layer3_0_conv1",
        published_arrays=265,
    ),
    "torchvision_resnet101": _torchvision(
        "resnets.build",
        arguments={"blocks": (3, 4, 23, 3), "bottleneck": True},
        cut_layer="layer3_22_out",
        train_from="layer3_0_conv1",
        published_arrays=520,
    ),
    "torchvision_resnet152": _torchvision(
        "resnets.build",
        arguments={"blocks": (3, 8, 36, 3), "bottleneck": True},
        cut_layer="layer3_35_out",
        train_from="layer3_0_conv1",
        published_arrays=775,
    ),
    "mobilenet_v2": _torchvision(
        "mobilenets.build_v2",
        cut_layer="features_13",
        train_from="features_0_0",
        published_arrays=260,
    ),
    "mobilenet_v3_large": _torchvision(
        "mobilenets.build_v3",
        arguments={"size": "large"},
        cut_layer="features_12",
        train_from="features_0_0",
        published_arrays=262,
    ),
    "mobilenet_v3_small": _torchvision(
        "mobilenets.build_v3",
        arguments={"size": "small"},
        cut_layer="features_8",
        train_from="features_0_0",
        published_arrays=206,
    ),
    "efficientnet_b0": _torchvision(
        "efficientnet.build",
        cut_layer="features_5_2",
        train_from="features_0_0",
        published_arrays=309,
    ),
    "convnext_tiny": _torchvision(
        "convnext.build",
        cut_layer="features_5_8",
        train_from="features_5_0_block_0",
        published_arrays=178,
    ),
}

BACKBONES: dict[str, Backbone] = {
    "small": Backbone(
        network="sare_tf.model.small.build",
        preprocessing={"mean": (127.5,) * 3, "deviation": (64.0,) * 3},
        cut_layer="stage4_conv",
        train_from="stage1_conv",
    ),
    # The paper's: conv5_3 without its ReLU, trained from conv5_1 on.
    "vgg16": Backbone(
        network="keras.applications.VGG16",
        preprocessing=CAFFE,
        cut_layer="block5_conv3",
        train_from="block5_conv1",
    ),
    "resnet50": Backbone(
        network="keras.applications.ResNet50",
        preprocessing=CAFFE,
        cut_layer="conv4_block6_out",
        train_from="conv4_block1_1_conv",
    ),
    "mobilenetv3": Backbone(
        network="keras.applications.MobileNetV3Large",
        arguments={"include_preprocessing": False},
        preprocessing=_MINUS_ONE_TO_ONE,
        cut_layer="expanded_conv_11_add",
        train_from="conv",
    ),
    "efficientnetv2b0": Backbone(
        network="keras.applications.EfficientNetV2B0",
        arguments={"include_preprocessing": False},
        preprocessing=TORCHVISION,
        cut_layer="block5e_add",
        train_from="stem_conv",
    ),
    **_TORCHVISION_BACKBONES,
    # Trained in the last four blocks: Izquierdo, Civera, CVPR 2024 (SALAD).
    **{
        name: Backbone(
            network="sare_tf.model.vit.build",
            arguments={"architecture": architecture},
            preprocessing=TORCHVISION,
            cut_layer="patches",
            train_from="aggregating"
            if architecture.num_aggregating
            else f"block{architecture.depth - 4}_norm1",
            assign="sare_tf.model.vit_weights.assign",
        )
        for name, architecture in (DINOV2 | IMPLICIT).items()
    },
}
