"""The border: tables of any common shape in, a checked and regular `Panel` out."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, TypedDict, Unpack

import numpy as np
import numpy.typing as npt
import pandas as pd

from llamacast.data.calendar import Frequency, infer_frequency, parse_frequency
from llamacast.data.covariates import Beside, read_covariates, with_future
from llamacast.data.dates import (
    DAY_NUMBER_NAMES,
    MONTH_BEGINNINGS,
    MONTH_NUMBER_NAMES,
    TIME_OF_DAY,
    WEEK_NUMBER_NAMES,
    dates_in_numbers,
    dates_in_texts,
    looks_like_dates,
    named_like_dates,
    offsets_of,
    read_dates,
    with_marks,
    without_offsets,
)
from llamacast.data.panel import Columns, Largest, Panel, Rows, lay_out, step_numbers_beside
from llamacast.data.tables import ID_NAMES, TIME_NAMES, Table, as_frame
from llamacast.forecast import DataError

TARGET_NAMES = ("y", "target", "value")
LARGEST_VALUE = 1e300
"""Beyond it, sums and spreads of a window overflow."""
# Columns that go on where a date or a year ends, with the highest number in each.
PARTS_OF_TIME = (
    dict.fromkeys(("hour", "hours", "hr", "stunde"), 24)
    | dict.fromkeys(("minute", "minutes", "min"), 60)
    | dict.fromkeys(("month", "months", "mon", "monat"), 12)
    | dict.fromkeys(("quarter", "qtr", "quartal"), 4)
    | dict.fromkeys(("week", "woche", "kw"), 53)
    | dict.fromkeys(("day", "tag"), 366)
)

# Words in the names of columns that count within a day, and how far they may.
PARTS_OF_DAY = dict.fromkeys(("hour", "hours", "hr", "he", "stunde"), 25) | dict.fromkeys(
    ("period", "interval", "slot", "ptu"), 100
)
MONTHS_OF_A_YEAR = 12
ROW_NUMBER_NAMES = ("id", "index", "instant", "row")
YEAR_NAMES = ("year", "jahr")
STEP_NAMES = (*MONTH_NUMBER_NAMES, *WEEK_NUMBER_NAMES, *DAY_NUMBER_NAMES, "t", "step", "timeidx")
"""Without what is no letter or digit."""

PLAIN_NUMBERS = (
    "write numbers plainly, as 1506.29, without marks of thousands (pandas' read_csv takes thousands=',' "
    "and decimal=','), currency or per cent, "
)
MOST_PAIRED = 12
"""Columns of which every two are looked at together: of a thousand there are half a million pairs."""
NAMES_SHOWN = 8
"""Columns that a message lists before it only counts them."""

_CURRENCY = r"(?:[€$£¥]|EUR|USD|GBP|CHF)"
_CALLED_LIKE_NAMES = re.compile(
    r"(?:^|[_\s-])(?:id|number|code|sku|key|nr)$"
    r"|^(?:account|article|customer|item|part|product|shop|store)[_\s-]?(?:no|num)$",
    re.IGNORECASE,
)
"""What columns of part numbers and the like are called; NO alone is a gas."""
# One way only to read a run of spaces: cells may be as long as strangers please.
_NUMBER_IN_TEXT = rf"{_CURRENCY}?\s?[-+(]?\s?\d[\d.,' ]*(?:%|\)|{_CURRENCY})?$"


class ColumnNames(TypedDict, total=False):
    """What may be said of a table's columns, where their names and contents do not tell."""

    id_column: str | None
    time_column: str | None
    target_column: str | None
    frequency: str | None
    """Pandas name of the step; None infers it."""
    group_column: str | None
    """Column that says which series move together; paths are then joint over those of a group."""
    covariates: Sequence[str] | None
    """Columns that may explain the values. Those of `future_frame` too are known ahead; others in the
    past only, but for those that never change within a series."""
    future_frame: pd.DataFrame | str | os.PathLike[str] | None
    """A table, or its file, with the series and times of the horizon and the covariates that are known
    for it; without `covariates`, with all of them."""
    holidays: str | None
    """Code of a country ("DE", "US-CA"), whose public holidays may explain the values."""


