"""What `beam.for_each` does, without Beam: all is sent pickled, last first."""

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def for_each(
    function: Callable[..., Any],
    tasks: Sequence[Any],
    *,
    folder: Path,
    load: Callable[[], Any],
) -> None:
    """Calls a function with each task and a model."""
    assert folder.is_dir()
    load, function, tasks = pickle.loads(pickle.dumps((load, function, tasks)))
    model = load()
    for task in reversed(tasks):
        function(task, model)
