"""The results of stages: text, or JSON with --json.

A stage states its result once:

    stage_results.report(
        "index", f"Index of {count} images in {out}.", path=out, count=count
    )

In Python the text is logged. A command writes the text, or the values as one
JSON object on one line, to the standard output; everything else that it prints
goes to the standard error, also the results of other stages that it runs.
docs/output.md lists the values of each stage.
"""

import contextlib
import json
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from absl import logging
from tqdm import tqdm

# Takes the text of a result, and its values.
Writer = Callable[[str, dict[str, Any]], None]


def report(
    stage: str, text: str, *, next_command: str | None = None, **values: Any
) -> None:
    """Reports a result of a stage.

    Args:
        stage: name of the stage.
        text: the result for a person.
        next_command: a command that the person may want to run next.
        **values: the result for a program. Paths become strings, and numbers
            that are not finite null.
    """
    if next_command is not None:
        text = f"{text}\nNext: {next_command}"
    document = {"stage": stage, **values, "next": next_command}
    _writers[-1](text, _as_json(document))


@contextlib.contextmanager
def written_by(writer: Writer) -> Iterator[None]:
    """Gives results to another writer meanwhile."""
    _writers.append(writer)
    try:
        yield
    finally:
        _writers.pop()


def only_of(stage: str, writer: Writer) -> Writer:
    """Returns a writer of the results of one stage, which logs those of others.

    Args:
        stage: name of the stage.
        writer: writes its results.
    """

    def write(text: str, document: dict[str, Any]) -> None:
        is_own = document["stage"] == stage
        (writer if is_own else as_log)(text, document)

    return write


def as_log(text: str, document: dict[str, Any]) -> None:
    """Logs the text of a result."""
    del document
    logging.info("%s", text)


def as_text(text: str, document: dict[str, Any]) -> None:
    """Writes the text of a result to the standard output."""
    del document
    _write(text)


def as_json(text: str, document: dict[str, Any]) -> None:
    """Writes the values of a result to the standard output, on one line."""
    del text
    _write(json.dumps(document, allow_nan=False))


_writers: list[Writer] = [as_log]


def _write(text: str) -> None:
    # At once, also through a pipe, and not into a bar.
    with tqdm.external_write_mode(file=sys.stdout):
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def _as_json(value: Any) -> Any:
    """Converts a value to what JSON has."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)
