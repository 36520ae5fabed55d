"""Series stored as Arrow: folders of Hugging Face `save_to_disk`, files of GluonTS, parquet."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from llamacast.data.calendar import parse_frequency, placed_like
from llamacast.data.panel import Columns, Panel, TimeAxis
from llamacast.forecast import DataError

Values = npt.NDArray[np.float32]

STATE = "state.json"
SUFFIXES = (".arrow", ".feather")
FILE_MAGIC = b"ARROW1"
# GluonTS' own writer lays arrays of two dimensions out flat, with their shape beside them.
SHAPE = "target._np_shape"


@dataclass(frozen=True)
class StoredSeries:
    """Series as a file has them: unlike those of a `Panel`, some may hold no value. NaN is missing."""

    ids: Sequence[str]
    values: Sequence[Values]
    """Views into the mapped file where it holds 32-bit numbers."""
    axes: Sequence[TimeAxis]
    datasets: Sequence[str] = ()
    """The data set of each series, where the file has such a column."""

    def by_dataset(self) -> list[tuple[str, list[int]]]:
        """Each data set with the numbers of its series; one without a name where there are none."""
        if not self.datasets:
            return [("", list(range(len(self))))]
        rows: dict[str, list[int]] = {}
        for row, name in enumerate(self.datasets):
            rows.setdefault(name, []).append(row)
        return list(rows.items())

    def __len__(self) -> int:
        return len(self.ids)

    def panel(self) -> Panel:
        """The series that hold a value."""
        known = [row for row, values in enumerate(self.values) if not np.isnan(values).all()]
        return Panel(
            [self.ids[row] for row in known],
            [self.values[row].astype(np.float64) for row in known],
            [self.axes[row] for row in known],
            Columns("item_id", "timestamp", "target"),
        )


def read_series(path: Path) -> StoredSeries:
    """Read an Arrow folder or file (stream or file format), or a parquet file; a row is a series.

    Columns: `item_id`, `start` (time stamp of the first value), `freq` (pandas name, old or new;
    GluonTS' own files may name it once, in their metadata) and `target`, a list of numbers or, for
    several variates, a list of such lists; perhaps `dataset`. Others are ignored. Each variate
    becomes a series of its own, named "item_dim0", "item_dim1", ... as GIFT-Eval does.

    Raises:
        DataError: names the file that is missing, damaged or of another layout.
    """
    ids: list[str] = []
    values: list[Values] = []
    axes: list[TimeAxis] = []
    datasets: list[str] = []
    for file in _files(path):
        table = _read_table(file)
        _check(file, table)
        sets = _texts(table, "dataset") if "dataset" in table.column_names else []
        rows = (_texts(table, "item_id"), _axes(table), _targets(table))
        for number, (name, axis, variates) in enumerate(zip(*rows, strict=True)):
            several = len(variates) > 1
            ids += [f"{name}_dim{one}" if several else name for one in range(len(variates))]
            values += variates
            axes += [axis] * len(variates)
            datasets += sets[number : number + 1] * len(variates)
    _refuse_infinite(path, ids, values)
    return StoredSeries(ids, values, axes, datasets)


def read_panels(path: Path) -> dict[str, Panel]:
    """The data sets of a folder of parquet files, or the one of an Arrow folder or a file, by name.

    Raises:
        DataError: as `read_series`, or if a data set has no series that holds a value.
    """
    sets = sorted(path.glob("*.parquet")) if path.is_dir() and not is_arrow_folder(path) else [path]
    if not sets:
        raise DataError(f"{path}: holds neither parquet nor Arrow files")
    panels = {one.stem: read_series(one).panel() for one in sets}
    for name, panel in panels.items():
        if not len(panel):
            raise DataError(f"{path}: no series of {name} holds a value")
    return panels


def holds_series(path: Path) -> bool:
    """Whether `read_panels` is for it: a folder, or a file with a series (not a value) in each row."""
    if path.is_dir() or path.suffix in SUFFIXES:
        return True
    if path.suffix not in (".parquet", ".pq") or not path.exists():
        return False
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException):
        return False  # whoever reads it will say so
    return "target" in schema.names and _is_numbers(schema.field("target").type)


def is_arrow_folder(path: Path) -> bool:
    """Whether the path is a folder with Arrow files directly in it."""
    return path.is_dir() and any(file.suffix in SUFFIXES for file in path.iterdir())


def _files(path: Path) -> list[Path]:
    """The shards that `state.json` lists, in its order; without it all Arrow files by name."""
    if not path.is_dir():
        return [path]
    state = path / STATE
    if state.exists():
        try:
            shards = json.loads(state.read_text())["_data_files"]
            return [path / shard["filename"] for shard in shards]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{state}: does not list the data files ({error!r})") from error
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    if not files:
        raise DataError(f"{path}: no Arrow file there")
    return files


def _read_table(file: Path) -> pa.Table:
    if not file.is_file():
        raise DataError(f"{file}: there is no such file")
    try:
        table = pq.read_table(file) if file.suffix in (".parquet", ".pq") else _read_arrow(file)
        table.validate(full=True)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{file}: cannot be read, damaged or no Arrow ({reason})") from error
    return table


def _read_arrow(file: Path) -> pa.Table:
    """The file's columns, mapped into memory rather than read."""
    mapped = pa.memory_map(str(file))
    in_file_format = mapped.read(len(FILE_MAGIC)) == FILE_MAGIC
    mapped.seek(0)
    return (pa.ipc.open_file if in_file_format else pa.ipc.open_stream)(mapped).read_all()


def _check(file: Path, table: pa.Table) -> None:
    wanted = ("item_id", "start", "target")
    missing = [column for column in wanted if column not in table.column_names]
    if "freq" not in table.column_names and _named_once(table) is None:
        missing.append("freq")
    if missing:
        raise DataError(
            f"{file}: has no column {missing[0]!r}; it needs item_id, start, freq, target"
        )
    if table.num_rows == 0:
        raise DataError(f"{file}: has no rows")
    for name in ("start", "freq", "target"):
        if name in table.column_names and table.column(name).null_count:
            raise DataError(f"{file}: column {name!r} is empty in some rows")
    _check_kind(file, "start", pa.types.is_timestamp, table, "time stamps")
    _check_kind(file, "target", _is_numbers, table, "lists of numbers, or lists of such lists")
    try:
        _axes(table)
    except DataError as error:
        raise DataError(f"{file}: {error}") from error


def _check_kind(file: Path, name: str, fits: Any, table: pa.Table, wanted: str) -> None:
    kind = table.schema.field(name).type
    if not fits(kind):
        raise DataError(f"{file}: column {name!r} must hold {wanted}; it holds {kind}")


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _is_numbers(kind: pa.DataType) -> bool:
    if not _is_list(kind):
        return False
    inner = kind.value_type.value_type if _is_list(kind.value_type) else kind.value_type
    return pa.types.is_floating(inner) or pa.types.is_integer(inner)


def _refuse_infinite(path: Path, ids: Sequence[str], values: Sequence[Values]) -> None:
    for name, series in zip(ids, values, strict=True):
        if np.isinf(series).any():
            raise DataError(
                f"{path}: series {name!r} holds an infinite value; missing ones are NaN"
            )


def _texts(table: pa.Table, column: str) -> list[str]:
    return [str(name) for name in table.column(column).to_pylist()]


def _named_once(table: pa.Table) -> str | None:
    """The frequency that GluonTS' writer puts in the file's metadata."""
    name = (table.schema.metadata or {}).get(b"freq")
    return None if name is None else name.decode()


def _axes(table: pa.Table) -> list[TimeAxis]:
    starts = _clock_times(table.column("start"))
    if "freq" in table.column_names:
        names = table.column("freq").to_pylist()
    else:
        names = [_named_once(table)] * table.num_rows

    @cache
    def axis(start: int, name: str) -> TimeAxis:
        # "M" and "A-DEC" name spans; where in them the series' stamps stand, its start tells.
        stamp = np.datetime64(start, "ns")
        return TimeAxis(stamp, placed_like(np.array([stamp]), parse_frequency(name)))

    return [
        axis(start, name) for start, name in zip(starts.astype(int).tolist(), names, strict=True)
    ]


def _clock_times(column: pa.ChunkedArray) -> npt.NDArray[np.datetime64]:
    """Time stamps by the clock on the wall: of one with a zone it is its own, not UTC's."""
    if column.type.tz is None:
        return column.to_numpy().astype("datetime64[ns]")
    return pd.DatetimeIndex(column.to_pandas()).tz_localize(None).as_unit("ns").to_numpy()


def _targets(table: pa.Table) -> Iterator[list[Values]]:
    """The variates of each row."""
    column = table.column("target")
    nested = _is_list(column.type.value_type)
    rows = (row for chunk in column.chunks for row in _lists(chunk))
    if SHAPE not in table.column_names or nested:
        yield from (row if nested else [row] for row in rows)
        return
    for row, shape in zip(rows, table.column(SHAPE).to_pylist(), strict=True):
        yield list(row.reshape(-1, shape[-1]))


def _lists(chunk: pa.Array) -> Iterator[Any]:
    """Members of an array of lists: arrays of numbers, or lists of such arrays."""
    inner = chunk.values
    parts = list(_lists(inner)) if _is_list(inner.type) else _numbers(inner)
    for first, end in pairwise(chunk.offsets.to_numpy().tolist()):
        yield parts[first:end]


def _numbers(array: pa.Array) -> Values:
    return array.to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