def read_panel(
    data: Table | Panel,
    *,
    id_column: str | None = None,
    time_column: str | None = None,
    target_column: str | None = None,
    frequency: str | None = None,
    group_column: str | None = None,
    covariates: Sequence[str] | None = None,
    future_frame: pd.DataFrame | str | os.PathLike[str] | None = None,
    holidays: str | None = None,
    horizon: int | None = None,
    largest: Largest | None = None,
) -> Panel:
    """Check a table and lay each of its series on a regular time axis.

    Long frames (`unique_id, ds, y`; `item_id, timestamp, target`; any names by argument), wide
    frames (a column for each series), Series, arrays, lists, and the paths of CSV and parquet
    files are understood. Rows may be in any order; steps without a row become missing. A `Panel` is
    checked already and comes back as it is, but for `holidays`. `covariates`, `future_frame` and
    `holidays` (see `ColumnNames`) are laid beside the values, as far as a forecast of `horizon` steps
    needs them.
    A table that would become more than the `largest` panel is refused.

    Raises:
        DataError: names the file, column, series or row that cannot be used, and how to mend it.
    """
    if isinstance(data, Panel):
        said = {
            "id_column": id_column,
            "time_column": time_column,
            "target_column": target_column,
            "frequency": frequency,
            "group_column": group_column,
            "covariates": covariates,
            "future_frame": future_frame,
        }
        unused = next((name for name, value in said.items() if value is not None), None)
        if unused is not None:
            raise DataError(
                f"{unused} tells how to read a table, and these data are a Panel; leave it out"
            )
        return data if horizon is None else with_future(data, horizon, Beside(holidays=holidays))
    frame = as_frame(data, id_column)
    given_names = {"id": id_column, "time": time_column, "target": target_column}
    _check_names(frame, {**given_names, "group": group_column})
    given = parse_frequency(frequency) if frequency is not None else None
    time = _time_of(frame, time_column)
    named = [covariates] if isinstance(covariates, str) else list(covariates or ())
    numbers = _row_numbers(frame, time, (id_column, target_column, *named))
    if numbers:
        frame = frame.drop(columns=numbers)
    beside = [*named, *([] if group_column is None else [group_column])]
    plain = frame.drop(columns=beside, errors="ignore") if beside else frame
    future = None if future_frame is None else as_frame(future_frame, id_column)
    identifier = id_column
    if identifier is None:
        identifier = _find_id_of_both(plain, future, time, target_column)
        if future_frame is not None and identifier is not None and _is_text(frame[identifier]):
            future = as_frame(future_frame, identifier)  # names as they are written
    if future is not None:
        future = future.drop(
            columns=numbers, errors="ignore"
        )  # what is known of the future is not to be forecast
        kept = (identifier, time, target_column, _find(frame, TARGET_NAMES))
        told = [column for column in future.columns if column not in kept]
        plain = plain.drop(columns=told, errors="ignore")
    targets = (
        [target_column] if target_column is not None else _find_targets(plain, identifier, time)
    )
    if time is None:
        _refuse_times_unread(plain, identifier, targets)
    wide = len(targets) > 1
    columns = Columns(
        id="unique_id" if wide and identifier is None else identifier,
        time="ds" if time is None else time,
        target="y" if wide else str(targets[0]),
    )
    panel = lay_out(_to_rows(frame, identifier, time, targets, given), columns, given, largest)
    if group_column is not None:
        panel = replace(panel, groups=_groups(frame, columns, panel, group_column))
    asked = _asked(frame, columns, covariates, future, holidays)
    if asked.columns or future is not None:
        if wide or time is None:
            raise DataError(
                "covariates need a long table, with a column of times and one row for each value"
            )
        # As the history was read: a single step of the future has no frequency of its own.
        step = given or panel.axes[0].frequency
        parts = (
            [frame]
            if asked.future is None
            else [frame, _like(asked.future, panel, frame[time], targets[0])]
        )
        steps = [
            step_numbers_beside(_to_rows(part, identifier, time, targets, step), panel)
            for part in parts
        ]
        known = read_covariates(panel, frame, columns, np.concatenate(steps), asked)
        panel = replace(panel, covariates=known)
    return panel if horizon is None else with_future(panel, horizon, asked)


