"""Whether a training run can start in a folder, or be resumed there."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from sare_tf.runtime import atomic_files

_FIRST = "epoch-0000"


def start(folder: Path, config: Mapping[str, Any]) -> None:
    """Makes the folder of a run; a run without an epoch starts over.

    Args:
        folder: folder of the run.
        config: options of the run, as JSON holds them.

    Raises:
        ValueError: a folder of other files, one that cannot be written to, or
            epochs without the state of their run.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(folder, error) from error
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
    # A kill may have left the first epoch, which is saved before state.json.
    later = sorted(
        path.name for path in folder.glob("epoch-*") if path.name != _FIRST
    )
    if later:
        raise ValueError(
            f"Expected state.json beside {later[-1]}. Received: "
            f"checkpoints={str(folder)!r} without it. Copy the folder again; "
            "or delete it, to start over."
        )
    check_writable(folder)
    atomic_files.write_json(folder / "config.json", dict(config))


def check_writable(folder: Path) -> None:
    """Refuses a folder that cannot be written to.

    Raises:
        ValueError: says why.
    """
    probe = folder / ".probe"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _not_writable(folder, error) from error


def _not_writable(folder: Path, error: OSError) -> ValueError:
    return ValueError(
        "Expected a folder that can be written to. Received: "
        f"checkpoints={str(folder)!r} ({error}). Choose another --checkpoints."
    )


def check_same(
    folder: Path,
    started_with: Mapping[str, Any],
    config: Mapping[str, Any],
    may_change: Collection[str],
) -> None:
    """Refuses other options than those that a run was started with.

    Args:
        folder: folder of the run.
        started_with: options that it was started with.
        config: options now.
        may_change: names of options that may differ.

    Raises:
        ValueError: names the options that differ.
    """
    differences = [
        f"{name}: {started_with.get(name)!r} there, {value!r} now"
        for name, value in config.items()
        if name not in may_change and started_with.get(name) != value
    ]
    if differences:
        raise ValueError(
            "Expected the options this run was started with. Received: "
            f"checkpoints={str(folder)!r} with "
            + "; ".join(differences)
            + ". Choose another --checkpoints, or delete that folder."
        )
