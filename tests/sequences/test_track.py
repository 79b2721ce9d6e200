"""`locate --sequence`: a folder or a video becomes a track."""

import dataclasses
import functools
import json
import shutil
from pathlib import Path
from unittest import mock
from xml.etree import ElementTree

import cv2
import numpy as np
import pandas as pd
import pytest
import toy_search
from PIL import Image

from sare_tf import build_records, index, locate
from sare_tf.pages.options import LocateOptions
from sare_tf.records.options import RecordOptions
from sare_tf.search.answers import Answer, Tracked
from sare_tf.search.locator import Locator
from sare_tf.search.options import IndexOptions
from sare_tf.sequences import track_files
from sare_tf.sequences.tracking import Track

_PLACES = 16
_GPX = "{http://www.topografix.com/GPX/1/1}"


def _pixels(place, noise, seed=0):
    pattern = np.random.default_rng(place).integers(0, 256, (4, 4, 3))
    random = np.random.default_rng((place, seed))
    noisy = pattern + random.normal(0, noise, pattern.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8).repeat(16, 0).repeat(16, 1)


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    """An index of a drive past places 50 m apart."""
    root = tmp_path_factory.mktemp("drive")
    (root / "photos").mkdir()
    rows = []
    for place in range(_PLACES):
        Image.fromarray(_pixels(place, 0)).save(
            root / f"photos/{place:03d}.png"
        )
        rows.append(
            {
                "path": f"{place:03d}.png",
                "role": "database",
                "split": "test",
                "utm_east": 500_000 + 50 * place,
                "utm_north": 4_500_000,
                "utm_zone": "17T",
            }
        )
    pd.DataFrame(rows).to_csv(root / "photos/images.csv", index=False)
    records = build_records.run(
        RecordOptions(
            dataset=root / "photos",
            records=root / "records",
            reader="csv_table",
        )
    )
    inputs = {
        "export": toy_search.export(root / "export"),
        "index": root / "index",
    }
    index.run(IndexOptions(**inputs, records=records))
    return inputs


def _folder(folder: Path, places, noise=60) -> Path:
    folder.mkdir(parents=True)
    for number, place in enumerate(places):
        pixels = Image.fromarray(_pixels(place, noise, seed=1))
        pixels.save(folder / f"frame{number}.png")
    return folder


@functools.cache
def _locator(index, export):
    return Locator(index=index, export=export)


def _run(drive, sequence, **options):
    """Runs `locate` with an index that is opened once for all tests."""
    given = {
        "sequence_method": "smoothing",
        "sequence_window": (0, 2),
        "sequence_evidence": 1000,
        **options,
    }
    options = LocateOptions(**drive, sequence=str(sequence), **given)
    opened = _locator(options.index, options.export)
    with mock.patch.object(locate, "_open", return_value=opened):
        return list(locate.run(options))


def _east(answer):
    return (answer.matches[0].utm_east_m - 500_000) / 50


def test_a_folder_becomes_a_track(drive, tmp_path):
    """Frames 9, 10 and 11 sort as numbers, not as texts."""
    folder = _folder(tmp_path / "walk", range(2, 14))
    files = [tmp_path / f"track.{end}" for end in ("gpx", "geojson", "csv")]
    answers = _run(drive, folder, write_positions=",".join(map(str, files)))
    names = [Path(name).stem for name, _ in answers]
    assert names == [f"frame{n}" for n in range(12)]
    assert [_east(answer) for _, answer in answers] == list(range(2, 14))
    for _, answer in answers:
        assert not answer.rejected
        assert answer.confidence is None
        assert 0.5 < answer.tracked.probability <= 1
        assert "frames (smoothing)" in answer.confidence_text
        assert Answer.from_json(answer.as_json()) == answer
    # The window of 10 has 5 frames before and 4 after.
    assert [answer.tracked.frames for _, answer in answers] == [
        *(5, 6, 7, 8, 9, 10, 10, 10, 9, 8, 7, 6),
    ]
    points = _gpx_segments(files[0])
    assert [len(segment) for segment in points] == [12]
    collection = _geojson(files[1])
    lines = [f for f in collection if f["geometry"]["type"] == "LineString"]
    assert len(lines) == 1
    assert len(lines[0]["geometry"]["coordinates"]) == 12
    table = pd.read_csv(files[2])
    assert table["probability"].between(0.5, 1).all()
    for row, point in zip(table.itertuples(), points[0], strict=True):
        assert float(point.get("lat")) == pytest.approx(row.latitude, abs=2e-7)
        assert float(point.get("lon")) == pytest.approx(row.longitude, abs=2e-7)


