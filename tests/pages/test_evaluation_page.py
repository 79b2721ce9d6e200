"""The page: what it shows, and that it needs nothing else."""

import dataclasses
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from sare_tf.pages import evaluation_cases, evaluation_page, html

METRICS = {
    "recall_at": {"1": 0.5, "3": 0.75},
    "recall_at_interval": {"1": [0.4, 0.6], "3": [0.7, 0.8]},
    "recall_at_left_out": [20],
    "recall_curve": {
        "recall": [0.5, 0.7, 0.75, 0.8],
        "low": [0.4, 0.6, 0.7, 0.7],
        "high": [0.6, 0.75, 0.8, 0.85],
    },
    "precisions": {"average_precision_at_10": 0.125},
    "precisions_interval": {"average_precision_at_10": [0.1, 0.2]},
    "intervals": {"confidence": 0.95, "resamples": 1000},
    "localisation": {
        "median_m": 7.5,
        "within_m": {"5": 0.25, "10": 0.625},
        "recall_over_distance": {"metres": [0, 1], "1": [0, 0.5]},
    },
    "breakdown": {
        "condition": {
            f"condition {number:02d}": {
                "queries": number + 1,
                "recall_at": {"1": 0.125, "3": 0.375},
                "recall_at_interval": {"1": [0, 0.2], "3": [0.3, 0.4]},
            }
            for number in range(30)
        }
    },
    "confidence": [
        {"from": 0.0, "to": 0.125, "queries": 1000, "right": 0.25},
        {"from": 0.125, "to": 0.5, "queries": 227, "right": 0.875},
    ],
    "split": "test",
    "counts": {
        "queries": 1234,
        "queries_without_positive": 7,
        "queries_counted": 1227,
        "database": 56789,
    },
    "protocol": {
        "name": "msls",
        "definition": "Recall@N is a share.",
        "used_by": "all of them",
        "parameters": {"leaves_out": True},
    },
    "baselines": {
        "pixels": {
            "recall_at": {"1": 0.0625, "3": 0.1875},
            "recall_curve": [0.0625, 0.125, 0.1875, 0.25],
        }
    },
    "epoch_choice": {
        "epoch": "epoch-0000",
        "epochs": 10,
        "val_queries": 16,
        "recall_at": {"1": 0.875, "5": 0.9375},
        "recall_at_before": {"1": 0.8125, "5": 0.90625},
        "warnings": ["Epoch 0 is best.", "Validation has 16 queries."],
    },
    "model": {
        "name": "demo/export/3",
        "dimension": 64,
        "fingerprint": "e" * 64,
        "backbone": "vgg16",
        "aggregation": "netvlad",
        "loss": "sare_joint",
        "weights": None,
        "image_size": [480, 640],
        "checkpoint": "epoch-0007",
        "epochs": 10,
        "made": "2026-01-02T03:04:05+00:00",
    },
    "dimension": 64,
    "search": {
        "metrics": "exact",
        "index": "scann",
        "k": 10,
        "recall_of_exact": 0.987,
        "recall_curve": [0.4375, 0.5, 0.6875, 0.7],
    },
    "speed": {"queries_per_second": 1234.56},
    "export_fingerprint": "e" * 64,
    "records_fingerprint": "a" * 64,
    "versions": {"sare_tf": "1", "scann": None},
}


def _places(count=6, database=20, seed=0):
    rng = np.random.default_rng(seed)
    return evaluation_page.Places(
        database=rng.random((database, 2)) * 500 + [5e5, 4.5e6],
        queries=rng.random((count, 2)) * 500 + [5e5, 4.5e6],
        placed=rng.random((count, 2)) * 500 + [5e5, 4.5e6],
        right=np.arange(count) % 2 == 0,
        cities=np.full(count, "17T", object),
    )


def _encoded(value=90):
    encoded = io.BytesIO()
    Image.new("RGB", (40, 30), (value, 120, 60)).save(encoded, "JPEG")
    return encoded.getvalue()


def _case(name, *, correct, missed=None, condition="day"):
    return evaluation_cases.Case(
        query=html.Picture(encoded=_encoded(), name=name),
        condition=condition,
        retrieved=[
            html.Picture(
                encoded=_encoded(90 + rank),
                name=f"{name}-{rank}",
                correct=hit,
                squared_distance=0.1 * (rank + 1),
                metres=None if rank else 12.34,
            )
            for rank, hit in enumerate(correct)
        ],
        missed=missed,
    )


def _write(path, metrics=METRICS, cases=None, places=None):
    if cases is None:
        cases = [
            _case("bad", correct=[False, False, True]),
            _case("good", correct=[True, True, False], condition="night"),
        ]
    evaluation_page.write(
        path,
        metrics=metrics,
        places=places or _places(),
        cases=cases,
        pairs=(),
    )
    return path.read_text(encoding="utf-8")


def _seen(page):
    """The page without its scripts and its style."""
    return re.sub(r"<(script|style)>.*?</\1>", "", page, flags=re.DOTALL)


