"""Heads: from a hidden vector to the distribution of the next value, in scaled units."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from llamacast.model.config import QUANTILE_LEVELS, LagLlamaConfig
from llamacast.model.distributions import (
    Flow,
    NegativeBinomial,
    Normal,
    QuantileFunction,
    QuantileGrid,
    StudentT,
)
from llamacast.model.quantiles import Quantiles, spread_out, usual_gaps
from llamacast.model.splines import NUM_SPLINE_NUMBERS, make_spline

QUANTILE_FREQUENCIES = 64


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
        return QuantileFunction(self.at, hidden, anchor)

    def at(
        self, hidden: Float[Tensor, "*batch width"], level: Float[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch"]:
        """Quantiles at `level` in (0, 1), less the anchor."""
        frequencies = torch.arange(QUANTILE_FREQUENCIES, device=level.device, dtype=level.dtype)
        waves = (math.pi * level.unsqueeze(-1) * frequencies).cos()
        embedded = self.level_output(self.level_slope(self.level_hidden(waves)))
        mixed = self.mixed_slope(self.mixed(hidden * (1.0 + embedded)))
        return self.quantile(mixed).squeeze(-1)


class QuantileGridHead(nn.Module):
    """Quantiles at the levels of `QUANTILE_LEVELS`, from their median outwards."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.median, self.spread = nn.Linear(width, 1), nn.Linear(width, 1)
        self.gaps = nn.Linear(width, len(QUANTILE_LEVELS) - 1)

    def forward(self, hidden: Tensor, anchor: Tensor, scale: Tensor) -> QuantileGrid:
        spread = _positive(self.spread(hidden))
        median = _located(self.median(hidden), anchor, spread, in_spreads=True)
        levels = torch.tensor(QUANTILE_LEVELS, device=hidden.device, dtype=hidden.dtype)
        values = spread_out(
            median, spread, self.gaps(hidden) + usual_gaps(QUANTILE_LEVELS).to(hidden)
        )
        return QuantileGrid(Quantiles(values, levels))


class FlowHead(nn.Module):
    """A monotone normalising flow of one number: a spline, its location and scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.loc, self.scale = nn.Linear(width, 1), nn.Linear(width, 1)
        self.spline = nn.Linear(width, NUM_SPLINE_NUMBERS)

    def forward(self, hidden: Tensor, anchor: Tensor, scale: Tensor) -> Flow:
        spread = _positive(self.scale(hidden))
        loc = _located(self.loc(hidden), anchor, spread, in_spreads=True)
        return Flow(make_spline(self.spline(hidden)), loc, spread)


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
    if config.head == "quantiles":
        return QuantileGridHead(config.width)
    if config.head == "flow":
        return FlowHead(config.width)
    return QuantileNetworkHead(config.width)