def _gpx_segments(path):
    """The points of each segment, by what GPX 1.1 demands of a file."""
    root = ElementTree.parse(path).getroot()
    assert root.tag == f"{_GPX}gpx"
    assert root.get("version") == "1.1"
    assert root.get("creator")
    (track,) = root
    assert track.tag == f"{_GPX}trk"
    name, *segments = track
    assert name.tag == f"{_GPX}name"
    assert name.text
    for segment in segments:
        assert segment.tag == f"{_GPX}trkseg"
        for point in segment:
            assert point.tag == f"{_GPX}trkpt"
            assert -90 <= float(point.get("lat")) <= 90
            assert -180 <= float(point.get("lon")) < 180
            # A sequence of the schema: name before desc.
            assert [child.tag for child in point] == [
                f"{_GPX}name",
                f"{_GPX}desc",
            ]
            assert "probability: " in point[1].text
    return segments


def _geojson(path):
    """The features, by what RFC 7946 demands of a file."""
    document = json.loads(path.read_text())
    assert document["type"] == "FeatureCollection"
    for feature in document["features"]:
        assert feature["type"] == "Feature"
        assert isinstance(feature["properties"], dict)
        geometry = feature["geometry"]
        if geometry is None:
            continue
        coordinates = geometry["coordinates"]
        if geometry["type"] == "Point":
            coordinates = [coordinates]
        else:
            assert geometry["type"] == "LineString"
            assert len(coordinates) >= 2
        for longitude, latitude in coordinates:
            assert -180 <= longitude <= 180
            assert -90 <= latitude <= 90
    return document["features"]


def test_improbable_and_unreadable_frames_are_gaps(drive, tmp_path):
    folder = _folder(tmp_path / "walk", range(3, 12), noise=20)
    (folder / "frame4.png").write_bytes(b"no picture")
    path = tmp_path / "track.gpx"
    answers = _run(drive, folder, write_positions=str(path))
    assert [Path(name).stem for name, _ in answers] == [
        f"frame{n}" for n in range(9)
    ]
    assert answers[4][1].error
    others = [answer for _, answer in answers if not answer.error]
    assert [_east(answer) for answer in others] == [*(3, 4, 5, 6, 8, 9, 10, 11)]
    assert [len(segment) for segment in _gpx_segments(path)] == [4, 4]
    # Nothing is more probable than 1.
    answers = _run(
        drive,
        folder,
        least_probability=1,
        sequence_jump=0.5,
        write_positions=str(path),
    )
    assert all(a.rejected for _, a in answers if not a.error)
    assert "not in this database" in answers[0][1].as_text()
    assert _gpx_segments(path) == []


def _answer(latitude, longitude, probability, rejected=False):
    from sare_tf.search.answers import Match

    match = Match(
        image_id="x",
        place_id="",
        squared_distance=0.1,
        same_place=True,
        utm_east_m=None,
        utm_north_m=None,
        utm_zone="",
        latitude=latitude,
        longitude=longitude,
    )
    return Answer(
        matches=[match],
        rejected=rejected,
        tracked=Tracked(probability=probability, frames=3, method="filter"),
    )


