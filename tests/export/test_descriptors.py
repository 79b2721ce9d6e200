"""The exported graph gives the descriptors of the network that was trained."""

import io
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import toy_images
from absl.testing import flagsaver
from PIL import Image, ImageOps
from tensorflow.core.protobuf import saved_model_pb2
from toy_export import (
    WHITENED,
    damaged,
    embedder,
    expected,
    load,
    photographs,
    unit,
    whitened,
)

from sare_tf import export, serving
from sare_tf.dataset import image_decoding


def test_descriptors_equal_those_of_keras(root):
    servable = load(root / "export")
    encoded = photographs()
    found, valid = servable(encoded)
    assert found.shape == (5, servable.dimension) == (5, 4 * 96)
    assert valid.tolist() == 5 * [True]
    np.testing.assert_allclose(found, expected(root, encoded), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_a_photograph_held_sideways_is_turned(root):
    sideways = photographs()[-1]
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(sideways)))
    assert upright.size == (40, 56)
    pixels = image_decoding.resize(np.asarray(upright), height=32, width=32)
    found, _ = load(root / "export")([sideways])
    np.testing.assert_allclose(found, embedder(root)(pixels[None]), atol=1e-5)


@pytest.mark.parametrize("name", ["export", "whitened"])
def test_descriptors_do_not_depend_on_the_batch(root, name):
    servable = load(root / name)
    encoded = photographs()
    alone = np.concatenate([servable([one])[0] for one in encoded])
    np.testing.assert_allclose(servable(encoded)[0], alone, atol=2e-6)


@pytest.mark.parametrize("name", ["export", "whitened"])
def test_damaged_images_do_not_fail_the_others(root, name):
    servable = load(root / name)
    good, bad = photographs(), damaged()
    found, valid = servable([*bad[:3], good[0], *bad[3:], *good[1:]])
    assert valid.tolist() == [*3 * [0], 1, 0, 0, *4 * [1]]
    np.testing.assert_allclose(found[valid], servable(good)[0], atol=2e-6)
    np.testing.assert_array_equal(found[~valid], 0)
    found, valid = servable(bad)
    assert not valid.any()
    np.testing.assert_array_equal(found, np.zeros((5, servable.dimension)))


def test_images_beyond_the_limits_are_not_decoded(root):
    """Of pixels, scans and compressed texts: the builder's and the page's."""
    servable, good = load(root / "export"), photographs()[:2]
    names = ("many_scans", "large_jpeg", "large_png", "many_texts")
    bad = [toy_images.BAD[name][0] for name in names]
    # Decoding it takes 14 s.
    bad.append(
        toy_images.jpeg_that_says(
            8192, 8192, encoded=toy_images.with_scans(2000)
        )
    )
    found, valid = servable([good[0], *bad, good[1]])
    assert valid.tolist() == [1, *5 * [0], 1]
    np.testing.assert_allclose(found[[0, -1]], servable(good)[0], atol=2e-6)


@pytest.mark.parametrize("name", ["export", "whitened"])
def test_no_images(root, name):
    servable = load(root / name)
    found, valid = servable([])
    assert found.shape == (0, servable.dimension)
    assert valid.shape == (0,)
    signature = servable._model.signatures["embed_tensor"]
    found = signature(images=tf.zeros((0, 40, 50, 3)))["descriptor"]
    assert found.shape == (0, servable.dimension)


# What TF Serving does: the version 1 loader, nothing of ours, no Keras; and
# the command that users look at a SavedModel with.
SERVE = """
import os
import sys
sys.modules["keras"] = sys.modules["sare_tf"] = None  # cannot be imported
import numpy as np
import tensorflow as tf
from tensorflow.python.tools import saved_model_cli
root, source = sys.argv[1:]
encoded = np.load(source, allow_pickle=True)["encoded"]
np.save("one.npy", encoded[:1].astype(bytes))
for name in ("export", "whitened"):
    folder = f"{root}/{name}/1"
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], folder)
        signature = meta.signature_def["serving_default"]
        outputs = {k: v.name for k, v in signature.outputs.items()}
        feed = signature.inputs["image_bytes"].name
        found = session.run(outputs, {feed: encoded})
        none = session.run(outputs, {feed: encoded[:0]})
    os.mkdir(name)
    np.savez(
        f"{name}/outputs.npz",
        **found, none=none["descriptor"], none_valid=none["valid"],
    )
    sys.argv = ["saved_model_cli", "run", "--dir", folder, "--tag_set", "serve"]
    sys.argv += ["--signature_def", "serving_default", "--outdir", name]
    sys.argv += ["--inputs", "image_bytes=one.npy"]
    try:
        saved_model_cli.main()
    except SystemExit as ended:
        if ended.code:
            raise
"""


