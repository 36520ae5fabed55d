"""Series on regular time axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from llamacast.data.calendar import (
    NUM_FEATURES,
    Frequency,
    calendar_features,
    infer_frequency,
    placed_like,
    stamps_from,
    step_numbers,
)
from llamacast.forecast import DataError, Forecast, history_shown

LARGEST_GAP_SHARE = 100
"""A series may be stretched by missing steps to this many times its rows, or to `FREE_STEPS`."""
FREE_STEPS = 100_000
LEAST_STRAY_STEPS = 1_000
"""A single gap of more steps than these, in a series that lacks nine steps in ten and half of whose
span it is, comes from a wrong date; rows that are few but honest lie scattered."""


# When clocks are set back: a weekday, the hours before this one, some months.
SUNDAY, SMALL_HOURS, CHANGES = 6, 4, (3, 4, 9, 10, 11)


@dataclass(frozen=True)
class Largest:
    """How much a table may become. It is refused before it is laid out: of strangers' tables, a few
    rows may span many steps."""

    series: int
    points: int
    """Steps, those that are missing counted, over all series."""


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a long frame; None for what the user's data do not have."""

    id: str | None
    time: str
    target: str


@dataclass(frozen=True)
class TimeAxis:
    """The regular steps of one series: time stamps, or whole numbers where `frequency` is None."""

    start: np.datetime64 | int
    frequency: Frequency | None
    step: int = 1
    """Distance between whole numbers."""
    zone: Any = None
    """Time zone in which stamps are shown; stamps shorter than a day pass evenly in UTC."""

    def index(self, first: int, count: int) -> pd.Index[Any]:
        """Labels of steps `first ... first + count - 1`, as the user writes them."""
        if self.frequency is None:
            labels = int(self.start) + self.step * np.arange(first, first + count)
            return pd.Index(labels)
        stamps = pd.DatetimeIndex(self._stamps(first, count))
        if self.zone is None:
            return stamps
        if self.frequency.is_clock:
            return stamps.tz_localize("UTC").tz_convert(self.zone)
        return stamps.tz_localize(self.zone, ambiguous=True, nonexistent="shift_forward")

    def moved(self, first: int) -> TimeAxis:
        """The same steps, counted from another one."""
        if self.frequency is None:
            return replace(self, start=int(self.start) + self.step * first)
        return replace(self, start=self._stamps(first, 1)[0])

    def features(self, first: int, count: int) -> npt.NDArray[np.float32]:
        """Calendar features `(step, 6)` by the clock on the user's wall; zeros without dates."""
        if self.frequency is None:
            return np.zeros((count, NUM_FEATURES), dtype=np.float32)
        if self.zone is None or not self.frequency.is_clock:
            return calendar_features(self._stamps(first, count), self.frequency)
        local = pd.DatetimeIndex(self.index(first, count)).tz_localize(None)
        return calendar_features(local.to_numpy().astype("datetime64[ns]"), self.frequency)

    def _stamps(self, first: int, count: int) -> npt.NDArray[np.datetime64]:
        assert self.frequency is not None
        assert isinstance(self.start, np.datetime64)
        return stamps_from(self.start, self.frequency, first, count)


@dataclass(frozen=True)
class Covariates:
    """Numbers beside the values of each series of a panel. Categories are a column for each word."""

    names: tuple[str, ...]
    ahead: npt.NDArray[np.bool_]
    """Which columns are known for steps that are still to come, `(column,)`."""
    still: npt.NDArray[np.bool_]
    """Which of these never change within a series, and so are known for any step."""
    values: Sequence[npt.NDArray[np.float64]]
    """Of each series `(step, column)`: its own steps, and those after them that are known. NaN where
    not known."""

    def cut(self, series: Sequence[int], firsts: Sequence[int], ends: Sequence[int]) -> Covariates:
        """Of some series, from a first step on, as known at an end: of later steps only what is known
        ahead."""
        found = []
        for number, first, end in zip(series, firsts, ends, strict=True):
            part = self.values[number][first:].copy()
            part[end - first :, ~self.ahead] = np.nan
            found.append(part)
        return replace(self, values=found)

    def all_ahead(self) -> Covariates:
        """As if all were known for steps that are still to come."""
        return replace(self, ahead=np.ones_like(self.ahead))


