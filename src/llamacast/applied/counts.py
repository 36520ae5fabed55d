"""Series of counts: whole numbers, few of which come again and again."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from llamacast.data.panel import Panel

# Values at the end of a series that are looked at; fewer than these tell nothing.
LOOKED_AT, FEWEST = 2048, 8
# Of distinct ones among them.
LARGEST_SHARE = 0.5


def find_counts(panel: Panel) -> npt.NDArray[np.bool_]:
    """Which series count something: all of their last values are whole, and most came before.

    A network's quantiles lie between whole numbers, and what comes never does: rounded, they are nearer,
    the more so the smaller the numbers. Where numbers are large, it makes no difference.
    """
    return np.array([_counts(values[-LOOKED_AT:]) for values in panel.values], dtype=bool)


def _counts(values: npt.NDArray[np.float64]) -> bool:
    known = values[np.isfinite(values)]
    if len(known) < FEWEST or (known != np.rint(known)).any():
        return False
    return len(np.unique(known)) <= LARGEST_SHARE * len(known)
