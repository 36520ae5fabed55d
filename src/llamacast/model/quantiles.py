"""Quantile functions: monotone by construction, with stated tails, and what training minimises."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

# Beyond the outer levels tails fall exponentially; this bounds how far out a level may be asked, and so do
# floats near 1.
SMALLEST_LEVEL, LAST_PLACES = 1e-12, 8
# Levels whose quantiles tell how wide a distribution is.
WIDTH_LEVELS = (0.1, 0.9)


@dataclass(frozen=True)
class Quantiles:
    """Quantiles at some levels of many values, never crossing."""

    values: Float[Tensor, "*batch level"]
    levels: Float[Tensor, " level"]

    def at(
        self, level: Float[Tensor, " draw"] | Float[Tensor, "*batch draw"]
    ) -> Float[Tensor, "*batch draw"]:
        """Quantiles at any levels in (0, 1): of each value at its own, or of all at the same.

        Straight lines between the known levels. Below the lowest, p1, the quantile at level p is
        Q(p1) - b log(p1 / p): an exponential tail, whose b makes it go through the next level, too;
        above the highest likewise.
        """
        smallest = max(SMALLEST_LEVEL, LAST_PLACES * torch.finfo(level.dtype).eps)
        level = level.clamp(smallest, 1.0 - smallest)
        known, values = self.levels, self.values
        above = torch.searchsorted(known, level.contiguous()).clamp(1, len(known) - 1)
        if level.dim() == 1:  # looked up once
            low, high = values[..., above - 1], values[..., above]
        else:
            low, high = values.gather(-1, above - 1), values.gather(-1, above)
        share = (level - known[above - 1]) / (known[above] - known[above - 1])
        between = low + (high - low) * share.clamp(0.0, 1.0)
        lower, upper = self.tails
        below = values[..., :1] - lower * (known[0] / level).log()
        beyond = values[..., -1:] + upper * ((1 - known[-1]) / (1 - level)).log()
        between = torch.where(level < known[0], below, between)
        return torch.where(level > known[-1], beyond, between)

    @property
    def width(self) -> Float[Tensor, "*batch"]:
        """From the 10 per cent quantile, or the known one nearest to it, to that of 90 per cent."""
        low, high = ((self.levels - level).abs().argmin() for level in WIDTH_LEVELS)
        return self.values[..., high] - self.values[..., low]

    @property
    def tails(self) -> tuple[Float[Tensor, "*batch 1"], Float[Tensor, "*batch 1"]]:
        """The b of the lower and of the upper tail (see `at`)."""
        known, values = self.levels, self.values
        lower = (values[..., 1:2] - values[..., :1]) / (known[1] / known[0]).log()
        upper = values[..., -1:] - values[..., -2:-1]
        return lower, upper / ((1 - known[-2]) / (1 - known[-1])).log()


def level_of(quantiles: Quantiles, value: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """The level at which a quantile function reaches each value: its probability integral transform.

    The inverse of `Quantiles.at`; where several levels share a value, the middle one of them. Above 0, and
    1 where floats tell no nearer.
    """
    known, levels = quantiles.values, quantiles.levels
    value = value.unsqueeze(-1).contiguous()
    tail = _tail_level(quantiles, value)
    found = []
    for right in (False, True):
        above = torch.searchsorted(known.contiguous(), value, right=right)
        above = above.clamp(1, len(levels) - 1)
        low, high = known.gather(-1, above - 1), known.gather(-1, above)
        width = high - low
        share = torch.where(width > 0, (value - low) / width.clamp(min=1e-30), float(right))
        step = levels[above] - levels[above - 1]
        found.append(levels[above - 1] + step * share.clamp(0.0, 1.0))
    inside = (found[0] + found[1]) / 2
    return torch.where(tail.isnan(), inside, tail).squeeze(-1)


def _tail_level(quantiles: Quantiles, value: Tensor) -> Tensor:
    """Levels of values beyond the outer quantiles; NaN between them."""
    known, levels = quantiles.values, quantiles.levels
    first, last = known[..., :1], known[..., -1:]
    lower, upper = quantiles.tails
    tiny = torch.finfo(known.dtype).tiny
    below = levels[0] * (-(first - value) / lower.clamp(min=tiny)).exp()
    beyond = 1 - (1 - levels[-1]) * (-(value - last) / upper.clamp(min=tiny)).exp()
    level = torch.where(value < first, below, torch.nan)
    level = torch.where(value > last, beyond, level)
    return level.clamp(tiny, 1.0)


def spread_out(
    median: Float[Tensor, "*batch"],
    spread: Float[Tensor, "*batch"],
    steps: Float[Tensor, "*batch gap"],
) -> Float[Tensor, "*batch level"]:
    """Quantiles from their median outwards, by steps (any numbers) that are made positive.

    There is an even number of gaps, half of them on either side of the median.
    """
    half = steps.shape[-1] // 2
    widths = functional.softplus(steps) * spread.unsqueeze(-1)
    middle = median.unsqueeze(-1)
    below = middle - widths[..., :half].flip(-1).cumsum(dim=-1).flip(-1)
    above = middle + widths[..., half:].cumsum(dim=-1)
    return torch.cat([below, middle, above], dim=-1)


def usual_gaps(levels: Sequence[float]) -> Float[Tensor, " gap"]:
    """What softplus turns into the gaps between the normal distribution's quantiles."""
    places = [NormalDist().inv_cdf(level) for level in levels]
    gaps = [high - low for low, high in itertools.pairwise(places)]
    return torch.tensor([math.log(math.expm1(gap)) for gap in gaps])


def pinball(value: Float[Tensor, "*batch"], quantiles: Quantiles) -> Float[Tensor, "*batch"]:
    """Mean over the levels of max(q (y - x), (q - 1) (y - x))."""
    error = value.unsqueeze(-1) - quantiles.values
    levels = quantiles.levels
    return torch.maximum(levels * error, (levels - 1.0) * error).mean(dim=-1)
