"""fev's `ForecastingModel`: tasks of fev-bench and one's own, scored by that library."""

from __future__ import annotations

from typing import Any

import datasets
import fev
import pandas as pd

from llamacast.forecaster import PretrainedForecaster, load


class LlamaCastModel(fev.ForecastingModel):  # type: ignore[misc]
    """A pretrained model; it trains nothing.

    Several targets are forecast one by one. Covariates that are known ahead are looked at where
    `covariates` says so.
    """

    model_name = "llamacast"

    def __init__(
        self,
        model: str | PretrainedForecaster = "cria",
        covariates: bool = False,
        num_samples: int = 100,
    ) -> None:
        """
        Args:
            model: a packaged model, the folder of one, or a forecaster.
            covariates: look at the task's known dynamic columns that are numbers.
            num_samples: paths that quantiles are taken from.
        """
        super().__init__()
        self.forecaster = load(model) if isinstance(model, str) else model
        self.covariates, self.num_samples = covariates, num_samples

    def _fit_predict(self, task: fev.Task) -> list[datasets.DatasetDict]:
        found = []
        for window in task.iter_windows():
            past, future, _ = fev.convert_input_data(window, adapter="pandas")
            with self._record_inference_time():
                targets = {
                    name: self._forecast(task, past, future, name) for name in task.target_columns
                }
            found.append(datasets.DatasetDict(targets))
        return found

    def _forecast(
        self, task: fev.Task, past: pd.DataFrame, future: pd.DataFrame, target: str
    ) -> datasets.Dataset:
        keys = [task.id_column, task.timestamp_column]
        known = self._known(task, future) if self.covariates else []
        forecast = self.forecaster.forecast(
            past[[*keys, target, *known]],
            task.horizon,
            num_samples=self.num_samples,
            id_column=task.id_column,
            time_column=task.timestamp_column,
            target_column=target,
            frequency=task.freq,
            future_frame=future[[*keys, *known]] if known else None,
            progress=False,
        )
        # fev wants series in its order, which is that of the table.
        place = {name: position for position, name in enumerate(forecast.ids)}
        rows = [place[name] for name in past[task.id_column].drop_duplicates()]
        # Squared errors are least at means, absolute ones at medians.
        wants_mean = str(
            task.eval_metric if isinstance(task.eval_metric, str) else task.eval_metric["name"]
        )
        point = forecast.mean if wants_mean in MEAN_METRICS else forecast.median
        columns: dict[str, Any] = {"predictions": list(point[rows])}
        for level in task.quantile_levels:
            columns[str(level)] = list(forecast.quantile(level)[rows])
        return datasets.Dataset.from_dict(columns, features=task.predictions_schema)

    def _known(self, task: fev.Task, future: pd.DataFrame) -> list[str]:
        return [
            name
            for name in task.known_dynamic_columns
            if pd.api.types.is_numeric_dtype(future[name])
        ]


MEAN_METRICS = ("MSE", "RMSE", "RMSSE")
