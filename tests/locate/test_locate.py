"""Looking up photographs: answers, and what is refused."""

import dataclasses
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import toy_photos
import toy_search
from PIL import Image
from toy_located import answers_of

from sare_tf import index, locate, serving
from sare_tf.pages.options import LocateOptions
from sare_tf.search import geography, locator


@pytest.mark.parametrize("exact", [True, False])
def test_finds_the_places_that_the_photographs_show(inputs, photos, exact):
    results = answers_of(inputs, photos, k=3, exact_search=exact, batch_size=1)
    for (name, answer), photo, place in zip(
        results, photos, (2, 4), strict=True
    ):
        assert name == str(photo)
        assert answer.error == ""
        # All 3 images of the place, 100 m from the next, 2 m apart.
        east = 500_000 + 100 * place
        found = [match.utm_east_m for match in answer.matches]
        assert sorted(found) == [east, east + 2, east + 4]
        distances = [match.squared_distance for match in answer.matches]
        assert distances == sorted(distances)
        assert max(distances) < 0.5
        assert all(match.same_place for match in answer.matches)


def test_confidence_and_positions_by_hand(inputs, photos):
    opened = index.Index.open(inputs["index"])
    search = locator.Locator(**inputs)
    encoded = photos[0].read_bytes()
    (answer,) = search([encoded], k=18)
    assert len(answer.matches) == 18
    # Squared distances in plain loops.
    (descriptor,) = serving.load(inputs["export"])([encoded])[0]
    squared = {
        row["image_id"]: sum(
            (float(a) - float(b)) ** 2
            for a, b in zip(descriptor, opened.descriptors[number], strict=True)
        )
        for number, row in opened.manifest.iterrows()
    }
    for match in answer.matches:
        expected = squared[match.image_id]
        assert match.squared_distance == pytest.approx(expected, abs=1e-5)
        # Place 2 is at 200 to 204 m, the next ones 100 m from it.
        here = 500_200 <= match.utm_east_m <= 500_204
        assert match.same_place == here
    other = min(m.squared_distance for m in answer.matches if not m.same_place)
    first = answer.matches[0]
    assert answer.confidence == pytest.approx(
        1 - (first.squared_distance / other) ** 0.5, abs=1e-6
    )
    # By the series in its first orders: 4,500,000 m north are 40.65 degrees,
    # 1 m east there is 1 / (111,320 m * cos) degrees from the meridian -81.
    assert first.latitude == pytest.approx(40.6506, abs=1e-3)
    metres = first.utm_east_m - 500_000
    expected = -81 + metres / (111_320 * np.cos(np.radians(40.65)))
    assert first.longitude == pytest.approx(expected, abs=1e-5)
    at = f"{first.latitude:.6f}/{first.longitude:.6f}"
    assert first.map_url.endswith(f"#map=18/{at}")


def test_a_folder_of_photographs_has_no_calibration(tmp_path):
    """Nor is its index made anew because of that."""
    with pytest.raises(ValueError, match="calibration for --reject_below"):
        LocateOptions(photo_folder=tmp_path, photos=["a"], reject_below=0.5)


def test_a_folder_of_photographs_is_searched(inputs, tmp_path, caplog):
    folder = toy_photos.photographs(tmp_path / "photos")
    photos = [folder / "1/0.jpg", folder / "2/1.jpg", tmp_path / "new.jpg"]
    photos[2].write_bytes(toy_search.jpeg(0, 9))
    export = shutil.copytree(inputs["export"], tmp_path / "export")
    options = {
        "export": export,
        "photo_folder": folder,
        "cache": tmp_path / "cache",
    }

    def run(names, **more):
        found = locate.run(LocateOptions(photos=names, **options, **more))
        return [answer for _, answer in found]

    answers = run(photos, k=9, picture=tmp_path / "out.png")
    matches = [
        [match.image_id for match in answer.matches] for answer in answers
    ]
    # A photograph of the folder is no match of itself.
    assert [one[0] for one in matches[:2]] == ["1/1.jpg", "2/0.jpg"]
    assert sorted(matches[2][:2]) == ["0/0.jpg", "0/1.jpg"]
    assert [len(one) for one in matches] == [5, 5, 6]
    assert "compared with 6 images\n" in answers[2].as_text()
    assert (tmp_path / "out.png").is_file()
    # Damage is repaired.
    (index,) = (tmp_path / "cache").rglob("descriptors.npy")
    with index.open("r+b") as file:
        file.seek(200)
        file.write(b"\xff" * 40)
    again = run(photos, k=9)
    assert [answer.matches for answer in again] == [
        answer.matches for answer in answers
    ]
    assert "damaged, or of another version, and made anew" in caplog.text
    # What a user names wrongly is refused at once: nothing is made anew.
    before = toy_photos.files(tmp_path / "cache")
    shutil.rmtree(export)
    with pytest.raises(FileNotFoundError, match="Expected an export"):
        run(photos)
    shutil.copytree(inputs["export"], export)
    (model,) = export.rglob("saved_model.pb")
    model.write_bytes(b"x")
    with pytest.raises(ValueError, match="Expected a whole export"):
        run(photos)
    assert toy_photos.files(tmp_path / "cache") == before
    shutil.copy(next(inputs["export"].rglob("saved_model.pb")), model)
    # The only photograph is.
    for path in folder.rglob("*.jpg"):
        if path != photos[0]:
            path.unlink()
    (answer,) = run(photos[:1])
    assert [match.image_id for match in answer.matches] == ["1/0.jpg"]
    assert answer.confidence is None


