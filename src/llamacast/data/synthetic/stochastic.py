"""Stochastic processes: mean reversion with regimes, and the walks of prices."""

from __future__ import annotations

import numpy as np

from llamacast.data.synthetic.axes import Axes
from llamacast.data.synthetic.draws import (
    Integers,
    Rng,
    Rows,
    chance,
    coloured_noise,
    column,
    heavy_noise,
    log_uniform,
    markov_states,
)

MOST_REGIMES = 3


def ornstein_uhlenbeck(rng: Rng, axes: Axes) -> Rows:
    """Mean reversion whose mean, speed and size change with a hidden Markov chain.

    Uhlenbeck and Ornstein, 1930; regimes as in Hamilton, 1989. Up to three regimes.
    """
    num_series, num_steps = axes.shape
    num_regimes = rng.choice(np.arange(1, MOST_REGIMES + 1), size=num_series, p=[0.4, 0.35, 0.25])
    stay = 1 - 1 / (axes.lengths * log_uniform(rng, 0.03, 0.5, num_series))
    regimes = markov_states(rng, stay, num_regimes, num_steps)
    shape = (num_series, MOST_REGIMES)
    means = rng.standard_normal(shape) * column(log_uniform(rng, 0.3, 5, num_series))
    speeds = 1 / log_uniform(rng, 2, 200, shape)
    sizes = log_uniform(rng, 0.2, 1, shape)
    return mean_reversion(rng, regimes, means, speeds, sizes)


def mean_reversion(rng: Rng, regimes: Integers, means: Rows, speeds: Rows, sizes: Rows) -> Rows:
    """The exact transition of an Ornstein-Uhlenbeck process from each step to the next.

    Args:
        regimes: number of the regime at each step, `(series, step)`.
        means: of each regime, `(series, regime)`, as are:
        speeds: of reversion, per step; what is left of a distance after a step is `exp(-speed)`.
        sizes: stationary deviations.
    """
    kept = np.exp(-speeds)
    shocks = sizes * np.sqrt(1 - kept**2)
    rows = np.arange(len(regimes))
    noise = rng.standard_normal(regimes.shape[::-1])
    out = np.empty(regimes.shape)
    first = (rows, regimes[:, 0])
    state = means[first] + sizes[first] * noise[0]
    out[:, 0] = state
    for step in range(1, regimes.shape[1]):
        now = (rows, regimes[:, step])
        state = means[now] + kept[now] * (state - means[now]) + shocks[now] * noise[step]
        out[:, step] = state
    return out


def random_walk(rng: Rng, axes: Axes) -> Rows:
    """Random walks and geometric Brownian motions with stochastic volatility and jumps.

    Black and Scholes, 1973; Taylor's stochastic volatility, 1982; jumps as in Merton, 1976.
    Geometric rows, two thirds, are positive.
    """
    num_series = axes.num_series
    persistence = rng.uniform(0.9, 0.995, num_series)
    unrest = coloured_noise(rng, axes.shape, persistence)
    unrest *= column(rng.uniform(0.2, 0.8, num_series) * chance(rng, 0.7, num_series))
    steps = heavy_noise(rng, axes.shape) * np.exp(unrest)
    jumps = chance(rng, 0.003, axes.shape) & column(chance(rng, 0.4, num_series))
    steps += np.where(jumps, 5 * rng.standard_normal(axes.shape), 0.0)
    # Over all its steps a price changes by some tenths, up to a few times.
    size = log_uniform(rng, 0.05, 1, num_series) / np.sqrt(axes.lengths)
    drift = rng.standard_normal(num_series) * np.sqrt(size**2 / axes.lengths)
    walk = np.cumsum(column(drift) + column(size) * steps, axis=1)
    geometric = np.exp(np.clip(walk, -20, 20))
    return np.where(column(chance(rng, 2 / 3, num_series)), geometric, walk)
