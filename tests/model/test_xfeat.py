"""XFeat: as its authors' code computes it, with the published weights."""

import io
import sys

import numpy as np
import pytest
import tensorflow as tf
from paths import ROOT, SHARED
from PIL import Image

from sare_tf.model import xfeat as network
from sare_tf.model.local_feature_graph import LocalFeatureGraph
from sare_tf.model.pretrained import safetensors_file, weights_file
from sare_tf.weights import xfeat

sys.path.insert(0, str(ROOT / "tests" / "oracles"))
import xfeat_values

WEIGHTS = SHARED / "data" / "weights" / "xfeat.pt"
needs_weights = pytest.mark.skipif(
    not WEIGHTS.exists(), reason=f"{WEIGHTS} is not there"
)


def _encoded(pixels, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def published():
    return xfeat.read(WEIGHTS)


@pytest.fixture(scope="module")
def served(published):
    """The graph as a function, for images of up to 160 pixels."""
    graph = LocalFeatureGraph(
        network=published, count=xfeat_values.COUNT, longest_side=160
    )
    return tf.function(
        graph.serve, input_signature=[tf.TensorSpec([None], tf.string)]
    )


@needs_weights
def test_features_are_those_of_the_authors(served):
    pictures = xfeat_values.pictures()
    outputs = served([_encoded(one) for one in pictures.values()])
    outputs = {name: value.numpy() for name, value in outputs.items()}
    with np.load(ROOT / "tests" / "oracles" / "xfeat.npz") as golden:
        for row, name in enumerate(pictures):
            keypoints = golden[f"{name}/keypoints"]
            valid = outputs["valid"][row]
            assert valid.sum() == len(keypoints) == xfeat_values.COUNT
            found = outputs["keypoints"][row]
            distances = np.linalg.norm(found[:, None] - keypoints, axis=-1)
            nearest = distances.argmin(axis=1)
            assert sorted(nearest) == list(range(len(keypoints)))
            assert distances.min(axis=1).max() < 0.1
            np.testing.assert_allclose(
                outputs["vectors"][row],
                golden[f"{name}/descriptors"][nearest],
                atol=1e-4,
            )
            np.testing.assert_allclose(
                outputs["scores"][row],
                golden[f"{name}/scores"][nearest],
                atol=1e-5,
            )


@needs_weights
def test_an_image_depends_on_no_other_of_its_batch(served):
    """Sizes differ, one is damaged, one blank, and one smaller than a cell."""
    large, odd = xfeat_values.pictures().values()
    wall = np.full((40, 200, 3), 90, np.uint8)
    images = [
        _encoded(large),
        b"damaged",
        _encoded(wall),
        _encoded(odd),
        _encoded(odd[:5, :7]),
    ]
    together = served(images)
    assert together["size"].numpy().tolist() == [
        [96, 128],
        [0, 0],
        [40, 200],
        [101, 150],
        [5, 7],
    ]
    assert together["valid"].numpy().sum(axis=1)[[1, 2]].tolist() == [0, 0]
    for row, image in enumerate(images):
        alone = served([image])
        for name, values in alone.items():
            np.testing.assert_allclose(
                values[0], together[name][row], atol=1e-5, err_msg=name
            )
    for name, values in served(tf.zeros([0], tf.string)).items():
        assert values.shape[0] == 0, name


@needs_weights
def test_keypoints_are_in_pixels_of_the_upright_image_as_given(served):
    """A photograph twice as large as the limit, stored lying on its side."""
    picture = xfeat_values.pictures()["even"]
    picture = np.asarray(Image.fromarray(picture).resize((160, 96)))
    large = np.asarray(Image.fromarray(picture).resize((320, 192)))
    exif = Image.Exif()
    exif[0x0112] = 6  # Turn by 90 degrees clockwise to see it upright.
    lying = _encoded(np.rot90(large), "JPEG", exif=exif, quality=98)
    outputs = served([_encoded(picture), lying])
    assert outputs["size"].numpy().tolist() == [[96, 160], [192, 320]]
    small, turned = (
        outputs["keypoints"][row].numpy()[outputs["valid"][row].numpy()]
        for row in (0, 1)
    )
    distances = np.linalg.norm(
        2 * small[:, None] + 0.5 - turned[None], axis=-1
    ).min(axis=1)
    # Enlarged, compressed and reduced again, most are found within a pixel.
    assert np.median(distances) < 1.0


def test_a_file_must_hold_each_array_once(tmp_path):
    path = tmp_path / "xfeat.safetensors"
    arrays = {name: np.zeros(1, np.float32) for name in xfeat._names()}
    del arrays["block2.1.layer.0.weight"]
    arrays["block9.weight"] = np.zeros(1, np.float32)
    safetensors_file.write(path, arrays)
    with pytest.raises(
        ValueError,
        match=r"without block2\.1\.layer\.0\.weight; and with, in no layer of "
        r"it, block9\.weight",
    ):
        xfeat.read(path)
    arrays["block2.1.layer.0.weight"] = arrays.pop("block9.weight")
    safetensors_file.write(path, arrays)
    with pytest.raises(
        ValueError, match=r"'block1\.0\.layer\.0\.weight' to be"
    ):
        xfeat.read(path)


@needs_weights
def test_every_array_of_the_published_file_has_its_place():
    names = set(weights_file.read_arrays(WEIGHTS))
    assert len(names) == 122
    ignored = {
        name
        for name in names
        if name.startswith("fine_matcher.")
        or name.endswith("num_batches_tracked")
    }
    assert names - ignored == xfeat._names()
    assert len(network.build().weights) == len(xfeat._names())
