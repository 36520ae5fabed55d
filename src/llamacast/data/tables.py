"""What users bring, as one plain frame: files, frames, Series, arrays and lists."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from llamacast.forecast import DataError

Table: TypeAlias = (
    "pd.DataFrame | pd.Series[Any] | npt.NDArray[Any] | Sequence[Any] | str | os.PathLike[str]"
)
"""What users bring: a frame, a Series, an array, a list, or the path of a CSV or parquet file."""

ID_NAMES = ("unique_id", "item_id", "series_id", "id")
TIME_NAMES = ("ds", "timestamp", "datetime", "date", "time", "year")

MISSING_WORDS = ["", "NA", "N/A", "#N/A", "n/a", "<NA>", "NaN", "nan", "-", "null", "NULL", "None"]
"""What stands for a missing value in a CSV, but for the names of series ("NA" is Namibia)."""

_COMPRESSIONS = (".gz", ".zip", ".zst", ".bz2", ".xz")


def as_frame(data: Table, id_column: str | None = None) -> pd.DataFrame:
    """One frame with unique column names and nothing of meaning left in its index.

    Raises:
        DataError: if the data are of no known kind, cannot be read, or are ambiguous.
    """
    if isinstance(data, pd.DataFrame):
        frame = _index_to_columns(data)
    elif isinstance(data, pd.Series):
        frame = _index_to_columns(_named(data).to_frame())
    elif isinstance(data, (str, os.PathLike)):
        frame = _index_to_columns(_read_file(Path(data), id_column))
    elif isinstance(data, np.ndarray) or (
        isinstance(data, Sequence) and not isinstance(data, bytes)
    ):
        frame = _from_arrays(data)
    else:
        raise DataError(
            f"cannot forecast from {type(data).__name__}; give a DataFrame, a Series, an array, a "
            "list, or the path of a CSV or parquet file"
        )
    if frame.empty:
        raise DataError("the data are empty: no rows or no columns to forecast")
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise DataError(f"there are two columns {twice!r}; rename or drop one")
    return frame


def _read_file(path: Path, id_column: str | None) -> pd.DataFrame:
    readers: dict[str, Callable[[Path], pd.DataFrame]] = {
        ".csv": lambda path: _read_csv(lambda: path, id_column),
        ".txt": lambda path: _read_csv(lambda: path, id_column),
        ".parquet": pd.read_parquet,
        ".pq": pd.read_parquet,
    }
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in _COMPRESSIONS]
    reader = readers.get(suffixes[-1] if suffixes else "")
    if not path.exists():
        raise DataError(f"{path}: there is no such file")
    if reader is None:
        raise DataError(f"{path}: must be a .csv or a .parquet file")
    try:
        return reader(path)
    except Exception as error:
        raise DataError(f"{path}: cannot be read ({_reason(error)})") from error


def read_csv_text(text: str, id_column: str | None) -> pd.DataFrame:
    """The table of a CSV's text, read as a file of it would be.

    Raises:
        DataError: if it is none, or has no rows.
    """
    try:
        frame = _read_csv(lambda: io.StringIO(text), id_column)
    except Exception as error:
        raise DataError(f"the text cannot be read as a CSV ({_reason(error)})") from error
    if frame.empty:
        raise DataError("the CSV has a header and no rows")
    return frame


def _reason(error: Exception) -> str:
    """Parsers raise many types on damaged files; to the user they mean one thing."""
    return (str(error) or type(error).__name__).splitlines()[0]


def _read_csv(source: Callable[[], Path | io.StringIO], id_column: str | None) -> pd.DataFrame:
    """Commas and decimal points, or semicolons and decimal commas, or tabs; ids as they are written."""
    header = list(pd.read_csv(source(), nrows=0, index_col=False, skipinitialspace=True).columns)
    alone = header[0] if len(header) == 1 else ""
    separator = next((mark for mark in (";", "\t", "|") if mark in alone), ",")
    if separator != ",":
        read = pd.read_csv(source(), sep=separator, nrows=0, index_col=False, skipinitialspace=True)
        header = list(read.columns)
    ids = [column for column in header if column == id_column or column.lower() in ID_NAMES]
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # that values would be dropped
        frame = pd.read_csv(
            source(),
            sep=separator,
            decimal="," if separator == ";" else ".",
            skipinitialspace=True,
            index_col=False,
            dtype=dict.fromkeys(ids, str),
            keep_default_na=False,
            na_values={name: [""] if name in ids else MISSING_WORDS for name in header},
        )
    first = frame.columns[0] if len(frame.columns) > 1 else ""
    if str(first).startswith("Unnamed:") and (frame[first] == np.arange(len(frame))).all():
        return frame.drop(columns=first)  # a row number that pandas wrote
    return frame


def _from_arrays(data: Any) -> pd.DataFrame:
    """One series, or several (rows of an array, members of a list), at steps 0, 1, 2, ..."""
    if isinstance(data, np.ma.MaskedArray):
        data = np.ma.filled(data.astype(np.float64), np.nan)
    if isinstance(data, np.ndarray) and data.ndim not in (1, 2):
        raise DataError(f"an array must have one dimension, or two (series, time); got {data.ndim}")
    lengths = [len(member) if _is_series(member) else None for member in data]
    if None in lengths:
        if any(length is not None for length in lengths):
            raise DataError("a list must hold numbers only, or series only")
        dtype = data.dtype if isinstance(data, np.ndarray) else None
        return pd.DataFrame({"y": pd.Series(list(data), dtype=dtype)})
    for number, length in enumerate(lengths):
        if length == 0:
            raise DataError(f"series {number} is empty; leave it out or give it a value")
    return pd.concat(
        [_member(number, member) for number, member in enumerate(data)] or [pd.DataFrame()],
        ignore_index=True,
    )


def _is_series(member: Any) -> bool:
    return isinstance(member, (pd.Series, list, tuple)) or getattr(member, "ndim", 0) > 0


def _member(number: int, member: Any) -> pd.DataFrame:
    """One series of a list; a pandas Series brings its own times and its name."""
    if not isinstance(member, pd.Series):
        if any(isinstance(value, (list, tuple, np.ndarray)) for value in member):
            raise DataError(f"series {number} holds lists; a series holds numbers")
        return pd.DataFrame({"unique_id": number, "ds": np.arange(len(member)), "y": list(member)})
    frame = _index_to_columns(member.to_frame("y"))
    times = [column for column in frame.columns if column != "y"]
    steps = frame[times[0]] if times else np.arange(len(frame))
    name = member.name if member.name is not None else number
    return pd.DataFrame({"unique_id": name, "ds": steps, "y": frame["y"]})


def _named(series: pd.Series[Any]) -> pd.Series[Any]:
    """A Series under a name that its index does not bear."""
    taken = set(series.index.names) | {*TIME_NAMES}
    name = series.name
    if isinstance(name, str) and name.lower() not in taken:
        return series
    return series.rename("value" if "y" in taken else "y")


def _index_to_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """Times, and ids, that stand in the index become columns; row numbers are dropped."""
    if isinstance(frame.columns, pd.MultiIndex):
        raise DataError("the columns have several levels; give each column one name")
    index = frame.index
    if isinstance(index, pd.MultiIndex):
        if index.nlevels != 2:
            raise DataError(f"the index has {index.nlevels} levels; it may have two, id and time")
        return _lift(frame, [index.names[0] or "unique_id", index.names[1] or "ds"])
    if isinstance(index, pd.TimedeltaIndex):
        raise DataError("the index holds durations; give dates or whole numbers")
    dated = isinstance(index, (pd.DatetimeIndex, pd.PeriodIndex)) or looks_like_dates(index)
    named = str(index.name).lower() in TIME_NAMES
    if dated or named or (_counts_steps(index) and not _has_times(frame)):
        return _lift(frame, [index.name if index.name is not None else "ds"])
    return frame.reset_index(drop=True)


def _counts_steps(index: pd.Index[Any]) -> bool:
    """Whether whole numbers in an index say more than the numbers of rows do."""
    if not pd.api.types.is_integer_dtype(index.dtype):
        return False
    return not np.array_equal(index.to_numpy(), np.arange(len(index)))


def _has_times(frame: pd.DataFrame) -> bool:
    return any(
        str(column).lower() in TIME_NAMES or not pd.api.types.is_numeric_dtype(frame[column].dtype)
        for column in frame.columns
    )


def _lift(frame: pd.DataFrame, names: list[Any]) -> pd.DataFrame:
    """The index as columns; where a column of that name says the same, it stays as it is."""
    both = [name for name in names if name in frame.columns]
    if not both:
        return frame.reset_index(names=names)
    if len(names) == 1 and frame[names[0]].to_numpy().tolist() == frame.index.to_numpy().tolist():
        return frame.reset_index(drop=True)
    raise DataError(f"the index and a column are both called {both[0]!r}; rename or drop one")


def looks_like_dates(values: pd.Series[Any] | pd.Index[Any]) -> bool:
    """Whether texts or objects begin with what only dates look like: a year, or three parts."""
    if pd.api.types.is_numeric_dtype(values.dtype):
        return False
    sample = pd.Series(values).dropna().head(5).astype(str)
    dated = sample.str.match(r"\s*(\d{4}(\D|$|Q)|\d{8}$|\d{1,4}[-/. ]\w{1,9}[-/. ]\d{1,4})")
    if sample.empty or not dated.all():
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        parsed = pd.to_datetime(sample, errors="coerce", format="mixed", utc=True)
    return bool(parsed.notna().all())
