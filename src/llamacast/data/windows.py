"""Cut windows: the last to forecast from, rolling ones to score on, random ones to learn from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from llamacast.data.calendar import NUM_FEATURES, season_candidates
from llamacast.data.panel import Covariates, Panel
from llamacast.forecast import DataError

SHORTEST_HISTORY = 4
# Shares of training windows that are altered, so that the network meets what users bring.
SHARE_CUT_SHORT = 0.15
SHARE_WITHOUT_CALENDAR = 0.1


@dataclass(frozen=True)
class Windows:
    """Equally long windows of several series, ready for a network."""

    values: npt.NDArray[np.floating]
    """Shape `(series, time)`; 0 where not observed."""
    observed: npt.NDArray[np.bool_]
    """Shape `(series, time)`; False before a series begins and where it is missing."""
    calendar: npt.NDArray[np.float32]
    """Shape `(series, step, 6)`: features of the window's last steps and of any that follow; 0
    before a series begins and for series without a calendar."""


def pad_left(
    values: npt.NDArray[np.floating], length: int
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.bool_]]:
    """The last `length` values, filled up on the left; NaN becomes 0, not observed."""
    tail = values[-length:]
    padded = np.zeros(length, dtype=values.dtype)
    observed = np.zeros(length, dtype=bool)
    if len(tail):
        known = ~np.isnan(tail)
        observed[-len(tail) :] = known
        padded[-len(tail) :][known] = tail[known]
    return padded, observed


def last_windows(
    panel: Panel, series: slice, history_length: int, context_length: int, horizon: int
) -> Windows:
    """The end of each series, with the calendar of the context and of the horizon after it.

    Values are `(series, history_length)` in float64, the calendar is
    `(series, context_length + horizon, 6)`.
    """
    padded = [pad_left(values, history_length) for values in panel.values[series]]
    calendar = np.zeros((len(padded), context_length + horizon, NUM_FEATURES), dtype=np.float32)
    for row, (values, axis) in enumerate(
        zip(panel.values[series], panel.axes[series], strict=True)
    ):
        num_known = min(context_length, len(values))
        first = context_length - num_known
        calendar[row, first:] = axis.features(len(values) - num_known, num_known + horizon)
    return Windows(
        np.stack([values for values, _ in padded]),
        np.stack([observed for _, observed in padded]),
        calendar,
    )


def last_values(
    panel: Panel, series: npt.NDArray[np.int64], longest: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """The ends of some series, up to `longest` steps, and the periods that their frequencies suggest.

    Values, 0 where missing, and whether they were observed are `(series, time)`, as long as the
    longest of them; periods are `(series, 2)`, in steps, 0 for none.
    """
    length = min(longest, max(len(panel.values[one]) for one in series))
    padded = [pad_left(panel.values[one], length) for one in series]
    seasons = [season_candidates(panel.axes[one].frequency) for one in series]
    return (
        np.stack([values for values, _ in padded]),
        np.stack([observed for _, observed in padded]),
        np.array(seasons, dtype=np.int64),
    )


def check_known(panel: Panel, length: int) -> None:
    """Refuse series of whose last `length` steps, which are all that a network sees, none is known.

    Raises:
        DataError: names the first of them, and its last known step.
    """
    for name, values, axis in zip(panel.ids, panel.values, panel.axes, strict=True):
        if np.isnan(values[-length:]).all():
            last = axis.index(int(np.flatnonzero(~np.isnan(values))[-1]), 1)[0]
            raise DataError(
                f"series {name!r} has no value in its last {length} steps, which are all that a "
                f"forecast is made from; its last value is at {last}: end it there, raise "
                "context_length or leave it out"
            )


@dataclass(frozen=True)
class Origins:
    """Points in series from which the steps that follow are forecast, and then compared."""

    panel: Panel
    series: npt.NDArray[np.int64]
    """Which series each window is of; windows of a series stand in order of time, those of a group at
    one time together."""
    cuts: npt.NDArray[np.int64]
    """Steps of the series that each window knows."""
    horizon: int

    def __len__(self) -> int:
        return len(self.series)

    def histories(self, part: slice) -> Panel:
        """What is known at some windows; each is called by its series and its last known step."""
        chosen = list(zip(self.series[part], self.cuts[part], strict=True))
        return Panel(
            [
                f"{self.panel.ids[s]} @ {self.panel.axes[s].index(cut - 1, 1)[0]}"
                for s, cut in chosen
            ],
            [_read_only(self.panel.values[s][:cut]) for s, cut in chosen],
            [self.panel.axes[s] for s, _ in chosen],
            self.panel.columns,
            self._beside(self.series[part], self.cuts[part]),
            None if self.groups is None else self.groups[part],
        )

    def known_within(self, length: int) -> npt.NDArray[np.bool_]:
        """Of which windows something is known in their last `length` steps."""
        places = zip(self.series, self.cuts, strict=True)
        ends = (self.panel.values[s][max(0, cut - length) : cut] for s, cut in places)
        return np.array([bool(np.isfinite(end).any()) for end in ends], dtype=bool)

    def choose(self, rows: npt.NDArray[np.bool_]) -> Origins:
        """Some of the windows."""
        return replace(self, series=self.series[rows], cuts=self.cuts[rows])

    def actuals(self) -> npt.NDArray[np.float64]:
        """What came after each, shape `(window, horizon)`; NaN where it is missing."""
        return np.stack(
            [
                self.panel.values[s][cut : cut + self.horizon]
                for s, cut in zip(self.series, self.cuts, strict=True)
            ]
        )

    def cutoffs(self) -> list[Any]:
        """Label of the last known step of each window."""
        return [
            self.panel.axes[s].index(cut - 1, 1)[0]
            for s, cut in zip(self.series, self.cuts, strict=True)
        ]

    def before(self) -> Panel:
        """Each series up to its first origin: what may be learnt from to forecast all windows."""
        chosen, first = np.unique(self.series, return_index=True)
        return Panel(
            [self.panel.ids[s] for s in chosen],
            [
                _read_only(self.panel.values[s][: self.cuts[row]])
                for s, row in zip(chosen, first, strict=True)
            ],
            [self.panel.axes[s] for s in chosen],
            self.panel.columns,
            self._beside(chosen, self.cuts[first]),
            None if self.panel.groups is None else [self.panel.groups[s] for s in chosen],
        )

    @cached_property
    def groups(self) -> list[Any] | None:
        """What windows belong together: those of a group's series that end as far back."""
        groups, lengths = self.panel.groups, [len(values) for values in self.panel.values]
        if groups is None:
            return None
        places = zip(self.series, self.cuts, strict=True)
        return [(groups[s], int(lengths[s] - cut)) for s, cut in places]

    def _beside(
        self, series: npt.NDArray[np.int64], cuts: npt.NDArray[np.int64]
    ) -> Covariates | None:
        """Covariates as known at some cuts."""
        known = self.panel.covariates
        return known and known.cut(series.tolist(), [0] * len(cuts), cuts.tolist())


