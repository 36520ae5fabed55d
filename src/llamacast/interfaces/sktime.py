"""sktime's `BaseForecaster`: in pipelines, evaluation and tuning of that library."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from sktime.forecasting.base import BaseForecaster

from llamacast.forecast import Forecast
from llamacast.forecaster import load

_loaded = lru_cache(maxsize=4)(load)
"""Once for all copies of an estimator, of which sktime makes many."""

FEWEST_FOR_A_CALENDAR = 3
"""Values; of fewer, steps cannot be told, and do not matter."""


class LlamaCastForecaster(BaseForecaster):  # type: ignore[misc]
    """A pretrained model; `fit` takes the history and trains nothing.

    Several series or variables are forecast one by one, as sktime hands them over. Exogenous data are
    not looked at.

    Args:
        model: a packaged model, or the folder of one.
        nonnegative: nothing falls below 0.
        integer: all values are whole numbers.
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
        "capability:exogenous": False,
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
        nonnegative: bool = False,
        integer: bool = False,
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
        _loaded(self.model)
        self.history_ = y
        return self

    def _update(
        self,
        y: pd.Series[Any],
        X: Any = None,  # noqa: N803
        update_params: bool = True,
    ) -> LlamaCastForecaster:
        self.history_ = y.combine_first(self.history_)
        return self

    def _predict(self, fh: Any, X: Any) -> pd.Series[Any]:  # noqa: N803
        steps = self._steps(fh)
        values = self._forecast(int(steps.max())).median[0, steps - 1]
        index = fh.to_absolute_index(self.cutoff)
        return pd.Series(values, index=index, name=self.history_.name)

    def _predict_quantiles(self, fh: Any, X: Any, alpha: list[float]) -> pd.DataFrame:  # noqa: N803
        steps = self._steps(fh)
        values = self._forecast(int(steps.max())).quantile(alpha)[0, steps - 1]
        names = pd.MultiIndex.from_product([self._get_varnames(), alpha])
        return pd.DataFrame(values, index=fh.to_absolute_index(self.cutoff), columns=names)

    def _steps(self, fh: Any) -> np.ndarray:
        return fh.to_relative(self.cutoff).to_numpy().astype(int)

    def _forecast(self, horizon: int) -> Forecast:
        y = self.history_
        frame = pd.DataFrame({"y": y.to_numpy(dtype=np.float64)})
        if len(y) >= FEWEST_FOR_A_CALENDAR:
            times = y.index.to_timestamp() if isinstance(y.index, pd.PeriodIndex) else y.index
            frame.insert(0, "ds", times)
        return _loaded(self.model).forecast(
            frame,
            horizon,
            num_samples=self.num_samples,
            nonnegative=self.nonnegative,
            integer=self.integer,
            seed=self.seed,
            target_column="y",
            progress=False,
        )

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """For sktime's own checks."""
        return [{"num_samples": 10}, {"num_samples": 5, "nonnegative": True, "seed": 1}]
