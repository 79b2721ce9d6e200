"""A pretrained network that describes photographs without training.

A file that holds a whole network is used as it is. Of a backbone alone, NetVLAD
aggregates the feature map, with the clusters of the photographs themselves. The
settings of MobileNetV2 were chosen by `benchmarks/pretrained.py`; those of
DINOv2 are AnyLoc's.
"""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

import keras
from absl import logging

from sare_tf.model.clusters import initialise_netvlad
from sare_tf.model.embedder import build_embedder
from sare_tf.model.registry import WITH_CENTRES
from sare_tf.model.vit_architectures import DINOV2, PATCH
from sare_tf.weights import network_building, weight_files


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a backbone becomes a network that needs no training.

    Attributes:
        aggregation: a name in `registry.AGGREGATIONS`.
        num_clusters: of NetVLAD and its like.
        cut_layer: layer of the feature map; None: the backbone's own.
        pixels: rows times columns of an image, about.
        multiple: rows and columns are multiples of it.
    """

    aggregation: str = "netvlad"
    num_clusters: int = 32
    cut_layer: str | None = None
    pixels: int = 240 * 320
    multiple: int = 16

    def size(self, aspect: float) -> tuple[int, int]:
        """Returns rows and columns of an image.

        Args:
            aspect: columns to rows of a typical photograph.
        """
        rows = (self.pixels / aspect) ** 0.5
        return self._rounded(rows), self._rounded(rows * aspect)

    def _rounded(self, length: float) -> int:
        return max(round(length / self.multiple), 2) * self.multiple


def _anyloc(name: str) -> Recipe:
    """Values of a block at three quarters of the depth, hard-assigned VLAD.

    Source: Keetha et al., "AnyLoc: Towards Universal Visual Place Recognition",
    RA-L 2023: block 31 of the 40 of ViT-G, 32 clusters.
    """
    block = round(DINOV2[name].depth * 31 / 40)
    return Recipe(
        aggregation="hard_vlad",
        cut_layer=f"block{block}_value",
        multiple=PATCH,
    )


# Others as MobileNetV2, at their own cut.
_RECIPES = {
    "mobilenet_v2": Recipe(),
    **{name: _anyloc(name) for name in DINOV2},
}
# A whole network, whose authors trained it for such sizes.
_WHOLE = Recipe(pixels=480 * 640)


def recipe_of(backbone: str) -> Recipe:
    """Returns the recipe of a backbone in `registry.BACKBONES`."""
    return _RECIPES.get(backbone, Recipe())


def build(
    source: Path, images: Callable[[int, int], Iterable], *, aspect: float
) -> tuple[keras.Model, tuple[int, int], dict[str, object]]:
    """Builds the network of a file.

    Args:
        source: the file of weights.
        images: takes rows and columns, and returns batches of photographs of
            that size, uint8 [B, H, W, 3], to find clusters in.
        aspect: columns to rows of a typical photograph.

    Returns:
        The embedder, rows and columns of its images, and what it is.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is not understood.
    """
    imported = weight_files.read(source)
    about = {"backbone": imported.backbone, "format": imported.source}
    if imported.aggregation is not None:
        embedder = network_building.build(imported)
        return embedder, _WHOLE.size(aspect), about
    recipe = recipe_of(imported.backbone)
    size = recipe.size(aspect)
    embedder, recipe = _of_backbone(
        source, imported.backbone, recipe, images(*size)
    )
    return embedder, size, {**about, **dataclasses.asdict(recipe)}


def _of_backbone(
    source: Path, backbone: str, recipe: Recipe, images: Iterable
) -> tuple[keras.Model, Recipe]:
    """Builds the network of a backbone; returns the recipe that was used."""
    embedder = build_embedder(
        backbone=backbone,
        weights=source,
        aggregation=recipe.aggregation,
        num_clusters=recipe.num_clusters,
        cut_layer=recipe.cut_layer,
    )
    if recipe.aggregation not in WITH_CENTRES:
        return embedder, recipe
    try:
        initialise_netvlad(embedder, images)
    except ValueError as error:
        # Such as of a single photograph of one colour.
        logging.info("GeM instead of %s: %s", recipe.aggregation, error)
        simple = dataclasses.replace(recipe, aggregation="gem", cut_layer=None)
        return _of_backbone(source, backbone, simple, images)
    return embedder, recipe
