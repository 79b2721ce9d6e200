"""Files of small published networks, and what PyTorch makes of them.

tests/oracles/published.npz holds PyTorch's descriptors; tests/pytorch/
published.py made them, of the weights that `toy_published` draws by name.
"""

import functools
import json

import keras
import numpy as np
import toy_published
from paths import ROOT

from sare_tf.model.pretrained import safetensors_file, torch_file
from sare_tf.weights import (
    anyloc,
    implicit_aggregation,
    network_building,
    weight_files,
)

EXPECTED = np.load(ROOT / "tests/oracles/published.npz")
CASES = sorted({name.partition("/")[0] for name in EXPECTED.files})
# Where the repositories keep the state_dict.
_UNDER = {
    "supervlad": "model_state_dict",
    "implicit_aggregation": "model_state_dict",
}


def shorten(monkeypatch):
    """ImAge's tokens join before block 8, AnyLoc's values are of block 31."""
    assert implicit_aggregation._BEFORE_BLOCK == 8
    assert anyloc._BLOCK == 31
    monkeypatch.setattr(implicit_aggregation, "_BEFORE_BLOCK", 1)
    monkeypatch.setattr(anyloc, "_BLOCK", 1)


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
    if case in _UNDER:
        state = {f"module.{name}": array for name, array in state.items()}
        state = {"epoch_num": 3, _UNDER[case]: state}
    torch_file.write(path, state)
    if case != "anyloc":
        return {"source": path}
    vocabulary = folder / "c_centers.pt"
    torch_file.write(vocabulary, toy_published.array("centres", (8, 64)))
    return {"source": path, "vocabulary": vocabulary}


def maker(tmp_path_factory):
    """A function that makes a network once: what was read, and the embedder."""

    @functools.cache
    def make(case):
        read = weight_files.read(**write(tmp_path_factory.mktemp(case), case))
        return read, network_building.build(read)

    return make


def describe(embedder, images):
    """Without compiling, which takes longer than two images."""
    return keras.ops.convert_to_numpy(embedder(images, training=False))
