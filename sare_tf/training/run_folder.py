"""The folder of a training run: start or resume, write an epoch, tidy up.

    config.json      the options of the run, and the records it trains on
    state.json       names the last and the best epoch; measured values of all;
                     digests of config.json and of the files of kept epochs
    epoch-NNNN/      model.keras with the optimizer's state, remembered.npy;
                     tuples.parquet, the mined tuples in order, if there are any
    tensorboard/     curves and pictures, see `tensorboard`
    bad_images.json  images left out because they cannot be read, if any

An epoch's folder is written under another name and renamed, and `state.json`
is written after it: a kill leaves the run after its last whole epoch. The first
epoch, which is the network before training, the last and the best are kept.

What reads a run compares its files with their digests, and state.json with its
own. Runs of earlier versions have none.
"""

import io
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from sare_tf.dataset import tuple_lists
from sare_tf.losses import keras_modules
from sare_tf.model import (
    augmentation,
    backbones,
    embedder,
    heads,
    netvlad,
    pooling,
    vit,
    whitening,
)
from sare_tf.model.embedder import in_float32
from sare_tf.runtime import atomic_files, file_digests, sealed_json
from sare_tf.runtime.disk_space import free_bytes
from sare_tf.training import (
    epoch_choice,
    fine_tuning_optimizers,
    optimizers,
    place_network,
    run_start,
)

# Keras finds the classes that a checkpoint names once they are imported.
_REGISTERED = (
    *keras_modules.MODULES,
    *(augmentation, backbones, embedder, netvlad, pooling, vit),
    *(whitening, *heads.MODULES),
    *(optimizers, fine_tuning_optimizers, place_network),
)

_FIRST = "epoch-0000"
# The first, the last and the best.
KEPT_EPOCHS = 3
COMMAND = "python -m sare_tf.train --flagfile=..."
_IMPORT_COMMAND = "python -m sare_tf.import_weights"


