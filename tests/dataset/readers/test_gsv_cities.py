import numpy as np
import pytest
from toy_folders import column, touch

from sare_tf.dataset import readers
from sare_tf.dataset.positives import find_positives
from sare_tf.dataset.readers.collector import NoImages

HEADER = "place_id,year,month,northdeg,city_id,lat,lon,panoid\n"
# Two cities that number their places alike, 23 zones apart.
LONDON = HEADER + (
    "1,2019,5,15,London,51.5007292,-0.0246254,aB_c-D_1\n"
    "1,2015,11,584,London,51.5007301,-0.0246,0012345\n"
    "2,2019,5,0,London,51.51,0.02,NaN\n"
    "2,2018,5,0,London,51.51,0.02000001,zz\n"
    "3,2018,5,0,London,51.52,0.02000001,gone\n"
)
TOKYO = HEADER + (
    "1,2019,5,15,Tokyo,35.6585,139.7454,t1\n"
    "1,2018,5,15,Tokyo,35.6585001,139.7454,t2\n"
)
IMAGES = (
    "London/London_0000001_2019_05_015_51.5007292_-0.0246254_aB_c-D_1.jpg",
    # Printed by another program, and in capitals.
    "London/London_0000001_2015_11_584_51.50073010_-0.024600_0012345.JPG",
    "London/London_0000002_2019_05_000_51.51_0.02_NaN.jpg",
    "London/London_0000002_2018_05_000_51.51_0.02000001_zz.jpg",
    "Tokyo/Tokyo_0000001_2019_05_015_35.6585_139.7454_t1.jpg",
    "Tokyo/Tokyo_0000001_2018_05_015_35.6585001_139.7454_t2.jpg",
)


@pytest.fixture
def root(tmp_path):
    touch(tmp_path, *(f"Images/{name}" for name in IMAGES))
    (tmp_path / "Dataframes").mkdir()
    (tmp_path / "Dataframes" / "London.csv").write_text(LONDON)
    (tmp_path / "Dataframes" / "Tokyo.csv").write_text(TOKYO)
    return tmp_path


def read(root, **options):
    return readers.read(root, reader="gsv_cities", **options)


def test_images_of_two_cities(root):
    found = read(root, split_fractions=(1, 0, 0))
    assert column(found, "place_id") == dict(
        zip(
            IMAGES,
            ["London_0000001"] * 2
            + ["London_0000002"] * 2
            + ["Tokyo_0000001"] * 2,
            strict=True,
        )
    )
    first = found.manifest.set_index("image_id").loc[IMAGES[0]]
    assert first["panorama_id"] == "aB_c-D_1"
    assert first["timestamp"] == "2019-05"
    assert column(found, "heading_deg")[IMAGES[1]] == 224.0  # 584 - 360.
    assert column(found, "panorama_id")[IMAGES[2]] == "NaN"
    assert found.rejected == [
        ("London/3_2018_5_0_gone", "named in London.csv, but no such file")
    ]


def test_cities_are_never_compared(root):
    table = read(root, split_fractions=(1, 0, 0)).manifest
    # London lies on the border of zones 30 and 31, and gets one.
    assert table.groupby(table["image_id"].str[:3])["utm_zone"].unique().map(
        list
    ).to_dict() == {"Lon": ["30U"], "Tok": ["54S"]}
    queries = table[table["role"] == "query"]
    database = table[table["role"] == "database"]
    found = find_positives(queries, database, radius_m=1e9)
    for place, rows in zip(queries["place_id"], found, strict=True):
        cities = database["place_id"].to_numpy()[rows]
        assert {name[:3] for name in cities} == {place[:3]}


def test_splits_and_roles_by_place(root):
    table = read(root, seed=1).manifest
    assert table.groupby("place_id")["split"].nunique().tolist() == [1, 1, 1]
    assert table.groupby("place_id")["role"].nunique().tolist() == [2, 2, 2]
    assert set(table["split"]) == {"train", "val", "test"}
    assert np.isfinite(table["utm_east_m"]).all()


def test_the_folder_may_have_the_name_of_the_city(root):
    (root / "Dataframes" / "Paris.csv").write_text(
        HEADER + "7,2019,5,15,PRS,48.85,2.35,x\n7,2018,5,15,PRS,48.85,2.35,y\n"
    )
    names = [
        f"Paris/PRS_0000007_20{n}_05_015_48.85_2.35_{p}.jpg"
        for n, p in ((19, "x"), (18, "y"))
    ]
    touch(root / "Images", *names)
    assert column(read(root), "place_id")[names[0]] == "PRS_0000007"


def test_lines_and_files_that_are_refused(root):
    with (root / "Dataframes" / "Tokyo.csv").open("a") as file:
        file.write("one,2019,5,15,Tokyo,35.6,139.7,t3\n")
        file.write("1,2019,5,15,Tokyo,35.6585,139.7454,t1\n")
    touch(root / "Images", "Tokyo/thumbs.db", "Tokyo/Tokyo_0000001.jpg")
    found = read(root)
    assert set(found.rejected[1:]) == {
        ("Tokyo/thumbs.db", "not one of .jpg, .jpeg, .png"),
        ("Tokyo/Tokyo_0000001.jpg", "not a name of GSV-Cities"),
        ("Tokyo/t3", "no numbers in Tokyo.csv"),
        (IMAGES[4], "named more than once"),
    }


def test_a_table_that_lacks_columns(root):
    (root / "Dataframes" / "Tokyo.csv").write_text("place_id,lat\n1,2\n")
    with pytest.raises(ValueError, match=r"Tokyo\.csv' without .'year'"):
        read(root)


@pytest.mark.parametrize("city", ["../../elsewhere", "..", "{root}", ""])
def test_a_table_cannot_name_another_folder(tmp_path, city):
    city = city.format(root=tmp_path / "elsewhere")
    name = "x_0000001_2019_05_015_51.5_0.1_secret.jpg"
    root = touch(
        tmp_path, f"elsewhere/{name}", f"set/{name}", f"set/Images/{name}"
    )
    (root / "set/Dataframes").mkdir()
    (root / "set/Dataframes/Oslo.csv").write_text(
        HEADER + f"1,2019,5,15,{city},51.5,0.1,secret\n"
    )
    with pytest.raises(NoImages, match="but no such file"):
        readers.read(root / "set", reader="gsv_cities")
