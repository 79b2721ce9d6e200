"""Comparison of evaluations: by hand, and what it refuses."""

import base64
import copy
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
import toy_damage
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from sare_tf import compare
from sare_tf.evaluation import comparison
from sare_tf.evaluation.options import ComparisonOptions
from sare_tf.records.records import Records
from sare_tf.runtime import file_digests, sealed_json

METRICS = {
    "recall_at": {"1": 0.0, "5": 0.0},
    "recall_curve": {"recall": [0.0] * 10},
    "precisions": {"average_precision": 0.0},
    "protocol": {
        "name": "holidays",
        "definition": "What it is.",
        "parameters": {"name": "holidays", "radius_m": 25.0},
    },
    "split": "test",
    "database_digest": "a" * 64,
    "export_fingerprint": "e" * 64,
    "dimension": 256,
    "speed": {"queries_per_second": 12.5},
}


def _write(folder, ranks, precisions=None, change=None, table=None):
    """An evaluation with these first correct ranks, 0 where none."""
    folder.mkdir()
    metrics = copy.deepcopy(METRICS)
    if change:
        change(metrics)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    columns = {
        "image_id": [f"q{n}" for n in range(len(ranks))],
        "counted": [True] * len(ranks),
        "positives": [3] * len(ranks),
        "first_correct_rank": [rank or None for rank in ranks],
        "average_precision": precisions or [0.5] * len(ranks),
        **(table or {}),
    }
    pd.DataFrame(columns).to_csv(folder / "queries.csv", index=False)
    return folder


FIRST = [1, 1, 1, 1, 1, 2, 0, 0, 3, 9]
SECOND = [1, 2, 2, 2, 2, 1, 0, 6, 0, 1]


@pytest.fixture
def runs(tmp_path):
    return [
        _write(tmp_path / "a", FIRST, list(np.linspace(0, 0.9, 10))),
        _write(tmp_path / "b", SECOND, list(np.linspace(0.1, 1, 10))),
    ]


def test_figures_that_a_run_lacks_are_left_out(runs, tmp_path):
    """Re-ranking measures no precision of the full ranking."""
    third = _write(
        tmp_path / "c", SECOND, change=lambda one: one.update(precisions={})
    )
    for order in ([runs[0], third], [third, runs[0]]):
        path = compare.run(
            ComparisonOptions(runs=order, comparison=tmp_path / "out")
        )
        found = json.loads(path.read_text())
        for run in found["runs"]:
            assert list(run["figures"]) == ["recall@1", "recall@5"]


def test_figures_and_tests_by_hand(runs, tmp_path):
    path = compare.run(
        ComparisonOptions(runs=runs, comparison=tmp_path / "out")
    )
    found = json.loads(path.read_text())
    assert found["queries"] == 10
    first, second = (run["figures"] for run in found["runs"])
    assert first["recall@1"]["mean"] == 0.5
    assert second["recall@1"]["mean"] == 0.3
    assert second["recall@1"]["difference"] == pytest.approx(-0.2)
    # At 1, queries 1 to 4 are found by the first alone, 5 and 9 by the
    # second: twice the 1 + 6 + 15 of 64 outcomes with at most 2.
    assert second["recall@1"]["mcnemar"] == {
        "only_first": 4,
        "only_second": 2,
        "p_value": pytest.approx(44 / 64),
    }
    # At 5, query 8 by the first alone, query 9 by the second alone.
    assert second["recall@5"]["mcnemar"]["p_value"] == 1.0
    low, high = second["recall@1"]["difference_interval"]
    assert -0.8 < low < -0.2 < high < 0.4
    # Every query is better by 0.1: of that there is no doubt.
    change = second["average_precision"]
    assert change["difference"] == pytest.approx(0.1)
    np.testing.assert_allclose(change["difference_interval"], 0.1)
    assert "mcnemar" not in change
    assert change["verdict"] == "better"
    assert second["recall@1"]["verdict"] == "no clear difference"
    assert "difference" not in first["recall@1"]


def test_queries_that_do_not_count_are_left_out(tmp_path):
    table = {"counted": [True] * 5 + [False] * 5}
    runs = [
        _write(tmp_path / name, ranks, table=table)
        for name, ranks in (("a", FIRST), ("b", SECOND))
    ]
    found = json.loads(
        compare.run(
            ComparisonOptions(runs=runs, comparison=tmp_path / "out")
        ).read_text()
    )
    assert found["queries"] == 5
    assert found["runs"][0]["figures"]["recall@1"]["mean"] == 1.0


