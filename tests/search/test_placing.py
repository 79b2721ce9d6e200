"""Estimated positions against loops over their definitions."""

import dataclasses
import math

import numpy as np
import pytest

from sare_tf.dataset import manifest
from sare_tf.dataset.readers import utm
from sare_tf.search import estimate, placing, point_estimates
from sare_tf.search.estimate import Estimate, Placing
from sare_tf.search.placing import PositionMap

RNG = np.random.default_rng(0)
POINTS = RNG.normal(0, 40, (5, 6, 2))
VALUES = np.sort(RNG.uniform(0.2, 1, (5, 6)), axis=1)
KNOWN = np.ones((5, 6), bool)
KNOWN[1, 0] = KNOWN[2, 3] = False
POINTS[~KNOWN] = np.nan


def _weights(query, temperature):
    known = [i for i in range(6) if KNOWN[query, i]]
    least = min(VALUES[query, i] for i in known)
    weights = {
        i: math.exp(-(VALUES[query, i] - least) / temperature) for i in known
    }
    total = sum(weights.values())
    return {i: weight / total for i, weight in weights.items()}


def test_weights_by_loops():
    weights = point_estimates.weights_of(VALUES, KNOWN, 0.1)
    own = point_estimates.weights_of(VALUES, KNOWN, None)
    for query in range(5):
        expected = _weights(query, 0.1)
        for i in range(6):
            assert weights[query, i] == pytest.approx(expected.get(i, 0))
        known = VALUES[query][KNOWN[query]]
        gap = sum(known - min(known)) / (len(known) - 1)
        expected = _weights(query, gap / 4)
        for i in range(6):
            assert own[query, i] == pytest.approx(expected.get(i, 0))


def test_weights_of_few_or_similar_images():
    none = point_estimates.weights_of(np.ones((1, 3)), np.zeros((1, 3)) > 0, 1)
    assert none.tolist() == [[0, 0, 0]]
    for temperature in (None, 0.5):
        similar = point_estimates.weights_of(
            np.ones((1, 4)), np.ones((1, 4)) > 0, temperature
        )
        assert similar.tolist() == [[0.25] * 4]
        one = point_estimates.weights_of(
            np.array([[0.3, np.inf]]), np.ones((1, 2)) > 0, temperature
        )
        assert one.tolist() == [[1, 0]]


def test_means_and_spreads_by_loops():
    """SUE: the mean of both variances, no image more than 500 m away."""
    points = POINTS.copy()
    points[0, 5] = 5000, -3000
    weights = point_estimates.weights_of(VALUES, KNOWN, 0.2)
    means = point_estimates.mean(points, weights)
    spreads = point_estimates.spread(points, weights)
    for query in range(5):
        shares = _weights(query, 0.2)
        mean = [
            sum(w * points[query, i, axis] for i, w in shares.items())
            for axis in range(2)
        ]
        assert means[query] == pytest.approx(mean)
        variance = 0
        for i, weight in shares.items():
            for axis in range(2):
                away = points[query, i, axis] - mean[axis]
                variance += weight * max(-500, min(500, away)) ** 2 / 2
        assert spreads[query] == pytest.approx(variance**0.5)


def test_the_peak_is_the_densest_point_of_a_grid():
    weights = point_estimates.weights_of(VALUES, KNOWN, 0.2)
    peaks = point_estimates.peak(POINTS, weights, 15.0)

    def density(query, at):
        return sum(
            weight
            * math.exp(-((POINTS[query, i] - at) ** 2).sum() / (2 * 15.0**2))
            for i, weight in _weights(query, 0.2).items()
        )

    for query in range(5):
        axis = np.arange(-120, 121, 12.0)
        grid = max(density(query, np.array([x, y])) for x in axis for y in axis)
        assert density(query, peaks[query]) >= grid - 1e-9


def test_a_wrong_image_moves_the_mean_and_not_the_peak():
    points = np.array([[[0, 0], [2, 0], [4, 0], [900, 0]]], float)
    weights = np.full((1, 4), 0.25)
    assert point_estimates.mean(points, weights)[0, 0] == 226.5
    assert point_estimates.peak(points, weights, 12.5)[0] == pytest.approx(
        [2, 0], abs=1e-3
    )


