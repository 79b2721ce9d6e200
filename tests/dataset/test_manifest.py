import numpy as np
import pandas as pd
import pytest
import toy_manifest

from sare_tf.dataset import manifest


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
    queries = toy_manifest.make(rows(make[:15], role="query", prefix="q"))
    database = toy_manifest.make(rows(make[15:]))
    found = manifest.positives(
        queries, database, radius_m=radius_m, min_distance_m=min_distance_m
    )
    expected = by_loops(queries, database, radius_m, min_distance_m)
    assert [list(some) for some in found] == expected
    assert sum(map(len, expected)) > 0


def test_the_radius_is_inclusive_and_the_minimum_is_not():
    database = toy_manifest.make(rows([0.0, 1.0, 1.5, 25.0, 25.000001]))
    query = toy_manifest.make(rows([0.0], role="query", prefix="q"))
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
    queries, database = toy_manifest.make(queries), toy_manifest.make(database)
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
    database = toy_manifest.make(
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
    queries = toy_manifest.make(
        [
            {"image_id": str(n), "split": "val", "role": "query", "place_id": p}
            for n, p in enumerate("abc")
        ]
    )
    found = manifest.positives(queries, database)
    assert [some.tolist() for some in found] == [[1, 2], [0, 3], []]


def test_auto_prefers_coordinates():
    database = toy_manifest.make(rows([0.0, 100.0], place_id="same"))
    query = toy_manifest.make(
        rows([0.0], role="query", prefix="q", place_id="same")
    )
    assert manifest.positives(query, database)[0].tolist() == [0]
    by_place = manifest.positives(query, database, rule="place")
    assert by_place[0].tolist() == [0, 1]


def test_refused_rules():
    bare = toy_manifest.make(
        [{"image_id": "a", "split": "val", "role": "query"}]
    )
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
        toy_manifest.make([*rows([0.0]), other])


def test_zones_are_never_compared():
    """The same metres in another zone are another place."""
    database = rows([0.0, 10.0], utm_zone="17T", prefix="a")
    database += rows([0.0], utm_zone="18T", prefix="b")
    # A band further south counts from the same equator; 17G is south of it.
    database += rows([20.0], utm_zone="17S", prefix="c")
    database += rows([0.0], utm_zone="17G", prefix="d")
    queries = rows([0.0], utm_zone="17T", role="query", prefix="q")
    queries += rows([0.0], utm_zone="18T", role="query", prefix="r")
    queries += rows([0.0], utm_zone="33X", role="query", prefix="s")
    table = toy_manifest.make(database + queries)
    found = manifest.positives(
        table[table["role"] == "query"], table[table["role"] == "database"]
    )
    assert [some.tolist() for some in found] == [[0, 1, 3], [2], []]


def test_an_unknown_zone_is_the_one_there_is():
    database = toy_manifest.make(rows([0.0], utm_zone="17T"))
    query = toy_manifest.make(rows([0.0], role="query", prefix="q"))
    assert manifest.positives(query, database)[0].tolist() == [0]


def test_an_unknown_zone_beside_several_is_refused():
    mixed = rows([0.0], utm_zone="17T")
    mixed += rows([0.0, 1.0], prefix="b", utm_zone="18T")
    mixed += rows([0.0], prefix="c")
    message = r"Received: \['17T', '18T'\], and 1 images without, such as 'c0'"
    with pytest.raises(ValueError, match=message):
        toy_manifest.make(mixed)
    mixed[-1] |= {"utm_east_m": np.nan}  # No coordinates: no zone needed.
    toy_manifest.make(mixed)


def listed():
    database = toy_manifest.make(rows([0.0, 1.0, 2.0, 3.0]))
    queries = toy_manifest.make(rows([0.0, 0.0], role="query", prefix="q"))
    return queries, database, pd.concat([queries, database])


def test_positives_by_list():
    queries, database, both = listed()
    pairs = [
        ("q1", "a3", "hard"),
        ("q1", "a0", "positive"),
        ("q1", "a2", "junk"),
        ("q1", "a1", "easy"),
    ]
    relations = manifest.make_relations(pairs, both)
    assert relations["database"].tolist() == ["a3", "a0", "a2", "a1"]
    for rule in ("list", "auto"):
        found = manifest.positives(
            queries, database, rule=rule, relations=relations
        )
        assert [some.tolist() for some in found] == [[], [0, 1, 3]]
        assert found[0].dtype == found[1].dtype == np.int64
    # Images that the database lacks are not found in it.
    found = manifest.positives(queries, database[1:], relations=relations)
    assert found[1].tolist() == [0, 2]


def test_auto_follows_a_list_of_these_queries_only():
    queries, database, both = listed()
    relations = manifest.make_relations([("q1", "a0", "positive")], both)
    chosen = manifest.choose_rule(queries, database, relations=relations)
    assert chosen == "list"
    first = manifest.choose_rule(queries[:1], database, relations=relations)
    assert first == "radius"
    assert manifest.choose_rule(queries, database, rule="place") == "place"


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (
            [("q0", "a0", "good")],
            "positive, easy, hard, junk. Received: .'good'",
        ),
        ([("a1", "a0", "easy")], "query='a1', which is no query image"),
        ([("q0", "q1", "easy")], "database='q1', which is no database image"),
        (
            [("q0", "a1", "easy"), ("q0", "a1", "junk")],
            "query='q0', database='a1' more than once",
        ),
    ],
)
def test_wrong_relations_are_refused(pairs, message):
    with pytest.raises(ValueError, match=message):
        manifest.make_relations(pairs, listed()[2])


def test_no_list_to_follow():
    queries, database, _ = listed()
    with pytest.raises(ValueError, match="Received: a dataset without. Use"):
        manifest.positives(queries, database, rule="list")


def test_file_round_trip_keeps_coordinates_exactly(tmp_path):
    table = toy_manifest.make(rows([500_000.123456789, np.nan]))
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
    toy_manifest.make(rows([0.0])).drop(columns="frame").to_parquet(
        tmp_path / "m.parquet"
    )
    with pytest.raises(ValueError, match="without the columns .'frame'"):
        manifest.read(tmp_path / "m.parquet")


def test_parts_do_not_show_in_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "BLOCK_ROWS", 4)
    table = toy_manifest.make(rows(np.arange(10.0), place_id="here"))
    manifest.write_parts([table], tmp_path / "one.parquet")
    parts = [table[:0], table[:3], table[3:9], table[9:]]
    manifest.write_parts(parts, tmp_path / "some.parquet")
    one, some = (tmp_path / f"{name}.parquet" for name in ("one", "some"))
    assert one.read_bytes() == some.read_bytes()
    pd.testing.assert_frame_equal(manifest.read(one), table)
    sizes = [0, 5, 0, 1, 4]
    back = list(manifest.read_parts(one, sizes))
    assert [len(part) for part in back] == sizes
    pd.testing.assert_frame_equal(pd.concat(back, ignore_index=True), table)


def test_parts_that_cannot_be_read(tmp_path):
    path = tmp_path / "m.parquet"
    with pytest.raises(FileNotFoundError):
        list(manifest.read_parts(path, [1]))
    manifest.write(toy_manifest.make(rows([0.0])), path)
    with pytest.raises(ValueError, match="too few rows"):
        list(manifest.read_parts(path, [1, 1]))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"[Pp]arquet"):
        list(manifest.read_parts(path, [1]))
