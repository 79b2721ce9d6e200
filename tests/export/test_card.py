"""Card, fingerprint, and requests to warm up with."""

import hashlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from toy_export import WHITENED, embedder, expected, load, photographs

from sare_tf import model, serving
from sare_tf.dataset import image_decoding
from sare_tf.model.exported_graph import ExportedGraph
from sare_tf.records.records import Records
from sare_tf.serving import warmup_requests
from sare_tf.training.run_folder import read_state


def test_the_card_of_an_export(root):
    metadata = load(root / "export").metadata
    assert metadata["dimension"] == 4 * 96
    assert (metadata["image_height"], metadata["image_width"]) == (32, 32)
    fingerprint = Records(root / "records").fingerprint
    assert metadata["training"]["records_fingerprint"] == fingerprint
    assert metadata["training_images"]["train/database"] == 12
    assert set(metadata["validation"]["recall_at"]) == {"1", "5", "10"}
    _, state = read_state(root / "checkpoints")
    choice = metadata["epoch_choice"]
    assert choice["epoch"] == metadata["checkpoint"] == state["best"]
    assert choice["recall_at"] == metadata["validation"]["recall_at"]
    assert choice["recall_at_before"] == state["history"][0]["recall_at"]
    assert (choice["epochs"], choice["val_queries"]) == (2, 12)
    assert metadata["whitening"] is None
    assert metadata["licence"] == "CC-BY-4.0"
    assert "upright by the EXIF header" in metadata["preprocessing"]


def test_the_card_tells_of_the_whitening(root):
    metadata = load(root / "whitened").metadata
    assert metadata["dimension"] == WHITENED
    told = metadata["whitening"]
    assert (told["dimension"], told["samples"]) == (WHITENED, 12)
    assert told["fitted_to"] == "database images of the train split"
    assert told["records_fingerprint"] == Records(root / "records").fingerprint
    records = Records(root / "records")
    rows = records.rows("train", "database")
    descriptors = np.float64(expected(root, records.read_images(rows)))
    variances = np.linalg.eigvalsh(np.cov(descriptors.T))[::-1]
    assert told["explained_variance"] == pytest.approx(
        variances[:WHITENED].sum() / variances.sum(), abs=1e-4
    )


def test_requests_to_warm_up_with(root):
    folder = root / "whitened" / "1"
    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    one, batch = [r.numpy() for r in tf.data.TFRecordDataset([str(path)])]
    # Its last field is the image, so that this is all of it.
    encoded = one[one.index(b"\xff\xd8\xff") :]
    assert one == warmup_requests.prediction_log([encoded])
    assert batch == warmup_requests.prediction_log(8 * [encoded])
    assert image_decoding.decode(encoded).shape == (32, 32, 3)
    assert serving.load(folder)([encoded])[1].all()


def test_requests_are_encoded_as_by_the_official_classes():
    # SerializeToString(deterministic=True) of a PredictionLog of
    # tensorflow-serving-api 2.20.0, for the same images.
    assert warmup_requests.prediction_log([b"one", b"\xff\xd8two"]).hex() == (
        "323a0a380a111a0f73657276696e675f64656661756c7412230a0b696d6167655f62"
        "797465731214080712041202080242036f6e654205ffd874776f"
    )
    long = warmup_requests.prediction_log([2 * bytes(range(256))])
    assert len(long) == 567
    assert hashlib.sha256(long).hexdigest() == (
        "1875db83b2ec45a8725fe0efd09dbed4f9bebb9fa6eb096ebb52a9f5e99e92be"
    )


def test_the_fingerprint_is_of_all_that_descriptors_depend_on(root):
    keras_model = model.build_embedder(backbone="small", aggregation="gem")
    whitening = model.Whitening(2)
    whitening.build((None, 96))
    fingerprints = []
    for change in (
        {},
        {"height": 33},
        {"width": 33},
        {"scales": [1, 0.5]},
        {"truncate_dimension": 3},
        {"whitening": whitening},
    ):
        settings = {"height": 32, "width": 32} | change
        graph = ExportedGraph(embedder=keras_model, **settings)
        fingerprints.append(graph.fingerprint)
    weight = keras_model.weights[0]
    values = weight.numpy()
    weight.assign(values + np.eye(1, values.size).reshape(values.shape) * 1e-6)
    graph = ExportedGraph(embedder=keras_model, height=32, width=32)
    fingerprints.append(graph.fingerprint)
    assert len(set(fingerprints)) == 7
    weight.assign(values)
    assert graph.fingerprint == fingerprints[0]
    graph = ExportedGraph(embedder=embedder(root), height=32, width=32)
    assert load(root / "export").metadata["fingerprint"] == graph.fingerprint


@pytest.mark.parametrize("name", ["export", "whitened"])
def test_every_image_is_answered_with_the_fingerprint(root, name):
    servable = load(root / name)
    for encoded in ([], [b"", *photographs()]):
        outputs = servable._serve(image_bytes=tf.constant(encoded, tf.string))
        assert outputs["fingerprint"].numpy().tolist() == (
            len(encoded) * [servable.fingerprint.encode()]
        )


def test_a_card_without_a_fingerprint_is_refused(root, tmp_path):
    shutil.copytree(root / "export" / "1", tmp_path / "1")
    (tmp_path / "1" / "sare_tf.json").write_text('{"dimension": 384}')
    with pytest.raises(ValueError, match="lacks 'fingerprint'.*run .*export"):
        serving.load(tmp_path)
