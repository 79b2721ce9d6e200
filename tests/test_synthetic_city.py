"""The rendered city: names, determinism, and the command."""

import dataclasses
import hashlib
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sare_tf import synthetic_city
from sare_tf.city.districts import place_positions
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
    # At least two for val and test, and the rest for train.
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
            positives = find_positives(
                queries, database, rule="radius", radius_m=radius_m
            )
            for query, near in zip(queries["image_id"], positives, strict=True):
                places = [place(x) for x in database["image_id"].iloc[near]]
                assert set(places) == {place(query)}
                assert len(places) == 4 or radius_m == 10.0


def test_pictures_have_the_size_asked_for(city):
    for path in list(city.rglob("*.jpg"))[:5]:
        with Image.open(path) as image:
            assert image.size == (64, 48)
            assert image.format == "JPEG"


def test_coordinates_are_those_of_the_camera_with_noise(city):
    table = readers.read(city, reader="at_names").manifest
    positions = place_positions(12, seed=0)["test"]
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
    options = CityOptions(
        out=tmp_path / "city",
        places=10,
        database_per_place=1,
        queries_per_place=1,
        num_workers=1,
        **SIZE,
    )
    out = synthetic_city.run(options)
    picture = next(out.rglob("*.jpg"))
    before = picture.stat().st_mtime_ns
    synthetic_city.run(options)
    assert picture.stat().st_mtime_ns == before
    synthetic_city.run(dataclasses.replace(options, queries_per_place=2))
    assert len(list(out.rglob("*.jpg"))) == 30


def test_another_folder_is_not_touched(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something else"):
        synthetic_city.run(CityOptions(out=tmp_path, places=10, **SIZE))
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_after_an_error_nothing_is_left(tmp_path, monkeypatch):
    def fails(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", fails)
    with pytest.raises(OSError, match="disk full"):
        synthetic_city.run(
            CityOptions(out=tmp_path / "city", places=10, num_workers=1, **SIZE)
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.own_process
def test_the_command(tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "sare_tf.synthetic_city"),
            *("--places=10", "--image_width=64", "--image_height=48"),
            f"--out={tmp_path / 'city'}",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "city").rglob("*.jpg"))) == 60
