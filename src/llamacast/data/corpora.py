"""Many series as one corpus in memory: read, held back, and how often each is drawn from."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import pandas as pd

from llamacast.data.arrow import SUFFIXES as ARROW_SUFFIXES
from llamacast.data.arrow import StoredSeries, holds_series, is_arrow_folder, read_series
from llamacast.data.calendar import Frequency, check_reach
from llamacast.data.frame import read_panel
from llamacast.data.panel import Panel, TimeAxis
from llamacast.forecast import DataError

SHORTEST_SERIES = 8
"""Steps below which nothing is learnt from a series."""

LARGEST_VALUE = float(np.finfo(np.float32).max)

SUFFIXES = (*ARROW_SUFFIXES, ".parquet", ".pq", ".csv", ".gz")

# Data sets with fewer series hold back the last steps of each instead of whole series.
FEWEST_SERIES_TO_HOLD_BACK = 20
TAIL_SHARE = 0.1
LONGEST_TAIL = 2048
_MONTH_AND_DAY = re.compile(r"(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])")


@dataclass(frozen=True)
class Mixture:
    """How often data sets are drawn: in proportion to `points**a * series**b * weight`.

    Within a data set, series are drawn evenly, but for those too short to fill a window.
    """

    points_exponent: float = 0.35
    """Between drawing data sets evenly (0) and in proportion to their points (1): small sets of
    rare frequencies count, and are not learnt by heart."""
    series_exponent: float = 0.0
    """With 1 and no exponent of points, every series is drawn as often: the paper's stratification."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Factors for data sets by name; 0 leaves one out."""

    def __post_init__(self) -> None:
        for name, weight in self.weights.items():
            if not 0.0 <= weight < np.inf:
                raise ValueError(f"weights: that of {name!r} must be 0 or more; got {weight!r}")


def paper_mixture() -> Mixture:
    """Every series alike (arXiv 2310.08278, section 4.3)."""
    return Mixture(points_exponent=0.0, series_exponent=1.0)


@dataclass(frozen=True)
class HoldOut:
    """What is kept from training: a share of the series of each data set, told by their names."""

    share: float = 0.05
    shares: Mapping[str, float] = field(default_factory=dict)
    """Other shares for data sets by name."""

    def __post_init__(self) -> None:
        for share in (self.share, *self.shares.values()):
            if not 0.0 <= share < 1.0:
                raise ValueError(f"shares held out must be in [0, 1); got {share!r}")

    def of(self, dataset: str) -> float:
        return self.shares.get(dataset, self.share)


