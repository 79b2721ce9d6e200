"""A folder of small datasets with what real files bring, and right values.

`check` reads each of them. What reading mends has the right value in the
manifest, and images that a header turns are counted; everything else is named
by a finding. The folder's cases.json says what each case is.
"""

import csv
import dataclasses
import json
import struct
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import toy_damage
import toy_images
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from sare_tf import build_records, check
from sare_tf.checks.options import CheckOptions
from sare_tf.dataset import image_decoding, readers
from sare_tf.dataset.readers import utm
from sare_tf.records.options import RecordOptions

GPS = ExifTags.GPS
PITTSBURGH = {
    GPS.GPSLatitudeRef: "N",
    GPS.GPSLatitude: (40.0, 26.0, 23.17),
    GPS.GPSLongitudeRef: "W",
    GPS.GPSLongitude: (79.0, 59.0, 53.7),
}
# pyproj's metres of 33.925 S, 18.424 E in zone 34, south.
CAPE_TOWN = "261872.631,6243171.030"
XMP = b"http://ns.adobe.com/xmp/extension/\0"


@dataclasses.dataclass(frozen=True)
class Case:
    """A small dataset.

    Attributes:
        kind: of the wrong answers that it is an example of.
        source: what writes such files.
        right: the right value or answer, in words.
        reader: of the dataset.
        files: path -> content.
        finding: name of the finding that names it; empty if reading mends it.
        images: the images that the finding names; None: not named.
        holds: whether the reading has the right value.
        options: of the reader.
    """

    kind: str
    source: str
    right: str
    reader: str
    files: dict[str, bytes]
    finding: str = ""
    images: tuple[str, ...] | None = None
    holds: Callable[[readers.collector.Reading], bool] = lambda reading: True
    options: dict = dataclasses.field(default_factory=dict)


