"""The folder of a training run: start or resume, write an epoch, tidy up.

    config.json      the options of the run, and the records it trains on
    state.json       names the last and the best epoch; measured values of all
    epoch-NNNN/      model.keras with the optimizer's state, remembered.npy
    tensorboard/     curves

An epoch's folder is written under another name and renamed, and `state.json`
after it: a kill leaves the run after its last whole epoch. Kept are the first
epoch, which is the network before training, the last and the best.
"""

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from sare_tf import files

COMMAND = "python -m sare_tf.train --flagfile=..."


class Run:
    """A run that is started, or goes on after its last whole epoch.

    Attributes:
        folder: of the run.
        history: measured values of each epoch from 0: dicts with `epoch` and
            `recall_at`, a mapping from N to recall@N, or None.
        last: name of the last epoch's folder; None before the first.
        best: name of the best epoch's folder, by recall@5 as the original code
            chooses, then @1, then @10; the first of equals. Without recalls
            the last.
    """

    def __init__(
        self,
        folder: str | Path,
        config: Mapping[str, Any],
        *,
        may_change: Collection[str],
        writes: bool = True,
    ):
        """Opens the folder, or makes it.

        Args:
            folder: of the run.
            config: the options of the run, as JSON holds them.
            may_change: names of options with which a run may go on.
            writes: whether this process makes and writes the folder; of several
                workers, one does.

        Raises:
            ValueError: a run with other options, or a folder of other files.
        """
        self.folder = Path(folder)
        state = {"last": None, "best": None, "history": []}
        if (self.folder / "state.json").is_file():
            found, state = read_state(self.folder)
            _check_same(self.folder, found, config, may_change)
        elif writes:
            _start(self.folder, config)
        self._writes = writes
        self.last, self.best = state["last"], state["best"]
        self.history = state["history"]

    def load(self) -> tuple[keras.Model, np.ndarray]:
        """The network and the remembered negatives of the last epoch."""
        folder = self.folder / self.last
        return (
            keras.models.load_model(folder / "model.keras"),
            np.load(folder / "remembered.npy"),
        )

    def finish_epoch(
        self,
        measured: dict[str, Any],
        *,
        network: keras.Model,
        remembered: np.ndarray,
    ) -> None:
        """Saves the epoch, then the state that names it, then tidies up."""
        name = f"epoch-{measured['epoch']:04d}"
        if self._writes:
            with files.folder_in_one_piece(self.folder / name) as folder:
                network.save(folder / "model.keras")
                np.save(folder / "remembered.npy", remembered)
        self.history.append(measured)
        self.last = name
        if measured is max(self.history, key=_score):  # the first of equals
            self.best = name
        if self._writes:
            self._write_state()

    def _write_state(self) -> None:
        files.write_json(
            self.folder / "state.json",
            {"last": self.last, "best": self.best, "history": self.history},
        )
        kept = {"epoch-0000", self.last, self.best}
        for folder in self.folder.glob("epoch-*"):
            if folder.name not in kept:
                shutil.rmtree(folder)

    def epochs_since_best(self) -> int:
        """Epochs after the best one."""
        best = int(self.best.removeprefix("epoch-"))
        return len(self.history) - 1 - best


def read_state(folder: str | Path) -> tuple[dict, dict]:
    """Reads the options and the state of a run.

    Returns:
        The options with the records' fingerprint, and the state: `last` and
        `best` name folders of epochs, `history` has one entry per epoch.

    Raises:
        FileNotFoundError: nothing was trained there.
    """
    folder = Path(folder)
    return (
        files.read_json(folder / "config.json", made_by=COMMAND),
        files.read_json(folder / "state.json", made_by=COMMAND),
    )


def _start(folder: Path, config: Mapping[str, Any]) -> None:
    """Makes the folder of a run; one without an epoch starts over."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "config.json").is_file() and any(
        # A kill may have left a hidden file.
        not path.name.startswith(".")
        for path in folder.iterdir()
    ):
        raise ValueError(
            "Expected an empty or new folder for checkpoints. Received: "
            f"checkpoints={str(folder)!r}, which holds other files. "
            "Choose another --checkpoints."
        )
    files.write_json(folder / "config.json", dict(config))


def _check_same(
    folder: Path,
    found: Mapping[str, Any],
    config: Mapping[str, Any],
    may_change: Collection[str],
) -> None:
    differences = [
        f"{name}: {found.get(name)!r} there, {value!r} now"
        for name, value in config.items()
        if name not in may_change and found.get(name) != value
    ]
    if differences:
        raise ValueError(
            "Expected the options this run was started with. Received: "
            f"checkpoints={str(folder)!r} with "
            + "; ".join(differences)
            + ". Choose another --checkpoints, or delete that folder."
        )


def _score(measured: Mapping[str, Any]) -> tuple[float, ...]:
    recall = measured["recall_at"]
    if recall is None:
        return (float(measured["epoch"]),)
    # JSON has turned the keys of earlier epochs into strings.
    return tuple(recall.get(k, recall.get(str(k), 0.0)) for k in (5, 1, 10))
