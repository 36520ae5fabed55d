"""Which learning rate, rank and context to fine-tune with: a grid, told as a table and a heat map."""

from __future__ import annotations

import csv
import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lightning_fabric import Fabric
from matplotlib.figure import Figure

from llamacast.forecast import DataError
from llamacast.text.finetune import (
    FinetuneConfig,
    Lesson,
    check_budget,
    check_context,
    cost,
    finetune,
    lesson_of,
)
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


def lessons_of(
    language: Language,
    systems: Sequence[System],
    validation: Sequence[System] | None,
    config: FinetuneConfig,
    grid: Grid,
) -> dict[int, Lesson]:
    """What there is to learn in each context.

    Raises:
        DataError: if the grid is empty, a context is longer than what the model reads, or the budget,
            which is for all of the grid together, does not allow it.
    """
    if not all((grid.learning_rates, grid.ranks, grid.contexts)):
        raise DataError("the grid is empty; give learning rates, ranks and contexts")
    for context in grid.contexts:
        check_context(language, context)
    # How numbers are written is found once: it does not depend on the context.
    lesson = lesson_of(language, systems, validation, dataclasses.replace(config, context=None))
    lessons = {context: lesson.within(context) for context in grid.contexts}
    asked = _asked(config, grid)
    total = _total(language, lessons, asked)
    if total > config.budget:
        share = config.budget / len(asked)
        dearest = max(asked, key=lambda one: cost(language, lessons[one.context or 0], one))
        try:
            check_budget(
                language,
                lessons[dearest.context or 0],
                dataclasses.replace(dearest, budget=share),
            )
        except DataError as error:
            raise DataError(
                f"the {len(asked)} runs of the grid would take {total:.3e} FLOPs, more than the budget "
                f"of {config.budget:.3e}; of an even share of it: {error}"
            ) from error
    return lessons


def _asked(config: FinetuneConfig, grid: Grid) -> list[FinetuneConfig]:
    return [
        dataclasses.replace(config, learning_rate=rate, rank=rank, context=context)
        for rate, rank, context in itertools.product(grid.learning_rates, grid.ranks, grid.contexts)
    ]


def _each(lessons: Mapping[int, Lesson], asked: Sequence[FinetuneConfig]) -> list[Lesson]:
    """The lesson of each run: what choosing the codec took, once for all, is counted in the first."""
    first, *others = (lessons[one.context or 0] for one in asked)
    return [first, *(dataclasses.replace(one, tried=()) for one in others)]


def _total(
    language: Language, lessons: Mapping[int, Lesson], asked: Sequence[FinetuneConfig]
) -> float:
    own = _each(lessons, asked)
    return sum(cost(language, *each) for each in zip(own, asked, strict=True))


def search(
    language: Language,
    lessons: Mapping[int, Lesson],
    config: FinetuneConfig,
    grid: Grid,
    directory: Path,
    fabric: Fabric,
    told: Callable[[str], None] = lambda text: None,
) -> list[Trial]:
    """Try a grid on lessons, one for each context; the best comes first.

    `directory` receives `search.csv` and `search.png`, and a folder for each combination; the same
    call goes on where it stopped.
    """
    asked = _asked(config, grid)
    told(f"{len(asked)} runs, {_total(language, lessons, asked):.2e} FLOPs")
    table: list[Trial] = []
    for one, lesson in zip(asked, _each(lessons, asked), strict=True):
        context = one.context or 0
        trial = Trial(one.learning_rate or 0.0, one.rank, context, float("nan"), 0.0)
        told(trial.name)
        # The budget is for all together, and has been checked.
        free = dataclasses.replace(one, budget=float("inf"))
        _, outcome = finetune(language, lesson, free, directory / trial.name, fabric)
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
