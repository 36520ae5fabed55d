"""Steady series: a level, a season that stays as it is, and noise that does not persist."""

from __future__ import annotations

import numpy as np

from llamacast.data.synthetic.axes import Axes
from llamacast.data.synthetic.demand import negative_binomial
from llamacast.data.synthetic.draws import (
    Integers,
    Rng,
    Rows,
    chance,
    column,
    heavy_noise,
    log_uniform,
    standardise,
)
from llamacast.data.synthetic.gaussian import smooth_paths
from llamacast.data.synthetic.seasonal import calendar_season, look_up, profiles, whole_seasons

# Of rows, how often the season is the calendar's, one of some steps that no calendar knows, or none.
_SHARES_OF_SEASONS = (0.35, 0.35, 0.18, 0.12)
_LONGEST_ODD_SEASON = 60
_CALENDAR, _OF_LEVELS, _ODD, _NONE = range(4)


def steady(rng: Rng, axes: Axes) -> Rows:
    """What repeats, and noise around it: the best forecast is the mean of all seasons, not the last.

    Most series of shops, clinics and stations by the day, week and month are so. Noise is white, as
    loud everywhere or louder where the season is high; it is added, multiplied, or that of counts
    (negative binomial). Half of the levels stay, others move slowly.
    """
    season = _seasons(rng, axes)
    kind = rng.choice(3, size=axes.num_series, p=[0.45, 0.3, 0.25])
    noise = heavy_noise(rng, axes.shape)
    uneven = column(rng.uniform(0.1, 0.6, axes.num_series) * chance(rng, 0.3, axes.num_series))
    noise *= np.exp(uneven * np.clip(season, -3, 3))
    # Where there is no season, there is nothing but noise.
    loudness = column(log_uniform(rng, 0.05, 3, axes.num_series))
    loudness = np.where(season.any(axis=1, keepdims=True), loudness, 1.0)
    level = _levels(rng, axes)
    added = level + season + loudness * noise
    strength = column(log_uniform(rng, 0.05, 0.7, axes.num_series))
    expected = np.exp(strength * np.clip(level + season, -6, 6))
    multiplied = expected * np.exp(strength * np.clip(loudness * noise, -6, 6))
    size = column(log_uniform(rng, 1, 3000, axes.num_series))
    counted = negative_binomial(rng, size * expected, log_uniform(rng, 2, 300, axes.num_series))
    return np.select([column(kind == 0), column(kind == 1)], [added, multiplied], counted)


def _seasons(rng: Rng, axes: Axes) -> Rows:
    """Deviation 1, or nothing: of the calendar; a level of its own for each step of a season, or a
    smooth profile, whose length is the calendar's or any."""
    kind = rng.choice(4, size=axes.num_series, p=_SHARES_OF_SEASONS)
    longest = np.minimum(_LONGEST_ODD_SEASON, axes.lengths // 3)
    odd = rng.integers(2, longest + 1)
    lengths = np.where(kind == _ODD, odd, whole_seasons(rng, axes))
    repeated = np.where(
        column(chance(rng, 0.7, axes.num_series)),
        _of_levels(rng, axes, lengths),
        look_up(profiles(rng, axes.num_series), np.arange(axes.num_steps) / column(lengths) % 1),
    )
    season = np.where(column(kind == _CALENDAR), calendar_season(rng, axes), repeated)
    season = np.where(column((kind == _NONE) | ((kind == _OF_LEVELS) & (lengths < 2))), 0.0, season)
    return standardise(season, axes.lengths)


def _of_levels(rng: Rng, axes: Axes, lengths: Integers) -> Rows:
    """Levels drawn for each step of a season; in a third of the rows most are alike."""
    levels = rng.standard_normal((axes.num_series, int(lengths.max())))
    alike = column(chance(rng, 1 / 3, axes.num_series)) & chance(rng, 0.7, levels.shape)
    levels = np.where(alike, 0.1 * levels, levels)
    return np.take_along_axis(levels, np.arange(axes.num_steps) % column(lengths), axis=1)


def _levels(rng: Rng, axes: Axes) -> Rows:
    """Those that stay, go along a line, wander slowly, or are a walk of small steps."""
    kind = column(rng.choice(4, size=axes.num_series, p=[0.5, 0.2, 0.15, 0.15]))
    size = column(log_uniform(rng, 0.1, 3, axes.num_series))
    line = rng.standard_normal((axes.num_series, 1)) * axes.progress
    walk = np.cumsum(rng.standard_normal(axes.shape), axis=1) * 0.02
    wander = smooth_paths(rng, axes, 0.2, 0.8)
    return size * np.select([kind == 0, kind == 1, kind == 2], [0 * line, line, wander], walk)
