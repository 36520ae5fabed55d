"""Monotone rational-quadratic splines with straight tails (Durkan et al., arXiv 1906.04032)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

NUM_BINS = 8
# Widths and heights of bins, and the slopes between them.
NUM_SPLINE_NUMBERS = 3 * NUM_BINS - 1
# Beyond it, on both sides, the spline is the identity.
REACH = 5.0
SMALLEST_SHARE, SMALLEST_SLOPE = 1e-3, 1e-3


@dataclass(frozen=True)
class Spline:
    """A monotone function of one number for each element of a batch, and its inverse."""

    knots: Float[Tensor, "*batch knot"]
    """Arguments, from -REACH to REACH."""
    heights: Float[Tensor, "*batch knot"]
    """Values there."""
    slopes: Float[Tensor, "*batch knot"]
    """Derivatives there; 1 at both ends."""

    def __call__(self, argument: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """The value at each argument; they broadcast against the batch."""
        inside = argument.clamp(-REACH, REACH)
        low, width, bottom, height, start, end = self._bin(self.knots, inside)
        steep, share = height / width, (inside - low) / width
        rest = share * (1 - share)
        above = height * (steep * share.square() + start * rest)
        value = bottom + above / (steep + (end + start - 2 * steep) * rest)
        return value + (argument - inside)

    def inverse(self, value: Float[Tensor, "*any"]) -> tuple[Tensor, Tensor]:
        """The argument of each value, and the slope of the function there."""
        inside = value.clamp(-REACH, REACH)
        low, width, bottom, height, start, end = self._bin(self.heights, inside)
        steep, rise = height / width, inside - bottom
        bend = end + start - 2 * steep
        # The root of a quadratic between 0 and 1, in the form that does not cancel.
        a = height * (steep - start) + rise * bend
        b = height * start - rise * bend
        c = -steep * rise
        share = 2 * c / (-b - (b.square() - 4 * a * c).clamp(min=0.0).sqrt())
        share = share.clamp(0.0, 1.0)
        rest = share * (1 - share)
        above = end * share.square() + 2 * steep * rest + start * (1 - share).square()
        slope = steep.square() * above / (steep + bend * rest).square()
        slope = torch.where(inside == value, slope, torch.ones_like(slope))
        return low + share * width + (value - inside), slope

    def _bin(self, edges: Tensor, place: Tensor) -> list[Tensor]:
        """Where the bin of each place begins, how wide it is, both for heights, its slopes."""
        shape = torch.broadcast_shapes(place.shape, edges.shape[:-1])
        wide = (*shape, edges.shape[-1])
        place = place.expand(shape)[..., None].contiguous()
        above = torch.searchsorted(edges.expand(wide).contiguous(), place, right=True)
        above = above.clamp(1, NUM_BINS)
        found = []
        for numbers in (self.knots, self.heights):
            numbers = numbers.expand(wide)
            low, high = numbers.gather(-1, above - 1), numbers.gather(-1, above)
            found += [low.squeeze(-1), (high - low).squeeze(-1)]
        slopes = self.slopes.expand(wide)
        return [*found, *(slopes.gather(-1, at).squeeze(-1) for at in (above - 1, above))]


def make_spline(raw: Float[Tensor, "*batch number"]) -> Spline:
    """From any numbers; zeros make the identity."""
    widths, heights, slopes = raw.split([NUM_BINS, NUM_BINS, NUM_BINS - 1], dim=-1)
    identity = math.log(math.expm1(1 - SMALLEST_SLOPE))
    inner = functional.softplus(slopes + identity) + SMALLEST_SLOPE
    return Spline(_edges(widths), _edges(heights), functional.pad(inner, (1, 1), value=1.0))


def _edges(raw: Tensor) -> Tensor:
    shares = SMALLEST_SHARE + (1 - SMALLEST_SHARE * NUM_BINS) * raw.softmax(dim=-1)
    inner = 2 * REACH * shares[..., :-1].cumsum(dim=-1) - REACH
    ends = torch.full_like(raw[..., :1], REACH)
    return torch.cat([-ends, inner, ends], dim=-1)