class _Reader(HTMLParser):
    """Collects pictures as (class of the figure, alt), and open tags."""

    def __init__(self):
        super().__init__()
        self.figures, self.sources, self.open = [], [], []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag not in ("img", "meta"):
            self.open.append((tag, attributes.get("class")))
        if tag == "img":
            self.sources.append(attributes["src"])
            if self.open[-1][0] == "figure":
                self.figures.append((self.open[-1][1], attributes["alt"]))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag


def test_frames_follow_the_hits_in_order(tmp_path):
    reader = _Reader()
    reader.feed(_write(tmp_path / "report.html"))
    assert reader.open == []
    assert reader.figures == [
        ("query", "query: bad"),
        ("wrong", "✗ 1: bad-0"),
        ("wrong", "✗ 2: bad-1"),
        ("right", "✓ 3: bad-2"),
        ("query", "query: good"),
        ("right", "✓ 1: good-0"),
        ("right", "✓ 2: good-1"),
        ("wrong", "✗ 3: good-2"),
    ]


def test_a_missed_positive_is_shown(tmp_path):
    missed = html.Picture(
        encoded=_encoded(), name="there", correct=True, squared_distance=1.5
    )
    cases = [_case("bad", correct=[False], missed=missed)]
    page = _write(tmp_path / "report.html", cases=cases)
    assert 'alt="missed positive: there"' in page


def test_an_image_that_the_records_lack(tmp_path):
    lacking = html.Picture(encoded=None, name="gone", correct=True)
    cases = [_case("bad", correct=[False], missed=lacking)]
    page = _write(tmp_path / "report.html", cases=cases)
    assert "not in these records" in page
    assert 'title="gone">gone<' in page
    assert 'alt="missed positive' not in page


def test_figures_of_the_metrics_are_there(tmp_path):
    page = _write(tmp_path / "report.html")
    text = re.sub(r"<[^>]*>", "|", page)
    for words in (
        "50.0 %||recall@1||40.0 to 60.0||pixels: 6.2 %",
        "75.0 %||recall@3||70.0 to 80.0||pixels: 18.8 %",
        "Model |demo/export/3|, epoch-0007 of 10.",
        "network||vgg16 + netvlad|",
        "epoch||epoch-0007 of 10|",
        "input, rows x columns||480 x 640|",
        "12.5 %||mean average precision@10||10.0 to 20.0",
        "1,234",
        "of these counted||1,227|",
        "without a positive, left out||7|",
        "56,789",
        "share of the 10 nearest that ScaNN finds||98.7 %",
        "recall@1 / 3 through ScaNN||43.8 / 68.8 %",
        "embedding and ScaNN search||1,234.6|",
        "0.125 to 0.500||227||87.5 %",
        "N larger than the database||20|",
        "median error of the first image||7.5 m",
        "within 5 / 10 m||25.0 / 62.5 %",
        "Recall@N is a share. Used by: all of them.",
        "d² 0.100 · 12.3 m",
        "d² 0.200|",
        "2 of 1,227 queries",
        "condition 23||24||12.5||37.5|",
        "The first 24 of 30; metrics.json has all.",
    ):
        assert words in text, words
    assert "condition 24" not in text


def test_what_is_not_known_is_left_out(tmp_path):
    metrics = {
        **METRICS,
        "search": {
            "index": "exact",
            "recall_of_exact": None,
            "recall_curve": None,
        },
        "confidence": [],
        "localisation": None,
        "breakdown": {},
        "precisions": {},
    }
    nowhere = np.full((6, 2), np.nan)
    places = dataclasses.replace(_places(), queries=nowhere)
    page = _seen(_write(tmp_path / "report.html", metrics, places=places))
    for words in (
        "ScaNN",
        "Confidence",
        "weights of the backbone",
        "precision",
        "Where queries",
        "distance<",
        "group",
    ):
        assert words not in page, words
    far = {**METRICS["localisation"], "median_m": None}
    page = _write(tmp_path / "far.html", {**METRICS, "localisation": far})
    assert "median error" not in page


def test_cases_can_be_filtered(tmp_path):
    page = _write(tmp_path / "report.html")
    found = re.findall(r'data-kind="(\w+)" data-condition="(\w+)"', page)
    assert found == [("wrong", "day"), ("right", "night")]
    assert "<option>day</option><option>night</option>" in page
    # One condition needs no choice.
    page = _write(
        tmp_path / "report.html", cases=[_case("a", correct=[True])] * 2
    )
    assert "<option>" not in page
    assert evaluation_cases.Case(query=None, retrieved=[]).kind == "wrong"


def test_page_needs_nothing_else_and_is_reproducible(tmp_path):
    page = _write(tmp_path / "report.html")
    reader = _Reader()
    reader.feed(page)
    # 2 queries with 3 pictures each.
    assert len(reader.sources) == 8
    # 2 curves and a map.
    assert page.count("<svg xmlns=") == 3
    # Pictures that are loaded late are not printed.
    assert "loading=" not in page
    assert all(source.startswith("data:image/") for source in reader.sources)
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "url(" not in page
    assert page == _write(tmp_path / "again.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "again.html",
        "report.html",
    ]


