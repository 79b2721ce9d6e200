"""Arrays beside an index, and the file that says what they belong to.

The file is written last and removed first, so that it never names arrays of
something else.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sare_tf.runtime import atomic_files, file_digests, sealed_json
from sare_tf.search import bound_file


@contextlib.contextmanager
def written(
    path: Path,
    arrays: Mapping[str, tuple[Any, tuple[int, ...]]],
    values: Mapping[str, Any],
) -> Iterator[list[np.ndarray]]:
    """Yields arrays on disk to fill, then writes the file that names them.

    Args:
        path: the file, beside which the arrays lie.
        arrays: dtype and shape by name of the array's file.
        values: what they belong to, for `read`.
    """
    path.unlink(missing_ok=True)
    with contextlib.ExitStack() as stack:
        opened = []
        for name, (dtype, shape) in arrays.items():
            unfinished = stack.enter_context(
                atomic_files.file_in_one_piece(path.with_name(name))
            )
            opened.append(
                np.lib.format.open_memmap(
                    unfinished, mode="w+", dtype=dtype, shape=shape
                )
            )
        yield opened
        for array in opened:
            array.flush()
    digests = file_digests.of(path.parent, list(arrays))
    sealed_json.write(path, {**values, "digests": digests})


def read(
    folders: Sequence[Path],
    name: str,
    arrays: Sequence[str],
    *,
    made_by: str,
    bound_to: Mapping[str, Any],
    words: Mapping[str, str],
) -> tuple[list[np.ndarray] | None, str]:
    """Opens the arrays that fit, all of one shape [N, k].

    Args:
        folders: of the index.
        name: of the file that names them.
        arrays: names of their files.
        made_by: the command that makes them, for messages.
        bound_to: values that the file must have, by name.
        words: what these are, in words.

    Returns:
        The arrays, as memory maps, and an empty text. Or None, and why there
        are none, in words that follow "because".
    """

    def make(found: dict[str, Any]) -> list[np.ndarray]:
        folder = next(one for one in folders if (one / name).is_file())
        file_digests.check(folder, found["digests"])
        opened = [np.load(folder / one, mmap_mode="r") for one in arrays]
        shapes = {array.shape for array in opened}
        if len(shapes) > 1 or opened[0].ndim != 2:
            raise ValueError(f"arrays of {' and '.join(map(str, shapes))}")
        return opened

    types = {
        key: str if isinstance(value, str) else (int, float)
        for key, value in bound_to.items()
    }
    return bound_file.read(
        folders,
        name,
        made_by=made_by,
        types={**types, "digests": dict},
        bound_to=bound_to,
        words=words,
        make=make,
    )
