"""Progress over images: a bar on a terminal, and one logged line at the end.

There is no bar if the error stream is not a terminal: in a log file it would be
a flood of control characters.
"""

import contextlib
import time
from collections.abc import Iterator

from absl import logging
from tqdm import tqdm

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


def bar(
    description: str,
    *,
    total: int | None = None,
    unit: str = "image",
    shown: bool = True,
) -> tqdm:
    """Returns a bar, which is shown on a terminal only.

    Args:
        description: what is done.
        total: units in all, if it is known.
        unit: what `update` counts.
        shown: False for no bar on a terminal either.

    Returns:
        tqdm, a context manager with `update(count)`.
    """
    return tqdm(
        total=total,
        desc=description,
        unit=unit,
        # None: disabled where the error stream is no terminal.
        disable=None if shown and not _is_hidden else True,
        leave=False,
        dynamic_ncols=True,
    )
