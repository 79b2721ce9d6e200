"""Evaluation of the toy export against recall worked out by hand."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import toy_search
from absl import flags
from absl.testing import flagsaver

from sare_tf import evaluate, index, serving
from sare_tf.dataset.positives import choose_rule
from sare_tf.evaluation.options import EvaluationOptions
from sare_tf.pages import html
from sare_tf.records.records import Records
from sare_tf.search.options import IndexOptions


def _make(root, **options):
    inputs = {
        "records": toy_search.records(root, **options),
        "export": toy_search.export(root / "export"),
    }
    index.run(IndexOptions(**inputs, index=root / "index"))
    return {**inputs, "index": root / "index"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """6 places: 18 database images, 12 queries; the last 2 show place 0."""
    return _make(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def out(inputs, tmp_path_factory):
    out = tmp_path_factory.mktemp("result") / "evaluation"
    path = evaluate.run(
        EvaluationOptions(**inputs, evaluation=out, recall_at=[20, 1, 3, 18])
    )
    assert path == out / "metrics.json"
    return out


@pytest.fixture
def metrics(out):
    return json.loads((out / "metrics.json").read_text())


def test_recall_by_hand(metrics):
    # 10 of 12 queries show their own place, and find its 3 images first. The
    # other 2 show place 0: their positives come after those 3, by number 18
    # at the latest.
    assert list(metrics["recall_at"]) == ["1", "3", "18"]
    assert metrics["recall_at"] == {"1": 10 / 12, "3": 10 / 12, "18": 1.0}
    assert metrics["recall_at_left_out"] == [20]
    assert metrics["counts"] == {
        "queries": 12,
        "queries_without_positive": 0,
        "queries_counted": 12,
        "database": 18,
    }
    curve = metrics["recall_curve"]
    assert len(curve["recall"]) == 18
    # 1.96 standard errors of 10 of 12 are 0.21.
    low, high = metrics["recall_at_interval"]["1"]
    assert (low, high) == (curve["low"][0], curve["high"][0])
    assert 0.55 < low < 0.7
    assert high == 1


def test_metrics_define_themselves(metrics, inputs):
    protocol = metrics["protocol"]
    assert protocol["name"] == "radius"
    assert "at most 25 m away" in protocol["definition"]
    assert "counts as a miss" in protocol["definition"]
    assert protocol["parameters"]["radius_m"] == 25.0
    fingerprint = serving.load(inputs["export"]).fingerprint
    assert metrics["export_fingerprint"] == fingerprint
    fingerprint = Records(inputs["records"]).fingerprint
    assert metrics["records_fingerprint"] == fingerprint
    assert metrics["search"] == {
        "metrics": "exact",
        "index": "scann",
        "k": 10,
        "recall_of_exact": 1.0,
        # Brute force at this size: what exact search finds.
        "recall_curve": metrics["recall_curve"]["recall"],
    }
    # 12 queries are too few for parts: one of all, 10 of them right.
    (part,) = metrics["confidence"]
    assert (part["queries"], part["right"]) == (12, 10 / 12)
    speed = metrics["speed"]
    seconds = speed["embed_seconds"] + speed["search_seconds"]
    assert speed["queries_per_second"] == pytest.approx(12 / seconds)


def test_small_pictures_are_a_baseline_by_hand(metrics):
    """They tell the toy's places apart, and so have the network's recall."""
    pixels = metrics["baselines"]["pixels"]
    assert pixels["recall_at"] == {"1": 10 / 12, "3": 10 / 12, "18": 1.0}
    assert len(pixels["recall_curve"]) == 18
    # The toy export was not trained.
    assert metrics["epoch_choice"] is None


def test_errors_in_metres_by_hand(metrics):
    # 10 queries are placed 1 or 3 m off, the other 2 about 500 m.
    found = metrics["localisation"]
    assert found["queries"] == 12
    assert found["median_m"] in (1.0, 2.0, 3.0)
    assert found["within_m"] == dict.fromkeys(("5", "10", "25", "50"), 10 / 12)
    curves = found["recall_over_distance"]
    assert curves["1"][0] == 0
    assert curves["1"][3:] == [10 / 12] * 98


def test_table_of_queries(out, inputs):
    table = pd.read_csv(out / "queries.csv")
    rows = Records(inputs["records"]).rows("test", "query")
    assert table["image_id"].tolist() == rows["image_id"].tolist()
    assert table["positives"].tolist() == [3] * 12
    assert table["confidence"].between(0, 1).all()
    # Places are 100 m apart from 500,000 m on; the last one is wrong.
    place = ((table["utm_east_m"] - 500_000) // 100).astype(int)
    wrong = place == 5
    assert wrong.sum() == 2
    assert (table["first_correct_rank"][~wrong] == 1).all()
    assert (table["first_correct_rank"][wrong] > 3).all()
    # At place 0 rather than 5, up to 3 m off along the place.
    assert table["nearest_metres"][wrong].between(497, 503).all()
    assert table["nearest_metres"][~wrong].between(1, 3).all()
    same = table["nearest_image_id"] == table["positive_image_id"]
    np.testing.assert_array_equal(same, ~wrong)
    closer = (
        table["nearest_squared_distance"] < table["positive_squared_distance"]
    )
    np.testing.assert_array_equal(closer, wrong)


def test_positions_of_queries_are_written(inputs, tmp_path):
    """Into the folder of the evaluation, and twice."""
    out = tmp_path / "evaluation"
    path = out / "positions.geojson"
    options = EvaluationOptions(
        **inputs,
        evaluation=out,
        recall_at=[1],
        baseline_images=0,
        write_positions=str(path),
    )
    evaluate.run(options)
    evaluate.run(options)
    features = json.loads(path.read_text())["features"]
    table = pd.read_csv(out / "queries.csv")
    names = [feature["properties"]["name"] for feature in features]
    assert names == table["image_id"].tolist()
    right = [feature["properties"]["is_right"] for feature in features]
    assert sum(right) == 10
    for feature, is_right in zip(features, right, strict=True):
        fields = feature["properties"]
        east, north = feature["geometry"]["coordinates"]
        # Degrees to metres at 40.65 north; the others are about 500 m off.
        metres = np.hypot(
            (east - fields["query_longitude"]) * 111_320 * np.cos(0.7095),
            (north - fields["query_latitude"]) * 111_050,
        )
        assert metres == pytest.approx(fields["error_m"], rel=0.02, abs=0.05)
        assert (fields["error_m"] < 4) == is_right
    with pytest.raises(
        ValueError, match="positions.csv in the folder of the evaluation"
    ):
        evaluate.run(
            EvaluationOptions(
                **inputs,
                evaluation=out,
                write_positions=str(out / "other.csv"),
            )
        )


def test_report_shows_wrong_queries_first(out):
    page = (out / "report.html").read_text()
    cases = page.split('<div class="case" data-kind="')[1:]
    assert [case[:5] for case in cases] == ["wrong"] * 2 + ["right"] * 10
    # Of place 5, found at place 0.
    assert "@5005" in cases[0].split("</figure>")[0]
    assert '<figure class="wrong"' in cases[0].split("</figure>")[1]
    assert '<figure class="missed"' not in cases[-1]
    assert '<figure class="right"' in cases[-1].split("</figure>")[1]
    assert " m</span>" in cases[-1]
    assert "at most 25 m away" in page
    assert "Where queries were placed" in page


def test_nothing_is_left_beside_the_result(out):
    assert {path.name for path in out.iterdir()} == {
        "metrics.json",
        "queries.csv",
        "report.html",
    }
    assert list(out.parent.iterdir()) == [out]


def test_exact_leaves_scann_out(inputs, tmp_path):
    evaluate.run(
        EvaluationOptions(
            **inputs,
            evaluation=tmp_path / "a",
            recall_at=[1],
            exact_search=True,
        )
    )
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert metrics["search"]["index"] == "exact"
    assert metrics["search"]["recall_of_exact"] is None
    assert metrics["search"]["recall_curve"] is None


def test_recall_through_the_index_is_its_own(inputs, tmp_path, monkeypatch):
    """Of a search that never finds the first image, and then others."""
    search = index.Index.search

    def worse(self, descriptors, k):
        rows, distances = search(self, descriptors, min(k + 1, 18))
        rows, distances = rows[:, 1:], distances[:, 1:]
        lost = k - rows.shape[1]
        return (
            np.pad(rows, ((0, 0), (0, lost)), constant_values=-1),
            np.pad(distances, ((0, 0), (0, lost)), constant_values=np.inf),
        )

    monkeypatch.setattr(index.Index, "search", worse)
    evaluate.run(
        EvaluationOptions(
            **inputs, evaluation=tmp_path / "a", recall_at=[1, 18]
        )
    )
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert metrics["recall_curve"]["recall"][0] == 10 / 12
    found = metrics["search"]
    # 9 of the 10 nearest are among these 10; of 3 images of a place 2 are left.
    assert found["recall_of_exact"] == pytest.approx(0.9)
    assert found["recall_curve"][0] == 10 / 12
    assert found["recall_curve"][-1] == 1.0
    assert len(found["recall_curve"]) == 18


def test_pictures_of_an_index_that_lost_images(inputs, tmp_path):
    """Rows of the index are no rows of the records then."""
    smaller = tmp_path / "index"
    shutil.copytree(inputs["index"], smaller)
    database = Records(inputs["records"]).rows("test", "database")
    (tmp_path / "ids.txt").write_text(database["image_id"].iloc[0] + "\n")
    index.run(IndexOptions(index=smaller, remove_ids=tmp_path / "ids.txt"))
    out = tmp_path / "out"
    evaluate.run(
        EvaluationOptions(
            **{**inputs, "index": smaller}, evaluation=out, recall_at=[1]
        )
    )
    page = (out / "report.html").read_text()
    found = re.findall(r'<img src="([^"]*)" alt="[✓✗] \d: ([^"]*)"', page)
    assert len(found) == 12 * 5
    photos = Path(inputs["records"]).parent / "photos" / "images"
    for source, name in found:
        encoded = (photos / name).read_bytes()
        picture = html.Picture(encoded=encoded, name=name)
        assert source == html.thumbnail(picture)


def test_what_auto_stands_for(inputs):
    rows = Records(inputs["records"]).rows("test", "query")
    unknown = rows.assign(utm_east_m=np.nan, utm_north_m=np.nan)
    listed = pd.DataFrame({"query": rows["image_id"]})
    choose = choose_rule
    assert choose(rows, rows) == "radius"
    assert choose(rows, unknown) == "place"
    assert choose(rows, rows, relations=listed) == "list"
    assert choose(rows, rows, relations=listed + "x") == "radius"
    assert choose(rows, rows, rule="place") == "place"


def test_a_query_without_a_positive_is_a_miss_and_listed(tmp_path, caplog):
    inputs = _make(tmp_path, far_queries=1)
    with caplog.at_level("WARNING"):
        evaluate.run(
            EvaluationOptions(
                **inputs, evaluation=tmp_path / "out", recall_at=[1, 18]
            )
        )
    assert "1 of 13 queries have no positive" in caplog.text
    assert "@600000" in caplog.text
    out = tmp_path / "out"
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["recall_at"] == {"1": 10 / 13, "18": 12 / 13}
    assert metrics["counts"]["queries_without_positive"] == 1
    table = pd.read_csv(out / "queries.csv")
    far = table["utm_east_m"] == 600_000
    assert table["positives"].tolist() == np.where(far, 0, 3).tolist()
    for column in (
        "first_correct_rank",
        "positive_image_id",
        "positive_squared_distance",
    ):
        assert table[column].isna().tolist() == far.tolist()
    assert table["counted"].all()
    page = (out / "report.html").read_text()
    assert page.count('<figure class="query"') == 12


def test_msls_leaves_that_query_out(tmp_path, caplog):
    inputs = _make(tmp_path, far_queries=1)
    with caplog.at_level("WARNING"):
        evaluate.run(
            EvaluationOptions(
                **inputs,
                evaluation=tmp_path / "out",
                recall_at=[1, 18],
                protocol="msls",
            )
        )
    assert "1 of 13 queries have no positive in the database and are left" in (
        caplog.text
    )
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["recall_at"] == {"1": 10 / 12, "18": 1.0}
    assert metrics["counts"]["queries"] == 13
    assert metrics["counts"]["queries_counted"] == 12
    # 3 positives each: AP@1 is that of the first; of the first 10 all are
    # found where the first is, 10 of 12, and some of the other 2's.
    precisions = metrics["precisions"]
    assert precisions["average_precision_at_1"] == 10 / 12
    assert 10 / 12 <= precisions["average_precision_at_10"] < 11 / 12
    table = pd.read_csv(tmp_path / "out" / "queries.csv")
    assert (~table["counted"]).sum() == 1
    assert table["average_precision_at_1"].isna().sum() == 1


def test_a_protocol_asks_for_what_the_images_lack(inputs, tmp_path):
    for protocol, message in (
        ("tokyo247", "panorama_id of every image"),
        ("nordland", "a frame of every image"),
        ("holidays", "listed pairs for the protocol holidays"),
        ("pitts", "Expected protocol to be auto, radius"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate.run(
                EvaluationOptions(
                    **inputs, evaluation=tmp_path / "a", protocol=protocol
                )
            )


def test_no_query_with_a_positive(inputs, tmp_path):
    # Queries stand 1 m beside the database images.
    with pytest.raises(ValueError, match="none of 12 queries has one"):
        evaluate.run(
            EvaluationOptions(
                **inputs, evaluation=tmp_path / "a", positive_radius_m=0.5
            )
        )


def test_large_n_is_left_out_with_a_warning(inputs, tmp_path, caplog):
    with caplog.at_level("WARNING"):
        evaluate.run(
            EvaluationOptions(
                **inputs, evaluation=tmp_path / "a", recall_at=[1, 19]
            )
        )
    assert "Left out recall@N for N=[19]: the database has 18" in caplog.text


@pytest.mark.parametrize(
    ("recall_at", "message"),
    [
        ([], "at least one N"),
        ([0, 1], "at least 1. Received: recall_at=0"),
        ([19, 50], r"at most 18.*Received: recall_at=\[19, 50\]"),
    ],
)
def test_recall_at_out_of_range(inputs, tmp_path, recall_at, message):
    with pytest.raises(ValueError, match=message):
        evaluate.run(
            EvaluationOptions(
                **inputs, evaluation=tmp_path / "a", recall_at=recall_at
            )
        )
    assert not (tmp_path / "a").exists()


def test_another_export_is_refused(inputs, tmp_path):
    other = toy_search.export(tmp_path / "other", length=1.00001)
    with pytest.raises(ValueError, match="Expected the export that built"):
        evaluate.run(
            EvaluationOptions(
                **{**inputs, "export": other}, evaluation=tmp_path / "a"
            )
        )


def test_other_records_and_splits_are_refused(inputs, tmp_path):
    other = toy_search.records(tmp_path, places=5)
    with pytest.raises(ValueError, match="Expected the records that the index"):
        evaluate.run(
            EvaluationOptions(
                **{**inputs, "records": other}, evaluation=tmp_path / "a"
            )
        )
    with pytest.raises(ValueError, match="split='test'.*split='val'"):
        evaluate.run(
            EvaluationOptions(**inputs, evaluation=tmp_path / "a", split="val")
        )


def test_a_folder_of_someone_else_is_left_alone(inputs, tmp_path):
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(ValueError, match="also holds .*thesis.txt"):
        evaluate.run(EvaluationOptions(**inputs, evaluation=tmp_path))


def test_a_single_query_and_database_image(tmp_path):
    inputs = _make(tmp_path, views=(1, 1), places=1)
    evaluate.run(
        EvaluationOptions(**inputs, evaluation=tmp_path / "out", recall_at=[1])
    )
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["recall_at"] == {"1": 1.0}
    assert metrics["search"]["k"] == 1


def test_main_reads_the_flags(inputs, tmp_path):
    flags.FLAGS.mark_as_parsed()
    values = {name: str(path) for name, path in inputs.items()}
    with flagsaver.flagsaver(
        **values,
        evaluation=str(tmp_path / "a"),
        recall_at=["1", "2"],
        protocol="radius",
        positive_radius_m=12.5,
        exact_search=True,
    ):
        evaluate.main(["evaluate"])
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert list(metrics["recall_at"]) == ["1", "2"]
    assert "at most 12.5 m away" in metrics["protocol"]["definition"]
    with (
        flagsaver.flagsaver(
            **values, evaluation=str(tmp_path), recall_at=["one"]
        ),
        pytest.raises(ValueError, match="numbers. Received: --recall_at=one"),
    ):
        evaluate.main(["evaluate"])
