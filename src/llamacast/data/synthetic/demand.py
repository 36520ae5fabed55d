"""Intermittent and count demand."""

from __future__ import annotations

import numpy as np

from llamacast.data.synthetic.axes import Axes, by_kind
from llamacast.data.synthetic.draws import Rng, Rows, chance, column, heavy_noise, log_uniform
from llamacast.data.synthetic.gaussian import smooth_paths
from llamacast.data.synthetic.seasonal import calendar_season


def intermittent(rng: Rng, axes: Axes) -> Rows:
    """Counts, many of them zero: seasonal negative binomial sales, or rare orders of random size.

    Croston, 1972, for orders; Snyder, Ord and Beaumont, 2012, for counts. Whole numbers from 0 on.
    """
    return by_kind(rng, axes, {"counts": _counts, "orders": _orders})


def _rates(rng: Rng, axes: Axes, lowest: float, highest: float) -> Rows:
    """Expected counts at each step: a level for each series, moved by season and by slow drift."""
    season = calendar_season(rng, axes) * column(rng.uniform(0, 0.8, axes.num_series))
    drift = smooth_paths(rng, axes, 0.1, 0.5) * column(rng.uniform(0, 0.5, axes.num_series))
    level = column(log_uniform(rng, lowest, highest, axes.num_series))
    return level * np.exp(np.clip(season + drift, -3, 3))


def _counts(rng: Rng, axes: Axes) -> Rows:
    return negative_binomial(
        rng, _rates(rng, axes, 0.05, 30), log_uniform(rng, 0.3, 30, axes.num_series)
    )


def _orders(rng: Rng, axes: Axes) -> Rows:
    """An order at a step by chance; its size is at least 1."""
    chances = np.minimum(_rates(rng, axes, 0.02, 0.5), 1)
    lumps = np.round(log_uniform(rng, 1, 20, axes.num_series))
    means = np.broadcast_to(column(log_uniform(rng, 0.1, 20, axes.num_series)), axes.shape)
    sizes = 1 + negative_binomial(rng, means, log_uniform(rng, 0.5, 10, axes.num_series))
    # Some goods are sold by the box.
    lumps = np.where(chance(rng, 0.8, axes.num_series), 1.0, lumps)
    return (rng.random(axes.shape) < chances) * sizes * column(lumps)


def noisy_or_counted(
    rng: Rng,
    expected: Rows,
    loudness: tuple[float, float],
    counts: tuple[float, float],
    shapes: tuple[float, float],
) -> Rows:
    """What comes where `expected` does: times noise, or in 0.4 of the rows counts (negative binomial).

    How loud the noise is, how many are counted where 1 is expected, and the counts' shapes are drawn for
    each series between two bounds.
    """
    num_series = len(expected)
    loud = column(log_uniform(rng, *loudness, num_series))
    noisy = expected * np.exp(np.clip(loud * heavy_noise(rng, expected.shape), -3, 3))
    means = column(log_uniform(rng, *counts, num_series)) * expected
    counted = negative_binomial(rng, means, log_uniform(rng, *shapes, num_series))
    return np.where(column(chance(rng, 0.4, num_series)), counted, noisy)


def negative_binomial(rng: Rng, means: Rows, shapes: Rows) -> Rows:
    """Counts with variance `mean + mean^2 / shape`: Poisson with Gamma distributed rates."""
    rates = means * rng.gamma(column(shapes), size=means.shape) / column(shapes)
    return rng.poisson(rates).astype(np.float64)
