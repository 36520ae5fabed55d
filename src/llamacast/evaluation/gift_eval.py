"""GIFT-Eval: its 97 configurations, their windows and scores, and a run that can be taken up again.

The protocol is that of SalesforceAIResearch/gift-eval (`src/gift_eval/data.py` and its notebooks)
with GluonTS' `evaluate_model(axis=None, mask_invalid_label=True)`. Nothing here trains.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.console import Console
from rich.progress import Progress

from llamacast.data.arrow import StoredSeries, is_arrow_folder, read_series
from llamacast.data.calendar import Frequency
from llamacast.data.panel import Columns, Panel, TimeAxis
from llamacast.evaluation.answers import fingerprint
from llamacast.evaluation.metrics import DECILES, quantile_loss, seasonal_error
from llamacast.forecast import DataError, Forecaster

Floats = npt.NDArray[np.float64]

TERMS = {"short": 1, "medium": 10, "long": 15}
TEST_SHARE = 0.1
MOST_WINDOWS = 20

# Folder in the download, its frequencies; + has the medium and the long term too.
_DOWNLOAD = """
m4_yearly A | m4_quarterly Q | m4_monthly M | m4_weekly W | m4_daily D | m4_hourly H
electricity 15T+ H+ D W | solar 10T+ H+ D W | hospital M | covid_deaths D | us_births D M W
saugeenday D M W | temperature_rain_with_missing D | kdd_cup_2018_with_missing H+ D
car_parts_with_missing M | restaurant D | hierarchical_sales D W | LOOP_SEATTLE 5T+ H+ D
SZ_TAXI 15T+ H | M_DENSE H+ D | ett1 15T+ H+ D W | ett2 15T+ H+ D W | jena_weather 10T+ H+ D
bitbrains_fast_storage 5T+ H | bitbrains_rnd 5T+ H | bizitobs_application 10S+
bizitobs_service 10S+ | bizitobs_l2c 5T+ H+
"""
_PUBLISHED_NAMES = {"saugeenday": "saugeen"}

# Steps of the short term, by the unit of the step.
_STEPS = {"M": 12, "W": 8, "D": 30, "h": 48, "min": 48, "s": 60}
_STEPS_OF_M4 = {"Y": 6, "Q": 8, "M": 18, "W": 13, "D": 14, "h": 48}
# GluonTS' seasons (`gluonts.time_feature.seasonality`); others are 1.
_SEASONS = {"s": 3600, "min": 1440, "h": 24, "D": 1, "B": 5, "W": 1, "M": 12, "Q": 4}

STEPS_AT_A_TIME = 100_000
"""Forecast steps asked for in one call, over its windows; memory, not scores, depends on it."""

RESULTS = "gift_eval.csv"
KEYS = ["dataset", "freq", "term"]
COLUMNS = [
    *KEYS, "model", "series", "windows", "horizon", "MASE", "CRPS", "seconds", "error", "data", "settings",
]  # fmt: skip


@dataclass(frozen=True)
class Configuration:
    """One row of the benchmark, named as published tables name it."""

    dataset: str
    frequency: str
    term: str
    source: str = field(default="", compare=False, repr=False)
    """Folder of the data in the download."""

    @property
    def name(self) -> str:
        return f"{self.dataset}/{self.frequency}/{self.term}"


def _configurations() -> Iterator[Configuration]:
    for entry in _DOWNLOAD.replace("\n", "|").split("|"):
        if not entry.strip():
            continue
        folder, *frequencies = entry.split()
        name = folder.lower().removesuffix("_with_missing")
        for marked in frequencies:
            frequency = marked.removesuffix("+")
            source = f"{folder}/{frequency}" if len(frequencies) > 1 else folder
            for term in TERMS if marked.endswith("+") else ("short",):
                yield Configuration(_PUBLISHED_NAMES.get(name, name), frequency, term, source)


CONFIGURATIONS = tuple(_configurations())


def find_data(folder: Path, chosen: str = "") -> dict[Path, list[Configuration]]:
    """Where the data of each configuration lie; those not there are left out.

    A data set is a folder as GIFT-Eval distributes it (`ett1/15T/`, `m4_yearly/`) or a parquet file
    (`ett1_15T.parquet`). `chosen` keeps configurations whose name ("ett1/15T/short") holds one of
    its substrings, with commas between.

    Raises:
        DataError: if nothing is left.
    """
    wanted = [part.strip() for part in chosen.split(",") if part.strip()]
    found: dict[Path, list[Configuration]] = {}
    for configuration in CONFIGURATIONS:
        if wanted and not any(part in configuration.name for part in wanted):
            continue
        parquet = folder / f"{configuration.dataset}_{configuration.frequency}.parquet"
        if is_arrow_folder(folder / configuration.source):
            found.setdefault(folder / configuration.source, []).append(configuration)
        elif parquet.exists():
            found.setdefault(parquet, []).append(configuration)
    if not found:
        raise DataError(
            f"{folder}: holds no GIFT-Eval configuration{f' named like {chosen!r}' if wanted else ''}; "
            "data sets are folders such as ett1/15T and m4_yearly, or files such as ett1_15T.parquet"
        )
    return found


# --- Windows -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """What is to be forecast: the last `num_windows * horizon` steps of each series."""

    configuration: Configuration
    series: StoredSeries
    horizon: int
    num_windows: int
    season_length: int


def make_task(configuration: Configuration, series: StoredSeries) -> Task:
    """The benchmark's horizon, windows and season, from the data's own frequency and lengths.

    Series without any value count: the shortest of all fixes the number of windows.

    Raises:
        DataError: if the frequency has no horizon, or a series is shorter than its windows.
    """
    frequency = series.axes[0].frequency
    assert frequency is not None
    of_m4 = configuration.dataset.startswith("m4")
    steps = (_STEPS_OF_M4 if of_m4 else _STEPS).get(frequency.unit)
    if steps is None:
        raise DataError(f"{configuration.name}: GIFT-Eval has no horizon for {frequency.name!r}")
    horizon = steps * TERMS[configuration.term]
    lengths = [len(values) for values in series.values]
    num_windows = 1
    if not of_m4:
        num_windows = min(max(1, math.ceil(TEST_SHARE * min(lengths) / horizon)), MOST_WINDOWS)
    if min(lengths) <= num_windows * horizon:
        short = series.ids[int(np.argmin(lengths))]
        raise DataError(
            f"{configuration.name}: series {short!r} has {min(lengths)} steps, too few for "
            f"{num_windows} windows of {horizon} and a history"
        )
    return Task(configuration, series, horizon, num_windows, gluonts_season(frequency))


def gluonts_season(frequency: Frequency) -> int:
    """Steps in GluonTS' season, which is 1 for days, weeks and years."""
    season, rest = divmod(_SEASONS.get(frequency.unit, 1), frequency.multiple)
    return season if rest == 0 else 1