def jpeg(seed=0, *, gps=None, orientation=None, first=b""):
    """A photograph of 64 x 48 pixels; `first` goes before its EXIF header."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3))
    pixels = pixels.astype(np.uint8).repeat(8, 0).repeat(8, 1)
    exif = Image.Exif()
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    if gps is not None:
        exif[ExifTags.IFD.GPSInfo] = gps
    encoded = toy_images.encode(Image.fromarray(pixels), "JPEG", exif=exif)
    return encoded[:2] + first + encoded[2:]


def segment(marker, content):
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def place(**others):
    """Two images of a place, and other files of its database."""
    names = {name.replace("__", "."): data for name, data in others.items()}
    return {
        "test/database/p/0.jpg": jpeg(1),
        "test/queries/p/1.jpg": jpeg(2),
        **{f"test/database/p/{name}": data for name, data in names.items()},
    }


def telephones(**gps):
    """A photograph with GPS fields of its own, and one without a doubt."""
    fields = {getattr(GPS, name): value for name, value in gps.items()}
    return {
        "test/database/odd.jpg": jpeg(1, gps=PITTSBURGH | fields),
        "test/queries/good.jpg": jpeg(2, gps=PITTSBURGH),
    }


def table(*lines, encoding="utf-8", **images):
    """images.csv of lines, and the images a.jpg and b.jpg."""
    return {
        "a.jpg": jpeg(1),
        "b.jpg": jpeg(2),
        "images.csv": "\n".join([*lines, ""]).encode(encoding),
    }


def metres(zone, position=CAPE_TOWN):
    return table(
        "path,utm_east,utm_north,utm_zone,split,role",
        f"a.jpg,{position},{zone},test,database",
        f"b.jpg,{position},{zone},test,query",
    )


def places(first, second, *, header="path,place,split,role"):
    return table(
        header, f"a.jpg,{first},test,database", f"b.jpg,{second},test,query"
    )


def is_turned(name):
    """Whether an image is decoded a quarter turned to the right."""

    def holds(reading):
        path = reading.root / name
        decoded = image_decoding.pixels(path.read_bytes())
        stored = np.asarray(Image.open(path).convert("RGB"))
        return np.array_equal(decoded, np.rot90(stored, -1))

    return holds


def is_at(latitude, longitude):
    """Whether all images are within some metres of a position."""

    def holds(reading):
        rows = reading.manifest
        found = utm.to_degrees(
            rows["utm_east_m"].to_numpy(),
            rows["utm_north_m"].to_numpy(),
            rows["utm_zone"].iat[0],
        )
        return np.allclose(found[0], latitude) and np.allclose(
            found[1], longitude
        )

    return holds


def lists(**columns):
    """Whether columns of the manifest, by image_id, hold these values."""

    def holds(reading):
        rows = reading.manifest.sort_values("image_id")
        return all(rows[name].tolist() == columns[name] for name in columns)

    return holds


WHOLE = jpeg(5)
MIDDLE = (WHOLE.index(b"\xff\xda") + len(WHOLE)) // 2
ODD = ("test/database/odd.jpg",)
BAD = ("test/database/p/bad.jpg",)
SECOND = ("b.jpg",)
AFRICAN = is_at(-33.925, 18.424)

CASES = {
    "exif_behind_xmp": Case(
        *("orientation", "a telephone with 50 kB of XMP first", "turned"),
        "place_folders",
        place(
            bad__jpg=jpeg(
                3, orientation=6, first=segment(0xE1, XMP + bytes(50_000))
            )
        ),
        *("turned", BAD),
        holds=is_turned(*BAD),
    ),
    "exif_behind_fill": Case(
        *("orientation", "an editor that aligns segments", "turned"),
        "place_folders",
        place(bad__jpg=jpeg(3, orientation=6, first=b"\xff\xff")),
        *("turned", BAD),
        holds=is_turned(*BAD),
    ),
    "zone_of_the_hemisphere": Case(
        *("zones", "QGIS and EPSG: S is south", "-33.925, 18.424"),
        *("csv_table", metres("34S"), "zone_notation"),
        holds=AFRICAN,
    ),
    "zone_by_epsg": Case(
        *("zones", "GDAL", "-33.925, 18.424", "csv_table"),
        metres("EPSG:32734"),
        holds=AFRICAN,
    ),
    "zone_without_band": Case(
        *("zones", "a spreadsheet", "asked for", "csv_table"),
        *(metres("34"), "refused"),
    ),
    "zone_with_a_hemisphere_given": Case(
        *("zones", "a spreadsheet", "-33.925, 18.424"),
        *("csv_table", metres("34"), "zone_notation"),
        holds=AFRICAN,
        options={"utm_hemisphere": "south"},
    ),
    "no_fix": Case(
        *("positions", "a camera without a fix", "doubted", "exif_photos"),
        *(telephones(GPSStatus="V"), "doubtful_position", ODD),
    ),
    "large_error": Case(
        *("positions", "a telephone indoors", "doubted", "exif_photos"),
        telephones(GPSHPositioningError=IFDRational(2000)),
        *("doubtful_position", ODD),
    ),
    "tokyo_datum": Case(
        *("positions", "a camera of 1998", "doubted", "exif_photos"),
        *(telephones(GPSMapDatum="TOKYO"), "doubtful_position", ODD),
    ),
    "seconds_beyond_60": Case(
        *("positions", "software that drops a point", "left out"),
        "exif_photos",
        telephones(GPSLatitude=(36.0, 48.0, 1454.0)),
        *("left_out", ODD),
    ),
    "swapped": Case(
        *("positions", "GeoJSON read as latitude first", "named"),
        "csv_table",
        table(
            "path,latitude,longitude,split,role",
            "a.jpg,-79.99825,40.43977,test,database",
            "b.jpg,-79.99826,40.43978,test,query",
        ),
        "antarctica",
    ),
    "place_nan": Case(
        *("tables", "pandas, astype(str)", "no place", "csv_table"),
        table(
            "path,place,latitude,longitude,split,role",
            "a.jpg,nan,40.4,-79.9,test,database",
            "b.jpg,nan,41.4,-79.9,test,query",
        ),
        *("missing_place", ("a.jpg", "b.jpg")),
        holds=lists(place_id=["", ""]),
    ),
    "separator_line": Case(
        *("tables", "Excel", "read", "csv_table"),
        table("sep=;", "path;place;split;role", "a.jpg;p;test;database")
        | {"b.jpg": b""},
        holds=lists(place_id=["p"]),
    ),
    "index_column": Case(
        *("tables", "pandas", "read", "csv_table"),
        table(
            ",Unnamed: 0,path,place,split,role",
            "0,0,a.jpg,p,test,database",
            "1,1,b.jpg,p,test,query",
        ),
        holds=lists(place_id=["p", "p"]),
    ),
    "utf_16": Case(
        *("tables", "PowerShell", "read", "csv_table"),
        table(
            "path,place,split,role", "a.jpg,p,test,database", encoding="utf-16"
        ),
        holds=lists(place_id=["p"]),
    ),
    "accents": Case(
        *("tables", "macOS, and a list from elsewhere", "read", "csv_table"),
        {
            unicodedata.normalize("NFD", "façade.jpg"): jpeg(1),
            "images.csv": "path,place,split,role\n"
            "façade.jpg,p,test,database\n".encode(),
        },
        holds=lists(place_id=["p"]),
    ),
    "place_unknown": Case(
        *("tables", "a form", "named", "csv_table"),
        *(places("unknown", "unknown"), "doubtful_place"),
        ("a.jpg", "b.jpg"),
    ),
    "zeros_at_the_end": Case(
        *("damage", "a copy that failed", "named", "place_folders"),
        place(
            bad__jpg=WHOLE[:MIDDLE]
            + bytes(len(WHOLE) - MIDDLE - 2)
            + WHOLE[-2:]
        ),
        *("damaged", BAD),
    ),
    "cut_off": Case(
        *("damage", "a download that ended", "refused", "place_folders"),
        *(place(bad__jpg=WHOLE[:MIDDLE]), "unreadable", BAD),
    ),
    "empty_file": Case(
        *("damage", "a full disk", "refused", "place_folders"),
        *(place(bad__jpg=b""), "unreadable", BAD),
    ),
    "web_page": Case(
        *("damage", "a download that needs a login", "refused"),
        *("place_folders", place(bad__jpg=b"<!DOCTYPE html>")),
        *("unreadable", BAD),
    ),
    "hidden_files": Case(
        *("paths", "macOS and thumbnails", "passed over", "place_folders"),
        place(**{"._0__jpg": b"x", ".thumbs/0__jpg": WHOLE}),
        holds=lists(image_id=["test/database/p/0.jpg", "test/queries/p/1.jpg"]),
    ),
    "no_queries": Case(
        *("small sets", "a survey", "named", "place_folders"),
        {f"train/database/{name}/0.jpg": jpeg(ord(name)) for name in "abc"},
        *("missing_split",),
    ),
    "many_scans": Case(
        *("cost", "an attacker", "refused", "place_folders"),
        *(place(bad__jpg=toy_images.with_scans(2000)), "unreadable", BAD),
    ),
    "many_pixels": Case(
        *("cost", "an attacker", "refused", "place_folders"),
        place(bad__jpg=toy_images.jpeg_that_says(60_000, 60_000)),
        *("unreadable", BAD),
    ),
    "many_texts": Case(
        *("cost", "an attacker", "refused", "place_folders"),
        place(bad__jpg=toy_images.BAD["many_texts"][0]),
        *("unreadable", BAD),
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of all cases."""
    folder = tmp_path_factory.mktemp("cases")
    for name, case in CASES.items():
        for path, content in case.files.items():
            file = folder / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    described = {
        name: {
            field: getattr(case, field)
            for field in ("kind", "source", "right", "finding")
        }
        for name, case in CASES.items()
    }
    (folder / "cases.json").write_text(json.dumps(described, indent=2))
    return folder


