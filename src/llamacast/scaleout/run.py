"""The folder of a run: what was asked, the table in shards, the forecast of each, done or not.

Readers of parquet folders leave out names that begin with an underscore.

forecasts/_run.json              what was asked, of which table
forecasts/_shards/00007.parquet  rows of some series; gone when all is done
forecasts/part-00007.parquet     their forecast; there only when it is whole
forecasts/_notes-00007.txt       what a user should know of it, if anything
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet

from llamacast.forecast import CheckpointError, DataError
from llamacast.scaleout.partition import NOTES, FrameForecaster, shards_of

RUN_FILE, SHARDS = "_run.json", "_shards"
ROWS_PER_SHARD = 500_000
MOST_SHARDS = 512
"""Files that are open at a time while the table is cut."""
ROWS_OF_HEAD = 1_000
ROWS_READ_TOGETHER = 2**16
ROWS_HELD = 2**21
"""Before they are written to their shards."""


@dataclass(frozen=True)
class Run:
    """A folder, and what is asked for in it."""

    folder: Path
    asked: FrameForecaster
    """Settled."""
    num_shards: int

    def shard(self, number: int) -> Path:
        return self.folder / SHARDS / f"{number:05d}.parquet"

    def part(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.parquet"

    def is_done(self, number: int) -> bool:
        return self.part(number).exists() or self._empty(number).exists()

    def pending(self) -> list[int]:
        """Shards whose forecast is not there."""
        return [number for number in range(self.num_shards) if not self.is_done(number)]

    def mark_empty(self, number: int) -> None:
        """No series fell into it: there is no part, from which readers would take the columns."""
        self._empty(number).touch()

    def _empty(self, number: int) -> Path:
        return self.folder / f"_empty-{number:05d}"

    def write_part(self, number: int, forecast: pd.DataFrame) -> None:
        """All of it or nothing: written by several at once, or killed meanwhile, it is the same.

        Raises:
            DataError: if times would be cut.
        """
        _check_times(forecast, str(self.asked.time_column))
        made = self.folder / f".{self.part(number).name}.{uuid.uuid4().hex}"
        notes = forecast.attrs.pop(NOTES, ())
        if notes:
            made.write_text("".join(f"{note}\n" for note in notes))
            os.replace(made, self._notes(number))
        # In microseconds, which Spark reads.
        forecast.to_parquet(made, index=False, coerce_timestamps="us")
        os.replace(made, self.part(number))

    def _notes(self, number: int) -> Path:
        return self.folder / f"_notes-{number:05d}.txt"

    def notes(self) -> list[str]:
        """What a user should know of the forecasts that are there."""
        files = sorted(self.folder.glob("_notes-*.txt"))
        return [line for file in files for line in file.read_text().splitlines()]

    def do(self, number: int, threads: int | None = None) -> int:
        """Forecast a shard, and say of how many series."""
        frame = pd.read_parquet(self.shard(number))
        if frame.empty:
            self.mark_empty(number)
            return 0
        self.write_part(number, self.asked(frame, threads))
        return int(frame[self.asked.id_column].nunique())

    def finish(self) -> None:
        """Once nothing is pending, the shards may go."""
        if self.pending():
            return
        shutil.rmtree(self.folder / SHARDS, ignore_errors=True)
        for left in self.folder.glob(".part-*"):
            left.unlink()

    def read(self) -> pd.DataFrame:
        """The whole forecast, sorted by series and time."""
        files = sorted(self.folder.glob("part-*.parquet"))
        whole = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
        keys = [str(self.asked.id_column), str(self.asked.time_column)]
        return whole.sort_values(keys, kind="stable", ignore_index=True)


def _check_times(forecast: pd.DataFrame, name: str) -> None:
    times = forecast[name]
    if not pd.api.types.is_datetime64_any_dtype(times.dtype):
        return
    finer = times.dt.nanosecond.to_numpy() != 0
    if finer.any():
        raise DataError(
            f"column {name!r}: {times.iloc[int(finer.argmax())].isoformat()} has nanoseconds, and forecasts "
            "are written in microseconds; round the times, or give whole numbers instead of dates"
        )


def open_run(
    data: str | os.PathLike[str],
    output: str | os.PathLike[str],
    asked: FrameForecaster,
    num_shards: int | None = None,
) -> Run:
    """Begin a run on a parquet file or a folder of such, or go on with the one in `output`.

    Its rows are cut into shards, each with whole series, in memory that does not grow with the table.

    Raises:
        DataError: if the table cannot be used.
        CheckpointError: if `output` holds another run.
    """
    try:
        return _open(Path(data), Path(output), asked, num_shards)
    except pa.ArrowInvalid as error:
        raise DataError(f"{data}: cannot be read as parquet ({error})") from error


def _open(source: Path, folder: Path, asked: FrameForecaster, num_shards: int | None) -> Run:
    if source.is_dir() and folder.resolve().is_relative_to(source.resolve()):
        raise DataError(
            f"{folder} lies within {source}, whose files are all read; choose a folder outside"
        )
    table = _dataset(source)
    # Whatever pandas had as its index is a column here.
    head: pd.DataFrame = table.head(ROWS_OF_HEAD).to_pandas(ignore_metadata=True)
    if head.empty:
        raise DataError(f"{source}: the table has no rows")
    settled = asked.settled(
        head,
        lambda name, some: table.to_table(filter=pyarrow.dataset.field(name).isin(some)).to_pandas(
            ignore_metadata=True
        ),
    )
    if num_shards is None:
        rows = table.count_rows()
        num_shards = min(max(-(-rows // ROWS_PER_SHARD), 1), MOST_SHARDS)
    run = claim(folder, settled, num_shards, {"table": _fingerprint(table)})
    if run.pending() and not (folder / SHARDS).exists():
        _cut(table, run)
    return run


def claim(folder: Path, settled: FrameForecaster, num_shards: int, told: dict[str, Any]) -> Run:
    """Take a folder for a run, or find the same run in it.

    Raises:
        DataError: if there cannot be so many shards.
        CheckpointError: if it holds another.
    """
    if not 1 <= num_shards <= MOST_SHARDS:
        raise DataError(f"num_shards must be 1 to {MOST_SHARDS}; got {num_shards}")
    what = {"asked": dataclasses.asdict(settled), "weights": settled.weights()}
    own = {**what, **told, "num_shards": num_shards}
    own = json.loads(json.dumps(own, default=str))
    file = folder / RUN_FILE
    if file.exists():
        there = json.loads(file.read_text())
        if there != own:
            other = next(name for name in own | there if own.get(name) != there.get(name))
            raise CheckpointError(
                f"{folder} holds another run (its {other} differs); choose another folder, or delete it"
            )
    else:
        made = folder / f"{RUN_FILE}.new"  # of a run that was stopped just here, it may be there
        if folder.exists() and any(one != made for one in folder.iterdir()):
            raise CheckpointError(f"{folder} holds other files; choose an empty folder")
        folder.mkdir(parents=True, exist_ok=True)
        made.write_text(json.dumps(own, indent=1) + "\n")
        os.replace(made, file)
    return Run(folder, settled, num_shards)


def _dataset(source: Path) -> Any:
    if not source.exists():
        raise DataError(f"{source}: there is no such file or folder")
    found = pyarrow.dataset.dataset(source, format="parquet", partitioning="hive")
    if not found.files:
        raise DataError(f"{source} holds no parquet files")
    schema = _with_fractions(found)
    if schema == found.schema:
        return found
    return pyarrow.dataset.dataset(source, schema=schema, format="parquet", partitioning="hive")


def _with_fractions(table: Any) -> Any:
    """The first file's schema, which all are read by; but a column of whole numbers has fractions where
    another file's has."""
    others = [fragment.physical_schema for fragment in table.get_fragments()]

    def has_fractions(name: str) -> bool:
        return any(
            name in schema.names and pa.types.is_floating(schema.field(name).type)
            for schema in others
        )

    fields = [
        field.with_type(pa.float64())
        if pa.types.is_integer(field.type) and has_fractions(field.name)
        else field
        for field in table.schema
    ]
    return pa.schema(fields, table.schema.metadata)


