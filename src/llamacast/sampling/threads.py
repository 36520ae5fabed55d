"""Parts of a request side by side, on as many cores as others leave idle."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock, get_ident
from typing import TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")

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


class _Usual:
    """How many threads torch has while nobody is considerate.

    Torch gives a new thread the number that was set last, in whichever thread: one that begins while
    others have lowered it would take that for its own, and leave it behind.
    """

    def __init__(self) -> None:
        self.lock, self.depths, self.number = Lock(), Counter[int](), 1

    def enter(self) -> int:
        """What to go back to."""
        with self.lock:
            if not self.depths.total():
                self.number = torch.get_num_threads()
            nested = self.depths[get_ident()] > 0
            self.depths[get_ident()] += 1
            return torch.get_num_threads() if nested else self.number

    def leave(self) -> None:
        with self.lock:
            self.depths[get_ident()] -= 1
            self.depths += Counter()  # threads that have left are forgotten


_USUAL = _Usual()


@contextmanager
def considerate_threads(most: int | None = None) -> Iterator[int]:
    """Within, torch uses idle cores only, as many as are yielded; more threads than that wait.

    No more than `most`, if one can tell how many there is work for: to look how busy the machine is
    takes longer than a short forecast. A number of threads set by the user (`OMP_NUM_THREADS`) is
    left alone.
    """
    before = _USUAL.enter()
    now = before if most is None else min(before, most)
    if now > 1 and "OMP_NUM_THREADS" not in os.environ:
        now = min(now, idle_cores(before))
    torch.set_num_threads(now)
    try:
        yield now
    finally:
        torch.set_num_threads(before)
        _USUAL.leave()


def share_out(
    work: Callable[[Part], Result], parts: Sequence[Part], num_threads: int
) -> Iterator[tuple[Part, Result]]:
    """Each part with what `work` makes of it, in order; several parts at a time.

    Each then has one thread to itself: decoding is thousands of short operations, and threads that
    meet after each of them wait more than they work. One part alone has all threads.
    """
    if num_threads == 1 or len(parts) == 1:
        for part in parts:
            yield part, work(part)
        return
    with ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            yield from zip(parts, pool.map(work, parts), strict=True)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
