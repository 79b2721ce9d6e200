"""A run that is killed again and again ends as one that never was.

Real processes and SIGKILL, which no program can take notice of.
"""

import signal
import subprocess
import sys

import pytest
import toy_training
from finished_runs import assert_same_run, events
from paths import ROOT

from sare_tf import train
from sare_tf.training.options import TrainingOptions
from sare_tf.training.run_folder import read_state

HERE = ROOT / "tests"


@pytest.mark.own_process
def test_a_run_killed_at_three_moments_ends_as_if_undisturbed(tmp_path):
    records = toy_training.records(tmp_path)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for moment in ("mining", "training", "saving"):
        process = subprocess.run(
            [sys.executable, HERE / "killed_training.py"]
            + [records, killed, moment],
            check=False,
            timeout=300,
        )
        assert process.returncode == -signal.SIGKILL
        assert read_state(killed)[1]["last"] == "epoch-0000"
    # It was in the middle of saving, and had written events of epoch 1.
    assert (killed / ".epoch-0001.unfinished" / "model.keras").exists()
    assert max(step for step, _, _ in events(killed)) == 4
    for checkpoints in (killed, whole):
        train.run(
            TrainingOptions(
                records=records, checkpoints=checkpoints, **toy_training.OPTIONS
            )
        )
    assert not (killed / ".epoch-0001.unfinished").exists()
    assert_same_run(killed, whole)
    points = [(tag, step) for step, tag, _ in events(killed)]
    assert len(points) == len(set(points))
