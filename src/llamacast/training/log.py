"""What a run tells of itself: lines of a CSV, and of TensorBoard's log where it is wanted."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from llamacast.forecast import DataError
from llamacast.training.state import Progress

LOG_FILE = "log.csv"
# Each column, and how its numbers are written.
FIELDS = {
    "step": "{:d}",
    "minutes": "{:.2f}",
    "loss": "{:.4f}",
    "validation_loss": "{:.4f}",
    "validation_crps": "{:.4f}",
    "learning_rate": "{:.2e}",
    "gradient_norm": "{:.3f}",
    "tokens_per_second": "{:.0f}",
    "minutes_left": "{:.1f}",
}

Row = dict[str, int | float]
"""A line of the log, by column; columns that have nothing to say are not there."""


class Log:
    """Lines of `log.csv`, each of which goes to `report` and TensorBoard too."""

    def __init__(
        self,
        directory: Path,
        log_every: int,
        tensorboard: bool,
        fabric: Fabric,
        report: Callable[[Row], None],
        progress: Progress,
    ) -> None:
        """Lines after `progress`, from where the run goes on, are dropped."""
        self.path, self.log_every, self.report = directory / LOG_FILE, log_every, report
        self.writes = fabric.is_global_zero
        self.losses: list[float] = []
        self.board = _board(directory) if tensorboard and self.writes else None
        if self.writes:
            directory.mkdir(parents=True, exist_ok=True)
            _trim(self.path, progress.step)

    def remember(self, loss: float) -> None:
        """Take a step's loss into the mean of the next line."""
        self.losses.append(loss)

    def is_due(self, progress: Progress) -> bool:
        return progress.step % self.log_every == 0

    def add(self, progress: Progress, told: Row) -> None:
        """Write a line: what is told, where the run stands, and the mean loss since the last line."""
        if not self.writes:
            return
        mean = sum(self.losses) / len(self.losses)
        self.losses.clear()
        row = {"step": progress.step, "minutes": progress.seconds / 60, "loss": mean, **told}
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, FIELDS)
            if new:
                writer.writeheader()
            writer.writerow(written(row))
        if self.board is not None:
            self.board.log_metrics(row, progress.step)
        self.report(row)


def written(row: Row) -> dict[str, str]:
    """A line as it is shown, columns in order."""
    return {name: form.format(row[name]) for name, form in FIELDS.items() if name in row}


def _board(directory: Path) -> Any:
    """Lightning's logger for TensorBoard; it writes nothing before its first line."""
    from lightning_fabric.loggers.tensorboard import TensorBoardLogger

    try:
        return TensorBoardLogger(directory, name="tensorboard", version="")
    except ModuleNotFoundError as error:
        raise DataError(
            "tensorboard = true needs a package that is missing; pip install tensorboardX"
        ) from error


def _trim(path: Path, step: int) -> None:
    """Drop lines written after the checkpoint that a run goes on from."""
    if not path.exists():
        return
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
    unfinished = path.with_suffix(".part")
    with unfinished.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(unfinished, path)
