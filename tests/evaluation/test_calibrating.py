"""Calibration by `evaluate`, and what `locate` makes of it."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
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


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Ten photographs of other places, one of the database, and a damaged."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for place in range(50, 60):
        (folder / f"{place}.jpg").write_bytes(toy_search.jpeg(place, 0))
    (folder / "known.jpg").write_bytes(toy_search.jpeg(12, 0))
    (folder / "damaged.jpg").write_bytes(b"none")
    return folder


def test_distractors_are_negatives(inputs, tmp_path, elsewhere, caplog, photo):
    folder = tmp_path / "index"
    _index(inputs, folder, "test")
    options = dataclasses.replace(
        _options(inputs, folder), distractors=str(elsewhere)
    )
    with caplog.at_level(logging.WARNING, logger="absl"):
        path = evaluate.run(options)
    assert "1 of 12 distractors are left out" in caplog.text
    assert "damaged.jpg" in caplog.text
    doubt = json.loads(path.read_text())["doubt"]
    assert doubt["answers"] == {
        "right": 12,
        "wrong": 0,
        "without_positive": 0,
        "distractors": 11,
    }
    assert doubt["calibrated_on"]["queries"] == 12
    assert set(doubt["scores"]) == {"margin", "distance", "spread", "combined"}
    # The least distance is of the photograph that is in the database, and is
    # wrong for it is called one from elsewhere.
    curve = doubt["scores"]["distance"]["curve"]
    assert curve["precision"][0] == 0
    assert curve["recall"][-1] == 1
    assert curve["precision"][-1] == 12 / 23
    for one in doubt["rejection"]:
        # One group: 10 of 12 are right on val.
        everything = one["reject_below"] > 10 / 12
        assert one["right_rejected"] == 12 * everything
        assert one["distractors_accepted"] == 11 * (not everything)
        assert one["stated"]["distractors"] == 11
    rejected = _locate(inputs, folder, photo, reject_below=0.9)
    assert rejected.as_text().startswith("not in this database: right in 83")
    assert (
        "of photographs from elsewhere, 0 of 23 (0 %) are accepted (val and "
        "distractors)"
    ) in rejected.as_text()
    assert rejected.position is None
    kept = _locate(inputs, folder, photo, reject_below=0.8)
    assert "23 of 23 (100 %) are accepted" in kept.as_text()


def test_a_folder_without_photographs_is_refused(inputs, calibrated, tmp_path):
    options = dataclasses.replace(
        _options(inputs, calibrated[0]),
        evaluation=str(tmp_path / "evaluation"),
        distractors=str(tmp_path / "none"),
    )
    with pytest.raises(ValueError, match="photographs from elsewhere. Receiv"):
        evaluate.run(options)


def test_positions_are_measured_on_val(inputs, calibrated, photo):
    folder, written = calibrated
    assert written["placing"]["queries"] == 12
    assert set(written["placing"]["median_m"]) == {"nearest", "mean", "peak"}
    figures = json.loads(
        folder.with_name("evaluation").joinpath("metrics.json").read_text()
    )["placing"]
    assert figures["queries"] == 12
    assert figures["chosen"] == written["placing"]["method"]
    # Queries stand 1 m beside images that are 2 m apart.
    for one in figures["methods"].values():
        assert one["within_m"]["5"] >= 10 / 12
        assert one["median_m"] <= 3
        assert one["heading"] is None
    table = pd.read_csv(folder.with_name("evaluation") / "queries.csv")
    errors = table["nearest_error_m"]
    assert errors.tolist() == pytest.approx(table["nearest_metres"].tolist())
    answer = _locate(inputs, folder, photo)
    position = answer.position
    assert position.queries == 12
    # Place 12 stands at 501,200 to 501,204 m.
    assert position.utm_east_m == pytest.approx(501_202, abs=3)
    assert "(val, n = 12)" in answer.as_text().splitlines()[1]
    assert position.ellipses[1].major_m >= position.ellipses[0].major_m
    near = _locate(
        inputs, folder, photo, near=(40.65, -80.985), within_m=3000.0
    )
    assert near.position.ellipse_text.endswith("(not calibrated)")


def test_a_later_evaluation_uses_the_calibration(inputs, calibrated, tmp_path):
    options = dataclasses.replace(
        _options(inputs, calibrated[0]),
        calibrate=False,
        evaluation=str(tmp_path / "evaluation"),
    )
    before = (calibrated[0] / "calibration.json").read_bytes()
    doubt = json.loads(evaluate.run(options).read_text())["doubt"]
    combined = doubt["scores"]["combined"]
    assert combined["expected_calibration_error"] == pytest.approx(2 / 12)
    (one,) = combined["reliability"]
    assert (one["right"], one["answers"]) == (1, 12)
    assert (calibrated[0] / "calibration.json").read_bytes() == before
