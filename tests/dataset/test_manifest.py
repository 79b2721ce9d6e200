"""A manifest is made of arrays, checked, written and read."""

import numpy as np
import pandas as pd
import pytest
import toy_manifest
from toy_manifest import rows

from sare_tf.dataset import manifest


def test_a_manifest_of_arrays():
    """One value for all images or one each; the rest is unknown."""
    table = manifest.make(
        image_id=["a.jpg", "b.jpg"],
        split="train",
        role=["query", "database"],
        positions=[[500_000.5, 4e6], [np.nan, np.nan]],
        utm_zone="17T",
        frame=np.array([3, 2**40]),
        heading_deg=90,
        condition="night",
    )
    expected = {
        "image_id": ["a.jpg", "b.jpg"],
        "split": ["train", "train"],
        "role": ["query", "database"],
        "place_id": ["", ""],
        "utm_east_m": [500_000.5, np.nan],
        "utm_north_m": [4e6, np.nan],
        "utm_zone": ["17T", "17T"],
        "heading_deg": [90.0, 90.0],
        "timestamp": ["", ""],
        "panorama_id": ["", ""],
        "sequence_id": ["", ""],
        "frame": [3, 2**40],
        "condition": ["night", "night"],
        "subtasks": ["", ""],
        "width": [-1, -1],
        "height": [-1, -1],
    }
    pd.testing.assert_frame_equal(table, pd.DataFrame(expected))
    assert list(table) == list(manifest.COLUMNS)


def test_it_is_the_manifest_of_a_reader(tmp_path):
    """Types too, also as read from a file, and without an image."""
    names = ["x", "y"]
    table = manifest.make(image_id=names, split="val", place_id=["p", "q"])
    of_rows = toy_manifest.make(
        {"image_id": name, "split": "val", "role": "database", "place_id": p}
        for name, p in zip(names, "pq", strict=True)
    )
    pd.testing.assert_frame_equal(table, of_rows)
    manifest.write(table, tmp_path / "m.parquet")
    pd.testing.assert_frame_equal(
        manifest.read(tmp_path / "m.parquet"), of_rows
    )
    pd.testing.assert_frame_equal(manifest.make(image_id=[]), of_rows[:0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_id": ["a", "a"]}, "1 more than once, such as .'a'"),
        ({"image_id": ["a", ""]}, "Received: 1 empty ones"),
        ({"image_id": ["a", 7]}, "Expected image_id as str"),
        ({"split": "dev"}, "one of train, val, test. Received: .'dev'"),
        ({"role": ["query", "gallery"]}, "Received: .'gallery'"),
        ({"place_id": ["p"]}, r"place_id of shape \[1\]"),
        ({"place_id": [["p"], ["q"]]}, r"place_id of shape \[2, 1\]"),
        ({"split": None}, "Expected split as str. Received: split=.None"),
        ({"place_id": ["p", None]}, "Expected place_id as str. Received: "),
        ({"positions": np.zeros((3, 2))}, r"positions \[2, 2\] of 2 images"),
        ({"positions": np.zeros(2)}, r"Received: positions \[2\]"),
        ({"frame": [0.5, 1.0]}, "Expected frame as int64"),
        ({"heading_deg": ["N", "E"]}, "Expected heading_deg as float64"),
        ({"east": [0.0, 1.0]}, "frame, .*Received: .'east'"),
        ({"utm_east_m": [0.0, 1.0]}, "Received: .'utm_east_m'"),
        (
            {"positions": np.zeros((3, 2)), "utm_zone": ["17T", "18T", ""]}
            | {"image_id": ["a", "b", "c"]},
            r"\['17T', '18T'\], and 1 images without, such as 'c'",
        ),
    ],
)
def test_wrong_arrays_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        manifest.make(**{"image_id": ["a", "b"]} | arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": "a0"}, "1 of them more than once, such as .'a0'"),
        ({"split": "dev"}, "one of train, val, test. Received: .'dev'"),
        ({"role": "gallery"}, "one of database, query. Received: .'gallery'"),
        ({"east": 1.0}, "Received: .'east'"),
        ({"image_id": ""}, "without .'image_id'"),
    ],
)
def test_wrong_rows_are_refused(change, message):
    other = rows([1.0], prefix="b")[0] | change
    with pytest.raises(ValueError, match=message):
        toy_manifest.make([*rows([0.0]), other])


