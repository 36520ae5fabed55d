"""What `detect` returns: how expected each known value was, and which were not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from llamacast.forecast import refuse_same_names, stands_alone

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Floats = npt.NDArray[np.float64]

# Share of bands that may reach beyond a picture, and of its height that is left above and below.
BANDS_CUT, MARGIN = 0.05, 0.05


@dataclass(frozen=True)
class Anomalies:
    """Of each value of each series: what was expected, and the probability of one as odd."""

    ids: Sequence[Any]
    """Name of each series."""
    index: Sequence[pd.Index[Any]]
    """Time of each step of each series."""
    values: Sequence[Floats]
    """What was observed; NaN where missing."""
    expected: Sequence[Floats]
    """Median of what was told before; NaN where too little was known to tell."""
    low: Sequence[Floats]
    high: Sequence[Floats]
    """Between these a value is no anomaly."""
    probability: Sequence[Floats]
    """Of a value at least as far out, on either side, in (0, 1]; NaN where nothing is judged."""
    false_alarm_rate: float
    """Share of ordinary values that are flagged."""
    id_column: str | None = "unique_id"
    """Column of series names in frames; None leaves it out (a single series)."""
    time_column: str = "ds"
    target_column: str = "y"

    @property
    def flags(self) -> list[npt.NDArray[np.bool_]]:
        """Which values are anomalies."""
        return [one < self.false_alarm_rate for one in self.probability]

    def to_frame(self) -> pd.DataFrame:
        """A row for each step: id, time, value, `expected`, `low`, `high`, `probability`, `score`
        (minus its decimal logarithm) and `anomaly`.

        Raises:
            DataError: if one of the data's columns is called like one of these.
        """
        import pandas as pd

        lengths = [len(one) for one in self.values]
        first, *others = self.index
        labels: dict[str, Any] = {}
        if self.id_column is not None:
            labels[self.id_column] = pd.Index(self.ids).take(
                np.repeat(range(len(lengths)), lengths)
            )
        labels[self.time_column] = first.append(others) if others else first
        labels[self.target_column] = np.concatenate(self.values)
        probability = np.concatenate(self.probability)
        found = {
            "expected": np.concatenate(self.expected),
            "low": np.concatenate(self.low),
            "high": np.concatenate(self.high),
            "probability": probability,
            "score": -np.log10(probability),
            "anomaly": np.concatenate(self.flags),
        }
        refuse_same_names(labels, found, "what is told of each value")
        return pd.DataFrame({**labels, **found})

    def plot(
        self, path: str | Path | None = None, last: int | None = None, max_series: int = 6
    ) -> Any:
        """Draw each series, its band and its anomalies; save it where `path` says.

        `last` shows so many last steps only. Returns the matplotlib figure.
        """
        from matplotlib.figure import Figure

        shown = min(len(self.ids), max_series)
        figure = Figure(figsize=(10.0, max(3.2, 2.4 * shown)), layout="constrained")
        axes = np.atleast_1d(np.asarray(figure.subplots(shown, 1)))
        for number in range(shown):
            self._draw(axes[number], number, slice(-last if last else None, None))
        drawn = axes[0].get_legend_handles_labels()
        figure.legend(*drawn, loc="outside upper center", ncols=4, fontsize="small", frameon=False)
        if shown < len(self.ids):
            figure.supxlabel(f"{shown} of {len(self.ids)} series", fontsize="small")
        if path is not None:
            figure.savefig(Path(path), dpi=120)
        return figure

    def _draw(self, axes: Axes, number: int, part: slice) -> None:
        times, values = self.index[number][part], self.values[number][part]
        low, high = self.low[number][part], self.high[number][part]
        flagged = self.flags[number][part]
        axes.fill_between(times, low, high, color="#3b6fb6", alpha=0.25, lw=0, label="expected")
        axes.plot(times, values, color="#333333", linewidth=0.9, label="observed")
        lone = stands_alone(values)
        axes.plot(times[lone], values[lone], ".", color="#333333", markersize=3)
        axes.plot(
            times[flagged], values[flagged], "o", color="#c2452d", markersize=4, label="anomaly"
        )
        ends = _ends(values, low, high)
        if ends is not None:
            axes.set_ylim(*ends)
        if len(self.ids) > 1 or self.id_column is not None:
            axes.set_title(str(self.ids[number]), fontsize="medium", parse_math=False)
        axes.spines[["top", "right"]].set_visible(False)


def _ends(values: Floats, low: Floats, high: Floats) -> tuple[float, float] | None:
    """Of the vertical axis: all values, and bands but for those of the first steps, which are wide."""
    shown = [one[np.isfinite(one)] for one in (values, low, high)]
    if not all(map(len, shown)):
        return None
    bottom = min(shown[0].min(), np.quantile(shown[1], BANDS_CUT))
    top = max(shown[0].max(), np.quantile(shown[2], 1 - BANDS_CUT))
    room = MARGIN * (top - bottom)
    return (float(bottom - room), float(top + room)) if room > 0 else None
