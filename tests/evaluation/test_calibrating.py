"""Calibration by `evaluate`, and what `locate` makes of it."""

import json
import shutil

import numpy as np
import pytest
import toy_search
from absl import logging

from sare_tf import build_records, evaluate, index, locate, serving
from sare_tf.evaluation import (
    calibrating,
    evaluate_descriptors,
    protocols,
)
from sare_tf.evaluation.options import EvaluationOptions
from sare_tf.pages.options import LocateOptions
from sare_tf.records.options import RecordOptions
from sare_tf.records.records import Records
from sare_tf.search import confidence as confidence_of
from sare_tf.search import locator
from sare_tf.search.answer_scores import Found, Scorer
from sare_tf.search.options import IndexOptions
from sare_tf.search.placing import PositionMap


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Val: places 0 to 5, 18 images, 12 queries, the last 2 show place 0.

    Test: places 10 to 15, 18 images, 12 queries.
    """
    root = tmp_path_factory.mktemp("toy")
    for split, first_place in (("val", 0), ("test", 10)):
        toy_search.photographs(
            root / "photos", split=split, first_place=first_place
        )
    records = build_records.run(
        RecordOptions(
            dataset=root / "photos", records=root / "records", reader="at_names"
        )
    )
    return {"records": records, "export": toy_search.export(root / "export")}


def _index(inputs, folder, split):
    return index.run(IndexOptions(**inputs, index=folder, split=split))


def _options(inputs, folder):
    return EvaluationOptions(
        **inputs,
        index=folder,
        evaluation=folder.with_name("evaluation"),
        recall_at=[1],
        baseline_images=0,
        calibrate=True,
    )


def _measure(inputs, folder):
    """What `evaluate --calibrate` keeps, without the evaluation."""
    servable = serving.load(inputs["export"])
    opened = index.Index.open(folder)
    asked = calibrating.ask(
        _options(inputs, folder),
        records=Records(inputs["records"]),
        index=opened,
        servable=servable,
    )
    return asked and calibrating.measure(
        asked, radius_m=25.0, index=opened, fingerprint=servable.fingerprint
    )


@pytest.fixture(scope="module")
def calibrated(inputs, tmp_path_factory):
    """An index of test, and its calibration on val."""
    folder = tmp_path_factory.mktemp("calibrated") / "index"
    _index(inputs, folder, "test")
    evaluate.run(_options(inputs, folder))
    return folder, json.loads((folder / "calibration.json").read_text())


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "twelve.jpg"
    path.write_bytes(toy_search.jpeg(12, 99))
    return path


def _locate(inputs, folder, photo, **options):
    ((_, answer),) = locate.run(
        LocateOptions(
            export=inputs["export"], index=folder, photos=[photo], **options
        )
    )
    return answer


def test_val_is_asked_and_test_is_reported(calibrated):
    folder, written = calibrated
    assert (written["split"], written["queries"]) == ("val", 12)
    # 10 of 12 show their own place. Test images are not searched.
    (group,) = written["groups"]
    assert (group["queries"], group["right"], group["absent"]) == (12, 10, 12)
    assert (written["database"], written["same_database"]) == (18, False)
    assert "at most 25 m away" in written["protocol"]
    metrics = json.loads(
        folder.with_name("evaluation").joinpath("metrics.json").read_text()
    )
    assert metrics["split"] == "test"


def test_an_index_that_holds_val_is_searched_itself(inputs, tmp_path):
    folder = tmp_path / "index"
    _index(inputs, folder, "val,test")
    found = _measure(inputs, folder)
    assert (found.database, found.same_database) == (36, True)
    (group,) = found.groups
    assert (group.queries, group.right) == (12, 10)


def test_confidences_by_plain_loops(inputs, calibrated):
    """Of the least confident query, with and without its positives."""
    _, written = calibrated
    records = Records(inputs["records"])
    servable = serving.load(inputs["export"])
    queries = records.rows("val", "query")
    database = records.rows("val", "database")
    embedded = {
        role: servable(list(records.read_images(rows)))[0].astype(float)
        for role, rows in (("query", queries), ("database", database))
    }

    def confidence(query, candidates):
        squared = [
            sum((embedded["query"][query] - embedded["database"][row]) ** 2)
            for row in candidates
        ]
        first = candidates[int(np.argmin(squared))]
        place = database["utm_east_m"].iloc[first]
        others = [
            distance
            for distance, row in zip(squared, candidates, strict=True)
            if abs(database["utm_east_m"].iloc[row] - place) > 25
        ]
        return 1 - (min(squared) / min(others)) ** 0.5

    everything = range(len(database))
    values = [confidence(query, everything) for query in range(len(queries))]
    (margins,) = written["by_score"]["margin"]
    assert margins["start"] == pytest.approx(min(values), abs=1e-5)
    results = evaluate_descriptors.evaluate_descriptors(
        protocols.choose("radius", radius_m=25),
        queries=queries,
        database=database,
        query_vectors=embedded["query"].astype(np.float32),
        database_vectors=embedded["database"].astype(np.float32),
    )
    expected = [
        confidence(
            number,
            [
                row
                for row in everything
                if abs(
                    database["utm_east_m"].iloc[row]
                    - queries["utm_east_m"].iloc[number]
                )
                > 25
            ],
        )
        for number in range(len(queries))
    ]
    found = Found.retrieved(results.rows, results.squared_distances)
    scorer = Scorer(
        confidence_of.Places(database, radius_m=25),
        PositionMap(database, radius_m=25),
        None,
    )
    scores = scorer(
        found.without(results.hits),
        count=len(database) - results.positive_counts,
    )
    np.testing.assert_allclose(scores["margin"], expected, atol=1e-5)


def test_locate_says_how_often_such_answers_are_right(
    inputs, calibrated, photo
):
    answer = _locate(inputs, calibrated[0], photo)
    text = "right in 83 of 100 such cases (val, n = 12, 95 % interval 55 to 95)"
    assert answer.as_text().startswith(f"{text}, compared with 18 images")
    written = answer.as_json()
    assert written["confidence_text"] == text
    assert written["reliability"]["right"] == 10 / 12
    assert not written["rejected"]
    assert locator.Answer.from_json(json.loads(json.dumps(written))) == answer


def test_rejects_what_is_right_too_seldom(inputs, calibrated, photo):
    answer = _locate(inputs, calibrated[0], photo, reject_below=0.9)
    assert answer.rejected
    assert answer.as_text().startswith("not in this database: right in 83 of")
    assert "openstreetmap" not in answer.as_text()
    rates = answer.as_json()["rejection"]
    assert (rates["right_rejected"], rates["right"]) == (10, 10)
    assert (rates["absent_accepted"], rates["absent"]) == (0, 12)
    kept = _locate(inputs, calibrated[0], photo, reject_below=0.8)
    assert not kept.rejected
    assert kept.rejection.right_rejected == 0


def test_a_changed_index_has_no_calibration(
    inputs, calibrated, tmp_path, photo, caplog
):
    folder = tmp_path / "index"
    shutil.copytree(calibrated[0], folder)
    names = tmp_path / "ids.txt"
    names.write_text(index.Index.open(folder).manifest["image_id"].iloc[0])
    index.run(IndexOptions(index=folder, remove_ids=names))
    with caplog.at_level(logging.WARNING, logger="absl"):
        answer = _locate(inputs, folder, photo)
    assert "was made for another content of the index" in caplog.text
    assert "margin to the nearest other place" in answer.as_text()
    assert "not calibrated" in answer.as_text()
    with pytest.raises(ValueError, match="--reject_below.*another content"):
        _locate(inputs, folder, photo, reject_below=0.5)
    # An index that is built in its place has no calibration.
    shutil.rmtree(folder)
    shutil.copytree(calibrated[0], folder)
    _index(inputs, folder, "val")
    assert not (folder / "calibration.json").exists()
    with pytest.raises(ValueError, match="the index has none. Run python -m"):
        _locate(inputs, folder, photo, reject_below=0.5)


def test_too_few_queries_calibrate_nothing(tmp_path, caplog):
    records = toy_search.records(tmp_path)
    inputs = {"records": records, "export": toy_search.export(tmp_path / "e")}
    folder = tmp_path / "index"
    _index(inputs, folder, "test")
    with caplog.at_level(logging.WARNING, logger="absl"):
        assert _measure(inputs, folder) is None
    assert "the split val has 0 queries" in caplog.text
