"""locate on the command line, and by the process of --keep_warm."""

import json
import os
import subprocess
import sys

import pytest
import toy_photos
from absl import flags
from absl.testing import flagsaver
from paths import ROOT
from toy_located import answers_of

from sare_tf import locate
from sare_tf.pages.options import LocateOptions
from sare_tf.search import warm_client


def _command(inputs, *rest):
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "sare_tf.locate",
            *(f"--{name}={path}" for name, path in inputs.items()),
            *map(str, rest),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
        check=False,
    )


def test_command_line(inputs, photos):
    done = _command(inputs, "--k=2", *photos)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 10
    assert lines[0].startswith(f"{photos[0]}: wide margin to the nearest other")
    assert lines[1].startswith("      position 40.6")
    assert "@5002" in lines[2]
    assert "m north zone 17T  40.6" in lines[2]
    assert "openstreetmap" in lines[4]
    assert lines[5].startswith(str(photos[1]))
    assert "@5004" in lines[7]
    assert "not a probability" in done.stderr


def test_wrong_input_ends_in_its_message_and_exit_code(inputs, photos):
    done = _command(inputs, "--json", photos[0], "nothing.jpg", photos[1])
    assert done.returncode == 1
    assert "Received: nothing.jpg (no file of this name)" in done.stderr
    assert "Traceback" not in done.stderr
    # Nothing but objects, one a line.
    first, wrong, last = map(json.loads, done.stdout.splitlines())
    assert wrong == {
        "stage": "locate",
        "photo": "nothing.jpg",
        "error": "no file of this name",
        "next": None,
    }
    assert [len(some["matches"]) for some in (first, last)] == [5, 5]
    assert first["photo"] == str(photos[0])
    match = first["matches"][0]
    assert match["utm_zone"] == "17T"
    assert match["map_url"].startswith("https://www.openstreetmap.org/?mlat=")


def test_main_draws_a_picture_of_flags(
    inputs, photos, records, tmp_path, capsys
):
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(
        **{name: str(path) for name, path in inputs.items()},
        records=str(records),
        picture=str(tmp_path / "out.png"),
        k=2,
    ):
        locate.main(["locate", str(photos[0])])
        with (
            flagsaver.flagsaver(serve=True),
            pytest.raises(ValueError, match="no photographs with --serve"),
        ):
            locate.main(["locate", str(photos[0])])
    assert (tmp_path / "out.png").is_file()
    assert capsys.readouterr().out.count("@5002") == 2


@pytest.fixture
def started(monkeypatch):
    """The processes that --keep_warm starts, which end with the test."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    yield warm_client._STARTED
    while warm_client._STARTED:
        process = warm_client._STARTED.pop()
        process.kill()
        process.wait()


def test_a_warm_process_answers_as_this_one(
    inputs, photos, runtime_folder, started
):
    warm = {"k": 2, "keep_warm": True, "keep_warm_minutes": 1}
    first = answers_of(inputs, photos, **warm)
    (process,) = started
    assert (
        answers_of(inputs, photos, **warm)
        == first
        == answers_of(inputs, photos, k=2)
    )
    assert process.poll() is None
    assert len(started) == 1
    # The process has its own session: Ctrl-C does not reach it.
    assert os.getsid(process.pid) == process.pid
    (log,) = runtime_folder.glob("*.log")
    assert log.stat().st_mode & 0o777 == 0o600
    process.terminate()
    assert process.wait(20) == 0
    assert list(runtime_folder.glob("*.sock")) == []


def test_a_damaged_cache_is_made_anew_for_a_warm_process(
    inputs, tmp_path, runtime_folder, started, caplog
):
    folder = toy_photos.photographs(tmp_path / "photos")
    toy_photos.prepare(folder, tmp_path / "cache", export=inputs["export"])
    (index,) = (tmp_path / "cache").rglob("descriptors.npy")
    with index.open("r+b") as file:
        file.seek(200)
        file.write(b"\xff" * 40)
    options = LocateOptions(
        export=inputs["export"],
        photo_folder=folder,
        cache=tmp_path / "cache",
        photos=[folder / "1/0.jpg"],
        keep_warm=True,
    )
    ((_, answer),) = locate.run(options)
    assert answer.matches[0].image_id == "1/1.jpg"
    assert "made anew" in caplog.text


def test_what_a_warm_process_cannot_load_is_said(
    inputs, photos, runtime_folder, started
):
    with pytest.raises(ValueError, match="an index with a calibration for --r"):
        answers_of(inputs, photos, keep_warm=True, reject_below=0.5)
    assert started[0].wait(20) == 1
    missing = {**inputs, "export": inputs["export"] / "x"}
    with pytest.raises(FileNotFoundError, match="Expected an export"):
        answers_of(missing, photos, keep_warm=True)
