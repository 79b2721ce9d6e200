"""A run that is killed while it saves ends as one that never was.

A real process and SIGKILL, which no program can take notice of. Other moments
are tested in `test_train`, without a process of their own: there nothing is
being written.
"""

import shutil
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


@pytest.mark.own_process
def test_a_run_killed_while_saving_ends_as_if_undisturbed(
    toy_records, toy_run, tmp_path
):
    killed = shutil.copytree(toy_run.after[0], tmp_path / "killed")
    process = subprocess.run(
        [sys.executable, ROOT / "tests/killed_training.py"]
        + [toy_records, killed],
        check=False,
        timeout=300,
    )
    assert process.returncode == -signal.SIGKILL
    assert read_state(killed)[1]["last"] == "epoch-0000"
    # It was in the middle of saving, and had written events of epoch 1.
    assert (killed / ".epoch-0001.unfinished" / "model.keras").exists()
    assert max(step for step, _, _ in events(killed)) == 4
    train.run(
        TrainingOptions(
            records=toy_records, checkpoints=killed, **toy_training.OPTIONS
        )
    )
    assert not (killed / ".epoch-0001.unfinished").exists()
    assert_same_run(killed, toy_run.finished)
    points = [(tag, step) for step, tag, _ in events(killed)]
    assert len(points) == len(set(points))
