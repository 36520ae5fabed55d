"""sktime's `BaseForecaster`: in pipelines, evaluation and tuning of that library."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sktime.forecasting.base import BaseForecaster, ForecastingHorizon

from llamacast.forecast import Forecast
from llamacast.forecaster import load_once

FEWEST_FOR_A_CALENDAR = 3
"""Values; of fewer, steps cannot be told, and do not matter."""


class LlamaCastForecaster(BaseForecaster):  # type: ignore[misc]
    """A pretrained model; `fit` takes the history and trains nothing.

    Several series or variables are forecast one by one, as sktime hands them over. Exogenous data are
    what covariates are: used where they have helped on the last windows of the history.

    Args:
        model: a packaged model, or the folder of one.
        nonnegative: nothing falls below 0, or some may; None: nothing where 0 was met often
            and never passed.
        integer: all values are whole numbers, or need not be; None: those of counts.
        num_samples: paths that quantiles are taken from.
        seed: same seed, same forecast.

    Examples
    --------
    >>> from sktime.datasets import load_airline
    >>> from llamacast.interfaces.sktime import LlamaCastForecaster
    >>> forecaster = LlamaCastForecaster().fit(load_airline())
    >>> forecaster.predict(fh=[1, 2, 3]).shape
    (3,)
    >>> forecaster.predict_interval(fh=[1, 2, 3], coverage=0.8).shape
    (3, 2)
    """

    _tags = {  # noqa: RUF012 (sktime's own way)
        "authors": ["llamacast"],
        "maintainers": ["llamacast"],
        "python_dependencies": ["llamacast"],
        "y_inner_mtype": "pd.Series",
        "X_inner_mtype": "pd.DataFrame",
        "capability:exogenous": True,
        "capability:insample": False,
        "capability:missing_values": True,
        "capability:multivariate": False,
        "capability:pred_int": True,
        "capability:pred_int:insample": False,
        "capability:update": True,
        "capability:random_state": False,
        "requires-fh-in-fit": False,
        "enforce_index_type": None,
    }

    def __init__(
        self,
        model: str = "cria",
        nonnegative: bool | None = None,
        integer: bool | None = None,
        num_samples: int = 100,
        seed: int = 0,
    ) -> None:
        self.model = model
        self.nonnegative = nonnegative
        self.integer = integer
        self.num_samples = num_samples
        self.seed = seed
        super().__init__()

    def _fit(self, y: pd.Series[Any], X: Any, fh: Any) -> LlamaCastForecaster:  # noqa: N803
        load_once(self.model)
        self.history_, self.beside_ = y, X
        return self

    def _update(
        self,
        y: pd.Series[Any],
        X: Any = None,  # noqa: N803
        update_params: bool = True,
    ) -> LlamaCastForecaster:
        self.history_ = y.combine_first(self.history_)
        if X is not None and self.beside_ is not None:
            self.beside_ = X.combine_first(self.beside_)
        return self

    def _predict(self, fh: Any, X: Any) -> pd.Series[Any]:  # noqa: N803
        values = self._forecast(fh, X).median[0, self._steps(fh) - 1]
        index = fh.to_absolute_index(self.cutoff)
        return pd.Series(values, index=index, name=self.history_.name)

    def _predict_quantiles(self, fh: Any, X: Any, alpha: list[float]) -> pd.DataFrame:  # noqa: N803
        values = self._forecast(fh, X).quantile(alpha)[0, self._steps(fh) - 1]
        names = pd.MultiIndex.from_product([self._get_varnames(), alpha])
        return pd.DataFrame(values, index=fh.to_absolute_index(self.cutoff), columns=names)

    def _steps(self, fh: Any) -> np.ndarray:
        return fh.to_relative(self.cutoff).to_numpy().astype(int)

    def _forecast(self, fh: Any, beside: pd.DataFrame | None) -> Forecast:
        horizon = int(self._steps(fh).max())
        y = _in_steps(self.history_)
        frame = pd.DataFrame({"y": y.to_numpy(dtype=np.float64)})
        future = frequency = None
        if len(y) >= FEWEST_FOR_A_CALENDAR:
            frame.insert(0, "ds", _stamps(y.index))
            # sktime counts the horizon in the index's own steps.
            frequency = getattr(y.index, "freqstr", None)
            if self.beside_ is not None:
                frame = frame.join(_numbered(self.beside_.reindex(y.index)))
                future = self._ahead(fh, horizon, beside)
        return load_once(self.model).forecast(
            frame,
            horizon,
            num_samples=self.num_samples,
            nonnegative=self.nonnegative,
            integer=self.integer,
            seed=self.seed,
            target_column="y",
            frequency=frequency,
            future_frame=future,
            progress=False,
        )

    def _ahead(self, fh: Any, horizon: int, beside: pd.DataFrame | None) -> pd.DataFrame:
        """Exogenous data of all steps up to the last that is asked for, of which sktime wants those that
        are asked for; between these the ones before go on."""
        asked = fh.to_absolute_index(self.cutoff)
        if beside is None or not asked.isin(beside.index).all():
            raise ValueError("fit was given X; give predict that of the steps it is to forecast")
        steps = ForecastingHorizon(np.arange(1, horizon + 1), is_relative=True)
        index = steps.to_absolute_index(self.cutoff)
        told = _numbered(beside.reindex(index).ffill().bfill())
        told.insert(0, "ds", _stamps(index))
        return told

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """For sktime's own checks."""
        return [
            {"num_samples": 5, "seed": 1},
            {"num_samples": 3, "nonnegative": True, "integer": True},
        ]


def _in_steps(y: pd.Series[Any]) -> pd.Series[Any]:
    """Whole numbers one by one, as sktime counts them; those that are not there are missing."""
    if not pd.api.types.is_integer_dtype(y.index.dtype):
        return y
    return y.reindex(pd.RangeIndex(int(y.index.min()), int(y.index.max()) + 1))


def _stamps(index: pd.Index[Any]) -> pd.Index[Any]:
    return index.to_timestamp() if isinstance(index, pd.PeriodIndex) else index


def _numbered(beside: pd.DataFrame) -> pd.DataFrame:
    """Under names of our own: theirs may be numbers, or those of other columns."""
    names = [f"x{number}" for number in range(beside.shape[1])]
    return beside.set_axis(names, axis=1).reset_index(drop=True)
