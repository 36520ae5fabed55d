"""What `attention` returns: which past steps, and which lags or patches, forecasts drew on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Floats = npt.NDArray[np.float64]

NUM_LAGS_SHOWN = 12


@dataclass(frozen=True)
class Attention:
    """Of some series, one entry each in every sequence."""

    ids: Sequence[Any]
    """Names of the series."""
    history: Sequence[pd.Series[Any]]
    """The context that was looked at."""
    tokens: Sequence[pd.Index[Any]]
    """Time of the last step in each token."""
    weights: Sequence[Floats]
    """Shape `(layer, head, token)`: what the newest token attends to; each head's add up to 1."""
    importance: Sequence[pd.Series[Any]]
    """By how much the median of what comes next changes, in widths of its 80 % interval, when a part
    of the past is hidden from the network and nothing else is altered. An ablation, not a share:
    parts that say the same stand in for each other. Indexed by steps back from the step that is
    forecast (Lag-Llama), or by the last step of each patch (Cria)."""
    parts: Literal["lags", "patches"]

    @property
    def mean_weights(self) -> list[Floats]:
        """Shape `(token,)` for each series: the mean over layers and heads."""
        return [one.mean(axis=(0, 1)) for one in self.weights]

    def plot(self, path: str | Path | None = None, max_series: int = 4) -> Any:
        """For each series, attention over its past, and what mattered; saved where `path` says.

        Returns the matplotlib figure.
        """
        from matplotlib.figure import Figure

        shown = min(len(self.ids), max_series)
        figure = Figure(figsize=(11.0, 3.2 * shown), layout="constrained")
        axes = np.asarray(figure.subplots(shown, 2, width_ratios=[2, 1], squeeze=False))
        for number in range(shown):
            self._draw_past(axes[number, 0], number)
            self._draw_importance(axes[number, 1], number)
        if path is not None:
            figure.savefig(Path(path), dpi=120)
        return figure

    def _draw_past(self, axes: Axes, number: int) -> None:
        past = self.history[number]
        axes.plot(past.index, past.to_numpy(), color="#333333", linewidth=0.9)
        axes.set_title(f"{self.ids[number]}: attention", fontsize="medium", parse_math=False)
        beside = axes.twinx()
        beside.fill_between(
            self.tokens[number],
            self.mean_weights[number],
            step="pre",
            color="#c2452d",
            alpha=0.35,
            linewidth=0,
        )
        beside.set_ylim(bottom=0)
        beside.set_yticks([])
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="x", labelrotation=30, labelsize="small")

    def _draw_importance(self, axes: Axes, number: int) -> None:
        found = self.importance[number]
        if self.parts == "lags":
            largest = found.nlargest(NUM_LAGS_SHOWN)[::-1]
            axes.barh([str(lag) for lag in largest.index], largest, color="#3b6fb6")
            axes.set_ylabel("steps back")
        else:
            axes.fill_between(found.index, found, step="pre", color="#3b6fb6", linewidth=0)
            axes.tick_params(axis="x", labelrotation=30, labelsize="small")
        axes.set_title("change when hidden, in 80 % widths", fontsize="medium")
        axes.spines[["top", "right"]].set_visible(False)
