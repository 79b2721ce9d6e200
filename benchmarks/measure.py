"""Memory and time of a process, as Linux counts them."""

import concurrent.futures
import ctypes
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

MEBIBYTE = 2**20

_SELF = Path("/proc/self")
_TICKS = os.sysconf("SC_CLK_TCK")


def resident_bytes() -> int:
    """Returns the memory that this process has now (VmRSS)."""
    return _status_bytes("VmRSS")


def resident_bytes_of(process: int) -> int:
    """Returns the memory that another process has now."""
    return _status_bytes("VmRSS", Path(f"/proc/{process}"))


def resident_file_bytes() -> int:
    """Returns the part of it that pages of files have (RssFile)."""
    return _status_bytes("RssFile")


def peak_bytes() -> int:
    """Returns the most memory since the start or `reset_peak` (VmHWM).

    `resource.getrusage` would begin with the memory of the parent process.
    """
    return _status_bytes("VmHWM")


def return_freed() -> None:
    """Gives freed memory back to Linux, of which heaps keep much (glibc)."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def reset_peak() -> None:
    """Sets the peak back to the memory that the process has now."""
    (_SELF / "clear_refs").write_text("5", encoding="ascii")  # man 5 proc


def median_seconds(call: Callable[[], object], *, repeats: int) -> float:
    """Returns the median seconds of a call by the clock."""
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def core_seconds(processes: Iterable[int]) -> float:
    """Returns the seconds of all cores that processes have used."""
    ticks = 0
    for process in processes:
        text = Path(f"/proc/{process}/stat").read_text(encoding="ascii")
        # Fields utime and stime of man 5 proc; the name ends at the bracket.
        ticks += sum(map(int, text.rpartition(")")[2].split()[11:13]))
    return ticks / _TICKS


def in_a_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function in a new process, and returns its result.

    Memory and threads of earlier calls do not disturb it.
    """
    with concurrent.futures.ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("spawn")
    ) as process:
        return process.submit(function, *arguments).result()


def _status_bytes(field: str, process: Path = _SELF) -> int:
    status = (process / "status").read_text(encoding="ascii")
    return 1024 * int(status.split(f"{field}:")[1].split()[0])
