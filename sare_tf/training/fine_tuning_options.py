"""Options of training that starts from weights which are good already."""

from sare_tf.model.registry import BACKBONES, WITH_CENTRES
from sare_tf.runtime.options import Options, option, options, path_option


@options
class FineTuningOptions(Options):
    """Which weights move how far from where they start."""

    backbone_rate: float = option(
        1.0, "Factor on the learning rate of the backbone.", minimum=0
    )
    head_rate: float = option(
        1.0,
        "Factor on the learning rate of the aggregation's weights, other than "
        "NetVLAD's clusters.",
        minimum=0,
    )
    netvlad_rate: float = option(
        1.0,
        "Factor on the learning rate of NetVLAD's clusters: their assignment "
        "and their centres.",
        minimum=0,
    )
    layer_decay: float = option(
        1.0,
        "Factor on the learning rate of each block of a vision transformer, "
        "relative to the block after it, such as 0.75. 1: all alike.",
        minimum=0,
        maximum=1,
    )
    drop_path: float = option(
        0.0,
        "Stochastic depth of a vision transformer: in training, the share of "
        "images for which the last block's branches are left out; fewer for "
        "those of earlier blocks.",
        minimum=0,
        maximum=1,
    )
    l2_to_start: float = option(
        0.0,
        "Decay of the backbone's weights towards those that training starts "
        "from, instead of towards 0 by --weight_decay. 0: none.",
        minimum=0,
    )

    cache_frozen: bool = option(
        False,
        "Compute the features of the frozen blocks once and keep them on disk; "
        "training, mining and validation then read them instead of images.",
    )
    frozen_features: str | None = path_option(
        None,
        "Folder of the features of --cache_frozen, which runs of the same "
        "frozen blocks may share. Several folders of records have a folder "
        "each in it. Default: frozen in the folder of the run.",
    )
    recompute_blocks: bool = option(
        False,
        "Keep only the inputs of blocks of trained layers in a step, and "
        "compute the rest again for the gradients: less memory, more time.",
    )

    def __post_init__(self):
        super().__post_init__()
        self._check_cache()
        if self.drop_path >= 1:
            raise ValueError(
                "Expected a share of images from 0 to below 1. Received: "
                f"drop_path={self.drop_path}."
            )
        if self.layer_decay == 0:
            raise ValueError(
                "Expected a factor above 0, up to 1. Received: "
                "layer_decay=0. Freeze blocks by --train_from."
            )
        if self.drop_path and not self.path_draws:
            raise ValueError(
                "Expected drop_path=0 with a backbone other than dinov2_*. "
                f"Received: drop_path={self.drop_path}, "
                f"backbone={self.backbone!r}."
            )
        if self.drop_path and self.chunk_images:
            raise ValueError(
                "Expected drop_path=0 with chunks, which embed an image twice. "
                f"Received: drop_path={self.drop_path}, "
                f"chunk_images={self.chunk_images}."
            )
        self._check_head_rates()

    @property
    def path_draws(self) -> int:
        """Random numbers of an image for stochastic depth; 0: none."""
        if not self.drop_path or self.backbone not in BACKBONES:
            return 0
        return BACKBONES[self.backbone].path_draws

    def _check_cache(self):
        # Of the class that this one is a part of.
        if not self.cache_frozen:
            return
        if self.augment:
            raise ValueError(
                "Expected augment=() with cache_frozen: augmentation changes "
                "what the frozen blocks see, so their features would have to "
                f"be computed for each step. Received: augment="
                f"{list(self.augment)}. Leave out --augment, or --cache_frozen."
            )
        if self.strategy == "multi_worker":
            raise ValueError(
                "Expected cache_frozen on one machine. Received: strategy="
                "'multi_worker'. Set --strategy=mirrored or none, or leave "
                "--cache_frozen out."
            )

    def _check_head_rates(self):
        # Of the class that this one is a part of.
        aggregation = self.aggregation
        if self.netvlad_rate != 1 and aggregation not in WITH_CENTRES:
            raise ValueError(
                f"Expected netvlad_rate=1 with aggregation={aggregation!r}, "
                "which has no clusters of NetVLAD. Received: "
                f"netvlad_rate={self.netvlad_rate}. Set --head_rate."
            )
        if self.head_rate != 1 and aggregation in ("netvlad", "hard_vlad"):
            raise ValueError(
                f"Expected head_rate=1 with aggregation={aggregation!r}, whose "
                "weights are all of its clusters. Received: "
                f"head_rate={self.head_rate}. Set --netvlad_rate."
            )
