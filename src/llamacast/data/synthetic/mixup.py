"""Mixtures of real series."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llamacast.data.synthetic.axes import Axes
from llamacast.data.synthetic.draws import FloatArray, Rng, Rows

MOST_MIXED = 3
EVENNESS = 1.5
"""Of the weights: parameter of the Dirichlet distribution."""
FEWEST_OBSERVED = 12


def mixup(rng: Rng, axes: Axes, real: Sequence[FloatArray]) -> Rows:
    """Convex combinations of windows of one to three real series, each in its mean absolute value.

    TSMixup (Ansari et al., Chronos, 2024, arXiv 2403.07815, section 4.1). `real` must be as
    `usable` gives it. Rows whose real series are shorter end with NaN; what is missing in one of
    the series is missing in the mixture.
    """
    out = np.full(axes.shape, np.nan)
    for row, length in enumerate(axes.lengths):
        chosen = [
            real[number] for number in rng.integers(len(real), size=rng.integers(1, MOST_MIXED + 1))
        ]
        length = min(int(length), *(len(values) for values in chosen))
        weights = rng.dirichlet(np.full(len(chosen), EVENNESS))
        windows = [_window(rng, values, length) for values in chosen]
        out[row, :length] = sum(w * x for w, x in zip(weights, windows, strict=True))
    return out


def usable(real: Sequence[FloatArray]) -> list[Rows]:
    """Those series that have enough values and move, in float64; infinite values become NaN."""
    found = []
    for given in real:
        values = np.where(np.isfinite(given), given, np.nan).astype(np.float64)
        known = values[~np.isnan(values)]
        if len(known) >= FEWEST_OBSERVED and known.min() < known.max():
            found.append(values)
    return found


def _window(rng: Rng, values: Rows, length: int) -> Rows:
    first = int(rng.integers(len(values) - length + 1))
    window = values[first : first + length]
    known = window[~np.isnan(window)]
    scale = np.abs(known).mean() if len(known) else 0.0
    return window / scale if scale > 0 else window
