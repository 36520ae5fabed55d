"""Series that run along a straight line, beside a season or none: told without it, and put back onto it.

Shift and scale go through a network exactly, a slope does not: it widens the frame, and moves past seasons
apart. What real series do after a trend is rarely its straight continuation, and that the network has learnt;
so the line counts only where next to nothing else moves the series.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from llamacast.model.quantiles import Quantiles
from llamacast.model.scaling import LAST_PLACES
from llamacast.sampling.patched import Look

Floats = npt.NDArray[np.float64]

# Values, and of these what a season leaves free, without which a line is chance.
FEWEST, FEWEST_FREE = 12, 10
# A share of the variance below which nobody would see a line, and one of the deviation below which what is
# left is rounding.
SMALLEST_SHARE, ROUNDING = 0.1, 1e-10
TINY = 1e-300
# Errors around a line that the series keeps to do not tell the next one's.
LARGEST_AUTOCORRELATION = 0.3
# A slope so many times its standard error begins to count, and counts alone.
BEGINS, ALONE = 10.0, 80.0
# Distance of the 10 and 90 per cent quantiles of the normal distribution.
DECILES_APART = 2.563


@dataclass(frozen=True)
class Lines:
    """Lines of some rows."""

    rows: Int[Tensor, " line"]
    slope: Float[Tensor, "line 1"]
    error: Float[Tensor, "line 1"]
    """Standard error of the slope."""
    weight: Float[Tensor, "line 1"]
    """How much the forecast beside the line counts, 0 to 1."""
    since: Float[Tensor, "line 1"]
    """Steps from the middle of what it was fitted to, where a line turns that errs, to the last."""

    def removed(self, values: Float[Tensor, "series time"]) -> Float[Tensor, "line time"]:
        """These rows without their lines, level where their last step is."""
        ago = torch.arange(values.shape[1] - 1, -1, -1, dtype=values.dtype)
        return values[self.rows] + self.slope * ago

    def put_back(self, quantiles: Quantiles) -> Quantiles:
        """What is told of the rows without their lines, onto these, and wider by what a slope may err."""
        values, levels = quantiles.values, quantiles.levels
        ahead = torch.arange(1, values.shape[1] + 1, dtype=values.dtype)
        width = quantiles.width / DECILES_APART
        err = self.error * (ahead + self.since)
        wider = torch.where(width > 0, torch.hypot(width, err) / width, 1.0)
        median = values[..., (levels - 0.5).abs().argmin(), None]
        told = median + (values - median) * wider.unsqueeze(2)
        return Quantiles(told + (self.slope * ahead).unsqueeze(2), levels)

    def mixed_into(self, quantiles: Quantiles, beside: Quantiles) -> Quantiles:
        """Quantiles of all rows, those of these rows averaged with what is told beside the lines."""
        weight = self.weight.unsqueeze(2)
        mixed = quantiles.values[self.rows] * (1 - weight) + weight * beside.values
        return Quantiles(quantiles.values.index_copy(0, self.rows, mixed), quantiles.levels)


def find_lines(
    values: Float[Tensor, "series time"],
    observed: Bool[Tensor, "series time"],
    seen: Look,
    period: Int[Tensor, " series"],
) -> Lines | None:
    """Rows that keep to a line and a season of `period` steps (0 for none); None where no row does.

    `seen` is how they were looked at: what was a stray, and in which units sums and squares stay in range.
    """
    # By numpy, which takes less time than torch over so many small sums.
    scale, location = seen.scale.numpy(), seen.location.numpy()
    there = (observed & ~seen.strays).numpy() & (scale > 0)
    unit = np.where(scale > 0, scale, 1.0)
    count = there.sum(axis=1)
    time = np.arange(values.shape[1], dtype=np.float64)
    at, middle = _centred(np.broadcast_to(time, there.shape), there, count)
    level, _ = _centred((values.numpy() - location) / unit, there, count)
    along, of_time, of_level = _dot(at, level), _dot(at, at), _dot(level, level)
    rows = np.flatnonzero((along**2 > SMALLEST_SHARE * of_time * of_level) & (count >= FEWEST))
    if not len(rows):
        return None
    there, count, unit = there[rows], count[rows], unit[rows, 0]
    at, level, phases = _without_season(at[rows], level[rows], there, period.numpy()[rows])
    of_time = np.maximum(_dot(at, at), TINY)
    slope = _dot(at, level) / of_time
    rest = level - slope[:, None] * at
    left, free = _dot(rest, rest), count - phases - 1
    tie = _dot(rest[:, 1:], _last_known(rest, there)[:, :-1]) / np.maximum(left, TINY)
    last_places = LAST_PLACES * np.finfo(np.float64).eps * np.abs(location[rows, 0]) / unit
    exact = np.sqrt(left / np.maximum(count, 1)) <= np.maximum(ROUNDING, last_places)
    error = np.where(exact, 0.0, np.sqrt(left / np.maximum(free, 1) / of_time))
    times = np.abs(slope) / np.where(exact, 1.0, error)
    weight = np.log(np.maximum(times, TINY) / BEGINS) / np.log(ALONE / BEGINS)
    weight = np.where(exact, 1.0, weight.clip(max=1.0))
    keeps = (weight > 0) & (free >= FEWEST_FREE) & (exact | (tie < LARGEST_AUTOCORRELATION))
    if not keeps.any():
        return None
    parts = slope * unit, error * unit, weight, time[-1] - middle[rows, 0]
    return Lines(
        torch.from_numpy(rows[keeps]), *(torch.from_numpy(part[keeps, None]) for part in parts)
    )


def _last_known(part: Floats, there: npt.NDArray[np.bool_]) -> Floats:
    """Of each step the last value up to it that is there; 0 before the first."""
    last = np.maximum.accumulate(np.where(there, np.arange(part.shape[1]), 0), axis=1)
    return np.take_along_axis(part, last, axis=1)


def _dot(one: Floats, other: Floats) -> Floats:
    return np.einsum("st,st->s", one, other)


def _centred(
    part: Floats, there: npt.NDArray[np.bool_], count: npt.NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """A part less its mean over what is there, 0 elsewhere; and the mean, `(series, 1)`."""
    mean = (np.where(there, part, 0.0).sum(axis=1) / np.maximum(count, 1))[:, None]
    return np.where(there, part - mean, 0.0), mean


def _without_season(
    at: Floats, level: Floats, there: npt.NDArray[np.bool_], period: npt.NDArray[np.int64]
) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Both less their means at each place of the season, and how many places have any."""
    num_rows, num_steps = at.shape
    period = period.clip(1, num_steps)[:, None]
    place = np.arange(num_steps) % period + num_steps * np.arange(num_rows)[:, None]

    def summed(part: npt.NDArray[Any]) -> Floats:
        found = np.bincount(place.ravel(), part.ravel(), num_rows * num_steps)
        return found.astype(np.float64, copy=False)

    counts = summed(there)
    means = [summed(part) / np.maximum(counts, 1) for part in (at, level)]
    at, level = (
        np.where(there, part - mean[place], 0.0)
        for part, mean in zip((at, level), means, strict=True)
    )
    return at, level, (counts.reshape(num_rows, num_steps) > 0).sum(axis=1, dtype=np.int64)
