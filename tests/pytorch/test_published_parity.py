"""Published networks of the published backbones, saved by PyTorch itself.

`published.py` wrote them and their descriptors, in an environment of its own.
"""

import os
from pathlib import Path

import keras
import numpy as np
import pytest
import toy_published

from sare_tf.weights import network_building, weight_files

FOLDER = os.environ.get("SARE_TF_WEIGHTS", "")
if not FOLDER:
    pytest.skip("run by make test-weights", allow_module_level=True)
FOLDER = Path(FOLDER) / "published"
# Size of the images, format, backbone.
CASES = {
    "cliquemining": ((70, 98), "salad", "dinov2 of 3 blocks of 128"),
    "boq_resnet50": ((96, 128), "boq", "torchvision_resnet50"),
    "boq_frozen": ((96, 128), "boq", "torchvision_resnet50"),
    "mixvpr": ((320, 320), "mixvpr", "torchvision_resnet50"),
    "convap": ((160, 96), "convap", "torchvision_resnet50"),
    "cosplace_resnet50": ((96, 128), "cosplace", "torchvision_resnet50"),
    "cosplace_resnet101": ((96, 128), "cosplace", "torchvision_resnet101"),
    "cosplace_resnet152": ((96, 128), "cosplace", "torchvision_resnet152"),
    "cosplace_vgg16": ((96, 128), "cosplace", "vgg16"),
}


def test_every_case_is_compared():
    assert {path.stem for path in FOLDER.glob("*.pth")} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_descriptors_are_those_of_pytorch(name, record_property):
    size, format_name, backbone = CASES[name]
    read = weight_files.read(FOLDER / f"{name}.pth")
    assert read.source == format_name
    assert read.backbone.startswith(backbone)
    embedder = network_building.build(read)
    images = toy_published.pictures(*size)
    found = keras.ops.convert_to_numpy(embedder(images, training=False))
    expected = np.load(FOLDER / f"{name}.npy")
    # Deep networks of random weights hardly tell images apart.
    apart = np.linalg.norm(expected[0] - expected[1])
    assert apart > 1e-3
    difference = np.abs(found - expected).max()
    record_property("largest_difference", f"{difference:.2e}")
    with (FOLDER.parent / "differences.txt").open("a") as file:
        file.write(f"published {name}: {difference:.2e}\n")
    assert difference < min(1e-5, apart / 100)
