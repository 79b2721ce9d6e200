"""Every network and loss of a flagfile trains, with toy weights and images."""

import dataclasses

import numpy as np
import pytest
import toy_torchvision
import toy_training
import toy_vit
from absl import flags
from absl.testing import flagsaver

from sare_tf import train
from sare_tf.model import published_files, registry, vit_architectures
from sare_tf.model.torchvision import mobilenets, published_weights, resnets
from sare_tf.runtime import flagfiles
from sare_tf.training import run_folder
from sare_tf.training.options import TrainingOptions

# What makes a run small, and what toy images do not have: size and number.
SMALL = (
    *("--image_height=56", "--image_width=56", "--num_clusters=4"),
    *("--places_per_batch=2", "--images_per_place=2", "--epochs=1"),
    "--warmup_epochs=0",
)
NAMES = {
    "gsv_dinov2b_netvlad_sare": (),
    "gsv_dinov2b_salad_multi_similarity": (),
    "gsv_dinov2b_boq_multi_similarity": ("--chunk_images=2",),
    "msls_dinov2b_netvlad_sare": ("--positives=place",),
    "sf_xl_cosplace": (),
    "own_photos": (),
    "own_photos_from_scratch": (
        *("--tuples_per_batch=2", "--num_negatives=1"),
    ),
}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return toy_training.records(tmp_path_factory.mktemp("toy"), places=3)


def published(name, folder):
    """A file with the arrays of a published one."""
    if name.startswith("dinov2"):
        arrays = toy_vit.state_dict(depth=12)
    else:
        network = (
            mobilenets.build_v2()
            if name == "mobilenet_v2"
            else resnets.build(blocks=(2, 2, 2, 2), bottleneck=False)
        )
        arrays = {
            array: toy_torchvision.array(array, shape)
            for layer in network.layers
            if layer.weights
            for array, shape in published_weights._stored(layer)
        }
    path = folder / "weights"
    with path.open("wb") as file:
        np.savez(file, **arrays)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_a_flagfile_trains(name, records, tmp_path, monkeypatch):
    tiny = toy_vit.architecture(depth=12)
    monkeypatch.setitem(vit_architectures.DINOV2, "dinov2_vitb14", tiny)
    backbone = dataclasses.replace(
        registry.BACKBONES["dinov2_vitb14"], arguments={"architecture": tiny}
    )
    monkeypatch.setitem(registry.BACKBONES, "dinov2_vitb14", backbone)
    with flagsaver.flagsaver():
        flags.FLAGS(
            flagfiles.insert(
                [
                    "train",
                    f"--flagfile=sare_tf:{name}",
                    *SMALL,
                    *NAMES[name],
                    f"--records={records}",
                    f"--checkpoints={tmp_path / 'run'}",
                ]
            )
        )
        options = TrainingOptions.from_flags()
    if options.weights:
        path = published(options.weights, tmp_path)
        file = published_files.find(options.weights)
        monkeypatch.setattr(published_files, "get", {file: path}.__getitem__)
    folder = train.run(options)
    _, state = run_folder.read_state(folder)
    (_, trained) = state["history"]
    assert np.isfinite(trained["loss"])
    assert trained["recall_at"]
