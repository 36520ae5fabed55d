"""What users bring, as one plain frame: files, frames, Series, arrays and lists."""

from __future__ import annotations

import codecs
import io
import os
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from llamacast.data.dates import looks_like_dates, named_like_dates
from llamacast.forecast import DataError

Table: TypeAlias = (
    "pd.DataFrame | pd.Series[Any] | npt.NDArray[Any] | Sequence[Any] | str | os.PathLike[str]"
)
"""What users bring: a frame, a Series, an array, a list, or the path of a CSV or parquet file."""

ID_NAMES = ("unique_id", "item_id", "series_id", "id")
TIME_NAMES = ("ds", "timestamp", "datetime", "date", "time", "year", "jahr")

MISSING_WORDS = ["", "NA", "N/A", "#N/A", "n/a", "<NA>", "NaN", "nan", "-", "null", "NULL", "None"]
"""What stands for a missing value in a CSV, but for the names of series ("NA" is Namibia)."""

_GROUPED = r"[+-]?[1-9]\d{0,2}\.\d{3}"
"""What a dot that groups thousands writes, and so does a decimal point: 1.134."""

FEWEST_STEPS = 8
"""Columns that an array of more rows has at least, if these are series."""
ROWS_LOOKED_AT = 1_000
"""For codes that begin with 0."""

_COMPRESSIONS = (".gz", ".zip", ".zst", ".bz2", ".xz")


def as_frame(data: Table, id_column: str | None = None) -> pd.DataFrame:
    """One frame with unique column names and nothing of meaning left in its index.

    Raises:
        DataError: if the data are of no known kind, cannot be read, or are ambiguous.
    """
    if not isinstance(data, pd.DataFrame) and hasattr(data, "to_pandas"):  # polars, pyarrow
        data = data.to_pandas()
    if isinstance(data, pd.DataFrame):
        frame = _index_to_columns(_without_written_index(data))
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
    return _without_arrow_stamps(frame)


def _without_arrow_stamps(frame: pd.DataFrame) -> pd.DataFrame:
    """Arrow's time stamps as pandas' own, whose zones pandas tells of."""
    kinds = {}
    for name, kind in frame.dtypes.items():
        if isinstance(kind, pd.ArrowDtype) and kind.kind == "M":
            zone = getattr(kind.pyarrow_dtype, "tz", None)
            kinds[name] = "datetime64[ns]" if zone is None else pd.DatetimeTZDtype("ns", zone)
    return frame.astype(kinds) if kinds else frame


def _read_file(path: Path, id_column: str | None) -> pd.DataFrame:
    readers: dict[str, Callable[[Path], pd.DataFrame]] = {
        ".csv": lambda path: _read_csv(lambda: path, id_column),
        ".txt": lambda path: _read_csv(lambda: path, id_column),
        ".tsv": lambda path: _read_csv(lambda: path, id_column),
        ".parquet": pd.read_parquet,
        ".pq": pd.read_parquet,
    }
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in _COMPRESSIONS]
    reader = readers.get(suffixes[-1] if suffixes else "")
    if not path.exists():
        raise DataError(f"{path}: there is no such file")
    if reader is None:
        sheet = suffixes[-1:] in ([".xlsx"], [".xls"], [".ods"])
        raise DataError(
            f"{path}: must be a .csv or a .parquet file"
            + (
                "; save the sheet as 'CSV UTF-8', or give what pandas.read_excel reads"
                if sheet
                else ""
            )
        )
    try:
        return reader(path)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: is not written in UTF-8 ({_reason(error)}); save it as UTF-8, which Excel calls "
            "'CSV UTF-8'"
        ) from error
    except Exception as error:
        raise DataError(f"{path}: cannot be read ({_reason(error)})") from error


def read_csv_text(text: str, id_column: str | None) -> pd.DataFrame:
    """The table of a CSV's text, read as a file of it would be.

    Raises:
        DataError: if it is none, or has no rows.
    """
    try:
        frame = _read_csv(lambda: io.StringIO(text), id_column)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"the text cannot be read as a CSV ({_reason(error)})") from error
    if frame.empty:
        raise DataError("the CSV has a header and no rows")
    return frame


def _reason(error: Exception) -> str:
    """Parsers raise many types on damaged files; to the user they mean one thing."""
    return (str(error) or type(error).__name__).splitlines()[0]


def _read_csv(source: Callable[[], Path | io.StringIO], id_column: str | None) -> pd.DataFrame:
    """A CSV in UTF-8, or in UTF-16 where its first bytes say so."""
    try:
        return _read_encoded(source, id_column, "utf-8-sig")
    except pd.errors.ParserWarning as error:
        raise DataError(
            "rows have more cells than the first line has names; delete lines that stand above the header, "
            "such as a title, or name every column"
        ) from error
    except UnicodeDecodeError as error:
        if error.object[:2] not in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise
    return _read_encoded(source, id_column, "utf-16")


