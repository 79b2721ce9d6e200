"""The dbStruct reader: files in the exact layout, and the official ones."""

import numpy as np
import pytest
import toy_manifest
from paths import SHARED
from scipy import io

from sare_tf.dataset import readers
from sare_tf.dataset.names import TRAIN_RULES
from sare_tf.dataset.positives import find_positives
from sare_tf.dataset.readers import netvlad_mat
from sare_tf.dataset.readers.collector import NoImages

SPECS = SHARED / "data" / "netvlad_specs"
official = pytest.mark.skipif(
    not SPECS.is_dir(), reason="the official files are not here"
)

TOKYO = "03814/381418.231_3946450.428/JHVdmPpMNQcjBfR7qsWEtA_012_330.jpg"
TIME_MACHINE = (
    "-2/-2T_5846xKuIeVvHFs88mQ/_201306/"
    "-2T_5846xKuIeVvHFs88mQ__201306_35.656129_139.685074_030_012.jpg"
)


def cells(names):
    column = np.empty((len(names), 1), object)
    column[:, 0] = names
    return column


def write(path, *, split="train", database, queries, times=None, **changes):
    """A dbStruct as MATLAB saves it, small integers in small types.

    `database` and `queries` are names with east and north.
    """

    def named(names, images, coordinates):
        places = np.array([place for _, *place in images], np.float64)
        return {
            names: cells([name for name, *_ in images]),
            coordinates: places.reshape(-1, 2).T,
        }

    structure = {"whichSet": split}
    structure |= named("dbImageFns", database, "utmDb")
    if times:
        structure["dbTimeStamp"] = np.array([times[0]], np.int32)
    structure |= named("qImageFns", queries, "utmQ")
    if times:
        structure["qTimeStamp"] = np.array([times[1]], np.int32)
    structure |= {
        "numImages": np.uint16(len(database)),
        "numQueries": np.uint8(len(queries)),
        "posDistThr": np.uint8(25),
        "posDistSqThr": np.uint16(625),
        "nonTrivPosDistSqThr": np.uint8(100),
    }
    structure |= changes
    structure = {k: v for k, v in structure.items() if v is not None}
    io.savemat(path, {"dbStruct": structure}, do_compression=True)
    return path


def pittsburgh(path, **changes):
    return write(
        path,
        database=[
            ("000/000829_pitch1_yaw1.jpg", 584_825.9611881467, 4_476_945.6107),
            ("000/000829_pitch2_yaw12.jpg", 584_825.9611881467, 4_476_945.6107),
        ],
        queries=[("000/000829_pitch1_yaw1.jpg", 584_744.97, 4_477_141.51)],
        **changes,
    )


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_pittsburgh(tmp_path):
    pittsburgh(tmp_path / "pitts30k_train.mat")
    pittsburgh(tmp_path / "pitts30k_val.mat", split="val")
    touch(
        tmp_path,
        "images/000/000829_pitch1_yaw1.jpg",
        "queries/000/000829_pitch1_yaw1.jpg",
    )
    with pytest.raises(ValueError, match="2 of them more than once"):
        # Both splits list the same images.
        readers.read(tmp_path, reader="netvlad_mat")
    (tmp_path / "pitts30k_val.mat").unlink()
    reading = readers.read(tmp_path, reader="netvlad_mat")
    columns = ["image_id", "split", "role", "panorama_id", "utm_east_m"]
    assert reading.manifest[columns].to_numpy().tolist() == [
        [
            "images/000/000829_pitch1_yaw1.jpg",
            "train",
            "database",
            "000829",
            584_825.9611881467,
        ],
        [
            "queries/000/000829_pitch1_yaw1.jpg",
            "train",
            "query",
            "000829",
            584_744.97,
        ],
    ]
    assert reading.rejected == [
        (
            "images/000/000829_pitch2_yaw12.jpg",
            "named in pitts30k_train.mat, but no such file",
        )
    ]
    for image_id in reading.manifest["image_id"]:
        assert (reading.root / image_id).is_file()


def test_tokyo_names_end_in_jpg_but_are_png_on_disk(tmp_path):
    write(
        tmp_path / "tokyo247.mat",
        split="test",
        database=[(TOKYO, 381_418.23, 3_946_450.43)],
        # 10, 11 and 12 leave 1, 2 and 0 when divided by 3.
        queries=[(f"000{n}.jpg", 382_284.8, 3_946_636.6) for n in (10, 11, 12)],
    )
    touch(tmp_path, "images/" + TOKYO.replace(".jpg", ".png"))
    touch(tmp_path, *(f"queries/000{n}.jpg" for n in (10, 11, 12)))
    rows = readers.read(tmp_path, reader="netvlad_mat").manifest
    database = rows[rows["role"] == "database"].iloc[0]
    assert database["image_id"] == "images/" + TOKYO.replace(".jpg", ".png")
    assert database["panorama_id"] == "JHVdmPpMNQcjBfR7qsWEtA"
    assert database["heading_deg"] == 330.0
    queries = rows[rows["role"] == "query"]
    assert queries["condition"].tolist() == ["day", "sunset", "night"]


