"""Days that are worked and days that are free: roads, offices, shops, by the hour and minute."""

from __future__ import annotations

import numpy as np

from llamacast.data.synthetic.axes import Axes
from llamacast.data.synthetic.demand import noisy_or_counted
from llamacast.data.synthetic.draws import (
    Integers,
    Rng,
    Rows,
    chance,
    column,
    log_uniform,
)
from llamacast.data.synthetic.gaussian import smooth_paths
from llamacast.data.synthetic.seasonal import look_up, profiles

# Saturday and Sunday alike, each in its own way, Sunday only, Friday and Saturday, or any day.
_WEEKS = np.array(
    [[0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 1, 2], [0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 1, 1, 0]]
)
_SHARES_OF_WEEKS = (0.45, 0.2, 0.1, 0.1, 0.15)
_NUM_KINDS = 3


def working_week(rng: Rng, axes: Axes) -> Rows:
    """Each kind of day has a profile and a size of its own, from next to nothing to that of any other.

    Some days are free that are not so by the week (holidays). Values are 0 or more; noise grows with
    what is expected, or is that of counts; days are as a whole busier or quieter.
    """
    days = axes.days
    day = days - days[:, :1]
    kinds = _kinds_of_days(rng, axes, day)
    phases = axes.phases("day")
    expected = np.zeros(axes.shape)
    for kind in range(_NUM_KINDS):
        tables = profiles(rng, axes.num_series)
        tables = tables - tables.min(axis=1, keepdims=True)
        tables /= np.maximum(tables.max(axis=1, keepdims=True), 1e-9)
        tables **= column(log_uniform(rng, 0.5, 3, axes.num_series))
        size = 1.0 if kind == 0 else column(log_uniform(rng, 0.01, 1.5, axes.num_series))
        expected = np.where(kinds == kind, size * look_up(tables, phases), expected)
    expected += column(log_uniform(rng, 1e-3, 0.3, axes.num_series))
    busyness = log_uniform(rng, 0.01, 0.2, axes.num_series)
    busy = rng.standard_normal((axes.num_series, int(day.max()) + 1)) * column(busyness)
    busy = np.take_along_axis(busy, day, axis=1)
    drift = smooth_paths(rng, axes, 0.2, 0.8) * column(rng.uniform(0, 0.4, axes.num_series))
    expected *= np.exp(np.clip(busy + drift, -2, 2))
    return noisy_or_counted(
        rng, expected, loudness=(0.02, 0.4), counts=(5, 5000), shapes=(10, 1000)
    )


def _kinds_of_days(rng: Rng, axes: Axes, day: Integers) -> Integers:
    """The kind of day of each step."""
    week = rng.choice(len(_SHARES_OF_WEEKS), size=axes.num_series, p=_SHARES_OF_WEEKS)
    any_day = rng.integers(_NUM_KINDS, size=(axes.num_series, 7))
    kinds = np.where(column(week == len(_WEEKS)), any_day, _WEEKS.take(week, axis=0, mode="clip"))
    found = np.take_along_axis(kinds, axes.weekdays, axis=1)
    holidays = chance(rng, 0.02, (axes.num_series, int(day.max()) + 1))
    holidays &= column(chance(rng, 0.5, axes.num_series))
    return np.where(np.take_along_axis(holidays, day, axis=1), kinds[:, 6:], found)
