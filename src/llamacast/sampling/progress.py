"""Parts shown as they are done."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Of = TypeVar("Of")


def shown(
    drawn: Iterable[Of], total: int, progress: bool | None, what: str = "Forecasting"
) -> Iterable[Of]:
    """The same, with a bar; None shows it in a terminal, where there are several parts."""
    if progress is None:
        progress = total > 1 and sys.stderr.isatty()
    if not progress:
        return drawn  # even a bar that is not shown starts a thread
    console = Console(stderr=True)
    return track(drawn, what, total, console=console, transient=True)