def _fingerprint(table: Any) -> list[list[Any]]:
    """Files, and what changes when they do."""
    told = []
    for name in sorted(table.files):
        about = os.stat(name)
        told.append([str(Path(name).resolve()), about.st_size, about.st_mtime_ns])
    return told


def _cut(table: Any, run: Run) -> None:
    """Every row to the shard of its series."""
    made = run.folder / f"{SHARDS}.new"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    asked = run.asked
    names = [asked.id_column, asked.time_column, asked.target_column]
    schema = pa.schema([table.schema.field(name) for name in names])
    writers = [
        pyarrow.parquet.ParquetWriter(made / run.shard(number).name, schema)
        for number in range(run.num_shards)
    ]
    try:
        for rows in _held(table.to_batches(columns=names, batch_size=ROWS_READ_TOGETHER), schema):
            shards = shards_of(rows[asked.id_column].to_pandas(), run.num_shards)
            order = np.argsort(shards, kind="stable")
            bounds = np.searchsorted(shards[order], np.arange(run.num_shards + 1))
            ordered = rows.take(pa.array(order))
            for number, writer in enumerate(writers):
                size = int(bounds[number + 1] - bounds[number])
                if size:
                    writer.write_table(ordered.slice(int(bounds[number]), size))
    finally:
        for writer in writers:
            writer.close()
    os.replace(made, run.folder / SHARDS)


def _held(batches: Any, schema: Any) -> Iterator[Any]:
    """Batches put together into tables of many rows."""
    held, num_rows = list[Any](), 0
    for batch in batches:
        held.append(batch)
        num_rows += batch.num_rows
        if num_rows >= ROWS_HELD:
            yield pa.Table.from_batches(held, schema)
            held, num_rows = [], 0
    if held:
        yield pa.Table.from_batches(held, schema)
