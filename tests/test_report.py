"""The page: what it shows, and that it needs nothing else."""

import base64
import html.parser
import io
import re

import numpy as np
import pytest
from PIL import Image

from sare_tf import report

METRICS = {
    "recall_at": {"1": 0.5, "3": 0.75},
    "recall_at_left_out": [20],
    "split": "test",
    "counts": {
        "queries": 1234,
        "queries_without_positive": 7,
        "database": 56789,
    },
    "protocol": "Recall@N is a share.",
    "dimension": 64,
    "search": {
        "metrics": "exact",
        "index": "scann",
        "k": 10,
        "recall_of_exact": 0.987,
    },
    "export_fingerprint": "e" * 64,
    "records_fingerprint": "a" * 64,
    "versions": {"sare_tf": "1", "scann": None},
}


def _encoded(value=90, size=(40, 30), kind="JPEG"):
    encoded = io.BytesIO()
    Image.new("RGB", size, (value, 120, 60)).save(encoded, kind)
    return encoded.getvalue()


def _case(name, *, correct, missed=None):
    return report.Case(
        query=report.Picture(encoded=_encoded(), name=name),
        retrieved=[
            report.Picture(
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


def _write(path, metrics=METRICS, **changes):
    cases = {
        "best": [_case("good", correct=[True, True, False])],
        "worst": [_case("bad", correct=[False, False, True])],
        **changes,
    }
    report.write(
        path, metrics=metrics, recall_curve=[0.5, 0.7, 0.75, 0.8], **cases
    )
    return path.read_text(encoding="utf-8")


class _Reader(html.parser.HTMLParser):
    """Collects pictures as (class of the figure, alt), and open tags."""

    def __init__(self):
        super().__init__()
        self.figures, self.sources, self.open = [], [], []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag not in ("img", "meta", "br"):
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
    missed = report.Picture(
        encoded=_encoded(), name="there", correct=True, squared_distance=1.5
    )
    worst = [_case("bad", correct=[False], missed=missed)]
    page = _write(tmp_path / "report.html", worst=worst)
    assert 'alt="should have come: there"' in page


def test_figures_of_the_metrics_are_there(tmp_path):
    page = _write(tmp_path / "report.html")
    text = re.sub(r"<[^>]*>", "|", page)
    for words in (
        "50.0 %||recall@1|",
        "75.0 %||recall@3|",
        "1,234",
        "counted as misses||7|",
        "56,789",
        "ScaNN finds of the exact 10 nearest||98.7 %",
        "N larger than the database||20|",
        "Recall@N is a share.",
        "d² 0.100 · 12.3 m",
        "d² 0.200|",
    ):
        assert words in text
    exact = {**METRICS, "search": {"index": "exact"}}
    page = _write(tmp_path / "report.html", metrics=exact)
    assert "ScaNN" not in page


def test_page_needs_nothing_else_and_is_reproducible(tmp_path):
    page = _write(tmp_path / "report.html")
    reader = _Reader()
    reader.feed(page)
    assert len(reader.sources) == 9
    assert all(source.startswith("data:image/") for source in reader.sources)
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "url(" not in page
    assert page == _write(tmp_path / "again.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "again.html",
        "report.html",
    ]


def test_names_are_escaped(tmp_path):
    page = _write(
        tmp_path / "report.html",
        best=[_case('"><script>alert(1)</script>', correct=[True])],
    )
    assert "<script>" not in page


@pytest.mark.parametrize(
    ("size", "expected"), [((640, 480), (320, 240)), ((100, 80), (100, 80))]
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_thumbnail_keeps_colour_and_proportion(size, expected, kind):
    picture = report.Picture(encoded=_encoded(200, size, kind), name="a")
    kind, encoded = report.thumbnail(picture).split(",")
    assert kind == "data:image/jpeg;base64"
    image = Image.open(io.BytesIO(base64.b64decode(encoded)))
    assert image.size == expected
    difference = np.asarray(image).astype(int) - [200, 120, 60]
    assert np.abs(difference).max() <= 4


def test_curve_marks_the_values():
    source = report._curve([0.5, 0.7, 0.95], [1, 3])
    drawing = base64.b64decode(source.split(",")[1]).decode()
    assert "<!-- 50.0 -->" in drawing
    assert "<!-- 95.0 -->" in drawing
    assert "<!-- 70.0 -->" not in drawing


@pytest.mark.parametrize("encoded", [b"", b"not an image", _encoded()[:200]])
def test_a_picture_that_cannot_be_decoded(encoded):
    picture = report.Picture(encoded=encoded, name="broken.jpg")
    with pytest.raises(ValueError, match="an image. Received: broken.jpg"):
        report.thumbnail(picture)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a.jpg", "a.jpg"),
        ("database/lift/a.jpg", "lift/a.jpg"),
        ("images/test/queries/@1@2@.jpg", "@1@2@.jpg"),
    ],
)
def test_short_names(tmp_path, name, shown):
    page = _write(
        tmp_path / "report.html", best=[_case(name, correct=[])], worst=[]
    )
    assert f'title="{name}">{shown}<' in page
