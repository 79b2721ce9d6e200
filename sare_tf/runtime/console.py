"""What a command prints on a terminal: its log, without a prefix, and bars."""

import logging as python_logging
import sys

from absl import logging

from sare_tf.runtime import progress

_PREFIXES = (
    (python_logging.ERROR, "Error: "),
    (python_logging.WARNING, "Warning: "),
)


class _Plain(python_logging.Formatter):
    """Formats the message of a record, after its level if it is a problem."""

    def format(self, record: python_logging.LogRecord) -> str:
        prefix = next(
            (text for level, text in _PREFIXES if record.levelno >= level), ""
        )
        return prefix + super().format(record)


def prepare() -> None:
    """Leaves out time and place of each message where a person reads them.

    In a file, every line keeps absl's prefix.
    """
    if sys.stderr.isatty():
        logging.get_absl_handler().setFormatter(_Plain())


def be_quiet() -> None:
    """Leaves out everything but results, warnings and errors."""
    logging.set_verbosity(logging.WARNING)
    progress.hide()
