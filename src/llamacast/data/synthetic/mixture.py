"""Training series of all families, in even parts, on drawn calendars, scales and levels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llamacast.data.calendar import Frequency
from llamacast.data.synthetic.axes import Axes, draw_axes
from llamacast.data.synthetic.causal import causal
from llamacast.data.synthetic.chaotic import chaotic
from llamacast.data.synthetic.contamination import CHANGES, LOSSES
from llamacast.data.synthetic.demand import intermittent
from llamacast.data.synthetic.draws import FloatArray, Rng, Rows, log_uniform
from llamacast.data.synthetic.gaussian import gaussian_process
from llamacast.data.synthetic.growth import growth
from llamacast.data.synthetic.linear import arima, ets
from llamacast.data.synthetic.mixup import FEWEST_OBSERVED, mixup, usable
from llamacast.data.synthetic.operations import operations
from llamacast.data.synthetic.seasonal import seasonal_trend
from llamacast.data.synthetic.steady import steady
from llamacast.data.synthetic.stochastic import ornstein_uhlenbeck, random_walk
from llamacast.data.synthetic.swelling import swelling
from llamacast.data.synthetic.working_week import working_week
from llamacast.data.synthetic.yearly_events import yearly_events
from llamacast.forecast import DataError

FAMILIES: dict[str, Callable[..., Rows]] = {
    "gaussian_process": gaussian_process,
    "mixup": mixup,
    "seasonal_trend": seasonal_trend,
    "arima": arima,
    "ets": ets,
    "ornstein_uhlenbeck": ornstein_uhlenbeck,
    "random_walk": random_walk,
    "intermittent": intermittent,
    "operations": operations,
    "growth": growth,
    "causal": causal,
    "chaotic": chaotic,
    "steady": steady,
    "working_week": working_week,
    "yearly_events": yearly_events,
    "swelling": swelling,
}
"""What makes each family: a function of a generator and axes (those of real series: and these) to
rows, `(series, step)`, of which each series' own length counts."""
OF_REAL_SERIES = frozenset({"mixup"})
"""Families that combine real series, and are made only where some are given."""
MADE_UP = tuple(name for name in FAMILIES if name not in OF_REAL_SERIES)
"""All others."""

# Frequencies of families that are not found at all of them; of the others, `axes.SHARES`.
FREQUENCIES = {
    "steady": {
        **{"10s": 0.01, "min": 0.02, "5min": 0.03, "15min": 0.05, "30min": 0.05, "h": 0.15},
        **{"D": 0.25, "B": 0.05, "W": 0.15, "MS": 0.15, "QS": 0.06, "YS": 0.03},
    },
    "random_walk": {"min": 0.2, "5min": 0.05, "h": 0.05, "D": 0.15, "B": 0.4, "W": 0.1, "MS": 0.05},
    "intermittent": {"15min": 0.05, "h": 0.25, "D": 0.35, "B": 0.05, "W": 0.2, "MS": 0.1},
    "operations": {
        **{"10s": 0.1, "min": 0.2, "5min": 0.2, "10min": 0.1, "15min": 0.1, "30min": 0.05},
        **{"h": 0.15, "D": 0.1},
    },
    "working_week": {"10min": 0.1, "15min": 0.2, "30min": 0.2, "h": 0.5},
    "yearly_events": {"D": 0.6, "B": 0.08, "W": 0.2, "MS": 0.12},
}
WHOLE_NUMBERS = frozenset({"intermittent"})
"""Families whose values are counts, which no scale or level may spoil."""

SHORTEST = 64
SMALLEST_SCALE, LARGEST_SCALE = 1e-3, 1e6
SHARE_OF_EACH_CONTAMINATION = 0.06
# Below this share of the largest value, float32 would show steps in place of movements.
_LEAST_MOVEMENT = 1e-4
_CHUNK = 512
_MOST_ATTEMPTS = 30


@dataclass(frozen=True)
class SyntheticSeries:
    """A made-up series on a calendar."""

    values: npt.NDArray[np.float32]
    """NaN is missing."""
    start: np.datetime64
    """Stamp of the first value, in nanoseconds."""
    frequency: Frequency
    family: str