@dataclass(frozen=True)
class Panel:
    """Series on regular time axes. NaN is missing; every series has at least one value."""

    ids: Sequence[Any]
    values: Sequence[npt.NDArray[np.float64]]
    axes: Sequence[TimeAxis]
    columns: Columns
    covariates: Covariates | None = None
    """What is known beside the values, if anything."""
    groups: Sequence[Any] | None = None
    """Of each series, the name of the group whose series move together, if that is told."""

    def __len__(self) -> int:
        return len(self.ids)

    def stretch(self, firsts: Sequence[int], ends: Sequence[int]) -> Panel:
        """A part of each series: from its own first step up to its own end; at least a step each.

        Of covariates, what was known ahead at the end stays.
        """
        beside = self.covariates and self.covariates.cut(range(len(self)), firsts, ends)
        return Panel(
            self.ids,
            [
                values[first:end]
                for values, first, end in zip(self.values, firsts, ends, strict=True)
            ],
            [axis.moved(first) for axis, first in zip(self.axes, firsts, strict=True)],
            self.columns,
            beside,
            self.groups,
        )

    def choose(self, series: Sequence[int]) -> Panel:
        """Some of the series."""
        ends = [len(self.values[number]) for number in series]
        beside = self.covariates and self.covariates.cut(series, [0] * len(ends), ends)
        return Panel(
            [self.ids[number] for number in series],
            [self.values[number] for number in series],
            [self.axes[number] for number in series],
            self.columns,
            beside,
            self.groups and [self.groups[number] for number in series],
        )

    def to_frame(self) -> pd.DataFrame:
        """A long frame: id, time and target, named by `columns` ("unique_id" where there is no id)."""
        lengths = [len(values) for values in self.values]
        first, *others = (axis.index(0, n) for axis, n in zip(self.axes, lengths, strict=True))
        labels = pd.Index(self.ids).take(np.repeat(np.arange(len(self)), lengths))
        return pd.DataFrame(
            {
                self.columns.id or "unique_id": labels,
                self.columns.time: first.append(others) if others else first,
                self.columns.target: np.concatenate(self.values),
            }
        )

    def steps_behind(self) -> npt.NDArray[np.int64]:
        """How many steps each series ends before the last to end; 0 where they have no dates or differ
        in frequency."""
        first, *others = {axis.frequency and axis.frequency.unplaced for axis in self.axes}
        places = zip(self.axes, self.values, strict=True)
        alike = len({(axis.start, len(values)) for axis, values in places}) == 1
        if first is None or others or alike:
            return np.zeros(len(self), dtype=np.int64)
        ends = [
            axis.moved(len(values)).start
            for axis, values in zip(self.axes, self.values, strict=True)
        ]
        stamps = np.array(ends, dtype="datetime64[ns]")
        return step_numbers(np.full(len(self), stamps.max()), stamps, first)[0]

    def last_stamp(self) -> str:
        """ISO time stamp of the last step of all series; nothing where steps are counted."""
        ends = [
            axis.index(len(values) - 1, 1)[0]
            for axis, values in zip(self.axes, self.values, strict=True)
            if axis.frequency is not None
        ]
        # Some may have a zone, and others none.
        last = max(ends, key=lambda end: end.tz_localize(None), default=None)
        return "" if last is None else str(last.isoformat())

    def answer(self, samples: npt.NDArray[np.float64], model: str, joint: bool = True) -> Forecast:
        """The forecast that goes on where each series ends; samples `(series, sample, horizon)`."""
        horizon = samples.shape[2]
        index, history = [], []
        for values, axis in zip(self.values, self.axes, strict=True):
            known = np.flatnonzero(np.isfinite(values))
            missing = len(values) - 1 - int(known[-1]) if len(known) else 0
            shown = min(len(values), missing + history_shown(horizon))
            index.append(axis.index(len(values), horizon))
            history.append(pd.Series(values[-shown:], axis.index(len(values) - shown, shown)))
        return Forecast(
            samples, self.ids, index, history, model, self.columns.id, self.columns.time, joint
        )


@dataclass(frozen=True)
class Rows:
    """A long table: one value in each row, rows in any order."""

    ids: npt.NDArray[Any]
    """Series that each row belongs to."""
    steps: npt.NDArray[Any]
    """Times as `datetime64[ns]` (in UTC where steps are shorter than a day), or whole numbers."""
    target: npt.NDArray[np.float64]
    numbers: npt.NDArray[np.int64]
    """Rows of the user's table, for messages."""
    zone: Any = None
    """Time zone of the user's stamps."""


