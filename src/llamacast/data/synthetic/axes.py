"""Time axes of made-up series: frequencies, starts, lengths, and where in the calendar steps fall."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from llamacast.data.calendar import Frequency, Stamps, parse_frequency, stamps_from
from llamacast.data.synthetic.draws import Flags, Integers, Rng, Rows, chance, column

Span = Literal["minute", "hour", "day", "week", "year"]

SHARES: dict[str, float] = {
    **{"10s": 0.03, "min": 0.05, "5min": 0.08, "10min": 0.04, "15min": 0.08, "30min": 0.05},
    **{"h": 0.11, "D": 0.18, "B": 0.04, "W": 0.10, "MS": 0.13, "QS": 0.06, "YS": 0.05},
}
"""How often each frequency is drawn."""

DAYS_OF_YEAR = 365.25
_SECONDS: dict[Span, float] = {
    "minute": 60,
    "hour": 3600,
    "day": 86400,
    "week": 7 * 86400,
    "year": DAYS_OF_YEAR * 86400,
}
SPANS: tuple[Span, ...] = tuple(_SECONDS)
_DAY = 86400 * 10**9

# Fewest and most steps; sub-daily and daily series go up to what the caller asks for.
_LENGTHS = {"W": (60, 1000), "M": (36, 600), "Q": (16, 200), "Y": (12, 80)}
_FEWEST_FAST_STEPS = 300
# First year of a series: earliest and latest.
_YEARS = {"D": (1950, 2025), "B": (1950, 2025), "W": (1930, 2024)}
_YEARS_OF_CLOCKS = (1990, 2025)
_YEARS_OF_MONTHS = (1900, 2020)
MOST_STEPS = 50_000
"""So that business days from 2025 on stay within what stamps can tell."""


@dataclass(frozen=True)
class Axes:
    """Time axes of some series that are made together, as rows of one array.

    Rows are as long as the longest series; what lies beyond a series' own length is cut off.
    """

    starts: Stamps
    frequencies: Sequence[Frequency]
    lengths: Integers

    @property
    def num_series(self) -> int:
        return len(self.lengths)

    @property
    def num_steps(self) -> int:
        return int(self.lengths.max())

    @property
    def shape(self) -> tuple[int, int]:
        return self.num_series, self.num_steps

    def take(self, rows: npt.NDArray[Any]) -> Axes:
        """Some of the series, by number; a number may stand more than once."""
        return Axes(self.starts[rows], [self.frequencies[row] for row in rows], self.lengths[rows])

    def longer(self, steps: int) -> Axes:
        """The same, each `steps` longer."""
        return replace(self, lengths=self.lengths + steps)

    @cached_property
    def stamps(self) -> Stamps:
        """Stamps of all steps, `(series, step)`; those beyond a series' end repeat its last."""
        out = np.empty(self.shape, dtype="datetime64[ns]")
        for row, (start, frequency, length) in enumerate(
            zip(self.starts, self.frequencies, self.lengths, strict=True)
        ):
            out[row, :length] = stamps_from(start, frequency, 0, int(length))
            out[row, length:] = out[row, length - 1]
        return out

    @property
    def progress(self) -> Rows:
        """Time from 0 at a series' start to 1 at its end, `(series, step)`."""
        return np.arange(self.num_steps) / column(self.lengths)

    def periods(self, span: Span) -> Rows:
        """Steps in a minute, an hour, ..., a year of each series, `(series,)`; below 1 if less."""
        return np.array([_steps_in(span, frequency) for frequency in self.frequencies])

    def shows(self, span: Span) -> Flags:
        """Which series have at least two steps in the span, and are at least as long as it."""
        periods = self.periods(span)
        return (periods >= 2) & (periods <= self.lengths)

    def phases(self, span: Span) -> Rows:
        """How much of the current minute, ..., year has passed at each step: in `[0, 1)`.

        Weeks begin on Monday. Steps of months tell whole months of the year.
        """
        if span == "year":
            return self._phases_of_year()
        elapsed = self.stamps.astype(np.int64)
        if span == "week":
            elapsed = elapsed + 3 * _DAY  # 1970-01-01 was a Thursday
        length = int(_SECONDS[span]) * 10**9
        return (elapsed % length) / length

    def _phases_of_year(self) -> Rows:
        days = self.stamps.astype("datetime64[D]")
        year = self.stamps.astype("datetime64[Y]")
        passed = (days - year.astype("datetime64[D]")).astype(np.float64) / (DAYS_OF_YEAR + 1)
        months = (self.stamps.astype("datetime64[M]") - year.astype("datetime64[M]")).astype(float)
        by_month = np.array([frequency.months > 0 for frequency in self.frequencies])
        return np.where(column(by_month), months / 12, passed)

    @property
    def days(self) -> Integers:
        """Days from 1970 to that of each step."""
        return self.stamps.astype("datetime64[D]").astype(np.int64)

    @property
    def weekdays(self) -> Integers:
        """Day of the week of each step, Monday 0."""
        return (self.days + 3) % 7


