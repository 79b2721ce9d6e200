"""Outputs of earlier versions are read, and give the same results.

tests/kept/v0.1.0 was made by the code of that version (commit 903ad6b) with its
`toy.flags`: synthetic_city, build_records, train, export, index and evaluate.
`expected.npz` holds descriptors and neighbours that it computed from them, and
`resumed.json` what one more epoch of training measured.
"""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from paths import ROOT

from sare_tf import build_records, evaluate, export, serving, train
from sare_tf.evaluation.options import EvaluationOptions
from sare_tf.records.options import RecordOptions
from sare_tf.records.records import Records
from sare_tf.search.opened_index import Index
from sare_tf.training.options import ExportOptions, TrainingOptions
from sare_tf.training.run_folder import load_embedder, read_state

KEPT = ROOT / "tests" / "kept" / "v0.1.0"
EXPECTED = np.load(KEPT / "expected.npz")
TRAINING = {
    "records": KEPT / "records",
    "image_height": 48,
    "image_width": 64,
    "backbone": "small",
    "num_clusters": 2,
    "learning_rate": 0.02,
    "inverse_bandwidth": 10,
    "tuples_per_batch": 2,
    "num_negatives": 3,
    "negative_pool": 0,
    "val_queries": 0,
}


def test_records_are_whole():
    build_records.run(RecordOptions(records=KEPT / "records", verify=True))


def test_a_checkpoint_gives_the_same_descriptors():
    images = np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3))
    embedder = load_embedder(KEPT / "checkpoints", epoch="epoch-0001")
    descriptors = embedder.predict(images.astype(np.uint8), verbose=0)
    np.testing.assert_allclose(descriptors, EXPECTED["network"], atol=1e-6)


def test_training_resumes(tmp_path):
    shutil.copytree(KEPT / "checkpoints", tmp_path / "run")
    train.run(
        TrainingOptions(checkpoints=tmp_path / "run", epochs=2, **TRAINING)
    )
    resumed = read_state(tmp_path / "run")[1]["history"][2]
    expected = json.loads((KEPT / "resumed.json").read_text("utf-8"))
    assert resumed["recall_at"] == expected["recall_at"]
    assert resumed["loss"] == pytest.approx(expected["loss"], rel=1e-4)


def _embed(path, role):
    records = Records(KEPT / "records")
    rows = records.rows("test", role)
    assert rows["image_id"].tolist() == EXPECTED[f"{role}_ids"].tolist()
    descriptors, valid = serving.load(path)(list(records.read_images(rows)))
    assert valid.all()
    return descriptors


@pytest.mark.parametrize("role", ["query", "database"])
def test_an_export_gives_the_same_descriptors(role):
    descriptors = _embed(KEPT / "export", role)
    np.testing.assert_allclose(descriptors, EXPECTED[role], atol=1e-6)


def test_a_checkpoint_exported_again_gives_the_same(tmp_path):
    version = export.run(
        ExportOptions(
            checkpoints=KEPT / "checkpoints",
            export=tmp_path / "export",
            records=KEPT / "records",
            whitening_dimension=16,
            whitening_samples=40,
        )
    )
    # By products: the signs of principal axes are free.
    queries, database = (
        _embed(version, role) for role in ("query", "database")
    )
    np.testing.assert_allclose(
        queries @ database.T,
        EXPECTED["query"] @ EXPECTED["database"].T,
        atol=1e-4,
    )


def test_an_index_gives_the_same_neighbours():
    rows, distances = Index.open(KEPT / "index").search(EXPECTED["query"], 5)
    np.testing.assert_array_equal(rows, EXPECTED["rows"])
    np.testing.assert_allclose(distances, EXPECTED["distances"], atol=1e-6)


def test_an_evaluation_gives_the_same_metrics(tmp_path):
    evaluate.run(
        EvaluationOptions(
            records=KEPT / "records",
            export=KEPT / "export",
            index=KEPT / "index",
            evaluation=tmp_path / "evaluation",
        )
    )
    before, after = (
        json.loads((folder / "evaluation" / "metrics.json").read_text("utf-8"))
        for folder in (KEPT, tmp_path)
    )
    for metrics in (before, after):
        del metrics["speed"], metrics["versions"]
    # Added since.
    added = {"baselines", "epoch_choice", "digests", "model", "sha256"}
    added |= {"doubt", "placing"}
    assert set(after) - set(before) == added
    # Distances have the rounding of the processor that computed them.
    for one, other in zip(
        before.pop("confidence"), after.pop("confidence"), strict=True
    ):
        assert one == pytest.approx(other, rel=1e-5)
    parameters, found = (
        metrics["protocol"].pop("parameters") for metrics in (before, after)
    )
    # Protocols may have more of them since.
    assert {name: found[name] for name in parameters} == parameters
    assert {name: after[name] for name in before} == before
    before, after = (
        pd.read_csv(folder / "evaluation" / "queries.csv")
        for folder in (KEPT, tmp_path)
    )
    # Columns that came since are the last ones.
    after = after.iloc[:, : before.shape[1]]
    pd.testing.assert_frame_equal(after, before, rtol=1e-5)
