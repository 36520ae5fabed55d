"""Scores of forecasts. Missing actuals (NaN) do not count; lower is better, but for coverage.

Axes: `actuals` and point forecasts are `(window, horizon)`, quantiles `(window, horizon, level)`,
samples `(window, sample, horizon)`; a window's yardsticks are `(window,)`. What divides by nothing
(no actual, all zeros) is NaN. Where a name is GluonTS' too, so is the definition (`gluonts.ev` with
masked labels), since published tables use them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

DECILES = tuple(level / 10 for level in range(1, 10))

# --- Whole distributions -------------------------------------------------------------------------


def quantile_loss(actuals: Floats, quantiles: Floats, levels: Sequence[float]) -> Floats:
    """Twice the pinball loss at each point and level; NaN where the actual is missing.

    `quantiles` is `actuals.shape + (level,)`; so is the result.
    """
    error = actuals[..., None] - quantiles
    level = np.asarray(levels)
    return 2.0 * np.maximum(level * error, (level - 1.0) * error)


def weighted_quantile_loss(
    actuals: Floats, quantiles: Floats, levels: Sequence[float] = DECILES
) -> Floats:
    """Sum of quantile losses over the sum of absolute actuals, shape `(level,)`.

    GluonTS' `weighted_sum_quantile_loss`.
    """
    losses = quantile_loss(actuals, quantiles, levels).reshape(-1, len(levels))
    return _ratio(np.nansum(losses, axis=0), np.nansum(np.abs(actuals)))


def mean_weighted_quantile_loss(
    actuals: Floats, quantiles: Floats, levels: Sequence[float] = DECILES
) -> float:
    """`weighted_quantile_loss`, averaged over levels.

    With the nine deciles this is what published tables call CRPS (GluonTS'
    `mean_weighted_sum_quantile_loss`).
    """
    return float(np.mean(weighted_quantile_loss(actuals, quantiles, levels)))


def mean_quantile_loss(
    actuals: Floats, quantiles: Floats, levels: Sequence[float] = DECILES
) -> float:
    """Mean over points and levels, in data units; twice the pinball loss."""
    return observed_mean(quantile_loss(actuals, quantiles, levels))


def continuous_ranked_probability_score(
    actuals: Floats, samples: Floats, unbiased: bool = True
) -> Floats:
    """CRPS of each point from samples of its forecast, in data units, shape `(window, horizon)`.

    E|X - y| - E|X - X'| / 2 (Gneiting and Raftery 2007). `unbiased` estimates the second term
    from pairs of different samples, for independent draws (the "fair" CRPS; it may fall below 0);
    otherwise from all pairs, which is the score of the samples themselves as a distribution.
    """
    num_samples = samples.shape[1]
    distance = np.abs(samples - actuals[:, None]).mean(axis=1)
    ordered = np.sort(samples, axis=1)
    # Sum over all pairs i < j of x_j - x_i: each sample counts as often as it stands above others.
    above = 2.0 * np.arange(num_samples) - (num_samples - 1)
    pairs = np.einsum("m,wmh->wh", above, ordered)
    num_pairs = num_samples * ((num_samples - 1) if unbiased else num_samples)
    return distance - pairs / max(num_pairs, 1)


def energy_score(actuals: Floats, samples: Floats, unbiased: bool = True) -> Floats:
    """CRPS of whole paths: Euclidean distances in place of absolute ones; shape `(window,)`.

    Judges how steps hang together, so samples must be joint paths. Steps without an actual are
    left out of all distances; NaN where there is no actual at all. `unbiased` as for the CRPS.
    """
    seen = np.isfinite(actuals)
    known = np.where(seen, actuals, 0.0)
    paths = np.where(seen[:, None], samples, 0.0)
    distance = np.linalg.norm(paths - known[:, None], axis=2).mean(axis=1)
    num_samples = samples.shape[1]
    num_pairs = num_samples * ((num_samples - 1) if unbiased else num_samples)
    # One path at a time against all: memory stays that of the samples.
    pairs = sum(
        np.linalg.norm(paths - paths[:, one, None], axis=2).sum(axis=1)
        for one in range(num_samples)
    )
    return np.where(seen.any(axis=1), distance - pairs / (2 * max(num_pairs, 1)), np.nan)


# --- Points --------------------------------------------------------------------------------------


def mean_absolute_error(actuals: Floats, points: Floats) -> float:
    """In data units; the median minimises it."""
    return observed_mean(np.abs(actuals - points))


def mean_squared_error(actuals: Floats, points: Floats) -> float:
    """In squared data units; the mean minimises it."""
    return observed_mean(np.square(actuals - points))


def root_mean_squared_error(actuals: Floats, points: Floats) -> float:
    """In data units."""
    return float(np.sqrt(mean_squared_error(actuals, points)))


def running_root_mean_squared_error(actuals: Floats, points: Floats) -> Floats:
    """RMSE of the first 1, 2, ... steps of all windows, shape `(horizon,)`."""
    squares = np.square(actuals - points)
    counts = np.cumsum(np.isfinite(squares).sum(axis=0))
    return np.sqrt(_ratio(np.cumsum(np.nansum(squares, axis=0)), counts))


def normalised_deviation(actuals: Floats, points: Floats) -> float:
    """ND: sum of absolute errors over the sum of absolute actuals."""
    errors = np.abs(actuals - points)
    return float(_ratio(np.nansum(errors), np.nansum(np.abs(actuals))))


def mean_absolute_percentage_error(actuals: Floats, points: Floats) -> float:
    """MAPE as a fraction. Actuals of zero, which it cannot divide by, do not count.

    It explodes near zero and favours forecasts that are too low: prefer MASE or ND.
    """
    return observed_mean(_ratio(np.abs(actuals - points), np.abs(actuals)))


def symmetric_mean_absolute_percentage_error(actuals: Floats, points: Floats) -> float:
    """sMAPE as a fraction of 0 to 2; points where actual and forecast are both zero do not count."""
    return observed_mean(_ratio(2.0 * np.abs(actuals - points), np.abs(actuals) + np.abs(points)))


# --- Points on the scale of each history ---------------------------------------------------------


def seasonal_error(history: Floats, season: int, power: int = 1) -> float:
    """Mean absolute (or, with `power` 2, squared) step over one season of a history.

    NaN if it has no such step that is observed. A history shorter than the season is measured step
    by step, as GluonTS does.
    """
    season = season if season <= len(history) else 1
    steps = np.abs(history[season:] - history[:-season])
    steps = steps[np.isfinite(steps)]
    return float((steps**power).mean()) if len(steps) else float("nan")


def mean_absolute_scaled_error(actuals: Floats, points: Floats, seasonal_errors: Floats) -> float:
    """MASE: mean of absolute errors, each over its window's seasonal error (Hyndman, Koehler 2006).

    Windows whose seasonal error is zero or missing do not count.
    """
    return observed_mean(_ratio(np.abs(actuals - points), seasonal_errors[:, None]))


def root_mean_squared_scaled_error(
    actuals: Floats, points: Floats, squared_seasonal_errors: Floats
) -> float:
    """RMSSE of each window, averaged (the M5 competition's, with any season).

    Root of the mean squared error over the mean squared seasonal step of the window's history.
    """
    squares = np.square(actuals - points)
    counts = np.isfinite(squares).sum(axis=1)
    window_means = _ratio(np.nansum(squares, axis=1), counts)
    return observed_mean(np.sqrt(_ratio(window_means, squared_seasonal_errors)))


# --- Intervals and calibration -------------------------------------------------------------------


def mean_scaled_interval_score(
    actuals: Floats,
    low: Floats,
    high: Floats,
    seasonal_errors: Floats,
    outside_share: float = 0.05,
) -> float:
    """MSIS: width of the interval, plus 2 / `outside_share` times what actuals fall outside by,
    over the window's seasonal error (Gneiting and Raftery 2007; M4 competition)."""
    missed = np.maximum(low - actuals, 0.0) + np.maximum(actuals - high, 0.0)
    return observed_mean(
        _ratio(high - low + 2.0 / outside_share * missed, seasonal_errors[:, None])
    )


def interval_coverage(actuals: Floats, low: Floats, high: Floats) -> float:
    """Share of actuals that lie within their interval, ends included."""
    inside = ((actuals >= low) & (actuals <= high)).astype(np.float64)
    return observed_mean(np.where(np.isfinite(actuals), inside, np.nan))


def probability_integral_transform(
    actuals: Floats, samples: Floats, rng: np.random.Generator
) -> Floats:
    """Where each actual falls among its samples, from 0 to 1; shape `(window, horizon)`.

    Even if forecasts are calibrated. Ranks are spread within their step, and ties broken, at
    random (Czado, Gneiting and Held 2009), so that counts and few samples stay even too.
    """
    below = (samples < actuals[:, None]).sum(axis=1)
    ties = (samples == actuals[:, None]).sum(axis=1)
    transform = (below + rng.random(actuals.shape) * (ties + 1)) / (samples.shape[1] + 1)
    return np.where(np.isfinite(actuals), transform, np.nan)


def pit_histogram(transform: Floats, num_bins: int = 10) -> Floats:
    """Share of a probability integral transform in each of evenly wide bins, shape `(bin,)`.

    Calibrated forecasts have 1 / `num_bins` in each; a hump in the middle means intervals too wide,
    a valley too narrow, a slope a bias.
    """
    counts, _ = np.histogram(transform[np.isfinite(transform)], num_bins, (0.0, 1.0))
    return _ratio(counts, counts.sum())


def observed_mean(values: Floats) -> float:
    """Mean of what is not NaN; NaN where all is."""
    counted = values[np.isfinite(values)]
    return float(counted.mean()) if counted.size else float("nan")


def _ratio(above: npt.ArrayLike, below: npt.ArrayLike) -> Floats:
    """NaN where there is nothing to divide by."""
    above, below = np.broadcast_arrays(
        np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    )
    ratio = np.full(above.shape, np.nan)
    np.divide(above, below, out=ratio, where=np.isfinite(below) & (below > 0))
    return ratio
