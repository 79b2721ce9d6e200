"""The rendered city: layout, names, determinism, and the command."""

import hashlib
import io
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sare_tf import synthetic_city
from sare_tf.city import painting
from sare_tf.city.options import CityOptions
from sare_tf.dataset import manifest, readers
from sare_tf.dataset.positives import find_positives

SIZE = {"image_width": 64, "image_height": 48}


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    return synthetic_city.run(
        CityOptions(
            out=tmp_path_factory.mktemp("city") / "city",
            places=12,
            num_workers=1,
            **SIZE,
        )
    )


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in folder.rglob("*.jpg")
    }


def test_is_the_same_for_any_number_of_workers(city, tmp_path):
    again = synthetic_city.run(
        CityOptions(out=tmp_path / "city", places=12, num_workers=2, **SIZE)
    )
    assert contents(again) == contents(city)


def test_another_seed_is_another_city(city, tmp_path):
    other = synthetic_city.run(
        CityOptions(
            out=tmp_path / "city", places=12, seed=1, num_workers=1, **SIZE
        )
    )
    assert not set(contents(other)) & set(contents(city))
    assert not set(contents(other).values()) & set(contents(city).values())


def test_is_read_by_the_reader_of_the_convention(city):
    read = readers.read(city, reader="at_names")
    table = read.manifest
    assert len(table) == 12 * 6
    assert len(read.rejected) == 0
    counts = table.groupby(["split", "role"]).size()
    # 75, 8 and 17 %, at least two, and the rest to train.
    assert counts["train", "database"] == 4 * 8
    assert counts["train", "query"] == 2 * 8
    assert counts["val", "query"] == counts["test", "query"] == 2 * 2
    assert (
        table[["utm_east_m", "utm_north_m", "heading_deg"]]
        .notna()
        .all(axis=None)
    )


def test_each_query_has_the_database_images_of_its_place(city):
    table = readers.read(city, reader="at_names").manifest
    for split in manifest.SPLITS:
        rows = table[table["split"] == split]
        queries = rows[rows["role"] == "query"]
        database = rows[rows["role"] == "database"]

        def place(name, split=split):
            return name.split(split)[-1][:4]

        for radius_m in (25.0, 10.0):
            found = find_positives(
                queries, database, rule="radius", radius_m=radius_m
            )
            for query, positives in zip(
                queries["image_id"], found, strict=True
            ):
                seen = [place(x) for x in database["image_id"].iloc[positives]]
                assert set(seen) <= {place(query)}
                assert len(seen) == 4 or radius_m == 10.0
                assert len(seen) >= 1


@pytest.mark.parametrize("num_places", [10, 300])
def test_places_keep_apart_and_districts_do_not_overlap(num_places):
    districts = synthetic_city.place_positions(num_places, seed=3)
    assert set(districts) == set(manifest.SPLITS)
    assert sum(len(places) for places in districts.values()) == num_places
    everything = np.array([p[:2] for d in districts.values() for p in d])
    east, north = everything.T
    apart = np.hypot(east[:, None] - east, north[:, None] - north)
    np.fill_diagonal(apart, np.inf)
    assert apart.min() >= 60
    bounds = sorted(
        (min(p[0] for p in d), max(p[0] for p in d)) for d in districts.values()
    )
    for (_, end), (start, _) in zip(bounds[:-1], bounds[1:], strict=True):
        assert start - end > 1000


def test_cameras_look_across_the_street():
    for _, _, heading in synthetic_city.place_positions(40, seed=0)["train"]:
        assert heading in (0.0, 90.0, 180.0, 270.0)


def test_pictures_have_the_size_asked_for(city):
    for path in list(city.rglob("*.jpg"))[:5]:
        with Image.open(path) as image:
            assert image.size == (64, 48)
            assert image.format == "JPEG"


def test_pictures_of_a_place_differ_less_than_places():
    """In the middle of the day, seen from one spot, a place is itself."""

    def picture(place, seed):
        rng = np.random.default_rng(seed)
        moment = painting.Moment(
            x_m=0.0,
            back_m=0.0,
            yaw_deg=0.0,
            pitch_deg=7.0,
            zoom=1.0,
            month=6,
            weather="overcast",
            night=False,
        )
        encoded = painting.render(
            painting.paint_place((9, place)),
            moment,
            rng,
            width=80,
            height=60,
        )
        grey = np.asarray(Image.open(io.BytesIO(encoded)).convert("L"), float)
        grey -= grey.mean()
        return grey / np.linalg.norm(grey)

    first = np.stack([picture(place, 0).ravel() for place in range(6)])
    second = np.stack([picture(place, 1).ravel() for place in range(6)])
    assert (np.argmax(first @ second.T, axis=1) == np.arange(6)).all()


def test_coordinates_are_those_of_the_camera_with_noise(city):
    table = readers.read(city, reader="at_names").manifest
    positions = synthetic_city.place_positions(12, seed=0)["test"]
    rows = table[table["split"] == "test"]
    offsets = []
    for number, (east, north, _) in enumerate(positions):
        of_place = rows[rows["image_id"].str.contains(f"test{number:04d}")]
        assert len(of_place) == 6
        offsets += list(
            np.hypot(
                of_place["utm_east_m"] - east, of_place["utm_north_m"] - north
            )
        )
    # At most 5 m along the street and 4 m of error on both axes.
    assert max(offsets) <= math.hypot(5 + 4, 4) + 0.01
    assert min(offsets) > 0
    assert len(set(np.round(offsets, 2))) > 8


def test_the_same_city_is_kept_and_another_replaced(tmp_path):
    arguments = {"out": tmp_path / "city", "num_workers": 1, **SIZE}
    out = synthetic_city.run(CityOptions(places=10, **arguments))
    some = next(out.rglob("*.jpg"))
    before = some.stat().st_mtime_ns
    synthetic_city.run(CityOptions(places=10, **arguments))
    assert some.stat().st_mtime_ns == before
    synthetic_city.run(CityOptions(places=11, **arguments))
    assert len(list(out.rglob("*.jpg"))) == 66


def test_another_folder_is_not_touched(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something else"):
        synthetic_city.run(CityOptions(out=tmp_path, places=10, **SIZE))
    assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "wrong",
    [{"places": 9}, {"image_width": 8}, {"queries_per_place": 0}],
)
def test_bad_input(tmp_path, wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} to be .*at least .*{name}="):
        synthetic_city.run(
            CityOptions(**{"out": tmp_path / "city", "places": 10, **wrong})
        )
    assert not (tmp_path / "city").exists()


def test_after_an_error_nothing_is_left(tmp_path, monkeypatch):
    def fails(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(painting, "render", fails)
    with pytest.raises(OSError, match="disk full"):
        synthetic_city.run(
            CityOptions(out=tmp_path / "city", places=10, num_workers=1, **SIZE)
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.own_process
def test_the_command(tmp_path):
    command = [sys.executable, "-m", "sare_tf.synthetic_city"]
    options = ["--places=10", "--image_width=64", "--image_height=48"]
    done = subprocess.run(
        [*command, f"--out={tmp_path / 'city'}", *options],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "city").rglob("*.jpg"))) == 60
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Received no value for: --out" in done.stderr
    assert "Traceback" not in done.stderr
