"""Folders of parquet files as one corpus in memory, and how often each data set is drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from llamacast.data.calendar import Frequency, parse_frequency
from llamacast.forecast import DataError

COLUMNS = ("item_id", "start", "freq", "target")

# Between drawing data sets evenly (0) and in proportion to their points (1): small sets of rare
# frequencies count, and are not learnt by heart.
SIZE_EXPONENT = 0.35
HOLD_OUT_EVERY = 20


@dataclass(frozen=True)
class Corpus:
    """Many series end to end, each belonging to a data set. NaN is missing."""

    values: npt.NDArray[np.float32]
    """All series one after the other."""
    bounds: npt.NDArray[np.int64]
    """Where each series begins in `values`, and the end of the last; shape `(series + 1,)`."""
    starts: npt.NDArray[np.datetime64]
    frequencies: Sequence[Frequency]
    """One for each series."""
    datasets: Sequence[str]
    """Names of the data sets."""
    dataset_bounds: npt.NDArray[np.int64]
    """First series of each data set, and the end of the last."""

    @property
    def num_series(self) -> int:
        return len(self.starts)

    def series(self, index: int) -> npt.NDArray[np.float32]:
        return self.values[self.bounds[index] : self.bounds[index + 1]]

    @cached_property
    def dataset_weights(self) -> npt.NDArray[np.float64]:
        """Probability of drawing from each data set: its points to the power `SIZE_EXPONENT`."""
        points = np.diff(self.bounds[self.dataset_bounds]).astype(np.float64)
        weights = points**SIZE_EXPONENT
        return weights / weights.sum()

    @property
    def holds_out(self) -> bool:
        """Whether any data set has series enough to keep some for validation."""
        return bool(np.diff(self.dataset_bounds).max() >= HOLD_OUT_EVERY)

    def draw_series(self, rng: np.random.Generator, held_out: bool = False) -> int:
        """Draw a data set by its weight, then one of its series evenly.

        The last of every 20 series of a data set is kept for validation: drawn if `held_out`,
        else never. Data sets of fewer series have none to hold out.
        """
        assert self.holds_out or not held_out, "nothing is held out"
        while True:
            dataset = rng.choice(len(self.datasets), p=self.dataset_weights)
            first, end = self.dataset_bounds[dataset : dataset + 2]
            index = int(rng.integers(first, end))
            if ((index - first) % HOLD_OUT_EVERY == HOLD_OUT_EVERY - 1) == held_out:
                return index


def read_corpus(path: Path) -> Corpus:
    """Read a parquet file, or every `*.parquet` of a folder, as one corpus.

    A file has a row for each series: `item_id`, `start` (time stamp of the first value), `freq`
    (pandas name), `target` (list of numbers). A column `dataset` parts a file into data sets;
    without it each file is one.

    Raises:
        DataError: if there is no file, a column is missing, or a frequency is not known.
    """
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files or not files[0].exists():
        raise DataError(f"{path}: no parquet file of series there")
    parts = [part for file in files for part in _read_file(file)]
    names = [name for name, _ in parts]
    tables = [table for _, table in parts]
    lengths = np.concatenate([_lengths(table) for table in tables])
    return Corpus(
        values=np.concatenate([_flat_values(table) for table in tables]),
        bounds=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        starts=np.concatenate([_starts(table) for table in tables]),
        frequencies=_parse_all([name for t in tables for name in t.column("freq").to_pylist()]),
        datasets=names,
        dataset_bounds=np.cumsum([0] + [table.num_rows for table in tables]),
    )


def _read_file(file: Path) -> list[tuple[str, pa.Table]]:
    try:
        table = pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file}: cannot be read as parquet ({error})") from error
    for column in COLUMNS:
        if column not in table.column_names:
            raise DataError(f"{file}: has no column {column!r}; it needs {', '.join(COLUMNS)}")
    _check_columns(file, table)
    if "dataset" not in table.column_names:
        return [(file.stem, table)]
    column = table.column("dataset")
    names = sorted(set(column.to_pylist()))
    return [(name, table.filter(pc.equal(column, name))) for name in names]


def _check_columns(file: Path, table: pa.Table) -> None:
    kinds = {
        "start": (pa.types.is_timestamp, "time stamps"),
        "freq": (_is_text, "names of frequencies"),
        "target": (_is_number_list, "lists of numbers"),
    }
    if table.num_rows == 0:
        raise DataError(f"{file}: has no rows")
    for name, (fits, wanted) in kinds.items():
        column = table.column(name)
        if not fits(column.type):
            raise DataError(f"{file}: column {name!r} must hold {wanted}; it holds {column.type}")
        if column.null_count:
            raise DataError(f"{file}: column {name!r} is empty in {column.null_count} rows")


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_number_list(kind: pa.DataType) -> bool:
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    return pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)


def _target(table: pa.Table) -> pa.Array:
    column = table.column("target").combine_chunks()
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _lengths(table: pa.Table) -> npt.NDArray[np.int64]:
    return np.asarray(_target(table).value_lengths(), dtype=np.int64)


def _flat_values(table: pa.Table) -> npt.NDArray[np.float32]:
    return _target(table).flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)


def _starts(table: pa.Table) -> npt.NDArray[np.datetime64]:
    return table.column("start").to_numpy().astype("datetime64[ns]")


def _parse_all(names: Sequence[str]) -> list[Frequency]:
    known = {name: parse_frequency(name) for name in set(names)}
    return [known[name] for name in names]
