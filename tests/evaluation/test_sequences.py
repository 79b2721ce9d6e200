"""Sequences: the protocols of MSLS, and `evaluate --sequence_length`."""

import json

import numpy as np
import pandas as pd
import pytest
import toy_search
from PIL import Image

from sare_tf import build_records, evaluate, index
from sare_tf.dataset import manifest
from sare_tf.evaluation import evaluate_descriptors, protocols
from sare_tf.evaluation.options import EvaluationOptions
from sare_tf.records.options import RecordOptions
from sare_tf.search.options import IndexOptions


def _drives(seed, role, count):
    """Images of two drives, with gaps, in no order."""
    random = np.random.default_rng(seed)
    frames = np.sort(random.choice(int(1.3 * count), count, replace=False))
    names = np.where(random.random(count) < 0.5, "a", "b").astype(object)
    names.sort()
    subtasks = random.choice(["all", "all d2n", "d2n"], count)
    images = manifest.make(
        image_id=[f"{role}{n}" for n in range(count)],
        role=role,
        positions=np.stack(
            [12.0 * frames + random.uniform(0, 9, count), 60 * (names == "b")],
            axis=1,
        )
        + [500_000, 4_500_000],
        utm_zone="17T",
        sequence_id=names,
        frame=frames,
        subtasks=subtasks.astype(object),
    )
    return images.iloc[random.permutation(count)].reset_index(drop=True)


def _as_sequences(images, length):
    """The rows of each sequence, as arange_as_seq of mapillary_sls."""
    ordered = images.sort_values(["sequence_id", "frame"])
    found = []
    for at in range(len(ordered)):
        first, last = at - length // 2, at + length // 2
        if first < 0 or last >= len(ordered):
            continue
        part = ordered.iloc[first : last + 1]
        same = part["sequence_id"].nunique() == 1
        if same and (part["frame"].diff()[1:] == 1).all():
            found.append(part.index.tolist())
    return found


def _near(query, image):
    metres = np.hypot(
        query["utm_east_m"] - image["utm_east_m"],
        query["utm_north_m"] - image["utm_north_m"],
    )
    return metres <= 25


