"""Classical forecasters, one model for each series, through Nixtla's statsforecast.

Fits and points are the library's. So is the spread of naive, drift, ARIMA, MSTL and ETS without a
season: a normal whose deviation the model knows. It is not taken where statsforecast 2.1.1 errs:

- Theta: the library adds the season to the residuals that it measures (intervals several times too
  wide where the season is additive), and reads quantiles off 200 draws in single precision.
- Seasonal ETS: the variance of each step is that of the last one in additive models, and misses
  the paths that the same model simulates, by a third and more, in multiplicative ones.

Croston's method has no intervals of its own. The functions below say what stands in.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from joblib import Parallel, cpu_count, delayed, parallel_config
from statsforecast.models import (
    MSTL,
    AutoARIMA,
    AutoETS,
    AutoTheta,
    CrostonSBA,
    DynamicOptimizedTheta,
    DynamicTheta,
    Naive,
    OptimizedTheta,
    RandomWalkWithDrift,
    Theta,
)
from threadpoolctl import threadpool_limits

from llamacast.data.calendar import Frequency, natural_seasons
from llamacast.data.frame import read_panel
from llamacast.data.panel import Panel
from llamacast.data.tables import Table
from llamacast.evaluation.baselines import LEVELS, NORMAL, carried
from llamacast.forecast import DataError, Forecast

Floats = npt.NDArray[np.float64]
Seasons = tuple[int, ...]

FEWEST_SHARED = 16
"""Fewer series than this are not worth sending to other processes."""
SERIES_PER_PARCEL = 4
SHORTEST_HISTORY = 10
"""Histories below it, and constant ones, are forecast by the random walk: nothing can be fitted."""
EXPLODED = 1e4
"""A forecast this many times larger than the largest value of its history counts as a failure."""
NUM_PATHS = 500
WHOLE = 10**9
"""Steps of a history that is not cut."""
_EIGHTY = 80
_WIDTH_OF_EIGHTY = 2 * NormalDist().inv_cdf(0.5 + _EIGHTY / 200)


# --- Methods: values `(time,)`, horizon and season lengths in, quantiles `(level, horizon)` out ---


def _normal(mean: Floats, deviation: Floats) -> Floats:
    return mean + deviation * NORMAL[:, None]


def _mean_and_deviation(answer: dict[str, Any]) -> tuple[Floats, Floats]:
    """Of a normal, of which one interval tells all."""
    low, high = (np.asarray(answer[f"{end}-{_EIGHTY}"]) for end in ("lo", "hi"))
    return answer["mean"], (high - low) / _WIDTH_OF_EIGHTY


def _native(model: Any, values: Floats, horizon: int) -> Floats:
    """Of models whose own intervals are normal."""
    return _normal(*_mean_and_deviation(model.forecast(y=values, h=horizon, level=[_EIGHTY])))


def _plain(model: Callable[[], Any], values: Floats, horizon: int, seasons: Seasons) -> Floats:
    return _native(model(), values, horizon)


def _arima(values: Floats, horizon: int, seasons: Seasons) -> Floats:
    """Orders are compared by conditional sums of squares, and the best one fitted by likelihood.

    It is what R's `auto.arima` does by default with more than 150 steps, and several times cheaper.
    """
    return _native(AutoARIMA(season_length=_first(seasons), approximation=True), values, horizon)


def _ets(values: Floats, horizon: int, seasons: Seasons) -> Floats:
    """Normal; of the deviation that the model's formula gives, or else that its paths have."""
    model = AutoETS(season_length=_first(seasons))
    model.fit(values)
    error, _, season, _ = model.model_["components"]
    if season == "N":
        return _normal(*_mean_and_deviation(model.predict(horizon, level=[_EIGHTY])))
    if error == "M":
        with _global_randomness_kept():
            paths = model.simulate(horizon, NUM_PATHS, seed=0)
        low, high = np.quantile(paths, [0.5 - _EIGHTY / 200, 0.5 + _EIGHTY / 200], axis=0)
        return _normal(model.predict(horizon)["mean"], (high - low) / _WIDTH_OF_EIGHTY)
    # The formula holds for the season in which the forecast ends: ask for one season after another.
    starts = range(0, horizon, model.season_length)
    ends = [min(start + model.season_length, horizon) for start in starts]
    parts = [
        _normal(*_mean_and_deviation(model.predict(end, level=[_EIGHTY])))[:, start:]
        for start, end in zip(starts, ends, strict=True)
    ]
    return np.concatenate(parts, axis=1)