def test_an_unknown_zone_beside_several_is_refused():
    mixed = rows([0.0], utm_zone="17T")
    mixed += rows([0.0, 1.0], prefix="b", utm_zone="18T")
    mixed += rows([0.0], prefix="c")
    message = r"Received: \['17T', '18T'\], and 1 images without, such as 'c0'"
    with pytest.raises(ValueError, match=message):
        toy_manifest.make(mixed)
    mixed[-1] |= {"utm_east_m": np.nan}  # No coordinates: no zone needed.
    toy_manifest.make(mixed)


def test_file_round_trip_keeps_coordinates_exactly(tmp_path):
    table = toy_manifest.make(rows([500_000.123456789, np.nan]))
    manifest.write(table, tmp_path / "m.parquet")
    back = manifest.read(tmp_path / "m.parquet")
    assert list(back.columns) == list(manifest.COLUMNS)
    np.testing.assert_array_equal(
        back["utm_east_m"].to_numpy(), table["utm_east_m"].to_numpy()
    )
    assert not manifest.has_coordinates(back)
    assert manifest.has_coordinates(back[:1])
    assert [path.name for path in tmp_path.iterdir()] == ["m.parquet"]


def test_damaged_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        manifest.read(tmp_path / "none.parquet")
    (tmp_path / "m.parquet").write_bytes(b"not parquet")
    with pytest.raises(ValueError, match="cannot be read"):
        manifest.read(tmp_path / "m.parquet")
    toy_manifest.make(rows([0.0])).drop(columns="frame").to_parquet(
        tmp_path / "m.parquet"
    )
    with pytest.raises(ValueError, match="without the columns .'frame'"):
        manifest.read(tmp_path / "m.parquet")


def test_parts_do_not_show_in_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "BLOCK_ROWS", 4)
    table = toy_manifest.make(rows(np.arange(10.0), place_id="here"))
    manifest.write_parts([table], tmp_path / "one.parquet")
    parts = [table[:0], table[:3], table[3:9], table[9:]]
    manifest.write_parts(parts, tmp_path / "some.parquet")
    one, some = (tmp_path / f"{name}.parquet" for name in ("one", "some"))
    assert one.read_bytes() == some.read_bytes()
    pd.testing.assert_frame_equal(manifest.read(one), table)
    sizes = [0, 5, 0, 1, 4]
    back = list(manifest.read_parts(one, sizes))
    assert [len(part) for part in back] == sizes
    pd.testing.assert_frame_equal(pd.concat(back, ignore_index=True), table)


def test_parts_that_cannot_be_read(tmp_path):
    path = tmp_path / "m.parquet"
    with pytest.raises(FileNotFoundError):
        list(manifest.read_parts(path, [1]))
    manifest.write(toy_manifest.make(rows([0.0])), path)
    with pytest.raises(ValueError, match="too few rows"):
        list(manifest.read_parts(path, [1, 1]))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"[Pp]arquet"):
        list(manifest.read_parts(path, [1]))


def test_a_zone_as_others_write_it():
    """Cape Town by pyproj's metres, S for the southern hemisphere."""
    made = manifest.make(
        image_id=["a", "b"],
        positions=[[261872.6, 6243171.0], [np.nan, np.nan]],
        utm_zone="34S",
    )
    assert made["utm_zone"].tolist() == ["34H", "34S"]
    with pytest.raises(ValueError, match="write the zone as '34 north'"):
        manifest.make(image_id=["a"], positions=[[5e5, 6e6]], utm_zone="34")
