"""Results of each query, worked out by hand on a few images."""

import dataclasses
import pickle

import numpy as np
import pandas as pd
import pytest
import toy_manifest

from sare_tf.evaluation import ground_truth, protocols
from sare_tf.evaluation.evaluate_descriptors import Task

NONE = np.zeros(0, np.int64)


def _rows(count: int, prefix: str, **columns) -> pd.DataFrame:
    rows = [
        {
            "image_id": f"{prefix}{number}",
            "split": "test",
            "role": "query" if prefix == "q" else "database",
            **{name: values[number] for name, values in columns.items()},
        }
        for number in range(count)
    ]
    return toy_manifest.make(rows)


def _points(*angles_deg: float) -> np.ndarray:
    """Unit vectors in the plane."""
    angles = np.radians(angles_deg)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def _results(*, num_neighbours=3, junk=None, counted=None, **options):
    """4 queries at 0, 90, 180 and 270 degrees; 6 images."""
    queries = _rows(
        4,
        "q",
        place_id=["PRS_0000001", "PRS_0000002", "TRT_0000001", "TRT_0000002"],
        condition=["day", "night", "day", "day"],
        heading_deg=[0.0, 90.0, 10.0, np.nan],
        utm_east_m=[0.0, 100.0, 200.0, 300.0],
        utm_north_m=[0.0] * 4,
    )
    database = _rows(
        6,
        "d",
        utm_east_m=[0.0, 103.0, 200.0, 300.0, 1000.0, 2000.0],
        utm_north_m=[4.0] * 6,
    )
    positives = [np.array(rows) for rows in ([0], [1], [0, 4], [2])]
    task = _task(queries, database, positives, junk=junk, counted=counted)
    place_radius_m = options.pop("place_radius_m", 25.0)
    task = dataclasses.replace(
        task, protocol=dataclasses.replace(task.protocol, **options)
    )
    return task.evaluate(
        _points(0, 90, 180, 270),
        _points(5, 10, 100, 170, 200, 280),
        num_neighbours=num_neighbours,
        place_radius_m=place_radius_m,
    )


def _task(queries, database, positives, *, junk=None, counted=None):
    """A task whose ground truth is given by hand."""
    count = len(queries)
    return Task(
        protocol=protocols.PROTOCOLS["radius"],
        asked=np.ones(count, bool),
        queries=queries,
        database=database,
        truth=ground_truth.GroundTruth(
            positives=positives,
            junk=junk or [NONE] * count,
            counted=np.ones(count, bool) if counted is None else counted,
            allowed=None,
            panoramas=None,
            timestamps=None,
        ),
    )


def test_table_by_hand():
    table = _results().table()
    # Angles from 0: 5 10 80 100 ...; from 90: 10 80 80 85; from 180: 10 20 80;
    # from 270: 10 70 95 100.
    assert table["nearest_image_id"].tolist() == ["d0", "d2", "d3", "d5"]
    ranks = table["first_correct_rank"]
    # Query 1 looks for d1 at 80 degrees, as far as d3, which is later.
    assert ranks[:3].tolist() == [1, 2, 2]
    # Query 3 looks for d2, which is not among the first 3.
    assert ranks.isna().tolist() == [False, False, False, True]
    assert table["positive_image_id"].tolist() == ["d0", "d1", "d4", "d2"]
    # Squared chord of an angle: 2 - 2 cos.
    np.testing.assert_allclose(
        table["positive_squared_distance"],
        2 - 2 * np.cos(np.radians([5, 80, 20, 170])),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        table["nearest_metres"],
        [4, np.hypot(100, 4), np.hypot(100, 4), np.hypot(1700, 4)],
    )
    assert table["positives"].tolist() == [1, 1, 2, 1]


