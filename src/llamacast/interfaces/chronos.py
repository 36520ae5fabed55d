"""Chronos' and AutoGluon's way: `predict_df`, with their names of columns."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from llamacast.forecaster import PretrainedForecaster


def predict_df(
    forecaster: PretrainedForecaster,
    df: pd.DataFrame,
    future_df: pd.DataFrame | None = None,
    *,
    prediction_length: int,
    quantile_levels: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    id_column: str = "item_id",
    timestamp_column: str = "timestamp",
    target: str = "target",
    seed: int = 0,
) -> pd.DataFrame:
    """Forecast a long frame as `Chronos2Pipeline.predict_df` does.

    Args:
        future_df: covariates that are known for the horizon, with the same ids and times.
        prediction_length: steps to forecast.

    Returns:
        A row for each series and step: `id_column`, `timestamp_column`, `target_name`, `predictions`
        (the median), and a column for each quantile, "0.1" and so on.

    Raises:
        DataError: says what is wrong with the data or the request, and how to mend it.
    """
    found = forecaster.forecast(
        df,
        prediction_length,
        seed=seed,
        id_column=id_column,
        time_column=timestamp_column,
        target_column=target,
        future_frame=future_df,
        progress=False,
    )
    frame = found.to_frame(quantiles=quantile_levels).drop(columns="mean")
    frame.insert(2, "target_name", target)
    frame.insert(3, "predictions", found.median.ravel())
    return frame