@dataclass(frozen=True)
class Windows:
    """Some windows of a task."""

    histories: Panel
    """What came before each window, where that holds a value."""
    known: npt.NDArray[np.bool_]
    """Which windows have such a history; shape `(window,)`."""
    actuals: Floats
    """Shape `(window, horizon)`; NaN is missing."""
    seasonal_errors: Floats
    """Of the whole history of each window; shape `(window,)`."""


def batches(task: Task, size: int, longest_history: int | None = None) -> Iterator[Windows]:
    """All windows of a task in time order, series by series, `size` at a time.

    A window is named by its series and its first step ("T1 2018-05-01 00:00:00"), so that no two
    draw the same random numbers. Histories are cut to their last `longest_history` steps.
    """
    waiting: list[_Window] = []
    for window in _windows(task):
        waiting.append(window)
        if len(waiting) == size:
            yield _together(waiting, task, longest_history)
            waiting = []
    if waiting:
        yield _together(waiting, task, longest_history)


@dataclass(frozen=True)
class _Window:
    id: str
    axis: TimeAxis
    values: Floats
    """The whole series."""
    cut: int
    """First step to forecast."""


def _windows(task: Task) -> Iterator[_Window]:
    series = task.series
    for name, stored, axis in zip(series.ids, series.values, series.axes, strict=True):
        values = stored.astype(np.float64)
        for left in range(task.num_windows, 0, -1):
            cut = len(values) - left * task.horizon
            yield _Window(f"{name} {axis.index(cut, 1)[0]}", axis, values, cut)


