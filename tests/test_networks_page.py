"""docs/networks.md names every network that the code has, with its numbers."""

import math
import os

import pytest
from paths import ROOT

from sare_tf.model import backbones
from sare_tf.model.embedder import make_aggregation
from sare_tf.model.registry import (
    AGGREGATIONS,
    BACKBONES,
    WITH_CLUSTERS,
)
from sare_tf.model.vit_architectures import DINOV2, GRID, IMPLICIT, PATCH
from sare_tf.weights.formats import FORMATS

TEXT = (ROOT / "docs/networks.md").read_text("utf-8")
VITS = DINOV2 | IMPLICIT
# Several seconds each; of the same blocks as the others.
DEEP = {"torchvision_resnet101", "torchvision_resnet152", "convnext_tiny"}
SLOW = pytest.mark.skipif(
    "SARE_TF_WEIGHTS" not in os.environ, reason="run by make test-weights"
)


def table(heading):
    """Cells of the rows of the table below a heading, by the first cell."""
    lines = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines.splitlines()
        if line.startswith("|")
    ]
    titles, _, *rows = rows
    assert len({len(row) for row in (titles, *rows)}) == 1
    return {row[0]: dict(zip(titles, row, strict=True)) for row in rows}


def number(text):
    return int(text.replace(",", ""))


def parameters_of_vit(architecture):
    """Layer by layer, from the shapes of the original's state_dict."""
    length, hidden = architecture.dimension, architecture.hidden

    def linear(inputs, outputs):
        return inputs * outputs + outputs

    if architecture.swiglu:
        feed = linear(length, 2 * hidden) + linear(hidden, length)
    else:
        feed = linear(length, hidden) + linear(hidden, length)
    attention = linear(length, 3 * length) + linear(length, length)
    block = attention + feed + 4 * length + 2 * length  # norms, layer scales
    tokens = 1 + architecture.num_registers + architecture.num_aggregating
    embedding = linear(3 * PATCH**2, length) + (1 + GRID**2) * length
    return (
        embedding
        + tokens * length
        + architecture.depth * block
        + 2 * length  # the last norm
    )


def test_parameters_of_vits_are_those_of_the_original():
    # Without the mask token; counted by running the original's code.
    counts = {"dinov2_vits14": 22_056_576 - 384}
    counts |= {"dinov2_vitg14_reg": 1_136_486_912 - 1536}
    for name, count in counts.items():
        assert parameters_of_vit(VITS[name]) == count


def test_every_backbone_has_a_row():
    rows = table("Backbones")
    assert set(rows) == {f"`{name}`" for name in BACKBONES}
    for name, architecture in VITS.items():
        row = rows[f"`{name}`"]
        assert number(row["parameters"]) == parameters_of_vit(architecture)
        assert number(row["channels"]) == architecture.dimension
        assert number(row["stride"]) == PATCH


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=SLOW) if name in DEEP else name
        for name in BACKBONES
        if name not in VITS
    ],
)
def test_numbers_of_a_backbone(name):
    row = table("Backbones")[f"`{name}`"]
    _, network = backbones.build(name)
    assert number(row["parameters"]) == network.count_params()
    shape = network.compute_output_shape((1, 64, 64, 3))
    assert number(row["channels"]) == shape[-1]
    assert number(row["stride"]) == 64 // shape[1]


def test_every_head_has_a_row():
    # The page may be ahead of the code.
    assert set(table("Heads")) >= {f"`{name}`" for name in AGGREGATIONS}


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_numbers_of_a_head(name):
    row = table("Heads")[f"`{name}`"]
    settings = {"num_clusters": 64} if name in WITH_CLUSTERS else {}
    head = make_aggregation(name, **settings)
    shape = (None, 23, 23, 768)
    if hasattr(head, "weight_shapes"):
        shapes = head.weight_shapes(shape).values()
        count = sum(math.prod(shape) for shape in shapes)
    else:
        head.build(shape)
        count = head.count_params()
    assert number(row["parameters"]) == count
    assert number(row["descriptor"]) == head.compute_output_shape(shape)[-1]


def test_every_format_has_a_row():
    named = " ".join(
        row["`--format`"] for row in table("Published networks").values()
    )
    for name in FORMATS:
        assert f"`{name}`" in named


def test_the_page_is_linked():
    for page in ("README.md", "docs/published_networks.md", "docs/training.md"):
        assert "networks.md)" in (ROOT / page).read_text("utf-8"), page
