"""Days, weeks and months of shops, clinics and roads: what the same dates of every year bring."""

from __future__ import annotations

import numpy as np

from llamacast.data.synthetic.axes import Axes
from llamacast.data.synthetic.demand import noisy_or_counted
from llamacast.data.synthetic.draws import (
    Rng,
    Rows,
    chance,
    coloured_noise,
    column,
    log_uniform,
)
from llamacast.data.synthetic.seasonal import look_up, profiles, trends

MOST_EVENTS = 6
_DAYS = 366
# Of a step's days, the last (weeks, which are named after it) or the first (months).
_DAYS_OF_STEPS = {"W": (-6, 7), "M": (0, 30)}


def yearly_events(rng: Rng, axes: Axes) -> Rows:
    """A week, a course of the year and some events at dates of their own, multiplied; positive.

    An event comes every year at its date, larger or smaller than the year before: trade that rises
    for weeks and falls at once (Christmas), days on which all is closed, a season of some weeks.
    Growth, busier and quieter weeks and noise multiply it, or it is that of counts.
    """
    expected = _of_the_year(rng, axes) * _of_the_week(rng, axes)
    growth = trends(rng, axes) * column(log_uniform(rng, 0.05, 0.8, axes.num_series))
    persistence = rng.uniform(0.7, 0.99, axes.num_series)
    busy = coloured_noise(rng, axes.shape, persistence)
    busy *= column(log_uniform(rng, 0.01, 0.2, axes.num_series))
    expected *= np.exp(np.clip(growth + busy, -4, 4))
    return noisy_or_counted(rng, expected, loudness=(0.01, 0.4), counts=(2, 3000), shapes=(5, 500))


def _of_the_year(rng: Rng, axes: Axes) -> Rows:
    """Factors of the steps by their dates, stronger in some years than in others."""
    smooth = look_up(
        profiles(rng, axes.num_series), np.arange(_DAYS) / _DAYS * np.ones((axes.num_series, 1))
    )
    logarithms = smooth * column(
        log_uniform(rng, 0.02, 0.5, axes.num_series) * chance(rng, 0.7, axes.num_series)
    )
    for number in range(MOST_EVENTS):
        is_there = chance(rng, 0.9 if number == 0 else 0.4, axes.num_series)
        logarithms += _event(rng, axes.num_series) * column(is_there)
    factors = _over_steps(axes, np.exp(np.clip(logarithms, -4, 3)))
    dates = axes.stamps.astype("datetime64[D]")
    years = dates.astype("datetime64[Y]")
    days = (dates - years.astype("datetime64[D]")).astype(np.int64)
    passed = years.astype(np.int64)
    passed -= passed[:, :1]
    strengths = 1 + 0.15 * rng.standard_normal((axes.num_series, int(passed.max()) + 1))
    strength = np.take_along_axis(strengths.clip(0.5, 1.5), passed, axis=1)
    return np.take_along_axis(factors, days, axis=1) ** strength


def _event(rng: Rng, num_series: int) -> Rows:
    """Logarithms of what an event makes of each day of a year, `(series, day)`."""
    date = column(rng.integers(_DAYS, size=num_series))
    away = (np.arange(_DAYS) - date + _DAYS // 2) % _DAYS - _DAYS // 2
    before = column(log_uniform(rng, 0.3, 30, num_series))
    after = column(log_uniform(rng, 0.3, 15, num_series))
    shape = np.exp(-np.abs(away) / np.where(away < 0, before, after))
    height = np.where(
        chance(rng, 0.7, num_series),
        log_uniform(rng, 0.1, 2, num_series),
        -log_uniform(rng, 0.1, 4, num_series),
    )
    return shape * column(height)


def _over_steps(axes: Axes, daily: Rows) -> Rows:
    """Means over the days that a step holds, by the day that it is named after."""
    out = daily.copy()
    for unit, (first, count) in _DAYS_OF_STEPS.items():
        rows = np.flatnonzero([frequency.unit == unit for frequency in axes.frequencies])
        moved = [np.roll(daily[rows], -(first + day), axis=1) for day in range(count)]
        out[rows] = np.mean(moved, axis=0)
    return out


def _of_the_week(rng: Rng, axes: Axes) -> Rows:
    """Factors of the days of the week; 1 for steps that are no days."""
    levels = np.exp(
        rng.standard_normal((axes.num_series, 7))
        * column(log_uniform(rng, 0.05, 0.6, axes.num_series))
    )
    closed = column(chance(rng, 0.2, axes.num_series)) & (np.arange(7) == 6)
    levels = np.where(closed, 0.02 * levels, levels)
    by_day = column(np.array([frequency.unit in "DB" for frequency in axes.frequencies]))
    return np.where(by_day, np.take_along_axis(levels, axes.weekdays, axis=1), 1.0)
