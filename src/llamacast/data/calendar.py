"""Frequencies: their names old and new, their time stamps, six calendar features, their season."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from llamacast.forecast import DataError

Stamps = npt.NDArray[np.datetime64]
"""Time stamps as `datetime64[ns]` without a zone."""

Unit = Literal["ns", "us", "ms", "s", "min", "h", "D", "B", "W", "M", "Q", "Y"]

FIRST_YEAR, LAST_YEAR = 1678, 2260
"""That 64-bit nanoseconds can tell."""
NUM_FEATURES = 6

_NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "min": 60 * 10**9,
    "h": 3600 * 10**9,
    "D": 86400 * 10**9,
    "W": 7 * 86400 * 10**9,
}
LEAST_SHARE_OF_STEPS = 1 / 3
LONGEST_MULTIPLE = 6
"""Digits of a multiple."""

_DAY = _NANOSECONDS["D"]
_MONTHS = {"M": 1, "Q": 3, "Y": 12}
_WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
_MONTH_NAMES = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")

# Every spelling pandas has used, from 0.x to 3.x: name -> (unit, where in a month stamps stand).
_SPELLINGS: dict[str, tuple[Unit, str]] = {
    **dict.fromkeys(("N", "ns"), ("ns", "")),
    **dict.fromkeys(("U", "us"), ("us", "")),
    **dict.fromkeys(("L", "ms"), ("ms", "")),
    **dict.fromkeys(("S", "s"), ("s", "")),
    **dict.fromkeys(("T", "min"), ("min", "")),
    **dict.fromkeys(("H", "h"), ("h", "")),
    **dict.fromkeys(("D", "d"), ("D", "")),
    "B": ("B", ""),
    "W": ("W", ""),
    **dict.fromkeys(("M", "ME"), ("M", "end")),
    "MS": ("M", "start"),
    **dict.fromkeys(("BM", "BME"), ("M", "last business day")),
    "BMS": ("M", "first business day"),
    **dict.fromkeys(("Q", "QE"), ("Q", "end")),
    "QS": ("Q", "start"),
    **dict.fromkeys(("BQ", "BQE"), ("Q", "last business day")),
    "BQS": ("Q", "first business day"),
    **dict.fromkeys(("A", "Y", "AE", "YE"), ("Y", "end")),
    **dict.fromkeys(("AS", "YS"), ("Y", "start")),
    **dict.fromkeys(("BA", "BY", "BYE"), ("Y", "last business day")),
    **dict.fromkeys(("BAS", "BYS"), ("Y", "first business day")),
}
_SUFFIXES = {
    "end": "E",
    "start": "S",
    "last business day": "E",
    "first business day": "S",
    "day": "E",
}


@dataclass(frozen=True)
class Frequency:
    """The step of a regular time axis."""

    multiple: int
    unit: Unit
    place: str = ""
    """Of months, quarters, years: where stamps stand (`start`, `end`, `first business day`, `last
    business day`, `day`)."""
    anchor: int = -1
    """Of weeks: the last weekday (Monday 0); of quarters and years: the last month (January 0)."""
    day: int = 0
    """Of the place `day`: the day of the month, from 1; months too short for it have their last."""

    @property
    def name(self) -> str:
        """The spelling of pandas 2.2 and later."""
        multiple = "" if self.multiple == 1 else str(self.multiple)
        if self.unit == "W":
            return f"{multiple}W-{_WEEKDAYS[self.anchor]}"
        if self.unit not in _MONTHS:
            return multiple + self.unit
        business = "B" if "business" in self.place else ""
        name = multiple + business + self.unit + _SUFFIXES[self.place]
        if self.unit == "M":
            return name
        starts = _SUFFIXES[self.place] == "S"
        named = (self.anchor + 1) % 12 if starts else self.anchor
        return f"{name}-{_MONTH_NAMES[named]}"

    @property
    def unplaced(self) -> Frequency:
        """Of months, quarters and years: the same, wherever stamps stand in their months."""
        return replace(self, place="", day=0)

    @property
    def months(self) -> int:
        """Months in one step; 0 for frequencies not made of months."""
        return self.multiple * _MONTHS.get(self.unit, 0)

    @property
    def nanoseconds(self) -> int:
        """Length of one step; 0 where steps differ in length."""
        return self.multiple * _NANOSECONDS.get(self.unit, 0)

    @property
    def is_clock(self) -> bool:
        """Whether steps are shorter than a day, so that they pass evenly over clock changes."""
        return self.unit in ("ns", "us", "ms", "s", "min", "h")


def parse_frequency(name: str) -> Frequency:
    """Read a pandas frequency in any spelling: `H`, `h`, `15T`, `15min`, `W-SUN`, `ME`, `QS-OCT`.

    Raises:
        DataError: if the name is none that llamacast knows.
    """
    if not isinstance(name, str):
        raise DataError(f"frequency must be a name such as 'h' or 'MS'; got {name!r}")
    found = re.fullmatch(r"(\d*)\s*([A-Za-z]+)(?:-([A-Za-z]{3}))?", name.strip())
    spelling = found and _find_spelling(found[2])
    if not found or not spelling or found[1].startswith("0") or len(found[1]) > LONGEST_MULTIPLE:
        raise DataError(
            f"frequency {name!r} is not known; use a pandas name such as 's', '15min', 'h', 'D', 'B', "
            "'W-SUN', 'MS', 'ME', 'QS', 'YE', with a multiple in front if need be"
        )
    unit, place = spelling
    anchor = _anchor(name, unit, place, found[3])
    return Frequency(int(found[1] or 1), unit, place, anchor)


def _find_spelling(word: str) -> tuple[Unit, str] | None:
    for candidate in (word, word.upper(), word.lower()):
        if candidate in _SPELLINGS:
            return _SPELLINGS[candidate]
    return None


def _anchor(name: str, unit: Unit, place: str, word: str | None) -> int:
    names = {"W": _WEEKDAYS, "Q": _MONTH_NAMES, "Y": _MONTH_NAMES}.get(unit)
    if names is None:
        if word is not None:
            raise DataError(f"frequency {name!r}: {unit} takes no anchor {word!r}")
        return -1
    if word is None:
        return 6 if unit == "W" else 11
    if word.upper() not in names:
        raise DataError(f"frequency {name!r}: anchor {word!r} must be one of {', '.join(names)}")
    position = names.index(word.upper())
    return (position - 1) % 12 if place in ("start", "first business day") else position


def stamps_from(start: np.datetime64, frequency: Frequency, first: int, count: int) -> Stamps:
    """Time stamps of steps `first` to `first + count - 1`, where step 0 is at `start`.

    Raises:
        DataError: if they leave the years 1678 to 2260, which 64-bit nanoseconds can tell.
    """
    start = start.astype("datetime64[ns]")
    steps = np.arange(first, first + count, dtype=np.int64)
    check_reach(start, frequency, first, first + count)
    if frequency.nanoseconds:
        return start + (steps * frequency.nanoseconds).astype("timedelta64[ns]")
    day = start.astype("datetime64[D]")
    time_of_day = start - day
    if frequency.unit == "B":
        return np.busday_offset(day, steps * frequency.multiple, roll="forward") + time_of_day
    months = start.astype("datetime64[M]") + steps * frequency.months
    return _place_in_month(months, frequency) + time_of_day


def check_reach(start: np.datetime64, frequency: Frequency, first: int, end: int) -> None:
    """Refuse steps `first` to `end` that nanoseconds cannot tell, as `stamps_from` does."""
    step = frequency.nanoseconds or max(frequency.months * 31, 2 * frequency.multiple) * _DAY
    year = int(start.astype("datetime64[Y]").astype(np.int64)) + 1970
    earliest, latest = (
        year + steps * step // (365 * _DAY) for steps in (min(first, 0), max(end, 0))
    )
    if earliest < FIRST_YEAR or latest > LAST_YEAR:
        raise DataError(
            f"time stamps from {start.astype('datetime64[s]')} at frequency {frequency.name!r} leave "
            "the years 1678 to 2260; shorten the horizon, or give whole numbers instead of dates"
        )


def _place_in_month(months: Stamps, frequency: Frequency) -> Stamps:
    """Days of `months` at which stamps of the frequency stand."""
    first = months.astype("datetime64[D]")
    last = (months + 1).astype("datetime64[D]") - 1
    if frequency.place == "start":
        return first
    if frequency.place == "end":
        return last
    if frequency.place == "first business day":
        return np.busday_offset(first, 0, roll="forward")
    if frequency.place == "last business day":
        return np.busday_offset(last, 0, roll="backward")
    return np.minimum(first + (frequency.day - 1), last)


def placed_like(stamps: Stamps, frequency: Frequency) -> Frequency:
    """The frequency with stamps where these stand in their months.

    pandas' old "M" names months, wherever in them stamps stand; and a series may keep to the 15th.
    Stamps that keep to no place leave the frequency as it is.
    """
    if not frequency.months:
        return frequency
    days = stamps.astype("datetime64[D]")
    first = days.astype("datetime64[M]").astype("datetime64[D]")
    day = int((days - first).astype(np.int64).max()) + 1
    places = (frequency.place, "start", "end", "first business day", "last business day", "day")
    others = (replace(frequency, place=place, day=day * (place == "day")) for place in places)
    for candidate in (frequency, *others):
        if (_place_in_month(first.astype("datetime64[M]"), candidate) == days).all():
            return candidate
    return frequency


def calendar_features(stamps: Stamps, frequency: Frequency) -> npt.NDArray[np.float32]:
    """Six features in [-0.5, 0.5] of each stamp, shape `(step, 6)`.

    Second of the minute, minute of the hour, hour of the day, day of the week (Monday first), day
    of the month, day of the year. As GluonTS reads them from a period: steps longer than a day
    tell their last day, steps of a day or more the hour 0, hours the minute 0.
    """
    days = stamps.astype("datetime64[D]")
    seconds = (stamps - days).astype("timedelta64[s]").astype(np.int64)
    floor = clock_floor(frequency)
    seconds = seconds // floor * floor
    clock = (seconds % 60 / 59, seconds // 60 % 60 / 59, seconds // 3600 / 23)
    of_day = day_features(last_days(days, frequency))
    return np.concatenate([(np.stack(clock, axis=-1) - 0.5).astype(np.float32), of_day], axis=-1)


def day_features(days: Stamps) -> npt.NDArray[np.float32]:
    """The last three of the six features, those of a day, shape `(day, 3)`."""
    days = days.astype("datetime64[D]")
    month = days.astype("datetime64[M]")
    fields = (
        ((days.astype(np.int64) + 3) % 7, 6),  # 1970-01-01 was a Thursday
        ((days - month.astype("datetime64[D]")).astype(np.int64), 30),
        ((days - days.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.int64), 365),
    )
    return np.stack([field / largest - 0.5 for field, largest in fields], axis=-1).astype(
        np.float32
    )


def clock_floor(frequency: Frequency) -> int:
    """Seconds to whose multiples the time of day is rounded down before features are read."""
    return {"min": 60, "h": 3600}.get(frequency.unit, 1 if frequency.is_clock else 86400)


def last_days(day: Stamps, frequency: Frequency) -> Stamps:
    """Last day of the week, month, quarter or year that each day lies in."""
    if frequency.unit == "W":
        return day + (frequency.anchor - (day.astype(np.int64) + 3)) % 7
    if frequency.unit not in _MONTHS:
        return day
    month = day.astype("datetime64[M]")
    if frequency.unit != "M":
        month = month + (frequency.anchor - month.astype(np.int64) % 12) % _MONTHS[frequency.unit]
    return (month + 1).astype("datetime64[D]") - 1


def season_length(frequency: Frequency) -> int:
    """Steps in the natural season: an hour of seconds, else a day, a week, a year; at least 1.

    Seconds and shorter count an hour; minutes and hours a day; days 7, business days 5, weeks 52,
    months 12, quarters 4, years 1; each divided by the multiple where it divides evenly.
    """
    if frequency.is_clock:
        span = _NANOSECONDS["h"] if frequency.unit in ("ns", "us", "ms", "s") else _DAY
        whole, rest = divmod(span, frequency.nanoseconds)
    else:
        natural = {"D": 7, "B": 5, "W": 52, "M": 12, "Q": 4, "Y": 1}[frequency.unit]
        whole, rest = divmod(natural, frequency.multiple)
    return whole if rest == 0 and whole > 0 else 1


def natural_seasons(frequency: Frequency | None) -> tuple[int, ...]:
    """The natural season and the next longer one: 24 and 168 hours, 7 and 365 days, 12 months; none
    without a frequency."""
    if frequency is None:
        return ()
    season = season_length(frequency)
    if frequency.is_clock and frequency.unit in ("h", "min"):
        week, rest = divmod(7 * _DAY, frequency.nanoseconds)
        return season, week if rest == 0 else 1
    return (season, 365) if frequency.name == "D" else (season,)


def season_candidates(frequency: Frequency | None) -> tuple[int, int]:
    """Two periods, in steps, that a series may have, as far as its frequency tells; 0 for none.

    The natural seasons; of business days also the year of 261, of seconds the minute. Years have 1:
    within a step all comes round, which is more than not to know.
    """
    if frequency is None:
        return 0, 0
    known = natural_seasons(frequency)
    if frequency.name == "B":
        known = (5, 261)
    elif frequency.unit == "s":
        whole, rest = divmod(60, frequency.multiple)
        known = (whole if rest == 0 else 1, *known)
    first, second = ([season for season in known if season > 1] + [0, 0])[:2]
    first = first or 1
    return first, second


def step_numbers(
    stamps: Stamps, starts: Stamps, frequency: Frequency
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """How many steps each stamp comes after its start, and whether it falls on a step at all.

    Months, quarters and years count by the month alone: stamps may stand anywhere in it.
    """
    if frequency.nanoseconds:
        elapsed = (stamps - starts).astype(np.int64)
        return elapsed // frequency.nanoseconds, elapsed % frequency.nanoseconds == 0
    days, first_days = stamps.astype("datetime64[D]"), starts.astype("datetime64[D]")
    if frequency.unit == "B":
        elapsed = np.busday_count(first_days, days)
        same_time = stamps - days == starts - first_days
        falls = np.is_busday(days) & np.is_busday(first_days) & same_time
    else:
        elapsed = (days.astype("datetime64[M]") - first_days.astype("datetime64[M]")).astype(
            np.int64
        )
        falls = np.ones(len(stamps), dtype=bool)
    size = frequency.months or frequency.multiple
    return elapsed // size, falls & (elapsed % size == 0)


def infer_frequency(stamps: Stamps) -> Frequency | None:
    """The frequency of ascending stamps, or None if they keep none. Gaps are allowed.

    Stamps at the same place of each month are monthly, quarterly or yearly; else the most common
    step is the frequency if a third of all steps have it and the others are multiples of it. Days
    that leave out every weekend are business days.
    """
    if len(stamps) < 2:
        return None
    days = stamps.astype("datetime64[D]")
    if (stamps - days == stamps[0] - days[0]).all():
        monthly = _infer_months(days)
        if monthly is not None:
            return monthly
    steps = np.diff(stamps).astype(np.int64)
    sizes, counts = np.unique(steps, return_counts=True)
    step = int(sizes[counts.argmax()])
    if (steps % step).any() or counts.max() < LEAST_SHARE_OF_STEPS * len(steps):
        return None
    return _from_nanoseconds(step, days)


def _infer_months(days: Stamps) -> Frequency | None:
    months = days.astype("datetime64[M]")
    steps = np.diff(months).astype(np.int64)
    if steps.min() < 1:
        return None
    sizes, counts = np.unique(steps, return_counts=True)
    size = int(sizes[counts.argmax()])
    monthly = placed_like(days, Frequency(size, "M", "start"))
    if (_place_in_month(months, monthly) != days).any() or (steps % size).any():
        return None
    month = int(months[0].astype(np.int64) % 12)
    # A quarter or a year that begins at its stamps ends in the month before them.
    starts = monthly.place in ("start", "first business day")
    end = (month - 1) % 12 if starts else month
    if size % 12 == 0:
        return replace(monthly, multiple=size // 12, unit="Y", anchor=end)
    if size % 3 == 0:
        return replace(monthly, multiple=size // 3, unit="Q", anchor=9 + end % 3)
    return monthly


def _from_nanoseconds(step: int, days: Stamps) -> Frequency:
    if step % _NANOSECONDS["W"] == 0:
        weekday = int((days[0].astype(np.int64) + 3) % 7)
        return Frequency(step // _NANOSECONDS["W"], "W", anchor=weekday)
    if step == _DAY and np.is_busday(days).all() and days[-1] - days[0] > np.timedelta64(6, "D"):
        return Frequency(1, "B")
    units: tuple[Unit, ...] = ("D", "h", "min", "s", "ms", "us", "ns")
    unit = next(unit for unit in units if step % _NANOSECONDS[unit] == 0)
    return Frequency(step // _NANOSECONDS[unit], unit)
