"""Distributions of values in scaled units: how likely, how to draw, which level, which quantile.

Every distribution draws by transforming two uniform numbers, without rejection loops: the same
uniforms give the same draw, alone or in a batch, on any device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from llamacast.model.quantiles import Quantiles, level_of, pinball
from llamacast.model.splines import Spline

NUM_UNIFORMS = 2
# Levels at which a quantile function is asked to find the level of a value.
LEVELS_LOOKED_AT = 199
# Quantiles are looked for up to sinh of this many scales from the location.
LARGEST_ASINH = 40.0
NUM_HALVINGS = 60
MOST_FRACTIONS = 500


@runtime_checkable
class Distribution(Protocol):
    """Distribution of values in scaled units, one for each element of a batch."""

    def loss(self, value: Tensor) -> Tensor:
        """What training minimises at each element: minus log-likelihood, or a quantile loss."""
        ...

    def sample(self, uniforms: Float[Tensor, "... 2"]) -> Tensor:
        """Draw from uniforms in (0, 1); the batch broadcasts against `uniforms` less its last axis."""
        ...

    def cdf(self, value: Tensor) -> Tensor:
        """Probability of less than each value, and half of that of the value itself, in float64."""
        ...

    def quantile(self, level: Tensor) -> Tensor:
        """The value at each level in (0, 1); `level` broadcasts against the batch."""
        ...

    @property
    def mean(self) -> Tensor: ...


@dataclass(frozen=True)
class StudentT:
    """Student's t with `df` degrees of freedom, moved by `loc` and stretched by `scale`."""

    df: Tensor
    loc: Tensor
    scale: Tensor

    def log_prob(self, value: Tensor) -> Tensor:
        half, z = self.df / 2, (value - self.loc) / self.scale
        normaliser = torch.lgamma(half + 0.5) - torch.lgamma(half) - 0.5 * (self.df * math.pi).log()
        return normaliser - self.scale.log() - (half + 0.5) * (z.square() / self.df).log1p()

    def loss(self, value: Tensor) -> Tensor:
        return -self.log_prob(value)

    def sample(self, uniforms: Tensor) -> Tensor:
        """Bailey's polar method (Mathematics of Computation 62, 1994, 779-781)."""
        radius = torch.expm1(uniforms[..., 0].log() * (-2.0 / self.df)).mul(self.df).sqrt()
        return self.loc + self.scale * radius * (2 * math.pi * uniforms[..., 1]).cos()

    def cdf(self, value: Tensor) -> Tensor:
        df, z = self.df.double(), (value.double() - self.loc) / self.scale
        tail = incomplete_beta(df / (df + z.square()), df / 2, torch.full_like(df, 0.5)) / 2
        return torch.where(z > 0, 1 - tail, tail)

    def quantile(self, level: Tensor) -> Tensor:
        return _invert(self.cdf, level, self.loc, self.scale)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return self.scale.square() * self.df / (self.df - 2)


@dataclass(frozen=True)
class Normal:
    loc: Tensor
    scale: Tensor

    def log_prob(self, value: Tensor) -> Tensor:
        z = (value - self.loc) / self.scale
        return -0.5 * z.square() - self.scale.log() - 0.5 * math.log(2 * math.pi)

    def loss(self, value: Tensor) -> Tensor:
        return -self.log_prob(value)

    def sample(self, uniforms: Tensor) -> Tensor:
        """Box and Muller's transform."""
        radius = (-2.0 * uniforms[..., 0].log()).sqrt()
        return self.loc + self.scale * radius * (2 * math.pi * uniforms[..., 1]).cos()

    def cdf(self, value: Tensor) -> Tensor:
        return torch.special.ndtr((value.double() - self.loc) / self.scale)

    def quantile(self, level: Tensor) -> Tensor:
        return (self.loc + self.scale * torch.special.ndtri(level.double())).to(self.loc)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return self.scale.square()


@dataclass(frozen=True)
class Flow:
    """A standard normal number put through a monotone spline, moved and stretched."""

    spline: Spline
    loc: Tensor
    scale: Tensor

    def log_prob(self, value: Tensor) -> Tensor:
        normal, slope = self.spline.inverse((value - self.loc) / self.scale)
        density = -0.5 * normal.square() - 0.5 * math.log(2 * math.pi)
        return density - slope.log() - self.scale.log()

    def loss(self, value: Tensor) -> Tensor:
        return -self.log_prob(value)

    def sample(self, uniforms: Tensor) -> Tensor:
        return self.quantile(uniforms[..., 0])

    def cdf(self, value: Tensor) -> Tensor:
        normal, _ = self.spline.inverse((value - self.loc) / self.scale)
        return torch.special.ndtr(normal.double())

    def quantile(self, level: Tensor) -> Tensor:
        normal = torch.special.ndtri(level.double()).to(self.loc)
        return self.loc + self.scale * self.spline(normal)

    @property
    def mean(self) -> Tensor:
        return _mean_of_quantiles(self.quantile, self.loc)


