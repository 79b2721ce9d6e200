"""The log of a command, as a person reads it.

On a terminal, messages have no prefix. In a file, each has absl's: severity,
time and place. Notes of TensorFlow and Keras, which tell a person nothing, are
left out unless --verbosity=1 asks for all there is.
"""

import logging as python_logging
import sys
from pathlib import Path

from absl import logging

from sare_tf.runtime import progress

_PREFIXES = (
    (python_logging.ERROR, "Error: "),
    (python_logging.WARNING, "Warning: "),
)
_OTHERS = {"tensorflow", "keras"}


class _Plain(python_logging.Formatter):
    """Formats the message of a record, after its level if it is a problem."""

    def format(self, record: python_logging.LogRecord) -> str:
        prefix = next(
            (text for level, text in _PREFIXES if record.levelno >= level), ""
        )
        return prefix + super().format(record)


def _is_shown(record: python_logging.LogRecord) -> bool:
    return (
        record.levelno > python_logging.INFO
        or logging.level_debug()
        or not _OTHERS.intersection(Path(record.pathname).parts)
    )


def prepare() -> None:
    """Makes the log of this process one of a command."""
    handler = logging.get_absl_handler()
    handler.addFilter(_is_shown)
    if sys.stderr.isatty():
        handler.setFormatter(_Plain())


def be_quiet() -> None:
    """Leaves out everything but results, warnings and errors."""
    logging.set_verbosity(logging.WARNING)
    progress.hide()
