"""Progress over images: a bar on a terminal, and a few lines in a log file.

A bar in a file would be a flood of control characters. A pass that takes long
logs a line at each quarter there.
"""

import contextlib
import sys
import time
from collections.abc import Iterator

from absl import logging
from tqdm import tqdm

# Ours: a pass that takes less than this between its quarters logs none.
_LINE_SECONDS = 20.0
_QUARTERS = 4

_is_hidden = False


def hide() -> None:
    """Shows no bars from now on."""
    global _is_hidden
    _is_hidden = True


class Pass:
    """A pass over images, such as an epoch or the embedding of a split.

    Attributes:
        seconds: the time since the pass began, until it ended.
        images: the number of images so far.
    """

    def __init__(self, bar: tqdm):
        self.images = 0
        self._bar = bar
        self._begin = time.monotonic()
        self._notes = {}
        self._end = None

    @property
    def seconds(self) -> float:
        return (self._end or time.monotonic()) - self._begin

    @property
    def images_per_s(self) -> float:
        return self.images / max(self.seconds, 1e-9)

    def advance(self, images: int, **notes: float) -> None:
        """Counts images, and shows notes, such as the loss, beside them."""
        self.images += images
        self._notes |= notes
        if notes:
            self._bar.set_postfix(notes, refresh=False)
        self._bar.update(images)

    def finish(self, description: str) -> None:
        """Ends the pass, and logs its line."""
        self._end = time.monotonic()
        notes = "".join(f", {k} {v:.4g}" for k, v in self._notes.items())
        logging.info(
            "%s: %d images in %.1f s, %.1f images/s%s.",
            description,
            self.images,
            self.seconds,
            self.images_per_s,
            notes,
        )


@contextlib.contextmanager
def over_images(description: str, *, total: int) -> Iterator[Pass]:
    """Shows a pass over images, and logs a line after it.

    Args:
        description: what is done, for the bar and the line.
        total: images of the pass.

    Yields:
        The pass; call `advance` for images that are done. Nothing is logged
        after an error.
    """
    with bar(description, total=total) as of_pass:
        images = Pass(of_pass)
        yield images
    images.finish(description)


class _Lines(tqdm):
    """A bar for a log file: a line at each quarter, if that takes a while."""

    def __init__(self, **settings):
        super().__init__(disable=True, **settings)
        # tqdm sets nothing else where it is disabled.
        self._description, self._unit = settings["desc"], settings["unit"]
        self._done, self._logged = 0, time.monotonic()

    def update(self, n: float = 1) -> None:
        """Counts units."""
        before, self._done = self._done, self._done + n
        if not self.total or self._done >= self.total:
            return
        now = time.monotonic()
        quarter = self._done * _QUARTERS // self.total
        if (
            quarter > before * _QUARTERS // self.total
            and now - self._logged >= _LINE_SECONDS
        ):
            self._logged = now
            logging.info(
                "%s: %d of %d %ss.",
                self._description,
                self._done,
                self.total,
                self._unit,
            )


def bar(
    description: str,
    *,
    total: int | None = None,
    unit: str = "image",
    shown: bool = True,
) -> tqdm:
    """Returns a bar on a terminal; elsewhere it logs a few lines.

    Args:
        description: what is done.
        total: units in all, if it is known.
        unit: what `update` counts.
        shown: False for no bar on a terminal either.

    Returns:
        tqdm, a context manager with `update(count)`.
    """
    settings = {"total": total, "desc": description, "unit": unit}
    if shown and not _is_hidden and not sys.stderr.isatty():
        return _Lines(**settings)
    return tqdm(
        **settings,
        disable=not shown or _is_hidden,
        leave=False,
        dynamic_ncols=True,
    )
