"""Texts and numbers that spell dates: one spelling for a whole column, never one for each row."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from llamacast.data.calendar import FIRST_YEAR, LAST_YEAR, infer_frequency, step_numbers

_CLOCK_BEFORE = r"[T ][\d:.,]+"
_OFFSET = r"(?:Z|[+-]\d\d(?::?\d\d)?)"
"""Distance from UTC, behind a time of day."""

TIME_OF_DAY = r"\s*\d{1,2}:\d{2}"
"""What a text begins with that has no date."""

MONTH_NUMBER_NAMES = ("month", "period", "yearmonth", "yyyymm", "calmonth", "monat", "periode")
WEEK_NUMBER_NAMES = ("week", "yearweek", "yyyyww", "isoweek", "calendarweek", "woche", "kw")
DAY_NUMBER_NAMES = ("day", "yyyymmdd", "datum", "tag")
"""Columns under these names hold times if their numbers spell dates: 202401, 202452, 20240131."""

CLOCK_NUMBER_NAMES = (
    "ds",
    "timestamp",
    "datetime",
    "date",
    "time",
    "unix",
    "unixtime",
    "epoch",
    "ts",
)
SHEET_DAY_NAMES, FIRST_SHEET_DAY, LAST_SHEET_DAY = ("date", "day", "datum", "tag"), 20_000, 73_050
SECONDS_A_DAY = 86_400
FIRST_SECOND, LAST_SECOND = 10**8, 4_102_444_800
MONTHS, WEEKS = 12, 53
YEARS_AHEAD = 20
"""That a year of two digits may lie after this one; others are of the last century."""

_DIGITS = r"\d{6,14}"
_HEAD = 20
"""Distinct texts after which a spelling that has read none of them is given up."""

_CLOCK = (
    r"^(?P<day>.*?)(?:[T ]\s{0,3}(?=\d{1,2}(?::|\s?[AaPp]\.?[Mm]))(?P<hour>\d{1,2})(?::(?P<minute>[0-5]\d))?"
    r"(?::(?P<second>[0-5]\d(?:[.,]\d{1,9})?))?\s{0,3}(?P<half>[AaPp]\.?[Mm]\.?)?(?:\s{0,3}Uhr)?"
    rf"\s{{0,3}}(?P<offset>{_OFFSET})?)?$"
)
_WEEKDAY = (
    r"(?i)^(?:mo|di|mi|do|fr|sa|so|mon|tues?|wed|thu(?:rs)?|fri|sat|sun|monday|tuesday|wednesday|thursday|"
    r"friday|saturday|sunday|montag|dienstag|mittwoch|donnerstag|freitag|samstag|sonnabend|sonntag)"
    r"(?:\.?,|\.)?\s+(?=\w)"
)
_MONTH_WORDS = (
    "jan january januar",
    "feb february februar",
    "mar march mär märz mrz",
    "apr april",
    "may mai",
    "jun june juni",
    "jul july juli",
    "aug august",
    "sep sept september",
    "oct october okt oktober",
    "nov november",
    "dec december dez dezember",
)
_MONTHS = {
    word: f"#{number:02}" for number, words in enumerate(_MONTH_WORDS, 1) for word in words.split()
}
MONTH_BEGINNINGS = frozenset(word[:3] for word in _MONTHS)
"""Of the names of months that are read, in small letters."""
_BY_NAME = ("%d #%m %Y", "%d #%m %y", "#%m %d %Y", "%Y #%m %d", "#%m %Y", "%Y #%m", "#%m|%y")


def read_dates(texts: pd.Series[Any]) -> pd.Series[Any]:
    """Dates of texts in the one spelling that reads most of them; NaT where that one does not.

    ISO 8601; three numbers, day first with dots, else month first, else day first, else (years of
    two digits) year first, where the order that leaves fewest steps without a row goes before these;
    months by name or number; quarters; weeks as 2024-W05; with a time of day or without one.

    Offsets from UTC that differ among the rows are told in UTC.
    """
    codes, distinct = pd.factorize(texts.astype(str).str.strip())
    found = _read_distinct(pd.Series(distinct, dtype=object))
    return found.iloc[codes].set_axis(texts.index)


def looks_like_dates(values: pd.Series[Any] | pd.Index[Any]) -> bool:
    """Whether texts or objects begin with what only dates look like."""
    if pd.api.types.is_numeric_dtype(values.dtype):
        return False
    sample = with_marks(pd.Series(values).dropna().head(5).astype(str).str.strip())
    if not sample.str.contains(r"\d.*\d").all() or sample.empty:
        return False
    if sample.str.match(r"\d{4}(\D|$|Q)|\d{8}$").all() and _within_reach(_read_iso(sample)):
        return True
    return any(_within_reach(reading) for reading in _spellings(sample))


def _within_reach(stamps: pd.Series[Any]) -> bool:
    """Whether all are dates of the years that nanoseconds reach: 1234.10 is a number."""
    years = stamps.dt.year
    return bool((years.ge(FIRST_YEAR) & years.le(LAST_YEAR)).all())


def offsets_of(texts: pd.Series[Any]) -> pd.Series[Any]:
    """Distances from UTC, such as +01:00, that texts end in; missing where they do not."""
    return texts.str.extract(rf"{_CLOCK_BEFORE}\s?({_OFFSET})$", expand=False)


def without_offsets(texts: pd.Series[Any]) -> pd.Series[Any]:
    """The texts of local times: their distances from UTC cut off."""
    offset = rf"({_CLOCK_BEFORE})\s?{_OFFSET}$"
    return texts.str.replace(offset, r"\1", regex=True)


def with_marks(texts: pd.Series[Any]) -> pd.Series[Any]:
    """Texts of times with UTC or GMT behind them, with the Z of ISO 8601."""
    return texts.str.replace(r"(\d) ?(?:UTC|GMT)$", r"\1Z", regex=True)


def dates_in_texts(column: pd.Series[Any], name: Any) -> pd.Series[Any] | None:
    """As `dates_in_numbers`, of texts that are all digits."""
    if pd.api.types.is_datetime64_any_dtype(column):
        return None
    texts = column.head(_HEAD).astype(str).str.strip()
    if not texts.str.fullmatch(_DIGITS).all():  # as of most columns the first tell
        return None
    texts = column.astype(str).str.strip()
    if not texts.str.fullmatch(_DIGITS).all():
        return None
    return dates_in_numbers(texts.astype(np.int64).to_numpy(), name)


def dates_in_numbers(numbers: npt.NDArray[Any], name: Any) -> pd.Series[Any] | None:
    """The dates that all of some numbers spell, or None.

    Days as 20240131, also with hours, minutes and seconds; months as 202401, and weeks as 202452, in a
    column whose name says so; both also where they go on to another year, which no count does; months
    where the column is called date. Seconds since 1970, or thousandths and so on of them, from 1973 to
    2100, in a column that is called as times are; they are told in UTC. Days as Excel counts them, from 1954
    to 2100, in a column that is called date or day.
    """
    numbers = np.asarray(numbers, dtype=np.float64)
    if not np.isfinite(numbers).all() or not len(numbers):
        return None
    key = re.sub(r"[\W_]", "", str(name).lower())
    if (
        key in SHEET_DAY_NAMES
        and FIRST_SHEET_DAY <= numbers.min() <= numbers.max() <= LAST_SHEET_DAY
    ):
        seconds = np.rint(numbers * SECONDS_A_DAY).astype("timedelta64[s]")
        return pd.Series(np.datetime64("1899-12-30", "s") + seconds)
    if (numbers != np.floor(numbers)).any():
        return _months_of_fractions(numbers) if key in MONTH_NUMBER_NAMES else None
    distinct = np.unique(numbers)
    for digits, spelling in ((2, "%Y%m%d%H"), (4, "%Y%m%d%H%M"), (6, "%Y%m%d%H%M%S")):
        if distinct[0] > 19000000 * 10**digits and distinct[-1] < 21000000 * 10**digits:
            found = _all_or_none(pd.Series(numbers.astype(np.int64)).astype(str), spelling)
            if found is not None:
                return found
    if key in CLOCK_NUMBER_NAMES:
        for unit, size in (("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)):
            if distinct[0] >= FIRST_SECOND * size and distinct[-1] <= LAST_SECOND * size:
                return pd.Series(numbers.astype(np.int64).astype(f"datetime64[{unit}]"))
    days = distinct[0] > 19000000 and distinct[-1] < 21000000
    if not days and not (distinct[0] > 190000 and distinct[-1] < 210000):
        return None
    texts = pd.Series(numbers.astype(np.int64)).astype(str)
    if days:
        return _all_or_none(texts, "%Y%m%d")
    if key in WEEK_NUMBER_NAMES:
        return _all_or_none(texts + "1", "%G%V%u")
    # No count leaves out what ends in 00 and in 13 to 99, and comes to the next hundred.
    ends, hundreds = distinct % 100, distinct // 100
    goes_on = hundreds[0] < hundreds[-1]
    if goes_on and ends.min() >= 1 and MONTHS < ends.max() <= WEEKS:
        return _all_or_none(texts + "1", "%G%V%u")
    months = ends.min() >= 1 and ends.max() <= MONTHS and (goes_on or key == "date")
    return _all_or_none(texts, "%Y%m") if months or key in MONTH_NUMBER_NAMES else None


def named_like_dates(column: pd.Series[Any], name: Any) -> bool:
    """Whether numbers spell dates in a column whose name says that they do."""
    key = re.sub(r"[\W_]", "", str(name).lower())
    named = (*MONTH_NUMBER_NAMES, *WEEK_NUMBER_NAMES, *DAY_NUMBER_NAMES, *CLOCK_NUMBER_NAMES)
    if key not in named:
        return False
    if not pd.api.types.is_numeric_dtype(column.dtype):
        return dates_in_texts(column.dropna(), name) is not None
    if pd.api.types.is_bool_dtype(column.dtype):
        return False
    return dates_in_numbers(column.to_numpy(dtype=np.float64, na_value=np.nan), name) is not None


def _months_of_fractions(numbers: npt.NDArray[np.float64]) -> pd.Series[Any] | None:
    """01.2015, which a CSV with decimal points has for a number."""
    texts = pd.Series([f"{number:07.4f}" for number in numbers])
    spelled = (numbers < 13) & (np.abs(numbers * 1e4 - np.round(numbers * 1e4)) < 1e-6)
    return _all_or_none(texts, "%m.%Y") if spelled.all() else None


def _all_or_none(texts: pd.Series[Any], spelling: str) -> pd.Series[Any] | None:
    parsed = pd.to_datetime(texts, format=spelling, errors="coerce")
    return parsed if parsed.notna().all() else None


def _read_distinct(texts: pd.Series[Any]) -> pd.Series[Any]:
    best = _read_iso(texts)
    if best.notna().all():
        return best
    for reading in _spellings(texts):
        if reading.notna().sum() > best.notna().sum():
            best = reading
        if best.notna().all():
            break
    return best


def _read_iso(texts: pd.Series[Any]) -> pd.Series[Any]:
    offsets = offsets_of(texts)
    utc = bool(offsets.notna().all()) and offsets.nunique() > 1
    return pd.to_datetime(texts, errors="coerce", format="ISO8601", utc=utc)


def _spellings(texts: pd.Series[Any]) -> Iterator[pd.Series[Any]]:
    """Readings of other spellings than ISO 8601, each of one spelling throughout."""
    parts = texts.str.extract(_CLOCK)
    codes, distinct = pd.factorize(parts["day"].fillna(""))
    days = pd.Series(distinct, dtype=object).str.replace(_WEEKDAY, "", regex=True)
    days = days.str.removesuffix(",")  # 1/5/2024, 10:00
    clock = _since_midnight(parts)
    for spelled in (_three_numbers, _by_name, _parts_of_years):
        every = [reading.iloc[codes].set_axis(texts.index) + clock for reading in spelled(days)]
        whole = [reading for reading in every if reading.notna().all()]
        best = [min(whole, key=_sparseness)] if len(whole) > 1 else every
        yield from (_in_zone(reading, parts["offset"]) for reading in best)


def _since_midnight(parts: pd.DataFrame) -> pd.Series[Any]:
    """Times of the day as durations; NaT where the hour is none."""
    hour = pd.to_numeric(parts["hour"]).fillna(0)
    seconds = pd.to_numeric(parts["second"].str.replace(",", ".")).fillna(0)
    half = parts["half"].str[0].str.lower()
    valid = hour.le(24) & (half.isna() | hour.between(1, 12))
    hour = hour.where(half.isna(), hour % 12 + 12 * (half == "p"))
    total = hour * 3600 + pd.to_numeric(parts["minute"]).fillna(0) * 60 + seconds
    return pd.to_timedelta((total * 1e9).round().where(valid), unit="ns")


def _in_zone(stamps: pd.Series[Any], offsets: pd.Series[Any]) -> pd.Series[Any]:
    """Local times with the offsets beside them, if all have one."""
    if not offsets.notna().all() or offsets.empty:
        return stamps
    marks = offsets.str.replace(":", "").str.replace("Z", "+").str.ljust(5, "0")
    minutes = marks.str[1:3].astype(int) * 60 + marks.str[3:5].astype(int)
    behind = pd.to_timedelta(minutes.where(marks.str[0] == "+", -minutes), unit="min")
    known = (stamps - behind).dt.tz_localize("UTC")
    if marks.nunique() > 1:
        return known
    return known.dt.tz_convert(f"{marks.iloc[0][:3]}:{marks.iloc[0][3:]}")


def _parse(texts: pd.Series[Any], spelling: str) -> pd.Series[Any] | None:
    """The dates of a spelling, or None if it reads none of the first texts."""
    if pd.to_datetime(texts.head(_HEAD), format=spelling, errors="coerce").isna().all():
        return None
    found = pd.to_datetime(texts, format=spelling, errors="coerce")
    if "%y" in spelling:
        far = found.dt.year > pd.Timestamp.now().year + YEARS_AHEAD
        if far.any():
            found = found.where(~far, found - pd.DateOffset(years=100))
    return found


def _readings(texts: pd.Series[Any], *spellings: str) -> list[pd.Series[Any]]:
    return [found for one in spellings if (found := _parse(texts, one)) is not None]


def _three_numbers(days: pd.Series[Any]) -> list[pd.Series[Any]]:
    """31.01.2024, 1/31/24, 24-01-31, in every order that reads some of the first of them."""
    marks = days.str.extract(r"^\d{1,4}([-/. ])", expand=False)
    mark = marks.iloc[0]
    if not isinstance(mark, str):
        return []
    orders = ["dmy", "mdy"] if mark == "." else ["mdy", "dmy", "ymd"]
    short = (mark.join(f"%{part}" for part in order) for order in orders)
    long = (mark.join(f"%{'Y' if part == 'y' else part}" for part in order) for order in orders)
    return _readings(days, mark.join(("%Y", "%m", "%d")), *dict.fromkeys(long), *short)


def _sparseness(stamps: pd.Series[Any]) -> tuple[float, bool, int]:
    """Steps that dates span for each that they have, without end if they keep none; then whether they keep to
    a day within their months, as 3 January, 3 February, ... do and hardly anything that is kept by the
    month; then their years."""
    years = int(stamps.dt.year.nunique())
    if not _within_reach(stamps):
        return np.inf, True, years
    ascending = np.unique(pd.DatetimeIndex(stamps).as_unit("ns").to_numpy())
    frequency = infer_frequency(ascending)
    if frequency is None:
        return np.inf, True, years
    numbers, _ = step_numbers(ascending, np.repeat(ascending[:1], len(ascending)), frequency)
    return (int(numbers[-1]) + 1) / len(ascending), frequency.place == "day", years


def _by_name(days: pd.Series[Any]) -> list[pd.Series[Any]]:
    """Months by name: Jan 2015, Jan-15, 01-Jan-2024, January 1, 2024."""
    if not days.head(1).str.contains(r"[^\W\d_]{3}").all():
        return []
    numbered = days.str.replace(
        r"([^\W\d_]{3,})\.?",
        lambda match: _MONTHS.get(match[1].lower(), match[0]),
        regex=True,
    )
    # "Jan 15" may be a day as well as a year, which "Jan-15" and "Jan '15" are not.
    numbered = numbered.str.replace(r"^#(\d\d)(?:[-/]| ?['’])(\d\d)$", r"#\1|\2", regex=True)
    spaced = numbered.str.replace(r"#(\d\d)(?!\|)", r" #\1 ", regex=True)
    spaced = spaced.str.replace(r"[\s,./-]+", " ", regex=True).str.strip()
    spaced = spaced.str.replace(r"(?<=\d)(?:st|nd|rd|th)\b", "", regex=True)
    return _readings(spaced, *_BY_NAME)


def _parts_of_years(days: pd.Series[Any]) -> list[pd.Series[Any]]:
    """Months as 01/2015 or 2015/01, quarters as 2015Q1 or Q1 2015, weeks as 2015-W03 or W03 2015."""
    months = days.str.replace(r"^(\d{1,2})[-/. ]((?:19|20)\d\d)$", r"\2=\1", regex=True)
    months = months.str.replace(r"^((?:19|20)\d\d)(?:[-/. ]|-?M)(\d{1,2})$", r"\1=\2", regex=True)
    quarters = days.str.replace(r"^[Qq]([1-4])[-/. ]?(\d{4})$", r"\2Q\1", regex=True)
    quarters = quarters.str.replace(
        r"^(\d{4})[-/. ]?[Qq]([1-4])$",
        lambda match: f"{match[1]}={3 * int(match[2]) - 2}",
        regex=True,
    )
    weeks = days.str.replace(r"^(?:W|KW)\s?(\d{1,2})[-/. ](\d{4})$", r"\2W\1", regex=True)
    weeks = weeks.str.replace(r"^(\d{4})[-/. ]?(?:W|KW)\s?(\d{1,2})$", r"\1W\2W1", regex=True)
    weeks = weeks.str.replace(r"^(\d{4})-W(\d{2})-([1-7])$", r"\1W\2W\3", regex=True)
    return [
        *_readings(months, "%Y=%m"),
        *_readings(quarters, "%Y=%m"),
        *_readings(weeks, "%GW%VW%u"),
    ]
