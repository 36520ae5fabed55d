"""Darts' model: `fit`, `predict`, `historical_forecasts` and `backtest` of that library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from darts import TimeSeries
from darts.models.forecasting.forecasting_model import GlobalForecastingModel

from llamacast.data.windows import SHORTEST_HISTORY
from llamacast.forecaster import PretrainedForecaster, load

SeriesLike: TypeAlias = TimeSeries | Sequence[TimeSeries]
MEDIAN_OF = 100
"""Paths, where one value is asked for."""


class LlamaCastModel(GlobalForecastingModel):  # type: ignore[misc]
    """A pretrained model; `fit` remembers a series and trains nothing.

    Components of a series are forecast one by one, all of all series in one call. Covariates are used
    where they have helped on the last windows of the history. `num_samples=1` gives medians, more give
    sample paths.
    """

    def __init__(
        self,
        model: str | PretrainedForecaster = "cria",
        nonnegative: bool | None = None,
        integer: bool | None = None,
    ) -> None:
        """
        Args:
            model: a packaged model, the folder of one, or a forecaster.
            nonnegative: nothing falls below 0, or some may; None: nothing where 0 was met often
                and never passed.
            integer: all values are whole numbers, or need not be; None: those of counts.
        """
        super().__init__()
        self.forecaster = load(model) if isinstance(model, str) else model
        self.options: dict[str, Any] = {"nonnegative": nonnegative, "integer": integer}

    def fit(
        self,
        series: SeriesLike,
        past_covariates: SeriesLike | None = None,
        future_covariates: SeriesLike | None = None,
        verbose: bool | None = None,
        **others: Any,
    ) -> LlamaCastModel:
        """Remember a series, and what is beside it, so that `predict` needs none."""
        super().fit(series, past_covariates, future_covariates, verbose=verbose)
        return self

    def predict(
        self,
        n: int,
        series: SeriesLike | None = None,
        past_covariates: SeriesLike | None = None,
        future_covariates: SeriesLike | None = None,
        num_samples: int = 1,
        verbose: bool | None = None,
        predict_likelihood_parameters: bool = False,
        show_warnings: bool = True,
        random_state: int | None = None,
        **others: Any,
    ) -> TimeSeries | list[TimeSeries]:
        """The `n` steps after each series ends.

        Raises:
            ValueError: if there is no series, or not a series of covariates for each.
            DataError: if the series or the covariates cannot be used.
        """
        asked = self.training_series if series is None else series
        if asked is None:
            raise ValueError("fit remembers one series only; give predict those to forecast")
        if series is None:
            past_covariates = past_covariates or self.past_covariate_series
            future_covariates = future_covariates or self.future_covariate_series
        several = _listed(asked)
        past = _beside("past_covariates", past_covariates, len(several))
        future = _beside("future_covariates", future_covariates, len(several))
        super().predict(
            n, several, past, future, num_samples=num_samples, random_state=random_state
        )
        found = {}
        for numbers in _alike(several):
            table, ahead, told = _tables(numbers, several, past, future, n)
            dated = isinstance(several[numbers[0]].time_index, pd.DatetimeIndex)
            forecast = self.forecaster.forecast(
                table,
                n,
                num_samples=MEDIAN_OF if num_samples == 1 else num_samples,
                seed=random_state or 0,
                id_column="id",
                time_column="ds",
                target_column="y",
                frequency=several[numbers[0]].freq_str if dated else None,
                covariates=told or None,
                future_frame=ahead,
                progress=False,
                **self.options,
            )
            place = {name: position for position, name in enumerate(forecast.ids)}
            for number in numbers:
                one = several[number]
                rows = [place[f"{number}/{component}"] for component in range(one.n_components)]
                if num_samples == 1:
                    values = forecast.median[rows].T[:, :, None]
                else:
                    values = np.moveaxis(forecast.samples[rows], (0, 1, 2), (1, 2, 0))
                found[number] = self._build_forecast_series(values, one)
        answers = [found[number] for number in range(len(several))]
        return answers[0] if isinstance(asked, TimeSeries) else answers

    @property
    def extreme_lags(self) -> tuple[int | None, ...]:
        past = (-SHORTEST_HISTORY, -1) if self.uses_past_covariates else (None, None)
        future = (-SHORTEST_HISTORY, 0) if self.uses_future_covariates else (None, None)
        return -SHORTEST_HISTORY, 0, *past, *future, 0

    @property
    def min_train_samples(self) -> int:
        return 1

    @property
    def _target_window_lengths(self) -> tuple[int, int]:
        return SHORTEST_HISTORY, 1

    @property
    def _requires_training(self) -> bool:
        return False

    @property
    def _model_encoder_settings(self) -> tuple[Any, ...]:
        return None, None, True, True, None, None

    @property
    def supports_multivariate(self) -> bool:
        return True

    @property
    def supports_past_covariates(self) -> bool:
        return True

    @property
    def supports_future_covariates(self) -> bool:
        return True

    @property
    def supports_probabilistic_prediction(self) -> bool:
        return True

    @property
    def supports_optimized_historical_forecasts(self) -> bool:
        return False


def _alike(several: Sequence[TimeSeries]) -> list[list[int]]:
    """Numbers of series by frequency."""
    found: dict[str, list[int]] = {}
    for number, one in enumerate(several):
        found.setdefault(str(one.freq_str), []).append(number)
    return list(found.values())


def _listed(series: SeriesLike) -> list[TimeSeries]:
    return [series] if isinstance(series, TimeSeries) else list(series)


def _beside(name: str, given: SeriesLike | None, count: int) -> list[TimeSeries] | None:
    """Covariates for each series.

    Raises:
        ValueError: if there are too few or too many, or they differ in their components.
    """
    if given is None:
        return None
    several = _listed(given)
    if len(several) != count:
        raise ValueError(f"{name}: {len(several)} for {count} series; give each series its own")
    if len({one.n_components for one in several}) > 1:
        raise ValueError(f"{name}: all must have as many components")
    return several


def _tables(
    numbers: list[int],
    several: list[TimeSeries],
    past: list[TimeSeries] | None,
    future: list[TimeSeries] | None,
    horizon: int,
) -> tuple[pd.DataFrame, pd.DataFrame | None, list[str]]:
    """A long table of some series, that of what is known of their future, and the names of covariates."""
    frames, ahead, told = [], [], list[str]()
    for number in numbers:
        one = several[number]
        table = pd.DataFrame({"ds": one.time_index})
        for mark, given in (("past", past), ("future", future)):
            if given is not None:
                table = table.join(_columns(given[number], mark), on="ds")
        told = list(table.columns[1:])
        for component in range(one.n_components):
            name = f"{number}/{component}"
            frames.append(table.assign(id=name, y=one.values()[:, component]))
            if future is not None:
                ahead.append(_ahead(future[number], one, number, horizon).assign(id=name))
    whole = pd.concat(frames, ignore_index=True)
    return whole, pd.concat(ahead, ignore_index=True) if ahead else None, told


def _ahead(beside: TimeSeries, series: TimeSeries, number: int, horizon: int) -> pd.DataFrame:
    known = _columns(beside, "future").rename_axis("ds").reset_index()
    later = known[known["ds"] > series.end_time()].head(horizon)
    if len(later) < horizon:
        raise ValueError(
            f"future_covariates of series {number} end {len(later)} steps after it; {horizon} are asked for"
        )
    return later


def _columns(series: TimeSeries, mark: str) -> pd.DataFrame:
    """Under names of our own: theirs may be those of other columns."""
    names = [f"{mark} {component}" for component in range(series.n_components)]
    return pd.DataFrame(series.values(), index=series.time_index, columns=names)