def test_directions_are_averaged_on_the_circle():
    degrees = np.array([[350, 30, np.nan], [0, 180, 90], [np.nan] * 3])
    weights = np.array([[1.0, 1, 9], [1, 1, 0], [1, 1, 1]])
    found = point_estimates.circular_mean(degrees, weights)
    assert found[0] == pytest.approx(10)
    assert np.isnan(found[1:]).all()


def _map(east, north, zone, **columns):
    return manifest.make(
        image_id=[str(i) for i in range(len(east))],
        positions=np.stack([east, north], axis=1),
        utm_zone=zone,
        **columns,
    )


def _place(database, values, *, temperature=0.5, rows=None):
    rows = np.arange(len(values)) if rows is None else rows
    return PositionMap(database, radius_m=25).place(
        np.array([rows]), np.array([values]), temperature
    )


def test_zones_are_not_averaged_in_their_own_metres():
    """Two images 60 m apart, on both sides of the border of zones 32 and 33."""
    latitude, west, east = 48.0, 11.9996, 12.0004
    positions = [
        np.ravel(utm.to_utm([latitude], [longitude], zone))
        for longitude, zone in ((west, "32U"), (east, "33U"))
    ]
    database = _map(*np.transpose(positions), ["32U", "33U"])
    placed = _place(database, [0.5, 0.5])
    mean = placed.positions["mean"][0]
    (lat,), (lon,) = utm.to_degrees(mean[:1], mean[1:], "32U")
    assert (lat, lon) == pytest.approx((latitude, 12.0), abs=1e-7)
    assert placed.spread_m[0] == pytest.approx(30 / 2**0.5, rel=0.02)
    # The truth may be of the other zone, too.
    taken = database.iloc[[1]]
    truth = PositionMap(database, radius_m=25).in_zone_of(placed.anchors, taken)
    off = np.linalg.norm(truth[0] - mean)
    assert off == pytest.approx(30, rel=0.02)


def test_grids_without_a_way_between_them_are_left_out():
    database = _map([0.0, 10, 20], [0.0, 0, 0], ["here", "there", "here"])
    placed = _place(database, [0.1, 0.2, 0.2])
    assert np.isnan(placed.points[0, 1]).all()
    assert placed.weights[0, 1] == 0


def test_images_without_positions_count_for_nothing():
    nowhere = np.full(2, np.nan)
    placed = _place(_map(nowhere, nowhere, ""), [0.1, 0.2])
    assert placed.anchors.tolist() == [-1]
    for position in placed.positions.values():
        assert np.isnan(position).all()
    database = _map([np.nan, 7.0], [np.nan, 9.0], "")
    placed = _place(database, [0.1, 0.2])
    assert placed.anchors.tolist() == [1]
    assert placed.positions["nearest"].tolist() == [[7, 9]]
    # -1 stands for no image.
    placed = _place(database, [0.1, np.inf], rows=[1, -1])
    assert placed.positions["mean"].tolist() == [[7, 9]]


def test_headings_are_those_of_images_at_the_estimate():
    database = _map(
        [0.0, 10, 90], [0.0, 0, 0], "17T", heading_deg=[350.0, 20, 180]
    )
    placed = _place(database, [0.5, 0.5, 0.5])
    # The peak is at 5 m, where the first two are.
    assert placed.headings["peak"][0] == pytest.approx(5)
    # The nearest is at 0 m, which is within 25 m of both.
    assert placed.headings["nearest"][0] == pytest.approx(5)


def test_an_ellipse_is_a_line_of_equal_probability():
    covariance = np.array([[900.0, 300], [300, 400]])
    large = placing.ellipses(covariance, Placing())[1]
    assert large.share == "95"
    angle = math.radians(large.azimuth_deg)
    for along, across, length in (
        (math.sin(angle), math.cos(angle), large.major_m),
        (math.cos(angle), -math.sin(angle), large.minor_m),
    ):
        end = length * np.array([along, across])
        squared = end @ np.linalg.inv(covariance) @ end
        assert squared == pytest.approx(-2 * math.log(0.05))
    # A normal plane has that share inside.
    drawn = np.random.default_rng(1).multivariate_normal(
        [0, 0], covariance, 20_000
    )
    squared = np.einsum("qi,ij,qj->q", drawn, np.linalg.inv(covariance), drawn)
    for name, share in estimate.SHARES.items():
        inside = (squared <= Placing().scales[name]).mean()
        assert inside == pytest.approx(share, abs=0.01)


