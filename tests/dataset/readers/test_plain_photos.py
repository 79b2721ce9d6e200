import pytest
from PIL.ExifTags import GPS
from test_exif_photos import PITTSBURGH, at, photo
from toy_folders import column, touch

from sare_tf.dataset import readers


def read(root, **options):
    return readers.read(root, reader="plain_photos", **options)


def test_nothing_need_be_known(tmp_path):
    touch(tmp_path, "b.jpg", "2023/08/a.PNG", "images/c.jpeg", ".hidden.jpg")
    reading = read(touch(tmp_path, "notes.txt"))
    table = reading.manifest
    assert sorted(table["image_id"]) == [
        "2023/08/a.PNG",
        "b.jpg",
        "images/c.jpeg",
    ]
    assert set(table["split"]) == {"test"}
    assert set(table["role"]) == {"database"}
    assert set(table["place_id"]) == {""}
    assert table["utm_east_m"].isna().all()
    assert [path for path, _ in reading.rejected] == ["notes.txt"]


def test_positions_where_there_are_any(tmp_path):
    photo(tmp_path / "a.jpg", at(0), time="2023:08:01 10:15:00")
    photo(tmp_path / "b.jpg", at(30))
    photo(tmp_path / "without.jpg")
    # Positions that cannot be used: without a letter, and 0, 0.
    broken = dict(PITTSBURGH)
    del broken[GPS.GPSLatitudeRef]
    photo(tmp_path / "broken.jpg", broken)
    zero = {GPS.GPSLatitude: (0.0,) * 3, GPS.GPSLongitude: (0.0,) * 3}
    photo(tmp_path / "zero.jpg", PITTSBURGH | zero)
    reading = read(touch(tmp_path, "damaged.jpg"))
    assert reading.rejected == []
    zones = column(reading, "utm_zone")
    assert {name for name, zone in zones.items() if zone == "17T"} == {
        "a.jpg",
        "b.jpg",
    }
    assert len(zones) == 6
    east = column(reading, "utm_east_m")
    assert east["b.jpg"] - east["a.jpg"] == pytest.approx(30, abs=0.1)
    assert column(reading, "timestamp")["a.jpg"] == "2023:08:01 10:15:00"


@pytest.mark.parametrize("choice", ["keep", "leave_out"])
def test_a_doubtful_position(tmp_path, choice):
    photo(tmp_path / "a.jpg", PITTSBURGH | {GPS.GPSStatus: "V"})
    photo(tmp_path / "b.jpg", PITTSBURGH)
    reading = read(tmp_path, doubtful_positions=choice)
    zones = column(reading, "utm_zone")
    assert zones["b.jpg"] == "17T"
    assert zones["a.jpg"] == ("17T" if choice == "keep" else "")
    (assumption,) = reading.assumptions
    assert assumption.images[0][0] == "a.jpg"


def test_a_folder_without_photographs(tmp_path):
    with pytest.raises(readers.collector.NoImages, match="none"):
        read(touch(tmp_path, "notes.txt"))
