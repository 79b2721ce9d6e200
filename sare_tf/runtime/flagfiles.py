"""Flagfiles: flags that a file holds, one a line.

The files may be in any encoding of `text_files`. absl itself takes a byte order
mark for a part of the first flag, and fails on UTF-16, which PowerShell writes.
`sare_tf:demo` is a flagfile that comes with the package, see `package_files`.
"""

import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from sare_tf.runtime import package_files, paths, text_files

_NAMES = ("--flagfile", "-flagfile")
_COMMENTS = ("#", "//")
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")


def insert(arguments: Sequence[str]) -> list[str]:
    """Replaces every --flagfile by the flags of its file.

    Blank lines and lines that begin with # or // are comments. Values may stand
    in quotes. A file may name other flagfiles, whose flags come in the place of
    the line.

    Args:
        arguments: a command line. Arguments after -- stay.

    Raises:
        FileNotFoundError: the package has no such flagfile.
        ValueError: a file that cannot be read, or that names itself.
    """
    if "--" in arguments:
        end = list(arguments).index("--")
        return [*_inserted(arguments[:end], ()), *arguments[end:]]
    return list(_inserted(arguments, ()))


def next_command(stage: str, *more: str) -> str:
    """Returns the command of a stage, with the flagfiles of this command.

    Where this process is no command with flagfiles, a notebook for example, the
    flagfile is left open.

    Args:
        stage: its name.
        *more: what follows the flagfiles.
    """
    files, rest = [], iter(sys.argv[1:])
    for argument in rest:
        name, equals, file = argument.partition("=")
        if name in _NAMES:
            files.append(f"--flagfile={file if equals else next(rest, '')}")
    if not files:
        return " ".join(
            ["python", "-m", f"sare_tf.{stage}", "--flagfile=...", *more]
        )
    return command(stage, *files, *more)


def command(stage: str, *arguments: str) -> str:
    """Returns a command of this interpreter, to be pasted into a shell.

    Args:
        stage: name of the stage.
        *arguments: flags and files.
    """
    python = "python"
    if shutil.which(python) != sys.executable:
        here = Path(sys.executable)
        if here.is_relative_to(Path.cwd()):
            here = here.relative_to(Path.cwd())
        python = str(here)
    return shlex.join([python, "-m", f"sare_tf.{stage}", *arguments])


def _inserted(
    arguments: Sequence[str], above: tuple[str, ...]
) -> Iterator[str]:
    """Yields arguments; `above` are the files that name these."""
    rest = iter(arguments)
    for argument in rest:
        name, equals, file = argument.partition("=")
        if name not in _NAMES:
            yield argument
            continue
        if not equals:
            file = next(rest, "")
        yield from _inserted(_flags_of(file.strip(), above), (*above, file))


def _flags_of(file: str, above: tuple[str, ...]) -> list[str]:
    if file.startswith(package_files.PREFIX):
        file = str(package_files.flagfile(file))
    if file in above:
        raise ValueError(
            f"Expected flagfiles that do not name themselves. Received: "
            f"flagfile={file!r} below {above[-1]!r}. Remove the line."
        )
    try:
        lines = list(text_files.read_lines(paths.expand(file, name="flagfile")))
    except ValueError as error:
        raise ValueError(
            f"Expected a flagfile. Received: flagfile={file!r}. {error}"
        ) from error
    lines = [line.strip() for line in lines]
    return [
        _flag_of(line, file)
        for line in lines
        if line and not line.startswith(_COMMENTS)
    ]


def _flag_of(line: str, file: str) -> str:
    """Returns a flag without quotes around its value, as a shell passes it.

    Raises:
        ValueError: what would silently become a part of the value.
    """
    name, equals, value = line.partition("=")
    if _QUOTED.fullmatch(value):
        return name + equals + value[1:-1]
    if "\0" in line:
        raise ValueError(
            f"Expected a flagfile in UTF-8. Received: flagfile={file!r} with "
            f"the line {line!r:.60}. Save it as UTF-8."
        )
    if " # " in line:
        raise ValueError(
            f"Expected comments on lines of their own. Received: {line!r} in "
            f"flagfile={file!r}. Move the comment, or write quotes around a "
            "value that holds ' # '."
        )
    return line