@dataclass(frozen=True)
class QuantileGrid:
    """A distribution known by its quantiles at fixed levels."""

    quantiles: Quantiles

    def loss(self, value: Tensor) -> Tensor:
        """Mean quantile loss over the levels: about half the CRPS."""
        return pinball(value, self.quantiles)

    def sample(self, uniforms: Tensor) -> Tensor:
        return self.quantile(uniforms[..., 0])

    def cdf(self, value: Tensor) -> Tensor:
        values = self.quantiles.values.expand(*value.shape, -1)
        return level_of(Quantiles(values, self.quantiles.levels), value).double()

    def quantile(self, level: Tensor) -> Tensor:
        known = self.quantiles.values
        shape = torch.broadcast_shapes(level.shape, known.shape[:-1])
        values = known.expand(*shape, known.shape[-1])
        found = Quantiles(values, self.quantiles.levels).at(
            level.expand(shape)[..., None].to(known)
        )
        return found.squeeze(-1)

    @property
    def mean(self) -> Tensor:
        return _mean_of_quantiles(self.quantile, self.quantiles.values[..., 0])


@dataclass(frozen=True)
class NegativeBinomial:
    """Counts, told in units of `scale` counts: the value 1.5 with scale 2 is 3 events.

    `logits` are those of the scaled distribution already (the log of scale added once).
    """

    total_count: Tensor
    logits: Tensor
    scale: Tensor

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass; the Gamma function carries it on to numbers that are not whole."""
        counts = value * self.scale
        choose = (
            torch.lgamma(self.total_count + counts)
            - torch.lgamma(counts + 1.0)
            - torch.lgamma(self.total_count)
        )
        failures = self.total_count * functional.logsigmoid(-self.logits)
        return choose + failures + counts * functional.logsigmoid(self.logits)

    def loss(self, value: Tensor) -> Tensor:
        return -self.log_prob(value)

    def sample(self, uniforms: Tensor) -> Tensor:
        """A Poisson count whose rate is Gamma distributed, both by inverting their functions."""
        shape, logits, scale = torch.broadcast_tensors(
            self.total_count.double(), self.logits.double(), self.scale
        )
        low, high = uniforms.double().unbind(dim=-1)
        rate = _gamma_quantile(shape.expand_as(low), low) * logits.exp()
        return (_poisson_quantile(rate, high) / scale).to(scale.dtype)

    def cdf(self, value: Tensor) -> Tensor:
        """Of counts the middle of the step: less, and half of as much."""
        counts = (value.double() * self.scale).round()
        upto, below = self._at_most(counts), self._at_most(counts - 1)
        return (upto + below) / 2

    def _at_most(self, counts: Tensor) -> Tensor:
        failure = torch.sigmoid(-self.logits.double())
        shape = torch.broadcast_tensors(counts, self.total_count.double(), failure)
        counts, total, failure = shape
        found = incomplete_beta(failure, total, counts.clamp(min=0.0) + 1)
        return found.masked_fill(counts < 0, 0.0)

    def quantile(self, level: Tensor) -> Tensor:
        """Smallest count of at least that level."""
        level = level.double()
        spread = (self.mean * self.scale).double() + (self.variance.sqrt() * self.scale).double()
        low = torch.full_like(spread * level, -1.0)
        high = (spread * 40 + 50).ceil() + torch.zeros_like(low)
        for _ in range(int(high.max().log2().ceil()) + 1):
            middle = ((low + high) / 2).floor()
            below = self._at_most(middle) < level
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (high / self.scale).to(self.scale.dtype)

    @property
    def mean(self) -> Tensor:
        return self.total_count * self.logits.exp() / self.scale

    @property
    def variance(self) -> Tensor:
        odds = self.logits.exp()
        return self.total_count * odds * (1 + odds) / self.scale.square()


@dataclass(frozen=True)
class QuantileFunction:
    """A distribution known only by its quantiles, which the network computes on request."""

    network: Callable[[Tensor, Tensor], Tensor]
    """From hidden vectors and levels to quantiles less the anchor."""
    hidden: Tensor
    anchor: Tensor

    def quantile(self, level: Tensor) -> Tensor:
        level = level.to(self.hidden)
        shape = torch.broadcast_shapes(level.shape, self.anchor.shape)
        hidden = self.hidden.expand(*shape, self.hidden.shape[-1])
        return self.anchor + self.network(hidden, level.expand(shape))

    def cdf(self, value: Tensor) -> Tensor:
        """Among evenly spaced quantiles, put in order: nothing keeps the network's from crossing."""
        levels = torch.arange(1, LEVELS_LOOKED_AT + 1, device=value.device) / (LEVELS_LOOKED_AT + 1)
        asked = levels.to(self.hidden).view(-1, *[1] * value.dim()).expand(-1, *value.shape)
        values = self.quantile(asked).movedim(0, -1).sort(dim=-1).values
        return level_of(Quantiles(values, levels.to(values)), value.to(values)).double()

    def quantile_loss(self, value: Tensor, level: Tensor) -> Tensor:
        """Pinball loss at `level`."""
        error = value - self.quantile(level)
        return torch.maximum(level * error, (level - 1.0) * error)

    def loss(self, value: Tensor) -> Tensor:
        """Quantile loss at one random level for each element: on average, half the CRPS."""
        return self.quantile_loss(value, torch.rand_like(value))

    def sample(self, uniforms: Tensor) -> Tensor:
        return self.quantile(uniforms[..., 0])

    @property
    def mean(self) -> Tensor:
        """Average of 99 evenly spaced quantiles."""
        return _mean_of_quantiles(self.quantile, self.anchor)


