"""Imported networks describe images as the PyTorch ones do: make test-weights.

`networks.py` wrote checkpoints and descriptors, in an environment of its own.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sare_tf import export, import_weights, serving
from sare_tf.training.options import ExportOptions
from sare_tf.weights import network_building, weight_files
from sare_tf.weights.options import ImportOptions

FOLDER = os.environ.get("SARE_TF_WEIGHTS", "")
if not FOLDER:
    pytest.skip("run by make test-weights", allow_module_level=True)
FOLDER = Path(FOLDER)
# Length of the descriptors, format.
CASES = {
    "openibl_hub": (96, "openibl"),
    "openibl_hub_old": (96, "openibl"),
    "openibl_training": (96, "openibl"),
    "openibl_vd16_max": (512, "openibl"),
    "pytorch_netvlad": (64 * 512, "pytorch_netvlad"),
    "pytorch_netvlad_old": (64 * 512, "pytorch_netvlad"),
    "pytorch_netvlad_gpus": (64 * 512, "pytorch_netvlad"),
    "pytorch_netvlad_vladv2": (64 * 512, "pytorch_netvlad"),
    "patch_netvlad_16": (96, "patch_netvlad"),
    "patch_netvlad_64": (96, "patch_netvlad"),
    "benchmark_vgg16_netvlad": (64 * 512, "benchmark"),
    "benchmark_vgg16_gem": (512, "benchmark"),
    "benchmark_resnet18_netvlad": (16 * 256, "benchmark"),
    "benchmark_resnet18_conv5_gem": (512, "benchmark"),
    "benchmark_resnet50_gem": (1024, "benchmark"),
    "benchmark_resnet101_gem": (1024, "benchmark"),
}


def source(name):
    pca = FOLDER / f"{name}.h5"
    return {
        "source": FOLDER / f"{name}.pth",
        "pca": pca if pca.exists() else None,
    }


def pixels():
    paths = sorted((FOLDER / "pictures").glob("*.jpg"))
    return np.stack([np.asarray(Image.open(path)) for path in paths])


def compare(found, expected, name, record_property):
    difference = np.abs(found - expected).max()
    cosine = np.sum(np.float64(found) * expected, axis=1).min()
    record_property("largest_difference", f"{difference:.2e}")
    with (FOLDER / "differences.txt").open("a") as file:
        file.write(f"{name}: {difference:.2e}, cosine {cosine:.8f}\n")
    assert difference < 1e-4
    assert cosine > 0.99999


def test_every_case_is_compared():
    saved = {path.stem for path in FOLDER.glob("*.pth")}
    assert saved == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_descriptors_are_those_of_pytorch(name, record_property):
    dimension, format_name = CASES[name]
    files = source(name)
    found = weight_files.read(files["source"], pca=files["pca"])
    assert found.source == format_name
    embedder = network_building.build(found, aggregation="mac")
    descriptors = embedder.predict(pixels(), batch_size=2, verbose=0)
    assert descriptors.shape[1] == dimension
    expected = np.load(FOLDER / f"{name}.npy")
    # Images are told apart, so that equal descriptors mean something.
    apart = np.linalg.norm(expected[0] - expected[1:], axis=1)
    assert apart.min() > 0.01
    compare(descriptors, expected, name, record_property)


def test_the_export_describes_jpegs_as_pytorch_does(tmp_path, record_property):
    checkpoints = import_weights.run(
        ImportOptions(
            **source("openibl_hub"),
            out=tmp_path / "imported",
            image_height=180,
            image_width=320,
        )
    )
    exported = export.run(
        ExportOptions(checkpoints=checkpoints, export=tmp_path / "export")
    )
    paths = sorted((FOLDER / "pictures").glob("*.jpg"))
    descriptors, valid = serving.load(exported)(
        [path.read_bytes() for path in paths]
    )
    assert valid.all()
    expected = np.load(FOLDER / "openibl_hub.npy")
    compare(descriptors, expected, "exported", record_property)


@pytest.mark.parametrize(
    "name",
    [
        "openibl_hub",
        "openibl_training",
        "pytorch_netvlad",
        "pytorch_netvlad_vladv2",
    ],
)
def test_what_was_imported_is_exported(name):
    """For `loads.py`, which compares the arrays by PyTorch."""
    found = weight_files.read(FOLDER / f"{name}.pth")
    (FOLDER / "exported").mkdir(exist_ok=True)
    path = FOLDER / "exported" / f"{name}.pth"
    weight_files.write(
        path,
        network_building.take_apart(network_building.build(found)),
        format_name=found.source,
    )
    again = weight_files.read(path)
    for layer, arrays in found.layers.items():
        for mine, its in zip(again.layers[layer], arrays, strict=True):
            np.testing.assert_array_equal(mine, its)