def test_wide_places_are_one(inputs, photos):
    wide = {"k": 1, "positive_radius_m": 1e4}
    ((_, answer),) = answers_of(inputs, photos[:1], **wide)
    # All 18 images are one place.
    assert answer.confidence is None
    assert answer.as_text().startswith("no other place to compare with")


@pytest.mark.parametrize(
    ("zone", "east", "north"),
    [("17", 5e5, 4.5e6), ("", 5e5, 4.5e6), ("17T", 5e5, 1e8)],
)
def test_positions_that_are_no_degrees(zone, east, north):
    assert geography.degrees_at(east, north, zone) == (None, None)


def test_what_cannot_be_read_is_told_and_the_rest_answered(
    inputs, photos, tmp_path
):
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut.jpg").write_bytes(photos[0].read_bytes()[:700])
    Image.new("RGB", (9000, 9000)).save(tmp_path / "huge.png")
    with (tmp_path / "long.jpg").open("wb") as file:
        file.truncate((1 << 28) + 1)
    names = ["nothing.jpg", "text.jpg", "empty", "cut.jpg", "huge.png"]
    names += ["long.jpg", "two.jpg"]
    results = answers_of(
        inputs, [tmp_path / name for name in names], batch_size=3
    )
    errors = [answer.error for _, answer in results]
    for error, words in zip(
        errors,
        (
            "no file of this name",
            "not a JPEG or PNG image",
            "a folder without JPEG or PNG files",
            "a damaged or truncated JPEG",
            "9000 x 9000 are more than 67,108,864 pixels",
            "more than 256 MiB",
        ),
        strict=False,
    ):
        assert words in error
    assert errors[-1] == ""
    assert results[0][1].as_json() == {"error": "no file of this name"}
    assert results[0][1].as_text() == ("not looked up: no file of this name\n")


def test_a_photograph_without_direction_fails_alone(inputs, photos):
    # The toy export has nothing left of one colour.
    encoded = io.BytesIO()
    Image.new("RGB", (16, 16), (90, 90, 90)).save(encoded, "PNG")
    answers = locator.Locator(**inputs)(
        [encoded.getvalue(), photos[0].read_bytes()], k=1
    )
    assert "length 0 for its descriptor" in answers[0].error
    assert answers[1].error == ""


