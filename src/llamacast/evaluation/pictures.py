"""Pictures of a comparison: skill with its luck, calibration, error along the horizon."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from llamacast.evaluation.answers import LEVELS
from llamacast.evaluation.comparison import Skill, overall_skill, skill
from llamacast.evaluation.metrics import (
    pit_histogram,
    running_root_mean_squared_error,
)
from llamacast.evaluation.scores import REFERENCE, Scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_CURVES = 8
LOWEST_SKILL = -100
_COLOURS = (
    "#1d3f73",
    "#c2452d",
    "#3f8f5b",
    "#d79a2b",
    "#7b4ea3",
    "#4fa3c7",
    "#8c6d46",
    "#777777",
)
_BETTER, _WORSE, _UNDECIDED = "#1d3f73", "#c2452d", "#9aa5b1"


def draw_skill(several: Sequence[Scores], path: Path) -> None:
    """Bars of skill against seasonal naive with 95 % intervals: each data set, then all of them."""
    panels = [(scores.name, {n: skill(scores, n) for n in scores.answers}) for scores in several]
    if len(several) > 1:
        names = dict.fromkeys(name for scores in several for name in scores.answers)
        everywhere = [n for n in names if all(n in scores.answers for scores in several)]
        panels.insert(0, ("all data sets", {n: overall_skill(several, n) for n in everywhere}))
    num_columns = min(len(panels), 3)
    num_rows = -(-len(panels) // num_columns)
    bars = max(len(found) for _, found in panels)
    size = (max(6.0, 4.2 * num_columns), (1.0 + 0.27 * bars) * num_rows + 0.3)
    figure = Figure(figsize=size, layout="constrained")
    axes = np.atleast_1d(np.asarray(figure.subplots(num_rows, num_columns))).ravel()
    for place, (title, found) in zip(axes, panels, strict=False):
        _draw_bars(place, title, {n: s for n, s in found.items() if n != REFERENCE})
    for spare in axes[len(panels) :]:
        spare.set_visible(False)
    figure.supxlabel(
        f"CRPS saved against seasonal naive, %, with its 95 % interval; grey: maybe luck; cut at "
        f"{LOWEST_SKILL}",
        fontsize="small",
    )
    figure.savefig(path, dpi=120)


def _draw_bars(axes: Axes, title: str, found: dict[str, Skill]) -> None:
    colours = {"better": _BETTER, "worse": _WORSE}
    ordered = sorted(found.items(), key=lambda item: np.nan_to_num(item[1].value, nan=-np.inf))
    for row, (_, one) in enumerate(ordered):
        value = np.clip(100 * one.value, LOWEST_SKILL, 100)
        axes.barh(row, value, 0.7, color=colours.get(one.verdict, _UNDECIDED))
        if np.isfinite(one.low):
            ends = np.clip([100 * one.low, 100 * one.high], LOWEST_SKILL, 100)
            axes.plot(ends, [row, row], color="black", linewidth=1.0)
    axes.axvline(0.0, color="#333333", linewidth=0.8)
    axes.set_yticks(range(len(ordered)), [name for name, _ in ordered], fontsize="small")
    axes.set_title(title, fontsize="medium")
    axes.tick_params(axis="x", labelsize="small")
    axes.spines[["top", "right"]].set_visible(False)


def draw_calibration(scores: Scores, path: Path) -> None:
    """How often actuals lay below each quantile; where they fell among samples; error by step."""
    figure = Figure(figsize=(12.5, 4.0), layout="constrained")
    below, ranks, running = figure.subplots(1, 3)
    below.plot([0, 1], [0, 1], color="#999999", linewidth=0.8)
    ranks.axhline(1.0, color="#999999", linewidth=0.8)
    best = list(scores.table().index[:MOST_CURVES])
    for colour, name in zip(_COLOURS, best, strict=False):
        answers = scores.answers[name]
        _draw_reliability(below, scores, name, colour)
        shares = pit_histogram(answers.transform) * 10
        ranks.stairs(shares, np.linspace(0, 1, 11), color=colour, linewidth=1.4)
        errors = running_root_mean_squared_error(
            scores.actuals[answers.answered], answers.mean[answers.answered]
        )
        running.plot(np.arange(1, len(errors) + 1), errors, color=colour, linewidth=1.4)
    below.set(xlabel="quantile level", ylabel="share of actuals below it", title="Reliability")
    ranks.set(xlabel="place among samples", ylabel="density", title="PIT (even is right)")
    running.set(xlabel="first steps of the horizon", ylabel="RMSE", title="Running error")
    for axes in (below, ranks, running):
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=4, fontsize="small", frameon=False)
    figure.suptitle(scores.name, fontsize="medium")
    figure.savefig(path, dpi=120)


def _draw_reliability(axes: Axes, scores: Scores, name: str, colour: str) -> None:
    answers = scores.answers[name]
    seen = np.isfinite(scores.actuals) & answers.answered[:, None]
    below = scores.actuals[..., None] <= answers.quantiles
    if seen.any():
        axes.plot(LEVELS, below[seen].mean(axis=0), ".-", color=colour, label=name, linewidth=1.2)
