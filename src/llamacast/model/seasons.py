"""Seasonal lags: what stood whole periods before each step that a token predicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from llamacast.model.config import CriaConfig
from llamacast.model.frames import Frames, all_at_tokens, tensors_of, widest
from llamacast.model.periods import Periods

# Growth goes on for so many periods; what lies beyond is the network's.
MOST_GROWTH = 4
# A spread is told from so many values more than means were taken of.
FEWEST_FREE = 3
# Of so many tokens seasons fit into a processor's cache.
TOKENS_TOGETHER = 640
Part = TypeVar("Part", Frames, Periods)
# Padding: one step before all others, of which nothing is known.
ONE_BEFORE = (1, 0)


@dataclass(frozen=True)
class SeasonalLags:
    """For each step that a token predicts, what stood there in past seasons, in the token's frame."""

    latest: Float[Tensor, "series token step period"]
    """A period before, or as few periods as lie in the token's past; 0 where not observed."""
    latest_seen: Bool[Tensor, "series token step period"]
    mean: Float[Tensor, "series token step period"]
    """Mean of what was observed there in some past seasons."""
    mean_seen: Bool[Tensor, "series token step period"]
    grown: Float[Tensor, "series token step period"]
    """The latest, and for each period that it lies back what a period's mean has lately grown by."""
    grown_seen: Bool[Tensor, "series token step period"]
    growth: Float[Tensor, "series token period"]
    """What the mean of the last period is above that of the one before; 0 where not known."""
    spread: Float[Tensor, "series token period 2"]
    """How far, in deviations, past seasons lie from their mean at the steps that the token predicts:
    as they are, and once each is moved to the same level; 0 where not known."""
    spread_seen: Bool[Tensor, "series token period"]
    """Where enough of two seasons is there."""

    def choose(self, tokens: Int[Tensor, "series chosen"]) -> SeasonalLags:
        """The lags of some tokens of each row."""
        return SeasonalLags(*all_at_tokens(tensors_of(self), tokens))


