import io

import pytest
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational
from toy_folders import column, touch

from sare_tf.dataset import readers
from sare_tf.dataset.readers import exif_photos, gps_position

GPS = ExifTags.GPS
# 40 degrees 26' 23.17" north, 79 degrees 59' 53.7" west.
PITTSBURGH = {
    GPS.GPSLatitudeRef: "N",
    GPS.GPSLatitude: (40.0, 26.0, 23.17),
    GPS.GPSLongitudeRef: "W",
    GPS.GPSLongitude: (79.0, 59.0, 53.7),
}


def photo(path, gps=None, *, time=None, form="JPEG", cut=None):
    """A photograph as telephones write it: only the header matters."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Telephone"
    exif[ExifTags.Base.Orientation] = 6
    if gps is not None:
        exif[ExifTags.IFD.GPSInfo] = gps
    if time is not None:
        exif[ExifTags.IFD.Exif] = {ExifTags.Base.DateTimeOriginal: time}
    encoded = io.BytesIO()
    Image.new("RGB", (8, 6)).save(encoded, form, exif=exif)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded.getvalue()[:cut])
    return path


def at(east_m):
    """A position some metres east of a crossing in Pittsburgh."""
    # A degree of longitude there: 111320 m * cos(40.44) = 84734 m.
    degrees = 79.99825 - east_m / 84734
    return PITTSBURGH | {GPS.GPSLongitude: (degrees, 0.0, 0.0)}


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_position_direction_and_time(tmp_path, form):
    gps = PITTSBURGH | {
        GPS.GPSImgDirectionRef: "T",
        GPS.GPSImgDirection: IFDRational(2701, 10),
    }
    path = photo(tmp_path / "a", gps, time="2023:08:01 10:15:00", form=form)
    found = exif_photos.parse(path, radius_m=25.0)[0]
    # 26 / 60 + 23.17 / 3600 = 0.4397694; 59 / 60 + 53.7 / 3600 = 0.99825.
    assert found["degrees"] == pytest.approx((40.4397694, -79.99825), abs=1e-6)
    assert found["heading_deg"] == pytest.approx(270.1)
    assert found["timestamp"] == "2023:08:01 10:15:00"


def test_south_and_east(tmp_path):
    gps = PITTSBURGH | {GPS.GPSLatitudeRef: "S", GPS.GPSLongitudeRef: "E"}
    found = exif_photos.parse(photo(tmp_path / "a.jpg", gps), radius_m=25.0)[0]
    assert found["degrees"] == pytest.approx((-40.4397694, 79.99825), abs=1e-6)
    assert found["timestamp"] == ""


@pytest.mark.parametrize(
    "direction",
    [
        {GPS.GPSImgDirection: 270.0},
        {GPS.GPSImgDirection: 270.0, GPS.GPSImgDirectionRef: "M"},
        {GPS.GPSImgDirection: 700.0, GPS.GPSImgDirectionRef: "T"},
        {GPS.GPSImgDirection: IFDRational(1, 0), GPS.GPSImgDirectionRef: "T"},
    ],
)
def test_a_direction_that_is_no_heading(tmp_path, direction):
    found = exif_photos.parse(
        photo(tmp_path / "a.jpg", PITTSBURGH | direction), radius_m=25.0
    )[0]
    assert "heading_deg" not in found


@pytest.mark.parametrize("written", ["485", b"\x30\x10\x05"])
def test_a_text_is_no_position(written):
    """Its letters would be degrees, minutes and seconds."""
    gps = PITTSBURGH | {GPS.GPSLatitude: written}
    with pytest.raises(ValueError, match="a text, not numbers"):
        gps_position.degrees(gps)


def without(*tags):
    return {tag: value for tag, value in PITTSBURGH.items() if tag not in tags}


@pytest.mark.parametrize(
    ("gps", "reason"),
    [
        (None, "no position in its EXIF header"),
        ({}, "no position in its EXIF header"),
        (without(GPS.GPSLatitude), "no position in its EXIF header"),
        (without(GPS.GPSLongitude), "its position is incomplete"),
        (without(GPS.GPSLatitudeRef), "its position does not say N or S"),
        (PITTSBURGH | {GPS.GPSLongitudeRef: "N"}, "does not say E or W"),
        (
            PITTSBURGH | {GPS.GPSLatitude: (IFDRational(0, 0),) * 3},
            "latitude and longitude are no numbers",
        ),
        (
            PITTSBURGH
            | {GPS.GPSLatitude: (0.0,) * 3, GPS.GPSLongitude: (0.0,) * 3},
            "latitude and longitude are 0: no position",
        ),
        (PITTSBURGH | {GPS.GPSLatitude: (95.0, 0.0, 0.0)}, "latitude 95 is"),
        # Hundredths of a second, which were summed to 37.2 degrees: 44 km.
        (
            PITTSBURGH | {GPS.GPSLatitude: (36.0, 48.0, 1454.0)},
            "its latitude is 36 48 1454 N: 1454 seconds, not below 60",
        ),
        (
            PITTSBURGH | {GPS.GPSLongitude: (79.0, 75.0, 0.0)},
            "its longitude is 79 75 0 W: 75 minutes, not below 60",
        ),
        (
            PITTSBURGH | {GPS.GPSLongitude: (79.0, 59.0, 60.0)},
            "60 seconds, not below 60",
        ),
        (
            PITTSBURGH | {GPS.GPSLatitude: (40.4398, 26.0, 23.17)},
            "a fraction of degrees beside minutes, which should hold it",
        ),
        (
            PITTSBURGH | {GPS.GPSLatitude: (40.0, 26.386, 23.17)},
            "a fraction of minutes beside seconds, which should hold it",
        ),
        (
            PITTSBURGH | {GPS.GPSLatitude: (40.0, 26.0, 23.0, 17.0)},
            "4 numbers, not degrees, minutes and seconds",
        ),
    ],
)
def test_photographs_that_are_refused(tmp_path, gps, reason):
    photo(tmp_path / "test/queries/bad.jpg", gps)
    photo(tmp_path / "test/queries/good.jpg", PITTSBURGH)
    found = readers.read(tmp_path, reader="exif_photos")
    assert list(column(found, "role")) == ["test/queries/good.jpg"]
    [(name, why)] = found.rejected
    assert name == "test/queries/bad.jpg"
    assert reason in why


@pytest.mark.parametrize("cut", [0, 10, 60])
def test_a_header_that_cannot_be_read(tmp_path, cut):
    path = photo(tmp_path / "a.jpg", PITTSBURGH, cut=cut)
    with pytest.raises(ValueError, match=r"header cannot be read|no position"):
        exif_photos.parse(path, radius_m=25.0)


def crossings(root, *folders):
    """Three crossings 400 m apart, four photographs at each."""
    for folder in folders:
        for crossing in range(3):
            for number in range(4):
                photo(
                    root / folder / f"IMG_{crossing}{number}.JPG",
                    at(400 * crossing + 3 * number),
                )
    return root


def test_one_folder_of_photographs(tmp_path):
    crossings(tmp_path, "camera roll")
    touch(tmp_path, "camera roll/IMG_99.HEIC", "camera roll/.trash.jpg")
    found = readers.read(tmp_path, reader="exif_photos", seed=3)
    table = found.manifest
    ((name, why),) = found.rejected
    assert name == "camera roll/IMG_99.HEIC"
    assert why.startswith("its header cannot be read")
    crossing = table["image_id"].str[-6]
    assert table.groupby(crossing)["split"].nunique().tolist() == [1, 1, 1]
    assert set(table["split"]) == {"train", "val", "test"}
    roles = table.groupby([crossing, "role"]).size()
    assert roles.tolist() == [3, 1] * 3
    assert set(table["utm_zone"]) == {"17T"}
    east = table["utm_east_m"].sort_values()
    # 400 m between crossings along the ground; 0.9996 of it on UTM's grid at
    # most, and the row there is 0.6 degrees from east.
    assert east.iloc[4] - east.iloc[0] == pytest.approx(400, abs=1.5)


def test_the_folders_say_the_roles(tmp_path):
    crossings(tmp_path, "images/database", "images/queries")
    found = readers.read(tmp_path, reader="exif_photos")
    roles = column(found, "role")
    assert roles["database/IMG_00.JPG"] == "database"
    assert roles["queries/IMG_00.JPG"] == "query"
    splits = column(found, "split")
    assert splits["database/IMG_00.JPG"] == splits["queries/IMG_03.JPG"]
    assert len(set(splits.values())) == 3


def test_split_folders_beside_role_folders(tmp_path):
    photo(tmp_path / "database/a.jpg", PITTSBURGH)
    photo(tmp_path / "train/database/b.jpg", PITTSBURGH)
    with pytest.raises(ValueError, match="either split folders or database"):
        readers.read(tmp_path, reader="exif_photos")


@pytest.mark.parametrize(
    "numbers", [(-36, 48, 14.54), (36, -48, 14.54), (-36.8,)]
)
def test_signed_numbers_beside_a_letter_are_refused(numbers):
    """Signed rationals, which Pillow reads but does not write.

    -36 48' 14.54" S was summed to 35.2 degrees north.
    """
    gps = PITTSBURGH | {GPS.GPSLatitudeRef: "S", GPS.GPSLatitude: numbers}
    with pytest.raises(ValueError, match=r"^its latitude is .*below 0 beside"):
        gps_position.degrees(gps)


@pytest.mark.parametrize(
    "gps",
    [
        {GPS.GPSLatitude: (40.0, 26.0 + 23.17 / 60)},
        {GPS.GPSLatitude: (40.0, 26.0 + 23.17 / 60, 0.0)},
        {GPS.GPSLatitude: (40.0 + 26 / 60 + 23.17 / 3600, 0.0, 0.0)},
        {
            GPS.GPSLatitude: (
                IFDRational(40),
                IFDRational(26),
                IFDRational(2317, 100),
            )
        },
    ],
)
def test_the_same_latitude_in_other_units(tmp_path, gps):
    path = photo(tmp_path / "a.jpg", PITTSBURGH | gps)
    columns, _ = exif_photos.parse(path, radius_m=25.0)
    assert columns["degrees"][0] == pytest.approx(40.4397694, abs=1e-6)


DOUBTS = {
    "no_fix": ({GPS.GPSStatus: "V"}, "no fix (GPSStatus V)"),
    "error": (
        {GPS.GPSHPositioningError: IFDRational(2000)},
        "wrong by 2000 m (GPSHPositioningError)",
    ),
    "datum": ({GPS.GPSMapDatum: "TOKYO"}, "of the datum 'TOKYO', not of WGS84"),
    "nad27": ({GPS.GPSMapDatum: "NAD27 CONUS"}, "'NAD27 CONUS'"),
}


@pytest.mark.parametrize("name", DOUBTS)
def test_positions_that_the_camera_doubts(tmp_path, name):
    fields, reason = DOUBTS[name]
    photo(tmp_path / "test/queries/bad.jpg", PITTSBURGH | fields)
    photo(tmp_path / "test/queries/good.jpg", PITTSBURGH)
    kept = readers.read(tmp_path, reader="exif_photos")
    assert len(kept.manifest) == 2
    [assumption] = kept.assumptions
    assert assumption.name == "doubtful_position"
    assert assumption.count == 1
    [(image_id, doubt)] = assumption.images
    assert image_id == "test/queries/bad.jpg"
    assert reason in doubt
    assert reason in assumption.message
    without_it = readers.read(
        tmp_path, reader="exif_photos", doubtful_positions="leave_out"
    )
    assert len(without_it.manifest) == 1
    assert without_it.assumptions == []
    [(name, why)] = without_it.rejected
    assert (name, why) == (image_id, doubt)


@pytest.mark.parametrize(
    "fields",
    [
        {GPS.GPSStatus: "A", GPS.GPSMapDatum: "WGS-84"},
        {GPS.GPSMapDatum: "WGS 84 \0"},
        {GPS.GPSMapDatum: "wgs84"},
        {GPS.GPSMapDatum: "WGS-84 (G1150)"},
        {GPS.GPSMapDatum: "World Geodetic System 1984"},
        {GPS.GPSMapDatum: "ETRS89"},
        {GPS.GPSMapDatum: ""},
        {GPS.GPSMapDatum: "Unknown"},
        {GPS.GPSHPositioningError: IFDRational(25)},
        {GPS.GPSHPositioningError: IFDRational(1, 0)},
    ],
)
def test_positions_without_a_doubt(tmp_path, fields):
    path = photo(tmp_path / "a.jpg", PITTSBURGH | fields)
    assert exif_photos.parse(path, radius_m=25.0)[1] == ""


def test_the_radius_decides_on_errors(tmp_path):
    error = {GPS.GPSHPositioningError: IFDRational(30)}
    photo(tmp_path / "test/queries/a.jpg", PITTSBURGH | error)
    for radius_m, count in ((25.0, 1), (30.0, 0), (100.0, 0)):
        reading = readers.read(
            tmp_path, reader="exif_photos", positive_radius_m=radius_m
        )
        assert len(reading.assumptions) == count