def run(dataset, findings, **options):
    """The findings of `check` by name, and the images that they name."""
    path = check.run(
        CheckOptions(
            dataset=dataset,
            findings=findings,
            **({"image_height": 64, "image_width": 64} | options),
        )
    )
    named = {
        one["name"]: [] for one in json.loads(path.read_text())["findings"]
    }
    with (findings / "images.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            named[row["finding"]].append(row["image"])
    return named


def test_the_folder_is_walked(folder):
    names = {path.name for path in folder.iterdir() if path.is_dir()}
    described = json.loads((folder / "cases.json").read_text())
    assert names == described.keys() == CASES.keys()
    kinds = {case["kind"] for case in described.values()}
    assert len(kinds) == 8


@pytest.mark.parametrize("name", CASES)
def test_check_names_what_reading_does_not_mend(folder, tmp_path, name):
    case = CASES[name]
    options = {"reader": case.reader, **case.options}
    if case.finding == "refused":
        with pytest.raises(ValueError, match="--utm_hemisphere"):
            run(folder / name, tmp_path / "findings", **options)
        return
    named = run(folder / name, tmp_path / "findings", **options)
    usual = {"missing_split", "no_positive", "place_with_one_image"}
    usual |= {"enlarged", "same_position", "both_orientations", "no_position"}
    if case.finding:
        assert case.finding in named
        if case.images is not None:
            assert sorted(named[case.finding]) == sorted(case.images)
    else:
        assert named.keys() <= usual
    assert case.holds(readers.read(folder / name, **options))


def test_records_that_were_damaged_are_named(folder, tmp_path):
    """Of one dataset; the first is of an earlier version."""
    records = build_records.run(
        RecordOptions(
            dataset=folder / "hidden_files",
            records=tmp_path / "records",
            reader="place_folders",
        )
    )

    def findings():
        return run(
            None, tmp_path / "findings", records=records, check_of="records"
        )

    assert "no_digests" not in findings()
    toy_damage.flip(records / "test-query-00000-of-00001.tfrecord", 100)
    assert findings()["unreadable"] == ["test/queries/p/1.jpg"]
    toy_damage.forget_digests(Path(records) / "records.json")
    assert "no_digests" in findings()
    toy_damage.flip(records / "manifest.parquet", 500)
    with pytest.raises(ValueError, match="manifest.*build_records"):
        findings()
