"""What everything that forecasts returns, what it promises, and the errors users meet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Floats = npt.NDArray[np.float64]

DEFAULT_QUANTILES = (0.1, 0.5, 0.9)


BANDS = {95: "#dbe5f2", 80: "#aec4e2", 50: "#7c9dce"}
"""Opaque tints of a fan chart's intervals, the widest first and lightest, as the legend shows them."""


def stands_alone(values: Floats) -> npt.NDArray[np.bool_]:
    """Known values that no line shows, as their neighbours are missing."""
    known = np.pad(np.isfinite(values), 1)
    return known[1:-1] & ~known[:-2] & ~known[2:]


def level_name(level: float) -> str:
    """A level as names of columns tell it: in a few digits, if these tell it from any other."""
    few = f"{level:g}"
    return few if float(few) == level else repr(float(level))


def refuse_same_names(given: Iterable[str], made: Iterable[str], whose: str) -> None:
    """Refuse data whose columns are called as those that are put beside them.

    Raises:
        DataError: names the column.
    """
    both = set(given) & set(made)
    if both:
        raise DataError(f"the data's column {min(both)!r} is also one of {whose}; rename it")


def history_shown(horizon: int) -> int:
    """Past steps that a picture of `horizon` future ones shows."""
    return max(3 * horizon, 48)


class DataError(ValueError):
    """The user's data or a request cannot be used; the message says where and how to mend it."""


class CheckpointError(ValueError):
    """A file is not a network that can be loaded; the message names it."""


def needs(what: str, extra: str, error: ModuleNotFoundError) -> DataError:
    """What to say where a library is missing: what it is for, and the extra that brings it."""
    missing = f"{what} needs {error.name}, which is not installed"
    return DataError(f"{missing}: pip install 'llamacast[{extra}]'")


def check_whole(name: str, value: Any, largest: int) -> None:
    """Refuse what is no whole number from 1 to `largest`.

    Raises:
        DataError: names the argument.
    """
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or not 1 <= value <= largest:
        raise DataError(f"{name} must be a whole number from 1 to {largest}; got {value!r}")


@dataclass(frozen=True)
class TrainingRecord:
    """What weights have learnt from, so that nobody takes a score on it for a forecast's."""

    datasets: tuple[str, ...] = ()
    """Names of the data sets that they were pretrained on."""
    until: str = ""
    """ISO time stamp of the last step that they were fine-tuned on; empty if they were not."""
    licences: Mapping[str, str] = field(default_factory=dict)
    """Licences of data sets, by name, as far as they are known."""

    def joined(self, later: TrainingRecord) -> TrainingRecord:
        """That of weights which learnt from both."""
        datasets = tuple(dict.fromkeys([*self.datasets, *later.datasets]))
        licences = {**self.licences, **later.licences}
        return TrainingRecord(datasets, max(self.until, later.until), licences)


@dataclass(frozen=True)
class Verdict:
    """What fine-tuning came to, on the last windows of the history, which nothing was learnt from."""

    strategy: str
    crps_before: float
    """CRPS in units of seasonal naive's errors, of the network as it was."""
    crps_after: float
    """Of the network that is returned."""
    share: float
    """How far it lies from the weights that were there (0) to those learnt (1)."""
    steps: int
    num_windows: int

    @property
    def improved(self) -> bool:
        """If not, the network that is returned is the one that was there."""
        return self.share > 0

    def __str__(self) -> str:
        """One sentence."""
        windows = f"CRPS on {self.num_windows} windows held back"
        learnt = f"learnt in {self.steps} steps" if self.steps else "learnt"
        if not self.improved:
            return (
                f"{self.strategy}: nothing {learnt} was surely better than the "
                f"weights as they were ({windows}: {self.crps_before:.4f}); they are kept"
            )
        change = 100 * (self.crps_after / self.crps_before - 1)
        return (
            f"{self.strategy}: {windows} went from {self.crps_before:.4f} to {self.crps_after:.4f} "
            f"({change:+.1f} %), {self.share:.0%} of the way to what was {learnt}"
        )


