"""An executor that pickles all it is given, and does the last item first."""

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


class PicklingExecutor:
    """Calls the function in this process, as another process would.

    Attributes:
        given: the items of all calls, as they were given.

    Args:
        only: items that are done, if not all; then the executor fails.
    """

    def __init__(self, *, only: int | None = None):
        self.given = []
        self._only = only

    def map(
        self,
        function: Callable[..., None],
        items: Sequence[Any],
        *,
        folder: Path,
        load: Callable[[], Any] | None = None,
    ) -> None:
        assert folder.is_dir()
        self.given += items
        load, function, items = pickle.loads(
            pickle.dumps((load, function, list(items)[: self._only]))
        )
        model = () if load is None else (load(),)
        for item in reversed(items):
            function(item, *model)
        if self._only is not None:
            raise OSError("worker lost")


class IdleExecutor:
    """Does nothing, as workers that write to another folder.

    Attributes:
        given: the items of all calls.
    """

    def __init__(self):
        self.given = []

    def map(self, function, items, **options) -> None:
        del function, options
        self.given += items


class ObservedExecutor:
    """Calls the function in this process, as a test says.

    Attributes:
        given: the items of all calls.

    Args:
        act: called with a function that does one item, and the items; default:
            does all of them.
    """

    def __init__(self, act=None):
        self.given = []
        self._act = act or (lambda do, items: [do(item) for item in items])

    def map(self, function, items, *, folder, load=None) -> None:
        assert folder.is_dir()
        items = list(items)
        self.given += items
        model = () if load is None else (load(),)
        self._act(lambda item: function(item, *model), items)