def read_known_ahead(data: Table | Panel, **columns: Unpack[ColumnNames]) -> Panel:
    """As `read_panel`, for what is cut into a past and a future that has come: `covariates` are taken as
    known ahead, unless a `future_frame` says which of them are. A `Panel` comes back as it is."""
    panel = read_panel(data, horizon=0, **columns)
    told_ahead = isinstance(data, Panel) or columns.get("future_frame") is not None
    if panel.covariates is None or told_ahead:
        return panel
    return replace(panel, covariates=panel.covariates.all_ahead())


def _groups(frame: pd.DataFrame, columns: Columns, panel: Panel, name: str) -> list[Any]:
    """The group of each series, which its rows agree on."""
    if columns.id not in frame.columns:
        raise DataError(f"group_column {name!r} needs a long table with a column of series names")
    if frame[name].isna().any():
        row = int(frame[name].isna().to_numpy().argmax())
        identifier = frame[columns.id].iloc[row]
        raise DataError(
            f"column {name!r}: row {row} (series {identifier!r}) has no group; fill it, with one of its own "
            "for a series that moves with no other"
        )
    several = frame.groupby(columns.id)[name].nunique()
    if (several > 1).any():
        identifier = several.index[several > 1][0]
        raise DataError(
            f"column {name!r}: series {identifier!r} is in several groups; it may be in one"
        )
    known = frame.drop_duplicates(columns.id).set_index(columns.id)[name]
    return [known[identifier] for identifier in panel.ids]


def _like(future: pd.DataFrame, panel: Panel, history: pd.Series[Any], target: Any) -> pd.DataFrame:
    """A table of the horizon whose times are told in the spelling and in the zone of the history."""
    zone, time = panel.axes[0].zone, panel.columns.time
    found = future.copy()  # names may be numbers, which `assign` does not take
    found[target] = np.nan
    if panel.axes[0].frequency is None or pd.api.types.is_numeric_dtype(future[time].dtype):
        return found
    if isinstance(future[time].dtype, pd.PeriodDtype):
        return found
    stamps = _parse_dates(future[time], str(time))
    if stamps.dt.tz is None and _is_text(history) and _is_text(future[time]):
        # 01/02/2024 is the first of February where 31/01/2024 stands before it.
        told = read_dates(pd.concat([_texts(history), _texts(future[time])], ignore_index=True))
        if told.dt.tz is None and told.notna().all():
            stamps = told.iloc[len(history) :].set_axis(stamps.index)
    wall = zone is None and stamps.dt.tz is not None and not panel.axes[0].frequency.is_clock
    if wall and _is_text(future[time]):  # as days of the history whose offsets differ are read
        stamps = read_dates(without_offsets(_texts(future[time])))
    if zone is not None and stamps.dt.tz is None:
        stamps = stamps.dt.tz_localize(zone, ambiguous="NaT", nonexistent="shift_forward")
    elif zone is not None:
        stamps = stamps.dt.tz_convert(zone)
    elif stamps.dt.tz is not None:
        raise DataError(
            f"future_frame: column {time!r} has a time zone, which the history's has not; give both alike"
        )
    found[time] = stamps
    return found


