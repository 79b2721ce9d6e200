"""Trains on tiny records and is killed by SIGKILL at a chosen moment.

    python tests/killed_training.py RECORDS CHECKPOINTS MOMENT

`test_killed_training` runs it. The moments: "mining", between two blocks of
distances of epoch 1; "training", in the second batch of epoch 1's last round;
"saving", when model.keras of epoch 1 is written and its folder not yet whole.
"""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
import toy_training

from sare_tf import train
from sare_tf.training import datasets, hard_negatives
from sare_tf.training.options import TrainingOptions


def kill(*_) -> np.int64:
    os.kill(os.getpid(), signal.SIGKILL)
    return np.int64(0)


def kill_while_mining() -> None:
    hard_negatives._nearest_of = kill


def kill_while_training() -> None:
    make, made = datasets.tuple_dataset, []

    def dataset(*args, **options):
        made.append(make(*args, **options))
        if len(made) < 2:
            return made[-1]

        def in_the_second(step, batch):
            tf.cond(
                step == 1,
                lambda: tf.py_function(kill, [], tf.int64),
                lambda: tf.constant(0, tf.int64),
            )
            return batch

        return made[-1].enumerate().map(in_the_second)

    datasets.tuple_dataset = dataset


def kill_while_saving() -> None:
    write_bytes = Path.write_bytes

    def write(path, content):
        if path.parent.name == ".epoch-0001.unfinished":
            kill()
        return write_bytes(path, content)

    Path.write_bytes = write


if __name__ == "__main__":
    records, checkpoints, moment = sys.argv[1:]
    {
        "mining": kill_while_mining,
        "training": kill_while_training,
        "saving": kill_while_saving,
    }[moment]()
    train.run(
        TrainingOptions(
            records=records, checkpoints=checkpoints, **toy_training.OPTIONS
        )
    )
