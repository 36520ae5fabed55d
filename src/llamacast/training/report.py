"""What is told of long work while it goes on."""

from __future__ import annotations

import sys

from rich.console import Console

from llamacast.training.log import Row, written

SHOWN = ("step", "minutes", "loss", "validation_loss", "validation_crps", "minutes_left")


class Report:
    """Lines on standard error; by default only where somebody reads them, in a terminal."""

    def __init__(self, progress: bool | None) -> None:
        self.console = Console(stderr=True, soft_wrap=True, highlight=False)
        self.speaks = sys.stderr.isatty() if progress is None else progress

    def line(self, text: str) -> None:
        if self.speaks:
            self.console.print(text, markup=False)

    def row(self, row: Row) -> None:
        """A line of a run's log."""
        told = written(row)
        self.line("  ".join(f"{name} {told[name]}" for name in SHOWN if name in told))
