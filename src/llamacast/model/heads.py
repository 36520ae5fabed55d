"""Heads: from a hidden vector to the distribution of the next value, in scaled units.

Every distribution draws by transforming two uniform numbers, without rejection loops: the same
uniforms give the same draw, alone or in a batch, on any device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from llamacast.model.config import LagLlamaConfig

NUM_UNIFORMS = 2
QUANTILE_FREQUENCIES = 64


@runtime_checkable
class Distribution(Protocol):
    """Distribution of values in scaled units, one for each element of a batch."""

    def loss(self, value: Tensor) -> Tensor:
        """What training minimises at each element: minus log-likelihood, or a quantile loss."""
        ...

    def sample(self, uniforms: Float[Tensor, "... 2"]) -> Tensor:
        """Draw from uniforms in (0, 1); the batch broadcasts against `uniforms` less its last axis."""
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

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return self.scale.square()


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

    @property
    def mean(self) -> Tensor:
        return self.total_count * self.logits.exp() / self.scale

    @property
    def variance(self) -> Tensor:
        odds = self.logits.exp()
        return self.total_count * odds * (1 + odds) / self.scale.square()


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


class StudentTHead(nn.Module):
    """Degrees of freedom above 2 (a finite variance), location, scale."""

    def __init__(self, width: int, in_spreads: bool) -> None:
        super().__init__()
        self.in_spreads = in_spreads
        self.df, self.loc, self.scale = (nn.Linear(width, 1) for _ in range(3))

    def forward(self, hidden: Tensor, anchor: Tensor, scale: Tensor) -> StudentT:
        df = 2.0 + functional.softplus(self.df(hidden).squeeze(-1))
        spread = _positive(self.scale(hidden))
        return StudentT(df, _located(self.loc(hidden), anchor, spread, self.in_spreads), spread)


class NormalHead(nn.Module):
    def __init__(self, width: int, in_spreads: bool) -> None:
        super().__init__()
        self.in_spreads = in_spreads
        self.loc, self.scale = nn.Linear(width, 1), nn.Linear(width, 1)

    def forward(self, hidden: Tensor, anchor: Tensor, scale: Tensor) -> Normal:
        spread = _positive(self.scale(hidden))
        return Normal(_located(self.loc(hidden), anchor, spread, self.in_spreads), spread)


class NegativeBinomialHead(nn.Module):
    """Counts: the anchor has no meaning here, the scale multiplies the mean (as in GluonTS)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.total_count, self.logits = nn.Linear(width, 1), nn.Linear(width, 1)

    def forward(self, hidden: Tensor, anchor: Tensor, scale: Tensor) -> NegativeBinomial:
        total_count = functional.softplus(self.total_count(hidden).squeeze(-1))
        return NegativeBinomial(total_count, self.logits(hidden).squeeze(-1) + scale.log(), scale)


class QuantileNetworkHead(nn.Module):
    """Implicit quantile network (arXiv 1806.06923): the quantile at whatever level is asked."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.level_hidden = nn.Linear(QUANTILE_FREQUENCIES, QUANTILE_FREQUENCIES)
        self.level_slope = nn.PReLU()
        self.level_output = nn.Linear(QUANTILE_FREQUENCIES, width)
        self.mixed = nn.Linear(width, width)
        self.mixed_slope = nn.PReLU()
        self.quantile = nn.Linear(width, 1)

    def forward(self, hidden: Tensor, anchor: Tensor, scale: Tensor) -> QuantileFunction:
        return QuantileFunction(self, hidden, anchor)

    def at(
        self, hidden: Float[Tensor, "*batch width"], level: Float[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch"]:
        """Quantiles at `level` in (0, 1), less the anchor."""
        frequencies = torch.arange(QUANTILE_FREQUENCIES, device=level.device, dtype=level.dtype)
        waves = (math.pi * level.unsqueeze(-1) * frequencies).cos()
        embedded = self.level_output(self.level_slope(self.level_hidden(waves)))
        mixed = self.mixed_slope(self.mixed(hidden * (1.0 + embedded)))
        return self.quantile(mixed).squeeze(-1)


@dataclass(frozen=True)
class QuantileFunction:
    """A distribution known only by its quantiles, which the network computes on request."""

    head: QuantileNetworkHead
    hidden: Tensor
    anchor: Tensor

    def quantile(self, level: Tensor) -> Tensor:
        hidden = self.hidden.expand(*level.shape, self.hidden.shape[-1])
        return self.anchor + self.head.at(hidden, level)

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
        levels = torch.arange(1, 100, device=self.hidden.device, dtype=self.hidden.dtype) / 100
        draws = [self.quantile(level.expand(self.hidden.shape[:-1])) for level in levels]
        return torch.stack(draws).mean(dim=0)


def _located(raw: Tensor, anchor: Tensor, spread: Tensor, in_spreads: bool) -> Tensor:
    """The anchor and a distance from it, told in predicted spreads or in scaled units."""
    distance = raw.squeeze(-1)
    return anchor + (distance * spread if in_spreads else distance)


def _positive(raw: Tensor) -> Tensor:
    return functional.softplus(raw.squeeze(-1)).clamp(min=torch.finfo(raw.dtype).eps)


def make_head(config: LagLlamaConfig) -> nn.Module:
    in_spreads = config.anchor == "lags"
    if config.head == "student_t":
        return StudentTHead(config.width, in_spreads)
    if config.head == "normal":
        return NormalHead(config.width, in_spreads)
    if config.head == "negative_binomial":
        return NegativeBinomialHead(config.width)
    return QuantileNetworkHead(config.width)