class RunFolder:
    """A run that is started, or resumed after its last whole epoch.

    Args:
        folder: folder of the run; made if it is not there.
        config: options of the run, as JSON holds them.
        may_change: names of options that a resumed run may have other values
            of.
        defaults: values of options that a run was started without, because
            they are newer than the run.
        writes: whether this process writes the folder; of several workers, one
            does.

    Attributes:
        path: folder of the run.
        history: measured values of each epoch from 0: dicts with `epoch` and
            `recall_at`, a mapping from N to recall@N, or None.
        last: name of the last epoch's folder; None before the first.
        best: name of the best epoch's folder, see `epoch_choice`; the first of
            equals.

    Raises:
        ValueError: a run with other options, a folder of other files, or one
            that cannot be written to.
    """

    def __init__(
        self,
        folder: str | Path,
        config: Mapping[str, Any],
        *,
        may_change: Collection[str],
        defaults: Mapping[str, Any] | None = None,
        writes: bool = True,
    ):
        self.path = Path(folder)
        state = {"last": None, "best": None, "history": []}
        if (self.path / "state.json").is_file():
            started_with, state = read_state(self.path)
            started_with = {**(defaults or {}), **started_with}
            run_start.check_same(self.path, started_with, config, may_change)
        elif writes:
            run_start.start(self.path, config)
        if writes:
            run_start.check_writable(self.path)
        self._writes = writes
        self.last, self.best = state["last"], state["best"]
        self.history = state["history"]
        self._digests = state.get("digests", {})

    def load(self) -> tuple[keras.Model, np.ndarray]:
        """Loads the network and the remembered negatives of the last epoch.

        Raises:
            ValueError: they are damaged or missing.
        """
        folder = self.path / self.last
        try:
            _check_files(self.path, self._digests, f"{self.last}/")
            return (
                keras.models.load_model(folder / "model.keras"),
                np.load(folder / "remembered.npy"),
            )
        except (EOFError, KeyError, OSError, TypeError, ValueError) as error:
            best = ""
            if self.best != self.last:
                best = f", or take the best epoch, {self.best}, as it is"
            raise ValueError(
                "Expected a checkpoint that can be read. Received: "
                f"{str(folder)!r} ({error}). Delete the folder of the run and "
                f"run {COMMAND} again{best}."
            ) from error

    def finish_epoch(
        self,
        measured: dict[str, Any],
        *,
        network: keras.Model,
        remembered: np.ndarray,
        mined: pd.DataFrame | None = None,
    ) -> None:
        """Saves an epoch, then the state that names it, then tidies up.

        Args:
            measured: measured values, with `epoch` and `recall_at`.
            network: network to save.
            remembered: remembered negatives to save.
            mined: tuples to save; None for none.

        Raises:
            OSError: a file cannot be written; the run stays as it was.
        """
        name = f"epoch-{measured['epoch']:04d}"
        history = [*self.history, measured]
        best = name if self.would_be_best(measured) else self.best
        if not self._writes:
            self.last, self.best, self.history = name, best, history
            return
        try:
            with atomic_files.folder_in_one_piece(self.path / name) as folder:
                network.save(folder / "model.keras")
                # np.save to a file does not notice that a disk is full.
                whole = io.BytesIO()
                np.save(whole, remembered)
                (folder / "remembered.npy").write_bytes(whole.getvalue())
                if mined is not None:
                    tuple_lists.write(mined, folder / "tuples.parquet")
                written = _digests_of_epoch(folder, name)
            digests = {
                path: digest
                for path, digest in self._digests.items()
                if Path(path).parent.name in (_FIRST, best)
            }
            digests |= file_digests.of(self.path, ["config.json"]) | written
            _write_state(self.path, name, best, history, digests)
        except OSError as error:
            raise OSError(
                f"Expected to save {name}. Received: {error}, in "
                f"checkpoints={str(self.path)!r}. "
                + (f"{self.last} is untouched. " if self.last else "")
                + "Make room, and run the same command again: it resumes there."
            ) from error
        self.last, self.best, self.history = name, best, history
        self._digests = digests
        kept = {_FIRST, self.last, self.best}
        for folder in self.path.glob("epoch-*"):
            if folder.name not in kept:
                shutil.rmtree(folder)

    def would_be_best(self, measured: dict[str, Any]) -> bool:
        """Returns whether an epoch with these values becomes the best."""
        # max gives the first of equals.
        return measured is max(
            [*self.history, measured], key=epoch_choice.score
        )

    def check_space(self, checkpoint_bytes: int) -> None:
        """Refuses to begin a run that the disk cannot hold.

        Args:
            checkpoint_bytes: approximate size of one epoch's folder.

        Raises:
            ValueError: no room for the epochs that are kept and a new one.
        """
        present = len(list(self.path.glob("epoch-*")))
        needed = max(1, KEPT_EPOCHS + 1 - present) * checkpoint_bytes
        free = free_bytes(self.path)
        if free < needed:
            raise ValueError(
                f"Expected {needed / 2**20:.0f} MiB of free space for "
                f"checkpoints. Received: checkpoints={str(self.path)!r}, "
                f"with {free / 2**20:.0f} MiB free. Make room, or choose "
                "another --checkpoints."
            )

    def summary(self) -> str:
        """Describes the result of the run and its files, in lines."""
        minutes = sum(entry.get("epoch_s", 0.0) for entry in self.history) / 60
        lines = [
            f"{len(self.history) - 1} epochs, {minutes:.1f} minutes of training"
        ]
        for title, name in (
            ("before training", _FIRST),
            ("best", self.best),
        ):
            entry = self.history[int(name.removeprefix("epoch-"))]
            values = [
                f"val recall@{k} {value:.3f}"
                for k, value in (entry["recall_at"] or {}).items()
            ]
            lines.append(f"  {title:<16} {name}  {', '.join(values)}")
        lines.append(f"  {'checkpoints':<16} {self.path}")
        lines.append(
            f"  {'curves':<16} tensorboard --logdir {self.path / 'tensorboard'}"
        )
        return "\n".join(lines)

    def epochs_since_best(self) -> int:
        """Counts the epochs after the first with the best validation.

        The loss of training does not count here: it may sink for long after
        validation has stopped to improve.
        """
        scores = [
            epoch_choice.score(measured)[:-1] for measured in self.history
        ]
        return len(scores) - 1 - scores.index(max(scores))


