"""Published networks describe images as plain PyTorch does, to 1e-5.

tests/oracles/published.npz holds PyTorch's descriptors; tests/pytorch/
published.py made them, of the weights that `toy_published` draws by name.
"""

import re

import numpy as np
import published_files
import pytest
import safetensors.numpy
import toy_published
from published_files import CASES, EXPECTED, describe, state_of, write

from sare_tf.model.pretrained.array_ledger import StoredArray
from sare_tf.weights import (
    description,
    implicit_aggregation,
    network_building,
    weight_files,
)

# Format; backbone and its cut; size that the network was published with.
FACTS = {
    "salad": ("salad", "patches", (322, 322)),
    "salad_registers": ("salad", "patches", (322, 322)),
    "megaloc": ("megaloc", "patches", (322, 322)),
    "boq_dinov2": ("boq", "block1_patches", (322, 322)),
    "boq_resnet18": ("boq", "layer3_1_out", (384, 384)),
    "boq_frozen": ("boq", "layer3_1_out", (384, 384)),
    "mixvpr": ("mixvpr", "layer3_1_out", (64, 64)),
    "convap": ("convap", "layer4_1_out", (320, 320)),
    "cosplace_resnet18": ("cosplace", "layer4_1_out", None),
    "cosplace_vgg16": ("cosplace", "block5_conv3", None),
    "supervlad": ("supervlad", "patches", (322, 322)),
    "supervlad_1": ("supervlad", "patches", (322, 322)),
    "implicit_aggregation": ("implicit_aggregation", "patches", (322, 322)),
    "anyloc": ("anyloc", "block1_value", None),
}


@pytest.fixture(autouse=True)
def few_blocks(monkeypatch):
    published_files.shorten(monkeypatch)


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    return published_files.maker(tmp_path_factory)


def sizes_of(case):
    return [
        tuple(map(int, name.partition("/")[2].split("x")))
        for name in EXPECTED.files
        if name.startswith(f"{case}/") and name != f"{case}/shapes"
    ]


def test_every_case_has_facts():
    assert CASES == sorted(FACTS)


