"""What is known of photographs, beside loops over all images."""

import json
import math

import numpy as np
import pytest
import toy_damage
import toy_index
import toy_search

from sare_tf.dataset import manifest
from sare_tf.dataset.readers import utm
from sare_tf.runtime import file_digests
from sare_tf.search import exact_search, geography, scann_searcher, segments
from sare_tf.search import region as regions
from sare_tf.search.opened_index import Index
from sare_tf.search.prior import Prior, span_of
from sare_tf.search.prior_rows import PriorRows

SQUARE = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]
HOLE = [[2, 2], [2, 5], [5, 6], [5, 2], [2, 2]]
# Cut at the antimeridian.
FIJI = {
    "type": "MultiPolygon",
    "coordinates": [
        [[[177, -19], [180, -19], [180, -16], [177, -16], [177, -19]]],
        [[[-180, -19], [-179, -19], [-179, -16], [-180, -16], [-180, -19]]],
    ],
}


def _polygon(*rings):
    return {"type": "Polygon", "coordinates": list(rings)}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "Received none of them"),
        ({"near": (1, 2)}, "within_m=None. Give both or none"),
        ({"within_m": 5}, "near=None"),
        ({"near": (91, 2), "within_m": 5}, "latitude from -90 to 90"),
        ({"near": (1, 2, 3), "within_m": 5}, "near=.1, 2, 3."),
        ({"near": (1, math.nan), "within_m": 5}, "near=.1, nan."),
        ({"near": (1, 2), "within_m": 0}, "within_m above 0"),
        ({"taken_from": "July"}, "taken_from as 2016.*'July'"),
        ({"taken_until": "2016-13"}, "taken_until as 2016.*'2016-13'"),
        (
            {"taken_from": "2017", "taken_until": "2016-12"},
            "ends after it begins",
        ),
        ({"region": {"type": "Point", "coordinates": [1, 2]}}, "type='Point'"),
        ({"region": {"type": "Polygon"}}, "a polygon that is no list: None"),
        ({"region": _polygon()}, "without a polygon"),
        ({"region": _polygon(SQUARE[:-1])}, "of 4 positions that is not clos"),
        ({"region": _polygon([[0, 0], [1, 1], [0, 0]])}, "ring of 3 positions"),
        ({"region": _polygon([[0, 95], *SQUARE])}, r"position \[0, 95\]"),
        ({"region": _polygon([[True, 0], *SQUARE])}, "position .True, 0"),
        (
            {"region": _polygon([[179, 0], [-179, 0], [-179, 1], [179, 0]])},
            "from longitude 179 to -179; cut the region in two at the antimer",
        ),
        ({"region": {"type": "FeatureCollection", "features": []}}, "without"),
    ],
)
def test_what_cannot_be_searched_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Prior(**given)


def test_files_that_are_no_region(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"region=.*none.geojson"):
        regions.read(tmp_path / "none.geojson")
    (tmp_path / "a.geojson").write_text("[1]")
    with pytest.raises(ValueError, match=r"\[1\].*read from .*a.geojson"):
        regions.read(tmp_path / "a.geojson")
    (tmp_path / "a.geojson").write_text("<kml>")
    with pytest.raises(ValueError, match="a text that is no JSON"):
        regions.read(tmp_path / "a.geojson")


def test_a_prior_becomes_json_and_words():
    prior = Prior(
        near=[1.5, -2],
        within_m=300,
        region={"type": "Feature", "geometry": _polygon(SQUARE, HOLE)},
        taken_from="2016",
        taken_until="2017-03",
        conditions=["night"],
        place_ids="p",
    )
    written = json.loads(json.dumps(prior.as_json()))
    assert Prior.from_json(written) == prior
    assert prior.as_text() == (
        "within 300 m of 1.5, -2, inside the region, taken from 2016 until "
        "2017-03, of condition night, of place p"
    )


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("2016", "2016"),
        ("2016-07", "201607"),
        ("201607", "201607"),
        ("2016:07:31 12:45:12", "20160731124512"),
        ("2016-07-31T12:45:12.25Z", "20160731124512"),
        ("2016-07-31T12:45+02:00", "201607311245"),
        ("20160731_124512", "20160731124512"),
        ("0000:00:00 00:00:00", None),
        ("1467331200", None),
        ("1467331200000", None),
        ("2016-07-32", None),
        ("", None),
    ],
)
def test_times(text, first):
    if first is None:
        assert span_of(text) is None
    else:
        assert span_of(text) == (
            int(first + "0" * (14 - len(first))),
            int(first + "9" * (14 - len(first))),
        )


