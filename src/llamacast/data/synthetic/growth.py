"""Growth: by factors, towards a limit, and in waves."""

from __future__ import annotations

import numpy as np

from llamacast.data.synthetic.axes import Axes, by_kind
from llamacast.data.synthetic.draws import Rng, Rows, chance, coloured_noise, column, log_uniform
from llamacast.data.synthetic.seasonal import calendar_season

NUM_WAVES = 6


def growth(rng: Rng, axes: Axes) -> Rows:
    """Exponential growth, logistic and Gompertz curves, and epidemic waves; positive.

    Verhulst, 1838; Gompertz, 1825; Bass, 1969, for adoption; Kermack and McKendrick, 1927, whose
    epidemics are nearly squared hyperbolic secants. Noise, and in half of the rows a season,
    multiplies them.
    """
    kinds = {
        "exponential": _exponential,
        "logistic": _logistic,
        "gompertz": _gompertz,
        "waves": _waves,
    }
    curve = by_kind(rng, axes, kinds)
    noise = coloured_noise(rng, axes.shape, rng.uniform(0, 0.95, axes.num_series))
    season = calendar_season(rng, axes) * column(chance(rng, 0.5, axes.num_series))
    loudness, strength = log_uniform(rng, 0.005, 0.2, (2, axes.num_series, 1))
    return curve * np.exp(loudness * noise + strength * season)


def _exponential(rng: Rng, axes: Axes) -> Rows:
    """A rate of growth that changes once; between a tenth and fifty times from start to end."""
    change = rng.uniform(0.2, 0.8, (axes.num_series, 1))
    rates = rng.uniform(-1.2, 2, (2, axes.num_series, 1))
    return np.exp(
        rates[0] * np.minimum(axes.progress, change)
        + rates[1] * np.maximum(axes.progress - change, 0)
    )


def _logistic(rng: Rng, axes: Axes) -> Rows:
    """One or two turns from one level to the next, up or down."""
    falls = column(chance(rng, 0.25, axes.num_series))
    time = np.where(falls, 1 - axes.progress, axes.progress)
    out = rng.uniform(0.02, 0.3, (axes.num_series, 1)) * np.ones(axes.shape)
    for share in (1.0, 0.3):
        height = share * rng.uniform(0.3, 1, (axes.num_series, 1))
        steepness, middle = (
            log_uniform(rng, 6, 60, (axes.num_series, 1)),
            rng.random((axes.num_series, 1)),
        )
        out = out + height / (1 + np.exp(np.clip(steepness * (middle - time), -50, 50)))
    return out


def _gompertz(rng: Rng, axes: Axes) -> Rows:
    """Adoption: quick at first, long in coming to an end."""
    rate, delay = (
        log_uniform(rng, 3, 20, (axes.num_series, 1)),
        rng.uniform(0, 0.6, (axes.num_series, 1)),
    )
    return 0.02 + np.exp(-np.exp(np.clip(rate * (delay - axes.progress), -50, 10)))


def _waves(rng: Rng, axes: Axes) -> Rows:
    """Epidemic waves, rising faster than they fall, over a low ground."""
    out = np.full(axes.shape, 0.01) * log_uniform(rng, 0.1, 10, (axes.num_series, 1))
    for number in range(NUM_WAVES):
        height = rng.gamma(1.0, size=axes.num_series) * chance(rng, 0.6, axes.num_series)
        height = np.where(number == 0, 1.0, height)
        rise = log_uniform(rng, 0.005, 0.06, (axes.num_series, 1))
        distance = axes.progress - rng.random((axes.num_series, 1))
        distance /= np.where(distance < 0, rise, rise * rng.uniform(1, 3, (axes.num_series, 1)))
        out = out + column(height) / np.cosh(np.clip(distance, -50, 50)) ** 2
    return out