def test_confidence_by_hand():
    # Angles as above; the two nearest images are more than 25 m apart. Query 0
    # finds d0 and d1, 103 m apart, then d5 at 80 degrees.
    def chord(angle):
        return 2 * np.sin(np.radians(angle) / 2)

    pairs = [(5, 10), (10, 80), (10, 20), (10, 70)]
    expected = np.array([1 - chord(a) / chord(b) for a, b in pairs])
    found = _results().table()["confidence"]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    expected[0] = 1 - chord(5) / chord(80)
    wide = _results(place_radius_m=103).table()["confidence"]
    np.testing.assert_allclose(wide[:1], expected[:1], atol=1e-5)
    # Too few for parts: the first of query 0 alone is right.
    (part,) = _results().figures([1])["confidence"]
    assert (part["queries"], part["right"]) == (4, 1 / 4)
    assert part["from"] == pytest.approx(found.min())
    assert part["to"] == pytest.approx(found.max())


def test_figures_by_hand():
    figures = _results().figures([1, 2])
    assert figures["recall_at"] == {"1": 1 / 4, "2": 3 / 4}
    assert figures["recall_curve"]["recall"] == [1 / 4, 3 / 4, 3 / 4]
    assert figures["localisation"]["within_m"]["5"] == 1 / 4
    groups = figures["breakdown"]
    assert groups["condition"]["day"]["recall_at"] == {"1": 1 / 3, "2": 2 / 3}
    assert groups["city"]["TRT"]["recall_at"] == {"1": 0.0, "2": 0.5}
    assert {
        name: some["queries"] for name, some in groups["heading"].items()
    } == {
        "N": 2,
        "E": 1,
    }
    assert figures["precisions"] == {}


def test_queries_that_do_not_count_are_in_no_figure():
    counted = np.array([True, True, True, False])
    some = _results(counted=counted)
    assert some.figures([1])["recall_at"] == {"1": 1 / 3}
    assert some.table()["counted"].tolist() == counted.tolist()


def test_junk_is_passed_over():
    junk = [NONE, np.array([2]), np.array([3]), NONE]
    some = _results(
        junk=junk, full_ranking=True, mean_average_precision_at=(2,)
    )
    table = some.table()
    assert table["nearest_image_id"].tolist() == ["d0", "d1", "d4", "d5"]
    assert table["first_correct_rank"][:3].tolist() == [1, 1, 1]
    # Of the whole ranking: query 2 finds d4 first, and d0 (175 degrees) as
    # the fifth of 5, junk left out: (1 + 1 + 1/4 + 2/5) / 4. Query 3 finds d2
    # as the sixth of 6 (170; d1, d0, d3 at 100, 95, 100): 0 and 1/6.
    np.testing.assert_allclose(
        table["average_precision"], [1, 1, (2 + 1 / 4 + 2 / 5) / 4, 1 / 12]
    )
    # The second positive of query 2 is not among the first two.
    assert table["average_precision_at_2"].tolist() == [1, 1, 1 / 2, 0]
    # mP@5: of query 2, 2 of 5; of query 3, none of 5.
    np.testing.assert_allclose(table["precision_at_5"], [1, 1, 2 / 5, 0])
    figures = some.figures([1])["precisions"]
    assert figures["average_precision"] == pytest.approx(
        (2 + (2 + 1 / 4 + 2 / 5) / 4 + 1 / 12) / 4
    )


def test_recall_and_mean_average_precision():
    counted = np.array([True, True, True, False])
    results = _results(counted=counted, full_ranking=True)
    # Ranks 1, 2 and 2 of the three that count.
    assert results.recall_at([1, 2]) == {1: 1 / 3, 2: 1.0}
    with pytest.raises(ValueError, match="from 1 to 3.*Received: 4"):
        results.recall_at([4])
    precision = results.precisions["average_precision"]
    assert results.mean_average_precision == precision[:3].mean()
    assert _results().mean_average_precision is None


def test_results_are_plain_data():
    results = _results()
    with pytest.raises(dataclasses.FrozenInstanceError):
        results.ranks = None
    again = pickle.loads(pickle.dumps(results))
    pd.testing.assert_frame_equal(again.table(), results.table())
