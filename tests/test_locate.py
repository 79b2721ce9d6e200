"""Looking up photographs, in the program and on the command line."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import toy_search

from sare_tf import index, locate


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    root = tmp_path_factory.mktemp("toy")
    records = toy_search.records(root)
    export = toy_search.export(root / "export")
    index.run(records=records, export=export, out=root / "index")
    return {"index": root / "index", "export": export}


@pytest.fixture
def photos(tmp_path):
    paths = [tmp_path / "two.jpg", tmp_path / "four.jpg"]
    for path, place in zip(paths, (2, 4), strict=True):
        path.write_bytes(toy_search.jpeg(place, 99))
    return paths


@pytest.mark.parametrize("exact", [True, False])
def test_finds_the_places_that_the_photographs_show(inputs, photos, exact):
    results = locate.run(**inputs, photos=photos, k=3, exact=exact)
    for result, place in zip(results, (2, 4), strict=True):
        # All 3 images of the place, 100 m from the next, 2 m apart.
        east = 500_000 + 100 * place
        assert sorted(result["utm_east_m"]) == [east, east + 2, east + 4]
        assert (np.diff(result["squared_distance"]) >= 0).all()
        assert result["squared_distance"].between(0, 0.5).all()
        assert result.columns[0] == "squared_distance"


def test_bad_input(inputs, photos, tmp_path):
    with pytest.raises(ValueError, match="at least one photograph"):
        locate.run(**inputs, photos=[])
    with pytest.raises(FileNotFoundError, match="no file at .*nothing.jpg"):
        locate.run(**inputs, photos=[*photos, tmp_path / "nothing.jpg"])
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(ValueError, match="decoded. Received: .*text.jpg"):
        locate.run(**inputs, photos=[*photos, tmp_path / "text.jpg"])
    with pytest.raises(ValueError, match="18 images of the index.*k=19"):
        locate.run(**inputs, photos=photos, k=19)
    other = toy_search.export(tmp_path / "other", length=1.00001)
    with pytest.raises(ValueError, match="Expected the export that built"):
        locate.run(index=inputs["index"], export=other, photos=photos)


def test_description_leaves_out_what_is_unknown(inputs, photos):
    result = locate.run(**inputs, photos=photos[:1], k=2)[0]
    result["squared_distance"] = [0.25, 0.5]
    result["image_id"] = ["a.jpg", "b.jpg"]
    result["utm_east_m"] = [500_200.0, np.nan]
    result["place_id"] = ["", "lift"]
    assert locate.describe(result) == (
        "   1  0.2500  a.jpg  "
        "500200.0 m east, 4500000.0 m north zone 17T\n"
        "   2  0.5000  b.jpg  place lift\n"
    )


def test_command_line(inputs, photos):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "sare_tf.locate",
            f"--index={inputs['index']}",
            f"--export={inputs['export']}",
            "--k=2",
            *map(str, photos),
        ],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 6
    assert lines[0].startswith(str(photos[0]))
    assert "@5002" in lines[1]
    assert "m north zone 17T" in lines[1]
    assert lines[3].startswith(str(photos[1]))
    assert "@5004" in lines[4]


def test_wrong_input_ends_in_its_message(inputs):
    command = [sys.executable, "-m", "sare_tf.locate", "nothing.jpg"]
    command += [f"--{name}={path}" for name, path in inputs.items()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no file at nothing.jpg" in done.stderr
    assert "Traceback" not in done.stderr
