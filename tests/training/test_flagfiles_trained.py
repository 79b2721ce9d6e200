"""Every network and loss of a flagfile trains, with toy weights and images."""

import dataclasses

import keras
import numpy as np
import pytest
import toy_torchvision
import toy_vit
from absl import flags
from absl.testing import flagsaver

import sare_tf.flags  # noqa: F401, defines them
from sare_tf.model import published_files, registry, vit_architectures
from sare_tf.model.torchvision import mobilenets, published_weights, resnets
from sare_tf.runtime import flagfiles
from sare_tf.training import compiled_network
from sare_tf.training.options import TrainingOptions

SIDE = 42
PLACES, IMAGES = 2, 2
# What makes a step small.
SMALL = (
    *(f"--image_height={SIDE}", f"--image_width={SIDE}", "--num_clusters=4"),
    *(f"--places_per_batch={PLACES}", f"--images_per_place={IMAGES}"),
    *("--records=records", "--checkpoints=checkpoints"),
)
NAMES = {
    "gsv_dinov2b_netvlad_sare": (),
    "gsv_dinov2b_salad_multi_similarity": (),
    "gsv_dinov2b_boq_multi_similarity": ("--chunk_images=2",),
    "sf_xl_cosplace": (),
    "own_photos": (),
    "own_photos_from_scratch": (),
}


def pictures(*shape):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (*shape, SIDE, SIDE, 3)).astype(np.uint8)


class Train:
    """The train split, as far as NetVLAD's clusters start from it."""

    def first_images(self):
        return [pictures(2)]


def published(name, path):
    """Writes the arrays of a published file."""
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
    with path.open("wb") as file:
        np.savez(file, **arrays)
    return path


def options_of(name):
    given = [
        "train",
        f"--flagfile=sare_tf:{name}",
        *SMALL,
        *NAMES.get(name, ()),
    ]
    with flagsaver.flagsaver():
        flags.FLAGS(flagfiles.insert(given))
        return TrainingOptions.from_flags()


def test_mapillary_has_the_network_of_gsv_cities():
    own, base = map(
        options_of, ("msls_dinov2b_netvlad_sare", "gsv_dinov2b_netvlad_sare")
    )
    assert (own.positives, base.positives) == ("radius", "place")
    assert dataclasses.replace(own, positives="place") == base


@pytest.mark.parametrize("name", NAMES)
def test_a_flagfile_trains(name, tmp_path, monkeypatch):
    """For a step, without a graph, which would take long to make."""
    tiny = toy_vit.architecture(depth=12)
    monkeypatch.setitem(vit_architectures.DINOV2, "dinov2_vitb14", tiny)
    backbone = dataclasses.replace(
        registry.BACKBONES["dinov2_vitb14"], arguments={"architecture": tiny}
    )
    monkeypatch.setitem(registry.BACKBONES, "dinov2_vitb14", backbone)
    options = options_of(name)
    if options.weights:
        path = published(options.weights, tmp_path / "weights")
        file = published_files.find(options.weights)
        monkeypatch.setattr(published_files, "get", {file: path}.__getitem__)
    network = compiled_network.build(Train(), options, group_sizes=(PLACES,))
    network.run_eagerly = True
    shape, labels = (PLACES * IMAGES,), np.repeat(np.arange(PLACES), IMAGES)
    if not options.is_over_places:
        shape, labels = (PLACES, 3), None
    images = pictures(*shape)
    if options.augment:
        count = network.get_layer("augmentation").num_draws
        draws = np.random.default_rng(1).uniform(size=(*shape, count))
        images = {"images": images, "draws": draws.astype(np.float32)}
    embedder = network.get_layer("embedder")
    before = [
        keras.ops.convert_to_numpy(weight)
        for weight in embedder.trainable_weights
    ]
    network.optimizer.learning_rate.assign(options.learning_rate)
    history = network.fit(images, labels, batch_size=shape[0], verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    moved = [
        (keras.ops.convert_to_numpy(weight) != one).any()
        for weight, one in zip(embedder.trainable_weights, before, strict=True)
    ]
    assert np.mean(moved) > 0.9