@pytest.mark.parametrize("case", CASES)
def test_descriptors_are_pytorchs(networks, case):
    read, embedder = networks(case)
    format_name, cut, size = FACTS[case]
    assert read.source == format_name
    backbone = embedder.get_layer("backbone")
    assert backbone.output_names[0] == cut
    assert embedder.get_layer("preprocessing").image_size == size
    for height, width in sizes_of(case):
        images = toy_published.pictures(height, width)
        expected = EXPECTED[f"{case}/{height}x{width}"]
        # The images are told apart, so that equal descriptors mean something.
        assert np.linalg.norm(expected[0] - expected[1]) > 0.01
        found = describe(embedder, images)
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)
        alone = describe(embedder, images[1:])
        np.testing.assert_allclose(alone[0], found[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("case", "lines"),
    [
        (
            "salad",
            "Network: salad, dinov2 of 2 blocks of 128 channels and 0 "
            "registers to patches; ¦Sizes: 322 x 322, as it was published; "
            "resized by antialiased bilinear. Sides must be multiples of 14.",
        ),
        (
            "megaloc",
            "not rounded to whole numbers. Sides are resized to the nearest "
            "multiples of 14.¦Aggregation: salad_linear, 9 dimensions.",
        ),
        (
            "boq_resnet18",
            "torchvision_resnet18 to layer3_1_out; ¦Sizes: 384 x 384, as it "
            "was published; resized by antialiased bicubic, not rounded",
        ),
        ("mixvpr", "Sizes: 64 x 64, and no other; resized by antialiased"),
        ("convap", "The means are over 2 x 2 regions"),
        ("cosplace_vgg16", "Sizes: any, as it was published; ¦EigenPlaces"),
        ("supervlad_1", "Of its 3 clusters, 2 are taken as ghosts"),
        ("implicit_aggregation", "and 4 registers¦8 tokens join before block"),
        ("anyloc", "The middle is cropped to multiples of 14"),
    ],
)
def test_what_is_printed(networks, case, lines):
    text = "\n".join(description.describe(*networks(case)))
    for line in lines.split("¦"):
        assert line in text


# What is refused.


def refused(case, match, *, changes=(), without=()):
    arrays = {
        name: StoredArray(array.shape, lambda array=array: array)
        for name, array in (state_of(case) | dict(changes)).items()
        if name not in without
    }
    format_name = weight_files._format_of("a.pth", arrays)
    with pytest.raises(ValueError, match=match):
        network_building.build(
            weight_files._BY_NAME[format_name].read("a.pth", arrays)
        )


@pytest.mark.parametrize(
    "case",
    [
        *("salad", "megaloc", "boq_dinov2", "boq_frozen", "mixvpr", "convap"),
        *("cosplace_resnet18", "supervlad"),
    ],
)
def test_what_is_missing_or_left_over_is_listed(case):
    """Two arrays of the head, and one that has no place."""
    head = [name for name in state_of(case) if name.startswith("aggregat")]
    # Not those by which networks are told apart.
    missing = [name for name in head if not _tells_apart(name)][-2:]
    if missing:
        refused(
            case,
            "without "
            + ", ".join(map(re.escape, sorted(missing)))
            + "; and with, in no layer of it, aggregator.other.weight. Get",
            changes={"aggregator.other.weight": np.ones(2)},
            without=missing,
        )
    [*_, last] = [
        name
        for name in state_of(case)
        if "backbone" in name and "dino.norm" not in name
    ]
    refused(
        case,
        f"without {re.escape(last)}\\W",
        without=[last],
    )


def test_boq_needs_no_last_normalisation(networks):
    """github.com/gmberton/VPR-methods-evaluation leaves it out."""
    state = state_of("boq_dinov2")
    arrays = {
        name: StoredArray(array.shape, lambda array=array: array)
        for name, array in state.items()
        if "dino.norm" not in name
    }
    assert len(arrays) == len(state) - 2
    read = weight_files._BY_NAME["boq"].read("a.pth", arrays)
    expected, _ = networks("boq_dinov2")
    assert read.layers.keys() == expected.layers.keys()
    assert "norm" not in read.layers


def _tells_apart(name):
    return name.endswith(
        (
            *("dust_bin", "proj_c.weight", "mix.0.mix.0.weight"),
            *("channel_pool.weight", "aggregation.3.weight"),
            *("aggregation.1.p", "aggregation.conv.weight"),
        )
    )


def test_a_head_of_another_backbone():
    """S for B: the class token of 128 channels, a head over 64."""
    refused(
        "salad",
        r"weights token_hidden_kernel of shape \(128, 7\) for salad. Received: "
        r"shape \(64, 7\). The file is of another network, or its parts",
        changes={
            f"aggregator.{name}": np.ones((7, 64, *ones))
            for name, ones in (
                ("token_features.0.weight", ()),
                ("cluster_features.0.weight", (1, 1)),
                ("score.0.weight", (1, 1)),
            )
        },
    )


@pytest.mark.parametrize(
    ("case", "size", "message"),
    [
        ("salad", (40, 56), "height=40.*--image_height=42 --image_width=56"),
        ("salad", (14, 42), "3 clusters.*1 x 3 = 3. .*--image_height"),
        ("mixvpr", (64, 80), "64"),
        ("anyloc", (13, 42), "least 14 x 14 pixels.*--image_height"),
    ],
)
def test_images_of_other_sizes(networks, case, size, message):
    """The sentence names the flags, and what to give."""
    with pytest.raises(ValueError, match=message):
        describe(networks(case)[1], np.zeros((1, *size, 3)))


def test_networks_that_mix_the_images_of_a_batch():
    refused(
        "supervlad",
        r"encoder.layers.*Take SuperVLAD.pth or 1-clusterVLAD.pth",
        changes={"encoder.layers.0.linear1.weight": np.ones((2, 2))},
    )


def test_quantised_and_half_precision(tmp_path):
    refused(
        "megaloc",
        "floating point numbers. Received: .* dtype=int8: it is quantised",
        changes={"aggregator.linear.weight": np.ones((9, 18), np.int8)},
    )
    state = {
        name: np.asarray(array, np.float16)
        for name, array in state_of("megaloc").items()
    }
    safetensors.numpy.save_file(state, tmp_path / "half.safetensors")
    [note] = weight_files.read(tmp_path / "half.safetensors").notes
    count = len(state)
    assert note.startswith(f"{count} of {count} arrays are stored as float16 ")


def test_vocabularies(tmp_path):
    files = write(tmp_path, "anyloc")
    with pytest.raises(ValueError, match="Expected a vocabulary for AnyLoc"):
        weight_files.read(files["source"], format_name="anyloc")
    np.save(tmp_path / "other.npy", np.ones((8, 1536), np.float32))
    with pytest.raises(
        ValueError,
        match="1536 channels, as the vocabulary has."
        " Received: .* 3 blocks of 64 .*dinov2_vitg14; give",
    ):
        weight_files.read(files["source"], vocabulary=tmp_path / "other.npy")
    with pytest.raises(ValueError, match="a tensor that PyTorch saved.*_c_c"):
        weight_files.read(files["source"], vocabulary=files["source"])
    salad = write(tmp_path, "salad")["source"]
    with pytest.raises(ValueError, match="vocabulary only with a backbone of"):
        weight_files.read(salad, vocabulary=files["vocabulary"])
    with pytest.raises(FileNotFoundError, match="which does not exist"):
        weight_files.read(files["source"], vocabulary=tmp_path / "none")


def test_tokens_that_join_too_late(monkeypatch):
    monkeypatch.setattr(implicit_aggregation, "_BEFORE_BLOCK", 3)
    refused("implicit_aggregation", "more than 3 blocks.*with 3")
    refused(
        "implicit_aggregation",
        "each array of ImAge once. .* with, in no layer of it, head.w",
        changes={"head.weight": np.ones(2)},
    )
