"""Rolling origins: what forecasters would have said in the past, beside what then came."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, Unpack, runtime_checkable

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from llamacast.data.calendar import season_length
from llamacast.data.frame import ColumnNames, read_known_ahead
from llamacast.data.panel import Panel
from llamacast.data.tables import Table
from llamacast.data.windows import Origins, rolling_origins
from llamacast.evaluation.answers import LEVELS, LONGEST_ERROR, Answers, Shelf
from llamacast.evaluation.baselines import SeasonalNaive
from llamacast.evaluation.metrics import (
    continuous_ranked_probability_score,
    energy_score,
    probability_integral_transform,
    seasonal_error,
)
from llamacast.evaluation.scores import REFERENCE, Scores
from llamacast.forecast import DataError, Forecast, Forecaster, TrainingRecord

# Windows forecast at a time: an interruption loses at most these, and one bar step is one of them.
CHUNK = 64


@runtime_checkable
class Trainable(Protocol):
    """A forecaster that must learn from the data at hand first."""

    def fit(self, data: Any, horizon: int) -> Forecaster:
        """Learn from every series of `data`; what is returned forecasts `horizon` steps."""
        ...


@dataclass(frozen=True, repr=False)
class Settled:
    """A forecaster with its options settled, so that data and horizon alone remain to be given."""

    forecaster: Any
    options: Mapping[str, Any]

    def forecast(self, data: Any, horizon: int) -> Forecast:
        return self.forecaster.forecast(data, horizon, **self.options)

    def __repr__(self) -> str:
        return f"{_identity(self.forecaster)} with {dict(self.options)}"

    @property
    def training(self) -> TrainingRecord:
        return getattr(self.forecaster, "training", TrainingRecord())


@dataclass(frozen=True, repr=False)
class Finetuned:
    """A forecaster that is fine-tuned on what comes before the windows that it then forecasts."""

    forecaster: Any
    tuning: Mapping[str, Any]
    """Options of `finetune`, such as the strategy."""
    options: Mapping[str, Any]
    """Options of `forecast`."""

    def fit(self, data: Any, horizon: int) -> Forecaster:
        return Settled(self.forecaster.finetune(data, horizon, **self.tuning), self.options)

    def forecast(self, data: Any, horizon: int) -> Forecast:
        return self.fit(data, horizon).forecast(data, horizon)

    def __repr__(self) -> str:
        tuned = f"{_identity(self.forecaster)} fine-tuned with {dict(self.tuning)}"
        return f"{tuned}, forecasting with {dict(self.options)}"

    @property
    def training(self) -> TrainingRecord:
        return getattr(self.forecaster, "training", TrainingRecord())


def backtest(
    data: Table | Panel,
    horizon: int,
    forecasters: Mapping[str, Forecaster | Trainable],
    *,
    num_windows: int = 5,
    step: int | None = None,
    season: int | None = None,
    name: str = "data",
    directory: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    **columns: Unpack[ColumnNames],
) -> Scores:
    """Forecast the last windows of each series from what came before each, and score that.

    Seasonal naive is always scored too: skill is measured against it. Forecasters that must learn
    first do so once, from what comes before the first window of each series. A forecaster that fails
    on a window is told of in the scores and does not sink the run.

    Args:
        data: as for `forecast`.
        horizon: steps of each window.
        forecasters: by the names they are to bear in tables.
        num_windows: windows of each series, counted from its end.
        step: steps from one window to the next; None takes the horizon, so that none overlap.
        season: of seasonal errors (MASE) and seasonal naive; None takes the frequency's own.
        name: of the data set, in tables and to find it among what weights were trained on.
        directory: keeps what has been forecast, so that the same call goes on where it stopped.
        progress: show a bar; None shows it in a terminal.
        columns: as for `forecast`. `covariates` are taken as known ahead, unless a `future_frame` says
            which of them are.

    Raises:
        DataError: if the data cannot be used, the horizon is longer than they are, or `directory`
            holds another backtest.
    """
    counts = {"horizon": horizon, "num_windows": num_windows, "step": step, "season": season}
    for what, value in counts.items():
        if value is not None and (not isinstance(value, (int, np.integer)) or value < 1):
            raise DataError(f"{what} must be 1 or more, a whole number; got {value!r}")
    if not isinstance(forecasters.get(REFERENCE, SeasonalNaive()), SeasonalNaive):
        raise DataError(f"{REFERENCE!r} is what others are measured against; name yours otherwise")
    horizon, step = int(horizon), int(step or horizon)
    panel = read_known_ahead(data, **columns)
    origins = rolling_origins(panel, horizon, num_windows, step)
    entrants = {REFERENCE: SeasonalNaive(season), **forecasters}
    shelf = Shelf(Path(directory), origins, season) if directory is not None else None
    with _bar(progress) as bar:
        answers = {}
        for entrant, forecaster in entrants.items():
            task = bar.add_task(f"{name}: {entrant}", total=len(origins))
            answers[entrant] = _ask(entrant, forecaster, origins, shelf, partial(bar.advance, task))
    absolute, squared = _seasonal_errors(origins, season)
    return Scores(
        name=name,
        series=[panel.ids[number] for number in origins.series],
        cutoffs=origins.cutoffs(),
        actuals=origins.actuals(),
        seasonal_errors=absolute,
        squared_seasonal_errors=squared,
        answers=answers,
        leaks=_leaks(name, entrants, origins),
        notes=_notes(panel, origins, num_windows, step),
    )


# --- Asking --------------------------------------------------------------------------------------


def _ask(
    name: str,
    forecaster: Forecaster | Trainable,
    origins: Origins,
    shelf: Shelf | None,
    advance: Callable[[int], None],
) -> Answers:
    """What one forecaster says of all windows."""
    if isinstance(forecaster, Trainable):
        return _train_and_ask(name, forecaster, origins, shelf, advance)
    return _ask_in_chunks(name, forecaster, origins, shelf, advance)


def _ask_in_chunks(
    name: str,
    forecaster: Forecaster,
    origins: Origins,
    shelf: Shelf | None,
    advance: Callable[[int], None],
) -> Answers:
    actuals = origins.actuals()
    what = _identity(forecaster) if shelf else ""
    parts = []
    for part in _chunks(origins):
        kept = shelf and shelf.find(name, what, part)
        answers = kept or _ask_safely(forecaster, origins, part, actuals)
        if shelf and not kept:
            shelf.keep(name, what, part, answers)
        parts.append(answers)
        advance(len(answers))
    return Answers.join(parts)


def _train_and_ask(
    name: str,
    forecaster: Trainable,
    origins: Origins,
    shelf: Shelf | None,
    advance: Callable[[int], None],
) -> Answers:
    """All or nothing is kept: two trainings are two forecasters."""
    everything, what = slice(0, len(origins)), _identity(forecaster)
    kept = shelf and shelf.find(name, what, everything)
    if kept:
        advance(len(origins))
        return kept
    began = time.perf_counter()
    try:
        trained = forecaster.fit(origins.before(), origins.horizon)
    except Exception as error:  # any library's; told of in the table
        advance(len(origins))
        failed = Answers.failed(len(origins), origins.horizon, _one_line(error))
        return replace(failed, seconds=time.perf_counter() - began)
    answers = _ask_in_chunks(name, trained, origins, None, advance)
    answers = replace(answers, seconds=time.perf_counter() - began)
    if shelf:
        shelf.keep(name, what, everything, answers)
    return answers


def _identity(forecaster: object) -> str:
    """What tells a forecaster from others of its name; an address in memory does not."""
    kind = type(forecaster)
    if kind.__repr__ is not object.__repr__:
        return repr(forecaster)
    members = {name: repr(member) for name, member in getattr(forecaster, "__dict__", {}).items()}
    told = {name: text for name, text in members.items() if " at 0x" not in text}
    return f"{kind.__qualname__} {told}" if told else kind.__qualname__


def _chunks(origins: Origins) -> list[slice]:
    """Windows to be forecast at a time; what belongs together stays so."""
    parts, first = [], 0
    for apart in _apart(origins, slice(0, len(origins))):
        if apart.stop - first > CHUNK and apart.start > first:
            parts.append(slice(first, apart.start))
            first = apart.start
    return [*parts, slice(first, len(origins))]


def _apart(origins: Origins, part: slice) -> list[slice]:
    """Windows that may be told one by one, and those of a group that may not."""
    groups = origins.groups
    edges = [
        row
        for row in range(part.start + 1, part.stop)
        if groups is None or groups[row] != groups[row - 1]
    ]
    return [slice(*pair) for pair in pairwise([part.start, *edges, part.stop])]


def _ask_safely(
    forecaster: Forecaster, origins: Origins, part: slice, actuals: npt.NDArray[np.float64]
) -> Answers:
    """Some windows together; where that fails, each by itself, so that the others are answered."""
    began = time.perf_counter()
    try:
        answers = _ask_once(forecaster, origins, part, actuals[part])
    except Exception as error:  # any forecaster's; told of in the table
        several = _apart(origins, part)
        if len(several) == 1:
            answers = Answers.failed(part.stop - part.start, origins.horizon, _one_line(error))
        else:
            parts = [_ask_safely(forecaster, origins, one, actuals) for one in several]
            answers = Answers.join(parts)
    return replace(answers, seconds=time.perf_counter() - began)


def _ask_once(
    forecaster: Forecaster, origins: Origins, part: slice, actuals: npt.NDArray[np.float64]
) -> Answers:
    histories = origins.histories(part)
    forecast = forecaster.forecast(histories, origins.horizon)
    samples = forecast.samples
    if list(forecast.ids) != list(histories.ids) or samples.shape[2] != origins.horizon:
        raise DataError("its forecast is not of the series and the horizon that it was asked for")
    if not np.isfinite(samples).all():
        raise DataError("its forecast holds values that are not finite")
    return Answers(
        quantiles=forecast.quantile(LEVELS),
        mean=forecast.mean,
        # Samples may be spread evenly, not drawn independently; all pairs count then.
        crps=continuous_ranked_probability_score(actuals, samples, unbiased=False),
        energy=(
            energy_score(actuals, samples, unbiased=False)
            if forecast.joint
            else np.full(len(samples), np.nan)
        ),
        transform=_transform(actuals, samples, part.start),
        errors=np.full(len(samples), "", dtype=f"<U{LONGEST_ERROR}"),
        seconds=0.0,
    )


def _transform(
    actuals: npt.NDArray[np.float64], samples: npt.NDArray[np.float64], first: int
) -> npt.NDArray[np.float64]:
    """Each window's own random numbers break its ties, in whatever chunk it is asked."""
    rows = [
        probability_integral_transform(
            actuals[row : row + 1], samples[row : row + 1], np.random.default_rng(first + row)
        )
        for row in range(len(actuals))
    ]
    return np.concatenate(rows)