@dataclass(frozen=True)
class Corpus:
    """Many series end to end, each belonging to a data set. NaN is missing."""

    values: npt.NDArray[np.float32]
    """All series one after the other."""
    bounds: npt.NDArray[np.int64]
    """Where each series begins in `values`, and the end of the last; shape `(series + 1,)`."""
    starts: npt.NDArray[np.datetime64]
    frequencies: Sequence[Frequency | None]
    """One for each series; None where steps are counted, not dated."""
    ids: Sequence[str]
    """Names of series, unique within a data set."""
    datasets: Sequence[str]
    """Names of the data sets."""
    dataset_bounds: npt.NDArray[np.int64]
    """First series of each data set, and the end of the last."""
    covariates: npt.NDArray[np.float32] | None = None
    """Beside `values`, `(point, covariate)`, standardised; the same number for all series."""

    @property
    def num_series(self) -> int:
        return len(self.ids)

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        return np.diff(self.bounds)

    @cached_property
    def dataset_of(self) -> npt.NDArray[np.int64]:
        """Number of the data set of each series."""
        return np.repeat(np.arange(len(self.datasets)), np.diff(self.dataset_bounds))

    @cached_property
    def moves(self) -> npt.NDArray[np.bool_]:
        """Whether each series has two values that differ."""
        found = np.zeros(self.num_series, dtype=bool)
        # `reduceat` wants a member in every slice.
        filled = np.flatnonzero(self.lengths)
        if len(filled):
            begins = self.bounds[filled]
            with np.errstate(invalid="ignore"):
                lowest = np.fmin.reduceat(self.values, begins)
                found[filled] = np.fmax.reduceat(self.values, begins) > lowest
        return found

    def series(self, index: int) -> npt.NDArray[np.float32]:
        return self.values[self.bounds[index] : self.bounds[index + 1]]

    def train_lengths(self, hold_out: HoldOut) -> npt.NDArray[np.int64]:
        """First steps of each series that may be trained on; 0 where it is held back whole.

        Of data sets of at least 20 series, the series are held back whose name, hashed with the
        data set's, falls below the share: the same ones in every file and order. Of others, the last
        tenth of each series (at most 2,048 steps) is, if any share is to be.

        Raises:
            DataError: if a share is of a data set that is not there.
        """
        self._check_named("hold_out.shares", hold_out.shares)
        kept = self.lengths.copy()
        for number, name in enumerate(self.datasets):
            part = slice(*self.dataset_bounds[number : number + 2])
            share = hold_out.of(name)
            if part.stop - part.start >= FEWEST_SERIES_TO_HOLD_BACK:
                places = np.array([_place(name, series) for series in self.ids[part]])
                kept[part][places < share] = 0
            elif share > 0:
                tails = np.minimum(TAIL_SHARE * kept[part], LONGEST_TAIL).astype(np.int64)
                kept[part] -= tails
        return kept

    def probabilities(
        self, mixture: Mixture, lengths: npt.NDArray[np.int64], window_length: int
    ) -> npt.NDArray[np.float64]:
        """Probability of drawing each series, where `lengths` of each may be drawn from.

        A series that would fill a share of a window only is drawn that much more seldom, so that
        little of a batch is padding; batches of short windows are there for it.

        Raises:
            DataError: if nothing is left to draw, or a weight is of a data set that is not there.
        """
        self._check_named("mixture.weights", mixture.weights)
        usable = np.where((lengths >= SHORTEST_SERIES) & self.moves, lengths, 0)
        points = np.add.reduceat(usable, self.dataset_bounds[:-1]).astype(np.float64)
        counts = np.add.reduceat(usable > 0, self.dataset_bounds[:-1]).astype(np.float64)
        factors = np.array([mixture.weights.get(name, 1.0) for name in self.datasets])
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = points**mixture.points_exponent * counts**mixture.series_exponent / counts
        shares = np.where(counts > 0, shares * factors, 0.0)
        fills = np.minimum(usable / window_length, 1.0)
        chances = shares[self.dataset_of] * fills
        if not chances.sum() > 0:
            raise DataError(
                f"the corpus has no series of {SHORTEST_SERIES} steps or more that moves, is not held "
                "back and has a weight above 0: nothing to learn from"
            )
        return chances / chances.sum()

    def _check_named(self, key: str, numbers: Mapping[str, float]) -> None:
        unknown = numbers.keys() - set(self.datasets)
        if unknown:
            raise DataError(
                f"{key}: there is no data set {sorted(unknown)[0]!r} in the corpus; take it out"
            )

    def join(self, other: Corpus) -> Corpus:
        """This corpus and then another."""
        return Corpus(
            np.concatenate([self.values, other.values]),
            np.concatenate([self.bounds, self.bounds[-1] + other.bounds[1:]]),
            np.concatenate([self.starts, other.starts]),
            [*self.frequencies, *other.frequencies],
            [*self.ids, *other.ids],
            [*self.datasets, *other.datasets],
            np.concatenate([self.dataset_bounds, self.num_series + other.dataset_bounds[1:]]),
        )


