"""Signals of machines and servers: waves with corners, batch jobs, spikes, utilisation."""

from __future__ import annotations

import numpy as np

from llamacast.data.synthetic.axes import Axes, by_kind
from llamacast.data.synthetic.draws import (
    Rng,
    Rows,
    chance,
    coloured_noise,
    column,
    log_uniform,
    markov_states,
    persist,
)
from llamacast.data.synthetic.seasonal import calendar_season, draw_periods

NUM_LEVELS = 12


def operations(rng: Rng, axes: Axes) -> Rows:
    """What operations staff look at: sawtooths, squares, steps, batch jobs, spikes, utilisation.

    Shapes as in public cloud traces (Cortez et al., Resource Central, 2017; Numenta's anomaly
    benchmark, Lavin and Ahmad, 2015). Utilisation lies in 0 to 100.
    """
    kinds = {
        "sawtooth": _sawtooth,
        "square": _square,
        "steps": _steps,
        "duty": _duty_cycle,
        "batch": _batch_jobs,
        "spikes": _spikes,
        "utilisation": _utilisation,
    }
    return by_kind(rng, axes, kinds)


def _noise(rng: Rng, axes: Axes, loudest: float = 0.2) -> Rows:
    """Persistent noise, small beside signals of the order of 1; none in a fifth of the rows."""
    size = log_uniform(rng, 0.005, loudest, axes.num_series) * chance(rng, 0.8, axes.num_series)
    persistence = rng.uniform(0, 0.8, axes.num_series)
    return column(size) * coloured_noise(rng, axes.shape, persistence)


def _cycles(rng: Rng, axes: Axes) -> Rows:
    """Time in periods of each series, of the calendar or any, with a random phase."""
    free = np.exp(rng.uniform(np.log(4), np.log(axes.lengths / 3 + 1)))
    keeps = chance(rng, 0.5, axes.num_series)
    periods = np.where(keeps, draw_periods(rng, axes), free)
    return np.arange(axes.num_steps) / column(periods) + rng.random((axes.num_series, 1))


def _sawtooth(rng: Rng, axes: Axes) -> Rows:
    """Fills slowly and empties at once, as tanks, disks and heaps do; or the other way."""
    phase = _cycles(rng, axes) % 1.0
    turn = column(np.where(chance(rng, 0.6, axes.num_series), 1.0, rng.random(axes.num_series)))
    turn = np.clip(turn, 0.02, 1.0)
    wave = np.where(phase <= turn, phase / turn, (1 - phase) / np.maximum(1 - turn, 0.01))
    flipped = column(chance(rng, 0.3, axes.num_series))
    return np.where(flipped, 1 - wave, wave) + _noise(rng, axes)


def _square(rng: Rng, axes: Axes) -> Rows:
    """High for a fixed share of each period, in some with pulses of different heights."""
    cycles = _cycles(rng, axes)
    high = cycles % 1.0 < rng.uniform(0.05, 0.7, (axes.num_series, 1))
    heights = rng.uniform(0.5, 1.5, (axes.num_series, NUM_LEVELS))
    heights[chance(rng, 0.6, axes.num_series)] = 1.0
    height = np.take_along_axis(heights, cycles.astype(np.int64) % NUM_LEVELS, axis=1)
    return high * height + _noise(rng, axes)


def _steps(rng: Rng, axes: Axes) -> Rows:
    """Levels that hold until a change, as after deployments and repairs."""
    stay = 1 - 1 / (axes.lengths * log_uniform(rng, 0.02, 0.3, axes.num_series))
    levels = rng.random((axes.num_series, NUM_LEVELS))
    regimes = markov_states(rng, stay, np.full(axes.num_series, NUM_LEVELS), axes.num_steps)
    return np.take_along_axis(levels, regimes, axis=1) + _noise(rng, axes)


def _duty_cycle(rng: Rng, axes: Axes) -> Rows:
    """On and off for random times, warming up and cooling down with a lag."""
    stay = 1 - 1 / log_uniform(rng, 3, 60, axes.num_series)
    is_on = markov_states(rng, stay, np.full(axes.num_series, 2), axes.num_steps)
    lag = np.where(chance(rng, 0.5, axes.num_series), 0.0, rng.uniform(0.3, 0.95, axes.num_series))
    return persist(is_on * column(1 - lag), lag) + _noise(rng, axes)


def _batch_jobs(rng: Rng, axes: Axes) -> Rows:
    """Jobs at the same time of each day (each week where steps are days), over a quiet ground."""
    daily = column(axes.periods("day") >= 2)
    phase = np.where(daily, axes.phases("day"), axes.phases("week"))
    begin, share = rng.random((2, axes.num_series, 1)) * np.array([1, 0.2])[:, None, None]
    runs = (phase - begin) % 1.0 < np.maximum(share, 1 / 7 * ~daily)
    weekends_off = column(chance(rng, 0.3, axes.num_series)) & daily & (axes.weekdays >= 5)
    load = 1 + 0.3 * coloured_noise(rng, axes.shape, np.full(axes.num_series, 0.5))
    return np.abs(_noise(rng, axes)) + runs * ~weekends_off * np.maximum(load, 0.1)


def _spikes(rng: Rng, axes: Axes) -> Rows:
    """Sudden loads of random size that fade away, as queues and latencies after an incident."""
    chances = column(log_uniform(rng, 5, 60, axes.num_series) / axes.lengths)
    shocks = (rng.random(axes.shape) < chances) * rng.pareto(2.5, axes.shape)
    fading = np.where(
        chance(rng, 0.4, axes.num_series), 0.0, rng.uniform(0.3, 0.97, axes.num_series)
    )
    return 0.2 + np.minimum(persist(shocks, fading), 20) + np.abs(_noise(rng, axes))


def _utilisation(rng: Rng, axes: Axes) -> Rows:
    """Per cent of what there is: seasonal demand that may reach 100, or stay near 0."""
    demand = calendar_season(rng, axes) * column(rng.uniform(0, 1, axes.num_series))
    persistence = rng.uniform(0.5, 0.98, axes.num_series)
    demand += 0.5 * coloured_noise(rng, axes.shape, persistence)
    middle, width = (
        rng.uniform(-20, 110, (axes.num_series, 1)),
        rng.uniform(10, 50, (axes.num_series, 1)),
    )
    return np.clip(middle + width * demand, 0, 100)
