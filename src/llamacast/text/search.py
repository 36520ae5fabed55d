"""Which learning rate, rank and context to fine-tune with: a grid, told as a table and a heat map."""

from __future__ import annotations

import csv
import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lightning_fabric import Fabric
from matplotlib.figure import Figure

from llamacast.forecast import DataError
from llamacast.text.finetune import FinetuneConfig, check_budget, cost, finetune, lesson_of
from llamacast.text.language import Language
from llamacast.text.windows import System

TABLE_FILE, PICTURE_FILE = "search.csv", "search.png"


@dataclass(frozen=True)
class Grid:
    """What is tried: every combination. By default what has been published for Qwen2.5-0.5B."""

    learning_rates: tuple[float, ...] = (1e-5, 5e-5, 1e-4)
    ranks: tuple[int, ...] = (2, 4, 8)
    contexts: tuple[int, ...] = (128, 512, 768)


@dataclass(frozen=True)
class Trial:
    """A combination, and how good it was."""

    learning_rate: float
    rank: int
    context: int
    score: float
    """Negative log density on what is held back, in nats a value; lower is better."""
    flops: float

    @property
    def name(self) -> str:
        return f"rate-{self.learning_rate:g}-rank-{self.rank}-context-{self.context}"


def search(
    language: Language,
    systems: Sequence[System],
    config: FinetuneConfig,
    grid: Grid,
    directory: Path,
    fabric: Fabric,
    validation: Sequence[System] | None = None,
    told: Callable[[str], None] = lambda text: None,
) -> list[Trial]:
    """Try a grid; the best comes first.

    `directory` receives `search.csv` and `search.png`, and a folder for each combination; the same
    call goes on where it stopped. `config.budget` is for all of them together.

    Raises:
        DataError: before anything is tried, if a context is too short for the horizon, or the budget
            does not allow the whole grid.
    """
    asked = [
        dataclasses.replace(config, learning_rate=rate, rank=rank, context=context)
        for rate, rank, context in itertools.product(grid.learning_rates, grid.ranks, grid.contexts)
    ]
    if not asked:
        raise DataError("the grid is empty; give learning rates, ranks and contexts")
    lessons = {one.context: lesson_of(language, systems, validation, one) for one in asked}
    total = sum(cost(language, lessons[one.context], one) for one in asked)
    if total > config.budget:
        share = config.budget / len(asked)
        largest = max(asked, key=lambda one: cost(language, lessons[one.context], one))
        try:
            check_budget(
                language, lessons[largest.context], dataclasses.replace(largest, budget=share)
            )
        except DataError as error:
            raise DataError(
                f"the {len(asked)} runs of the grid would take {total:.3e} FLOPs, more than the budget "
                f"of {config.budget:.3e}; of an even share of it: {error}"
            ) from error
    told(f"{len(asked)} runs, {total:.2e} FLOPs")
    table: list[Trial] = []
    for one in asked:
        trial = Trial(one.learning_rate or 0.0, one.rank, one.context or 0, float("nan"), 0.0)
        told(trial.name)
        _, outcome = finetune(language, systems, one, directory / trial.name, fabric, validation)
        table.append(dataclasses.replace(trial, score=outcome.after, flops=outcome.flops))
        _write(table, directory)
    _draw(table, grid, directory)
    return sorted(table, key=lambda trial: trial.score)


def _write(table: Sequence[Trial], directory: Path) -> None:
    with (directory / TABLE_FILE).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(field.name for field in dataclasses.fields(Trial))
        writer.writerows(dataclasses.astuple(trial) for trial in table)


def _draw(table: Sequence[Trial], grid: Grid, directory: Path) -> None:
    """A heat map of rates and ranks for each context, all in one scale."""
    scores = np.full((len(grid.contexts), len(grid.ranks), len(grid.learning_rates)), np.nan)
    for trial in table:
        place = (
            grid.contexts.index(trial.context),
            grid.ranks.index(trial.rank),
            grid.learning_rates.index(trial.learning_rate),
        )
        scores[place] = trial.score
    figure = Figure(figsize=(1.5 + 2.8 * len(grid.contexts), 3.4), layout="constrained")
    panels = np.atleast_1d(np.asarray(figure.subplots(1, len(grid.contexts))))
    low, high = float(np.nanmin(scores)), float(np.nanmax(scores))
    for axes, context, own in zip(panels, grid.contexts, scores, strict=True):
        image = axes.imshow(own, cmap="viridis_r", vmin=low, vmax=max(high, low + 1e-9))
        axes.set_title(f"context {context}", fontsize="medium")
        axes.set_xticks(range(len(grid.learning_rates)), [f"{r:g}" for r in grid.learning_rates])
        axes.set_yticks(range(len(grid.ranks)), [str(rank) for rank in grid.ranks])
        axes.set_xlabel("learning rate")
        axes.set_ylabel("rank")
        for (row, column), score in np.ndenumerate(own):
            axes.text(column, row, f"{score:.3f}", ha="center", va="center", fontsize="small")
    figure.colorbar(image, ax=list(panels), label="negative log density, nats a value")
    figure.savefig(directory / PICTURE_FILE, dpi=120)
