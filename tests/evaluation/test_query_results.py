"""What came of each query, worked out by hand on a few images."""

import numpy as np
import pandas as pd
import pytest
import toy_manifest

from sare_tf.evaluation import ground_truth, query_results
from sare_tf.search import exact_search

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


def _outcomes(k=3, junk=None, counted=None, **options):
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
    descriptors = _points(0, 90, 180, 270)
    database_descriptors = _points(5, 10, 100, 170, 200, 280)
    judged = ground_truth.Truth(
        positives=[
            np.array([0]),
            np.array([1]),
            np.array([0, 4]),
            np.array([2]),
        ],
        junk=junk or [NONE] * 4,
        counted=np.ones(4, bool) if counted is None else counted,
        allowed=None,
        panoramas=None,
        timestamps=None,
    )
    found, distances = exact_search.nearest(
        descriptors, database_descriptors, min(6, k + (1 if junk else 0))
    )
    return query_results.Outcomes(
        queries=queries,
        database=database,
        descriptors=descriptors,
        database_descriptors=database_descriptors,
        judged=judged,
        ranking=ground_truth.rank(judged, found, distances, k),
        **options,
    )


def test_table_by_hand():
    table = _outcomes().table()
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
    found = _outcomes().table()["confidence"]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    expected[0] = 1 - chord(5) / chord(80)
    wide = _outcomes(place_radius_m=103).table()["confidence"]
    np.testing.assert_allclose(wide[:1], expected[:1], atol=1e-5)
    # Too few for parts: the first of query 0 alone is right.
    (part,) = _outcomes().figures([1])["confidence"]
    assert (part["queries"], part["right"]) == (4, 1 / 4)
    assert part["from"] == pytest.approx(found.min())
    assert part["to"] == pytest.approx(found.max())


def test_figures_by_hand():
    figures = _outcomes().figures([1, 2])
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
    some = _outcomes(counted=counted)
    assert some.figures([1])["recall_at"] == {"1": 1 / 3}
    assert len(some.places().queries) == 3
    assert some.table()["counted"].tolist() == counted.tolist()


def test_junk_is_passed_over():
    junk = [NONE, np.array([2]), np.array([3]), NONE]
    some = _outcomes(junk=junk, full_ranking=True, average_precision_at=[2])
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


def test_images_of_another_zone_are_infinitely_far():
    queries = _rows(
        2,
        "q",
        utm_east_m=[0.0, 0.0],
        utm_north_m=[0.0, 0.0],
        utm_zone=["33U", "33U"],
    )
    database = pd.concat(
        [
            _rows(1, "d", utm_east_m=[3.0], utm_north_m=[4.0], utm_zone=[zone])
            for zone in ("33V", "10S")
        ],
        ignore_index=True,
    )
    vectors = _points(0, 90)
    judged = ground_truth.Truth(
        [np.array([0]), NONE], [NONE] * 2, np.ones(2, bool), None, None, None
    )
    some = query_results.Outcomes(
        queries=queries,
        database=database,
        descriptors=vectors,
        database_descriptors=vectors,
        judged=judged,
        ranking=exact_search.nearest(vectors, vectors, 1),
    )
    # 33V is north of 33U in one zone; 10S is elsewhere.
    assert some.table()["nearest_metres"].tolist() == [5.0, np.inf]
    # A query without positives has no case.
    assert some._choose_cases().tolist() == [0]


def test_cases_are_of_both_kinds_and_spread_over_the_margins(monkeypatch):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    place = [f"p{number // 3}" for number in range(60)]
    judged = ground_truth.Truth(
        # A third of the queries look for themselves, the others for another.
        [np.array([n if n % 3 == 0 else (n + 7) % 60]) for n in range(60)],
        [NONE] * 60,
        np.ones(60, bool),
        None,
        None,
        None,
    )
    some = query_results.Outcomes(
        queries=_rows(60, "q", place_id=place),
        database=_rows(60, "d", place_id=place),
        descriptors=vectors,
        database_descriptors=vectors,
        judged=judged,
        ranking=exact_search.nearest(vectors, vectors, 5),
    )
    monkeypatch.setattr(query_results, "_CASES", 10)
    chosen = some._choose_cases()
    assert (chosen[:5] % 3 != 0).all()
    assert (chosen[5:] % 3 == 0).all()
    assert len(set(chosen.tolist())) == 10
    monkeypatch.setattr(query_results, "_CASES", 50)
    # There are 20 right ones: 30 wrong ones fill the page.
    chosen = some._choose_cases()
    assert (chosen % 3 == 0).sum() == 20
    assert len(set(chosen.tolist())) == 50
    # From the worst margin to the best.
    margin = 2 - 2 * (vectors * vectors[(np.arange(60) + 7) % 60]).sum(axis=1)
    assert np.argmax(np.where(np.arange(60) % 3, margin, 0)) == chosen[0]
