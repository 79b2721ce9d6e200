"""The folder of a run: what is kept, which epoch is the best."""

import resource
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import toy_damage

from sare_tf.training import run_folder

CONFIG = {"rate": 0.1, "epochs": 5}
REMEMBERED = np.full((2, 3), -1)


def _open(folder, **changes):
    return run_folder.RunFolder(
        folder, CONFIG | changes, may_change=("epochs",)
    )


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


def test_a_tie_is_broken_by_the_loss_but_patience_ends(tmp_path, network):
    """Validation is perfect before training: what was trained is kept."""
    run = _open(tmp_path)
    losses = [None, 2.0, 1.0, 1.5]
    for epoch, loss in enumerate(losses):
        run.finish_epoch(
            {
                "epoch": epoch,
                "recall_at": {1: 1.0, 5: 1.0},
                "mean_reciprocal_rank": 1.0,
                **({"loss": loss} if loss else {}),
            },
            network=network,
            remembered=REMEMBERED,
        )
        assert run.epochs_since_best() == epoch
    assert run.best == "epoch-0002"


def test_a_run_of_an_earlier_version_is_resumed(tmp_path, network):
    """Its epochs have no reciprocal rank; the best one stays so."""
    _finish(_open(tmp_path), network, (0.2, 0.5, 0.6), (0.3, 0.7, 0.8))
    run = _open(tmp_path)
    measured = {"epoch": 2, "recall_at": {1: 0.2, 5: 0.7, 10: 0.9}}
    measured |= {"mean_reciprocal_rank": 0.5, "loss": 1.0}
    run.finish_epoch(measured, network=network, remembered=REMEMBERED)
    assert run.best == "epoch-0001"
    measured |= {"epoch": 3, "recall_at": {1: 0.3, 5: 0.7, 10: 0.8}}
    run.finish_epoch(measured, network=network, remembered=REMEMBERED)
    assert run.best == "epoch-0003"


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
    config, state = run_folder.read_state(tmp_path)
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
        run_folder.read_state(tmp_path)
    _open(tmp_path)
    with pytest.raises(FileNotFoundError, match="Expected state.json"):
        run_folder.read_state(tmp_path)


def test_epochs_without_the_state_of_their_run(tmp_path, network):
    """A kill leaves no more than the first one, and the run starts over."""
    run = _open(tmp_path)
    _finish(run, network, (0.2, 0.5, 0.6))
    (tmp_path / "state.json").unlink()
    run = _open(tmp_path)
    assert run.last is None
    _finish(run, network, (0.2, 0.5, 0.6), (0.3, 0.5, 0.6))
    (tmp_path / "state.json").unlink()
    with pytest.raises(ValueError, match="beside epoch-0001.*Copy the folder"):
        _open(tmp_path)


def test_the_disk_must_hold_what_is_kept(tmp_path, network, monkeypatch):
    """Three epochs and a new one of 10 MiB each; two are there already."""
    usage = shutil.disk_usage(tmp_path)
    size = 10 * 2**20

    def free(mebibytes):
        found = usage._replace(free=mebibytes * 2**20)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: found)

    run = _open(tmp_path)
    free(40)
    run.check_space(size)
    free(39)
    with pytest.raises(ValueError, match="40 MiB of free .* with 39 MiB free"):
        run.check_space(size)
    _finish(run, network, None, None)
    free(20)
    run.check_space(size)
    free(19)
    with pytest.raises(ValueError, match="20 MiB of free .* with 19 MiB free"):
        run.check_space(size)


def test_a_folder_that_cannot_be_made_or_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="a folder that can be written to"):
        _open(tmp_path / "file" / "run")

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(ValueError, match="written to.*Permission denied"):
        _open(tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize("limit", [2000, 8000, 20_000])
def test_a_disk_that_fills_while_saving_leaves_the_last_epoch(
    tmp_path, network, limit
):
    """A limit on the size of files makes writes fail in the middle."""
    run = _open(tmp_path)
    _finish(run, network, (0.2, 0.5, 0.6))
    _, before = run_folder.read_state(tmp_path)
    saved = (tmp_path / "epoch-0000" / "model.keras").stat().st_size
    assert saved < 20_000
    remembered = np.zeros(limit // 8, np.int64)  # with its header too large
    measured = {"epoch": 1, "recall_at": {1: 0.3, 5: 0.6, 10: 0.7}}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(OSError, match="save epoch-0001.*0000 is untouched"):
            run.finish_epoch(measured, network=network, remembered=remembered)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "state.json",
        "epoch-0000",
    }
    assert run_folder.read_state(tmp_path)[1] == before
    assert (run.last, run.best) == ("epoch-0000", "epoch-0000")
    _open(tmp_path).load()
    run.finish_epoch(measured, network=network, remembered=remembered)
    assert _open(tmp_path).best == "epoch-0001"


def test_a_damaged_checkpoint_is_said_to_be_one(tmp_path, network):
    run = _open(tmp_path)
    _finish(run, network, (0.2, 0.5, 0.6))
    path = tmp_path / "epoch-0000" / "model.keras"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="a checkpoint that can be read"):
        run.load()