def _asked(
    frame: pd.DataFrame,
    columns: Columns,
    covariates: Sequence[str] | None,
    future: pd.DataFrame | None,
    holidays: str | None,
) -> Beside:
    """Which covariates are wanted, and the future of those that have one."""
    own = [name for name in (columns.id, columns.time, columns.target) if name is not None]
    if future is not None:
        missing = [
            name
            for name in (columns.id, columns.time)
            if name and name in frame.columns and name not in future
        ]
        if missing:
            raise DataError(f"future_frame has no column {missing[0]!r}, which the data have")
        if covariates is None:
            covariates = [name for name in future.columns if name not in own]
    chosen = (covariates,) if isinstance(covariates, str) else tuple(covariates or ())
    for name in chosen:
        if name not in frame.columns:
            there = _listed(column for column in frame.columns if column not in own) or "none"
            raise DataError(f"there is no covariate {name!r} in the data; there are: {there}")
        if name in own:
            raise DataError(f"column {name!r} is no covariate: it is the series, time or target")
    return Beside(chosen, future, holidays)


# --- Which column is what ------------------------------------------------------------------------


def _check_names(frame: pd.DataFrame, given: dict[str, Any]) -> None:
    for role, name in given.items():
        if not isinstance(name, Hashable):
            raise DataError(f"{role}_column must be one name; got {name!r}")
        if name is not None and name not in frame.columns:
            raise DataError(
                f"there is no column {name!r} for the {role}; the data have: {_listed(frame.columns)}"
            )


