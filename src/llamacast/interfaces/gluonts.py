"""GluonTS: a predictor and an estimator, for its evaluation and for whoever builds on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from gluonts.dataset import Dataset
from gluonts.model.estimator import Estimator
from gluonts.model.forecast import Forecast as GluonForecast
from gluonts.model.forecast import SampleForecast
from gluonts.model.predictor import Predictor

from llamacast.data.calendar import parse_frequency
from llamacast.data.panel import Columns, Panel, TimeAxis
from llamacast.forecast import DataError
from llamacast.forecaster import PretrainedForecaster, load

SERIES_TOGETHER = 256


class LlamaCastPredictor(Predictor):  # type: ignore[misc]
    """A packaged model, a folder of one, or a forecaster, as GluonTS asks it.

    Works in `make_evaluation_predictions` and `evaluate_model`. Sample paths are joint.
    """

    def __init__(
        self,
        prediction_length: int,
        model: str | PretrainedForecaster = "cria",
        **options: Any,
    ) -> None:
        """`options` are those of `forecast`: `nonnegative`, `integer`, `seed`, `context_length`."""
        super().__init__(prediction_length)
        self.forecaster = load(model) if isinstance(model, str) else model
        self.options = options

    def predict(
        self, dataset: Dataset, num_samples: int = 100, **kwargs: Any
    ) -> Iterator[GluonForecast]:
        """A `SampleForecast` for each entry, in order; entries are taken some hundreds at a time.

        Raises:
            DataError: for an entry that has no value at all, or several variates.
        """
        entries = iter(dataset)
        while part := list(islice(entries, SERIES_TOGETHER)):
            found = self.forecaster.forecast(
                panel_of(part),
                self.prediction_length,
                num_samples=num_samples,
                progress=False,
                **self.options,
            )
            for entry, samples in zip(part, found.samples, strict=True):
                yield SampleForecast(
                    samples.astype(np.float32),
                    start_date=entry["start"] + len(entry["target"]),
                    item_id=entry.get("item_id"),
                    info=entry.get("info"),
                )


class LlamaCastEstimator(Estimator):  # type: ignore[misc]
    """Fine-tunes a model on a data set; what comes out is never worse on windows held back."""

    def __init__(
        self,
        prediction_length: int,
        model: str | PretrainedForecaster = "cria",
        strategy: str = "full",
        **options: Any,
    ) -> None:
        """`options` are those of `finetune`: `steps`, `learning_rate`, `context_length`, ..."""
        super().__init__()
        self.prediction_length, self.strategy, self.options = prediction_length, strategy, options
        self.forecaster = load(model) if isinstance(model, str) else model

    def train(
        self, training_data: Dataset, validation_data: Dataset | None = None
    ) -> LlamaCastPredictor:
        """Learn from the series of `training_data`; the ends of these are held back to judge by."""
        panel = panel_of(list(training_data))
        tuned = self.forecaster.finetune(
            panel,
            self.prediction_length,
            strategy=self.strategy,  # type: ignore[arg-type]
            progress=False,
            **self.options,
        )
        return LlamaCastPredictor(self.prediction_length, tuned)


def panel_of(entries: Iterable[dict[str, Any]]) -> Panel:
    """GluonTS' entries (`start`, `target`, `item_id`) as a panel."""
    names, values, axes = [], [], []
    for number, entry in enumerate(entries):
        name = entry.get("item_id", number)
        target = np.asarray(entry["target"], dtype=np.float64)
        if target.ndim != 1:
            raise DataError(
                f"series {name!r} has {target.ndim} dimensions; give each variate alone"
            )
        if not np.isfinite(target).any():
            raise DataError(f"series {name!r} has no value; leave it out")
        start = entry["start"]
        stamp = np.datetime64(start.to_timestamp(), "ns")
        names.append(str(name))
        values.append(target)
        axes.append(TimeAxis(stamp, parse_frequency(start.freqstr)))
    return Panel(names, values, axes, Columns("unique_id", "ds", "y"))
