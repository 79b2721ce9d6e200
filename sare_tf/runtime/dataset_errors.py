"""Errors of Python code that tf.data runs, raised as they were.

TensorFlow raises another error for an error of a generator, with a traceback
for its message. `generated` notes the error itself under a number, and
`as_raised` raises it where the number appears:

    with dataset_errors.as_raised():
        for batch in dataset:  # made by `generated`
            ...
"""

import contextlib
import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

_NUMBERS = itertools.count()
_RAISED: dict[int, Exception] = {}
_MARK = re.compile(r"error (\d+) of a generator of sare_tf")
# The newest errors that are kept: a pipeline may raise several at once.
_KEPT = 16


def generated(
    make: Callable[[], Iterator[Any]], element: Any
) -> tf.data.Dataset:
    """Makes a dataset of what a generator yields.

    Args:
        make: starts the generator, once for each iteration.
        element: specification of an element.
    """

    def noting() -> Iterator[Any]:
        try:
            yield from make()
        except Exception as error:
            number = next(_NUMBERS)
            _RAISED[number] = error
            _RAISED.pop(number - _KEPT, None)
            raise RuntimeError(
                f"error {number} of a generator of sare_tf"
            ) from error

    return tf.data.Dataset.from_generator(noting, output_signature=element)


@contextlib.contextmanager
def as_raised() -> Iterator[None]:
    """Raises the error of a generator in place of TensorFlow's."""
    try:
        yield
    except tf.errors.OpError as error:
        marked = _MARK.search(str(error))
        own = _RAISED.get(int(marked[1])) if marked else None
        if own is None:
            raise
        raise own from error
