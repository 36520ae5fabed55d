"""How good samples were, in units of each series' own: what choices between forecasts are made by."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def crps(samples: Floats, actuals: Floats, units: Floats) -> Floats:
    """CRPS of each window's samples, `(window, sample, horizon)`, in its unit: the mean over what is
    known of E|X - y| - E|X - X'| / 2, all pairs counted; NaN where nothing is."""
    count = samples.shape[1]
    ordered = np.sort(samples, axis=1)
    weights = (2 * np.arange(1, count + 1) - count - 1) / count**2
    spread = np.einsum("wsh,s->wh", ordered, weights)
    found = np.abs(samples - actuals[:, None]).mean(axis=1) - spread
    known = np.isfinite(found)
    total = np.where(known, found, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return np.where(known.any(axis=1), total / units, np.nan)


def usual_step(values: Floats) -> float:
    """Mean distance from one value to the next; 1 where there is none."""
    steps = np.abs(np.diff(values))
    return float(np.nanmean(steps)) if np.nansum(steps) > 0 else 1.0


def surely(gain: Floats) -> float:
    """The mean gain, and its standard error on top."""
    known = gain[np.isfinite(gain)]
    if len(known) < 2:
        return 0.0
    return float(known.mean() + known.std(ddof=1) / np.sqrt(len(known)))