def test_names_are_escaped(tmp_path):
    page = _write(
        tmp_path / "report.html",
        cases=[_case('"><script>alert(1)</script>', correct=[True])],
    )
    assert "<script>alert" not in page


def test_each_large_city_has_a_map():
    places = _places(count=21)
    # 6, 5, 4, 3, 2, 1 queries; the last is nowhere.
    cities = np.repeat(list("abcdef"), [6, 5, 4, 3, 2, 1]).astype(object)
    maps = evaluation_page._maps(dataclasses.replace(places, cities=cities))
    assert [some["name"] for some in maps] == ["a", "b", "c", "d"]
    assert len({some["map"].svg for some in maps}) == 4
    (only,) = evaluation_page._maps(places)
    assert only["name"] == ""


def _rows(page):
    """Rows of all tables, as lists of texts."""
    return [
        re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)
        for row in re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    ]


def test_baselines_stand_beside_the_result(tmp_path):
    page = _write(tmp_path / "report.html")
    for row in (
        ["on these queries", "R@1", "R@3"],
        ["this model", "50.0", "75.0"],
        ["pixels", "6.2", "18.8"],
        ["on 16 queries of validation", "R@1", "R@5"],
        ["this model, epoch-0000 of 10", "87.5", "93.8"],
        ["before training", "81.2", "90.6"],
    ):
        assert row in _rows(page)
    assert "Both rows are of the validation split" in page
    for warning in METRICS["epoch_choice"]["warnings"]:
        assert f"<b>{warning}</b>" in page


def test_without_baselines_there_is_no_table_of_them(tmp_path):
    """Of many images, and through a server."""
    metrics = METRICS | {"baselines": {}, "epoch_choice": None}
    assert "Baselines" not in _write(tmp_path / "report.html", metrics=metrics)


def test_a_line_leads_from_each_wrong_query(tmp_path):
    """By hand: two queries placed right, three wrong, one of them nowhere."""
    places = evaluation_page.Places(
        database=np.array([[0.0, 0.0], [np.nan, np.nan], [9e6, 0.0]]),
        queries=np.arange(10.0).reshape(5, 2),
        placed=np.append(np.arange(8.0), [np.nan] * 2).reshape(5, 2) + 50,
        right=np.array([True, False, True, False, False]),
        cities=np.full(5, "17T", object),
    )
    page = _write(tmp_path / "report.html", places=places)
    (lines,) = re.findall(r'class="lines" [^>]*d="([^"]*)"', page)
    assert lines.count("L") == 2
    counts = {
        kind: len(re.findall("M", path))
        for kind, path in re.findall(
            r'<path class="(\w+)" stroke-width="[^"]*" d="([^"]*)"', page
        )
    }
    assert counts == {"lines": 2, "database": 1, "right": 2, "wrong": 3}
    assert re.findall(r'<i class="(\w+)"></i>([^<]*)<', page) == [
        ("database", "database"),
        ("right", "placed right"),
        ("wrong", "placed wrong"),
    ]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a.jpg", "a.jpg"),
        ("database/lift/a.jpg", "lift/a.jpg"),
        ("images/test/queries/@1@2@.jpg", "@1@2@.jpg"),
        ("q/@1.5@2.5@32@T@@@.jpg", "q/@1.5@2.5@32@T@@@.jpg"),
        ("database/@1.5@2@32@T@4@5@p7@@9@rain@.jpg", "p7 9 rain"),
    ],
)
def test_short_names(tmp_path, name, shown):
    page = _write(tmp_path / "report.html", cases=[_case(name, correct=[])])
    assert f'title="{name}">{shown}<' in page


def test_the_contents_name_every_section(tmp_path):
    def sections(page):
        return (
            re.findall(r'<li><a href="#([\w-]+)">', page),
            re.findall(r'<h2 id="([\w-]+)">', page)[1:],
        )

    links, headings = sections(_write(tmp_path / "report.html"))
    assert links == headings
    assert len(links) == 7
    # Sections that there are not are not named.
    metrics = METRICS | {
        "baselines": {},
        "epoch_choice": None,
        "confidence": [],
        "breakdown": {},
    }
    nowhere = np.full((6, 2), np.nan)
    places = dataclasses.replace(_places(), queries=nowhere)
    page = _write(tmp_path / "less.html", metrics=metrics, places=places)
    links, headings = sections(page)
    assert links == headings == ["recall", "model", "queries"]


def test_what_a_server_does_not_say_of_its_model_is_left_out(tmp_path):
    known = {"name": "grpc://host:8500", "dimension": 64, "fingerprint": "e"}
    model = dict.fromkeys(METRICS["model"]) | known
    page = _write(tmp_path / "report.html", metrics=METRICS | {"model": model})
    assert "Model <b>grpc://host:8500</b>." in page
    assert "network" not in [row[0] for row in _rows(page) if row]
    assert "None" not in _seen(page)