def lay_out(
    rows: Rows, columns: Columns, given: Frequency | None, largest: Largest | None = None
) -> Panel:
    """Lay each series on a regular time axis; steps without a row become missing.

    Raises:
        DataError: names the series and the row that do not fit, and how to mend them; or tells that the
            panel would be beyond the largest.
    """
    codes, distinct = pd.factorize(rows.ids)
    _refuse_many(len(distinct), len(codes), largest)
    ids = distinct.tolist()
    order = np.lexsort((rows.steps, codes))
    codes, steps, target = codes[order], rows.steps[order], rows.target[order]
    bounds = np.searchsorted(codes, np.arange(len(ids) + 1))
    _refuse_infinite(target, rows.numbers[order], ids, codes, columns)
    _refuse_duplicates(steps, codes, ids, columns, rows.zone)
    frequency, size, numbers = _number_steps(steps, codes, ids, bounds, columns, given)
    lengths = numbers[bounds[1:] - 1] + 1.0  # whole numbers of 64 bits could not be added up
    _refuse_many(len(ids), int(lengths.sum()), largest)
    values, axes = [], []
    for number, identifier in enumerate(ids):
        part = slice(bounds[number], bounds[number + 1])
        _refuse_stray(numbers[part], steps[part], identifier)
        values.append(_fill_gaps(numbers[part], target[part], identifier))
        start = steps[bounds[number]]
        # Each keeps to its own day of the month.
        own = frequency and placed_like(steps[part], frequency)
        axes.append(TimeAxis(start if own else int(start), own, size, rows.zone))
    return Panel(ids, values, axes, columns)


def numbers_of_ids(ids: npt.NDArray[Any], panel: Panel) -> npt.NDArray[np.int64]:
    """Which series of a panel each name belongs to, -1 for none; by their texts, where a file has them
    as numbers and another as texts."""
    known = pd.Index(panel.ids)
    found = known.get_indexer(pd.Index(ids))
    if (found < 0).any():
        texts = pd.Index([str(one) for one in panel.ids])
        if texts.is_unique:
            found = texts.get_indexer(pd.Index([str(one) for one in ids]))
    return found.astype(np.int64)


def step_numbers_beside(rows: Rows, panel: Panel) -> npt.NDArray[np.int64]:
    """How many steps each of some rows comes after the start of its series in a panel.

    Raises:
        DataError: if a row is of no series of the panel, lies before its start or between its steps.
    """
    axis = panel.axes[0]
    codes = numbers_of_ids(rows.ids, panel)
    if (codes < 0).any():
        place = int((codes < 0).argmax())
        raise DataError(f"future_frame: there is no series {rows.ids[place]!r} in the history")
    starts = np.array([axis.start for axis in panel.axes])[codes]
    if axis.frequency is None:
        if rows.steps.dtype.kind == "M":
            raise DataError(
                "future_frame has dates, and the history counts its steps; give both alike"
            )
        distance = rows.steps - starts
        numbers, falls = distance // axis.step, distance % axis.step == 0
    elif rows.steps.dtype.kind != "M":
        raise DataError("future_frame counts its steps, and the history has dates; give both alike")
    else:
        numbers, falls = step_numbers(rows.steps, starts.astype("datetime64[ns]"), axis.frequency)
    wrong = ~falls | (numbers < 0)
    if wrong.any():
        place = int(wrong.argmax())
        raise DataError(
            f"future_frame: {_show(rows.steps[place])} of series {rows.ids[place]!r} is none of its "
            "steps; bring the times to those of the history"
        )
    return numbers.astype(np.int64)


def _number_steps(
    steps: npt.NDArray[Any],
    codes: npt.NDArray[np.intp],
    ids: Any,
    bounds: npt.NDArray[np.int64],
    columns: Columns,
    given: Frequency | None,
) -> tuple[Frequency | None, int, npt.NDArray[np.int64]]:
    """The common frequency (or whole step), and how many steps each row comes after its start."""
    if steps.dtype.kind == "M":
        frequency = placed_like(steps, given or _common_frequency(steps, ids, bounds))
        return frequency, 1, _on_grid(steps, codes, ids, bounds, frequency)
    if given is not None:
        raise DataError(
            f"column {columns.time!r} counts steps in whole numbers, so a frequency ({given.name!r}) "
            "has no meaning; give dates, or leave the frequency out"
        )
    size = _common_step(steps, bounds)
    return None, size, (steps - np.repeat(steps[bounds[:-1]], np.diff(bounds))) // size


def _refuse_many(series: int, points: int, largest: Largest | None) -> None:
    if largest is None:
        return
    if series > largest.series:
        raise DataError(
            f"the table has {series} series, and may have {largest.series}; give them in several tables"
        )
    if points > largest.points:
        raise DataError(
            f"the table has {points} values, those of missing steps counted, and may have "
            f"{largest.points}; leave series out, or name a longer frequency"
        )


def _refuse_infinite(
    target: npt.NDArray[np.float64], rows: npt.NDArray[Any], ids: Any, codes: Any, columns: Columns
) -> None:
    infinite = np.isinf(target)
    if infinite.any():
        place = int(infinite.argmax())
        raise DataError(
            f"column {columns.target!r}: row {rows[place]} (series {ids[codes[place]]!r}) is infinite; "
            "correct it, or leave it empty if the value is missing"
        )


