import numpy as np
import pytest

from sare_tf import manifest


def rows(east, *, role="database", prefix="a", **columns):
    return [
        {
            "image_id": f"{prefix}{number}",
            "split": "test",
            "role": role,
            "utm_east_m": value,
            "utm_north_m": 4_500_000.0,
            **columns,
        }
        for number, value in enumerate(east)
    ]


def by_loops(queries, database, radius_m, min_distance_m):
    found = []
    for _, query in queries.iterrows():
        near = []
        for position, (_, image) in enumerate(database.iterrows()):
            squared = (query.utm_east_m - image.utm_east_m) ** 2
            squared += (query.utm_north_m - image.utm_north_m) ** 2
            if squared <= radius_m**2 and (
                min_distance_m == 0 or squared > min_distance_m**2
            ):
                near.append(position)
        found.append(near)
    return found


@pytest.mark.parametrize(
    ("radius_m", "min_distance_m"), [(25.0, 0.0), (10.0, 1.0), (0.0, 0.0)]
)
def test_positives_by_radius_equal_loops(radius_m, min_distance_m):
    rng = np.random.default_rng(0)
    # Whole metres, so that distances of exactly 1, 10 and 25 occur.
    make = rng.integers(0, 60, 40).astype(float) + 500_000
    queries = manifest.make(rows(make[:15], role="query", prefix="q"))
    database = manifest.make(rows(make[15:]))
    found = manifest.positives(
        queries, database, radius_m=radius_m, min_distance_m=min_distance_m
    )
    expected = by_loops(queries, database, radius_m, min_distance_m)
    assert [list(some) for some in found] == expected
    assert sum(map(len, expected)) > 0


def test_the_radius_is_inclusive_and_the_minimum_is_not():
    database = manifest.make(rows([0.0, 1.0, 1.5, 25.0, 25.000001]))
    query = manifest.make(rows([0.0], role="query", prefix="q"))
    [found] = manifest.positives(query, database, min_distance_m=1.0)
    assert found.tolist() == [2, 3]
    assert found.dtype == np.int64


def test_positives_of_another_time():
    """Two queries of one spot: one of 2014, one without a time stamp."""
    database = [
        {**row, "timestamp": time}
        for row, time in zip(
            rows([0.0, 1.0, 2.0, 90.0]),
            ["2014", "2009", "", "2009"],
            strict=True,
        )
    ]
    queries = rows([0.0, 0.0], role="query", prefix="q")
    queries[0]["timestamp"] = "2014"
    queries, database = manifest.make(queries), manifest.make(database)
    found = manifest.positives(queries, database, other_timestamp=True)
    assert [some.tolist() for some in found] == [[1, 2], [0, 1, 2]]
    found = manifest.positives(
        queries, database, **manifest.TRAIN_RULES["netvlad"]
    )
    assert [some.tolist() for some in found] == [[2], [2]]
    found = manifest.positives(
        queries, database, **manifest.TRAIN_RULES["openibl"]
    )
    assert [some.tolist() for some in found] == [[0, 1, 2], [0, 1, 2]]


def test_positives_by_place():
    database = manifest.make(
        [
            {
                "image_id": str(n),
                "split": "val",
                "role": "database",
                "place_id": p,
            }
            for n, p in enumerate("baab")
        ]
    )
    queries = manifest.make(
        [
            {"image_id": str(n), "split": "val", "role": "query", "place_id": p}
            for n, p in enumerate("abc")
        ]
    )
    found = manifest.positives(queries, database)
    assert [some.tolist() for some in found] == [[1, 2], [0, 3], []]


def test_auto_prefers_coordinates():
    database = manifest.make(rows([0.0, 100.0], place_id="same"))
    query = manifest.make(
        rows([0.0], role="query", prefix="q", place_id="same")
    )
    assert manifest.positives(query, database)[0].tolist() == [0]
    by_place = manifest.positives(query, database, rule="place")
    assert by_place[0].tolist() == [0, 1]


def test_refused_rules():
    bare = manifest.make([{"image_id": "a", "split": "val", "role": "query"}])
    with pytest.raises(
        ValueError, match="Received: 2 images without. Use --po"
    ):
        manifest.positives(bare, bare, rule="radius")
    with pytest.raises(ValueError, match="Expected a place_id of every image"):
        manifest.positives(bare, bare)
    with pytest.raises(ValueError, match="rule='near'"):
        manifest.positives(bare, bare, rule="near")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": "a0"}, "1 of them more than once, such as .'a0'"),
        ({"split": "dev"}, "one of train, val, test. Received: .'dev'"),
        ({"role": "gallery"}, "one of database, query. Received: .'gallery'"),
        ({"east": 1.0}, "Received: .'east'"),
        ({"image_id": ""}, "without .'image_id'"),
    ],
)
def test_wrong_rows_are_refused(change, message):
    other = rows([1.0], prefix="b")[0] | change
    with pytest.raises(ValueError, match=message):
        manifest.make([*rows([0.0]), other])


def test_two_zones_are_refused():
    mixed = rows([0.0], utm_zone="17T")
    mixed += rows([0.0, 1.0], prefix="b", utm_zone="18T")
    with pytest.raises(ValueError, match=r"17T \(1 images\), 18T \(2 images\)"):
        manifest.make(mixed)


def test_file_round_trip_keeps_coordinates_exactly(tmp_path):
    table = manifest.make(rows([500_000.123456789, np.nan]))
    manifest.write(table, tmp_path / "m.parquet")
    back = manifest.read(tmp_path / "m.parquet")
    assert list(back.columns) == list(manifest.COLUMNS)
    np.testing.assert_array_equal(
        back["utm_east_m"].to_numpy(), table["utm_east_m"].to_numpy()
    )
    assert not manifest.has_coordinates(back)
    assert manifest.has_coordinates(back[:1])
    assert [path.name for path in tmp_path.iterdir()] == ["m.parquet"]


def test_damaged_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        manifest.read(tmp_path / "none.parquet")
    (tmp_path / "m.parquet").write_bytes(b"not parquet")
    with pytest.raises(ValueError, match="cannot be read"):
        manifest.read(tmp_path / "m.parquet")
    manifest.make(rows([0.0])).drop(columns="frame").to_parquet(
        tmp_path / "m.parquet"
    )
    with pytest.raises(ValueError, match="without the columns .'frame'"):
        manifest.read(tmp_path / "m.parquet")