def _vincenty(a, b):
    """T. Vincenty, Survey Review XXII 176, 1975: the inverse formulae."""
    f, equator = 1 / 298.257223563, 6378137.0
    pole = (1 - f) * equator
    (lat1, lon1), (lat2, lon2) = (map(math.radians, one) for one in (a, b))
    u1, u2 = (math.atan((1 - f) * math.tan(lat)) for lat in (lat1, lat2))
    su1, cu1, su2, cu2 = math.sin(u1), math.cos(u1), math.sin(u2), math.cos(u2)
    lam = lon2 - lon1
    for _ in range(60):
        s = math.hypot(
            cu2 * math.sin(lam), cu1 * su2 - su1 * cu2 * math.cos(lam)
        )
        c = su1 * su2 + cu1 * cu2 * math.cos(lam)
        sigma = math.atan2(s, c)
        sa = cu1 * cu2 * math.sin(lam) / s
        c2a = 1 - sa * sa
        c2m = c - 2 * su1 * su2 / c2a
        k = f / 16 * c2a * (4 + f * (4 - 3 * c2a))
        lam = (
            lon2
            - lon1
            + (1 - k)
            * f
            * sa
            * (sigma + k * s * (c2m + k * c * (2 * c2m**2 - 1)))
        )
    uu = c2a * (equator**2 - pole**2) / pole**2
    big_a = 1 + uu / 16384 * (4096 + uu * (-768 + uu * (320 - 175 * uu)))
    big_b = uu / 1024 * (256 + uu * (-128 + uu * (74 - 47 * uu)))
    delta = (
        big_b
        * s
        * (
            c2m
            + big_b
            / 4
            * (
                c * (2 * c2m**2 - 1)
                - big_b / 6 * c2m * (4 * s * s - 3) * (4 * c2m**2 - 3)
            )
        )
    )
    return pole * big_a * (sigma - delta)


@pytest.mark.parametrize("point", [(0.5, 10), (48.8, 2.3), (-77, -179.99)])
def test_distances_are_along_the_ground(point):
    rng = np.random.default_rng(0)
    away = rng.normal(size=(40, 2)) * np.logspace(-4, 0.6, 40)[:, None]
    others = point + away
    metres = geography.metres_from(point, others)
    expected = [_vincenty(point, other) for other in others.tolist()]
    assert min(expected) < 50
    assert 1e5 < max(expected) < 1e6
    np.testing.assert_allclose(metres, expected, rtol=1e-5, atol=1e-6)
    assert np.isnan(geography.metres_from(point, np.array([[np.nan, 1]])))


def _winding(ring, x, y):
    """How often a ring goes round a point, by the angles of its edges."""
    turned = 0.0
    for (x0, y0), (x1, y1) in zip(ring, ring[1:], strict=False):
        a = math.atan2(y0 - y, x0 - x)
        b = math.atan2(y1 - y, x1 - x)
        turned += (b - a + math.pi) % (2 * math.pi) - math.pi
    return round(turned / (2 * math.pi))


def test_inside_a_region_with_a_hole_beside_winding_numbers():
    far = [[20, 3], [25, 9], [30, 3], [25, 20], [20, 3]]  # not convex
    region = {
        "type": "FeatureCollection",
        "features": [
            {"type": "Feature", "geometry": _polygon(SQUARE, HOLE)},
            {"type": "Feature", "geometry": _polygon(far[::-1])},
        ],
    }
    degrees = np.random.default_rng(3).uniform(-5, 35, (3000, 2))
    degrees[7] = np.nan
    marked = geography.inside(regions.polygons_of(region), degrees)
    expected = [
        not math.isnan(x)
        and bool(
            (_winding(SQUARE, x, y) and not _winding(HOLE, x, y))
            or _winding(far, x, y)
        )
        for y, x in degrees.tolist()
    ]
    assert 100 < sum(expected) < 1000
    assert marked.tolist() == expected


def test_a_region_on_both_sides_of_the_antimeridian():
    degrees = np.array(
        [[-17, 178], [-17, -179.5], [-17, -178], [-17, 176], [-20, 178], [0, 0]]
    )
    marked = geography.inside(regions.polygons_of(FIJI), degrees)
    assert marked.tolist() == [True, True, False, False, False, False]