def write_untrained(
    folder: str | Path,
    config: Mapping[str, Any],
    *,
    network: keras.Model,
    measured: Mapping[str, Any] | None = None,
) -> None:
    """Writes the folder of a run that has only epoch 0, in one piece.

    Args:
        folder: folder of the run; replaced.
        config: options of the run, as JSON holds them.
        network: network over tuples, or an embedder.
        measured: measured values of validation; None for none.
    """
    with atomic_files.folder_in_one_piece(folder) as unfinished:
        (unfinished / _FIRST).mkdir()
        network.save(unfinished / _FIRST / "model.keras")
        atomic_files.write_json(unfinished / "config.json", dict(config))
        digests = file_digests.of(unfinished, ["config.json"])
        digests |= _digests_of_epoch(unfinished / _FIRST, _FIRST)
        history = [{"epoch": 0, "recall_at": None, **(measured or {})}]
        _write_state(unfinished, _FIRST, _FIRST, history, digests)


def _digests_of_epoch(folder: Path, name: str) -> dict[str, str]:
    """Returns path in the run -> SHA-256 of the files of an epoch's folder."""
    names = sorted(path.name for path in folder.iterdir())
    return {
        f"{name}/{file}": digest
        for file, digest in file_digests.of(folder, names).items()
    }


def _write_state(
    folder: Path,
    last: str,
    best: str,
    history: list[dict[str, Any]],
    digests: Mapping[str, str],
) -> None:
    sealed_json.write(
        folder / "state.json",
        {"last": last, "best": best, "history": history, "digests": digests},
    )


def _check_files(folder: Path, digests: Mapping[str, str], prefix: str) -> None:
    """Compares the files whose names begin so with their digests."""
    file_digests.check(
        folder,
        {
            name: digest
            for name, digest in digests.items()
            if name.startswith(prefix)
        },
    )


def _command(config: Any) -> str:
    """Returns the command that made a run."""
    is_import = isinstance(config, dict) and "imported" in config
    return _IMPORT_COMMAND if is_import else COMMAND


def read_state(folder: str | Path) -> tuple[dict, dict]:
    """Reads the options and the state of a run.

    Returns:
        The options with the records' fingerprint, and the state: `last` and
        `best` name folders of epochs, `history` has one entry per epoch.

    Raises:
        FileNotFoundError: nothing was trained there.
        ValueError: a file is not as it was written.
    """
    folder = Path(folder)
    config = atomic_files.read_json(folder / "config.json", made_by=COMMAND)
    command = _command(config)
    state = sealed_json.read(
        folder / "state.json",
        made_by=command,
        types={"last": str, "best": str, "history": list},
    )
    digests = state.get("digests", {})
    try:
        sealed_json.check_types(config, {})
        _check_files(folder, digests, "config.json")
    except ValueError as error:
        raise ValueError(
            "Expected the options that a run was started with. Received: "
            f"path={str(folder / 'config.json')!r} ({error}). Delete the "
            f"folder and run {command} again."
        ) from error
    return config, state


def load_embedder(path: str | Path, *, epoch: str | None = None) -> keras.Model:
    """Loads a trained embedder, without the loss and optimizer.

    Args:
        path: folder of a training run or of an import; or a .keras file of
            this package, such as `epoch-0012/model.keras` in it.
        epoch: name of the epoch's folder, such as "epoch-0012"; the best one by
            default.

    Returns:
        A model named "embedder": [B, H, W, 3] -> float32 [B, D].

    Raises:
        FileNotFoundError: no such file, run or epoch; names the epochs that
            were kept.
        ValueError: a file that holds no such network.
    """
    path, run, command = Path(path), None, COMMAND
    if path.suffix != ".keras":
        run, (config, state) = path, read_state(path)
        command = _command(config)
        epoch, digests = epoch or state["best"], state.get("digests", {})
        kept = sorted(folder.name for folder in run.glob("epoch-*"))
        path = run / epoch / "model.keras"
        if not path.is_file():
            raise FileNotFoundError(
                f"Expected one of the epochs {kept}. Received: epoch={epoch!r}."
            )
    try:
        if run:
            _check_files(run, digests, f"{epoch}/{path.name}")
        network = keras.models.load_model(path, compile=False)
    except Exception as error:  # A damaged file raises errors of any kind.
        raise ValueError(
            "Expected a checkpoint that can be read. Received: "
            f"{str(path)!r} ({str(error).partition(chr(10))[0]}). Take another "
            f"epoch, or delete the run and run {command} again."
        ) from error
    names = [layer.name for layer in network.layers]
    if network.name != "embedder" and "embedder" not in names:
        raise ValueError(
            "Expected a network with an embedder, as build_embedder and train "
            f"make it. Received: {str(path)!r} with layers {names}."
        )
    if network.name != "embedder":
        network = network.get_layer("embedder")
    return in_float32(network)
