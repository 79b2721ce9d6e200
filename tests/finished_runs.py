"""What a training run left, read again, and whether two left the same."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tensorboard.backend.event_processing import event_file_loader

from sare_tf.training.run_folder import read_state


def weights(checkpoints, name="last"):
    """Of the network and of its optimizer."""
    _, state = read_state(checkpoints)
    model = keras.models.load_model(checkpoints / state[name] / "model.keras")
    variables = [*model.weights, *model.optimizer.variables]
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def comparable(checkpoints):
    """The history without what takes time."""
    history = read_state(checkpoints)[1]["history"]
    return [
        {key: value for key, value in entry.items() if not key.endswith("_s")}
        for entry in history
    ]


def events(checkpoints):
    """What TensorBoard reads, in its order: step, tag, value."""
    paths = Path(checkpoints).glob("tensorboard/events.out.tfevents.*")
    found = []
    for path in sorted(paths, key=_when_written):
        for event in event_file_loader.EventFileLoader(str(path)).Load():
            found += [
                (event.step, value.tag, tf.make_ndarray(value.tensor))
                for value in event.summary.value
            ]
    return found


def _when_written(path):
    """The second, and among the files of a second their number."""
    _, _, _, second, *_, number = path.name.partition(".epoch-")[0].split(".")
    return int(second), int(number)


def assert_same_run(one, other):
    """Bitwise the same, but for what takes time."""
    assert comparable(one) == comparable(other)
    for a, b in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(events(one), events(other), strict=True):
        assert a[:2] == b[:2]
        if not a[1].endswith("_s"):
            np.testing.assert_array_equal(a[2], b[2])