def _mean_of_quantiles(quantile: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """Average of 99 evenly spaced quantiles."""
    levels = torch.arange(1, 100, device=like.device, dtype=like.dtype) / 100
    return torch.stack([quantile(level.expand(like.shape)) for level in levels]).mean(dim=0)


def _invert(cdf: Callable[[Tensor], Tensor], level: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """Quantiles by bisection, as far in the tails as float64 tells levels apart."""
    level, loc64, scale64 = torch.broadcast_tensors(level.double(), loc.double(), scale.double())
    low, high = torch.full_like(loc64, -LARGEST_ASINH), torch.full_like(loc64, LARGEST_ASINH)
    for _ in range(NUM_HALVINGS):
        middle = (low + high) / 2
        below = cdf(loc64 + scale64 * middle.sinh()) < level
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (loc64 + scale64 * high.sinh()).to(loc.dtype)


def incomplete_beta(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The regularised incomplete beta function I_x(a, b), in float64.

    By its continued fraction (NIST Handbook of Mathematical Functions, 8.17.22), evaluated by Lentz's
    algorithm on the side of the mean where it converges fast.
    """
    x, a, b = torch.broadcast_tensors(x.double(), a.double(), b.double())
    far = x > (a + 1) / (a + b + 2)
    x, a, b = torch.where(far, 1 - x, x), torch.where(far, b, a), torch.where(far, a, b)
    front = torch.lgamma(a + b) - torch.lgamma(a) - torch.lgamma(b)
    front = front + torch.xlogy(a, x) + torch.xlogy(b, 1 - x)
    tail = (front.exp() * _beta_fraction(x, a, b) / a).clamp(0.0, 1.0)
    return torch.where(far, 1 - tail, tail)


def _beta_fraction(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    tiny = 1e-300
    c, d = torch.ones_like(x), 1 - (a + b) * x / (a + 1)
    d = 1 / torch.where(d.abs() < tiny, tiny, d)
    found = d
    for m in range(1, MOST_FRACTIONS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for numerator in (even, odd):
            d, c = 1 + numerator * d, 1 + numerator / c
            d = 1 / torch.where(d.abs() < tiny, tiny, d)
            c = torch.where(c.abs() < tiny, tiny, c)
            found = found * (step := d * c)
        if bool(((step - 1).abs() < 1e-14).all()):
            break
    return found


def _gamma_quantile(shape: Tensor, level: Tensor) -> Tensor:
    """Invert the regularised incomplete Gamma function by bisection of the logarithm."""
    low, high = torch.full_like(shape, -700.0), (shape + 10 * shape.sqrt() + 50).log()
    for _ in range(60):
        middle = (low + high) / 2
        below = torch.special.gammainc(shape, middle.exp()) < level
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return high.exp()


def _poisson_quantile(rate: Tensor, level: Tensor) -> Tensor:
    """Smallest whole k with P(count <= k) >= level; P(count <= k) = Q(k + 1, rate)."""
    low, high = torch.full_like(rate, -1.0), (rate + 10 * rate.sqrt() + 50).ceil()
    for _ in range(int(high.max().log2().ceil()) + 1):
        middle = ((low + high) / 2).floor()
        below = torch.special.gammaincc((middle + 1).clamp(min=1e-300), rate) < level
        below = below | (middle < 0)
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return high