def test_flipped_bits_are_noticed_by_the_file(tmp_path, network):
    run = _open(tmp_path)
    _finish(run, network, (0.2, 0.5, 0.6), (0.1, 0.4, 0.6))
    again = "run python -m sare_tf.train --flagfile=... again"
    best = "take the best epoch, epoch-0000, as it is"
    for name in ("remembered.npy", "model.keras"):
        path = tmp_path / "epoch-0001" / name
        whole = path.read_bytes()
        toy_damage.flip(path, len(whole) // 2)
        message = f"epoch-0001/{name}: not as written.*{again}, or {best}"
        with pytest.raises(ValueError, match=message):
            _open(tmp_path).load()
        path.write_bytes(whole)
    _open(tmp_path).load()
    toy_damage.flip(tmp_path / "epoch-0000" / "model.keras", 1000)
    message = f"epoch-0000/model.keras: not as written.*{again}"
    with pytest.raises(ValueError, match=message):
        run_folder.load_embedder(tmp_path)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("state.json", '"best": "epoch-0000"', '"best": "epoch-0001"'),
        ("state.json", '"sha256"', '"sha255"'),
        ("config.json", '"rate": 0.1', '"rate": 0.2'),
        ("config.json", '"epochs": 5', '"epochs": 6'),
    ],
)
def test_changed_settings_are_noticed(tmp_path, network, name, old, new):
    _finish(_open(tmp_path), network, (0.2, 0.5, 0.6))
    path = tmp_path / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=f"{name}.*Delete the.*train.*again"):
        run_folder.read_state(tmp_path)


def test_digests_of_epochs_that_are_kept(tmp_path, network):
    run = _open(tmp_path)
    _finish(run, network, (0.2, 0.5, 0.6), (0.1, 0.4, 0.6), (0.1, 0.3, 0.6))
    digests = run_folder.read_state(tmp_path)[1]["digests"]
    files = {
        path.relative_to(tmp_path).as_posix()
        for path in tmp_path.rglob("*")
        if path.is_file() and path.name != "state.json"
    }
    assert digests.keys() == files


def test_a_run_without_digests_is_resumed(tmp_path, network):
    """As an earlier version left it."""
    _finish(_open(tmp_path), network, (0.2, 0.5, 0.6))
    toy_damage.forget_digests(tmp_path / "state.json")
    run = _open(tmp_path)
    run.load()
    _finish(run, network, (0.1, 0.5, 0.6))
    digests = run_folder.read_state(tmp_path)[1]["digests"]
    assert "epoch-0001/model.keras" in digests
    assert "epoch-0000/model.keras" not in digests


def test_a_damaged_import_names_its_command(tmp_path, network):
    out = tmp_path / "imported"
    run_folder.write_untrained(out, {"imported": {}}, network=network)
    toy_damage.flip(out / "epoch-0000" / "model.keras", 1000)
    with pytest.raises(ValueError, match="run python -m sare_tf.import_we"):
        run_folder.load_embedder(out)


def test_the_summary_of_a_run(tmp_path, network):
    """Two epochs of 90 s: 3 minutes. The first is the best."""
    run = _open(tmp_path)
    _finish(run, network, (0.25, 0.5, 0.6))
    for epoch, recall in ((1, 0.75), (2, 0.625)):
        run.finish_epoch(
            {"epoch": epoch, "epoch_s": 90.0, "recall_at": {5: recall}},
            network=network,
            remembered=REMEMBERED,
        )
    assert run.summary().splitlines() == [
        "2 epochs, 3.0 minutes of training",
        "  before training  epoch-0000  val recall@1 0.250, val recall@5 0.500,"
        " val recall@10 0.600",
        "  best             epoch-0001  val recall@5 0.750",
        f"  checkpoints      {tmp_path}",
        f"  curves           tensorboard --logdir {tmp_path / 'tensorboard'}",
    ]
