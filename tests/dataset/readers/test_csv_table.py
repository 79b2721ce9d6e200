import csv
import io
import unicodedata

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import SHARED
from toy_folders import column, touch

from sare_tf.dataset import readers
from sare_tf.dataset.readers import table_cells, utm

TOWER = SHARED / "data" / "ie_tower_320"


def read(root, text, *, encoding="utf-8", name="images.csv", **options):
    touch(root, *(f"photos/{letter}.jpg" for letter in "abcdefgh"))
    (root / name).write_bytes(text.encode(encoding))
    return readers.read(root, reader="csv_table", **options)


def test_every_column(tmp_path):
    found = read(
        tmp_path,
        "Path, latitude,longitude,split,role,heading,timestamp,panorama,"
        "sequence,frame,condition,place,colour\n"
        '"photos/a.jpg",40.43977,-79.99825,train,database,-90,2023-08-01,p7,'
        's1,12,"night, rain",tower,red\n'
        "photos/b.jpg,40.43978,-79.99825,val,query,,,,,,,,\n",
    )
    first = found.manifest.iloc[0].to_dict()
    # The metres are pyproj's, see test_coordinates.
    assert first.pop("utm_east_m") == pytest.approx(584958.702278, abs=1e-5)
    assert first.pop("utm_north_m") == pytest.approx(4477051.025595, abs=1e-5)
    assert first == {
        "image_id": "photos/a.jpg",
        "split": "train",
        "role": "database",
        "place_id": "tower",
        "utm_zone": "17T",
        "heading_deg": 270.0,
        "timestamp": "2023-08-01",
        "panorama_id": "p7",
        "sequence_id": "s1",
        "frame": 12,
        "condition": "night, rain",
        "subtasks": "",
        "width": -1,
        "height": -1,
    }
    assert column(found, "frame")["photos/b.jpg"] == -1
    assert found.rejected == []


