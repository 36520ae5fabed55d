"""Forecasters to be better than."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pandas as pd

from llamacast.data.calendar import season_length
from llamacast.data.frame import read_panel
from llamacast.data.panel import Panel
from llamacast.data.tables import Table
from llamacast.forecast import Forecast

Floats = npt.NDArray[np.float64]


# Quantiles at every half per cent: a quantile read off evenly spaced samples, position
# `level * (samples - 1)`, is then exact at all of these levels.
NUM_LEVELS = 201
LEVELS = tuple(np.clip(np.linspace(0.0, 1.0, NUM_LEVELS), 0.00125, 0.99875).tolist())
NORMAL = np.array([NormalDist().inv_cdf(level) for level in LEVELS])
"""The standard normal's quantiles at `LEVELS`."""


@dataclass(frozen=True)
class SeasonalNaive:
    """Repeats the last season; normal errors whose variance grows by one with every season."""

    season: int | None = None
    """Steps in a season; None takes the frequency's own."""

    def forecast(
        self, data: Table | Panel, horizon: int, *, frequency: str | None = None
    ) -> Forecast:
        """See `Forecaster.forecast`."""
        panel = read_panel(data, frequency=frequency)
        samples = []
        for values, axis in zip(panel.values, panel.axes, strict=True):
            natural = season_length(axis.frequency) if axis.frequency else 1
            samples.append(self._quantiles(carried(values), self.season or natural, horizon))
        return panel.answer(np.stack(samples), "seasonal-naive", joint=False)

    def _quantiles(self, values: Floats, season: int, horizon: int) -> Floats:
        """Shape `(level, horizon)`."""
        season = season if season < len(values) else 1
        steps = np.arange(horizon)
        errors = values[season:] - values[:-season]
        deviation = np.sqrt(np.mean(errors**2)) if len(errors) else 0.0
        spread = deviation * np.sqrt(steps // season + 1.0)
        return values[-season:][steps % season] + spread * NORMAL[:, None]


def carried(values: Floats) -> Floats:
    """Missing values become the last one seen; those before any, the first one seen."""
    return np.asarray(pd.Series(values).ffill().bfill(), dtype=np.float64)
