"""Series that run along a straight line, beside a season or none: told without it, and put back onto it.

Shift and scale go through a network exactly, a slope does not: it widens the frame, and moves past seasons
apart. What real series do after a trend is rarely its straight continuation, and that the network has learnt;
so the line counts only where next to nothing else moves the series.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from llamacast.model.quantiles import Quantiles

FEWEST = 12
"""Values without which a line is chance."""
# A share of the variance below which nobody would see a line, and below which the rest is rounding.
SMALLEST_SHARE, ROUNDING = 0.1, 1e-20
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
    known: Float[Tensor, "line 1"]
    """Steps that it was fitted to."""

    def removed(self, values: Float[Tensor, "series time"]) -> Float[Tensor, "line time"]:
        """These rows without their lines, level where their last step is."""
        ago = torch.arange(values.shape[1] - 1, -1, -1, dtype=values.dtype)
        return values[self.rows] + self.slope * ago

    def put_back(
        self, quantiles: Float[Tensor, "line step level"], levels: Float[Tensor, " level"]
    ) -> Float[Tensor, "line step level"]:
        """What is told of the rows without their lines, onto these, and wider by what a slope may err."""
        ahead = torch.arange(1, quantiles.shape[1] + 1, dtype=quantiles.dtype)
        low, middle, high = ((levels - level).abs().argmin() for level in (0.1, 0.5, 0.9))
        width = (quantiles[..., high] - quantiles[..., low]) / DECILES_APART
        # A line turns around the middle of what it was fitted to.
        err = self.error * (ahead + self.known / 2)
        wider = torch.where(width > 0, (width.square() + err.square()).sqrt() / width, 1.0)
        median = quantiles[..., middle, None]
        told = median + (quantiles - median) * wider.unsqueeze(2)
        return told + (self.slope * ahead).unsqueeze(2)

    def mixed_into(
        self, quantiles: Quantiles, beside: Float[Tensor, "line step level"]
    ) -> Quantiles:
        """Quantiles of all rows, those of these rows averaged with what is told beside the lines."""
        weight = self.weight.unsqueeze(2)
        mixed = quantiles.values[self.rows] * (1 - weight) + weight * beside
        return Quantiles(quantiles.values.index_copy(0, self.rows, mixed), quantiles.levels)


def find_lines(
    values: Float[Tensor, "series time"],
    observed: Bool[Tensor, "series time"],
    period: Int[Tensor, " series"],
) -> Lines | None:
    """Rows that keep to a line and a season of `period` steps (0 for none); None where no row does."""
    time = torch.arange(values.shape[1], dtype=values.dtype)
    count = observed.sum(dim=1, keepdim=True)
    known = values.masked_fill(~observed, 0.0)
    at, level = _centred(time, observed, count), _centred(known, observed, count)
    along, of_time, of_level = (at * level).sum(1), at.square().sum(1), level.square().sum(1)
    seen = along.square() > SMALLEST_SHARE * of_time * of_level
    rows = (seen & (count.squeeze(1) >= FEWEST)).nonzero().squeeze(1)
    if not len(rows):
        return None
    at, level, there = at[rows], level[rows], observed[rows]
    at, level, phases = _without_season(at, level, there, period[rows])
    of_time = at.square().sum(1)
    slope = (at * level).sum(1) / of_time.clamp(min=1e-300)
    rest = level - slope[:, None] * at
    left = rest.square().sum(1)
    free = count[rows].squeeze(1) - phases - 1
    exact = left <= ROUNDING * of_level[rows]
    error = (left / free.clamp(min=1) / of_time.clamp(min=1e-300)).sqrt().masked_fill(exact, 0.0)
    pairs = there[:, 1:] & there[:, :-1]
    tie = (rest[:, 1:] * rest[:, :-1] * pairs).sum(1) / left.clamp(min=1e-300)
    times = slope.abs() / error
    weight = (times / BEGINS).log() / torch.tensor(ALONE / BEGINS, dtype=values.dtype).log()
    keeps = (exact | (tie < LARGEST_AUTOCORRELATION)) & (free >= FEWEST - 2) & (weight > 0)
    if not keeps.any():
        return None
    parts = (slope, error, weight.clamp(max=1.0), count[rows].squeeze(1).to(values.dtype))
    return Lines(rows[keeps], *(part[keeps, None] for part in parts))


def _centred(part: Tensor, observed: Tensor, count: Tensor) -> Float[Tensor, "series time"]:
    part = part.expand(observed.shape) * observed
    return (part - part.sum(dim=1, keepdim=True) / count.clamp(min=1)) * observed


def _without_season(
    at: Tensor, level: Tensor, observed: Tensor, period: Int[Tensor, " series"]
) -> tuple[Tensor, Tensor, Int[Tensor, " series"]]:
    """Both less their means at each place of the season, and how many places have any."""
    period = period.clamp(min=1, max=at.shape[1])[:, None]
    places = torch.arange(at.shape[1]) % period

    def summed(part: Tensor) -> Tensor:
        return torch.zeros_like(at).scatter_add_(1, places, part.to(at.dtype))

    counts = summed(observed)
    means = (summed(part) / counts.clamp(min=1) for part in (at, level))
    at_mean, level_mean = (mean.gather(1, places) for mean in means)
    return (at - at_mean) * observed, (level - level_mean) * observed, (counts > 0).sum(dim=1)
