import numpy as np
import pytest
from toy_folders import column, touch

from sare_tf.dataset import readers

INDEX = ["./summer/images-00202.png", "./summer/images-00203.png"]
QUERY = ["./winter/images-00202.png"]


def make(root, *, index=INDEX, query=QUERY, **arrays):
    touch(root, *INDEX, *QUERY)
    (root / "nordland_imageNames_index.txt").write_text("\n".join(index) + "\n")
    (root / "nordland_imageNames_query.txt").write_text("\n".join(query) + "\n")
    truth = {
        "utmDb": np.array([[0.0, 0.0], [1.0, 1.0]]),
        "utmQ": np.array([[0.0, 0.0]]),
        "posDistThr": 10,
    }
    np.savez(root / "nordland.npz", **truth | arrays)
    return root


def test_frames_of_nordland(tmp_path, caplog):
    found = readers.read(make(tmp_path), reader="patch_netvlad")
    assert column(found, "frame") == {
        "summer/images-00202.png": 0,
        "summer/images-00203.png": 1,
        "winter/images-00202.png": 0,
    }
    assert column(found, "utm_north_m")["summer/images-00203.png"] == 1.0
    assert column(found, "role")["winter/images-00202.png"] == "query"


def test_the_radius_is_told(tmp_path, caplog):
    with caplog.at_level("INFO"):
        readers.read(make(tmp_path), reader="patch_netvlad")
    assert "--positive_radius_m=10" in caplog.text


def test_metres(tmp_path):
    root = make(tmp_path, utmDb=np.array([[584958.25, 4477051.0], [1.0, 2.0]]))
    found = readers.read(root, reader="patch_netvlad")
    assert column(found, "utm_east_m")["summer/images-00202.png"] == 584958.25
    assert column(found, "frame")["summer/images-00203.png"] == -1


def test_absent_images_shift_nothing(tmp_path):
    root = make(tmp_path, index=["./summer/gone.png", INDEX[1]])
    found = readers.read(root, reader="patch_netvlad")
    assert column(found, "frame")["summer/images-00203.png"] == 1
    assert found.rejected == [
        ("./summer/gone.png", "named in the list, but no such file")
    ]


def test_another_number_of_coordinates(tmp_path):
    root = make(tmp_path, index=INDEX[:1])
    with pytest.raises(ValueError, match=r"\[1, 2\].*utmDb \[2, 2\]"):
        readers.read(root, reader="patch_netvlad")


def test_a_ground_truth_that_cannot_be_read(tmp_path):
    root = make(tmp_path, utmQ=np.array([[0, print]], object))
    with pytest.raises(ValueError, match="Expected arrays utmDb, utmQ"):
        readers.read(root, reader="patch_netvlad")
    (root / "nordland.npz").write_bytes(b"no zip")
    with pytest.raises(ValueError, match="Expected arrays utmDb, utmQ"):
        readers.read(root, reader="patch_netvlad")


def test_a_list_that_is_absent(tmp_path):
    (make(tmp_path) / "nordland_imageNames_query.txt").unlink()
    with pytest.raises(ValueError, match="one file .*_imageNames_query.txt"):
        readers.read(tmp_path, reader="patch_netvlad")
