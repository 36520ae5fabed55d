"""Which context and learning rate to fine-tune with: a grid, cut by successive halving."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_fabric import Fabric
from matplotlib.figure import Figure

from llamacast.data.panel import Panel
from llamacast.model.checkpoint import Network
from llamacast.model.config import CriaConfig
from llamacast.training.finetune import (
    FinetuneConfig,
    Validation,
    claim,
    inputs_of,
    learnable,
    prepare,
    split,
    told_of,
)
from llamacast.training.log import LOG_FILE

# The grid of arXiv 2310.08278, section 5; Cria's contexts are as many patches.
CONTEXT_LENGTHS = (32, 64, 128, 256, 512, 1024)
PATCHES_PER_CONTEXT = (8, 16, 32, 64, 128)
LEARNING_RATES = (1e-2, 1e-3, 1e-4, 1e-5)
# Of the steps that are asked for: those that a candidate is first tried with, doubled each time half
# of the candidates are left.
FIRST_SHARE = 1 / 8
FEWEST_LEFT = 2
TABLE_FILE, PICTURE_FILE = "search.csv", "search.png"


@dataclass(frozen=True)
class Trial:
    """A candidate, and how good it has been after so many steps."""

    context_length: int
    learning_rate: float
    steps: int
    crps: float

    @property
    def name(self) -> str:
        return f"context-{self.context_length}-rate-{self.learning_rate:g}"


def grid(network: Network, longest: int, asked: FinetuneConfig) -> list[tuple[int, float]]:
    """Contexts and learning rates to try: the one that is asked for, or all, but for contexts longer than
    the longest series."""
    config = network.config
    lengths: Sequence[int] = CONTEXT_LENGTHS
    if isinstance(config, CriaConfig):
        lengths = [config.patch_length * count for count in PATCHES_PER_CONTEXT]
    kept = [length for length in lengths if length <= longest] or [min(lengths)]
    contexts = kept if asked.context_length is None else [asked.context_length]
    rates = LEARNING_RATES if asked.learning_rate is None else [asked.learning_rate]
    return list(itertools.product(contexts, rates))


def search(
    network: Network,
    panel: Panel,
    config: FinetuneConfig,
    directory: Path,
    fabric: Fabric,
    announce: Callable[[str], None] = lambda text: None,
) -> FinetuneConfig:
    """The best context and learning rate for `config`, of the grid; what it has of them already stays.

    All are tried for an eighth of the steps, the better half for twice as many, and so on, each going
    on where it stopped. `directory` receives `search.csv`, `search.png` and the runs; the same call
    goes on where it was stopped.
    """
    parts = split(panel, config)
    claim(directory, told_of(network, panel, config))
    inputs = inputs_of(panel, parts, config)
    learnt = learnable(network, panel)
    validation = Validation(learnt, parts, config.seed, inputs)

    def attempt(context: int, rate: float, steps: int) -> Trial:
        """Go on with a candidate until so many steps, at an even learning rate."""
        trial = Trial(context, rate, steps, math.inf)
        asked = dataclasses.replace(config, context_length=context, learning_rate=rate, steps=steps)
        learner = prepare(network, learnt, parts, validation, asked, fabric, inputs, decays=False)
        own = directory / trial.name
        learner.learn(own, fabric, lambda row: None)
        return dataclasses.replace(trial, crps=min(score for _, score in _curve(own)))

    longest = max(len(values) for values in panel.values)
    left, steps = grid(network, longest, config), max(1, round(FIRST_SHARE * config.steps))
    table: list[Trial] = []
    while True:
        announce(f"trying {len(left)} of the grid for {steps} steps each")
        trials = [attempt(context, rate, steps) for context, rate in left]
        table += trials
        _write(table, directory)
        trials.sort(key=lambda trial: trial.crps)
        if len(trials) <= FEWEST_LEFT or steps >= config.steps:
            break
        kept = trials[: math.ceil(len(trials) / 2)]
        left = [(trial.context_length, trial.learning_rate) for trial in kept]
        steps = min(config.steps, 2 * steps)
    best = trials[0]
    announce(f"best: context {best.context_length}, learning rate {best.learning_rate:g}")
    return dataclasses.replace(
        config, context_length=best.context_length, learning_rate=best.learning_rate
    )


def _curve(directory: Path) -> list[tuple[int, float]]:
    """Steps and CRPS of a run."""
    with (directory / LOG_FILE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        (int(row["step"]), float(row["validation_crps"])) for row in rows if row["validation_crps"]
    ]


def _write(table: Sequence[Trial], directory: Path) -> None:
    rows = sorted(table, key=lambda trial: (-trial.steps, trial.crps))
    with (directory / TABLE_FILE).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(field.name for field in dataclasses.fields(Trial))
        writer.writerows(dataclasses.astuple(row) for row in rows)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(trial.name for trial in rows):
        trial = next(one for one in rows if one.name == name)
        label = f"{trial.context_length}, {trial.learning_rate:g}"
        axes.plot(*zip(*_curve(directory / name), strict=True), linewidth=1.2, label=label)
    axes.set_xlabel("step")
    axes.set_ylabel("CRPS on what is held back")
    axes.legend(title="context, rate", fontsize="small", ncols=2, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(directory / PICTURE_FILE, dpi=120)