@pytest.fixture
def images():
    """Six images in two zones, the last without anything known."""
    east, north = utm.to_utm([-17, -17.001], [179.999, 179.999], "60K")
    west, wide = utm.to_utm([-17], [-179.999], "1K")
    rows = manifest.make(
        image_id=list("abcdef"),
        place_id=["p", "p", "q", "q", "r", ""],
        positions=np.array(
            [
                [east[0], north[0]],
                [east[1], north[1]],
                [west[0], wide[0]],
                [500_000, 5e6],
                [500_000, 5e6],
                [np.nan, np.nan],
            ]
        ),
        utm_zone=["60K", "60K", "1K", "17T", "17T", ""],
        timestamp=["2016", "2016-07", "201608", "2017:01:01 00:00:00", "x", ""],
        condition=["day", "night", "day", "", "dusk", ""],
    )
    return PriorRows(rows)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # 213 m from each other, over the antimeridian; b is 111 m from a.
        ({"near": (-17, 179.999), "within_m": 150}, "ab"),
        ({"near": (-17, 179.999), "within_m": 240}, "abc"),
        ({"near": (-17, 179.999), "within_m": 2e7}, "abcde"),
        ({"region": FIJI}, "abc"),
        ({"taken_from": "2016-07", "taken_until": "2016-07"}, "ab"),
        ({"taken_from": "2016-08"}, "acd"),
        ({"taken_until": "2016-06"}, "a"),
        ({"conditions": ("day", "dusk")}, "ace"),
        ({"place_ids": ("q",)}, "cd"),
        ({"place_ids": ("q",), "region": FIJI}, "c"),
    ],
)
def test_images_that_agree_by_hand(images, given, expected):
    marked = images.allowed(Prior(**given))
    assert "".join(np.array(list("abcdef"))[marked]) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"taken_until": "2015"}, "taken until 2015. Received: none of the 6"),
        ({"near": (0, 0), "within_m": 9}, "within 9 m of 0, 0. Received: none"),
        ({"conditions": ("fog",)}, "have: day, dusk, night. Received: 'fog'"),
        ({"place_ids": ("q", "z")}, "place_id that.*p, q, r. Received: 'z'"),
    ],
)
def test_a_prior_that_leaves_nothing(images, given, message):
    with pytest.raises(ValueError, match=message):
        images.allowed(Prior(**given))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"near": (0, 0), "within_m": 9}, "a position with a UTM zone"),
        ({"region": FIJI}, "a position with a UTM zone"),
        ({"taken_until": "2015"}, "a time that can be read"),
        ({"conditions": ("day",)}, "a condition"),
        ({"place_ids": ("p",)}, "a place_id"),
    ],
)
def test_a_prior_on_what_no_image_has(given, message):
    # Metres without a zone are no degrees.
    rows = manifest.make(image_id=list("ab"), positions=np.zeros((2, 2)))
    with pytest.raises(ValueError, match=f"images with {message}.*2 images"):
        PriorRows(rows).allowed(Prior(**given))


def test_images_that_lack_something_are_counted(images, caplog):
    images.allowed(Prior(region=FIJI))
    assert "1 of 6 images are not searched, because they lack" in caplog.text


COUNT, DIMENSION = 1200, 16


