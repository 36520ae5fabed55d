"""Cria: patches and their seasonal lags in, quantiles of each next patch out, in one pass."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from llamacast.model.config import CriaConfig
from llamacast.model.frames import Frames, all_at_tokens, at_tokens, extrapolate, make_frames
from llamacast.model.patches import feature_widths, make_patch_tokens
from llamacast.model.periods import Periods, find_periods_along
from llamacast.model.quantiles import Quantiles, pinball, spread_out, usual_gaps
from llamacast.model.seasons import SeasonalLags, gather_seasons
from llamacast.model.transformer import (
    CausalAttention,
    Rotation,
    Transformer,
    draw_weights,
    full_precision,
    rotation,
)

# Anchors that do not come from seasons: the last value, the frame's location, the patch's mean, and
# where two trends go; and those that do: the latest season, the mean of some, the latest grown.
NUM_PLAIN_ANCHORS, NUM_SEASONAL_ANCHORS = 5, 3
LARGEST_LOG_SPREAD = 7.0
# Errors beyond so many units count as their logarithm while training.
ROBUST_UNITS = 5.0
# The unit of the loss is at least so much of a frame's scale; what repeats exactly counts as if its
# seasons were so many movements apart.
SMALLEST_LOSS_UNIT, LEAST_APART = 0.03, 0.1


class Projection(nn.Module):
    """A linear map and a small network beside it.

    In full precision also where the transformer runs in less: values pass through it, and bfloat16
    tells no two apart that differ by 0.4 %.
    """

    def __init__(self, num_inputs: int, hidden_width: int, num_outputs: int) -> None:
        super().__init__()
        self.direct = nn.Linear(num_inputs, num_outputs)
        self.up = nn.Linear(num_inputs, hidden_width)
        self.down = nn.Linear(hidden_width, num_outputs, bias=False)

    def forward(self, inputs: Float[Tensor, "*batch input"]) -> Float[Tensor, "*batch output"]:
        with full_precision(inputs):
            inputs = inputs.to(self.direct.weight.dtype)
            return self.direct(inputs) + self.down(functional.silu(self.up(inputs)))


@dataclass(frozen=True)
class Outlook:
    """What the next patches of some tokens may resemble."""

    frames: Frames
    seasons: SeasonalLags
    trends: Float[Tensor, "series token step trend"]
    """Where trends go from the last value."""
    recent: Float[Tensor, "series token"]
    """Mean of the token's own patch, in its frame; the last value, where nothing is observed."""
    beside: Float[Tensor, "series token step covariate"] | None = None
    """Covariates of the steps to be predicted."""

    def choose(self, tokens: Int[Tensor, "series chosen"]) -> Outlook:
        """That of some tokens of each row."""
        trends, recent = all_at_tokens((self.trends, self.recent), tokens)
        beside = None if self.beside is None else at_tokens(self.beside, tokens)
        frames, seasons = self.frames.choose(tokens), self.seasons.choose(tokens)
        return Outlook(frames, seasons, trends, recent, beside)

    def anchor(
        self, logits: Float[Tensor, "series token step anchor"]
    ) -> Float[Tensor, "series token step"]:
        """A mean of what was, weighted by a softmax: a season, or the last value, can be copied."""
        last = self.frames.last
        plain = torch.stack([last, torch.zeros_like(last), self.recent], dim=2)
        plain = plain.unsqueeze(2).expand(*logits.shape[:3], -1)
        seasons, always = self.seasons, torch.ones_like(plain, dtype=torch.bool)
        anchors = torch.cat(
            [plain, seasons.latest, seasons.mean, seasons.grown, self.trends], dim=3
        )
        seen = [seasons.latest_seen, seasons.mean_seen, seasons.grown_seen]
        there = torch.cat([always, *seen, always[..., :2]], dim=3)
        weights = logits.masked_fill(~there, -math.inf).softmax(dim=-1)
        return (weights * anchors).sum(dim=-1)


@dataclass(frozen=True)
class PatchWindow:
    """Series in units of their own, in whole patches, and what tokens and forecasts are made from."""

    values: Float[Tensor, "series time"]
    """0 where not observed."""
    observed: Bool[Tensor, "series time"]
    periods: Periods
    seasons: Int[Tensor, "series season"]
    """Periods that the calendar suggests; 0 for none."""
    outlook: Outlook
    covariates: Float[Tensor, "series longer covariate"] | None
    """Of a patch more than there are values of."""