def _read_only(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A view that a forecaster cannot change: one window's history holds another's actuals."""
    view = values.view()
    view.flags.writeable = False
    return view


def rolling_origins(panel: Panel, horizon: int, num_windows: int, step: int) -> Origins:
    """Up to `num_windows` origins in each series, `step` apart; the last forecasts its last steps.

    Windows are left out where a series begins too late for them, or where all that is known, or all
    that is to be compared, is missing.

    Raises:
        DataError: if no series is long enough for any.
    """
    series, cuts = [], []
    for number, values in enumerate(panel.values):
        known = ~np.isnan(values)
        for back in reversed(range(num_windows)):
            cut = len(values) - horizon - back * step
            if cut > 0 and known[:cut].any() and known[cut : cut + horizon].any():
                series.append(number)
                cuts.append(cut)
    if not series:
        longest = int(np.argmax([len(values) for values in panel.values]))
        raise DataError(
            f"horizon {horizon} leaves no history to forecast from: the longest series, "
            f"{panel.ids[longest]!r}, has {len(panel.values[longest])} steps; shorten the horizon"
        )
    found = Origins(panel, np.array(series), np.array(cuts), horizon)
    if found.groups is None:
        return found
    ranks = {group: rank for rank, group in enumerate(dict.fromkeys(panel.groups or ()))}
    keys = [(ranks[group], -back) for group, back in found.groups]
    order = sorted(range(len(found)), key=keys.__getitem__)
    return replace(found, series=found.series[order], cuts=found.cuts[order])


def evenly(count: int, most: int) -> npt.NDArray[np.int64]:
    """Places of up to `most` of `count` things, from all over them."""
    return np.linspace(0, count - 1, min(count, most)).astype(np.int64)


@dataclass(frozen=True)
class WindowShape:
    """Lengths, in steps, of the windows that a network learns from."""

    history: int
    """Values that a window is scaled by."""
    horizon: int
    """Values after them."""
    num_steps: int
    """Last steps of the whole for which the calendar is told."""


@dataclass(frozen=True)
class Draws:
    """Where training windows lie: numbers of series and of steps in them, each `(window,)`."""

    series: npt.NDArray[np.int64]
    origins: npt.NDArray[np.int64]
    """First step of each horizon."""
    firsts: npt.NDArray[np.int64]
    """First step that is shown of each history, which may be cut short."""
    with_calendar: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.series)

    def part(self, rows: slice) -> Draws:
        return Draws(
            self.series[rows], self.origins[rows], self.firsts[rows], self.with_calendar[rows]
        )


def draw_stretches(
    rng: np.random.Generator,
    chances: npt.NDArray[np.float64],
    ends: npt.NDArray[np.int64],
    num_windows: int,
    length: int,
    patch_length: int,
) -> Draws:
    """Draw series by their `chances`, and stretches of `length` steps before `ends` of each.

    A stretch begins within the series, or less than a patch before it, so that a first patch may be
    filled in part. What is beyond the end of a short series is not there.
    """
    series = rng.choice(len(chances), num_windows, p=chances)
    offset = rng.integers(0, patch_length, num_windows)
    room = np.maximum(ends[series] - (length - offset), 0)
    firsts = (rng.random(num_windows) * (room + 1)).astype(np.int64)
    with_calendar = rng.random(num_windows) >= SHARE_WITHOUT_CALENDAR
    return Draws(series, firsts - offset, firsts, with_calendar)


def draw_windows(
    rng: np.random.Generator,
    chances: npt.NDArray[np.float64],
    begins: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    num_windows: int,
    shape: WindowShape,
) -> Draws:
    """Draw series by their `chances`, and forecast origins evenly between `begins` and `ends` of each.

    An origin has at least 4 steps before it. Some histories are cut short and some windows come
    without a calendar, as users' series do.
    """
    series = rng.choice(len(chances), num_windows, p=chances)
    lowest = np.maximum(begins[series], SHORTEST_HISTORY)
    spread = np.maximum(ends[series] - lowest, 1)
    origins = lowest + (rng.random(num_windows) * spread).astype(np.int64)
    firsts = np.maximum(origins - shape.history, 0)
    room = origins - SHORTEST_HISTORY - firsts
    cut = rng.random(num_windows) < SHARE_CUT_SHORT
    firsts += np.where(cut, rng.random(num_windows) * (room + 1), 0).astype(np.int64)
    with_calendar = rng.random(num_windows) >= SHARE_WITHOUT_CALENDAR
    return Draws(series, origins, firsts, with_calendar)
