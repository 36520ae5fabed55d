"""Scores of forecasts, as GluonTS and GIFT-Eval define them. Missing actuals (NaN) do not count."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

DECILES = tuple(level / 10 for level in range(1, 10))


def quantile_loss(actuals: Floats, quantiles: Floats, levels: Sequence[float]) -> Floats:
    """Twice the pinball loss at each point and level; NaN where the actual is missing.

    `quantiles` is `actuals.shape + (level,)`; so is the result.
    """
    error = actuals[..., None] - quantiles
    level = np.asarray(levels)
    return 2.0 * np.maximum(level * error, (level - 1.0) * error)


def mean_weighted_quantile_loss(
    actuals: Floats, quantiles: Floats, levels: Sequence[float] = DECILES
) -> float:
    """Sum of quantile losses over the sum of absolute actuals, averaged over levels.

    With the nine deciles this is what published tables call CRPS (GluonTS'
    `mean_weighted_sum_quantile_loss`). NaN if all actuals are zero or missing.
    """
    total = np.nansum(np.abs(actuals))
    losses = np.nansum(quantile_loss(actuals, quantiles, levels).reshape(-1, len(levels)), axis=0)
    return float(np.mean(losses / total)) if total > 0 else float("nan")


def seasonal_error(history: Floats, season: int) -> float:
    """Mean absolute step over one season of a history; NaN if it has none that is observed.

    A history no longer than the season is measured step by step, as GluonTS does.
    """
    season = season if season < len(history) else 1
    steps = np.abs(history[season:] - history[:-season])
    steps = steps[np.isfinite(steps)]
    return float(steps.mean()) if len(steps) else float("nan")


def mean_absolute_scaled_error(actuals: Floats, points: Floats, seasonal_errors: Floats) -> float:
    """Mean of absolute errors, each over its series' seasonal error (Hyndman and Koehler 2006).

    `actuals` and `points` are `(series, horizon)`, `seasonal_errors` is `(series,)`. Series whose
    seasonal error is zero or missing do not count.
    """
    counts = np.isfinite(seasonal_errors) & (seasonal_errors > 0)
    scaled = np.abs(actuals - points)[counts] / seasonal_errors[counts, None]
    return float(np.nanmean(scaled)) if np.isfinite(scaled).any() else float("nan")
