"""Darts' model: `fit`, `predict`, `historical_forecasts` and `backtest` of that library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from darts import TimeSeries
from darts.models.forecasting.forecasting_model import GlobalForecastingModel

from llamacast.data.windows import SHORTEST_HISTORY
from llamacast.forecaster import PretrainedForecaster, load


class LlamaCastModel(GlobalForecastingModel):  # type: ignore[misc]
    """A pretrained model; `fit` remembers a series and trains nothing.

    Components of a series are forecast one by one, all of all series in one call. Covariates are not
    looked at. `num_samples=1` gives medians, more give sample paths.
    """

    def __init__(
        self,
        model: str | PretrainedForecaster = "cria",
        nonnegative: bool = False,
        integer: bool = False,
    ) -> None:
        """
        Args:
            model: a packaged model, the folder of one, or a forecaster.
            nonnegative: nothing falls below 0.
            integer: all values are whole numbers.
        """
        super().__init__()
        self.forecaster = load(model) if isinstance(model, str) else model
        self.options: dict[str, Any] = {"nonnegative": nonnegative, "integer": integer}

    def fit(
        self,
        series: TimeSeries | Sequence[TimeSeries],
        past_covariates: Any = None,
        future_covariates: Any = None,
        verbose: bool | None = None,
        **others: Any,
    ) -> LlamaCastModel:
        """Remember the series, so that `predict` needs none.

        Raises:
            ValueError: if covariates are given.
        """
        _refuse(past_covariates, future_covariates)
        super().fit(series, verbose=verbose)
        return self

    def predict(
        self,
        n: int,
        series: TimeSeries | Sequence[TimeSeries] | None = None,
        past_covariates: Any = None,
        future_covariates: Any = None,
        num_samples: int = 1,
        verbose: bool | None = None,
        predict_likelihood_parameters: bool = False,
        show_warnings: bool = True,
        random_state: int | None = None,
        **others: Any,
    ) -> TimeSeries | list[TimeSeries]:
        """The `n` steps after each series ends.

        Raises:
            ValueError: if there is no series, or covariates are given.
            DataError: if the series cannot be used.
        """
        _refuse(past_covariates, future_covariates)
        asked = self.training_series if series is None else series
        if asked is None:
            raise ValueError("fit remembers one series only; give predict those to forecast")
        several = [asked] if isinstance(asked, TimeSeries) else list(asked)
        super().predict(n, several, num_samples=num_samples, random_state=random_state)
        found = [
            self._forecast(numbers, several, n, num_samples, random_state or 0)
            for numbers in _alike(several)
        ]
        by_number = {number: one for part in found for number, one in part.items()}
        answers = [by_number[number] for number in range(len(several))]
        return answers[0] if isinstance(asked, TimeSeries) else answers

    def _forecast(
        self, numbers: list[int], several: list[TimeSeries], n: int, num_samples: int, seed: int
    ) -> dict[int, TimeSeries]:
        """Of series of one frequency, in one call."""
        frames = []
        for number in numbers:
            values = several[number].values()
            for component in range(values.shape[1]):
                name = f"{number}/{component}"
                frames.append(
                    pd.DataFrame(
                        {"id": name, "ds": several[number].time_index, "y": values[:, component]}
                    )
                )
        dated = isinstance(several[numbers[0]].time_index, pd.DatetimeIndex)
        forecast = self.forecaster.forecast(
            pd.concat(frames, ignore_index=True),
            n,
            num_samples=max(num_samples, 100) if num_samples == 1 else num_samples,
            seed=seed,
            id_column="id",
            time_column="ds",
            target_column="y",
            frequency=several[numbers[0]].freq_str if dated else None,
            progress=False,
            **self.options,
        )
        place = {name: position for position, name in enumerate(forecast.ids)}
        found = {}
        for number in numbers:
            one = several[number]
            rows = [place[f"{number}/{component}"] for component in range(one.n_components)]
            if num_samples == 1:
                values = forecast.median[rows].T[:, :, None]
            else:
                values = np.moveaxis(forecast.samples[rows], (0, 1, 2), (1, 2, 0))
            found[number] = self._build_forecast_series(values, one)
        return found

    @property
    def extreme_lags(self) -> tuple[int | None, ...]:
        return -SHORTEST_HISTORY, 0, None, None, None, None, 0

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
        return None, None, False, False, None, None

    @property
    def supports_multivariate(self) -> bool:
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


def _refuse(past_covariates: Any, future_covariates: Any) -> None:
    if past_covariates is not None or future_covariates is not None:
        raise ValueError(
            "this adapter has no covariates; llamacast.load(...).forecast(..., future_frame=...) has"
        )
