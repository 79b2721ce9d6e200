"""Queries that the page of an evaluation shows."""

import numpy as np
import pytest
import toy_manifest

from sare_tf.evaluation import ground_truth, protocols
from sare_tf.evaluation.evaluate_descriptors import Task
from sare_tf.pages import evaluation_cases


def _rows(count, prefix):
    return toy_manifest.make(
        {
            "image_id": f"{prefix}{number}",
            "split": "test",
            "role": "query" if prefix == "q" else "database",
            "place_id": f"p{number // 3}",
        }
        for number in range(count)
    )


def _results(positives, vectors, **options):
    count = len(positives)
    task = Task(
        protocol=protocols.PROTOCOLS["radius"],
        asked=np.ones(count, bool),
        queries=_rows(count, "q"),
        database=_rows(count, "d"),
        truth=ground_truth.GroundTruth(
            positives=[np.array(rows, np.int64) for rows in positives],
            junk=[np.zeros(0, np.int64)] * count,
            counted=np.ones(count, bool),
            allowed=None,
            panoramas=None,
            timestamps=None,
        ),
    )
    return task.evaluate(vectors, vectors, **options)


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 4)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def results(vectors):
    """A third of the queries look for themselves, the others for another."""
    positives = [[n if n % 3 == 0 else (n + 7) % 60] for n in range(60)]
    return _results(positives, vectors, num_neighbours=5)


def test_cases_are_of_both_kinds(results):
    chosen = evaluation_cases.choose(results, most=10)
    assert (chosen[:5] % 3 != 0).all()
    assert (chosen[5:] % 3 == 0).all()
    assert len(set(chosen.tolist())) == 10


def test_a_kind_with_few_queries_leaves_room_to_the_other(results, vectors):
    chosen = evaluation_cases.choose(results, most=50)
    # There are 20 right ones: 30 wrong ones fill the page.
    assert (chosen % 3 == 0).sum() == 20
    assert len(set(chosen.tolist())) == 50
    # From the worst margin to the best.
    margin = 2 - 2 * (vectors * vectors[(np.arange(60) + 7) % 60]).sum(axis=1)
    assert np.argmax(np.where(np.arange(60) % 3, margin, 0)) == chosen[0]


def test_a_query_without_positives_has_no_case(vectors):
    results = _results([[0], []], vectors[:2], num_neighbours=1)
    assert evaluation_cases.choose(results).tolist() == [0]


class _Records:
    """Images that are their names; one is lost."""

    def read_images(self, rows):
        return (name.encode() for name in rows["image_id"])

    def read_named(self, names):
        return [None if name == "d9" else name.encode() for name in names]


def test_pictures_of_a_case(vectors):
    """Query 0 looks for image 9, the farthest; query 1 for itself."""
    line = np.stack([np.arange(10.0), np.zeros(10)], axis=1)
    positives = [[9], [1]] + [[]] * 8
    results = _results(positives, line.astype(np.float32), num_neighbours=10)
    wrong, right = evaluation_cases.make(results, _Records())
    assert (wrong.kind, right.kind) == ("wrong", "right")
    assert wrong.query.encoded == b"q0"
    assert [picture.name for picture in wrong.retrieved] == [
        "d0", "d1", "d2", "d3", "d4",
    ]  # fmt: skip
    assert [picture.squared_distance for picture in wrong.retrieved] == [
        0, 1, 4, 9, 16,
    ]  # fmt: skip
    assert wrong.retrieved[1].encoded == b"d1"
    assert (wrong.missed.name, wrong.missed.encoded) == ("d9", None)
    assert (wrong.missed.squared_distance, wrong.missed.metres) == (81, None)
    assert right.missed is None
    assert [picture.correct for picture in right.retrieved][:2] == [True, False]
