"""One pure function, frame to frame: what every engine does with every part of a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from llamacast.data.frame import read_panel, series_column
from llamacast.data.panel import Panel, TimeAxis
from llamacast.forecast import DEFAULT_QUANTILES, DataError, check_whole
from llamacast.forecaster import LONGEST_HORIZON, load_once

INDEX_WITHOUT_NAME = "__index_level_"
"""How the columns begin that pandas writes to parquet for it."""
SERIES_LOOKED_AT = 5
"""To tell the frequency."""
NOTES = "notes"
"""Under which the `attrs` of a forecast have what a user should know of it."""
MOST_VALUES = 2**24
"""Sampled at a time: series, paths and steps."""


@dataclass(frozen=True)
class FrameForecaster:
    """Forecasts a long frame (a row for each series and time), whichever series of a table it holds.

    Args:
        horizon: steps to forecast.
        model: a packaged name, or a folder that every worker can read.
        quantiles: in (0, 1), a column each beside `mean`.
        num_samples: as for `forecast`, like `seed`, `context_length`, `nonnegative`, `integer`.
        id_column: as for `forecast`, like `time_column`, `target_column`, `frequency`; what is None is
            settled once for the whole table, by its first rows, so that every part is read alike.
        device: for each worker.
    """

    horizon: int
    model: str = "cria"
    quantiles: tuple[float, ...] = DEFAULT_QUANTILES
    num_samples: int = 100
    seed: int = 0
    context_length: int | None = None
    nonnegative: bool | None = None
    integer: bool | None = None
    id_column: str | None = None
    time_column: str | None = None
    target_column: str | None = None
    frequency: str | None = None
    device: str = "auto"
    axis: tuple[int, str | None] | None = None
    """Settled, not given: the step of times that are whole numbers (0 of dates), and the zone of dates."""

    def __post_init__(self) -> None:
        check_whole("horizon", self.horizon, LONGEST_HORIZON)
        check_whole("num_samples", self.num_samples, 1_000_000)
        for name in ("horizon", "num_samples", "seed", "context_length"):
            value = getattr(self, name)
            if isinstance(value, np.integer):  # runs are told apart by JSON
                object.__setattr__(self, name, int(value))
        if not all(0 < level < 1 for level in self.quantiles):
            raise DataError(f"quantiles must lie between 0 and 1; got {self.quantiles}")

    def settled(
        self, head: pd.DataFrame, rows_of: Callable[[str, list[Any]], pd.DataFrame]
    ) -> FrameForecaster:
        """With the names that the first rows of a table tell, and the frequency of their series.

        One of these is forecast, so that an option that cannot be used is told of at once.

        Args:
            head: the first rows.
            rows_of: given the column of series names and some of these, all their rows.

        Raises:
            DataError: if they do not tell, the table is not a long one, or an option cannot be used.
            CheckpointError: if there is no such model.
        """
        head = self._without_row_numbers(head)
        name = self.id_column
        if name is None and not head.empty:
            name = series_column(head, self.time_column, self.target_column)
        if name is None or name not in head:
            raise DataError(
                "a table in parts must be a long one: a column of series names (unique_id, or "
                "id_column), one of times, one of values"
            )
        # Rows may lie anywhere, so those of the head have gaps.
        some = rows_of(name, head[name].drop_duplicates().head(SERIES_LOOKED_AT).tolist())
        panel = replace(self, id_column=name)._panel(self._without_row_numbers(some))
        columns, axis = panel.columns, panel.axes[0]
        if columns.time not in head:
            raise DataError("the table has no column of times; name it with time_column")
        replace(self, device="cpu")._forecast(panel.choose([0]))
        return replace(
            self,
            id_column=columns.id,
            time_column=columns.time,
            target_column=columns.target,
            frequency=None if axis.frequency is None else axis.frequency.name,
            axis=_kind(axis),
        )

    def __call__(self, frame: pd.DataFrame, threads: int | None = None) -> pd.DataFrame:
        """The forecast of all series of a frame, each as it would be in any other frame; its `attrs` have
        what a user should know of it.

        `threads` caps torch's of this process, so that workers side by side do not get into each
        other's way.

        Raises:
            DataError: names the series or column that cannot be used.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        panel = self._panel(frame)
        if self.axis is not None and _kind(panel.axes[0]) != self.axis:
            raise DataError(
                f"column {self.time_column!r}: series {panel.ids[0]!r} has {_in_words(panel.axes[0])}, "
                "the first ones of the table have other times; give all as dates (or as whole "
                "numbers of one step), in one time zone"
            )
        together = max(1, MOST_VALUES // (self.num_samples * self.horizon))
        parts = [
            self._forecast(panel.choose(list(range(first, min(first + together, len(panel))))))
            for first in range(0, len(panel), together)
        ]
        whole = pd.concat([frame for frame, _ in parts], ignore_index=True)
        whole.attrs[NOTES] = [note for _, notes in parts for note in notes]
        return whole

    def weights(self) -> str:
        """What tells the model from others: a folder's may change."""
        return repr(load_once(self.model, "cpu"))

    def _without_row_numbers(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Without the column that pandas makes, in a file, of an index that bears no name."""
        asked = (self.id_column, self.time_column, self.target_column)
        numbers = [
            name
            for name in frame.columns
            if str(name).startswith(INDEX_WITHOUT_NAME)
            and name not in asked
            and pd.api.types.is_integer_dtype(frame[name].dtype)
        ]
        return frame.drop(columns=numbers)

    def _panel(self, frame: pd.DataFrame) -> Panel:
        return read_panel(
            frame,
            id_column=self.id_column,
            time_column=self.time_column,
            target_column=self.target_column,
            frequency=self.frequency,
        )

    def _forecast(self, panel: Panel) -> tuple[pd.DataFrame, Sequence[str]]:
        found = load_once(self.model, self.device).forecast(
            panel,
            self.horizon,
            num_samples=self.num_samples,
            seed=self.seed,
            context_length=self.context_length,
            nonnegative=self.nonnegative,
            integer=self.integer,
            progress=False,
        )
        return found.to_frame(quantiles=self.quantiles), found.notes


def shards_of(names: pd.Series[str], num_shards: int) -> np.ndarray:
    """Of each row the shard that its series belongs to: the same in every run, on every machine."""
    hashes = pd.util.hash_array(names.to_numpy(dtype=object), categorize=True)
    return (hashes % np.uint64(num_shards)).astype(np.int64)


def _kind(axis: TimeAxis) -> tuple[int, str | None]:
    zone = None if axis.zone is None else str(axis.zone)
    return (axis.step if axis.frequency is None else 0), zone


def _in_words(axis: TimeAxis) -> str:
    step, zone = _kind(axis)
    return f"whole numbers in steps of {step}" if step else f"dates of the zone {zone}"
