"""Descriptors and matches, read back as the other projects read them."""

import json

import h5py
import numpy as np
import pandas as pd
import pytest
import toy_search
from absl import flags
from absl.testing import flagsaver

from sare_tf import export_vectors, index, serving
from sare_tf.records.options import DATASET_LAYOUTS, VECTOR_LAYOUTS
from sare_tf.records.records import Records
from sare_tf.search import vector_layouts
from sare_tf.search.options import IndexOptions, VectorOptions

DIMENSION = toy_search.DIMENSION


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Records of 18 database images and 12 queries, export and index."""
    root = tmp_path_factory.mktemp("toy")
    records = toy_search.records(root)
    export = toy_search.export(root / "export")
    index.run(
        IndexOptions(records=records, export=export, index=root / "index")
    )
    return {"records": records, "export": export, "index": root / "index"}


@pytest.fixture(scope="module")
def shards(toy, tmp_path_factory):
    """The same index in two shards."""
    folder = tmp_path_factory.mktemp("shards")
    for number in range(2):
        index.run(
            IndexOptions(
                records=toy["records"],
                export=toy["export"],
                index=folder / str(number),
                index_shard=f"{number}/2",
            )
        )
    return folder


@pytest.fixture(scope="module")
def expected(toy):
    """Descriptors by image id, and the two nearest of each query, by hand."""
    opened = Records(toy["records"])
    servable = serving.load(toy["export"])
    by_role = {}
    for role in ("query", "database"):
        rows = opened.rows("test", role)
        descriptors, _ = servable(list(opened.read_images(rows)))
        by_role[role] = dict(zip(rows["image_id"], descriptors, strict=True))
    nearest = {}
    for query, descriptor in by_role["query"].items():
        distances = {
            name: np.sum((np.float64(descriptor) - other) ** 2)
            for name, other in by_role["database"].items()
        }
        nearest[query] = sorted(distances.items(), key=lambda item: item[1])[:2]
    return {**by_role, "nearest": nearest}


def run(toy, out, layout, **options):
    return export_vectors.run(
        VectorOptions(**toy, out=out, layout=layout, **{"k": 2, **options})
    )


def test_hloc(toy, tmp_path, expected):
    out = run(toy, tmp_path / "out", "hloc")
    with h5py.File(out / "global-feats.h5") as file:
        for name, descriptor in (
            expected["query"] | expected["database"]
        ).items():
            found = file[name]["global_descriptor"][()]
            np.testing.assert_array_equal(found, descriptor)
    pairs = [
        tuple(line.split(" "))
        for line in (out / "pairs.txt").read_text().splitlines()
    ]
    assert pairs == [
        (query, name)
        for query, matches in expected["nearest"].items()
        for name, _ in matches
    ]


def test_hloc_finds_the_same_pairs(toy, tmp_path):
    """As its pairs_from_retrieval.py ranks, with NumPy for torch."""
    out = run(toy, tmp_path / "out", "hloc")
    names = set()

    def gather(_, found):
        if isinstance(found, h5py.Dataset):
            names.add(found.parent.name.strip("/"))

    with h5py.File(out / "global-feats.h5") as file:
        file.visititems(gather)
        queries, database = (
            sorted(name for name in names if f"/{role}/" in name)
            for role in ("queries", "database")
        )
        similarity = np.einsum(
            "id,jd->ij",
            *(
                np.stack([file[name]["global_descriptor"] for name in side])
                for side in (queries, database)
            ),
        )
    assert (len(queries), len(database)) == (12, 18)
    best = np.argsort(-similarity, axis=1)[:, :2]
    expected = {
        (query, database[row])
        for query, rows in zip(queries, best, strict=True)
        for row in rows
    }
    lines = (out / "pairs.txt").read_text().splitlines()
    assert {tuple(line.split()) for line in lines} == expected


def test_numpy_and_the_flags(toy, tmp_path, expected):
    flags.FLAGS.mark_as_parsed()
    with flagsaver.as_parsed(
        **{name: str(path) for name, path in toy.items()},
        out=str(tmp_path / "out"),
        layout="numpy",
        k="2",
    ):
        export_vectors.main(["export_vectors"])
    for name, role in (("queries", "query"), ("database", "database")):
        array = np.load(tmp_path / "out" / f"{name}.npy")
        rows = pd.read_csv(tmp_path / "out" / f"{name}.csv")
        assert rows["image_id"].tolist() == list(expected[role])
        np.testing.assert_array_equal(array, list(expected[role].values()))
        assert array.dtype == np.float32
    matches = pd.read_csv(tmp_path / "out" / "matches.csv")
    wanted = [
        (query, rank, name, distance)
        for query, found in expected["nearest"].items()
        for rank, (name, distance) in enumerate(found, start=1)
    ]
    assert matches.columns.tolist() == [
        *("query", "rank", "database", "squared_distance")
    ]
    for row, want in zip(matches.itertuples(index=False), wanted, strict=True):
        assert tuple(row)[:3] == want[:3]
        assert row.squared_distance == pytest.approx(want[3], abs=1e-6)


def test_kapture(toy, tmp_path, expected):
    out = run(toy, tmp_path / "out", "kapture")
    features = out / "reconstruction" / "global_features" / "sare_tf"
    everything = expected["query"] | expected["database"]
    for name, descriptor in everything.items():
        found = np.fromfile(features / f"{name}.gfeat", "<f4")
        np.testing.assert_array_equal(found, descriptor)

    def table(path, header):
        first, second, *lines = path.read_text().splitlines()
        assert first == "# kapture format: 1.1"
        assert second == f"# {header}"
        return [line.split(", ") for line in lines]

    assert table(
        features / "global_features.txt", "name, dtype, dsize, metric_type"
    ) == [["sare_tf", "float32", str(DIMENSION), "L2"]]
    sensors = table(
        out / "sensors" / "sensors.txt",
        "sensor_device_id, name, sensor_type, [sensor_params]+",
    )
    camera = ["32x32", "", "camera", "UNKNOWN_CAMERA", "32", "32"]
    assert sensors == [camera]
    records = table(
        out / "sensors" / "records_camera.txt",
        "timestamp, device_id, image_path",
    )
    assert [record[1:] for record in records] == [
        ["32x32", name] for name in everything
    ]
    assert len({record[0] for record in records}) == len(everything)
    pairs = table(out / "pairs.txt", "query_image, map_image, score")
    wanted = [
        (query, name, 1 - distance / 2)
        for query, matches in expected["nearest"].items()
        for name, distance in matches
    ]
    for pair, (query, name, score) in zip(pairs, wanted, strict=True):
        assert pair[:2] == [query, name]
        assert float(pair[2]) == pytest.approx(score, abs=1e-5)


def test_msls(toy, tmp_path, expected):
    out = run(toy, tmp_path / "out", "msls")
    lines = (out / "submission.csv").read_text().splitlines()

    def key(name):
        return name.rpartition("/")[2].removesuffix(".jpg")

    assert [line.split(" ") for line in lines] == [
        [key(query), *(key(name) for name, _ in matches)]
        for query, matches in expected["nearest"].items()
    ]


def test_parquet(toy, tmp_path, expected, monkeypatch):
    monkeypatch.setattr(vector_layouts, "_BLOCK", 5)
    out = run(toy, tmp_path / "out", "parquet")
    for name, role in (("queries", "query"), ("database", "database")):
        table = pd.read_parquet(out / f"{name}.parquet")
        assert table["image_id"].tolist() == list(expected[role])
        np.testing.assert_array_equal(
            np.stack(table["vector"]), list(expected[role].values())
        )
        assert np.isfinite(table["utm_east_m"]).all()


def test_vertex(toy, tmp_path, expected, monkeypatch):
    monkeypatch.setattr(vector_layouts, "_VERTEX_ROWS", 7)
    out = run(toy, tmp_path / "out", "vertex")
    parts = sorted((out / "database").iterdir())
    assert [part.name for part in parts] == [
        f"database-0000{number}.json" for number in range(3)
    ]
    lines = [line for part in parts for line in part.read_text().splitlines()]
    for text, role in (
        (lines, "database"),
        ((out / "queries.json").read_text().splitlines(), "query"),
    ):
        found = [json.loads(line) for line in text]
        assert [one["id"] for one in found] == list(expected[role])
        np.testing.assert_array_equal(
            np.float32([one["embedding"] for one in found]),
            list(expected[role].values()),
        )
    rows = Records(toy["records"]).rows("test", "database")
    first = json.loads(lines[0])
    assert first["restricts"] == [{"namespace": "utm_zone", "allow": ["17T"]}]
    assert {
        restrict["namespace"]: restrict["value_double"]
        for restrict in first["numeric_restricts"]
    } == {
        "utm_east_m": rows["utm_east_m"].iloc[0],
        "utm_north_m": rows["utm_north_m"].iloc[0],
    }


@pytest.mark.parametrize("layout", ["numpy", "parquet"])
def test_shards_are_handed_over_as_one_index(
    toy, shards, tmp_path, monkeypatch, layout
):
    monkeypatch.setattr(vector_layouts, "_BLOCK", 7)
    whole = run(toy, tmp_path / "whole", layout)
    found = run({**toy, "index": shards}, tmp_path / "parts", layout)
    if layout == "numpy":
        np.testing.assert_allclose(
            np.load(found / "database.npy"),
            np.load(whole / "database.npy"),
            rtol=0,
            atol=1e-6,
        )
        found, whole = (pd.read_csv(p / "matches.csv") for p in (found, whole))
        pd.testing.assert_frame_equal(found, whole, rtol=0, atol=1e-6)
        return
    found, whole = (
        pd.read_parquet(folder / "database.parquet")
        for folder in (found, whole)
    )
    assert found["image_id"].tolist() == whole["image_id"].tolist()
    np.testing.assert_allclose(
        np.stack(found["vector"]), np.stack(whole["vector"]), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("layout", VECTOR_LAYOUTS)
def test_a_database_without_queries(toy, tmp_path, layout):
    records = toy_search.records(tmp_path / "alone", views=(3, 0))
    out = run({**toy, "records": records}, tmp_path / "out", layout)
    empty = {
        "hloc": "pairs.txt",
        "msls": "submission.csv",
        "vertex": "queries.json",
    }
    if layout in empty:
        assert (out / empty[layout]).read_text() == ""
    if layout == "numpy":
        assert np.load(out / "queries.npy").shape == (0, DIMENSION)
        assert np.load(out / "database.npy").shape == (18, DIMENSION)
    if layout == "parquet":
        table = pd.read_parquet(out / "queries.parquet")
        assert table.shape[0] == 0
        assert "vector" in table


def test_faiss_finds_the_matches_in_the_arrays(toy, tmp_path):
    faiss = pytest.importorskip(
        "faiss", reason="needs pip install 'sare_tf[bench]'"
    )
    out = run(toy, tmp_path / "out", "numpy")
    searched = faiss.IndexFlatIP(DIMENSION)
    searched.add(np.load(out / "database.npy"))
    _, rows = searched.search(np.load(out / "queries.npy"), 2)
    names = pd.read_csv(out / "database.csv")["image_id"].to_numpy()
    matches = pd.read_csv(out / "matches.csv")
    assert names[rows.ravel()].tolist() == matches["database"].tolist()


def test_the_flag_names_every_layout():
    assert set(flags.FLAGS["layout"].parser.enum_values) == {
        *VECTOR_LAYOUTS,
        *DATASET_LAYOUTS,
    }


def test_what_is_refused(toy, tmp_path):
    with pytest.raises(ValueError, match="a layout: hloc, .*'at_names'"):
        run(toy, tmp_path / "out", "at_names")
    with pytest.raises(ValueError, match="new folder. Received: out="):
        run(toy, tmp_path, "hloc")
    other = toy_search.export(tmp_path / "export", length=1.00001)
    with pytest.raises(ValueError, match="export that built the index"):
        run({**toy, "export": other}, tmp_path / "out", "hloc")
    with pytest.raises(ValueError, match="images in the split 'val'"):
        run(toy, tmp_path / "out", "hloc", split="val")