def test_pieces_end_at_gaps_clips_and_the_antimeridian(tmp_path):
    answers = [
        ("a0", _answer(1.0, 179.9, 0.9)),
        ("a1", _answer(1.1, 179.95, 0.8)),
        ("a2", _answer(1.2, -179.9, 0.7)),
        ("a3", _answer(1.3, -179.8, 0.1, rejected=True)),
        ("a4", _answer(1.4, -179.7, 0.9)),
        ("b0", _answer(1.5, 3.0, 0.9)),
        ("b1", _answer(None, None, 0.9)),
        ("b2", _answer(1.6, 3.1, 0.9)),
        ("b3", _answer(1.7, 3.2, 0.9)),
        ("c", Answer(error="no picture")),
    ]
    track = Track(answers, [0, 0, 0, 0, 0, 1, 1, 1, 1, -1])
    assert track.segments == [[0, 1, 2], [4], [5, 6, 7, 8]]
    assert track.describe() == (
        "A track of 8 frames in 3 pieces; 2 frames are gaps."
    )
    paths = [str(tmp_path / f"t.{end}") for end in ("gpx", "geojson", "kml")]
    track_files.write(paths, track, name="a \x00 walk")
    segments = _gpx_segments(Path(paths[0]))
    assert [[p[0].text for p in segment] for segment in segments] == [
        ["a0", "a1", "a2"],
        ["a4"],
        ["b0"],
        ["b2", "b3"],
    ]
    features = _geojson(Path(paths[1]))
    gaps = [f["properties"]["name"] for f in features if not f["geometry"]]
    assert gaps == ["a3", "b1", "c"]
    lines = [
        (f["properties"]["first"], f["properties"]["last"])
        for f in features
        if f["geometry"] and f["geometry"]["type"] == "LineString"
    ]
    assert lines == [("a0", "a1"), ("b2", "b3")]
    ElementTree.parse(paths[2])


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """4 frames a second past 10 places, each for a second."""
    path = tmp_path_factory.mktemp("video") / "walk.avi"
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter_fourcc(*"MJPG"), 4, (64, 64)
    )
    for frame in range(40):
        writer.write(_pixels(frame // 4 + 3, 30, seed=2)[..., ::-1].copy())
    writer.release()
    return path


@pytest.mark.parametrize(("rate", "count"), [(1, 10), (2, 20), (50, 40)])
def test_a_video_becomes_a_track(drive, video, rate, count):
    answers = _run(drive, video, frames_per_second=rate, sequence_window=(0, 1))
    assert len(answers) == count
    expected = [3 + n * 10 // count for n in range(count)]
    assert [_east(answer) for _, answer in answers] == expected
    assert answers[0][0].endswith("walk.avi#0")


def test_a_video_that_ends_early(drive, video, tmp_path, caplog):
    whole = video.read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole[: len(whole) // 2])
    answers = _run(drive, cut, frames_per_second=4)
    assert 1 < len(answers) < 40
    assert "cut.avi ends early" in caplog.text
    assert "of 40 frames can be read" in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("broken.mp4", b"no video", "a video that OpenCV can read"),
        ("gone.mp4", None, "which does not exist"),
        ("empty", "folder", "a folder with JPEG or PNG files"),
    ],
)
def test_what_cannot_be_read_is_named(drive, tmp_path, name, content, message):
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        _run(drive, path)


def test_the_program_opens_the_index_itself(drive, tmp_path):
    folder = _folder(tmp_path / "walk", [5, 6, 7], noise=0)
    options = LocateOptions(**drive, sequence=str(folder))
    answers = list(locate.run(options))
    assert [_east(answer) for _, answer in answers] == [5, 6, 7]


def test_one_frame_and_frames_without_order(drive, tmp_path, caplog):
    ((_, answer),) = _run(drive, _folder(tmp_path / "one", [5], noise=0))
    assert _east(answer) == 5
    assert answer.tracked.frames == 1
    assert "by this frame only" in answer.confidence_text
    assert "has one frame" in caplog.text
    folder = _folder(tmp_path / "two", [5, 6], noise=0)
    for number, name in enumerate(("left", "right")):
        (folder / f"frame{number}.png").rename(folder / f"{name}.png")
    answers = _run(drive, folder)
    assert [answer.tracked.frames for _, answer in answers] == [1, 1]
    assert "2 of 2 frames have no order" in caplog.text


def test_folders_are_clips_of_their_own(drive, tmp_path):
    root = tmp_path / "both"
    _folder(root / "a", [2, 3, 4], noise=20)
    _folder(root / "b", [12, 13, 14], noise=20)
    path = tmp_path / "track.gpx"
    answers = _run(drive, root, write_positions=str(path))
    assert [_east(answer) for _, answer in answers] == [2, 3, 4, 12, 13, 14]
    assert {answer.tracked.frames for _, answer in answers} == {3}
    assert [len(segment) for segment in _gpx_segments(path)] == [3, 3]


def test_only_images_that_agree_with_a_prior_are_searched(drive, tmp_path):
    folder = _folder(tmp_path / "walk", [5, 6, 7], noise=0)
    # Places 8 to 15: 100 m of place 11 are 9 to 13.
    degrees = _run(drive, _folder(tmp_path / "x", [11], noise=0))
    match = degrees[0][1].matches[0]
    answers = _run(
        drive, folder, near=(match.latitude, match.longitude), within_m=101
    )
    assert all(9 <= _east(answer) <= 13 for _, answer in answers)
    assert answers[0][1].searched.images == 5


@pytest.mark.parametrize(
    "other",
    [
        {"photos": ("a.jpg",)},
        {"serve": True, "records": "r"},
        {"picture": "a.png", "records": "r"},
        {"rerank": "rootsift"},
        {"reject_below": 0.5},
        {"keep_warm": True},
    ],
)
def test_what_does_not_go_with_a_sequence(drive, other):
    with pytest.raises(ValueError, match="--sequence without .*sequence='x'"):
        LocateOptions(**drive, sequence="x", **other)


def test_frames_that_are_searched_themselves_are_no_matches(
    drive, tmp_path, monkeypatch
):
    """With --photos: the index holds 000.png to 015.png of the folder."""
    photos = tmp_path / "photos"
    shutil.copytree(Path(drive["index"]).parent / "photos", photos)
    prepared = LocateOptions(**drive, sequence="replaced")

    def locator(options):
        found = dataclasses.replace(prepared, sequence=options.sequence)
        return found, _locator(found.index, found.export)

    monkeypatch.setattr(locate, "_locator", locator)
    walk = _folder(photos / "walk", [5, 6], noise=0)
    given = LocateOptions(photo_folder=str(photos), sequence=str(walk))
    assert [_east(answer) for _, answer in locate.run(given)] == [5, 6]
    given = LocateOptions(photo_folder=str(photos), sequence=str(photos))
    with pytest.raises(ValueError, match="beside those of the sequence"):
        list(locate.run(given))
    for number in range(3, _PLACES):
        (photos / f"{number:03d}.png").unlink()
    shutil.rmtree(walk)
    for number, (_, answer) in enumerate(locate.run(given)):
        assert answer.searched.images == _PLACES - 3
        assert answer.matches[0].image_id != f"{number:03d}.png"