def gather_seasons(
    values: Float[Tensor, "series time"],
    observed: Bool[Tensor, "series time"],
    frames: Frames,
    periods: Periods,
    config: CriaConfig,
) -> SeasonalLags:
    """Look whole periods (of each token) back from each of the steps that each token predicts."""
    num_series, num_tokens = frames.last_step.shape
    together = max(1, TOKENS_TOGETHER // num_tokens)
    if values.device.type != "cpu" or torch.compiler.is_exporting() or num_series <= together:
        return _gather(values, observed, frames, periods, config)
    parts = []
    for first in range(0, num_series, together):
        rows = slice(first, first + together)
        some = (values[rows], observed[rows], _of_rows(frames, rows), _of_rows(periods, rows))
        parts.append(tensors_of(_gather(*some, config)))
    return SeasonalLags(*map(torch.cat, zip(*parts, strict=True)))


def _of_rows(part: Part, rows: slice) -> Part:
    """What a dataclass of tensors holds of some series."""
    return type(part)(*(tensor[rows] for tensor in tensors_of(part)))


def _gather(
    values: Float[Tensor, "series time"],
    observed: Bool[Tensor, "series time"],
    frames: Frames,
    periods: Periods,
    config: CriaConfig,
) -> SeasonalLags:
    length, num_tokens = config.patch_length, frames.last_step.shape[1]
    first = torch.arange(1, num_tokens + 1, device=values.device) * length
    steps = (first[:, None] + torch.arange(length, device=values.device))[None, :, :, None]
    period = periods.lengths.clamp(min=1).unsqueeze(2)
    ahead = (steps - frames.last_step[:, :, None, None]).clamp(min=1)
    num_back = (ahead + period - 1).div(period, rounding_mode="floor")
    growth, growth_seen = _growth(values, observed, frames, periods)
    # One further along, behind a step of which nothing is known: what has no past lies there.
    nearest = torch.where(periods.lengths.unsqueeze(2) > 0, steps - num_back * period + 1, 0)
    values, observed = (functional.pad(part, ONE_BEFORE) for part in (values, observed))
    seasons = torch.arange(config.num_seasons, device=values.device)
    places = (nearest.unsqueeze(4) - seasons * period.unsqueeze(4)).clamp(min=0)
    seen = observed.gather(1, places.flatten(1)).view(places.shape)
    stood = values.gather(1, places.flatten(1)).view(places.shape)
    framed = frames.to_frame(stood).float() * seen
    count = seen.sum(dim=4)
    mean = framed.sum(dim=4) / count.clamp(min=1)
    latest, latest_seen = framed[..., 0], seen[..., 0]
    grown_seen = latest_seen & growth_seen.unsqueeze(2)
    grown = latest + num_back.clamp(max=MOST_GROWTH) * growth.unsqueeze(2)
    spread, spread_seen = _spread(framed, seen, mean, count)
    return SeasonalLags(
        latest,
        latest_seen,
        mean,
        count > 0,
        grown * grown_seen,
        grown_seen,
        growth,
        spread,
        spread_seen,
    )


def _spread(
    framed: Float[Tensor, "series token step period season"],
    seen: Bool[Tensor, "series token step period season"],
    mean: Float[Tensor, "series token step period"],
    count: Int[Tensor, "series token step period"],
) -> tuple[Float[Tensor, "series token period 2"], Bool[Tensor, "series token period"]]:
    """Deviation of seasons from their mean at each step, with and without each season's own level, and
    where there are values enough to tell it: an analysis of variance with one and two factors."""
    free = (count - 1).clamp(min=0).sum(dim=2)
    apart = (framed - mean.unsqueeze(4)) * seen
    of_season = seen.sum(dim=2, keepdim=True)
    level = apart.sum(dim=2, keepdim=True) / of_season.clamp(min=1)
    num_levels = (of_season > 0).sum(dim=4).squeeze(2)
    as_they_are = apart.square().sum(dim=(2, 4))
    levelled = ((apart - level) * seen).square().sum(dim=(2, 4))
    left = free - (num_levels - 1).clamp(min=0)
    known = left >= FEWEST_FREE
    both = torch.stack([as_they_are, levelled], dim=-1)
    divisors = torch.stack([free, left], dim=-1).clamp(min=1)
    return (both / divisors).sqrt() * known.unsqueeze(-1), known


def _growth(
    values: Float[Tensor, "series time"],
    observed: Bool[Tensor, "series time"],
    frames: Frames,
    periods: Periods,
) -> tuple[Float[Tensor, "series token period"], Bool[Tensor, "series token period"]]:
    """How far the mean of the last period lies above that of the one before, and where both are known."""
    known = widest(values).masked_fill(~observed, 0.0)
    sums = functional.pad(known.cumsum(dim=1), ONE_BEFORE)
    counts = functional.pad(observed.cumsum(dim=1), ONE_BEFORE)
    end = (frames.last_step + 1)[..., None]
    bounds = [end - back * periods.lengths for back in range(3)]
    within = (bounds[2] >= 0) & (periods.lengths > 0)
    at = [bound.clamp(min=0).flatten(1) for bound in bounds]
    sum_0, sum_1, sum_2 = (sums.gather(1, place).view(periods.lengths.shape) for place in at)
    num_0, num_1, num_2 = (counts.gather(1, place).view(periods.lengths.shape) for place in at)
    # Of either period half must be there.
    half = periods.lengths / 2
    seen = within & (num_0 - num_1 >= half) & (num_1 - num_2 >= half)
    means = [
        (sum_0 - sum_1) / (num_0 - num_1).clamp(min=1),
        (sum_1 - sum_2) / (num_1 - num_2).clamp(min=1),
    ]
    growth = (means[0] - means[1]) / frames.scale.unsqueeze(2)
    return growth.float() * seen, seen
