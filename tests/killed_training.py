"""Resumes a run on tiny records, and is killed by SIGKILL in the middle.

    python tests/killed_training.py RECORDS CHECKPOINTS

`test_killed_training` runs it. The moment is when model.keras of epoch 1 is
written, and the epoch's folder is not yet whole.
"""

import os
import signal
import sys
from pathlib import Path

import toy_training

from sare_tf import train
from sare_tf.training.options import TrainingOptions


def kill_while_saving() -> None:
    write_bytes = Path.write_bytes

    def write(path, content):
        if path.parent.name == ".epoch-0001.unfinished":
            os.kill(os.getpid(), signal.SIGKILL)
        return write_bytes(path, content)

    Path.write_bytes = write


if __name__ == "__main__":
    records, checkpoints = sys.argv[1:]
    kill_while_saving()
    train.run(
        TrainingOptions(
            records=records, checkpoints=checkpoints, **toy_training.OPTIONS
        )
    )