def test_folders_and_patterns(inputs, photos, tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("a/z.JPG", "a/b/y.png", "a/notes.txt", "a/b/[x].jpeg"):
        (tmp_path / name).write_bytes(photos[0].read_bytes())
    found = answers_of(inputs, [tmp_path / "a", f"{tmp_path}/*.jpg"], k=1)
    assert [
        Path(name).relative_to(tmp_path).as_posix() for name, _ in found
    ] == [
        "a/b/[x].jpeg",
        "a/b/y.png",
        "a/z.JPG",
        "four.jpg",
        "two.jpg",
    ]
    # A name that looks like a pattern is a file first.
    found = answers_of(inputs, [tmp_path / "a" / "b" / "[x].jpeg"], k=1)
    assert [answer.error for _, answer in found] == [""]


def test_bad_input(inputs, photos, records, tmp_path):
    with pytest.raises(ValueError, match="at least one photograph"):
        locate.run(LocateOptions(**inputs, photos=[]))
    other = toy_search.export(tmp_path / "other", length=1.00001)
    with pytest.raises(ValueError, match="Expected the export that built"):
        locate.run(
            LocateOptions(index=inputs["index"], export=other, photos=photos)
        )
    with pytest.raises(ValueError, match="Expected a PNG file.*a.svg"):
        locate.run(
            LocateOptions(
                **inputs, photos=photos, picture="a.svg", records=records
            )
        )
    with pytest.raises(ValueError, match="whose folder does not exist"):
        locate.run(
            LocateOptions(
                **inputs,
                photos=photos,
                picture=tmp_path / "no" / "a.png",
                records=records,
            )
        )
    with pytest.raises(ValueError, match="at most 50 photographs.*: 52"):
        locate.run(
            LocateOptions(
                **inputs,
                photos=photos * 26,
                picture=tmp_path / "a.png",
                records=records,
            )
        )
    with pytest.raises(ValueError, match="Give --records"):
        locate.run(
            LocateOptions(**inputs, photos=photos, picture=tmp_path / "a.png")
        )
    others = toy_search.records(tmp_path, places=5)
    with pytest.raises(ValueError, match="records that the index was built"):
        locate.run(
            LocateOptions(
                **inputs,
                photos=photos,
                picture=tmp_path / "a.png",
                records=others,
            )
        )


def test_more_matches_than_images_are_all_images(inputs, photos):
    ((_, answer),) = answers_of(inputs, photos[:1], k=1000)
    assert len({match.image_id for match in answer.matches}) == 18


def test_description_leaves_out_what_is_unknown(inputs, photos):
    ((_, answer),) = answers_of(inputs, photos[:1], k=2)
    first, second = (
        dataclasses.replace(
            match, image_id=name, squared_distance=distance, place_id=place
        )
        for match, name, distance, place in zip(
            answer.matches, "ab", (0.25, 0.5), ("", "lift"), strict=True
        )
    )
    unknown = dict.fromkeys(
        ("utm_east_m", "utm_north_m", "latitude", "longitude")
    )
    known = {
        "utm_east_m": 500_200.0,
        "utm_north_m": 4_500_000.0,
        "latitude": 40.5,
        "longitude": -80.25,
    }
    first = dataclasses.replace(first, **known)
    second = dataclasses.replace(second, **unknown)
    answer = locator.Answer(matches=[first, second], confidence=0.5)
    assert answer.as_text() == (
        "wide margin to the nearest other place (confidence 0.500, not "
        "calibrated)\n"
        "   1  0.2500  a  500200.0 m east, 4500000.0 m north zone 17T  "
        "40.500000, -80.250000\n"
        "   2  0.5000  b  place lift\n"
        "      https://www.openstreetmap.org/?mlat=40.500000&mlon=-80.250000"
        "#map=18/40.500000/-80.250000\n"
    )
    assert second.map_url is None
    other = dataclasses.replace(second, same_place=False)
    assert other.as_text() == "0.5000  b  place lift  (another place)"


def test_positions_of_photographs_are_written(inputs, photos, tmp_path):
    (tmp_path / "text.jpg").write_text("not an image")
    files = [tmp_path / "maps" / f"a.{end}" for end in ("csv", "geojson")]
    answers = answers_of(
        inputs,
        [photos[0], tmp_path / "text.jpg"],
        write_positions=",".join(map(str, files)),
    )
    first = answers[0][1].matches[0]
    table = pd.read_csv(files[0], dtype=str, keep_default_na=False)
    assert table["photo"].tolist() == [name for name, _ in answers]
    assert table["status"].tolist()[0] == "found"
    assert "not a JPEG or PNG" in table["status"].tolist()[1]
    assert float(table["latitude"][0]) == pytest.approx(first.latitude)
    assert float(table["utm_north_m"][0]) == first.utm_north_m == 4_500_000
    assert table["latitude"][1] == ""
    found, nothing = json.loads(files[1].read_text())["features"]
    east, north = found["geometry"]["coordinates"]
    # Of place 2, 200 m east of 81 degrees west.
    assert east == pytest.approx(-80.9976, abs=1e-4)
    assert north == pytest.approx(40.6506, abs=1e-3)
    degrees = first.longitude, first.latitude
    assert (east, north) == pytest.approx(degrees, abs=1e-7)
    assert found["properties"]["image_id"] == first.image_id
    assert nothing["geometry"] is None
    with pytest.raises(ValueError, match="Expected a file that ends in"):
        answers_of(inputs, photos, write_positions="a.shp")
