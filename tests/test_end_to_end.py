"""All stages in a row, as commands, on a toy city; and the README's example."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from paths import ROOT

from sare_tf import demo
from sare_tf.records.records import Records

SETTINGS = [
    f"--flagfile={ROOT / 'configs' / 'demo.flags'}",
    "--places=16",
    "--image_height=48",
    "--image_width=64",
    "--num_clusters=4",
    "--places_per_batch=4",
    "--recall_at=1,5,10,20",
    "--epochs=2",
]


def run(module: str, folder: Path, *arguments: str):
    return subprocess.run(
        [sys.executable, "-m", f"sare_tf.{module}", *SETTINGS, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    done = run("demo", folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_the_demo_writes_its_summary_and_says_where_all_is(made):
    folder, told = made
    summary = json.loads((folder / "runs/demo/summary.json").read_text())
    assert list(summary) == ["pixels", "untrained", "trained"]
    for values in summary.values():
        recall = values["recall_at"]
        # 2 test places hold 8 database images.
        assert list(recall) == ["1", "5"]
        assert 0 <= recall["1"] <= recall["5"] <= 1
    for name in ("pixels", "untrained", "trained"):
        assert re.search(rf"^{name} +\d\.\d\d\d", told, re.MULTILINE)
    named = re.findall(r"runs/demo/[\w./]+\w", told)
    assert len(named) >= 5
    for path in named:
        assert (folder / path).exists(), path


def test_each_stage_left_its_files(made):
    runs = made[0] / "runs" / "demo"
    for name in (
        "city/city.json",
        "records/records.json",
        "records/manifest.parquet",
        "records/rejected.csv",
        "checkpoints/state.json",
        "export/1/saved_model.pb",
        "index/index.json",
        "evaluation/metrics.json",
        "evaluation/report.html",
    ):
        assert (runs / name).is_file(), name
    state = json.loads((runs / "checkpoints/state.json").read_text())
    assert [entry["epoch"] for entry in state["history"]] == [0, 1, 2]
    assert list((runs / "checkpoints/tensorboard").glob("events*"))
    metrics = json.loads((runs / "evaluation/metrics.json").read_text())
    summary = json.loads((runs / "summary.json").read_text())
    assert metrics["recall_at"] == summary["trained"]["recall_at"]


def test_the_next_command_it_names_works(made):
    folder, told = made
    (line,) = [line for line in told.splitlines() if "sare_tf.locate" in line]
    photo = line.split()[-1]
    assert (folder / photo).is_file()
    done = run("locate", folder, "--k=3", photo)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("m north") == 3


def test_a_second_run_repeats_no_epoch(made):
    folder, _ = made
    last = folder / "runs/demo/checkpoints/epoch-0002/model.keras"
    before = last.stat().st_mtime_ns
    done = run("train", folder)
    assert done.returncode == 0, done.stderr
    assert last.stat().st_mtime_ns == before


def test_pixels_find_a_copy(made):
    records = Records(made[0] / "runs/demo/records")
    rows = records.rows("test", "database")
    descriptors = demo.pixel_descriptors(records, rows)
    assert descriptors.shape == (len(rows), 32 * 24 * 3)
    np.testing.assert_allclose(
        np.linalg.norm(descriptors, axis=1), 1.0, atol=1e-5
    )
    similarity = descriptors @ descriptors.T
    assert (similarity.argmax(1) == np.arange(len(rows))).all()
    np.testing.assert_allclose(descriptors.mean(1), 0.0, atol=1e-6)


def test_the_python_example_of_the_readme_runs(capsys):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["descriptors"].shape == (8, 1536)
    np.testing.assert_allclose(
        np.linalg.norm(names["descriptors"], axis=1), 1.0, atol=1e-5
    )