def _mstl(values: Floats, horizon: int, seasons: Seasons) -> Floats:
    """STL takes the seasons off one after another, ETS forecasts the rest, seasons repeat.

    Smooth curves are computed at some of the points and joined by lines, as in R: they hardly
    differ, and cost up to six times less.
    """
    if not seasons:
        return _native(AutoETS(model="ZZN"), values, horizon)
    jumps = {
        "seasonal_jump": 2,
        "trend_jump": max(1, seasons[0] // 7),
        "low_pass_jump": max(1, seasons[0] // 10),
    }
    return _native(MSTL(season_length=list(seasons), stl_kwargs=jumps), values, horizon)


def _theta(kind: Callable[..., Any], values: Floats, horizon: int, seasons: Seasons) -> Floats:
    """Normal, of the deviation of exponential smoothing with drift, which Theta is.

    Hyndman and Billah (2003), "Unmasking the Theta method": `sigma * sqrt(1 + (step - 1) * alpha**2)`
    with the deviation `sigma` of one-step errors, here those of the series without its season.
    """
    model = kind(season_length=_first(seasons))
    model.fit(values)
    fitted, steps = model.model_, np.arange(horizon)
    errors, scale = fitted["residuals"], np.ones(horizon)
    if fitted.get("decompose"):
        season = fitted["seas_forecast"]["mean"]
        past = season[np.arange(-len(values), 0) % len(season)]
        if fitted["decomposition_type"] == "multiplicative":
            errors, scale = errors / past, season[steps % len(season)]
        else:
            errors = errors - past
    # The first three depend on how the smoothing starts; the library leaves them out too.
    sigma = np.std(errors[3:], ddof=1)
    deviation = sigma * np.sqrt(1 + steps * fitted["par"]["alpha"] ** 2)
    return _normal(model.predict(horizon)["mean"], deviation * scale)


def _croston(values: Floats, horizon: int, seasons: Seasons) -> Floats:
    """The flat mean plus the quantiles of its one-step errors in the past, the same at every step.

    Intermittent demand is far from normal. None falls below zero where no past value does.
    """
    answer = CrostonSBA().forecast(y=values, h=horizon, fitted=True)
    errors = values - answer["fitted"]
    grid = answer["mean"] + np.quantile(errors[np.isfinite(errors)], LEVELS)[:, None]
    return np.maximum(grid, 0.0) if values.min() >= 0 else grid


def _first(seasons: Seasons) -> int:
    return seasons[0] if seasons else 1


@contextmanager
def _global_randomness_kept() -> Iterator[None]:
    """statsforecast seeds numpy's global generator, which is the user's."""
    state = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(state)


@dataclass(frozen=True)
class Method:
    """How one baseline forecasts."""

    forecast: Callable[[Floats, int, Seasons], Floats]
    longest_history: int = 1000
    """Steps that it is fitted to by default."""
    costly: bool = True
    """Whether other processes are worth their trouble."""
    many_seasons: bool = False


METHODS = {
    "naive": Method(partial(_plain, Naive), longest_history=WHOLE, costly=False),
    "drift": Method(partial(_plain, RandomWalkWithDrift), longest_history=WHOLE, costly=False),
    "auto-ets": Method(_ets, longest_history=500),
    "auto-arima": Method(_arima, longest_history=300),
    "theta": Method(partial(_theta, Theta)),
    "optimized-theta": Method(partial(_theta, OptimizedTheta)),
    "dynamic-theta": Method(partial(_theta, DynamicTheta)),
    "dynamic-optimized-theta": Method(partial(_theta, DynamicOptimizedTheta)),
    "auto-theta": Method(partial(_theta, AutoTheta), longest_history=500),
    "croston-sba": Method(_croston, longest_history=WHOLE, costly=False),
    # Two weeks of quarter hours are 1344 steps.
    "mstl": Method(_mstl, longest_history=1500, many_seasons=True),
}


# --- The forecaster ------------------------------------------------------------------------------


class Task(NamedTuple):
    """One series, as it travels to a worker."""

    name: str
    values: Floats
    horizon: int
    seasons: Seasons


@dataclass(frozen=True)
class StatisticalForecaster:
    """A model of `METHODS`, fitted to each series by itself. Equal input, equal output.

    Many series are shared among processes, which stay for a while in case more are to come.
    """

    name: str
    season: int | None = None
    """Steps in a season; None takes the frequency's own (MSTL: the next longer one too)."""
    longest_history: int | None = None
    """Last steps to fit; None takes the method's own, which bounds its cost. With a season of 7,
    AutoETS takes 0.25 s for 500 steps, AutoARIMA 0.5 s for 300, AutoTheta 0.08 s for 500."""
    processes: int | None = None
    """None takes one for each processor."""

    def __post_init__(self) -> None:
        if self.name not in METHODS:
            raise DataError(f"no statistical forecaster {self.name!r}; there are {list(METHODS)}")

    def forecast(self, data: Table | Panel, horizon: int) -> Forecast:
        """See `Forecaster.forecast`. Missing values are carried forward.

        Raises:
            DataError: names the first series that the model cannot be fitted to, or whose forecast
                is not finite or exploded.
        """
        panel = read_panel(data)
        tasks = [
            self._task(values, axis.frequency, horizon)
            for values, axis in zip(panel.values, panel.axes, strict=True)
        ]
        grids = []
        for identifier, answer in zip(panel.ids, self._answers(tasks), strict=True):
            if isinstance(answer, str):
                raise DataError(f"{self.name} cannot forecast series {identifier!r}: {answer}")
            grids.append(answer)
        return panel.answer(np.stack(grids), self.name, joint=False)

    def _task(self, values: Floats, frequency: Frequency | None, horizon: int) -> Task:
        method = METHODS[self.name]
        kept = carried(values)[-(self.longest_history or method.longest_history) :]
        seasons = (self.season,) if self.season else natural_seasons(frequency)
        whole = tuple(season for season in seasons if 1 < season <= len(kept) // 2)
        return Task(self.name, kept, horizon, whole if method.many_seasons else whole[:1])

    def _answers(self, tasks: Sequence[Task]) -> list[Floats | str]:
        processes = self.processes or cpu_count()
        if processes == 1 or len(tasks) < FEWEST_SHARED or not METHODS[self.name].costly:
            with threadpool_limits(1):
                return [answer_one(task) for task in tasks]
        # Workers stay for the next call, as importing statsforecast takes each of them seconds; and
        # joblib's, unlike Python's own, do not run the user's script anew to begin with.
        with parallel_config("loky", n_jobs=processes, inner_max_num_threads=1):
            return list(Parallel(batch_size=SERIES_PER_PARCEL)(map(delayed(answer_one), tasks)))


def answer_one(task: Task) -> Floats | str:
    """Quantiles `(level, horizon)` of one series, ascending and finite; or what went wrong."""
    values = task.values
    simple = len(values) < SHORTEST_HISTORY or bool((values == values[0]).all())
    method = METHODS["naive" if simple else task.name]
    # Searches for a model try ones that overflow, warn of it, and reject them; what counts is
    # the result, which is checked here.
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            grid = np.sort(method.forecast(values, task.horizon, task.seasons), axis=0)
        except Exception as error:  # the library raises all kinds, bare Exception among them
            return f"{type(error).__name__}: {error}"
    if not np.isfinite(grid).all():
        return "its forecast is not finite"
    if np.abs(grid).max() > EXPLODED * np.abs(values).max():
        return f"its forecast exploded to {np.abs(grid).max():.3g}"
    return grid
