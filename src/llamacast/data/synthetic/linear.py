"""Linear processes: ARIMA and exponential smoothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llamacast.data.synthetic.axes import Axes
from llamacast.data.synthetic.draws import (
    Flags,
    Integers,
    Rng,
    Rows,
    chance,
    column,
    heavy_noise,
    log_uniform,
    standardise,
)
from llamacast.data.synthetic.seasonal import whole_seasons

MOST_LAGS = 4
BURN_IN = 300


def arima(rng: Rng, axes: Axes) -> Rows:
    """Random stationary ARMA processes, integrated up to twice, some with a seasonal lag.

    Box and Jenkins, Time Series Analysis, 1970. Coefficients come from random partial
    autocorrelations (Monahan, 1984), so that every process is stationary and invertible.
    """
    num_series, num_steps = axes.shape
    shocks = heavy_noise(rng, (num_series, num_steps + BURN_IN))
    moving = moving_average(shocks, -_random_coefficients(rng, num_series))
    values = autoregression(moving, _random_coefficients(rng, num_series))
    seasons = whole_seasons(rng, axes)
    strength = np.where(chance(rng, 0.5, num_series), rng.uniform(0.3, 0.95, num_series), 0.0)
    values = seasonal_autoregression(values, seasons, np.where(seasons > 1, strength, 0.0))
    values = standardise(values[:, BURN_IN:], axes.lengths)
    order = column(rng.choice(3, size=num_series, p=[0.5, 0.4, 0.1]))
    once = np.cumsum(values, axis=1)
    return np.select([order == 0, order == 1], [values, once], np.cumsum(once, axis=1))


def _random_coefficients(rng: Rng, num_series: int) -> Rows:
    """Coefficients of stationary autoregressions of order 0 to 4, `(series, lag)`."""
    partial = rng.uniform(-1, 1, (num_series, MOST_LAGS))
    # Real series seldom turn round at each step.
    partial[:, 0] = rng.uniform(-0.5, 0.99, num_series)
    order = rng.integers(MOST_LAGS + 1, size=(num_series, 1))
    return from_partial(np.where(np.arange(MOST_LAGS) < order, partial, 0.0))


def from_partial(partial: Rows) -> Rows:
    """Coefficients of the autoregressions with given partial autocorrelations (Durbin, Levinson)."""
    coefficients = np.zeros_like(partial)
    for lag in range(partial.shape[1]):
        last = partial[:, lag : lag + 1]
        earlier = coefficients[:, :lag]
        coefficients[:, :lag] = earlier - last * earlier[:, ::-1]
        coefficients[:, lag] = partial[:, lag]
    return coefficients


def autoregression(shocks: Rows, coefficients: Rows) -> Rows:
    """`y[t] = sum over k of coefficients[k] * y[t - 1 - k] + shocks[t]`, from zeros."""
    lags = coefficients.shape[1]
    out = np.zeros((len(shocks), lags + shocks.shape[1]))
    backwards = coefficients[:, ::-1]
    for step in range(shocks.shape[1]):
        past = out[:, step : step + lags]
        out[:, step + lags] = np.einsum("sl,sl->s", backwards, past) + shocks[:, step]
    return out[:, lags:]


def moving_average(shocks: Rows, coefficients: Rows) -> Rows:
    """`shocks[t] + sum over k of coefficients[k] * shocks[t - 1 - k]`."""
    out = shocks.copy()
    for lag in range(1, coefficients.shape[1] + 1):
        out[:, lag:] += coefficients[:, lag - 1 : lag] * shocks[:, :-lag]
    return out


def seasonal_autoregression(shocks: Rows, seasons: Integers, strength: Rows) -> Rows:
    """`y[t] = strength * y[t - season] + shocks[t]`, with a season for each row."""
    out = shocks.copy()
    for row in np.flatnonzero(strength):
        season = int(seasons[row])
        for first in range(season, shocks.shape[1], season):
            part = out[row, first : first + season]
            part += strength[row] * out[row, first - season : first - season + len(part)]
    return out


@dataclass
class _Smoothing:
    """Parameters and states of exponential smoothing, each `(series,)`."""

    seasons: Integers
    season: Rows
    """The seasonal states, `(series, longest season)`."""
    multiplied: Flags
    """Whether error and season multiply the level; they are added otherwise."""
    noise: Rows
    gains: Rows
    """Of level, trend and season, `(3, series)`."""
    damping: Rows
    level: Rows
    trend: Rows

    def step(self, number: int, shocks: Rows) -> Rows:
        """The next value of each series, after which states learn from its error."""
        place = (np.arange(len(self.level)), number % self.seasons)
        season = self.season[place]
        expected = self.level + self.damping * self.trend
        factor = np.where(self.multiplied, season, 1.0)
        forecast = expected * factor + np.where(self.multiplied, 0.0, season)
        error = self.noise * shocks * np.where(self.multiplied, forecast, 1.0)
        self.level = expected + self.gains[0] * error / factor
        self.trend = self.damping * self.trend + self.gains[1] * error / factor
        learnt = season + self.gains[2] * error / np.where(self.multiplied, expected, 1.0)
        self.season[place] = np.where(self.multiplied, np.clip(learnt, 0.05, 5), learnt)
        # A multiplied level that came near zero would never come back.
        fallen = self.multiplied & (self.level < 0.1)
        self.level = np.where(self.multiplied, np.clip(self.level, 0.1, 50), self.level)
        self.trend = np.where(fallen, np.abs(self.trend), self.trend)
        return forecast + error


def ets(rng: Rng, axes: Axes) -> Rows:
    """Exponential smoothing run forward: error and season added or multiplied, trend damped or not.

    Hyndman, Koehler, Ord and Snyder, Forecasting with Exponential Smoothing, 2008. Multiplied rows
    have small errors and damped trends, and stay positive.
    """
    state = _draw_smoothing(rng, axes)
    shocks = np.clip(rng.standard_normal(axes.shape[::-1]), -3, 3)
    return np.stack([state.step(number, few) for number, few in enumerate(shocks)], axis=1)


def _draw_smoothing(rng: Rng, axes: Axes) -> _Smoothing:
    num_series = axes.num_series
    seasons = whole_seasons(rng, axes)
    season = rng.standard_normal((num_series, int(seasons.max())))
    season *= column(log_uniform(rng, 0.1, 1, num_series) * (seasons > 1))
    multiplied = chance(rng, 0.4, num_series)
    alpha = rng.beta(1, 3, num_series)
    beta = alpha * rng.uniform(0, 0.15, num_series) * chance(rng, 0.6, num_series)
    gamma = (1 - alpha) * rng.uniform(0, 0.3, num_series)
    damping = np.where(
        multiplied | chance(rng, 0.5, num_series), rng.uniform(0.8, 0.98, num_series), 1.0
    )
    noise = np.where(
        multiplied, log_uniform(rng, 0.01, 0.15, num_series), log_uniform(rng, 0.05, 1, num_series)
    )
    steepness = rng.standard_normal(num_series) * np.where(multiplied, 0.02, 3 / axes.lengths)
    season = np.where(column(multiplied), np.exp(0.6 * np.clip(season, -2, 2)), season)
    return _Smoothing(
        seasons,
        season,
        multiplied,
        noise,
        np.stack([alpha, beta, gamma]),
        damping,
        np.ones(num_series),
        steepness,
    )
