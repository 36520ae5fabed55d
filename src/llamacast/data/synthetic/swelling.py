"""Seasons whose size changes: along a line, with the level, in steps, or slowly to and fro."""

from __future__ import annotations

import numpy as np

from llamacast.data.synthetic.axes import Axes, by_kind
from llamacast.data.synthetic.draws import (
    Rng,
    Rows,
    chance,
    column,
    heavy_noise,
    log_uniform,
)
from llamacast.data.synthetic.gaussian import smooth_paths
from llamacast.data.synthetic.seasonal import calendar_season, look_up, profiles, whole_seasons


def swelling(rng: Rng, axes: Axes) -> Rows:
    """A level, a season that grows or shrinks, and noise that may do so with it.

    What repeats is not the mean of past seasons, but the last one and where it is going. In a third
    of the rows the season is a share of the level, which grows as passengers and sales do.
    """
    size = by_kind(
        rng,
        axes,
        {"line": _along_a_line, "factor": _by_factors, "step": _in_steps, "wave": _to_and_fro},
    )
    level = _levels(rng, axes)
    calendar = calendar_season(rng, axes)
    lengths = column(whole_seasons(rng, axes))
    drawn = look_up(profiles(rng, axes.num_series), np.arange(axes.num_steps) / lengths % 1)
    season = np.where(column(chance(rng, 0.5, axes.num_series)) & (lengths > 1), drawn, calendar)
    loudness = column(log_uniform(rng, 0.02, 0.7, axes.num_series))
    noise = loudness * heavy_noise(rng, axes.shape)
    noise = np.where(column(chance(rng, 0.5, axes.num_series)), noise * size, noise)
    added = level * column(rng.uniform(0, 2, axes.num_series)) + size * season + noise
    strength = column(log_uniform(rng, 0.05, 0.4, axes.num_series))
    shared = np.exp(level) * (1 + strength * np.clip(season + noise / 2, -2.4, 2.4))
    return np.where(column(chance(rng, 1 / 3, axes.num_series)), shared, added)


def _levels(rng: Rng, axes: Axes) -> Rows:
    """Those that stay, follow a line, a line that flattens, a curve from one level to another, or
    wander."""
    slope = rng.normal(0.3, 1, (axes.num_series, 1))
    damping = column(log_uniform(rng, 1, 10, axes.num_series))
    middle = rng.uniform(0.2, 1.3, (axes.num_series, 1))
    steepness = column(log_uniform(rng, 4, 30, axes.num_series))
    kinds = {
        0: 0 * axes.progress * slope,
        1: slope * axes.progress,
        2: slope * (1 - np.exp(-damping * axes.progress)),
        3: slope / (1 + np.exp(np.clip(steepness * (middle - axes.progress), -50, 50))),
    }
    kind = column(rng.integers(5, size=axes.num_series))
    wander = 0.7 * smooth_paths(rng, axes, 0.1, 0.8)
    return np.select([kind == number for number in kinds], list(kinds.values()), wander)


def _along_a_line(rng: Rng, axes: Axes) -> Rows:
    """From a tenth of its largest size, or more, or down to it."""
    least = column(log_uniform(rng, 0.1, 0.9, axes.num_series))
    falls = column(chance(rng, 0.4, axes.num_series))
    time = np.where(falls, 1 - axes.progress, axes.progress)
    return least + (1 - least) * time


def _by_factors(rng: Rng, axes: Axes) -> Rows:
    """By the same factor from season to season, up to ten in all."""
    return np.exp(rng.uniform(-2.3, 2.3, (axes.num_series, 1)) * (axes.progress - 0.5))


def _in_steps(rng: Rng, axes: Axes) -> Rows:
    """Another size from a time on."""
    change = rng.uniform(0.2, 0.95, (axes.num_series, 1))
    factor = column(log_uniform(rng, 0.2, 5, axes.num_series))
    return np.where(axes.progress < change, 1.0, factor)


def _to_and_fro(rng: Rng, axes: Axes) -> Rows:
    """A smooth curve, positive."""
    strength = column(rng.uniform(0.2, 0.8, axes.num_series))
    return np.exp(strength * np.clip(smooth_paths(rng, axes, 0.1, 0.7), -3, 3))