def test_metres_stay_as_they_are(tmp_path):
    found = read(
        tmp_path,
        "path,utm_east,utm_north,utm_zone,split,role\n"
        "photos/a.jpg,584958.123456789,4477051.5,07t,test,query\n"
        "photos/b.jpg,584958,4477051.5,7T,test,database\n",
    )
    assert found.manifest["utm_east_m"].tolist() == [584958.123456789, 584958.0]
    assert found.manifest["utm_zone"].tolist() == ["7T", "7T"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_spreadsheets_write(tmp_path, encoding, separator, end):
    lines = [
        ["path", "place", "split", "role"],
        ["photos\\a.jpg", '"Karl""s Platz"', "test", "query"],
        ["photos/b.jpg", '"Straße\nam See"', "test", "database"],
        [],
    ]
    text = end.join(separator.join(line) for line in lines)
    found = read(tmp_path, text, encoding=encoding, name="Mappe1.csv")
    assert column(found, "place_id") == {
        "photos/a.jpg": 'Karl"s Platz',
        "photos/b.jpg": "Straße\nam See",
    }


def test_lines_that_are_refused(tmp_path):
    found = read(
        tmp_path,
        "path,latitude,longitude,place,split,role,heading,frame\n"
        "photos/a.jpg,51.5,-0.1,,test,query,,\n"
        "photos/a.jpg,51.5,-0.1,,test,query,,\n"
        "photos/b.jpg,51.5\n"
        "photos/c.jpg,,,,test,query,,\n"
        "photos/d.jpg,51.5,,,test,query,,\n"
        'photos/d.jpg,"51,5",-0.1,,test,query,,\n'
        "photos/d.jpg,139.7,35.6,,test,query,,\n"
        "photos/d.jpg,51.5,-0.1,,dev,query,,\n"
        "photos/d.jpg,51.5,-0.1,,test,gallery,,\n"
        "photos/d.jpg,51.5,-0.1,,test,query,north,\n"
        "photos/d.jpg,51.5,-0.1,,test,query,,1.5\n"
        "photos/gone.jpg,51.5,-0.1,,test,query,,\n"
        "../photos/a.jpg,51.5,-0.1,,test,query,,\n"
        "/photos/a.jpg,51.5,-0.1,,test,query,,\n"
        "photos/e.jpg,,,tower,test,database,,\n",
    )
    assert found.manifest["image_id"].tolist() == [
        "photos/a.jpg",
        "photos/e.jpg",
    ]
    assert found.rejected == [
        ("photos/a.jpg", "named more than once"),
        ("photos/b.jpg", "line 4: 2 fields, not 8"),
        ("photos/c.jpg", "neither a position nor a place"),
        ("photos/d.jpg", "longitude is no number: ''"),
        ("photos/d.jpg", "latitude is no number: '51,5'"),
        ("photos/d.jpg", "latitude 139.7 is not from -80 to 84, UTM's range"),
        ("photos/d.jpg", "split 'dev' is not train, val, test"),
        ("photos/d.jpg", "role 'gallery' is not database, query"),
        ("photos/d.jpg", "heading is no number: 'north'"),
        ("photos/d.jpg", "frame is no count: '1.5'"),
        ("photos/gone.jpg", "named in the list, but no such file"),
        ("../photos/a.jpg", "leaves the dataset's folder by .."),
        ("/photos/a.jpg", "not a path relative to the dataset"),
    ]
    assert np.isnan(column(found, "utm_east_m")["photos/e.jpg"])


@pytest.mark.parametrize(
    "header",
    [
        "file,latitude,longitude",
        "path",
        "path,latitude",
        "path,utm_north,place",
        "path,latitude,longitude,utm_east,utm_north",
        "path,place,place",
        "",
    ],
)
def test_columns_that_are_not_enough(tmp_path, header):
    with pytest.raises(ValueError, match="Rename them in its first line"):
        read(tmp_path, header + "\nphotos/a.jpg,1,2,3,4\n")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16-le"])
def test_another_encoding(tmp_path, encoding):
    with pytest.raises(ValueError, match="Save it as CSV UTF-8"):
        read(tmp_path, "path,place\nphotos/a.jpg,Straße\n", encoding=encoding)


def test_a_quote_that_does_not_end(tmp_path):
    with pytest.raises(ValueError, match="Save it as CSV UTF-8"):
        read(tmp_path, 'path,place\nphotos/a.jpg,"tower\n')


def test_no_line_that_can_be_used(tmp_path):
    with pytest.raises(ValueError, match="such as photos/x.jpg: named in the"):
        read(tmp_path, "path,place\nphotos/x.jpg,tower\n")


def test_splits_and_roles_by_place(tmp_path):
    lines = [
        f"photos/{letter}.jpg,{place}"
        for letter, place in zip("abcdefgh", "11222333", strict=True)
    ]
    found = read(tmp_path, "path,place\n" + "\n".join(lines)).manifest
    assert found.groupby("place_id")["split"].nunique().max() == 1
    assert set(found["split"]) == {"train", "val", "test"}
    assert found.groupby("place_id")["role"].nunique().min() == 2


def test_splits_and_roles_by_area(tmp_path):
    """Three crossings, 300 m apart."""
    lines = [
        f"photos/{letter}.jpg,{500_000 + 300 * (n % 3) + n},5700000,30U"
        for n, letter in enumerate("abcdefgh")
    ]
    text = "path,utm_east,utm_north,utm_zone\n" + "\n".join(lines)
    found = read(tmp_path, text).manifest
    crossing = (found["utm_east_m"] - 500_000) // 300
    assert found.groupby(crossing)["split"].nunique().tolist() == [1, 1, 1]
    assert found.groupby(crossing)["role"].nunique().tolist() == [2, 2, 2]
    assert len(found) == 8


def test_a_zone_that_is_given(tmp_path):
    text = "path,latitude,longitude,split,role\nphotos/a.jpg,51.5,0.1,val,query"
    found = read(tmp_path, text, utm_zone="30U")
    # pyproj's, see test_coordinates.
    assert found.manifest["utm_east_m"][0] == pytest.approx(715155.936252)
    with pytest.raises(ValueError, match="utm_zone='London'"):
        read(tmp_path, text, utm_zone="London")


@pytest.mark.parametrize(
    "text", ["nan", "NaN", "None", "NULL", "<NA>", "#N/A", '="nan"', " nan "]
)
@pytest.mark.parametrize("column", ["place", "panorama", "sequence"])
def test_a_missing_value_is_no_name(tmp_path, text, column):
    """pandas writes nan, databases write NULL: images of it share nothing."""
    quoted = text.replace('"', '""')
    found = read(
        tmp_path,
        f"path,latitude,longitude,split,role,{column}\n"
        f'photos/a.jpg,51.5,-0.1,test,query,"{quoted}"\n'
        "photos/b.jpg,51.5,-0.1,test,database,tower\n"
        f'photos/c.jpg,51.6,-0.1,test,database,"{quoted}"\n',
    )
    name = {"place": "place_id"}.get(column, f"{column}_id")
    assert found.manifest[name].tolist() == ["", "tower", ""]
    [assumption] = found.assumptions
    assert (assumption.name, assumption.count) == (f"missing_{column}", 2)
    assert [image for image, _ in assumption.images] == [
        "photos/a.jpg",
        "photos/c.jpg",
    ]
    assert f"2 cells of the column {column} taken" in assumption.message
    assert "'line 2: " in assumption.message


def test_without_a_place_or_a_position(tmp_path):
    found = read(
        tmp_path,
        "path,latitude,longitude,place,split,role\n"
        "photos/a.jpg,,,nan,test,query\n"
        "photos/b.jpg,nan,NA,tower,test,database\n"
        "photos/c.jpg,NULL,None,,test,database\n",
    )
    assert column(found, "place_id") == {"photos/b.jpg": "tower"}
    reason = "neither a position nor a place"
    assert found.rejected == [
        ("photos/a.jpg", reason),
        ("photos/c.jpg", reason),
    ]


def test_names_that_look_like_missing_values(tmp_path):
    """NA is Namibia; a path or a condition may have any name."""
    touch(tmp_path, "nan.jpg")
    found = read(
        tmp_path,
        "path,place,split,role,condition\n"
        "photos/a.jpg,NA,test,query,None\n"
        "nan.jpg,NA,test,database,nan\n"
        "photos/b.jpg,Nancy,test,database,\n",
    )
    assert found.manifest["place_id"].tolist() == ["NA", "NA", "Nancy"]
    assert found.manifest["condition"].tolist() == ["None", "nan", ""]
    assert found.assumptions == []


@pytest.mark.parametrize("line", ["sep=;", "SEP=;", '"sep=;"', "sep=;;;"])
def test_a_line_that_names_the_separator(tmp_path, line):
    found = read(
        tmp_path,
        f"\n{line}\npath;place, or crossing;place;split;role\n"
        "photos/a.jpg;;Karlsplatz, Wien;test;query\n"
        "photos/b.jpg;Wien\n",
    )
    assert column(found, "place_id") == {"photos/a.jpg": "Karlsplatz, Wien"}
    assert found.rejected == [("photos/b.jpg", "line 5: 2 fields, not 5")]


def test_columns_without_a_name(tmp_path):
    """Written with row numbers twice, then with blank cells at the end."""
    found = read(
        tmp_path,
        ",,path,place,split,role,note,note,,\n"
        "0,0,photos/a.jpg,tower,test,query,x,y,,\n"
        "1,1,photos/b.jpg,tower,test,database,x,y,,,,\n"
        ",,,,,,,,,\n"
        "2,2,photos/c.jpg,tower,test,database,x,y,,,7\n",
    )
    assert found.manifest["image_id"].tolist() == [
        "photos/a.jpg",
        "photos/b.jpg",
    ]
    assert found.rejected == [("photos/c.jpg", "line 5: 11 fields, not 10")]


def test_what_surrounds_a_cell(tmp_path):
    found = read(
        tmp_path,
        "\ufeff\ufeffpath, latitude ,longitude\u200b,place,split,role,frame\n"
        ' photos/a.jpg\u00a0,\u221233.9,="18.4",="0001",test,query,12.0\n'
        'photos/b.jpg,-33.9,18.4,"=""0001""",test,database,13\n',
    )
    assert found.manifest["place_id"].tolist() == ["0001", "0001"]
    assert found.manifest["utm_zone"].tolist() == ["34H", "34H"]
    assert found.manifest["frame"].tolist() == [12, 13]
    assert found.rejected == []


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("place", "place is a number that a spreadsheet has rounded: '{}'"),
        ("panorama", "panorama is a number that a spreadsheet has"),
        ("timestamp", "timestamp is a number that a spreadsheet has"),
    ],
)
@pytest.mark.parametrize("text", ["1.23457E+11", "2.018E+13", "1,5e+12"])
def test_numbers_that_a_spreadsheet_rounded(tmp_path, field, reason, text):
    found = read(
        tmp_path,
        f"path,latitude,longitude,split,role,{field}\n"
        "photos/a.jpg,51.5,-0.1,test,query,3E10\n"
        f'photos/b.jpg,51.5,-0.1,test,database,"{text}"\n',
    )
    assert found.manifest["image_id"].tolist() == ["photos/a.jpg"]
    assert found.rejected[0][1].startswith(reason.format(text))