@pytest.fixture(scope="module")
def descriptors():
    rows = toy_index.clustered(4, 48, 25, DIMENSION)
    rows[700] = rows[30]  # equally far from all, in two segments
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory, descriptors):
    """Two shards with trees, of 800 and 400 rows; 0-59 of the first removed."""
    root = tmp_path_factory.mktemp("shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scann_searcher, "TREE_FROM", 0)
        for name, start, stop in (("a", 0, 800), ("b", 800, COUNT)):
            names = [str(row) for row in range(start, stop)]
            toy_index.write(root / name, descriptors[start:stop], names)
    np.save(root / "a" / "removed-00001.npy", np.arange(60))
    toy_damage.edit(
        root / "a" / "index.json",
        removed="removed-00001.npy",
        count=740,
        digests=file_digests.of(root / "a", ["removed-00001.npy"]),
    )
    return root


def _filters(descriptors):
    """Marks of the 1,140 rows that are left, by rows and by clusters."""
    rng = np.random.default_rng(7)
    row = np.arange(60, COUNT)
    return {
        "3 %": rng.random(len(row)) < 0.03,
        "half": rng.random(len(row)) < 0.5,
        "clusters": (row // 25) % 3 > 0,
        "99 %": rng.random(len(row)) < 0.99,
        "one segment": row >= 800,
        "one row": row == 700,
        "all": row > 0,
    }


def _after(queries, descriptors, where, k):
    """Filters the exact order of all rows, in loops."""
    kept = np.flatnonzero(where)
    rows = []
    for query in queries.astype(np.float64):
        far = [
            (np.float32(((query - descriptors[60 + row]) ** 2).sum()), row)
            for row in kept.tolist()
        ]
        rows.append([row for _, row in sorted(far)[:k]])
    return np.array(rows)


@pytest.mark.parametrize(
    "name",
    ["3 %", "half", "clusters", "99 %", "one segment", "one row", "all"],
)
def test_exact_search_equals_filtering_afterwards(folder, descriptors, name):
    where = _filters(descriptors)[name]
    queries = np.concatenate(
        [toy_search.unit(5, 6, DIMENSION), descriptors[[30, 70]]]
    )
    opened = Index.open(folder, exact=True)
    assert opened.recall_at(10, where=where) == 1.0
    rows, distances = opened.search(queries, 10, where=where)
    k = min(10, int(where.sum()))
    assert rows.shape == (8, k)
    np.testing.assert_array_equal(rows, _after(queries, descriptors, where, k))
    of_rows = ((queries[:, None] - descriptors[60:][rows]) ** 2).sum(-1)
    np.testing.assert_allclose(distances, of_rows, atol=1e-6)


@pytest.mark.parametrize("name", ["3 %", "half", "clusters", "99 %"])
def test_a_tree_finds_what_it_promises(folder, descriptors, name, monkeypatch):
    where = _filters(descriptors)[name]
    # A photograph of each cluster: also of those that are left out.
    queries = descriptors[60:] + 0.2 * toy_search.unit(6, 1140, DIMENSION)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    queries = queries.astype(np.float32)[::3]
    monkeypatch.setattr(segments, "_EXACT_BELOW", 300)
    opened = Index.open(folder)
    assert opened.searches_with == "scann"
    rows, distances = opened.search(queries, 10, where=where)
    assert where[rows].all()
    assert all(len(set(row)) == 10 for row in rows.tolist())
    assert (np.diff(distances, axis=1) >= 0).all()
    of_rows = ((queries[:, None] - descriptors[60:][rows]) ** 2).sum(-1)
    np.testing.assert_allclose(distances, of_rows, atol=1e-5)
    kept = descriptors[60:][where]
    _, exact = exact_search.nearest(queries, kept, 10)
    recall = exact_search.recall_of_search(distances, exact)
    promised = opened.recall_at(10, where=where)
    if name == "3 %":
        assert (recall, promised) == (1, 1)
    else:
        assert 0.8 < promised < 1
        assert recall >= promised - 0.02


def test_few_images_are_searched_exactly_without_reading_the_others(folder):
    opened = Index.open(folder)
    where = np.arange(1140) < 300
    queries = toy_search.unit(5, 6, DIMENSION)
    rows, distances = opened.search(queries, 5, where=where)
    exact = Index.open(folder, exact=True).search(queries, 5, where=where)
    np.testing.assert_array_equal(rows, exact[0])
    np.testing.assert_array_equal(distances, exact[1])
    read = []

    class Watched:
        shape, dtype = (1140, DIMENSION), np.dtype(np.float32)

        def __len__(self):
            return 1140

        def __getitem__(self, key):
            read.append(key)
            return np.asarray(opened.descriptors[key])

    exact_search.nearest(queries, Watched(), 5, allowed=where)
    assert sorted(np.concatenate(read)) == list(range(300))


def test_a_prior_searches_an_index_of_vectors(tmp_path, descriptors):
    positions = np.stack([500_000 + 10.0 * np.arange(50), np.full(50, 5e6)], 1)
    index = Index.build(
        descriptors[:50],
        image_ids=[str(row) for row in range(50)],
        out=tmp_path / "index",
        positions=positions,
        utm_zone="17T",
    )
    point = geography.degrees_of(positions[20:21], "17T")[0]
    prior = Prior(near=tuple(point.tolist()), within_m=25)
    rows, _ = index.search(descriptors[:3], 9, where=prior)
    assert [sorted(row) for row in rows.tolist()] == 3 * [[18, 19, 20, 21, 22]]
    for where, message in (
        (np.ones(3, bool), r"bool \[50\].*bool \[3\]"),
        (np.ones(50), r"Received: float64 \[50\]"),
        (np.zeros(50, bool), "none of the 50"),
    ):
        with pytest.raises(ValueError, match=message):
            index.search(descriptors[:3], 9, where=where)