def _together(windows: Sequence[_Window], task: Task, longest: int | None) -> Windows:
    firsts = [max(0, w.cut - longest) if longest else 0 for w in windows]
    histories = [w.values[first : w.cut] for w, first in zip(windows, firsts, strict=True)]
    known = np.array([not np.isnan(history).all() for history in histories])
    kept = np.flatnonzero(known).tolist()
    return Windows(
        Panel(
            [windows[n].id for n in kept],
            [histories[n] for n in kept],
            [windows[n].axis.moved(firsts[n]) for n in kept],
            Columns("item_id", "timestamp", "target"),
        ),
        known,
        np.stack([w.values[w.cut : w.cut + task.horizon] for w in windows]),
        np.array([seasonal_error(w.values[: w.cut], task.season_length) for w in windows]),
    )


# --- Scores --------------------------------------------------------------------------------------


class Totals:
    """Sums over windows, from which the two scores follow."""

    def __init__(self) -> None:
        self._losses = np.zeros(len(DECILES))
        self._absolute = 0.0
        self._scaled = 0.0
        self._num_scaled = 0

    def add(self, windows: Windows, deciles: Floats) -> None:
        """Count windows in, given their deciles `(window, horizon, 9)`."""
        losses = quantile_loss(windows.actuals, deciles, DECILES)
        self._losses += np.nansum(losses, axis=(0, 1))
        self._absolute += float(np.nansum(np.abs(windows.actuals)))
        # The loss of the median is the absolute error.
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            scaled = losses[..., DECILES.index(0.5)] / windows.seasonal_errors[:, None]
        counts = np.isfinite(scaled)
        self._scaled += float(scaled[counts].sum())
        self._num_scaled += int(counts.sum())

    @property
    def mase(self) -> float:
        """Mean absolute scaled error of the median; windows without a seasonal error do not count."""
        return self._scaled / self._num_scaled if self._num_scaled else float("nan")

    @property
    def crps(self) -> float:
        """GluonTS' `mean_weighted_sum_quantile_loss` over the nine deciles."""
        return float(np.mean(self._losses) / self._absolute) if self._absolute else float("nan")


