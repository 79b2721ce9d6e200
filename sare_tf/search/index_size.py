"""What an index takes of disk and memory, told before images are embedded.

Axis letters: N images, D descriptor length.
"""

import math
from pathlib import Path

from absl import logging

from sare_tf.runtime import atomic_files, disk_space
from sare_tf.search import codes, scann_searcher, scann_tuning
from sare_tf.search.options import CODES, TuningOptions

_GIB = 2**30
# Smaller indexes are built without a word. Ours.
_WORTH_A_WORD = 2**28
# How often ScaNN holds rows while it builds: all of them, and those that train
# the tree; reordering from disk, the latter alone. See `scann_searcher`.
_COPIES, _OF_SAMPLE, _ON_DISK = 3, 2, 9


def check(
    folder: Path,
    count: int,
    dimension: int,
    *,
    dtype: str,
    tuning: TuningOptions,
) -> None:
    """Logs what an index will take; refuses one that the disk cannot hold.

    Args:
        folder: the index.
        count: N, images to embed.
        dimension: D.
        dtype: of the index.
        tuning: how ScaNN searches.

    Raises:
        ValueError: says what is free, and what takes less.
    """
    reorder_from = "disk" if dtype in CODES else tuning.reorder_from
    disk = disk_bytes(count, dimension, dtype=dtype, reorder_from=reorder_from)
    memory = memory_bytes(
        count,
        dimension,
        reorder_from=reorder_from,
        tune_tree=tuning.tune_tree,
    )
    if disk > _WORTH_A_WORD:
        logging.info(
            "An index of %d images takes about %.1f GiB of disk and %.1f GiB "
            "of memory to build.",
            count,
            disk / _GIB,
            memory / _GIB,
        )
    free = disk_space.free_bytes(folder)
    if free < disk - atomic_files.unfinished_bytes(folder):
        raise ValueError(
            f"Expected {disk / _GIB:.2f} GiB of disk for an index of {count} "
            f"images of {dimension} numbers. Received: index={str(folder)!r}, "
            f"with {free / _GIB:.2f} GiB free. Make room, build shards on "
            "several disks (--index_shard), or store less: "
            + ", ".join(
                f"{size / _GIB:.2f} GiB by --index_dtype={name}"
                for name, size in _smaller(count, dimension, disk)
            )
            + "."
        )
    available = available_memory()
    if available is not None and available < memory:
        on_disk = memory_bytes(
            count, dimension, reorder_from="disk", tune_tree=tuning.tune_tree
        )
        logging.warning(
            "Building the ScaNN searcher takes about %.1f GiB of memory, and "
            "%.1f are available. Build with --reorder_from=disk, which takes "
            "%.1f, or build shards (--index_shard).",
            memory / _GIB,
            available / _GIB,
            on_disk / _GIB,
        )


def disk_bytes(
    count: int, dimension: int, *, dtype: str, reorder_from: str
) -> int:
    """Returns how many bytes an index takes while it is built.

    Codes are made of float16 descriptors, which are then removed.
    """
    number = 4 if dtype == "float32" else 2
    row = number * dimension
    if dtype in CODES:
        row += codes.length_of(dtype, dimension)
    if reorder_from == "memory":
        row += 4 * dimension
    return count * (row + _scann_codes(dimension))


def memory_bytes(
    count: int, dimension: int, *, reorder_from: str, tune_tree: bool = False
) -> int:
    """Returns how many bytes of memory building ScaNN takes.

    Args:
        count: N.
        dimension: D.
        reorder_from: "memory" or "disk".
        tune_tree: whether larger trees are tried, which more rows train.
    """
    rules = scann_searcher.rules(
        count=count, dimension=dimension, reorder_from=reorder_from
    )
    sample = rules.get("training_sample_size", 0)
    if tune_tree and sample:
        sample = scann_tuning.largest_sample(rules, count, dimension)
    rows = _COPIES * count + _OF_SAMPLE * sample
    if reorder_from == "disk":
        rows = _ON_DISK * sample
    return 4 * dimension * rows + count * _scann_codes(dimension)


def available_memory() -> int | None:
    """Returns the bytes that a process may take; None where unknown."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None


def _scann_codes(dimension: int) -> int:
    """Returns bytes of ScaNN's codes of an image: in two leaves, by SOAR."""
    return 2 * math.ceil(dimension / 4)


def _smaller(count: int, dimension: int, disk: int) -> list[tuple[str, int]]:
    sizes = [
        (
            name,
            disk_bytes(count, dimension, dtype=name, reorder_from="disk"),
        )
        for name in CODES
    ]
    return [(name, size) for name, size in sizes if size < disk]
