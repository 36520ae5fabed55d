"""GluonTS: a predictor and an estimator, for its evaluation and for whoever builds on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
from gluonts.dataset import Dataset
from gluonts.dataset.field_names import FieldName
from gluonts.model.estimator import Estimator
from gluonts.model.forecast import Forecast as GluonForecast
from gluonts.model.forecast import SampleForecast
from gluonts.model.predictor import Predictor

from llamacast.data.calendar import parse_frequency
from llamacast.data.frame import LARGEST_VALUE
from llamacast.data.panel import Columns, Covariates, Panel, TimeAxis
from llamacast.forecast import DataError
from llamacast.forecaster import PretrainedForecaster, load

SERIES_TOGETHER = 256
KNOWN, OF_THE_PAST = FieldName.FEAT_DYNAMIC_REAL, FieldName.PAST_FEAT_DYNAMIC_REAL


class LlamaCastPredictor(Predictor):  # type: ignore[misc]
    """A packaged model, a folder of one, or a forecaster, as GluonTS asks it.

    Works in `make_evaluation_predictions` and `evaluate_model`. Sample paths are joint.
    """

    def __init__(
        self,
        prediction_length: int,
        model: str | PretrainedForecaster = "cria",
        covariates: bool = False,
        **options: Any,
    ) -> None:
        """
        Args:
            prediction_length: steps to forecast.
            model: a packaged model, the folder of one, or a forecaster.
            covariates: look at `feat_dynamic_real` (which must go on for `prediction_length` steps after
                the target) and `past_feat_dynamic_real`.
            options: those of `forecast`: `nonnegative`, `integer`, `seed`, `context_length`.
        """
        super().__init__(prediction_length)
        self.forecaster = load(model) if isinstance(model, str) else model
        self.covariates, self.options = covariates, options

    def predict(
        self, dataset: Dataset, num_samples: int = 100, **kwargs: Any
    ) -> Iterator[GluonForecast]:
        """A `SampleForecast` for each entry, in order; entries are taken some hundreds at a time.

        Raises:
            DataError: for an entry that has no value at all, an infinite or too large one, several
                variates, or too short covariates.
        """
        entries, asked = iter(dataset), 0
        while part := list(islice(entries, SERIES_TOGETHER)):
            found = self.forecaster.forecast(
                panel_of(part, self.covariates, asked),
                self.prediction_length,
                num_samples=num_samples,
                progress=False,
                **self.options,
            )
            asked += len(part)
            for entry, samples in zip(part, found.samples, strict=True):
                yield SampleForecast(
                    samples,  # as they are: float32 ends at 3e38
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
        covariates: bool = False,
        **options: Any,
    ) -> None:
        """
        Args:
            prediction_length: steps that will be forecast.
            model: as for the predictor.
            strategy: of `finetune`.
            covariates: as for the predictor; the network learns to look at them.
            options: those of `finetune`: `steps`, `learning_rate`, `context_length`, ...
        """
        super().__init__()
        self.prediction_length, self.strategy = prediction_length, strategy
        self.covariates, self.options = covariates, options
        self.forecaster = load(model) if isinstance(model, str) else model

    def train(
        self, training_data: Dataset, validation_data: Dataset | None = None
    ) -> LlamaCastPredictor:
        """Learn from the series of `training_data`; the ends of these are held back to judge by."""
        panel = panel_of(training_data, self.covariates)
        tuned = self.forecaster.finetune(
            panel,
            self.prediction_length,
            strategy=self.strategy,  # type: ignore[arg-type]
            progress=False,
            **self.options,
        )
        return LlamaCastPredictor(self.prediction_length, tuned, self.covariates)


def panel_of(entries: Iterable[dict[str, Any]], covariates: bool = False, first: int = 0) -> Panel:
    """GluonTS' entries (`start`, `target`, `item_id`) as a panel, with what is beside them if asked for;
    those without a name are called by their numbers, from `first` on."""
    names, values, axes, beside = [], [], [], []
    for number, entry in enumerate(entries, start=first):
        name = entry.get("item_id", number)
        target = np.asarray(entry["target"], dtype=np.float64)
        if target.ndim != 1:
            raise DataError(
                f"series {name!r} has {target.ndim} dimensions; give each variate alone"
            )
        if not np.isfinite(target).any():
            raise DataError(f"series {name!r} has no value; leave it out")
        _refuse_large(target, name)
        start = entry["start"]
        stamp = np.datetime64(start.to_timestamp(), "ns")
        names.append(str(name))
        values.append(target)
        axes.append(TimeAxis(stamp, parse_frequency(start.freqstr)))
        if covariates:
            beside.append(_beside(entry, str(name), len(target)))
    panel = Panel(names, values, axes, Columns("unique_id", "ds", "y"))
    return replace(panel, covariates=_together(beside, names)) if beside else panel


def _refuse_large(target: np.ndarray, name: Any) -> None:
    large = np.abs(target) > LARGEST_VALUE  # missing values are not
    if large.any():
        step = int(large.argmax())
        raise DataError(
            f"series {name!r}: step {step} holds {target[step]:g}; values may be up to "
            f"{LARGEST_VALUE:g}; correct it, or use a larger unit"
        )


def _beside(entry: dict[str, Any], name: str, length: int) -> dict[str, np.ndarray]:
    """For each kind of features, `(step, feature)`; gaps in the past as the value before them."""
    found = {}
    for field in (KNOWN, OF_THE_PAST):
        rows = np.atleast_2d(np.asarray(entry.get(field, np.empty((0, length))), np.float64)).T
        if len(rows) < length:
            raise DataError(f"series {name!r}: {field} has {len(rows)} steps, the target {length}")
        past = pd.DataFrame(rows[:length]).ffill().bfill().fillna(0.0).to_numpy()
        found[field] = np.concatenate([past, rows[length:]]) if field == KNOWN else past
    return found


def _together(beside: list[dict[str, np.ndarray]], names: list[str]) -> Covariates:
    first = {field: values.shape[1] for field, values in beside[0].items()}
    told = []
    for name, one in zip(names, beside, strict=True):
        for field, count in first.items():
            if one[field].shape[1] != count:
                raise DataError(
                    f"series {name!r}: {field} has {one[field].shape[1]} rows, that of {names[0]!r} "
                    f"{count}; all must have the same"
                )
        known, past = one[KNOWN], one[OF_THE_PAST]
        later = np.full((len(known) - len(past), past.shape[1]), np.nan)
        told.append(np.hstack([known, np.vstack([past, later])]))
    ahead = np.repeat([True, False], list(first.values()))
    labels = tuple(f"{field} {number}" for field, n in first.items() for number in range(n))
    return Covariates(labels, ahead, np.zeros_like(ahead), told)