def score(
    task: Task,
    forecaster: Forecaster,
    *,
    longest_history: int | None = None,
    windows_at_a_time: int | None = None,
    advance: Callable[[int], object] = lambda count: None,
) -> Totals:
    """Forecast every window of a task from what came before it, and score the deciles.

    `advance` is told after each call how many windows it has done. A window whose history holds no
    value is forecast as zeros, as GluonTS imputes it, and not handed over.

    Raises:
        ValueError: if a forecast has the wrong shape, or holds anything but finite numbers.
    """
    totals = Totals()
    size = windows_at_a_time or max(1, STEPS_AT_A_TIME // task.horizon)
    for windows in batches(task, size, longest_history):
        deciles = np.zeros((*windows.actuals.shape, len(DECILES)))
        if len(windows.histories):
            found = forecaster.forecast(windows.histories, task.horizon).quantile(DECILES)
            expected = (len(windows.histories), *deciles.shape[1:])
            if found.shape != expected:
                raise ValueError(f"the forecast has shape {found.shape}, not {expected}")
            if not np.isfinite(found).all():
                raise ValueError("the forecast holds numbers that are not finite")
            deciles[windows.known] = found
        totals.add(windows, deciles)
        advance(len(windows.actuals))
    return totals


# --- A run ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contender:
    """A forecaster under the name that it has in tables."""

    name: str
    make: Callable[[int], Forecaster]
    """The forecaster for a season length; most will not depend on it."""
    settings: str = ""
    """All that its scores depend on besides its name, in words."""


def run(
    folder: Path,
    contenders: Sequence[Contender],
    output: Path,
    *,
    chosen: str = "",
    longest_history: int | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Score forecasters on the configurations in a folder; one row for each of both.

    Rows are `COLUMNS`: `windows` are those of each series, `error` says why there is no score. They
    are kept in `output`/gift_eval.csv as they come. What is scored there already is not scored
    again; what failed is tried again.

    Raises:
        DataError: if the data cannot be used, or `output` holds scores of other settings or data.
    """
    found = find_data(folder, chosen)
    contenders = [_with_history(contender, longest_history) for contender in contenders]
    output.mkdir(parents=True, exist_ok=True)
    path = output / RESULTS
    done = _scored(path, contenders)
    total = sum(map(len, found.values())) * len(contenders)
    with Progress(console=Console(stderr=True), disable=not progress, transient=True) as bar:
        overall = bar.add_task("GIFT-Eval", total=total)
        for source, configurations in found.items():
            series = read_series(source)
            data = fingerprint(series)
            for configuration, contender in product(configurations, contenders):
                scored_on = done.get((configuration.name, contender.name), "")
                if scored_on not in ("", data):
                    raise DataError(
                        f"{path}: holds scores of other data named {configuration.name}; name "
                        "another output folder"
                    )
                if not scored_on:
                    task = make_task(configuration, series)
                    _append(path, _row(task, data, contender, longest_history, bar))
                bar.advance(overall)
    names = {configuration.name for part in found.values() for configuration in part}
    return _asked_for(read_results(path), names, contenders)


def _with_history(contender: Contender, longest_history: int | None) -> Contender:
    words = [contender.settings] if contender.settings else []
    words += [f"longest_history={longest_history}"] if longest_history else []
    return Contender(contender.name, contender.make, " ".join(words))


def _row(
    task: Task, data: str, contender: Contender, longest_history: int | None, bar: Progress
) -> dict[str, Any]:
    configuration = task.configuration
    num_windows = len(task.series) * task.num_windows
    shown = bar.add_task(f"{configuration.name} {contender.name}", total=num_windows)
    began = time.perf_counter()
    totals, reason = Totals(), ""
    try:
        totals = score(
            task,
            contender.make(task.season_length),
            longest_history=longest_history,
            advance=lambda count: bar.advance(shown, count),
        )
    # Whatever a forecaster raises is a result of the benchmark.
    except Exception as error:
        totals = Totals()
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    bar.remove_task(shown)
    values = (
        configuration.dataset, configuration.frequency, configuration.term, contender.name,
        len(task.series), task.num_windows, task.horizon, totals.mase, totals.crps,
        round(time.perf_counter() - began, 2), reason, data, contender.settings,
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def read_results(path: Path) -> pd.DataFrame:
    """The rows of a run, `COLUMNS`; none where there is no file.

    Raises:
        DataError: if the file is none of `run`.
    """
    if not path.exists():
        return pd.DataFrame(columns=COLUMNS)
    try:
        frame = pd.read_csv(
            path,
            keep_default_na=False,
            na_values={"MASE": [""], "CRPS": [""]},
            float_precision="round_trip",
        )
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if list(frame.columns) != COLUMNS:
        raise DataError(f"{path}: holds no results of GIFT-Eval; name another folder")
    return frame


def _names(results: pd.DataFrame) -> pd.Series[Any]:
    """ "ett1/15T/short" for each row."""
    return results.dataset + "/" + results.freq + "/" + results.term


def _scored(path: Path, contenders: Sequence[Contender]) -> dict[tuple[str, str], str]:
    """Configuration and contender of the rows that have scores, and the data these are of."""
    results = read_results(path)
    for contender in contenders:
        others = set(results.settings[results.model == contender.name]) - {contender.settings}
        if others:
            raise DataError(
                f"{path}: holds scores of {contender.name!r} with other settings "
                f"({others.pop()!r}; now {contender.settings!r}); name another output folder"
            )
    scored = results[results.error == ""]
    keys = zip(_names(scored), scored.model, strict=True)
    return dict(zip(keys, scored.data, strict=True))


def _append(path: Path, row: dict[str, Any]) -> None:
    """Add a row, or put it in place of its failed forerunner; the file is whole at any moment."""
    results = read_results(path)
    same = (results[[*KEYS, "model"]] == [row[key] for key in [*KEYS, "model"]]).all(axis=1)
    kept = [*results[~same].to_dict("records"), row]
    beside = path.with_suffix(".tmp")
    pd.DataFrame(kept, columns=COLUMNS).to_csv(beside, index=False)
    os.replace(beside, path)


def _asked_for(
    results: pd.DataFrame, names: set[str], contenders: Sequence[Contender]
) -> pd.DataFrame:
    """The rows of these configurations and contenders, in the benchmark's order."""
    order = {configuration.name: n for n, configuration in enumerate(CONFIGURATIONS)}
    models = [contender.name for contender in contenders]
    asked = results[_names(results).isin(names) & results.model.isin(models)]
    places = pd.DataFrame({"c": _names(asked).map(order), "m": asked.model.map(models.index)})
    return asked.loc[places.sort_values(["c", "m"]).index].reset_index(drop=True)