@pytest.mark.parametrize(
    "text", ['"261,878"', "261.878.5", "261 878", "261'878", "261_878", "2°"]
)
def test_thousands_are_not_guessed(tmp_path, text):
    with pytest.raises(ValueError, match="utm_east is no number"):
        read(
            tmp_path,
            "path,utm_east,utm_north,utm_zone,split,role\n"
            f"photos/a.jpg,{text},6243186,34H,test,query\n",
        )


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
def test_both_spellings_of_an_accent(tmp_path, on_disk):
    """macOS writes e and an accent where tables have one letter."""
    names = [
        unicodedata.normalize(form, "café/déjà vu.jpg")
        for form in (on_disk, "NFC", "NFD")
    ]
    touch(tmp_path, names[0])
    places = [unicodedata.normalize(form, "Zoë") for form in ("NFC", "NFD")]
    for name in names[1:]:
        found = read(
            tmp_path,
            "path,place,split,role\n"
            f"{name},{places[1]},test,query\n"
            f"photos/a.jpg,{places[0]},test,database\n"
            "café/absent.jpg,x,test,database\n",
        )
        assert found.manifest["image_id"].tolist() == [names[0], "photos/a.jpg"]
        assert found.manifest["place_id"].tolist() == [places[0]] * 2
        assert found.rejected == [
            ("café/absent.jpg", "named in the list, but no such file")
        ]


