import json
import pickle

import pytest
from toy_search import jpeg

from sare_tf import build_records, export_dataset
from sare_tf.dataset import readers
from sare_tf.dataset.positives import find_positives
from sare_tf.records import records
from sare_tf.records.options import ExportDatasetOptions, RecordOptions

NAMES = {
    "train/database": (
        "@500000.123456789@4000000@30@S@@@p7@@271@@@@2019@day@",
    ),
    "train/queries": ("@500003.5@4000000@30@S@@@@@@@@@@@",),
    "test/database": (
        "@500025.000000001@4000000@30@S@@@@@@@@@@@",
        "@500025@4000000@30@S@@@@@@@@@@@",
    ),
    "test/queries": ("@500000@4000000@30@S@@@@@@@@@@@",),
}


@pytest.fixture
def located(tmp_path):
    number = 0
    for folder, names in NAMES.items():
        path = tmp_path / "photos/images" / folder
        path.mkdir(parents=True)
        for name in names:
            (path / f"{name}.jpg").write_bytes(jpeg(number, 0))
            number += 1
    return build_records.run(
        RecordOptions(dataset=tmp_path / "photos", records=tmp_path / "records")
    )


def export(found, layout):
    out = export_dataset.run(
        ExportDatasetOptions(
            records=found, out=found.parent / layout, layout=layout
        )
    )
    assert not list(found.parent.glob(".*"))
    return out


def positives(table, split):
    """Bytes do not matter here: pairs of positions, by name of the split."""
    part = table[table["split"] == split]
    queries = part[part["role"] == "query"]
    return [
        len(rows)
        for rows in find_positives(queries, part[part["role"] == "database"])
    ]


@pytest.mark.parametrize("layout", ["at_names", "openibl"])
def test_read_back_it_is_the_same(located, layout):
    """Half a metre of rounding, or a nanometre, would show at 25 m."""
    before = records.Records(located)
    reading = readers.read(export(located, layout), reader=layout)
    assert reading.rejected == []
    columns = ["split", "role", "utm_east_m", "utm_north_m"]

    def contents(table, encoded):
        return sorted(
            (*row, image)
            for row, image in zip(
                table[columns].itertuples(index=False, name=None),
                encoded,
                strict=True,
            )
        )

    after = [
        (reading.root / name).read_bytes()
        for name in reading.manifest["image_id"]
    ]
    assert contents(reading.manifest, after) == contents(
        before.manifest, before.read_images(before.manifest)
    )
    assert positives(reading.manifest, "test") == [1]
    assert positives(reading.manifest, "train") == [1]


def test_what_else_at_names_tell(located):
    table = readers.read(
        export(located, "at_names"), reader="at_names"
    ).manifest
    row = table[table["panorama_id"] == "p7"].iloc[0]
    assert row[
        ["heading_deg", "timestamp", "condition", "utm_zone"]
    ].tolist() == [
        271.0,
        "2019",
        "day",
        "30S",
    ]


def test_images_of_one_position_are_one_identity(located):
    meta = json.loads((export(located, "openibl") / "meta.json").read_text())
    assert sorted(map(len, meta["identities"])) == [1] * 5


def test_lists_for_hloc(located):
    out = export(located, "hloc")
    before = records.Records(located)
    assert sorted(path.name for path in out.glob("*.txt")) == [
        "test_database.txt",
        "test_queries.txt",
        "train_database.txt",
        "train_queries.txt",
    ]
    lines = (out / "test_database.txt").read_text().splitlines()
    rows = before.rows("test", "database")
    assert lines == rows["image_id"].tolist()
    for line, encoded in zip(lines, before.read_images(rows), strict=True):
        assert (out / "images" / line).read_bytes() == encoded


@pytest.fixture
def places(tmp_path):
    for role in ("database", "queries"):
        for number, place in enumerate("abc"):
            path = tmp_path / "photos/test" / role / place
            path.mkdir(parents=True)
            (path / "0.jpg").write_bytes(jpeg(number, role == "queries"))
    return build_records.run(
        RecordOptions(
            dataset=tmp_path / "photos",
            records=tmp_path / "records",
            reader="place_folders",
        )
    )


@pytest.mark.parametrize("layout", ["at_names", "openibl"])
def test_places_are_put_apart(places, layout):
    table = readers.read(export(places, layout), reader=layout).manifest
    assert sorted(table["utm_north_m"]) == [0, 0, 1000, 1000, 2000, 2000]
    assert positives(table, "test") == [1, 1, 1]


def cut(root):
    (root / "photos/jpg").mkdir(parents=True)
    for number, name in enumerate("ab"):
        (root / f"photos/jpg/{name}.jpg").write_bytes(jpeg(number, 0))
    gnd = [{"bbx": [0, 0, 9, 9], "easy": [0]}]
    truth = {"imlist": ["a"], "qimlist": ["b"], "gnd": gnd}
    (root / "photos/gnd_toy.pkl").write_bytes(pickle.dumps(truth))
    return build_records.run(
        RecordOptions(
            dataset=root / "photos",
            records=root / "records",
            reader="revisited",
        )
    )


def test_parts_of_images_are_files(tmp_path):
    out = export(cut(tmp_path), "hloc")
    [line] = (out / "test_queries.txt").read_text().splitlines()
    assert line == "jpg/b.jpg_xywh=0,0,9,9.png"
    assert (out / "images" / line).read_bytes()[1:4] == b"PNG"


@pytest.mark.parametrize("layout", ["at_names", "openibl"])
def test_a_list_cannot_be_told(tmp_path, layout):
    found = cut(tmp_path)
    with pytest.raises(ValueError, match="Received: 2 images, not all with"):
        export(found, layout)
    assert not (tmp_path / layout).exists()


def test_zones_cannot_be_told(tmp_path):
    path = tmp_path / "photos/test/database"
    path.mkdir(parents=True)
    for name in ("@500003@4000003@30@S@", "@500004@4000003@54@S@"):
        (path / f"{name}.jpg").write_bytes(jpeg(1, 0))
    found = build_records.run(
        RecordOptions(dataset=tmp_path / "photos", records=tmp_path / "records")
    )
    with pytest.raises(ValueError, match=r"\['30 north', '54 north'\]. Use"):
        export(found, "openibl")
    table = readers.read(export(found, "at_names"), reader="at_names").manifest
    assert table["utm_zone"].tolist() == ["30S", "54S"]


def test_wrong_arguments(located):
    with pytest.raises(ValueError, match="layout='kapture'"):
        export(located, "kapture")
    with pytest.raises(ValueError, match="which exists. Choose another --out"):
        export_dataset.run(
            ExportDatasetOptions(records=located, out=located, layout="hloc")
        )