def test_time_machine_has_time_stamps_and_links_its_queries(tmp_path):
    write(
        tmp_path / "tokyoTM_train.mat",
        database=[(TIME_MACHINE, 380_973.1, 3_946_605.4)],
        queries=[(TIME_MACHINE, 380_973.1, 3_946_605.4)],
        times=([201306], [201306]),
    )
    touch(tmp_path, "images/" + TIME_MACHINE)
    with pytest.raises(FileNotFoundError, match="link queries to images"):
        readers.read(tmp_path, reader="netvlad_mat")
    (tmp_path / "queries").symlink_to("images")
    rows = readers.read(tmp_path, reader="netvlad_mat").manifest
    columns = ["timestamp", "panorama_id", "place_id", "heading_deg"]
    spot = "-2T_5846xKuIeVvHFs88mQ"
    assert rows[columns].to_numpy().tolist() == [
        ["201306", f"{spot}_201306", spot, 30.0],
        ["201306", f"{spot}_201306", spot, 30.0],
    ]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"split": "all"}, "whichSet is 'all', not one of train, val, test"),
        ({"utmQ": None}, "no field utmQ"),
        ({"numImages": np.uint16(3)}, "numImages is 3, but there are 2 names"),
        ({"utmDb": np.zeros((2, 1))}, "2 database images, but coordinates of"),
        ({"utmDb": np.full((2, 2), np.nan)}, "or some not finite"),
        ({"dbImageFns": cells(["/a.jpg", "b.jpg"])}, "'/a.jpg' leads out"),
        ({"dbImageFns": cells(["a.jpg", "../b.jpg"])}, "'../b.jpg' leads out"),
    ],
)
def test_files_that_contradict_themselves(tmp_path, changes, reason):
    path = pittsburgh(tmp_path / "x.mat", **changes)
    with pytest.raises(ValueError, match="NetVLAD's dbStruct") as raised:
        netvlad_mat.parse(path)
    assert reason in str(raised.value)


def test_files_of_something_else(tmp_path):
    path = tmp_path / "x.mat"
    write(path, database=[], queries=[])
    with pytest.raises(ValueError, match="no image"):
        netvlad_mat.parse(path)
    io.savemat(path, {"clsts": np.zeros((2, 2))})
    with pytest.raises(ValueError, match="no variable dbStruct"):
        netvlad_mat.parse(path)
    io.savemat(path, {"dbStruct": np.zeros((2, 2))})
    with pytest.raises(ValueError, match="no field whichSet"):
        netvlad_mat.parse(path)
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + bytes(900))
    with pytest.raises(ValueError, match="save it again as -v7"):
        netvlad_mat.parse(path)
    whole = pittsburgh(tmp_path / "whole.mat").read_bytes()
    for length in (0, 100, 200, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="Expected a .mat file"):
            netvlad_mat.parse(path)


def test_folders_that_do_not_fit(tmp_path):
    pittsburgh(tmp_path / "a.mat")
    (tmp_path / "images").mkdir()
    with pytest.raises(FileNotFoundError, match="without queries/"):
        readers.read(tmp_path, reader="netvlad_mat")
    (tmp_path / "queries").mkdir()
    with pytest.raises(ValueError, match="with none of 3 listed, such as im"):
        readers.read(tmp_path, reader="netvlad_mat")
    pittsburgh(tmp_path / "b.mat")
    with pytest.raises(ValueError, match="a.mat and b.mat, both of the split"):
        readers.read(tmp_path, reader="netvlad_mat")


# Database, queries; then queries with a positive within 25 m, within 10 m
# (OpenIBL), and by NetVLAD's rule. The last three were counted from the files
# with the rules of the MATLAB code; 7,320 is also in OpenIBL's published log.
COUNTS = {
    "pitts30k_train": (10000, 7416, 7416, 7320, 7128),
    "pitts30k_val": (10000, 7608, 7608, 7248, 7224),
    "pitts30k_test": (10000, 6816, 6816, 6432, 6312),
    "pitts250k_train": (91464, 7824, 7824, 7800, 7608),
    "pitts250k_val": (78648, 7608, 7608, 7248, 7224),
    "pitts250k_test": (83952, 8280, 8280, 8184, 8040),
    "tokyoTM_train": (49104, 7277, 7277, 7277, 7277),
    "tokyoTM_val": (49056, 7186, 7186, 7186, 7186),
    "tokyo247": (75984, 315, 315, 315, 315),
}


@official
@pytest.mark.parametrize("name", list(COUNTS))
def test_counts_of_the_official_files(name):
    rows = toy_manifest.make(netvlad_mat.parse(SPECS / f"{name}.mat"))
    database = rows[rows["role"] == "database"]
    queries = rows[rows["role"] == "query"]
    found = [len(database), len(queries)]
    for radius_m, rule in ((25.0, "openibl"), (10.0, "openibl")):
        positives = find_positives(
            queries, database, radius_m=radius_m, **TRAIN_RULES[rule]
        )
        found.append(sum(len(some) > 0 for some in positives))
    positives = find_positives(
        queries, database, radius_m=10.0, **TRAIN_RULES["netvlad"]
    )
    found.append(sum(len(some) > 0 for some in positives))
    assert tuple(found) == COUNTS[name]
    if name == "pitts30k_train":
        # By the MATLAB code its first query has 48 potential positives.
        assert len(positives[0]) == 48
    if name == "tokyo247":
        # 12 cut-outs of each panorama; two panoramas may share a folder.
        sizes = database.groupby("panorama_id").size()
        assert (len(sizes), set(sizes)) == (6332, {12})
        assert queries["condition"].value_counts().to_dict() == {
            "day": 105,
            "sunset": 105,
            "night": 105,
        }


def test_a_list_without_images(tmp_path):
    pittsburgh(tmp_path / "pitts30k_train.mat")
    with pytest.raises(FileNotFoundError, match="without images/"):
        readers.read(tmp_path, reader="netvlad_mat")
    found = readers.read(tmp_path, reader="netvlad_mat", list_only=True)
    assert len(found.manifest) == 3
    assert found.rejected == []
    for folder in ("images", "queries"):
        (tmp_path / folder).mkdir()
    with pytest.raises(NoImages, match="none of 3 listed"):
        readers.read(tmp_path, reader="netvlad_mat")