def _place(dataset: str, series: str) -> float:
    """A number in [0, 1) that belongs to a name."""
    digest = hashlib.blake2b(f"{dataset}/{series}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64


@dataclass(frozen=True)
class DataSet:
    """Series that belong together, under one name."""

    name: str
    ids: Sequence[str]
    values: Sequence[npt.NDArray[np.float32]]
    starts: npt.NDArray[np.datetime64]
    frequencies: Sequence[Frequency | None]
    covariates: Sequence[npt.NDArray[np.float32]] = ()
    """Of each series, `(step, covariate)`; none, or of all."""


def join(datasets: Iterable[DataSet]) -> Corpus:
    """The corpus of some data sets."""
    parts = list(datasets)
    beside = [known for part in parts for known in part.covariates]
    lengths = np.array([len(values) for part in parts for values in part.values], dtype=np.int64)
    return Corpus(
        values=np.concatenate([values for part in parts for values in part.values]),
        bounds=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        starts=np.concatenate([part.starts for part in parts]).astype("datetime64[ns]"),
        frequencies=[frequency for part in parts for frequency in part.frequencies],
        ids=[name for part in parts for name in part.ids],
        datasets=[part.name for part in parts],
        dataset_bounds=np.cumsum([0] + [len(part.ids) for part in parts]),
        covariates=np.concatenate(beside) if beside else None,
    )


def read_corpus(
    path: Path,
    without: Sequence[str] = (),
    left_out_days: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Corpus:
    """Read a folder of data sets, or one data set, as one corpus.

    A data set is a parquet, Arrow or CSV file, or an Arrow folder (Hugging Face `save_to_disk`,
    GluonTS), named as the file or folder is. Parquet and Arrow hold a series in each row: `item_id`,
    `start` (time stamp of the first value), `freq` (pandas name), `target` (list of numbers);
    a column `dataset` parts a file into data sets. Other tables hold a value in each row and are
    read as forecasts' input is, dates needed.

    Args:
        without: names of data sets to leave out, such as those that will be tested on.
        left_out_days: of data sets, by name, days of each year (month and day, "12-25") that their sources
            have no values for and do not count either, so that all after them would stand too early. They
            become missing.

    Raises:
        DataError: if there is nothing, a file is not of these kinds, or a name of `without` is not
            there; the message names it.
    """
    found = [part for one in _sources(path) for part in _read(one)]
    missing = set(without) - {part.name for part in found}
    if missing:
        raise DataError(f"{path}: there is no data set {sorted(missing)[0]!r} to leave out")
    found = [
        with_days(part, left_out_days[part.name]) if part.name in left_out_days else part
        for part in found
        if part.name not in without
    ]
    names = [part.name for part in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}: two data sets are called {twice!r}; rename one")
    if not found:
        raise DataError(f"{path}: no data set is left")
    return join(sorted(found, key=lambda part: part.name))


def with_days(part: DataSet, left_out: Sequence[str]) -> DataSet:
    """A data set of days in which those that its source has left out are missing values.

    Raises:
        DataError: if its steps are not days, or one that is left out is no month and day.
    """
    for day in left_out:
        if not _MONTH_AND_DAY.fullmatch(day):
            raise DataError(
                f"left_out_days.{part.name} must be months and days such as '12-25'; got {day!r}"
            )
    if any(frequency is None or frequency.name != "D" for frequency in part.frequencies):
        raise DataError(f"left_out_days.{part.name}: its series have steps other than days")
    values = []
    for own, start in zip(part.values, part.starts, strict=True):
        years = len(own) // 365 + 2
        count = len(own) + years * len(left_out)
        days = start.astype("datetime64[D]") + np.arange(count)
        there = ~np.isin([day[5:] for day in np.datetime_as_string(days)], list(left_out))
        places = np.flatnonzero(there)[: len(own)]
        longer = np.full(places[-1] + 1, np.nan, dtype=np.float32)
        longer[places] = own
        values.append(longer)
    return dataclasses.replace(part, values=values)


def _sources(path: Path) -> list[Path]:
    if not path.exists():
        raise DataError(f"{path}: no such file or folder of series")
    if not path.is_dir():
        return [path]
    found = [
        one
        for one in sorted(path.iterdir())
        if one.suffix.lower() in SUFFIXES or (one.is_dir() and is_arrow_folder(one))
    ]
    if is_arrow_folder(path) and all(one.suffix in ARROW_SUFFIXES for one in found):
        return [path]  # the shards of one data set
    if not found:
        raise DataError(f"{path}: holds no parquet, Arrow or CSV file of series")
    return found


def _read(path: Path) -> list[DataSet]:
    if holds_series(path):
        stored = read_series(path)
        found = [
            _stored_part(label or _name(path), stored, rows) for label, rows in stored.by_dataset()
        ]
    else:
        found = [_tabled_part(path)]
    for part in found:
        _check_dates(path, part)
    return found


def _name(path: Path) -> str:
    """What a data set is called that is not told otherwise; of "." the name of the folder."""
    path = path.absolute()
    return path.name if path.is_dir() else Path(path.name.removesuffix(".gz")).stem


def _check_dates(path: Path, part: DataSet) -> None:
    for name, values, start, frequency in zip(
        part.ids, part.values, part.starts, part.frequencies, strict=True
    ):
        assert frequency is not None, "what is read from files is dated"
        try:
            check_reach(start, frequency, 0, len(values))
        except DataError as error:
            raise DataError(
                f"{path}: series {name!r} leaves the years 1678 to 2260 ({len(values)} steps of "
                f"{frequency.name} from {start.astype('datetime64[s]')}); correct its start or its "
                "freq, or shorten it"
            ) from error


def _tabled_part(path: Path) -> DataSet:
    """The data set of a table with a value in each row."""
    try:
        panel = read_panel(path)
    except DataError as error:
        told = str(error) if str(path) in str(error) else f"{path}: {error}"
        raise DataError(told) from error
    if any(axis.frequency is None for axis in panel.axes):
        raise DataError(
            f"{path}: this table counts steps; a corpus needs a column of dates, such as 2024-01-31"
        )
    try:
        return panel_part(_name(path), panel)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def panel_part(
    name: str, panel: Panel, covariates: Sequence[npt.NDArray[np.float64]] = ()
) -> DataSet:
    """The series of a panel, as a data set, with what lies beside them.

    Raises:
        DataError: if a series has values that are too large for a corpus.
    """
    for one, values in zip(panel.ids, panel.values, strict=True):
        if np.nanmax(np.abs(values)) > LARGEST_VALUE:
            raise DataError(
                f"series {one!r} has values beyond {LARGEST_VALUE:g}, the largest that can be learnt "
                "from; use a larger unit"
            )
    return DataSet(
        name,
        [str(one) for one in panel.ids],
        [values.astype(np.float32) for values in panel.values],
        np.array([_clock_start(axis) for axis in panel.axes]),
        [axis.frequency for axis in panel.axes],
        [
            known[: len(values)].astype(np.float32)
            for known, values in zip(covariates, panel.values, strict=False)
        ],
    )


def _clock_start(axis: TimeAxis) -> np.datetime64:
    """Stamp of the first step by the clock on the wall, by which forecasts' calendars go, too; any,
    where steps are counted."""
    if axis.frequency is None:
        return np.datetime64(0, "ns")
    first = pd.DatetimeIndex(axis.index(0, 1)).tz_localize(None)
    return first.as_unit("ns").to_numpy()[0]


def _stored_part(name: str, stored: StoredSeries, rows: Sequence[int]) -> DataSet:
    axes = [stored.axes[row] for row in rows]
    return DataSet(
        name,
        [stored.ids[row] for row in rows],
        [stored.values[row] for row in rows],
        np.array([axis.start for axis in axes]),
        [axis.frequency for axis in axes if axis.frequency],
    )