class Cria(nn.Module):
    """A function of tensors: it holds weights and no state."""

    def __init__(self, config: CriaConfig) -> None:
        super().__init__()
        self.config = config
        features, hidden, width = sum(feature_widths(config)), config.projection_width, config.width
        self.transformer = Transformer(config, Projection(features, hidden, width))
        num_anchors = NUM_PLAIN_ANCHORS + NUM_SEASONAL_ANCHORS * config.num_periods
        # For each step: weights of anchors, the median's distance, a spread, gaps between quantiles.
        self.outputs = (num_anchors, 1, 1, len(config.levels) - 1)
        self.head = Projection(width, hidden, config.patch_length * sum(self.outputs))
        count = config.num_covariates
        # What a covariate of a step adds to its median: the same for all steps of a patch.
        self.slopes = nn.Linear(width, count, bias=False) if count else None

    @property
    def levels(self) -> Float[Tensor, " level"]:
        return torch.tensor(self.config.levels, device=self.head.direct.weight.device)

    def window(
        self,
        values: Float[Tensor, "series time"],
        observed: Bool[Tensor, "series time"],
        seasons: Int[Tensor, "series season"],
        covariates: Float[Tensor, "series longer covariate"] | None = None,
        told_periods: Int[Tensor, "series period"] | None = None,
    ) -> PatchWindow:
        """Frames, periods and seasonal lags of series in whole patches, standardised beforehand.

        `seasons` are periods that the calendar suggests (0 for none). `covariates` go on for a patch
        after the values; those of a network that wants some are as usual (0) where none are given.
        `told_periods` are the ranks of the periods that are told, in training, in the order in which
        they are; -1 is as if none had been found.
        """
        assert values.shape[1] % self.config.patch_length == 0, "whole patches only"
        values = values.masked_fill(~observed, 0.0)
        periods = find_periods_along(
            values, observed, seasons, self.config.num_periods, self.config.patch_length
        )
        if told_periods is not None:
            periods = periods.told(told_periods)
        frames = make_frames(values, observed, self.config)
        lags = gather_seasons(values, observed, frames, periods, self.config)
        patched = (-1, self.config.patch_length)
        seen = observed.unflatten(1, patched)
        patch, count = frames.to_frame(values.unflatten(1, patched)) * seen, seen.sum(dim=2)
        mean = torch.where(count > 0, patch.sum(dim=2) / count.clamp(min=1), frames.last)
        if covariates is None and self.config.num_covariates:
            longer = values.shape[1] + self.config.patch_length
            covariates = values.new_zeros(len(values), longer, self.config.num_covariates).float()
        trends, beside = extrapolate(frames, self.config), None
        if covariates is not None:
            beside = covariates.unflatten(1, (-1, self.config.patch_length))[:, 1:]
        outlook = Outlook(frames, lags, trends, mean, beside)
        return PatchWindow(values, observed, periods, seasons, outlook, covariates)

    def inputs(
        self, window: PatchWindow
    ) -> tuple[Float[Tensor, "series token feature"], Rotation | None]:
        """Tokens of a window, and how they are turned."""
        tokens = make_patch_tokens(
            window.values,
            window.observed,
            window.outlook.frames,
            window.outlook.seasons,
            window.periods,
            window.seasons,
            self.config,
            window.covariates,
        )
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        return tokens, rotation(positions, tokens.shape[1], self.config)

    def hidden(self, window: PatchWindow) -> Float[Tensor, "series token width"]:
        """What the network knows at the end of each token."""
        hidden: Tensor = self.transformer(*self.inputs(window), CausalAttention())
        return hidden

    def quantiles(
        self, hidden: Float[Tensor, "series token width"], outlook: Outlook
    ) -> Float[Tensor, "series token step level"]:
        """Quantiles of the steps of the patch after each token, in the token's frame."""
        raw = self.head(hidden).unflatten(-1, (self.config.patch_length, sum(self.outputs)))
        weights, distance, spread, gaps = raw.float().split(self.outputs, dim=-1)
        spread = spread.squeeze(-1).clamp(-LARGEST_LOG_SPREAD, LARGEST_LOG_SPREAD).exp()
        spread = spread * outlook.frames.movement.unsqueeze(-1)
        median = outlook.anchor(weights) + distance.squeeze(-1) * spread
        if self.slopes is not None and outlook.beside is not None:
            with full_precision(hidden):
                slopes = self.slopes(hidden) * outlook.frames.movement.unsqueeze(-1)
            median = median + torch.einsum("stpc,stc->stp", outlook.beside, slopes)
        return spread_out(median, spread, gaps + usual_gaps(self.config.levels).to(gaps))

    def loss(
        self,
        values: Float[Tensor, "series time"],
        shown: Bool[Tensor, "series time"],
        seasons: Int[Tensor, "series season"],
        covariates: Float[Tensor, "series longer covariate"] | None = None,
        told_periods: Int[Tensor, "series period"] | None = None,
    ) -> Float[Tensor, "series step"]:
        """Loss of each step after the first patch; it means nothing where nothing was observed.

        The network sees what is `shown` and is asked for all values. The loss is the mean
        pinball loss over the levels, in the unit that `loss_unit` tells, values far from the predicted
        median as their logarithm: a monotone map, so the best quantiles stay the best.
        """
        length = self.config.patch_length
        window = self.window(values, shown, seasons, covariates, told_periods)
        frames = window.outlook.frames
        predicted = self.quantiles(self.hidden(window), window.outlook)[:, :-1]
        following = functional.pad(values[:, length:], (0, length))
        targets = frames.to_frame(following.view(len(values), -1, length))[:, :-1]
        unit = loss_unit(window)[:, :-1, None]
        median = predicted[..., len(self.config.levels) // 2].detach()
        target = _robust((targets - median) / unit)
        told = _robust((predicted - median.unsqueeze(-1)) / unit.unsqueeze(-1))
        return pinball(target, Quantiles(told, self.levels)).flatten(1)

    def initialise(self, generator: torch.Generator | None = None) -> None:
        """Draw weights; quantiles begin about as wide as the series moves, around its anchors."""
        draw_weights(self, self.config.num_layers, ("head", "slopes"), generator)


def loss_unit(window: PatchWindow) -> Float[Tensor, "series token"]:
    """The geometric mean of a frame's scale and of how far off a plain forecast is: one step's
    movement or, as far as a period is strong, how far its seasons lie apart, if that is less. So that
    a series whose season repeats counts as much as one that nothing foretells."""
    movement, seasons = window.outlook.frames.movement, window.outlook.seasons
    strengths = window.periods.strengths.clamp(0.0, 1.0) * seasons.spread_seen
    apart = (seasons.spread[..., 1] / movement.unsqueeze(2)).clamp(LEAST_APART, 1.0)
    plain = movement * (apart**strengths).amin(dim=2)
    return plain.sqrt().clamp(min=SMALLEST_LOSS_UNIT)


def _robust(errors: Tensor) -> Tensor:
    return ROBUST_UNITS * (errors / ROBUST_UNITS).asinh()
