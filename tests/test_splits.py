"""--split=all and lists of splits: what is indexed, evaluated and searched."""

import json

import pytest
import toy_search

from sare_tf import build_records, check, evaluate, index, locate
from sare_tf.checks.options import CheckOptions
from sare_tf.dataset.names import SPLITS
from sare_tf.evaluation.options import EvaluationOptions
from sare_tf.pages.options import LocateOptions
from sare_tf.records.options import RecordOptions
from sare_tf.records.records import Records
from sare_tf.search.opened_index import Index
from sare_tf.search.options import IndexOptions


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Three places in each split, with two database images and one query."""
    root = tmp_path_factory.mktemp("toy")
    for number, split in enumerate(SPLITS):
        for place in range(3 * number, 3 * number + 3):
            for role, views in (("database", (0, 1)), ("queries", (9,))):
                folder = root / "photos" / split / role / f"p{place}"
                folder.mkdir(parents=True)
                for view in views:
                    jpeg = toy_search.jpeg(place, view)
                    (folder / f"{view}.jpg").write_bytes(jpeg)
    records = build_records.run(
        RecordOptions(
            dataset=root / "photos",
            records=root / "records",
            reader="place_folders",
        )
    )
    return {"records": records, "export": toy_search.export(root / "export")}


@pytest.fixture(scope="module")
def folders(inputs, tmp_path_factory):
    """Indexes of all splits, of two, and of one."""
    root = tmp_path_factory.mktemp("indexes")
    return {
        split: index.run(
            IndexOptions(**inputs, index=root / split, split=split)
        )
        for split in ("all", "val,train", "test")
    }


@pytest.fixture
def photo(tmp_path):
    """Of a place of the split train."""
    (tmp_path / "photo.jpg").write_bytes(toy_search.jpeg(1, 77))
    return tmp_path / "photo.jpg"


@pytest.mark.parametrize(
    ("split", "held", "images"),
    [("all", "all", 18), ("val,train", "train,val", 12), ("test", "test", 6)],
)
def test_an_index_of_splits(folders, split, held, images):
    opened = Index.open(folders[split])
    assert opened.metadata["split"] == held
    assert len(opened.manifest) == images


def test_the_same_splits_in_another_order_keep_the_index(inputs, folders):
    path = folders["val,train"] / "index.json"
    before = path.stat().st_mtime_ns
    folder = folders["val,train"]
    index.run(IndexOptions(**inputs, index=folder, split="train,val"))
    assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize("split", ["everything", "train,", "", "train;val"])
def test_other_names_are_refused(inputs, split):
    message = f"be all, or names.*of train, val, test.*split='{split}'"
    with pytest.raises(ValueError, match=message):
        IndexOptions(**inputs, index="index", split=split)


def _locate(inputs, folder, photo):
    options = LocateOptions(
        export=inputs["export"], index=folder, photos=[photo], k=1
    )
    [(_, answer)] = locate.run(options)
    return answer


def test_locate_searches_all_places_and_says_so(inputs, folders, photo):
    answer = _locate(inputs, folders["all"], photo)
    assert answer.matches[0].place_id == "p1"
    assert "compared with 18 images of 9 places\n" in answer.as_text()
    assert answer.as_json()["searched"] == {
        "images": 18,
        "indexed": 18,
        "places": 9,
        "split": "all",
        "search": "scann",
        "recall": 1.0,
        "prior": "",
    }


def test_locate_says_that_it_searched_one_split(inputs, folders, photo):
    answer = _locate(inputs, folders["test"], photo)
    words = "compared with 6 images of 3 places (split test)\n"
    assert words in answer.as_text()


def _evaluate(inputs, folder, out, split):
    path = evaluate.run(
        EvaluationOptions(
            **inputs, index=folder, evaluation=out, split=split, recall_at=[1]
        )
    )
    return json.loads(path.read_text())


def test_queries_of_one_split_among_all_images(inputs, folders, tmp_path):
    metrics = _evaluate(inputs, folders["all"], tmp_path / "out", "test")
    assert metrics["split"] == "test"
    assert metrics["database_split"] == "all"
    assert metrics["counts"]["queries"] == 3
    assert metrics["counts"]["database"] == 18
    assert metrics["recall_at"] == {"1": 1.0}


def test_queries_of_several_splits(inputs, folders, tmp_path):
    metrics = _evaluate(
        inputs, folders["val,train"], tmp_path / "out", "train,val"
    )
    assert metrics["split"] == "train,val"
    assert "database_split" not in metrics
    assert metrics["counts"]["queries"] == 6


@pytest.mark.parametrize("split", ["all", "test,train", "train"])
def test_splits_that_the_index_lacks(inputs, folders, tmp_path, split):
    with pytest.raises(ValueError, match="split='test'.*--split=all"):
        _evaluate(inputs, folders["test"], tmp_path / "out", split)


def test_rows_of_several_splits(inputs):
    records = Records(inputs["records"])
    rows = records.rows("test,train", "query")
    assert rows["split"].value_counts().to_dict() == {"train": 3, "test": 3}
    assert rows.index.is_monotonic_increasing
    assert len(records.rows("all", "database")) == 18


def test_check_evaluates_all_splits(inputs, tmp_path):
    check.run(
        CheckOptions(
            records=inputs["records"],
            findings=tmp_path / "findings",
            split="all",
            check_images=False,
        )
    )
    made_from = json.loads((tmp_path / "findings/check.json").read_text())
    assert made_from["made_from"]["split"] == "all"