def _steps_in(span: Span, frequency: Frequency) -> float:
    if frequency.months:
        return 12 / frequency.months if span == "year" else 0.0
    if frequency.unit == "B":
        weeks = _SECONDS[span] / _SECONDS["week"]
        return 5 * weeks if weeks >= 1 else weeks
    return _SECONDS[span] * 10**9 / frequency.nanoseconds


def draw_axes(
    rng: Rng, num_series: int, longest: int, shares: Mapping[str, float] | None = None
) -> Axes:
    """Time axes with frequencies drawn by `shares`, each with a plausible start and length."""
    shares = shares or SHARES
    weights = np.array(list(shares.values()))
    names = rng.choice(list(shares), size=num_series, p=weights / weights.sum())
    frequencies = [_anchored(rng, parse_frequency(str(name))) for name in names]
    lengths = [_draw_length(rng, frequency, longest) for frequency in frequencies]
    starts = [_draw_start(rng, frequency) for frequency in frequencies]
    return Axes(np.array(starts, dtype="datetime64[ns]"), frequencies, np.array(lengths))


def _anchored(rng: Rng, frequency: Frequency) -> Frequency:
    """Weeks end on Sunday in half of the series, else on any day."""
    if frequency.unit != "W" or rng.random() < 0.5:
        return frequency
    return replace(frequency, anchor=int(rng.integers(7)))


def _draw_length(rng: Rng, frequency: Frequency, longest: int) -> int:
    fewest, most = _LENGTHS.get(frequency.unit, (_FEWEST_FAST_STEPS, MOST_STEPS))
    most = min(most, longest)
    return int(rng.integers(min(fewest, most), most + 1))


def _draw_start(rng: Rng, frequency: Frequency) -> np.datetime64:
    """Some day of a plausible year, moved to where stamps of the frequency stand."""
    otherwise = _YEARS_OF_CLOCKS if frequency.is_clock else _YEARS_OF_MONTHS
    earliest, latest = _YEARS.get(frequency.unit, otherwise)
    first = np.datetime64(str(rng.integers(earliest, latest + 1)), "D")
    day = first + np.timedelta64(int(rng.integers(365)), "D")
    midnight = _STAND[frequency.unit](day, frequency).astype("datetime64[ns]")
    if not frequency.is_clock or chance(rng, 0.5, 1)[0]:
        return midnight
    steps_of_day = _DAY // frequency.nanoseconds
    return midnight + np.timedelta64(int(rng.integers(steps_of_day)) * frequency.nanoseconds, "ns")


def _week_end(day: np.datetime64, frequency: Frequency) -> np.datetime64:
    weekday = (int(day.astype(np.int64)) + 3) % 7
    return day + np.timedelta64((frequency.anchor - weekday) % 7, "D")


def _quarter_start(day: np.datetime64, frequency: Frequency) -> np.datetime64:
    month = day.astype("datetime64[M]")
    return month - np.timedelta64(int(month.astype(np.int64)) % 3, "M")


_STAND: dict[str, Callable[[np.datetime64, Frequency], np.datetime64]] = {
    **dict.fromkeys(("s", "min", "h", "D"), lambda day, frequency: day),
    "B": lambda day, frequency: np.busday_offset(day, 0, roll="forward"),
    "W": _week_end,
    "M": lambda day, frequency: day.astype("datetime64[M]"),
    "Q": _quarter_start,
    "Y": lambda day, frequency: day.astype("datetime64[Y]"),
}


def by_kind(rng: Rng, axes: Axes, kinds: Mapping[str, Callable[[Rng, Axes], Rows]]) -> Rows:
    """Rows of a family with several kinds of series, each row of a kind drawn evenly."""
    drawn = rng.integers(len(kinds), size=axes.num_series)
    out = np.zeros(axes.shape)
    for number, make in enumerate(kinds.values()):
        rows = np.flatnonzero(drawn == number)
        if len(rows):
            made = make(rng, axes.take(rows))
            out[rows, : made.shape[1]] = made
            out[rows, made.shape[1] :] = made[:, -1:]
    return out
