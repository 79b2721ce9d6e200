import json

import pytest
from toy_folders import column, touch

from sare_tf.dataset import readers

META = {
    "name": "demo",
    "identities": [
        ["demo/query/1_1.jpg", "demo/query/1_2.jpg"],
        ["demo/db/1_1.jpg"],
        ["demo/db/2_1.jpg"],
    ],
    "utm": [
        [585089.3603214071, 4477427.575588894],
        [585085.8930572948, 4477435.629250713],
        [585000, 4477000],
    ],
}
SPLITS = {
    "q_train": [0],
    "db_train": [1],
    "q_val": [],
    "db_val": [2],
    "q_test": [],
    "db_test": [],
}


def make(root, *, meta=META, splits=SPLITS, scale=""):
    touch(root / "raw", *(name for some in META["identities"] for name in some))
    (root / f"meta{scale}.json").write_text(json.dumps(meta))
    (root / f"splits{scale}.json").write_text(json.dumps(splits))
    return root


@pytest.mark.parametrize("scale", ["", "_30k"])
def test_identities(tmp_path, scale):
    found = readers.read(make(tmp_path, scale=scale), reader="openibl")
    columns = ["image_id", "split", "role", "utm_east_m", "place_id"]
    first = 585089.3603214071
    assert found.manifest[columns].to_numpy().tolist() == [
        ["demo/query/1_1.jpg", "train", "query", first, ""],
        ["demo/query/1_2.jpg", "train", "query", first, ""],
        ["demo/db/1_1.jpg", "train", "database", 585085.8930572948, ""],
        ["demo/db/2_1.jpg", "val", "database", 585000.0, ""],
    ]
    assert (found.root / "demo/db/2_1.jpg").is_file()


def test_an_identity_in_two_splits(tmp_path):
    root = make(tmp_path, splits=SPLITS | {"db_test": [2]})
    found = readers.read(root, reader="openibl")
    assert column(found, "split")["demo/db/2_1.jpg"] == "val"
    assert found.rejected == [("demo/db/2_1.jpg", "named more than once")]


def test_two_scales(tmp_path):
    make(make(tmp_path, scale="_30k"), scale="_250k")
    with pytest.raises(ValueError, match=r"meta_250k\.json, meta_30k\.json"):
        readers.read(tmp_path, reader="openibl")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"meta": META | {"utm": META["utm"][:2]}},
            "3 identities, 2 positions",
        ),
        ({"meta": {"name": "demo"}}, "KeyError.'identities'"),
        ({"splits": SPLITS | {"q_test": [3]}}, "no identity 3"),
        ({"splits": SPLITS | {"q_test": [-1]}}, "no identity -1"),
        ({"splits": SPLITS | {"q_test": ["x"]}}, "TypeError"),
        ({"splits": []}, "TypeError"),
    ],
)
def test_files_at_odds(tmp_path, changes, message):
    with pytest.raises(ValueError, match=f"{message}.*Get the files again"):
        readers.read(make(tmp_path, **changes), reader="openibl")


def test_an_absent_file(tmp_path):
    (make(tmp_path) / "splits.json").unlink()
    with pytest.raises(ValueError, match="No such file"):
        readers.read(tmp_path, reader="openibl")


def test_positions_and_paths_that_are_refused(tmp_path):
    meta = META | {
        "identities": [
            ["/etc/a.jpg", "demo/query/1_2.jpg"],
            ["demo/db/1_1.jpg"],
            [],
        ],
        "utm": [[float("nan"), 1], [1, 2], [3, 4]],
    }
    found = readers.read(make(tmp_path, meta=meta), reader="openibl")
    assert list(column(found, "role")) == ["demo/db/1_1.jpg"]
    assert found.rejected == [
        ("/etc/a.jpg", "not a path relative to the dataset"),
        ("demo/query/1_2.jpg", "east and north are no numbers"),
    ]
