"""The exported graph gives the descriptors of the network that was trained."""

import io
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy_training
from absl import flags
from absl.testing import flagsaver
from PIL import Image
from tensorflow.core.protobuf import saved_model_pb2

from sare_tf import export, images, serving, train
from sare_tf.checkpoints import read_state
from sare_tf.records import Records

FLAGS = flags.FLAGS


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("export")
    toy_training.records(root)
    train.run(
        records=root / "records",
        checkpoints=root / "checkpoints",
        **toy_training.OPTIONS,
    )
    export.run(checkpoints=root / "checkpoints", export=root / "export")
    return root


def photographs():
    """Of several sizes and formats."""
    rng = np.random.default_rng(0)
    encoded = []
    for kind, shape in (
        ("JPEG", (32, 32, 3)),
        ("JPEG", (75, 100, 3)),
        ("PNG", (20, 31, 3)),
        ("JPEG", (40, 40)),
    ):
        low = rng.integers(0, 256, (shape[0] // 4 + 1, shape[1] // 4 + 1))
        pixels = low.repeat(4, 0).repeat(4, 1)[: shape[0], : shape[1]]
        if len(shape) == 3:
            pixels = np.stack([pixels, pixels // 2, 255 - pixels], -1)
        buffer = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(buffer, kind)
        encoded.append(buffer.getvalue())
    return encoded


def expected(root, encoded):
    """By the Keras model, on images decoded one by one."""
    _, state = read_state(root / "checkpoints")
    path = root / "checkpoints" / state["best"] / "model.keras"
    embedder = keras.models.load_model(path).get_layer("embedder")
    batch = np.stack([images.load(one, height=32, width=32) for one in encoded])
    return embedder.predict(batch, verbose=0)


def test_descriptors_equal_those_of_keras(root):
    servable = serving.load(root / "export")
    encoded = photographs()
    found = servable(encoded)
    assert found.shape == (4, servable.dimension) == (4, 4 * 96)
    np.testing.assert_allclose(found, expected(root, encoded), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_descriptors_do_not_depend_on_the_batch(root):
    servable = serving.load(root / "export")
    encoded = photographs()
    alone = np.concatenate([servable([one]) for one in encoded])
    np.testing.assert_allclose(servable(encoded), alone, atol=1e-6)
    assert servable([]).shape == (0, servable.dimension)


# What TF Serving does: the version 1 loader, nothing of ours, no Keras.
SERVE = """
import sys
import numpy as np
import tensorflow as tf
folder, source, target = sys.argv[1:]
encoded = np.load(source, allow_pickle=True)["encoded"].tolist()
with tf.compat.v1.Session(graph=tf.Graph()) as session:
    meta = tf.compat.v1.saved_model.load(session, ["serve"], folder)
    signature = meta.signature_def["serving_default"]
    found = session.run(
        {k: v.name for k, v in signature.outputs.items()},
        {signature.inputs["image_bytes"].name: encoded},
    )
    np.save(target, found["descriptor"])
names = [name for name in sys.modules if name.split(".")[0] == "sare_tf"]
assert not names, names
"""


@pytest.mark.own_process
def test_a_process_without_keras_gives_the_same(root, tmp_path):
    encoded = photographs()
    source = tmp_path / "images.npz"
    np.savez(source, encoded=np.array(encoded, object))
    target = tmp_path / "descriptors.npy"
    subprocess.run(
        [
            sys.executable,
            "-c",
            SERVE,
            str(root / "export" / "1"),
            str(source),
            str(target),
        ],
        check=True,
        cwd=tmp_path,
    )
    np.testing.assert_allclose(
        np.load(target), expected(root, encoded), atol=1e-5
    )


def test_the_other_signature_takes_pixels(root):
    encoded = photographs()
    model = tf.saved_model.load(str(root / "export" / "1"))
    batch = np.stack(
        [images.load(one, height=32, width=32) for one in encoded]
    ).astype(np.float32)
    found = model.signatures["embed_tensor"](images=tf.constant(batch))
    np.testing.assert_allclose(
        found["descriptor"], expected(root, encoded), atol=1e-5
    )


def test_the_graph_has_no_python_in_it(root):
    path = root / "export" / "1" / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    library = saved.meta_graphs[0].graph_def.library.function
    ops = {node.op for function in library for node in function.node_def}
    assert "DecodeJpeg" in ops
    assert not {op for op in ops if "PyFunc" in op or ">" in op}


def test_the_card_of_an_export(root):
    metadata = serving.load(root / "export").metadata
    assert metadata["dimension"] == 4 * 96
    assert (metadata["image_height"], metadata["image_width"]) == (32, 32)
    fingerprint = Records(root / "records").fingerprint
    assert metadata["training"]["records_fingerprint"] == fingerprint
    assert set(metadata["validation"]["recall_at"]) == {"1", "5", "10"}


def test_versions_count_up_and_the_highest_is_served(root, tmp_path):
    for number in (1, 2):
        version = export.run(
            checkpoints=root / "checkpoints",
            export=tmp_path / "export",
            epoch="epoch-0000",
        )
        assert version.name == str(number)
    assert serving.load(tmp_path / "export").path.name == "2"
    first = serving.load(tmp_path / "export" / "1")
    assert first.metadata["checkpoint"] == "epoch-0000"


def test_half_an_export_is_not_taken_for_whole(root, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(export.files, "write_json", fail)
    with pytest.raises(OSError, match="No space"):
        export.run(checkpoints=root / "checkpoints", export=tmp_path / "export")
    with pytest.raises(FileNotFoundError, match="Expected an export"):
        serving.load(tmp_path / "export")


def test_an_epoch_that_is_not_there(root):
    with pytest.raises(FileNotFoundError, match="Received: epoch='epoch-0077'"):
        export.run(
            checkpoints=root / "checkpoints",
            export=root / "other",
            epoch="epoch-0077",
        )


def test_no_checkpoints(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"sare_tf.train .* first"):
        export.run(checkpoints=tmp_path, export=tmp_path / "export")


def test_flags_of_another_network_are_refused(root):
    with (
        flagsaver.as_parsed(num_clusters="64"),
        pytest.raises(ValueError, match="--num_clusters=64 but .* has 4"),
    ):
        export.check_flags(root / "checkpoints")
