"""How many cores this process may use."""

import os

try:
    CORES = len(os.sched_getaffinity(0))
except AttributeError:  # not on every system
    CORES = os.cpu_count() or 1