def _world(seed, queries=80):
    """Places 100 m apart with 4 images; queries beside one, in any order."""
    rng = np.random.default_rng(seed)
    east = np.repeat(np.arange(20) * 100.0, 4) + np.tile([0, 8, 16, 24], 20)
    database = _map(east, np.zeros(80), "17T")
    place = rng.integers(0, 20, queries)
    taken = _map(
        place * 100 + rng.uniform(0, 24, queries),
        rng.normal(0, 5, queries),
        "17T",
        role="query",
    )
    first = 4 * place[:, None] + rng.permuted(
        np.tile(np.arange(4), (queries, 1)), axis=1
    )
    wrong = rng.integers(0, 80, (queries, 6))
    rows = np.concatenate([first, wrong], axis=1)
    values = np.sort(rng.uniform(0.1, 0.2, (queries, 10)), axis=1)
    values[:, 4:] += 0.5
    return PositionMap(database, radius_m=25), rows, values, taken


def test_what_is_measured_on_known_queries():
    world, rows, values, taken = _world(0)
    found = placing.fit(world, rows, values, taken)
    assert found.queries == 80
    # The mean of four images beats one of them.
    assert found.method in ("mean", "peak")
    assert found.median_m[found.method] < found.median_m["nearest"]
    # By its definition: the n-th smallest, with one more query outside.
    placed = world.place(rows, values, found.temperature)
    truth = manifest.coordinates(taken)
    squared = []
    for query in range(80):
        centre = placed.positions[found.method][query]
        spread = 25.0 * np.eye(2)
        for i in range(10):
            away = placed.points[query, i] - centre
            spread += placed.weights[query, i] * np.outer(away, away)
        off = truth[query] - centre
        squared.append(off @ np.linalg.inv(spread) @ off)
    assert found.scales["95"] == pytest.approx(sorted(squared)[76])
    assert found.scales["68"] == pytest.approx(sorted(squared)[55])
    # Other queries are inside about as often.
    world, rows, values, taken = _world(1, queries=400)
    placed = world.place(rows, values, found.temperature)
    inside = placed.squared_radius(found.method, manifest.coordinates(taken))
    assert (inside <= found.scales["95"]).mean() > 0.88


def test_nothing_is_measured_without_positions():
    nowhere = np.full(12, np.nan)
    taken = _map(nowhere, nowhere, "")
    rows = np.zeros((12, 3), int)
    world = PositionMap(taken, radius_m=25)
    assert placing.fit(world, rows, np.ones((12, 3)), taken) is None


def _estimate(**changes):
    return dataclasses.replace(
        Estimate(
            method="mean",
            images=10,
            agreement=0.75,
            utm_east_m=500_000.0,
            utm_north_m=4_500_000.0,
            utm_zone="17T",
            latitude=40.5,
            longitude=-81.0,
            heading_deg=359.6,
            ellipses=placing.ellipses(np.diag([100.0, 4.0]), Placing()),
            queries=80,
            split="val",
        ),
        **changes,
    )


def test_words_by_hand():
    # 10 m * (-2 ln 0.32) ** 0.5 = 15.1 m, 2 m * ... = 3.0 m.
    assert _estimate().as_text() == (
        "position 40.500000, -81.000000 (the weighted mean of the matches), "
        "looking to 360°; 68 % within 15 x 3.0 m and 95 % within 24 x 4.9 m "
        "(val, n = 80)"
    )
    plain = _estimate(
        queries=0, agreement=0.25, latitude=None, heading_deg=None
    ).as_text()
    assert plain.startswith("position 500000.0 m east, 4500000.0 m north (")
    assert plain.endswith(
        "(not calibrated); 25 % of the matches' weight is there, other places "
        "look alike"
    )
    single = _estimate(images=1, ellipses=[]).as_text()
    assert single.endswith("from one match, so its error is unknown")


def test_json_and_back():
    one = _estimate()
    assert Estimate.from_json(one.as_json()) == one
    assert Estimate.from_json(None) is None
    used = Placing(method="peak", temperature=0.1, queries=9)
    assert Placing.from_json(dataclasses.asdict(used)) == used
    with pytest.raises(ValueError, match="holds no placing"):
        Placing.from_json({"method": "guess"})
    with pytest.raises(ValueError, match="holds no placing"):
        Placing.from_json({"scales": {"50": 1.0}})
