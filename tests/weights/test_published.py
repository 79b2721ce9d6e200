"""Published networks describe images as plain PyTorch does, to 1e-5.

tests/oracles/published.npz holds PyTorch's descriptors; tests/pytorch/
published.py made them, of the weights that `toy_published` draws by name.
"""

import functools
import json

import keras
import numpy as np
import pytest
import toy_published
from paths import ROOT

from sare_tf.model.pretrained import safetensors_file, torch_file
from sare_tf.weights import network_building, weight_files

EXPECTED = np.load(ROOT / "tests/oracles/published.npz")
CASES = sorted({name.partition("/")[0] for name in EXPECTED.files})
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
    "anyloc": ("anyloc", "block31_value", None),
}
# Where the repositories keep the state_dict.
UNDER = {"supervlad": "model_state_dict", "implicit_aggregation": "state_dict"}


@functools.cache
def state_of(case):
    """Arrays by name, as PyTorch had them."""
    shapes = json.loads(str(EXPECTED[f"{case}/shapes"]))
    return {
        name: toy_published.array(name, tuple(shape))
        for name, shape in shapes.items()
    }


def write(folder, case, state=None):
    """Writes the file of a network, and returns arguments of `read`."""
    state = state_of(case) if state is None else state
    if case == "megaloc":
        path = folder / "model.safetensors"
        safetensors_file.write(path, state)
        return {"source": path}
    path = folder / f"{case}.pth"
    if case in UNDER:
        state = {f"module.{name}": array for name, array in state.items()}
        state = {"epoch_num": 3, UNDER[case]: state}
    torch_file.write(path, state)
    if case != "anyloc":
        return {"source": path}
    np.save(folder / "c_centers.npy", toy_published.array("centres", (8, 64)))
    return {"source": path, "vocabulary": folder / "c_centers.npy"}


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Makes a network once: what was read, and the embedder."""

    @functools.cache
    def make(case):
        read = weight_files.read(**write(tmp_path_factory.mktemp(case), case))
        return read, network_building.build(read)

    return make


def describe(embedder, images):
    """Without compiling, which takes longer than two images."""
    return keras.ops.convert_to_numpy(embedder(images, training=False))


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
