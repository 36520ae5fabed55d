"""Nixtla's ways: `forecast(df, h, level=...)`, `cross_validation`, frames that its tools take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from llamacast.data.frame import read_known_ahead
from llamacast.data.panel import Panel
from llamacast.data.windows import rolling_origins
from llamacast.forecast import DataError, Forecast, level_name
from llamacast.forecaster import PretrainedForecaster, load

PERCENT = 100.0


class NixtlaForecaster:
    """A model behind the calls of statsforecast, neuralforecast and TimeGPT.

    Columns of answers are `unique_id`, `ds`, the model's alias (its median), `ALIAS-lo-80`,
    `ALIAS-hi-80`, `ALIAS-q-10`.
    """

    def __init__(
        self, model: str | PretrainedForecaster = "cria", alias: str | None = None, **options: Any
    ) -> None:
        """
        Args:
            model: a packaged model, the folder of one, or a forecaster.
            alias: name of the column of forecasts; None takes the model's own.
            options: of `forecast`: `nonnegative`, `integer`, `seed`, `num_samples`.
        """
        self.forecaster = load(model) if isinstance(model, str) else model
        self.alias = alias or self.forecaster.name
        self.options = options

    def __repr__(self) -> str:
        return f"NixtlaForecaster({self.alias!r})"

    def forecast(
        self,
        df: pd.DataFrame,
        h: int,
        freq: str | None = None,
        level: Sequence[float] | None = None,
        quantiles: Sequence[float] | None = None,
        X_df: pd.DataFrame | None = None,  # noqa: N803
        id_col: str = "unique_id",
        time_col: str = "ds",
        target_col: str = "y",
    ) -> pd.DataFrame:
        """The `h` steps after each series ends.

        Args:
            df: a long frame.
            h: steps to forecast.
            freq: pandas' name of the step; None infers it.
            level: central intervals, in per cent.
            quantiles: between 0 and 1.
            X_df: covariates of the horizon, with the same ids and times.

        Raises:
            DataError: says what is wrong with the data or the request, and how to mend it.
        """
        found = self.forecaster.forecast(
            df,
            h,
            id_column=id_col,
            time_column=time_col,
            target_column=target_col,
            frequency=freq,
            future_frame=X_df,
            progress=False,
            **self.options,
        )
        return self._frame(found, level, quantiles, id_col, time_col)

    def cross_validation(
        self,
        df: pd.DataFrame,
        h: int,
        n_windows: int = 1,
        step_size: int | None = None,
        freq: str | None = None,
        level: Sequence[float] | None = None,
        quantiles: Sequence[float] | None = None,
        id_col: str = "unique_id",
        time_col: str = "ds",
        target_col: str = "y",
        covariates: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """Forecasts of the last windows of each series from what came before, beside what came.

        `cutoff` is the last step that each forecast knew; `step_size` is the steps between windows,
        None for `h`. `covariates` are columns of `df` that are known ahead, as those of `X_df` are to
        `forecast`.
        """
        panel = read_known_ahead(
            df,
            id_column=id_col,
            time_column=time_col,
            target_column=target_col,
            frequency=freq,
            covariates=covariates,
        )
        origins = rolling_origins(panel, h, n_windows, step_size or h)
        found = self.forecaster.forecast(
            origins.histories(slice(None)), h, progress=False, **self.options
        )
        frame = self._frame(found, level, quantiles, id_col, time_col)
        number = np.repeat(np.arange(len(origins)), h)
        ids, cuts = _origins(panel, origins.series, origins.cuts)
        frame[id_col] = pd.Series(ids).iloc[number].to_numpy()
        frame.insert(2, "cutoff", pd.Index(cuts)[number])
        frame.insert(3, target_col, origins.actuals().ravel())
        return frame.sort_values([id_col, "cutoff", time_col], ignore_index=True)

    def _frame(
        self,
        found: Forecast,
        level: Sequence[float] | None,
        quantiles: Sequence[float] | None,
        id_col: str,
        time_col: str,
    ) -> pd.DataFrame:
        if any(not 0 < one < PERCENT for one in level or ()):
            raise DataError(f"levels are in per cent, between 0 and 100; got {list(level or ())}")
        times = (
            found.index[0].append(list(found.index[1:])) if len(found.index) > 1 else found.index[0]
        )
        columns: dict[str, Any] = {
            id_col: np.repeat(np.asarray(found.ids, dtype=object), found.horizon),
            time_col: times,
            self.alias: found.median.ravel(),
        }
        for one in sorted(level or ()):
            low, high = found.interval(one)
            columns[f"{self.alias}-lo-{level_name(one)}"] = low.ravel()
            columns[f"{self.alias}-hi-{level_name(one)}"] = high.ravel()
        for one in sorted(quantiles or ()):
            columns[f"{self.alias}-q-{PERCENT * one:g}"] = found.quantile(one).ravel()
        frame = pd.DataFrame(columns)
        frame[id_col] = frame[id_col].infer_objects()
        return frame


def _origins(panel: Panel, series: Any, cuts: Any) -> tuple[list[Any], list[Any]]:
    """Name of each window's series, and the last step that it knows."""
    ids = [panel.ids[one] for one in series]
    stamps = [
        panel.axes[one].index(int(cut) - 1, 1)[0] for one, cut in zip(series, cuts, strict=True)
    ]
    return ids, stamps