def _one_line(error: Exception) -> str:
    first = (str(error) or "no message").splitlines()[0]
    return f"{type(error).__name__}: {first}"[:LONGEST_ERROR]


def _bar(progress: bool | None) -> Progress:
    console = Console(stderr=True)
    shown = sys.stderr.isatty() if progress is None else progress
    columns = (
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    return Progress(*columns, console=console, disable=not shown)


# --- What the scores need to know of the data ----------------------------------------------------


def _seasonal_errors(
    origins: Origins, season: int | None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean absolute and mean squared seasonal step of each window's history."""
    found = []
    for series, cut in zip(origins.series, origins.cuts, strict=True):
        axis, history = origins.panel.axes[series], origins.panel.values[series][:cut]
        natural = season_length(axis.frequency) if axis.frequency else 1
        steps = season or natural
        found.append([seasonal_error(history, steps, power) for power in (1, 2)])
    absolute, squared = np.array(found).T
    return absolute, squared


def _leaks(name: str, entrants: Mapping[str, Any], origins: Origins) -> dict[str, str]:
    """Of forecasters whose weights have seen these data: how."""
    found = {}
    for entrant, forecaster in entrants.items():
        record = getattr(forecaster, "training", TrainingRecord())
        if _plain(name) in {_plain(dataset) for dataset in record.datasets}:
            found[entrant] = f"its weights were pretrained on {name}"
        num_seen = _num_windows_until(record.until, origins)
        if num_seen:
            found[entrant] = (
                f"{num_seen} of {len(origins)} windows lie in the time that its weights were "
                f"fine-tuned on (until {record.until})"
            )
    return found


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").replace(" ", "_")


def _num_windows_until(until: str, origins: Origins) -> int:
    """Windows whose first forecast step had been seen."""
    if not until:
        return 0
    end = pd.Timestamp(until).tz_localize(None)
    count = 0
    for series, cut in zip(origins.series, origins.cuts, strict=True):
        first = origins.panel.axes[series].index(cut, 1)
        if isinstance(first, pd.DatetimeIndex):
            count += bool(first.tz_localize(None)[0] <= end)
    return count


def _notes(panel: Panel, origins: Origins, num_windows: int, step: int) -> list[str]:
    notes = []
    counts = np.bincount(origins.series, minlength=len(panel))
    if (counts == 0).any():
        notes.append(
            f"{(counts == 0).sum()} of {len(panel)} series are too short, or miss too much, for any window"
        )
    fewer = ((counts > 0) & (counts < num_windows)).sum()
    if fewer:
        notes.append(f"{fewer} of {len(panel)} series have fewer than {num_windows} windows")
    if step < origins.horizon:
        notes.append("windows overlap: intervals of skill over windows are too narrow")
    return notes
