"""The border: tables of any common shape in, a checked and regular `Panel` out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from llamacast.data.calendar import Frequency, infer_frequency, parse_frequency
from llamacast.data.panel import Columns, Panel, Rows, lay_out
from llamacast.forecast import DataError

Table: TypeAlias = (
    "pd.DataFrame | pd.Series[Any] | npt.NDArray[Any] | Sequence[Any] | str | os.PathLike[str]"
)
"""What users bring: a frame, a Series, an array, a list, or the path of a CSV or parquet file."""

ID_NAMES = ("unique_id", "item_id", "series_id", "id")
TIME_NAMES = ("ds", "timestamp", "datetime", "date", "time")
TARGET_NAMES = ("y", "target", "value")


def read_panel(
    data: Table,
    *,
    id_column: str | None = None,
    time_column: str | None = None,
    target_column: str | None = None,
    frequency: str | None = None,
) -> Panel:
    """Check a table and lay each of its series on a regular time axis.

    Long frames (`unique_id, ds, y`; `item_id, timestamp, target`; any names by argument), wide
    frames (a column for each series), Series, arrays, lists, and the paths of CSV and parquet
    files are understood. Rows may be in any order; steps without a row become missing.

    Raises:
        DataError: names the file, column, series or row that cannot be used, and how to mend it.
    """
    frame = _as_frame(data)
    if frame.empty:
        raise DataError("the data are empty: no rows or no columns to forecast")
    frame = _index_to_columns(frame)
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise DataError(f"there are two columns {twice!r}; rename or drop one")
    _check_names(frame, {"id": id_column, "time": time_column, "target": target_column})
    given = parse_frequency(frequency) if frequency else None
    time = time_column or _find_time(frame)
    identifier = id_column or _find_id(frame, time, target_column)
    targets = [target_column] if target_column else _find_targets(frame, identifier, time)
    wide = len(targets) > 1
    columns = Columns(
        id=identifier or ("unique_id" if wide else None),
        time=time or "ds",
        target="y" if wide else str(targets[0]),
    )
    return lay_out(_to_rows(frame, identifier, time, targets, given), columns, given)


# --- What the user brought, as one frame ---------------------------------------------------------


def _as_frame(data: Table) -> pd.DataFrame:
    if isinstance(data, pd.DataFrame):
        return data
    if isinstance(data, pd.Series):
        return data.to_frame(data.name if data.name is not None else "y")
    if isinstance(data, (str, os.PathLike)):
        return _read_file(Path(data))
    if isinstance(data, np.ndarray) or (isinstance(data, Sequence) and not isinstance(data, bytes)):
        return _from_arrays(data)
    raise DataError(
        f"cannot forecast from {type(data).__name__}; give a DataFrame, a Series, an array, a list, "
        "or the path of a CSV or parquet file"
    )


def _read_file(path: Path) -> pd.DataFrame:
    readers: dict[str, Callable[..., pd.DataFrame]] = {
        ".csv": pd.read_csv,
        ".txt": pd.read_csv,
        ".parquet": pd.read_parquet,
        ".pq": pd.read_parquet,
    }
    suffixes = [
        suffix.lower() for suffix in path.suffixes if suffix.lower() not in (".gz", ".zip", ".zst")
    ]
    reader = readers.get(suffixes[-1] if suffixes else "")
    if not path.exists():
        raise DataError(f"{path}: there is no such file")
    if reader is None:
        raise DataError(f"{path}: must be a .csv or a .parquet file")
    try:
        return reader(path)
    except Exception as error:
        # Parsers raise many types on damaged files; to the user they mean one thing.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{path}: cannot be read ({reason})") from error


def _from_arrays(data: Any) -> pd.DataFrame:
    """One series, or several (rows of an array, members of a list), at steps 0, 1, 2, ..."""
    if isinstance(data, np.ndarray) and data.ndim not in (1, 2):
        raise DataError(f"an array must have one dimension, or two (series, time); got {data.ndim}")
    nested = any(np.ndim(member) == 1 for member in data)
    if nested and not all(np.ndim(member) == 1 for member in data):
        raise DataError("a list must hold numbers only, or series only")
    if not nested:
        dtype = data.dtype if isinstance(data, np.ndarray) else None
        return pd.DataFrame({"y": pd.Series(list(data), dtype=dtype)})
    for number, member in enumerate(data):
        if len(member) == 0:
            raise DataError(f"series {number} is empty; leave it out or give it a value")
    return pd.concat(
        [
            pd.DataFrame(
                {"unique_id": number, "ds": np.arange(len(member)), "y": np.asarray(member)}
            )
            for number, member in enumerate(data)
        ],
        ignore_index=True,
    )


def _index_to_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """Times, and ids, that stand in the index become columns."""
    index = frame.index
    if isinstance(index, pd.MultiIndex):
        defaults = ("unique_id", "ds")
        names = [name or spare for name, spare in zip(index.names, defaults, strict=False)]
        return frame.reset_index(names=names)
    dated = isinstance(index, (pd.DatetimeIndex, pd.PeriodIndex))
    if dated or (index.name in TIME_NAMES and index.name not in frame):
        return frame.reset_index(names=str(index.name or "ds"))
    return frame.reset_index(drop=True)


# --- Which column is what ------------------------------------------------------------------------


def _check_names(frame: pd.DataFrame, given: dict[str, str | None]) -> None:
    for role, name in given.items():
        if name is not None and name not in frame.columns:
            there = ", ".join(map(str, frame.columns))
            raise DataError(f"there is no column {name!r} for the {role}; the data have: {there}")


def _find(
    frame: pd.DataFrame, names: Sequence[str], exclude: Iterable[str | None] = ()
) -> str | None:
    """The column with the first of `names`, in whatever case."""
    lower = {str(column).lower(): column for column in reversed(list(frame.columns))}
    return next((lower[n] for n in names if n in lower and lower[n] not in exclude), None)


def _find_time(frame: pd.DataFrame) -> str | None:
    named = _find(frame, TIME_NAMES)
    if named is not None:
        return named
    for column in frame.columns:
        if pd.api.types.is_datetime64_any_dtype(frame[column]) or isinstance(
            frame[column].dtype, pd.PeriodDtype
        ):
            return str(column)
    for column in frame.columns:
        if not pd.api.types.is_numeric_dtype(frame[column]) and _looks_like_dates(frame[column]):
            return str(column)
    return None


def _find_id(frame: pd.DataFrame, time: str | None, target: str | None) -> str | None:
    """The column that names series: by its own name, or the one text column where times repeat."""
    named = _find(frame, ID_NAMES, exclude=(time, target))
    if named is not None or time is None or not frame[time].duplicated().any():
        return named
    others = [column for column in frame.columns if column not in (time, target)]
    texts = [column for column in others if not pd.api.types.is_numeric_dtype(frame[column])]
    return texts[0] if len(texts) == 1 else None


def _looks_like_dates(column: pd.Series[Any]) -> bool:
    sample = column.dropna().head(5)
    if sample.empty or not all(any(sign.isdigit() for sign in str(value)) for value in sample):
        return False
    parsed = pd.to_datetime(sample.astype(str), errors="coerce", format="mixed", utc=True)
    return bool(parsed.notna().all())


def _find_targets(frame: pd.DataFrame, identifier: str | None, time: str | None) -> list[str]:
    """The target column; or, in a wide frame, the column of every series."""
    named = _find(frame, TARGET_NAMES, exclude=(identifier, time))
    if named is not None:
        return [named]
    others = [column for column in frame.columns if column not in (identifier, time)]
    numeric = [column for column in others if pd.api.types.is_numeric_dtype(frame[column])]
    if len(numeric) == 1 or (numeric and identifier is None and len(numeric) == len(others)):
        return numeric
    found = ", ".join(map(str, others)) or "no other column"
    raise DataError(
        f"cannot tell which column holds the values to forecast ({found}); name it with target_column"
    )


def _to_rows(
    frame: pd.DataFrame,
    identifier: str | None,
    time: str | None,
    targets: Sequence[str],
    given: Frequency | None,
) -> Rows:
    """Each target column under the other; without a time column, rows are steps 0, 1, 2, ..."""
    count = len(frame)
    steps, zone = _times(frame[time], time, given) if time else (np.arange(count), None)
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
    if pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_complex_dtype(column):
        raise DataError(
            f"column {name!r} holds {column.dtype}, not numbers; name another target_column"
        )
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
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
        return _whole_numbers(column, name), None
    if isinstance(column.dtype, pd.PeriodDtype):
        column = column.dt.to_timestamp()
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


def _parse_dates(column: pd.Series[Any], name: str) -> pd.Series[Any]:
    """Dates in one spelling throughout: ISO, else month first (day first with dots), else the other."""
    if pd.api.types.is_datetime64_any_dtype(column):
        return column
    texts = column.astype(str)
    # Offsets that differ (a clock change) need one zone to be told in.
    utc = bool(texts.str.contains(r"\d(?:Z|[+-]\d\d:?\d\d)$", regex=True).all())
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
