"""Which values a series can take, as it is told or as its past shows: whole ones, none below 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from llamacast.data.panel import Panel
from llamacast.model.scaling import VALUES_PER_STRAY, find_strays

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

# Values at the end of a series that are looked at; fewer than these tell nothing.
LOOKED_AT, FEWEST = 2048, 8
# Of counts: of distinct values among them.
LARGEST_SHARE = 0.5
# Of a floor: how often 0 was met, at least.
FEWEST_ZEROS, LEAST_SHARE_OF_ZEROS = 3, 0.05


@dataclass(frozen=True)
class Support:
    """What can come, of each series."""

    whole: Flags
    """Whether nothing but whole numbers can; shape `(series,)`."""
    nonnegative: Flags
    """Whether nothing below 0 can; shape `(series,)`."""

    def project(self, samples: Floats) -> None:
        """Move samples `(series, sample, step)` in place to the nearest values that can come."""
        samples[self.whole] = np.rint(samples[self.whole])
        samples[self.nonnegative] = samples[self.nonnegative].clip(min=0.0)
        samples[self.whole | self.nonnegative] += 0.0  # there is no -0


def find_support(panel: Panel, nonnegative: bool | None, integer: bool | None) -> Support:
    """What can come, as it is told; where that is None, as the past shows it.

    A network's quantiles lie between whole numbers and reach below 0, where what comes may never lie:
    moved there, they are nearer, the more so the smaller the numbers.
    """
    ends = [values[-LOOKED_AT:] for values in panel.values]
    known = [_without_strays(values[np.isfinite(values)]) for values in ends]
    whole = [_counts(values) if integer is None else integer for values in known]
    floored = [_has_floor(values) if nonnegative is None else nonnegative for values in known]
    return Support(np.array(whole, dtype=bool), np.array(floored, dtype=bool))


def _without_strays(known: Floats) -> Floats:
    """Without values that are no measurements, as a sensor's -9999, where one alone may be in the way."""
    for odd in (known < 0, known != np.rint(known)):
        if 0 < np.count_nonzero(odd) <= max(1, len(known) // VALUES_PER_STRAY):
            rows = torch.from_numpy(known)[None]
            found: Floats = known[
                ~find_strays(rows, torch.ones_like(rows, dtype=torch.bool))[0].numpy()
            ]
            return found
    return known


def _counts(known: Floats) -> bool:
    """Whether something is counted: all values are whole, and most came before."""
    if len(known) < FEWEST or (known != np.rint(known)).any():
        return False
    return len(np.unique(known)) <= LARGEST_SHARE * len(known)


def _has_floor(known: Floats) -> bool:
    """Whether 0 was met again and again, and never passed. A series that only starts or ends there, or
    goes through it, meets it less often."""
    if len(known) < FEWEST or known.min() < 0:
        return False
    num_zeros = int(np.count_nonzero(known == 0))
    return num_zeros >= max(FEWEST_ZEROS, LEAST_SHARE_OF_ZEROS * len(known))
