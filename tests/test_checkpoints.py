"""The folder of a run: what is kept, which epoch is the best."""

import keras
import numpy as np
import pytest

from sare_tf import checkpoints

CONFIG = {"rate": 0.1, "epochs": 5}
REMEMBERED = np.full((2, 3), -1)


def _open(folder, **changes):
    return checkpoints.Run(folder, CONFIG | changes, may_change=("epochs",))


@pytest.fixture(scope="module")
def network():
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])


def _finish(run, network, *recalls):
    """Ends an epoch per (recall@1, recall@5, recall@10), or None."""
    for recall in recalls:
        measured = {
            "epoch": len(run.history),
            "recall_at": recall and dict(zip((1, 5, 10), recall, strict=True)),
        }
        run.finish_epoch(measured, network=network, remembered=REMEMBERED)


@pytest.mark.parametrize(
    ("recalls", "best"),
    [
        ([(0.9, 0.5, 0.9), (0.1, 0.6, 0.6), (0.8, 0.5, 0.9)], 1),
        ([(0.2, 0.5, 0.9), (0.3, 0.5, 0.6), (0.2, 0.5, 0.7)], 1),
        ([(0.2, 0.5, 0.6), (0.2, 0.5, 0.7), (0.2, 0.5, 0.6)], 1),
        ([(0.2, 0.5, 0.6), (0.2, 0.5, 0.6)], 0),
        ([None, None, None], 2),
    ],
    ids=["recall@5", "then @1", "then @10", "first of equals", "without"],
)
def test_the_best_epoch(tmp_path, network, recalls, best):
    run = _open(tmp_path)
    _finish(run, network, *recalls)
    assert run.best == f"epoch-{best:04d}"
    assert run.epochs_since_best() == len(recalls) - 1 - best


def test_a_run_that_is_opened_again_chooses_as_before(tmp_path, network):
    """JSON turns the keys of recalls into strings."""
    _finish(_open(tmp_path), network, (0.2, 0.5, 0.6), (0.2, 0.7, 0.8))
    run = _open(tmp_path, epochs=9)
    assert (run.last, run.best) == ("epoch-0001", "epoch-0001")
    _finish(run, network, (0.2, 0.7, 0.8), (0.2, 0.6, 0.8))
    assert run.best == "epoch-0001"
    kept = {path.name for path in tmp_path.glob("epoch-*")}
    assert kept == {"epoch-0000", "epoch-0001", "epoch-0003"}
    found, remembered = run.load()
    np.testing.assert_array_equal(
        found.get_weights()[0], network.get_weights()[0]
    )
    np.testing.assert_array_equal(remembered, REMEMBERED)
    config, state = checkpoints.read_state(tmp_path)
    assert config == CONFIG
    assert len(state["history"]) == 4


def test_other_options_are_refused_once_there_is_an_epoch(tmp_path, network):
    run = _open(tmp_path, rate=0.3)
    (tmp_path / ".config.json.unfinished").touch()
    _finish(_open(tmp_path), network, None)
    assert run.history == []
    with pytest.raises(ValueError, match="rate: 0.1 there, 0.2 now. Choose"):
        _open(tmp_path, rate=0.2)


def test_a_folder_of_something_else(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="which holds other files"):
        _open(tmp_path)


def test_nothing_was_trained(tmp_path):
    with pytest.raises(FileNotFoundError, match="Run python -m sare_tf.train"):
        checkpoints.read_state(tmp_path)
    _open(tmp_path)
    with pytest.raises(FileNotFoundError, match="Expected state.json"):
        checkpoints.read_state(tmp_path)