def _refuse_duplicates(
    steps: npt.NDArray[Any], codes: Any, ids: Any, columns: Columns, zone: Any
) -> None:
    again = (steps[1:] == steps[:-1]) & (codes[1:] == codes[:-1])
    if again.any():
        place = int(again.argmax())
        clock = ""
        if zone is None and steps.dtype.kind == "M" and _may_repeat(steps[place]):
            clock = (
                "; times that a clock change repeats need a zone: +01:00, or pandas' tz_localize"
            )
        raise DataError(
            f"series {ids[codes[place]]!r} has two rows at {columns.time} = {_show(steps[place])}; keep one, "
            f"or name the id_column that tells the series apart{clock}"
        )


def _may_repeat(step: np.datetime64) -> bool:
    """Whether clocks may be set back over a time: in the small hours of a Sunday, in spring or autumn."""
    stamp = pd.Timestamp(step)
    return stamp.day_of_week == SUNDAY and stamp.hour < SMALL_HOURS and stamp.month in CHANGES


def _show(step: Any) -> str:
    return str(pd.Timestamp(step)) if isinstance(step, np.datetime64) else str(step)


def _common_frequency(
    steps: npt.NDArray[np.datetime64], ids: Any, bounds: npt.NDArray[np.int64]
) -> Frequency:
    """The frequency of the longest series; business days give way to days if any series has both."""
    longest = int(np.diff(bounds).argmax())
    frequency = infer_frequency(steps[bounds[longest] : bounds[longest + 1]])
    if frequency is None:
        single = np.diff(bounds).max() < 2
        reason = "has a single row" if single else "has steps of differing length"
        raise DataError(
            f"no frequency to be found: series {ids[longest]!r} {reason}; name it with frequency "
            "('h', 'D', 'W-SUN', 'MS', ...), or bring the data to regular steps, as by "
            f"table.set_index('time').resample({_shortest(steps)!r}).mean() of pandas, or sum() of what is "
            "counted, where no row means 0"
        )
    if frequency.unit == "B" and not np.is_busday(steps.astype("datetime64[D]")).all():
        return Frequency(1, "D")
    return frequency


def _shortest(steps: npt.NDArray[np.datetime64]) -> str:
    """Days, where all stand at one time of the day; else hours."""
    clock = steps - steps.astype("datetime64[D]")
    return "D" if (clock == clock[0]).all() else "h"


def _on_grid(
    steps: npt.NDArray[np.datetime64], codes: Any, ids: Any, bounds: Any, frequency: Frequency
) -> npt.NDArray[np.int64]:
    starts = np.repeat(steps[bounds[:-1]], np.diff(bounds))
    numbers, falls = step_numbers(steps, starts, frequency)
    falls[1:] &= (numbers[1:] > numbers[:-1]) | (codes[1:] != codes[:-1])
    if not falls.all():
        place = int((~falls).argmax())
        raise DataError(
            f"series {ids[codes[place]]!r}: {_show(steps[place])} does not fall on the frequency "
            f"{frequency.name!r} that starts at {_show(starts[place])}; name the right frequency, or "
            "bring the data to regular steps"
        )
    return numbers


def _common_step(steps: npt.NDArray[np.int64], bounds: npt.NDArray[np.int64]) -> int:
    """Greatest step that all whole-number times share."""
    within = np.ones(len(steps), dtype=bool)
    within[bounds[:-1]] = False
    return max(1, int(np.gcd.reduce(np.diff(steps, prepend=0)[within], initial=0)))


def _refuse_stray(numbers: npt.NDArray[np.int64], steps: npt.NDArray[Any], identifier: Any) -> None:
    """Refuse rows that a wrong date has put far apart from the others."""
    length, rows = int(numbers[-1]) + 1, len(numbers)
    if rows < 3 or length < 10 * rows:
        return
    gaps = np.diff(numbers)
    place = int(gaps.argmax())
    if gaps[place] <= max(LEAST_STRAY_STEPS, length / 2):
        return
    before = place + 1 <= rows / 2
    stray, others = (place, place + 1) if before else (place + 1, place)
    raise DataError(
        f"series {identifier!r} has {rows} rows but spans {length} steps: {_show(steps[stray])} lies "
        f"{gaps[place]} steps {'before' if before else 'after'} {_show(steps[others])}; correct its time, "
        "or leave the rows out that lie apart"
    )


def _fill_gaps(
    numbers: npt.NDArray[np.int64], target: npt.NDArray[np.float64], identifier: Any
) -> npt.NDArray[np.float64]:
    if np.isnan(target).all():
        raise DataError(f"series {identifier!r} has no values, only missing ones; leave it out")
    length = int(numbers[-1]) + 1
    if length > max(FREE_STEPS, LARGEST_GAP_SHARE * len(target)):
        raise DataError(
            f"series {identifier!r} has {len(target)} rows but spans {length} steps; check its times, or "
            "name a longer frequency"
        )
    values = np.full(length, np.nan)
    values[numbers] = target
    return values