def test_queries_named_like_missing_values(tmp_path):
    """pandas reads such names as not a number, which equals nothing."""
    names = {"image_id": ["nan", "NA", "None", "NULL", "", "007"]}
    runs = [
        _write(tmp_path / name, [1, 0, 1, 2, 1, 1], table=names)
        for name in "ab"
    ]
    first = comparison.FinishedRun(runs[0])
    assert first.same["queries"] == names["image_id"]
    compared = comparison.compare(list(map(comparison.FinishedRun, runs)))
    assert compared["queries"] == 6


def test_recall_at_every_n_that_one_run_has(tmp_path):
    def fewer(metrics):
        metrics["recall_at"] = {"3": 0.0, "10": 0.0}
        metrics["recall_curve"] = {"recall": [0.0] * 7}

    runs = [
        _write(tmp_path / "a", FIRST),
        _write(tmp_path / "b", SECOND, change=fewer),
    ]
    found = json.loads(
        compare.run(
            ComparisonOptions(runs=runs, comparison=tmp_path / "out")
        ).read_text()
    )
    # 10 was not searched in the second.
    assert list(found["runs"][0]["figures"]) == [
        *("recall@1", "recall@3", "recall@5", "average_precision")
    ]


def test_page_and_table_show_every_run(runs, tmp_path):
    out = tmp_path / "out"
    path = compare.run(ComparisonOptions(runs=[*runs, runs[0]], comparison=out))
    page = (out / "compare.html").read_text()
    for words in (
        str(runs[0]),
        str(runs[1]),
        "What it is.",
        "30.0 %",
        "-20.0",
        "only this run 2, only the first 4, p 0.69",
        'class="up sure">+10.0 better <small>',
        'class="down">-20.0 no clear difference <small>',
    ):
        assert words in page, words
    assert "src=" not in page
    # The contents lead to every section.
    links = re.findall(r'href="([^"]*)"', page)
    assert links == ["#charts", "#figures", "#pair-B", "#pair-C"]
    headings = re.findall(r'<h2 id="([^"]*)">', page)
    assert [link[1:] for link in links] == headings[1:]
    # A curve of each run, in the chart and in its key, and a bar for each
    # figure of B and of C.
    assert page.count('<path class="curve line-') == 3 + 3
    assert page.count('class="interval ') == 2 * 3
    # Of B, only the average precision is beyond chance.
    assert page.count('class="interval better"') == 1
    assert page.count('class="interval unclear"') == 5
    for letter, run in zip("ABC", [*runs, runs[0]], strict=True):
        assert f"{letter} {run}" in page
    table = comparison.as_text(json.loads(path.read_text()))
    (line,) = [line for line in table.splitlines() if "recall@1" in line]
    assert "50.0  |  30.0  -20.0 [" in line
    assert "p=0.69 no clear difference" in line
    assert "|  50.0   +0.0 [+0.0, +0.0] p=1 no clear difference" in line