def _read_encoded(
    source: Callable[[], Path | io.StringIO], id_column: str | None, encoding: str
) -> pd.DataFrame:
    """Commas and decimal points, or semicolons and decimal commas, or tabs; ids as they are written."""
    plain: dict[str, Any] = {"index_col": False, "skipinitialspace": True, "encoding": encoding}
    header = list(pd.read_csv(source(), nrows=0, **plain).columns)
    if header[0].lower().startswith("sep="):  # a line for Excel
        plain["skiprows"] = 1
        header = list(pd.read_csv(source(), nrows=0, **plain).columns)
    alone = header[0] if len(header) == 1 else ""
    plain["sep"] = next((mark for mark in (";", "\t", "|") if mark in alone), ",")
    if plain["sep"] != ",":
        header = list(pd.read_csv(source(), nrows=0, **plain).columns)
    ids = [column for column in header if column == id_column or column.lower() in ID_NAMES]
    plain["keep_default_na"] = False
    plain["na_values"] = {name: [""] if name in ids else MISSING_WORDS for name in header}
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # that values would be dropped
        if plain["sep"] != ";":
            ids += _with_leading_zeros(
                pd.read_csv(source(), dtype=str, nrows=ROWS_LOOKED_AT, **plain)
            )
            frame = pd.read_csv(source(), dtype=dict.fromkeys(ids, str), **plain)
        else:
            texts = pd.read_csv(source(), dtype=str, **plain)
            numbers = _without_thousands(texts.drop(columns=ids))
            ids += _with_leading_zeros(texts.drop(columns=numbers))
            kept = dict.fromkeys([*ids, *numbers], str)
            frame = pd.read_csv(source(), decimal=",", dtype=kept, **plain).assign(**numbers)
    return _without_written_index(_without_empty_edges(frame))


def _with_leading_zeros(texts: pd.DataFrame) -> list[Any]:
    """Columns of digits in which some begin with 0, as codes do and numbers do not."""
    return [
        name
        for name in texts.columns
        if texts[name].dropna().str.fullmatch(r"\d+").all() and texts[name].str.match(r"0\d").any()
    ]


def _without_empty_edges(frame: pd.DataFrame) -> pd.DataFrame:
    """Without what sheets leave: columns without a name and rows at the end in which nothing stands."""
    there = frame.notna()
    empty = [
        name for name in frame.columns if str(name).startswith("Unnamed:") and not there[name].any()
    ]
    filled = np.flatnonzero(there.any(axis=1).to_numpy())
    last = filled[-1] + 1 if len(filled) else 0
    return frame.iloc[:last].drop(columns=empty) if empty or last < len(frame) else frame


def _without_written_index(frame: pd.DataFrame) -> pd.DataFrame:
    """With the index that pandas wrote into a CSV, as a column without a name, in its place again."""
    first = frame.columns[0] if len(frame.columns) > 1 else ""
    plain = np.array_equal(frame.index, np.arange(len(frame)))
    if plain and str(first).startswith("Unnamed:") and _numbers_rows(frame[first]):
        return frame.set_index(first).rename_axis(None)
    return frame


def _numbers_rows(column: pd.Series[Any]) -> bool:
    """Whether a column without a name is the index that pandas wrote."""
    return pd.api.types.is_integer_dtype(column.dtype) and column.is_unique


def _without_thousands(texts: pd.DataFrame) -> dict[str, pd.Series[Any]]:
    """The numbers of those columns whose dots group thousands, in a file with semicolons.

    They do in a column with decimal commas or with 1.134.000; and where a column has nothing that
    only a decimal point could be, beside decimal commas elsewhere or whole numbers below 1000.

    Raises:
        DataError: if 1.134 may as well be a decimal number.
    """
    columns = {name: texts[name].dropna().str.strip() for name in texts.columns}
    commas = [name for name in columns if _share(columns[name], r"[+-]?[\d.]*\d,\d+") > 0]
    points = [name for name in columns if _has_decimal_points(columns[name])]
    found = {}
    for name, column in columns.items():
        grouped = column.str.fullmatch(rf"{_GROUPED}(?:\.\d{{3}})*(?:,\d+)?")
        whole = column.str.fullmatch(r"[+-]?\d+(?:,\d+)?")
        if name in points or not grouped.any() or not (grouped | whole).all():
            continue
        sure = name in commas or _share(column, rf"{_GROUPED}(?:\.\d{{3}})+") > 0
        sure |= bool(commas) and not points
        small = _share(column, r"[+-]?\d{1,3}") > 0 and _share(column, r"[+-]?\d{4,}") == 0
        if points and not commas and not sure:
            continue
        if not sure and not small:
            row = column.index[column.str.fullmatch(_GROUPED)][0]
            raise DataError(
                f"column {name!r}: row {row} holds {column[row]!r}, which may be a number of thousands "
                "or have three decimals; write thousands without a dot, or decimals with a comma"
            )
        plain = texts[name].str.replace(".", "", regex=False).str.replace(",", ".", regex=False)
        found[name] = pd.to_numeric(plain)
    return found


def _share(column: pd.Series[Any], pattern: str) -> float:
    return float(column.str.fullmatch(pattern).mean()) if len(column) else 0.0


