import numpy as np
import pytest
from toy_folders import column, touch

from sare_tf.dataset import readers
from sare_tf.dataset.positives import find_positives

# The columns as they lie on disk, which is not the order of the README.
TABLES = {
    "raw": ",key,lon,lat,ca,captured_at,pano",
    "postprocessed": ",key,easting,northing,unique_cluster,control_panel,"
    "night,view_direction",
    "seq_info": ",key,sequence_key,frame_number",
    "subtask_index": ",key,all,s2w,w2s,o2n,n2o,d2n,n2d",
}
# Copenhagen; the metres are those of zone 33, as in the dataset.
LINES = {
    "query": {
        "raw": [
            "a,12.56834,55.67612,271.5,2018-05-12,False",
            "b,12.56834,55.67612,90.0,2018-05-12,True",
            "c,12.57,55.67612,90.0,2018-01-12,False",
        ],
        "postprocessed": [
            "a,347000.5,6173000.25,1,False,True,Forward",
            "b,347001.5,6173000.25,1,False,False,Forward",
            "c,349000.5,6173000.25,2,False,False,Sideways",
        ],
        # In another order than the others.
        "seq_info": ["c,S2,1", "b,S1,8", "a,S1,7"],
        "subtask_index": [
            "a,True,False,False,False,False,False,True",
            "b,True,True,True,True,True,True,True",
            "c,False,False,False,False,False,False,False",
        ],
    },
    "database": {
        "raw": ["d,12.5684,55.67612,270,2017-07-01,False"],
        "postprocessed": ["d,347010.5,6173000.25,1,False,False,Forward"],
        "seq_info": ["d,S3,3"],
        "subtask_index": ["d,True,False,False,False,False,False,True"],
    },
}


def city(root, name, *, part="train_val", lines=LINES, prefix=""):
    for role, tables in lines.items():
        folder = root / part / name / role
        for table, rows in tables.items():
            if part == "test" and table in ("raw", "postprocessed"):
                continue
            folder.mkdir(parents=True, exist_ok=True)
            numbered = [f"{n},{prefix}{row}" for n, row in enumerate(rows)]
            (folder / f"{table}.csv").write_text(
                "\n".join([TABLES[table], *numbered]) + "\n"
            )
        keys = [prefix + row.split(",")[0] for row in tables["seq_info"]]
        touch(folder / "images", *(f"{key}.jpg" for key in keys))
    return root


def test_a_city(tmp_path):
    found = readers.read(city(tmp_path, "cph"), reader="msls")
    table = found.manifest.set_index("image_id")
    first = table.loc["train_val/cph/query/images/a.jpg"].to_dict()
    assert first == {
        "split": "val",
        "role": "query",
        "place_id": "",
        "utm_east_m": 347000.5,
        "utm_north_m": 6173000.25,
        "utm_zone": "33U",
        "heading_deg": 271.5,
        "timestamp": "2018-05-12",
        "panorama_id": "",
        "sequence_id": "S1",
        "frame": 7,
        "condition": "night_forward",
        "subtasks": "all n2d",
        "width": -1,
        "height": -1,
    }
    last = table.loc["train_val/cph/query/images/c.jpg"]
    assert last[["subtasks", "condition", "sequence_id"]].tolist() == [
        "",
        "day_sideways",
        "S2",
    ]
    assert found.rejected == [("train_val/cph/query/images/b.jpg", "panorama")]


def test_a_query_without_a_positive_stays(tmp_path):
    table = readers.read(city(tmp_path, "cph"), reader="msls").manifest
    queries = table[table["role"] == "query"]
    found = find_positives(queries, table[table["role"] == "database"])
    assert [len(some) for some in found] == [0, 1]


def test_splits_by_city(tmp_path):
    city(tmp_path, "sf")
    city(tmp_path, "trondheim", prefix="t")
    city(tmp_path, "miami", part="test", prefix="m")
    touch(tmp_path, "train_val/.DS_Store", "train_val/readme.txt")
    found = readers.read(tmp_path, reader="msls")
    table = found.manifest
    splits = table.groupby(table["image_id"].str.split("/").str[1])["split"]
    assert splits.unique().map(list).to_dict() == {
        "sf": ["val"],
        "trondheim": ["train"],
        "miami": ["test"],
    }
    test = table[table["split"] == "test"]
    # Nothing says that b is a panorama here.
    assert len(test) == 4
    assert np.isnan(test["utm_east_m"]).all()
    assert set(test["utm_zone"]) == {""}
    assert test["frame"].tolist() == [3, 1, 8, 7]
    assert test["subtasks"].tolist()[0] == "all n2d"


def test_files_and_lines_that_do_not_meet(tmp_path):
    images = city(tmp_path, "cph") / "train_val/cph/query/images"
    (images / "c.jpg").unlink()
    touch(images, "e.jpg", "a.txt")
    found = readers.read(tmp_path, reader="msls")
    top = "train_val/cph/query/images"
    assert found.rejected == [
        (f"{top}/a.txt", "not one of .jpg, .jpeg, .png"),
        (f"{top}/c.jpg", "named in the tables, but no such file"),
        (f"{top}/b.jpg", "panorama"),
        (f"{top}/e.jpg", "not in the tables"),
    ]
    assert len(column(found, "role")) == 2


def test_an_older_header_of_sequences(tmp_path):
    folder = city(tmp_path, "cph") / "train_val/cph/database"
    (folder / "seq_info.csv").write_text(
        ",key,sequence_id,frame_number\n0,d,S3,3\n"
    )
    found = readers.read(tmp_path, reader="msls")
    assert (
        column(found, "sequence_id")["train_val/cph/database/images/d.jpg"]
        == "S3"
    )


def test_a_table_that_is_absent(tmp_path):
    folder = city(tmp_path, "cph") / "train_val/cph/query"
    (folder / "raw.csv").unlink()
    with pytest.raises(ValueError, match=r"query/raw\.csv' .*No such file"):
        readers.read(tmp_path, reader="msls")