@pytest.mark.parametrize("subtask", ["all", "d2n"])
@pytest.mark.parametrize(
    ("task", "lengths"),
    [("seq2seq", (5, 5)), ("seq2im", (5, 1)), ("im2seq", (1, 5))],
)
def test_protocols_of_msls_equal_a_loop(task, lengths, subtask):
    queries, database = _drives(1, "query", 50), _drives(2, "database", 90)
    protocol = protocols.choose(
        f"msls_{task}", subtask=subtask, sequence_length=5
    )
    results = evaluate_descriptors.evaluate_descriptors(
        protocol,
        queries=queries,
        database=database,
        query_vectors=toy_search.unit(3, 50, 4),
        database_vectors=toy_search.unit(4, 90, 4),
    )
    expected, middles = {}, {}
    of_query, of_database = (
        [
            rows
            for rows in _as_sequences(images, length)
            if subtask in images["subtasks"][rows[length // 2]].split()
        ]
        for images, length in zip((queries, database), lengths, strict=True)
    )
    for window in of_query:
        right = {
            rows[lengths[1] // 2]
            for rows in of_database
            if any(
                _near(queries.loc[q], database.loc[d])
                for q in window
                for d in rows
            )
        }
        expected[f"query{window[lengths[0] // 2]}"] = right
        middles = {rows[lengths[1] // 2] for rows in of_database}
    ids = [f"query{queries.index[q]}" for q in results.queries.index]
    assert sorted(ids) == sorted(expected)
    for name, rows in zip(ids, results.truth.positives, strict=True):
        assert set(rows) == expected[name]
    assert set(np.flatnonzero(results.truth.allowed)) == middles
    assert set(results.rows[results.rows >= 0]) <= middles
    counted = [len(expected[name]) > 0 for name in ids]
    np.testing.assert_array_equal(results.truth.counted, counted)
    assert 0 < sum(counted)
    assert len(ids) <= len(queries) - (lengths[0] - 1)


def test_sequences_need_frames():
    images = manifest.make(image_id=["a", "b"], positions=np.zeros((2, 2)))
    vectors = toy_search.unit(0, 2, 4)
    with pytest.raises(ValueError, match="sequence_id and frame .*: 2 of 2"):
        evaluate_descriptors.evaluate_descriptors(
            "msls_seq2seq",
            queries=images,
            database=images,
            query_vectors=vectors,
            database_vectors=vectors,
        )


def _picture(rng, pattern, noise):
    pixels = pattern + rng.normal(0, noise, pattern.shape)
    pixels = np.clip(pixels, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels.repeat(8, 0).repeat(8, 1))


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    """A drive past 24 places, and the same places again, with much noise."""
    root = tmp_path_factory.mktemp("drive")
    rng = np.random.default_rng(0)
    rows = []
    for place in range(24):
        pattern = rng.integers(0, 256, (4, 4, 3)).astype(float)
        for role, noise in (("database", 0), ("query", 230)):
            path = f"{role}/{place:03d}.png"
            (root / "photos" / role).mkdir(parents=True, exist_ok=True)
            _picture(rng, pattern, noise).save(root / "photos" / path)
            rows.append(
                {
                    "path": path,
                    "role": role,
                    "split": "test",
                    "utm_east": 500_000 + 50 * place,
                    "utm_north": 4_500_000,
                    "utm_zone": "17T",
                    "sequence": role,
                    "frame": place,
                }
            )
    pd.DataFrame(rows).to_csv(root / "photos/images.csv", index=False)
    inputs = {
        "records": build_records.run(
            RecordOptions(
                dataset=root / "photos",
                records=root / "records",
                reader="csv_table",
            )
        ),
        "export": toy_search.export(root / "export"),
        "index": root / "index",
    }
    index.run(IndexOptions(**inputs))
    return inputs


def _evaluate(drive, out, **options):
    path = evaluate.run(
        EvaluationOptions(**drive, evaluation=out, baseline_images=0, **options)
    )
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def plain(drive, tmp_path_factory):
    """What `evaluate` measures without sequences."""
    return _evaluate(drive, tmp_path_factory.mktemp("plain") / "evaluation")


@pytest.mark.parametrize("method", ["smoothing", "seqslam"])
def test_metrics_and_report_show_single_frames_beside(
    drive, plain, tmp_path, method
):
    assert "sequences" not in plain
    metrics = _evaluate(
        drive,
        tmp_path / "sequences",
        sequence_length=7,
        sequence_method=method,
        sequence_window=(1, 1),
        sequence_evidence=50,
    )
    single = metrics["single_frames"]["recall_at"]
    assert single == plain["recall_at"]
    assert metrics["recall_at"]["1"] > single["1"] + 0.2
    figures = metrics["sequences"]
    assert (figures["method"], figures["length"]) == (method, 7)
    assert figures["queries"] == "1 sequence of 24 images"
    gained = metrics["recall_at"]["1"] - single["1"]
    assert figures["made_right"] - figures["made_wrong"] == round(24 * gained)
    assert figures["ms_per_query"] > 0
    assert figures["constants"]["window"] == [1, 1]
    page = (tmp_path / "sequences/report.html").read_text()
    assert "up to 7 at a time" in page
    assert "<th>single frames</th>" in page
    table = pd.read_csv(tmp_path / "sequences/queries.csv")
    assert table["confidence"].between(0, 1 + 1e-6).all()
    right = table["first_correct_rank"] == 1
    assert right.mean() == pytest.approx(metrics["recall_at"]["1"])


def test_positions_instead_of_frames(drive, tmp_path):
    metrics = _evaluate(
        drive,
        tmp_path / "a",
        sequence_length=7,
        sequence_method="smoothing",
        sequence_step_m=40,
        sequence_evidence=50,
    )
    single = metrics["single_frames"]["recall_at"]["1"]
    assert metrics["recall_at"]["1"] > single


@pytest.mark.parametrize(
    ("task", "method"),
    [
        ("seq2seq", "average"),
        ("seq2im", "smoothing"),
        ("im2seq", "average"),
        ("im2seq", "seqslam"),
    ],
)
def test_tasks_of_msls(drive, tmp_path, task, method):
    metrics = _evaluate(
        drive,
        tmp_path / "a",
        protocol=f"msls_{task}",
        sequence_method=method,
        sequence_window=(1, 1),
        sequence_evidence=50,
        recall_at=[1, 5],
    )
    queries, _, database = task.partition("2")
    # The first and the last image are in the middle of no sequence.
    assert metrics["counts"]["queries"] == (22 if queries == "seq" else 24)
    assert metrics["counts"]["database"] == (22 if database == "seq" else 24)
    assert metrics["sequences"]["length"] == 3
    assert 0 < metrics["recall_at"]["1"] <= 1
    assert set(metrics["precisions"]) >= {"average_precision_at_5"}
    if queries == "seq" and method == "smoothing":
        single = metrics["single_frames"]["recall_at"]["1"]
        assert metrics["recall_at"]["1"] > single


def test_sequences_and_reranking_exclude_each_other(drive, tmp_path):
    with pytest.raises(ValueError, match="--rerank or --sequence_length"):
        EvaluationOptions(
            **drive, evaluation="x", rerank="rootsift", sequence_length=5
        )


def test_a_protocol_of_sequences_and_another_order(drive, tmp_path):
    with pytest.raises(ValueError, match="no --rerank .*'msls_seq2seq'"):
        _evaluate(
            drive,
            tmp_path / "a",
            protocol="msls_seq2seq",
            recall_at=[1],
            expand_queries=2,
        )


def test_queries_without_an_order_are_refused(tmp_path):
    """The toy's names hold coordinates, and no number of a frame."""
    inputs = {
        "records": toy_search.records(tmp_path),
        "export": toy_search.export(tmp_path / "export"),
        "index": tmp_path / "index",
    }
    index.run(IndexOptions(**inputs))
    with pytest.raises(ValueError, match="queries that follow each other"):
        _evaluate(inputs, tmp_path / "a", sequence_length=5)