def _has_decimal_points(column: pd.Series[Any]) -> bool:
    """Whether a column is of numbers with a dot that groups no thousands: 12.5, 0.125."""
    number = column.str.fullmatch(r"[+-]?(?:\d+(?:\.\d+)?|\.\d+)")
    month = column.str.fullmatch(r"\d{1,2}\.(?:19|20)\d\d")
    grouped = column.str.fullmatch(_GROUPED) | column.str.fullmatch(r"[+-]?\d+")
    return bool(number.all() and not month.all() and not grouped.all())


def _from_arrays(data: Any) -> pd.DataFrame:
    """One series, or several (rows of an array, members of a list), at steps 0, 1, 2, ..."""
    if isinstance(data, np.ma.MaskedArray):
        data = np.ma.filled(data.astype(np.float64), np.nan)
    if isinstance(data, np.ndarray) and data.ndim not in (1, 2):
        raise DataError(f"an array must have one dimension, or two (series, time); got {data.ndim}")
    if any(isinstance(member, pd.DataFrame) for member in data):
        raise DataError(
            "a list must hold numbers only, or series only; join frames into one, with a column of the "
            "series' names"
        )
    lengths = [len(member) if _is_series(member) else None for member in data]
    if None in lengths:
        if any(length is not None for length in lengths):
            raise DataError("a list must hold numbers only, or series only")
        dtype = data.dtype if isinstance(data, np.ndarray) else None
        return pd.DataFrame({"y": pd.Series(list(data), dtype=dtype)})
    for number, length in enumerate(lengths):
        if length == 0:
            raise DataError(f"series {number} is empty; leave it out or give it a value")
    if len(lengths) > 1 and set(lengths) == {1} and not any(isinstance(m, pd.Series) for m in data):
        raise DataError(
            f"these are {len(lengths)} series of one value each; if they are one series of "
            f"{len(lengths)} values, give it in one dimension: array[:, 0] of an array"
        )
    if isinstance(data, np.ndarray) and data.shape[1] < FEWEST_STEPS < data.shape[0]:
        raise DataError(
            f"rows of an array are series, and here are {data.shape[0]} of {data.shape[1]} values each; if "
            "time goes down, give array.T"
        )
    names = [getattr(member, "name", None) for member in data]
    repeated = Counter(name for name in names if name is not None).most_common(1)
    told_apart = not repeated or repeated[0][1] == 1
    members = [
        _member(name if told_apart and name is not None else number, number, member)
        for number, (name, member) in enumerate(zip(names, data, strict=True))
    ]
    return pd.concat(members or [pd.DataFrame()], ignore_index=True)


def _is_series(member: Any) -> bool:
    return isinstance(member, (pd.Series, list, tuple)) or getattr(member, "ndim", 0) > 0


def _member(name: Any, number: int, member: Any) -> pd.DataFrame:
    """One series of a list; a pandas Series brings its own times."""
    if not isinstance(member, pd.Series):
        if any(isinstance(value, (list, tuple, np.ndarray)) for value in member):
            raise DataError(f"series {number} holds lists; a series holds numbers")
        return pd.DataFrame({"unique_id": name, "ds": np.arange(len(member)), "y": list(member)})
    frame = _index_to_columns(member.to_frame("y"))
    times = [column for column in frame.columns if column != "y"]
    steps = frame[times[0]] if times else np.arange(len(frame))
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
        usual = ["unique_id", "ds"]
        if _is_dated(index.levels[0]) and not _is_dated(index.levels[1]):
            usual.reverse()
        names = [usual[n] if name is None else name for n, name in enumerate(index.names)]
        return _lift(frame, names)
    if isinstance(index, pd.TimedeltaIndex):
        raise DataError("the index holds durations; give dates or whole numbers")
    named = str(index.name).lower() in (*TIME_NAMES, *ID_NAMES)
    if _is_dated(index) or named:
        return _lift(frame, [index.name if index.name is not None else "ds"])
    counts = _counts_steps(index)
    unread = not pd.api.types.is_integer_dtype(index.dtype) and index.nunique() > 1
    if (counts or unread) and not _has_times(frame):
        if counts:
            return _lift(frame, ["ds"])  # under a name by which it is known for times
        raise DataError(
            f"the index ({index[0]!r}, ...) is not read as times; give dates in it (as 2024-01-31), "
            "or reset_index(drop=True) to have rows counted"
        )
    return frame.reset_index(drop=True)


def _is_dated(index: pd.Index[Any]) -> bool:
    return isinstance(index, (pd.DatetimeIndex, pd.PeriodIndex)) or looks_like_dates(index)


def _counts_steps(index: pd.Index[Any]) -> bool:
    """Whether whole numbers in an index say more than the numbers of rows do."""
    if not pd.api.types.is_integer_dtype(index.dtype):
        return False
    return not np.array_equal(index.to_numpy(), np.arange(len(index)))


def _has_times(frame: pd.DataFrame) -> bool:
    return any(
        str(column).lower() in TIME_NAMES
        or not pd.api.types.is_numeric_dtype(frame[column].dtype)
        or named_like_dates(frame[column], column)
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