@runtime_checkable
class Forecaster(Protocol):
    """Anything that forecasts."""

    def forecast(self, data: Any, horizon: int) -> Forecast:
        """Forecast the `horizon` steps after each series of `data` ends.

        `data` is a table of any shape that `llamacast.data.frame.read_panel` takes, or the `Panel`
        that it makes; that function turns either into a `Panel`.
        """
        ...


@dataclass(frozen=True, repr=False)
class Forecast:
    """Sample paths of several series; quantiles, intervals, frames and pictures follow from them."""

    samples: Floats
    """Shape `(series, sample, horizon)`, in the units of the data. Where paths are joint, sums, maxima
    and other functionals of a path may be read off each sample."""
    ids: Sequence[Any]
    """Name of each series."""
    index: Sequence[pd.Index[Any]]
    """Time of each step, one index of length `horizon` for each series."""
    history: Sequence[pd.Series[Any]] = ()
    """What each series was forecast from, for pictures."""
    model: str = "forecast"
    """Name of the forecaster; interval columns begin with it."""
    id_column: str | None = "unique_id"
    """Column of series names in frames; None leaves it out (a single series)."""
    time_column: str = "ds"
    joint: bool = True
    """Whether each sample is one possible future; if not, samples are evenly spaced quantiles of each
    step, and only what is said of single steps holds."""
    notes: Sequence[str] = ()
    """What a user should know of how it was made, in sentences."""
    whole: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(1, dtype=bool))
    """Which series' values are whole numbers, so that quantiles are taken from among them, and not
    between: one answer for each series, or one for all."""

    def __repr__(self) -> str:
        """What it is of, not all of it."""
        size = f"{len(self.ids)} series, {self.horizon} steps, {self.num_samples} samples"
        return "\n".join([f"<Forecast by {self.model}: {size}>", *self.notes])

    def __post_init__(self) -> None:
        if self.samples.ndim != 3:
            raise ValueError("samples must have the shape (series, sample, horizon)")
        if not len(self.samples) == len(self.ids) == len(self.index):
            raise ValueError("samples, ids and index must describe as many series")
        object.__setattr__(self, "whole", np.broadcast_to(self.whole, len(self.samples)))

    @property
    def horizon(self) -> int:
        return int(self.samples.shape[2])

    @property
    def num_samples(self) -> int:
        return int(self.samples.shape[1])

    @property
    def mean(self) -> Floats:
        """Shape `(series, horizon)`."""
        return self.samples.mean(axis=1)

    @property
    def median(self) -> Floats:
        """Shape `(series, horizon)`."""
        return self.quantile(0.5)

    def quantile(self, q: float | Sequence[float]) -> Floats:
        """Quantiles at level `q` in [0, 1]: `(series, horizon)`, or `(series, horizon, level)`."""
        levels = np.atleast_1d(np.asarray(q, dtype=np.float64))
        if levels.size == 0 or not ((levels >= 0) & (levels <= 1)).all():
            raise ValueError(f"quantiles must lie in 0 to 1; got {q}")
        values = np.empty((len(self.samples), self.horizon, len(levels)))
        kinds: dict[Literal["linear", "inverted_cdf"], npt.NDArray[np.bool_]]
        kinds = {"linear": ~self.whole, "inverted_cdf": self.whole}
        for method, rows in kinds.items():
            if rows.any():
                found = np.quantile(self.samples[rows], levels, axis=1, method=method)
                values[rows] = np.moveaxis(found, 0, -1)
        return values[..., 0] if np.ndim(q) == 0 else values

    def interval(self, level: float) -> tuple[Floats, Floats]:
        """Central interval that holds `level` per cent (0 to 100): lower and upper ends."""
        if not 0 < level < 100:
            raise ValueError(f"an interval's level is in per cent, between 0 and 100; got {level}")
        tail = (1 - level / 100) / 2
        return self.quantile(tail), self.quantile(1 - tail)

    def to_frame(
        self,
        quantiles: Sequence[float] | None = None,
        levels: Sequence[float] | None = None,
    ) -> pd.DataFrame:
        """A row for each series and step: id, time, `mean`, then what is asked for.

        `quantiles=[0.1, 0.9]` adds columns "0.1" and "0.9"; `levels=[80]` adds "MODEL-lo-80" and
        "MODEL-hi-80" with the model's name. Asked for nothing, 0.1, 0.5 and 0.9.
        """
        import pandas as pd

        if quantiles is None and levels is None:
            quantiles = DEFAULT_QUANTILES
        labels: dict[str, Any] = {}
        if self.id_column is not None:
            positions = np.repeat(np.arange(len(self.ids)), self.horizon)
            labels[self.id_column] = pd.Index(self.ids).take(positions)
        first, *others = self.index
        labels[self.time_column] = first.append(others) if others else first
        columns: dict[str, Any] = {"mean": self.mean.ravel()}
        for q in quantiles or ():
            columns[level_name(q)] = self.quantile(q).ravel()
        for level in levels or ():
            low, high = self.interval(level)
            columns[f"{self.model}-lo-{level_name(level)}"] = low.ravel()
            columns[f"{self.model}-hi-{level_name(level)}"] = high.ravel()
        refuse_same_names(labels, columns, "the forecast's")
        return pd.DataFrame({**labels, **columns})

    def plot(
        self,
        path: str | Path | None = None,
        actuals: pd.DataFrame | None = None,
        max_series: int = 9,
    ) -> Any:
        """Draw a fan chart of each series, with its history; save it where `path` says.

        `actuals` is a frame with this forecast's id, time and one value column, drawn over it.
        Returns the matplotlib figure.
        """
        from matplotlib.figure import Figure

        shown = min(len(self.ids), max_series)
        num_columns = 1 if shown == 1 else 2 if shown <= 4 else 3
        num_rows = -(-shown // num_columns)
        size = (9.0, 4.0) if shown == 1 else (5.0 * num_columns, 3.0 * num_rows)
        figure = Figure(figsize=size, layout="constrained")
        axes = np.atleast_1d(np.asarray(figure.subplots(num_rows, num_columns))).ravel()
        for number in range(shown):
            self._draw(axes[number], number, actuals)
        for spare in axes[shown:]:
            spare.set_visible(False)
        drawn = axes[0].get_legend_handles_labels()
        figure.legend(*drawn, loc="outside upper center", ncols=6, fontsize="small", frameon=False)
        if shown < len(self.ids):
            figure.supxlabel(f"{shown} of {len(self.ids)} series", fontsize="small")
        if path is not None:
            figure.savefig(Path(path), dpi=120)
        return figure

    def _draw(self, axes: Axes, number: int, actuals: pd.DataFrame | None) -> None:
        times = self.index[number]
        if self.history:
            past = self.history[number]
            values = past.to_numpy(dtype=np.float64)
            axes.plot(past.index, values, color="#333333", linewidth=1.0, label="history")
            lone = stands_alone(values)
            axes.plot(past.index[lone], values[lone], ".", color="#333333", markersize=3)
        for level, tint in BANDS.items():
            low, high = (end[number] for end in self.interval(level))
            axes.fill_between(times, low, high, color=tint, linewidth=0, label=f"{level} %")
        axes.plot(times, self.median[number], color="#1d3f73", linewidth=1.6, label="median")
        if actuals is not None:
            seen = self._actuals_of(actuals, number)
            axes.plot(times, seen, color="#c2452d", linewidth=1.2, label="actual")
        if len(self.ids) > 1 or self.id_column is not None:
            axes.set_title(str(self.ids[number]), fontsize="medium", parse_math=False)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="x", labelrotation=30, labelsize="small")

    def _actuals_of(self, actuals: pd.DataFrame, number: int) -> Floats:
        roles = [self.time_column] if self.id_column is None else [self.id_column, self.time_column]
        missing = [role for role in roles if role not in actuals.columns]
        others = [column for column in actuals.columns if column not in roles]
        if missing or len(others) != 1:
            raise DataError(f"actuals need the columns {', '.join(roles)} and one of values")
        if self.id_column is not None:
            actuals = actuals[actuals[self.id_column] == self.ids[number]]
        return (
            actuals.set_index(self.time_column)[others[0]]
            .reindex(self.index[number])
            .to_numpy(dtype=np.float64)
        )