def synthesise(
    num_series: int, seed: int, longest: int = 2048, real: Sequence[FloatArray] = ()
) -> list[SyntheticSeries]:
    """Make training series, as many of each family, family after family.

    Args:
        num_series: how many in all; those left over go to the first families.
        seed: the same seed makes the same series.
        longest: most steps of a series, from 64 on. Series of weeks and longer steps are shorter.
        real: series for families `OF_REAL_SERIES`; without any that moves, there are no such families.

    Raises:
        DataError: if `longest` is too small, or `real` hardly moves anywhere.
    """
    if longest < SHORTEST:
        raise DataError(f"longest must be at least {SHORTEST} steps; got {longest}")
    pool = usable(real)
    names = tuple(FAMILIES) if pool else MADE_UP
    made: list[SyntheticSeries] = []
    for number, name in enumerate(names):
        share = num_series // len(names) + (number < num_series % len(names))
        rng = np.random.default_rng((seed, list(FAMILIES).index(name)))
        for first in range(0, share, _CHUNK):
            axes = draw_axes(rng, min(_CHUNK, share - first), longest, FREQUENCIES.get(name))
            made.extend(make_family(name, rng, axes, pool))
    return made


def make_family(
    name: str, rng: Rng, axes: Axes, real: Sequence[FloatArray] = ()
) -> list[SyntheticSeries]:
    """One series of a family for each axis, placed and contaminated."""
    series = []
    for row, values in enumerate(draw_sound(name, rng, axes, real)):
        placed = _place(rng, name, values)
        finished = _contaminate(rng, name, placed).astype(np.float32)
        finished = finished if is_sound(finished) else placed.astype(np.float32)
        series.append(SyntheticSeries(finished, axes.starts[row], axes.frequencies[row], name))
    return series


def draw_sound(name: str, rng: Rng, axes: Axes, real: Sequence[FloatArray] = ()) -> list[Rows]:
    """Series of a family, each cut to its length; those that are not sound are drawn again."""
    found: dict[int, Rows] = {}
    missing = np.arange(axes.num_series)
    for _ in range(_MOST_ATTEMPTS):
        part = axes.take(missing)
        given = (real,) if name in OF_REAL_SERIES else ()
        rows = FAMILIES[name](rng, part, *given)
        for index, row, length in zip(missing, rows, part.lengths, strict=True):
            values = _without_end(row[:length])
            if is_sound(values):
                found[int(index)] = values
        missing = np.array([i for i in range(axes.num_series) if i not in found], dtype=np.int64)
        if not len(missing):
            return [found[index] for index in range(axes.num_series)]
    raise DataError(f"{name}: series do not move enough, or too few of their values are known")


def is_sound(values: FloatArray) -> bool:
    """Whether a series has values enough, finite ones, and moves."""
    known = values[~np.isnan(values)]
    if len(known) < FEWEST_OBSERVED or not np.isfinite(known).all():
        return False
    return bool(known.max() - known.min() > _LEAST_MOVEMENT * np.abs(known).max())


def _without_end(values: Rows) -> Rows:
    """Without what is missing at the end."""
    known = np.flatnonzero(~np.isnan(values))
    return values[: known[-1] + 1] if len(known) else values[:0]


def _place(rng: Rng, name: str, values: Rows) -> Rows:
    """A random scale; and a random level, but for most series that have a zero of their own."""
    if name in WHOLE_NUMBERS:
        return values
    scale = float(log_uniform(rng, SMALLEST_SCALE, LARGEST_SCALE, 1)[0])
    low, high = np.nanmin(values), np.nanmax(values)
    if low >= 0 and rng.random() < 0.7:
        # Utilisation is a share of 100, whatever of.
        return values if high == 100 else values * (scale / high)
    deviation = np.nanstd(values)
    gap = float(log_uniform(rng, 0.05, 20, 1)[0]) * deviation
    kind = rng.choice(4, p=[0.7, 0.15, 0.1, 0.05])
    level = (gap - low, -np.nanmean(values), rng.uniform(-low, gap - low), -gap - high)[kind]
    return (values + level) * (scale / deviation)


def _contaminate(rng: Rng, name: str, values: Rows) -> Rows:
    """Each contamination by a small chance; counts only lose values."""
    allowed = LOSSES if name in WHOLE_NUMBERS else {**CHANGES, **LOSSES}
    for contaminate in allowed.values():
        if rng.random() < SHARE_OF_EACH_CONTAMINATION:
            values = contaminate(rng, values)
    return values
