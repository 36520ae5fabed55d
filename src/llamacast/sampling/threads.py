"""How many threads to use on a machine that others use too."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

LOAD_FILE = Path("/proc/loadavg")
NUM_LOOKS = 3
SECONDS_BETWEEN_LOOKS = 0.002


def idle_cores(cores: int) -> int:
    """Cores, at least 1, that nothing else runs on now; all of them where that cannot be seen.

    Read a few times and the least busy look believed: other processes come and go.
    """
    try:
        busy = min(_running_elsewhere() for _ in range(NUM_LOOKS))
    except (OSError, ValueError, IndexError):
        return cores
    return max(1, cores - busy)


def _running_elsewhere() -> int:
    """Runnable threads but this one (fourth field of loadavg: runnable/total)."""
    time.sleep(SECONDS_BETWEEN_LOOKS)
    return max(0, int(LOAD_FILE.read_text().split()[3].split("/")[0]) - 1)


@contextmanager
def considerate_threads() -> Iterator[None]:
    """Within, torch uses idle cores only; more threads than that wait for each other.

    A number of threads set by the user (`OMP_NUM_THREADS`) is left alone.
    """
    before = torch.get_num_threads()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(before, idle_cores(before)))
    try:
        yield
    finally:
        torch.set_num_threads(before)