def test_mcnemar_decides_on_recall(tmp_path):
    """The interval excludes 0, and the exact test does not: p is 2 / 32."""
    runs = [
        _write(tmp_path / "a", [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        _write(tmp_path / "b", [2, 2, 2, 2, 2, 1, 1, 1, 1, 1]),
        _write(tmp_path / "c", [2, 2, 2, 2, 2, 2, 1, 1, 1, 1]),
    ]
    path = compare.run(
        ComparisonOptions(runs=runs, comparison=tmp_path / "out")
    )
    _, second, third = (
        run["figures"]["recall@1"]
        for run in json.loads(path.read_text())["runs"]
    )
    assert second["difference_interval"][1] < 0
    assert second["mcnemar"]["p_value"] == pytest.approx(2 / 32)
    assert second["verdict"] == "no clear difference"
    assert third["mcnemar"]["p_value"] == pytest.approx(2 / 64)
    assert third["verdict"] == "worse"


def _other_protocol(metrics):
    metrics["protocol"]["parameters"]["radius_m"] = 10.0


def _other_database(metrics):
    metrics["database_digest"] = "b" * 64


@pytest.mark.parametrize(
    ("change", "table", "message"),
    [
        (_other_protocol, {}, "same protocol .*radius_m is 25.0 and 10.0"),
        (_other_database, {}, "same database .*digest a{12} and b{12}"),
        (
            None,
            {"image_id": [f"q{n}" for n in (0, 1, 3, 2, 4, 5, 6, 7, 8, 9)]},
            "same queries .*number 3 is 'q2' and 'q3'",
        ),
        (
            None,
            {"positives": [3] * 9 + [4]},
            "same positives of the queries .*number 10 is 3 and 4",
        ),
        (
            None,
            {"counted": [False] + [True] * 9},
            "same queries that count .*number 1 is True and False",
        ),
    ],
)
def test_runs_that_differ_are_refused(tmp_path, change, table, message):
    runs = [
        _write(tmp_path / "a", FIRST),
        _write(tmp_path / "b", SECOND, change=change, table=table),
    ]
    with pytest.raises(ValueError, match=message):
        compare.run(ComparisonOptions(runs=runs, comparison=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_an_earlier_version_names_fewer_parameters(tmp_path):
    def named(value):
        def change(metrics):
            metrics["protocol"]["parameters"] |= {
                "other_sequence": value,
                "right": ["positive", "easy", "hard"],
            }

        return change

    earlier = _write(tmp_path / "a", FIRST)
    same = _write(tmp_path / "b", SECOND, change=named(False))
    options = {"comparison": tmp_path / "out"}
    compare.run(ComparisonOptions(runs=[earlier, same], **options))
    other = _write(tmp_path / "c", SECOND, change=named(True))
    with pytest.raises(ValueError, match="other_sequence is False and True"):
        compare.run(ComparisonOptions(runs=[earlier, other], **options))


def test_another_number_of_queries_is_refused(tmp_path):
    runs = [_write(tmp_path / "a", FIRST), _write(tmp_path / "b", SECOND[:7])]
    with pytest.raises(ValueError, match="same queries .*differ: 10 and 7"):
        compare.run(ComparisonOptions(runs=runs, comparison=tmp_path / "out"))


def test_runs_that_are_not_there_or_damaged(runs, tmp_path):
    with pytest.raises(ValueError, match="at least two evaluations. Rec.*/a'"):
        compare.run(
            ComparisonOptions(runs=runs[:1], comparison=tmp_path / "out")
        )
    with pytest.raises(FileNotFoundError, match="Run python -m sare_tf.eval"):
        compare.run(
            ComparisonOptions(
                runs=[*runs, tmp_path / "none"], comparison=tmp_path / "out"
            )
        )
    (runs[1] / "queries.csv").write_text("image_id\nq0\n")
    with pytest.raises(ValueError, match="a whole evaluation.*/b'"):
        compare.run(ComparisonOptions(runs=runs, comparison=tmp_path / "out"))
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(ValueError, match="also holds .*thesis.txt"):
        compare.run(ComparisonOptions(runs=runs, comparison=tmp_path))


def test_figures_that_changed_since_they_were_written(runs, tmp_path):
    """As `evaluate` writes them now; above is what an earlier version wrote."""
    folder = runs[1]
    metrics = json.loads((folder / "metrics.json").read_text())
    digests = file_digests.of(folder, ["queries.csv"])
    sealed_json.write(folder / "metrics.json", {**metrics, "digests": digests})
    options = ComparisonOptions(runs=runs, comparison=tmp_path / "out")
    compare.run(options)
    queries = (folder / "queries.csv").read_text()
    (folder / "queries.csv").write_text(queries.replace(",6.0,", ",1.0,"))
    with pytest.raises(ValueError, match="queries.csv: not as written.*again"):
        compare.run(options)
    (folder / "queries.csv").write_text(queries)
    toy_damage.flip(folder / "metrics.json", 30, bit=1)
    with pytest.raises(ValueError, match=r"metrics.json.*evaluate.*again"):
        compare.run(options)


def test_main_writes_the_table(runs, tmp_path, capsys):
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(comparison=str(tmp_path / "out")):
        compare.main(["compare", *map(str, runs)])
    told = capsys.readouterr().out
    assert told.startswith("holidays, 10 queries\nA  ")
    assert (tmp_path / "out" / "compare.json").is_file()


NEAREST = {
    "nearest_image_id": [f"d{n}" for n in range(10)],
    "positive_image_id": [f"p{n}" for n in range(10)],
}


def test_queries_on_which_runs_differ_by_hand(tmp_path):
    """At 1: queries 1 to 4 by the first only, 5 and 9 by the second only."""
    other = NEAREST | {"nearest_image_id": [f"e{n}" for n in range(10)]}
    runs = [
        _write(tmp_path / "a", FIRST, table=NEAREST),
        _write(tmp_path / "b", SECOND, table=other),
    ]
    compare.run(ComparisonOptions(runs=runs, comparison=tmp_path / "out"))
    written = pd.read_csv(tmp_path / "out/differences.csv")
    # The worst first: rank 9 before rank 2.
    assert written["image_id"].tolist() == ["q1", "q2", "q3", "q4", "q9", "q5"]
    assert written["found_by"].tolist() == (
        ["only the first"] * 4 + ["only this run"] * 2
    )
    assert written["first_rank"].tolist() == [1, 1, 1, 1, 9, 2]
    assert written["other_rank"].tolist() == [2, 2, 2, 2, 1, 1]
    assert written["first_nearest"].tolist()[:2] == ["d1", "d2"]
    assert written["other_nearest"].tolist()[:2] == ["e1", "e2"]
    assert written["positive"].tolist()[:2] == ["p1", "p2"]
    assert set(written["run"]) == {str(runs[1])}
    page = (tmp_path / "out/compare.html").read_text()
    text = re.sub(r"<[^>]*>", "|", page)
    assert "|Only A finds 4|" in text
    assert "|Only B finds 2|" in text
    for words in ("✓ A, rank 1", "✗ B, rank 2", "✗ A, rank 9"):
        assert words in page
    # Without the records there are names, and how to get pictures.
    assert "<img" not in page
    assert "With --records, the evaluated records" in page
    assert "q9" in page


def test_a_query_that_was_not_retrieved_is_the_worst(tmp_path):
    table = {"counted": [True, True, True, False]}
    runs = [
        _write(tmp_path / "a", [1, 1, 1, 1], table=table),
        _write(tmp_path / "b", [7, 0, 1, 0], table=table),
    ]
    compare.run(ComparisonOptions(runs=runs, comparison=tmp_path / "out"))
    written = pd.read_csv(tmp_path / "out/differences.csv")
    # The last query does not count.
    assert written["image_id"].tolist() == ["q1", "q0"]
    assert written["other_rank"].isna().tolist() == [True, False]
    # Evaluations of earlier versions name no images.
    assert written["first_nearest"].isna().all()
    page = (tmp_path / "out/compare.html").read_text()
    assert "✗ B, not retrieved" in page


def test_pictures_of_the_evaluated_records(tmp_path, toy_records, caplog):
    records = Records(toy_records)
    names = records.manifest["image_id"]
    query = names[records.manifest["role"] == "query"].iloc[0]
    table = {
        "image_id": [query, "<script>alert(1)</script>"],
        "nearest_image_id": [names.iloc[0], names.iloc[1]],
        "positive_image_id": [names.iloc[2], "gone.jpg"],
    }

    def same(metrics):
        metrics["records_fingerprint"] = records.fingerprint

    def page_of(folder, change):
        runs = [
            _write(
                tmp_path / f"{folder}-{name}", ranks, change=change, table=table
            )
            for name, ranks in (("a", [1, 1]), ("b", [2, 2]))
        ]
        options = ComparisonOptions(
            runs=runs, comparison=tmp_path / folder, records=toy_records
        )
        compare.run(options)
        return (tmp_path / folder / "compare.html").read_text()

    page = page_of("out", same)
    sources = re.findall(r'<img src="data:image/jpeg;base64,([^"]*)"', page)
    # Query, nearest image twice and positive; of the other query, the nearest.
    assert len(sources) == 4 + 2
    with Image.open(io.BytesIO(base64.b64decode(sources[0]))) as image:
        assert image.size == (32, 32)
    assert page.count("not in these records") == 2
    assert "<script>alert" not in page
    assert "With --records" not in page
    # Other records, and none.
    page = page_of("other", lambda metrics: None)
    assert "<img" not in page
    assert "No pictures: --records=" in caplog.text
    caplog.clear()
    runs = [tmp_path / "out-a", tmp_path / "out-b"]
    compare.run(
        ComparisonOptions(
            runs=runs, comparison=tmp_path / "out", records=tmp_path / "none"
        )
    )
    assert "none does not exist" in caplog.text


def test_a_comparison_of_an_earlier_version_is_replaced(runs, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "compare.json").write_text("{}")
    (out / "compare.html").write_text("")
    compare.run(ComparisonOptions(runs=runs, comparison=out))
    assert sorted(path.name for path in out.iterdir()) == [
        *("compare.html", "compare.json", "differences.csv")
    ]
