"""Other engines load what `export_vectors` writes, and find the same images.

What they run is the code of docs/vectors.md.
"""

import json
import re

import numpy as np
import pandas as pd
import pytest
import toy_search
from paths import ROOT

from sare_tf import export_vectors, index, serving
from sare_tf.records.records import Records
from sare_tf.search.opened_index import Index
from sare_tf.search.options import IndexOptions, VectorOptions

K = 5  # as in the page


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """120 images in two shards, and 80 queries."""
    root = tmp_path_factory.mktemp("toy")
    records = toy_search.records(root, places=40)
    export = toy_search.export(root / "export")
    for number in range(2):
        index.run(
            IndexOptions(
                records=records,
                export=export,
                index=root / "index" / str(number),
                index_shard=f"{number}/2",
            )
        )
    return {"records": records, "export": export, "index": root / "index"}


@pytest.fixture(scope="module")
def queries(toy):
    opened = Records(toy["records"])
    rows = opened.rows("test", "query")
    found, _ = serving.load(toy["export"])(list(opened.read_images(rows)))
    return found


def _nearest(toy, queries, k=K, where=None):
    """Names and products, by loops over the descriptors."""
    opened = Index.open(toy["index"], exact=True)
    names = opened.manifest["image_id"].to_numpy()
    allowed = np.arange(len(names)) if where is None else np.flatnonzero(where)
    found, products = [], []
    for query in queries.astype(np.float64):
        of_query = [(query * opened.descriptors[row]).sum() for row in allowed]
        order = np.argsort(of_query)[::-1][:k]
        found.append(names[allowed[order]].tolist())
        products.append(np.array(of_query)[order])
    return found, np.array(products)


def _export(toy, out, layout):
    return export_vectors.run(VectorOptions(**toy, out=out, layout=layout, k=K))


def _run_page(section, folder, monkeypatch):
    """Runs the Python code of a section of the page; returns its names."""
    text = (ROOT / "docs/vectors.md").read_text(encoding="utf-8")
    text = text.partition(f"## {section}\n")[2].partition("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(folder)
    names = {}
    exec(compile(code, f"docs/vectors.md, {section}", "exec"), names)
    return names


def test_faiss(toy, tmp_path, monkeypatch, queries):
    faiss = pytest.importorskip(
        "faiss", reason="needs pip install 'sare_tf[engines]'"
    )
    out = _export(toy, tmp_path / "out", "numpy")
    names = _run_page("FAISS", out, monkeypatch)
    expected, products = _nearest(toy, queries)
    image_ids = pd.read_csv(out / "database.csv")["image_id"].to_numpy()
    assert image_ids[names["rows"]].tolist() == expected
    np.testing.assert_allclose(names["products"], products, atol=1e-6)
    matches = pd.read_csv(out / "matches.csv")["database"].tolist()
    assert matches == np.ravel(expected).tolist()
    # As the page stores it, and from lists of which all are searched.
    stored = faiss.read_index("city.faiss")
    lists = faiss.index_factory(
        stored.d, "IVF4,Flat", faiss.METRIC_INNER_PRODUCT
    )
    database = np.load("database.npy")
    lists.train(database)
    lists.add(database)
    lists.nprobe = 4
    for one in (stored, lists):
        _, rows = one.search(np.load("queries.npy"), K)
        assert image_ids[rows].tolist() == expected


def test_milvus(toy, tmp_path, monkeypatch, queries):
    pymilvus = pytest.importorskip(
        "pymilvus", reason="needs pip install 'sare_tf[engines]'"
    )
    pytest.importorskip("milvus_lite", reason="likewise")
    out = _export(toy, tmp_path / "out", "parquet")
    names = _run_page("Milvus", out, monkeypatch)
    expected, products = _nearest(toy, queries)
    found = names["matches"]
    assert [[hit["image_id"] for hit in hits] for hits in found] == expected
    np.testing.assert_allclose(
        [[hit["distance"] for hit in hits] for hits in found],
        products,
        atol=1e-6,
    )
    rows = Index.open(toy["index"], exact=True).manifest
    east = rows.set_index("image_id")["utm_east_m"]
    for hits in found:
        for hit in hits:
            assert hit["entity"]["utm_east_m"] == east[hit["image_id"]]
    # A prior of Milvus is one of ours.
    client = names["client"]
    where = rows["utm_east_m"] < 501_000
    found = client.search(
        "city",
        data=queries.tolist(),
        limit=K,
        filter="utm_east_m < 501000",
    )
    expected, _ = _nearest(toy, queries, where=where.to_numpy())
    assert [[hit["image_id"] for hit in hits] for hits in found] == expected
    # What was inserted is there when it is opened again.
    client.close()
    again = pymilvus.MilvusClient("city.db")
    again.load_collection("city")
    (counted,) = again.query("city", output_fields=["count(*)"])
    assert counted["count(*)"] == 120
    again.close()


# Of "Input data format and structure", Vertex AI Vector Search.
_MOST_FILES = 5000
_KEYS = {"id", "embedding", "restricts", "numeric_restricts", "crowding_tag"}


def test_vertex_reads_records_of_its_format(
    toy, tmp_path, monkeypatch, queries
):
    monkeypatch.setattr("sare_tf.search.vector_layouts._VERTEX_ROWS", 50)
    out = _export(toy, tmp_path / "out", "vertex")
    files = sorted((out / "database").iterdir())
    assert len(files) == 3 <= _MOST_FILES
    # Only folders named `delete` may be there, and names choose the format.
    assert all(file.is_file() and file.suffix == ".json" for file in files)
    records = [
        json.loads(line)
        for file in files
        for line in file.read_bytes().decode("utf-8").splitlines()
    ]
    assert len({record["id"] for record in records}) == len(records) == 120
    for record in records:
        assert record.keys() <= _KEYS
        assert isinstance(record["id"], str)
        assert len(record["embedding"]) == toy_search.DIMENSION
        assert all(isinstance(one, float) for one in record["embedding"])
        for restrict in record["restricts"]:
            assert restrict.keys() <= {"namespace", "allow", "deny"}
            assert all(isinstance(one, str) for one in restrict["allow"])
        for restrict in record["numeric_restricts"]:
            value = restrict.keys() - {"namespace"}
            assert len(value) == 1
            assert value <= {"value_int", "value_float", "value_double"}
    # The index that is built of them: DOT_PRODUCT_DISTANCE, by brute force.
    vectors = np.array([record["embedding"] for record in records], np.float32)
    names = np.array([record["id"] for record in records])
    order = np.argsort(-(queries @ vectors.T), axis=1)[:, :K]
    assert names[order].tolist() == _nearest(toy, queries)[0]
