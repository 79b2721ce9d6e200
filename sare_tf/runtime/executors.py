"""How a function is called for each item: in this process, or elsewhere.

Code that builds a result of many items takes an `Executor`. `LocalExecutor`
calls the function here; `distributed.beam.BeamRunner` calls it on a cluster.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from sare_tf.runtime import progress


class Executor(Protocol):
    """What calls a function for each item."""

    def map(
        self,
        function: Callable[..., None],
        items: Sequence[Any],
        *,
        folder: Path,
        load: Callable[[], Any] | None = None,
    ) -> None:
        """Calls a function for each item, in any order and any process.

        Args:
            function: called for its effect, such as a file; it can be pickled.
            items: its arguments, which can be pickled.
            folder: an existing folder that all processes share, for files that
                the executor needs.
            load: makes a model, once in each process; it can be pickled. The
                function is then called with an item and the model.

        Raises:
            OSError: the executor failed, or an item on another machine.
        """


class LocalExecutor:
    """Calls the function in this process, one item after the other.

    An error of the function ends the pass.

    Args:
        description: what is done, for the progress bar.
        unit: what the bar counts.
        size: units of an item. Default: one each.
    """

    def __init__(
        self,
        description: str,
        *,
        unit: str = "item",
        size: Callable[[Any], int] = lambda item: 1,
    ):
        self._description = description
        self._unit = unit
        self._size = size

    def map(
        self,
        function: Callable[..., None],
        items: Sequence[Any],
        *,
        folder: Path,
        load: Callable[[], Any] | None = None,
    ) -> None:
        del folder
        model = () if load is None else (load(),)
        total = sum(map(self._size, items))
        with progress.bar(
            self._description, total=total, unit=self._unit
        ) as bar:
            for item in items:
                function(item, *model)
                bar.update(self._size(item))
