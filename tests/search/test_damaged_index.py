"""Damage to an index is refused when it is opened."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import toy_damage
import toy_index
import toy_search

from sare_tf.runtime import sealed_json
from sare_tf.search import index_changes
from sare_tf.search.opened_index import Index

AGAIN = "Delete it and run python -m sare_tf.index"
FILES = [
    *("descriptors.npy", "manifest.parquet", "removed-00002.npy"),
    *("scann/dataset.npy", "scann/scann_config.pb", "scann/scann_assets.pbtxt"),
    *("added-00001/descriptors.npy", "added-00001/scann/dataset.npy"),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """An index of two segments, with removed rows."""
    root = tmp_path_factory.mktemp("built")
    toy = toy_index.build(root)
    more = toy_search.records(root / "more", first_place=20, places=2)
    index_changes.add(index=toy["out"], records=more, export=toy["export"])
    ids = root / "ids.txt"
    ids.write_text(Index.open(toy["out"]).manifest["image_id"].iloc[4])
    index_changes.remove(index=toy["out"], ids=ids)
    return toy["out"]


@pytest.fixture
def out(built, tmp_path):
    return shutil.copytree(built, tmp_path / "index")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("at", [0.01, 0.5, 0.999])
def test_a_flipped_bit(out, name, at):
    path = out / name
    toy_damage.flip(path, int(at * path.stat().st_size), bit=2)
    with pytest.raises(ValueError, match=f"{path.name}: not as.*{AGAIN}"):
        Index.open(out)
    if "scann" in name:
        Index.open(out, exact=True)


def test_a_block_of_zeros(out):
    path = out / "descriptors.npy"
    raw = bytearray(path.read_bytes())
    raw[512:1024] = bytes(512)
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=f"descriptors.npy: not as.*{AGAIN}"):
        Index.open(out)


def test_rows_in_each_others_place(out):
    path = out / "manifest.parquet"
    pd.read_parquet(path).iloc[::-1].to_parquet(path, index=False)
    with pytest.raises(ValueError, match=f"\\(manifest.parquet.*{AGAIN}"):
        Index.open(out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "[" * 10_000 + text, "recursion"),
        (lambda text: "[]", "it holds no object"),
        (lambda text: text.replace('"changes": 2', '"changes": 1'), "changed"),
        (lambda text: text.replace('"removed"', '"remover"'), "has changed"),
        (lambda text: text.replace("sha256", "sha257"), "digest is missing"),
    ],
)
def test_index_json(out, change, message):
    path = out / "index.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=f"index.json.*{message}.*sare_tf.ind"):
        Index.open(out)


def test_every_key_of_index_json_is_missed(out):
    path = out / "index.json"
    content = json.loads(path.read_text())
    content.pop("sha256")
    for name in sealed_json.read(path, made_by="", types={}):
        # Earlier versions lack some, and nothing reads the others.
        if name in (
            *("digests", "distance", "shard", "versions"),
            *("tune_tree", "reorder_from"),
        ):
            continue
        sealed_json.write(
            path, {key: content[key] for key in content if key != name}
        )
        with pytest.raises(ValueError, match=f"lacks {name!r}.*sare_tf.index"):
            Index.open(out)


@pytest.mark.parametrize(
    "values", [np.array([0.5]), np.array([[1]]), np.array([10**6])]
)
def test_a_removed_list_of_other_values_in_an_earlier_index(out, values):
    np.save(out / "removed-00002.npy", values)
    toy_damage.forget_digests(out / "index.json")
    with pytest.raises(ValueError, match=AGAIN):
        Index.open(out)


@pytest.mark.parametrize("name", ["descriptors.npy", "scann/scann_config.pb"])
def test_a_damaged_header_in_an_earlier_index(out, name):
    path = out / name
    toy_damage.forget_digests(out / "index.json")
    size, refused = min(path.stat().st_size, 128), []
    for at in range(0, size, 3):
        toy_damage.flip(path, at, bit=1)
        try:
            Index.open(out)
        except ValueError as error:
            refused.append(str(error))
        toy_damage.flip(path, at, bit=1)
    assert refused
    assert all(AGAIN in message for message in refused)


def test_an_earlier_index_is_opened(built, out):
    toy_damage.forget_digests(out / "index.json")
    assert "digests" not in (out / "index.json").read_text()
    queries = toy_search.unit(3, 5, toy_search.DIMENSION)
    rows, _ = Index.open(out).search(queries, 5)
    np.testing.assert_array_equal(rows, Index.open(built).search(queries, 5)[0])


def test_without_the_check_only_sizes_count(out):
    path = out / "descriptors.npy"
    toy_damage.flip(path, 700)
    Index.open(out, check=False)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"bytes, not.*{AGAIN}"):
        Index.open(out, check=False)


def test_vectors_are_built_again_by_python(tmp_path):
    Index.build(
        toy_search.unit(0, 5, 4), image_ids=list("abcde"), out=tmp_path / "one"
    )
    toy_damage.flip(tmp_path / "one" / "descriptors.npy", 150)
    with pytest.raises(ValueError, match=r"build it again with Index\.build"):
        Index.open(tmp_path / "one")