def _listed(names: Iterable[Any]) -> str:
    """The first names, and how many more there are."""
    every = list(map(str, names))
    more = len(every) - NAMES_SHOWN
    return ", ".join(every[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _is_text(column: pd.Series[Any]) -> bool:
    return not pd.api.types.is_numeric_dtype(column.dtype) and not _is_dated(column.dtype)


def _texts(column: pd.Series[Any]) -> pd.Series[Any]:
    return column.astype(str).str.strip()


def _find(
    frame: pd.DataFrame, names: Sequence[str], exclude: Iterable[str | None] = ()
) -> str | None:
    """The column with the first of `names`, in whatever case."""
    lower = {str(column).lower(): column for column in reversed(list(frame.columns))}
    return next((lower[n] for n in names if n in lower and lower[n] not in exclude), None)


def series_column(frame: pd.DataFrame, time_column: str | None, target_column: str | None) -> Any:
    """The column of a long frame that names the series, if there is one."""
    time = _time_of(frame, time_column)
    frame = frame.drop(columns=_row_numbers(frame, time, (target_column,)))
    return _find_id(frame, time, target_column)


def _time_of(frame: pd.DataFrame, time_column: str | None) -> Any:
    return time_column if time_column is not None else _find_time(frame)


def _find_time(frame: pd.DataFrame) -> Any:
    named = _find(frame, TIME_NAMES)
    if named is not None and str(named).lower() not in YEAR_NAMES:
        return named
    # A year often stands beside the whole date.
    kinds = {column: frame[column].dtype for column in frame.columns if column != named}
    dated = [column for column, kind in kinds.items() if _is_dated(kind)]
    texts = [column for column, kind in kinds.items() if not pd.api.types.is_numeric_dtype(kind)]
    read = (column for column in texts if looks_like_dates(frame[column]))
    spelled = (column for column in kinds if named_like_dates(frame[column], column))
    found = next(iter(dated), next(read, next(spelled, named)))
    if found is not None:
        return found
    counted = (column for column in kinds if _counts_time(frame[column], column))
    return next(counted, None)


def _counts_time(column: pd.Series[Any], name: Any) -> bool:
    """Whether whole numbers, each of which stands once, are called as steps of time are."""
    called = re.sub(r"[\W_]", "", str(name).lower()) in STEP_NAMES
    return called and pd.api.types.is_integer_dtype(column.dtype) and bool(column.is_unique)


def _is_dated(kind: Any) -> bool:
    return pd.api.types.is_datetime64_any_dtype(kind) or isinstance(kind, pd.PeriodDtype)


def _row_numbers(frame: pd.DataFrame, time: Any, named: Iterable[Any]) -> list[Any]:
    """A column such as `id` that counts the rows, as many public tables have it: it names no series.

    Numbers that differ from row to row at a single time may still be those of series.
    """
    found = _find(frame, ROW_NUMBER_NAMES, exclude=(time, *named))
    if found is None or len(frame) < 2 or frame[found].duplicated().any():
        return []
    numbers = pd.to_numeric(frame[found], errors="coerce")
    several = time is None or frame[time].nunique() > 1
    return [found] if several and bool((numbers % 1 == 0).all()) else []


def _find_id_of_both(
    frame: pd.DataFrame, future: pd.DataFrame | None, time: Any, target: str | None
) -> Any:
    """The column that names series, which a table of the future has too."""
    if future is None:
        return _find_id(frame, time, target)
    shared = [column for column in frame.columns if column == time or column in future.columns]
    found = _find_id(frame[shared], time, target) if time in shared else None
    return found if found is not None else _find_id(frame, time, target)


def _find_id(frame: pd.DataFrame, time: Any, target: str | None) -> Any:
    """The column that names series: by its own name, or, where times repeat, the one under which they
    do not: a column of texts, else of whole numbers.

    Raises:
        DataError: if several columns may be it, or if only two of them together are.
    """
    named = _find(frame, ID_NAMES, exclude=(time, target))
    if named is not None or time is None or not frame[time].duplicated().any():
        return named
    taken = (time, target, _find(frame, TARGET_NAMES))
    _refuse_parts_of_time(frame, time, taken)
    texts = [name for name in frame.columns if name not in taken and _is_text(frame[name])]
    clocks = [name for name in texts if _texts(_first(frame[name])).str.match(TIME_OF_DAY).all()]
    words = [name for name in texts if name not in clocks and _means_words(frame[name])]
    codes = [name for name in texts if name not in (*clocks, *words)]
    codes += [name for name in frame.columns if name not in taken and _may_count(frame, name, time)]
    once = [name for name in (*words, *codes) if not frame.duplicated([time, name]).any()]
    several = [name for name in once if frame[name].duplicated().any()]
    for found in (
        [name for name in several if name in words],
        [name for name in several if name in codes],
        once,
    ):
        if len(found) == 1:
            return found[0]
        if found:
            raise DataError(
                f"several columns may name the series ({_listed(found)}); name one with id_column"
            )
    _refuse_ids(frame, time, words, codes, clocks)
    left = words or texts
    return left[0] if len(left) == 1 else None


def _refuse_parts_of_time(frame: pd.DataFrame, time: Any, taken: Iterable[Any]) -> None:
    """Hours beside a date, or months beside a year, do not name series."""
    for name in frame.columns:
        words = re.split(r"[\W_]+", str(name).lower())
        within_day = (PARTS_OF_DAY[word] for word in words if word in PARTS_OF_DAY)
        most = PARTS_OF_TIME.get(str(name).lower(), next(within_day, None))
        if name in taken or most is None:
            continue
        column = frame[name].dropna()
        numbers = pd.to_numeric(column, errors="coerce")
        months = most == 12 and _texts(column).str[:3].str.lower().isin(MONTH_BEGINNINGS).all()
        whole = (numbers.notna() & (numbers % 1 == 0) & numbers.between(0, most)).all()
        if (whole or months) and (frame.groupby(time)[name].nunique() > 1).any():
            raise DataError(
                f"column {name!r} tells a part of the time, as it varies within one {time!r}; join both "
                "into one column, such as 2024-01-31 14:00, or name the series with id_column"
            )


def _refuse_ids(
    frame: pd.DataFrame, time: Any, words: list[Any], codes: list[Any], clocks: list[Any]
) -> None:
    """Say what to do where times repeat under every single column."""
    if clocks:
        raise DataError(
            f"column {clocks[0]!r} holds times of the day; join it with {time!r} into one column, such as "
            "2024-01-31 14:00"
        )
    for pair in combinations([*words, *codes][:MOST_PAIRED], 2):
        if not frame.duplicated([time, *pair]).any() and frame.duplicated(list(pair)).any():
            raise DataError(
                f"only columns {pair[0]!r} and {pair[1]!r} together tell the series apart; join them into "
                "one column and name it with id_column"
            )
    if len(words) > 1:
        raise DataError(
            f"none of the columns {_listed(words)} tells the series apart: under each, times repeat; "
            "join some into one and name it with id_column, or keep one row for each time"
        )


def _may_count(frame: pd.DataFrame, name: Any, time: Any) -> bool:
    """Whether whole numbers may name series: many times repeat, there are not many more numbers than
    rows at the busiest time, and other numbers stand beside them."""
    if not pd.api.types.is_integer_dtype(frame[name].dtype):
        return False
    rows = frame[time].value_counts()
    if len(rows) > 0.8 * len(frame) or frame[name].nunique() > 2 * rows.max():
        return False
    beside = [frame[other] for other in frame.columns if other not in (name, time)]
    return any(_is_numeric(column) or _means_numbers(column) for column in beside)


def _find_targets(frame: pd.DataFrame, identifier: str | None, time: str | None) -> list[str]:
    """The target column; or, in a wide frame, the column of every series."""
    named = _find(frame, TARGET_NAMES, exclude=(identifier, time))
    if named is not None:
        return [named]
    others = [column for column in frame.columns if column not in (identifier, time)]
    # Also columns in which not all can be read: that is then named with its row.
    numeric = [
        column for column in others if _is_numeric(frame[column]) or _means_numbers(frame[column])
    ]
    if time is None:
        _refuse_turned(numeric)
    if len(numeric) == 1 or (numeric and identifier is None and len(numeric) == len(others)):
        _refuse_names(frame, numeric)
        _refuse_months(numeric)
        return numeric
    _refuse_turned(numeric)
    found = _listed(others) or "no other column"
    raise DataError(
        f"cannot tell which column holds the values to forecast ({found}); name it with target_column"
    )


def _refuse_names(frame: pd.DataFrame, columns: list[Any]) -> None:
    """Of several columns of numbers none may be called as what tells series apart is."""
    for name in columns if len(columns) > 1 else []:
        whole = (pd.to_numeric(frame[name], errors="coerce").dropna() % 1 == 0).all()
        if whole and _CALLED_LIKE_NAMES.search(str(name)):
            raise DataError(
                f"column {name!r} is called as what tells series apart, and not as values are; name it with "
                "id_column, or the values with target_column, or drop it"
            )


def _refuse_turned(columns: list[Any]) -> None:
    if len(columns) > 2 and looks_like_dates(pd.Series(list(map(str, columns)))):
        raise DataError(
            f"columns are named by dates ({_listed(columns)}); turn the table, so that each date has a row "
            "and each series a column"
        )


def _refuse_months(columns: list[Any]) -> None:
    months = {str(name).lower()[:3] for name in columns} & MONTH_BEGINNINGS
    if len(months) >= MONTHS_OF_A_YEAR and len(columns) <= MONTHS_OF_A_YEAR + 1:
        raise DataError(
            f"columns are named by months ({_listed(columns)}); turn the table, so that each month of each "
            "year has a row, as by melt of pandas, and a date such as 2024-01"
        )


def _means_numbers(column: pd.Series[Any]) -> bool:
    """Whether most texts are written as numbers are, though not all may be read: 1,221.24, $12, 12 %."""
    if not _is_text(column) or looks_like_dates(column):
        return False
    return bool(_texts(_first(column)).str.match(_NUMBER_IN_TEXT).mean() > 0.5)


def _first(column: pd.Series[Any]) -> pd.Series[Any]:
    """Enough of a column to tell what it holds."""
    return column.dropna().head(1000)


def _means_words(column: pd.Series[Any]) -> bool:
    return not looks_like_dates(column) and not _means_numbers(column)


def _refuse_times_unread(
    frame: pd.DataFrame, identifier: str | None, targets: Sequence[str]
) -> None:
    """Where rows would be counted, no column may be left that could be their time or their series."""
    for column in frame.columns:
        left = column != identifier and column not in targets and not _is_numeric(frame[column])
        if left and frame[column].astype(str).nunique() > 1:
            example = frame[column].dropna().iloc[0]
            raise DataError(
                f"column {column!r} ({example!r}, ...) is neither read as times, nor as names of series, nor "
                "as numbers; name it with time_column (2024-01-31 is read in any case) or id_column, or "
                "drop it to have rows counted"
            )


def _is_numeric(column: pd.Series[Any]) -> bool:
    if column.dtype != object and not isinstance(column.dtype, pd.StringDtype):
        return pd.api.types.is_numeric_dtype(column)
    return pd.to_numeric(column, errors="coerce").notna().sum() == column.notna().sum()


def _to_rows(
    frame: pd.DataFrame,
    identifier: str | None,
    time: str | None,
    targets: Sequence[str],
    given: Frequency | None,
) -> Rows:
    """Each target column under the other; without a time column, rows are steps 0, 1, 2, ...
    of their series."""
    count = len(frame)
    if identifier is None:
        ids = np.repeat(np.asarray(targets, dtype=object), count)
    else:
        if frame[identifier].isna().any():
            row = int(frame[identifier].isna().to_numpy().argmax())
            raise DataError(
                f"column {identifier!r}: row {row} has no series name; fill it or drop the row"
            )
        ids = frame[identifier].to_numpy()
        if ids.dtype.kind in "mM":  # as numbers they would be nanoseconds
            ids = frame[identifier].astype(object).to_numpy()
    if time is not None:
        steps, zone = _times(frame[time], time, given, None if identifier is None else ids)
    elif identifier is not None:
        steps, zone = frame.groupby(identifier).cumcount().to_numpy(), None
    else:
        steps, zone = np.arange(count), None
    return Rows(
        ids=ids,
        steps=np.tile(steps, len(targets)),
        target=np.concatenate([_numbers(frame[target], target) for target in targets]),
        numbers=np.tile(np.arange(count), len(targets)),
        zone=zone,
    )


def _numbers(column: pd.Series[Any], name: str) -> npt.NDArray[np.float64]:
    """Values as float64, NaN where missing."""
    kind = column.dtype
    if kind.kind in "mMc" or _is_dated(kind):
        raise DataError(f"column {name!r} holds {kind}, not numbers; name another target_column")
    if isinstance(kind, pd.ArrowDtype):
        column = column.astype(object)
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    large = np.isfinite(numbers) & (np.abs(numbers) > LARGEST_VALUE)
    if large.any():
        row = int(large.argmax())
        raise DataError(
            f"column {name!r}: row {row} holds {numbers[row]:g}; values may be up to {LARGEST_VALUE:g}; "
            "use a larger unit"
        )
    unread = np.isnan(numbers) & column.notna().to_numpy()
    if unread.any():
        row = int(unread.argmax())
        raise DataError(
            f"column {name!r}: row {row} holds {column.iloc[row]!r}, which is not a number; "
            + (PLAIN_NUMBERS if _means_numbers(column[unread]) else "correct it, ")
            + "leave it empty if the value is missing, or name another target_column"
        )
    return numbers


# --- Times ---------------------------------------------------------------------------------------


def _times(
    column: pd.Series[Any],
    name: str,
    given: Frequency | None,
    ids: npt.NDArray[Any] | None,
) -> tuple[npt.NDArray[Any], Any]:
    """Times as `datetime64[ns]` or int64, and their zone; `ids` are the series of the rows."""
    if column.isna().any():
        row = int(column.isna().to_numpy().argmax())
        raise DataError(f"column {name!r}: row {row} has no time; fill it or drop the row")
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        written = dates_in_numbers(column.to_numpy(dtype=np.float64), name)
        if written is not None:
            return _nanoseconds(written, name), None
        return _whole_numbers(column, name), None
    if isinstance(column.dtype, pd.PeriodDtype):
        column = column.dt.to_timestamp()
    if isinstance(column.dtype, pd.ArrowDtype) and "date" in str(column.dtype):
        column = column.astype("datetime64[s]")
    written = dates_in_texts(column, name)
    if written is not None:
        return _nanoseconds(written, name), None
    stamps = _parse_dates(column, name)
    zone = stamps.dt.tz
    if zone is None:
        return _nanoseconds(stamps, name), None
    on_the_wall = _days_on_the_wall(column, given)
    if on_the_wall is not None:
        return _nanoseconds(on_the_wall, name), None
    local = _nanoseconds(stamps.dt.tz_localize(None), name)
    frequency = given or infer_frequency(np.unique(local if ids is None else local[_longest(ids)]))
    if frequency is not None and not frequency.is_clock:
        return local, zone
    return _nanoseconds(stamps.dt.tz_convert("UTC").dt.tz_localize(None), name), zone


def _longest(ids: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Rows of the series that has most of them."""
    codes, _ = pd.factorize(ids)
    found: npt.NDArray[np.bool_] = codes == np.bincount(codes).argmax()
    return found


def _whole_numbers(column: pd.Series[Any], name: str) -> npt.NDArray[np.int64]:
    numbers = column.to_numpy(dtype=np.float64)
    odd = ~np.isfinite(numbers) | (numbers != np.floor(numbers)) | (np.abs(numbers) > 2**53)
    if odd.any():
        row = int(odd.argmax())
        raise DataError(
            f"column {name!r}: row {row} holds {numbers[row]!r}; time steps must be dates or whole numbers"
        )
    return numbers.astype(np.int64)


def _days_on_the_wall(column: pd.Series[Any], given: Frequency | None) -> pd.Series[Any] | None:
    """Local times whose offsets differ, as in summer and winter, while the time of day stays the same.

    Offsets do not tell the zone, so that days, weeks and months pass without one.
    """
    if not _is_text(column) or (given is not None and given.is_clock):
        return None
    texts = _texts(column)
    if offsets_of(texts).nunique() < 2:
        return None
    local = read_dates(without_offsets(texts))
    same_time = (local - local.dt.normalize()).nunique() == 1
    return local if same_time and local.notna().all() else None


def _parse_dates(column: pd.Series[Any], name: str) -> pd.Series[Any]:
    """Dates in one spelling throughout, as `read_dates` finds it."""
    if pd.api.types.is_datetime64_any_dtype(column):
        return column
    texts = with_marks(_texts(column))
    if texts.str.match(TIME_OF_DAY).all():
        raise DataError(f"column {name!r} holds times of the day; each row needs its date too")
    zoned = offsets_of(texts).notna()
    if zoned.any() and not zoned.all():
        row = int((~zoned).to_numpy().argmax())
        raise DataError(
            f"column {name!r}: row {row} holds {column.iloc[row]!r} without a time zone, which others have; "
            "give all of them one, or none"
        )
    parsed = read_dates(texts)
    if parsed.isna().any():
        row = int(parsed.isna().to_numpy().argmax())
        raise DataError(
            f"column {name!r}: row {row} holds {column.iloc[row]!r}, which is not a date in the spelling "
            "of the others; write dates as 2024-01-31 or 2024-01-31 14:00, drop the row, or name another "
            "time_column"
        )
    return parsed


def _nanoseconds(stamps: pd.Series[Any], name: str) -> npt.NDArray[np.datetime64]:
    try:
        return pd.DatetimeIndex(stamps).as_unit("ns").to_numpy()
    except (pd.errors.OutOfBoundsDatetime, OverflowError) as error:
        raise DataError(
            f"column {name!r}: dates must lie in the years 1678 to 2260; use whole numbers as time steps"
        ) from error