@pytest.fixture(scope="module")
def served(root, tmp_path_factory):
    """What a process without Keras makes of photographs and damaged images."""
    folder = tmp_path_factory.mktemp("served")
    source = folder / "images.npz"
    np.savez(source, encoded=np.array([*photographs(), *damaged()], object))
    subprocess.run(
        [sys.executable, "-c", SERVE, str(root), str(source)],
        check=True,
        cwd=folder,
    )
    return folder


@pytest.mark.own_process
@pytest.mark.parametrize("name", ["export", "whitened"])
def test_a_process_without_keras_gives_the_same(root, served, name):
    outputs = np.load(served / name / "outputs.npz")
    descriptors = expected(root, photographs())
    if name == "whitened":
        descriptors = whitened(root, descriptors, WHITENED)
    np.testing.assert_allclose(
        outputs["descriptor"][:5], descriptors, atol=1e-5
    )
    np.testing.assert_array_equal(outputs["descriptor"][5:], 0)
    assert outputs["valid"].tolist() == [*5 * [True], *5 * [False]]
    assert outputs["none"].shape == (0, descriptors.shape[1])
    assert outputs["none_valid"].shape == (0,)
    by_command = np.load(served / name / "descriptor.npy")
    np.testing.assert_allclose(by_command, descriptors[:1], atol=1e-5)


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_a_server_gives_the_same(root, protocol):
    import toy_server

    encoded = photographs()
    with toy_server.serve(root / "whitened" / "1") as toy:
        remote = serving.load(getattr(toy, protocol))
        found, valid = remote([*encoded, *damaged()])
    assert remote.fingerprint == load(root / "whitened").fingerprint
    assert valid.tolist() == [*5 * [True], *5 * [False]]
    descriptors = whitened(root, expected(root, encoded), WHITENED)
    np.testing.assert_allclose(found[:5], descriptors, atol=1e-5)
    np.testing.assert_array_equal(found[5:], 0)


def test_descriptors_of_several_scales_are_averaged(root, tmp_path):
    with flagsaver.as_parsed(
        checkpoints=str(root / "checkpoints"),
        export=str(tmp_path / "export"),
        records=str(tmp_path / "moved_away"),  # not needed for this
        scales="1,0.7071,0.5",
        model_licence="MIT",
    ):
        export.main(["export"])
    encoded = photographs()
    batch = np.stack(
        [image_decoding.load(one, height=32, width=32) for one in encoded]
    )
    # Unknown sizes, for a model that was built for one.
    any_size = [tf.TensorSpec((None, None, None, 3), tf.uint8)]
    embed = tf.function(embedder(root), input_signature=any_size)
    total = np.float64(embed(batch))
    for size in (23, 16):  # 32 x 0.7071 = 22.6
        smaller = image_decoding.resize(batch, height=size, width=size)
        total += np.float64(embed(smaller))
    servable = serving.load(tmp_path / "export")
    found, _ = servable(encoded)
    np.testing.assert_allclose(found, unit(total / 3), atol=1e-5)
    signature = servable._model.signatures["embed_tensor"]
    found = signature(images=tf.constant(batch, tf.float32))["descriptor"]
    np.testing.assert_allclose(found, unit(total / 3), atol=1e-5)
    assert servable.metadata["scales"] == [1, 0.7071, 0.5]
    assert servable.metadata["licence"] == "MIT"
    assert servable.metadata["training_images"] is None


def test_the_other_signature_takes_pixels(root):
    encoded = photographs()
    loaded = tf.saved_model.load(str(root / "export" / "1"))
    batch = np.stack(
        [image_decoding.load(one, height=32, width=32) for one in encoded]
    ).astype(np.float32)
    found = loaded.signatures["embed_tensor"](images=tf.constant(batch))
    np.testing.assert_allclose(
        found["descriptor"], expected(root, encoded), atol=1e-5
    )


@pytest.mark.parametrize("name", ["export", "whitened"])
def test_the_graph_has_no_python_in_it(root, name):
    path = root / name / "1" / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    library = saved.meta_graphs[0].graph_def.library.function
    ops = {node.op for function in library for node in function.node_def}
    assert {"DecodeJpeg", "IgnoreErrorsDataset"} <= ops
    assert not {op for op in ops if "PyFunc" in op or ">" in op}
    # One dataset per call, no state that a server would have to initialise.
    assert not {op for op in ops if "Iterator" in op or "Generator" in op}