# Cells that a table may hold, without characters that end one.
_CELLS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12
).filter(lambda text: not table_cells.is_rounded(table_cells.clean(text)))


@settings(max_examples=30)
@given(
    latitude=st.floats(-79, 83).filter(lambda value: abs(value) > 1e-6),
    longitude=st.floats(-179.9, 179.9),
    places=st.lists(_CELLS, min_size=3, max_size=3),
    separator=st.sampled_from(",;\t|"),
    mark=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    end=st.sampled_from(["\n", "\r\n"]),
    columns=st.permutations(
        ["path", "latitude", "longitude", "place", "split", "role", "", "note"]
    ),
)
def test_any_table_gives_what_it_holds(
    tmp_path_factory, latitude, longitude, places, separator, mark, end, columns
):
    """Python's own csv writes the table; only blanks and accents may change."""
    root = tmp_path_factory.mktemp("table")
    lines = [
        {
            "path": f"photos/{letter}.jpg",
            "latitude": repr(latitude),
            "longitude": repr(longitude),
            "place": place,
            "split": "test",
            "role": "database",
            "": number,
            "note": place[::-1],
        }
        for number, (letter, place) in enumerate(
            zip("abc", places, strict=True)
        )
    ]
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator=end)
    writer.writerow(columns)
    for line in lines:
        writer.writerow([line[name] for name in columns])
    found = read(root, text.getvalue(), encoding=mark)
    kept = {}
    for line in lines:
        place = table_cells.clean(line["place"])
        if table_cells.is_missing(place):
            place = ""
        kept[line["path"]] = unicodedata.normalize("NFC", place)
    assert column(found, "place_id") == kept
    rows = found.manifest
    back = utm.to_degrees(
        rows["utm_east_m"], rows["utm_north_m"], rows["utm_zone"].iat[0]
    )
    np.testing.assert_allclose(back[0], latitude, rtol=0, atol=1e-9)
    np.testing.assert_allclose(back[1], longitude, rtol=0, atol=1e-7)


@pytest.mark.skipif(not TOWER.is_dir(), reason=f"no photographs at {TOWER}")
def test_photographs_of_a_building(tmp_path):
    """Frames of films in a tower, with the table that came with them."""
    table = pd.read_csv(TOWER / "metadata.csv")
    table["role"] = table["split"].map(
        {"gallery": "database", "query": "query"}
    )
    named = {"image": "path", "area": "place", "clip": "sequence"}
    table = table.drop(columns="split").rename(columns=named)
    (tmp_path / "images").symlink_to(TOWER / "images")
    table.to_csv(tmp_path / "tower.csv", index=False)
    found = readers.read(tmp_path, reader="csv_table")
    assert found.rejected == []
    assert len(found.manifest) == len(table)
    rows = found.manifest.set_index("image_id")
    for line in table.sample(50, random_state=0).itertuples():
        row = rows.loc[line.path]
        assert (row["place_id"], row["role"]) == (line.place, line.role)
        assert (row["sequence_id"], row["frame"]) == (line.sequence, line.frame)
    splits = found.manifest.groupby("place_id")["split"].nunique()
    assert splits.max() == 1
