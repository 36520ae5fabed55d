"""The border: tables of any common shape in, a checked and regular `Panel` out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import pandas as pd

from llamacast.data.calendar import Frequency, infer_frequency, parse_frequency
from llamacast.data.covariates import Beside, read_covariates, with_future
from llamacast.data.panel import Columns, Panel, Rows, lay_out, step_numbers_beside
from llamacast.data.tables import ID_NAMES, TIME_NAMES, Table, as_frame, looks_like_dates
from llamacast.forecast import DataError

TARGET_NAMES = ("y", "target", "value")
LARGEST_VALUE = 1e300
"""Beyond it, sums and spreads of a window overflow."""


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
) -> Panel:
    """Check a table and lay each of its series on a regular time axis.

    Long frames (`unique_id, ds, y`; `item_id, timestamp, target`; any names by argument), wide
    frames (a column for each series), Series, arrays, lists, and the paths of CSV and parquet
    files are understood. Rows may be in any order; steps without a row become missing. A `Panel` is
    checked already and comes back as it is. `covariates`, `future_frame` and `holidays` (see
    `ColumnNames`) are laid beside the values, as far as a forecast of `horizon` steps needs them.

    Raises:
        DataError: names the file, column, series or row that cannot be used, and how to mend it.
    """
    if isinstance(data, Panel):
        return data if horizon is None else with_future(data, horizon, Beside(holidays=holidays))
    frame = as_frame(data, id_column)
    given_names = {"id": id_column, "time": time_column, "target": target_column}
    _check_names(frame, {**given_names, "group": group_column})
    given = parse_frequency(frequency) if frequency is not None else None
    time = _time_of(frame, time_column)
    named = [covariates] if isinstance(covariates, str) else list(covariates or ())
    plain = frame.drop(columns=[*named, group_column], errors="ignore")
    identifier = id_column if id_column is not None else _find_id(plain, time, target_column)
    future = None if future_frame is None else as_frame(future_frame, identifier)
    if future is not None:  # what is known of the future is not to be forecast
        kept = (identifier, time, target_column, _find(frame, TARGET_NAMES))
        told = [column for column in future.columns if column not in kept]
        plain = plain.drop(columns=told, errors="ignore")
    targets = (
        [target_column] if target_column is not None else _find_targets(plain, identifier, time)
    )
    wide = len(targets) > 1
    columns = Columns(
        id="unique_id" if wide and identifier is None else identifier,
        time="ds" if time is None else time,
        target="y" if wide else str(targets[0]),
    )
    panel = lay_out(_to_rows(frame, identifier, time, targets, given), columns, given)
    if group_column is not None:
        panel = replace(panel, groups=_groups(frame, columns, panel, group_column))
    asked = _asked(frame, columns, covariates, future, holidays)
    if asked.columns or future is not None:
        if wide or time is None:
            raise DataError(
                "covariates need a long table, with a column of times and one row for each value"
            )
        parts = [frame] if asked.future is None else [frame, _like(asked.future, panel)]
        steps = [
            step_numbers_beside(_to_rows(part, identifier, time, targets, given), panel)
            for part in parts
        ]
        known = read_covariates(panel, frame, columns, np.concatenate(steps), asked)
        panel = replace(panel, covariates=known)
    return panel if horizon is None else with_future(panel, horizon, asked)


def _groups(frame: pd.DataFrame, columns: Columns, panel: Panel, name: str) -> list[Any]:
    """The group of each series, which its rows agree on."""
    if columns.id not in frame.columns:
        raise DataError(f"group_column {name!r} needs a long table with a column of series names")
    several = frame.groupby(columns.id)[name].nunique(dropna=False)
    if (several > 1).any():
        identifier = several.index[several > 1][0]
        raise DataError(
            f"column {name!r}: series {identifier!r} is in several groups; it may be in one"
        )
    known = frame.drop_duplicates(columns.id).set_index(columns.id)[name]
    return [known[identifier] for identifier in panel.ids]


def _like(future: pd.DataFrame, panel: Panel) -> pd.DataFrame:
    """A table of the horizon whose times are told in the zone of the history."""
    zone, time = panel.axes[0].zone, panel.columns.time
    found = future.assign(**{panel.columns.target: np.nan})
    if panel.axes[0].frequency is None or pd.api.types.is_numeric_dtype(future[time].dtype):
        return found
    if isinstance(future[time].dtype, pd.PeriodDtype):
        return found
    stamps = _parse_dates(future[time], str(time))
    if zone is not None and stamps.dt.tz is None:
        stamps = stamps.dt.tz_localize(zone, ambiguous="NaT", nonexistent="shift_forward")
    elif zone is not None:
        stamps = stamps.dt.tz_convert(zone)
    elif stamps.dt.tz is not None:
        raise DataError(
            f"future_frame: column {time!r} has a time zone, which the history's has not; give both alike"
        )
    return found.assign(**{str(time): stamps})


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
            there = (
                ", ".join(str(column) for column in frame.columns if column not in own) or "none"
            )
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
            there = ", ".join(map(str, frame.columns))
            raise DataError(f"there is no column {name!r} for the {role}; the data have: {there}")


def _find(
    frame: pd.DataFrame, names: Sequence[str], exclude: Iterable[str | None] = ()
) -> str | None:
    """The column with the first of `names`, in whatever case."""
    lower = {str(column).lower(): column for column in reversed(list(frame.columns))}
    return next((lower[n] for n in names if n in lower and lower[n] not in exclude), None)


def series_column(frame: pd.DataFrame, time_column: str | None, target_column: str | None) -> Any:
    """The column of a long frame that names the series, if there is one."""
    return _find_id(frame, _time_of(frame, time_column), target_column)


def _time_of(frame: pd.DataFrame, time_column: str | None) -> Any:
    return time_column if time_column is not None else _find_time(frame)


def _find_time(frame: pd.DataFrame) -> Any:
    named = _find(frame, TIME_NAMES)
    if named is not None:
        return named
    kinds = {column: frame[column].dtype for column in frame.columns}
    dated = [column for column, kind in kinds.items() if _is_dated(kind)]
    texts = [column for column, kind in kinds.items() if not pd.api.types.is_numeric_dtype(kind)]
    read = (column for column in texts if looks_like_dates(frame[column]))
    return next(iter(dated), next(read, None))


def _is_dated(kind: Any) -> bool:
    return pd.api.types.is_datetime64_any_dtype(kind) or isinstance(kind, pd.PeriodDtype)


def _find_id(frame: pd.DataFrame, time: str | None, target: str | None) -> str | None:
    """The column that names series: by its own name, or the one text column where times repeat."""
    named = _find(frame, ID_NAMES, exclude=(time, target))
    if named is not None or time is None or not frame[time].duplicated().any():
        return named
    others = [column for column in frame.columns if column not in (time, target)]
    texts = [column for column in others if not pd.api.types.is_numeric_dtype(frame[column])]
    return texts[0] if len(texts) == 1 else None


def _find_targets(frame: pd.DataFrame, identifier: str | None, time: str | None) -> list[str]:
    """The target column; or, in a wide frame, the column of every series."""
    named = _find(frame, TARGET_NAMES, exclude=(identifier, time))
    if named is not None:
        return [named]
    others = [column for column in frame.columns if column not in (identifier, time)]
    numeric = [column for column in others if _is_numeric(frame[column])]
    if len(numeric) == 1 or (numeric and identifier is None and len(numeric) == len(others)):
        return numeric
    found = ", ".join(map(str, others)) or "no other column"
    raise DataError(
        f"cannot tell which column holds the values to forecast ({found}); name it with target_column"
    )


def _is_numeric(column: pd.Series[Any]) -> bool:
    if column.dtype != object:
        return pd.api.types.is_numeric_dtype(column)
    return pd.to_numeric(column, errors="coerce").notna().sum() == column.notna().sum()


def _to_rows(
    frame: pd.DataFrame,
    identifier: str | None,
    time: str | None,
    targets: Sequence[str],
    given: Frequency | None,
) -> Rows:
    """Each target column under the other; without a time column, rows are steps 0, 1, 2, ..."""
    count = len(frame)
    steps, zone = (np.arange(count), None) if time is None else _times(frame[time], time, given)
    if identifier is None:
        ids = np.repeat(np.asarray(targets, dtype=object), count)
    else:
        if frame[identifier].isna().any():
            row = int(frame[identifier].isna().to_numpy().argmax())
            raise DataError(
                f"column {identifier!r}: row {row} has no series name; fill it or drop the row"
            )
        ids = frame[identifier].to_numpy()
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
            f"column {name!r}: row {row} holds {column.iloc[row]!r}, which is not a number; correct it, "
            "leave it empty if the value is missing, or name another target_column"
        )
    return numbers


# --- Times ---------------------------------------------------------------------------------------


def _times(
    column: pd.Series[Any], name: str, given: Frequency | None
) -> tuple[npt.NDArray[Any], Any]:
    """Times as `datetime64[ns]` or int64, and their zone."""
    if column.isna().any():
        row = int(column.isna().to_numpy().argmax())
        raise DataError(f"column {name!r}: row {row} has no time; fill it or drop the row")
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        numbers = _whole_numbers(column, name)
        written = _dates_in_numbers(numbers)
        return (numbers, None) if written is None else (_nanoseconds(written, name), None)
    if isinstance(column.dtype, pd.PeriodDtype):
        column = column.dt.to_timestamp()
    if isinstance(column.dtype, pd.ArrowDtype) and "date" in str(column.dtype):
        column = column.astype("datetime64[s]")
    stamps = _parse_dates(column, name)
    zone = stamps.dt.tz
    if zone is None:
        return _nanoseconds(stamps, name), None
    local = np.unique(_nanoseconds(stamps.dt.tz_localize(None), name))
    frequency = given or infer_frequency(local)
    if frequency is not None and not frequency.is_clock:
        return _nanoseconds(stamps.dt.tz_localize(None), name), zone
    return _nanoseconds(stamps.dt.tz_convert("UTC").dt.tz_localize(None), name), zone


def _whole_numbers(column: pd.Series[Any], name: str) -> npt.NDArray[np.int64]:
    numbers = column.to_numpy(dtype=np.float64)
    odd = ~np.isfinite(numbers) | (numbers != np.floor(numbers)) | (np.abs(numbers) > 2**53)
    if odd.any():
        row = int(odd.argmax())
        raise DataError(
            f"column {name!r}: row {row} holds {numbers[row]!r}; time steps must be dates or whole numbers"
        )
    return numbers.astype(np.int64)


def _dates_in_numbers(numbers: npt.NDArray[np.int64]) -> pd.Series[Any] | None:
    """The dates that numbers such as 20240131 (or 202401, going on to 202501) spell, if all do."""
    distinct = np.unique(numbers)
    if (distinct > 19000000).all() and (distinct < 21000000).all():
        texts, spelling = pd.Series(numbers).astype(str), "%Y%m%d"
    elif (distinct > 190000).all() and (distinct < 210000).all() and 89 in np.diff(distinct):
        texts, spelling = pd.Series(numbers).astype(str), "%Y%m"
    else:
        return None
    parsed = pd.to_datetime(texts, format=spelling, errors="coerce")
    return parsed if parsed.notna().all() else None


def _parse_dates(column: pd.Series[Any], name: str) -> pd.Series[Any]:
    """Dates in one spelling throughout: ISO, else month first (day first with dots), else the other."""
    if pd.api.types.is_datetime64_any_dtype(column):
        return column
    texts = column.astype(str)
    if texts.str.match(r"\s*\d{1,2}:\d{2}").all():
        raise DataError(f"column {name!r} holds times of the day; each row needs its date too")
    # Offsets that differ (a clock change) need one zone to be told in.
    offsets = texts.str.extract(r"\d(Z|[+-]\d\d:?\d\d)$", expand=False)
    utc = bool(offsets.notna().all()) and offsets.nunique() > 1
    parsed = pd.to_datetime(texts, errors="coerce", format="ISO8601", utc=utc)
    if parsed.isna().all():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that a spelling had to be guessed
            dotted = bool(texts.str.match(r"\d{1,2}\.\d{1,2}\.\d{4}").all())  # 31.1.2024
            for dayfirst in (dotted, not dotted):
                parsed = pd.to_datetime(texts, errors="coerce", dayfirst=dayfirst, utc=utc)
                if parsed.notna().all():
                    break
    if parsed.isna().any():
        row = int(parsed.isna().to_numpy().argmax())
        raise DataError(
            f"column {name!r}: row {row} holds {column.iloc[row]!r}, which is not a date in the spelling "
            "of the others; write dates as 2024-01-31 or 2024-01-31 14:00, or name another time_column"
        )
    return parsed


def _nanoseconds(stamps: pd.Series[Any], name: str) -> npt.NDArray[np.datetime64]:
    try:
        return pd.DatetimeIndex(stamps).as_unit("ns").to_numpy()
    except (pd.errors.OutOfBoundsDatetime, OverflowError) as error:
        raise DataError(
            f"column {name!r}: dates must lie in the years 1678 to 2260; use whole numbers as time steps"
        ) from error
