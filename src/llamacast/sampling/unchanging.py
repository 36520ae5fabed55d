"""Steps at which a season has stood at one and the same value: closed Sundays, nights without sun.

A network trained on what varies leaves room around such a value, the more the wider the rest of the series
swings. How often the value has stood there tells better how likely it is to stand there again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from llamacast.model.quantiles import Quantiles, level_of

# Seasons that are looked back on, and of these the latest, which may have no exception.
MOST_SEASONS, LATEST_SEASONS = 64, 4
# So many fit into memory, whatever the horizon.
STEPS_TOGETHER = 512
# Exceptions, as a share of the seasons.
MOST_EXCEPTIONS = 0.05
# How likely it may be that one place of a season has a value as often by chance, as it is a common one.
LARGEST_CHANCE = 1e-4


@dataclass(frozen=True)
class Unchanging:
    """Of steps to be forecast, the value that past seasons have there."""

    value: Float[Tensor, "series step"]
    probability: Float[Tensor, "series step"]
    """That it stands there again; 0 where past seasons differ."""

    def mixed_into(self, quantiles: Quantiles) -> Quantiles:
        """Quantiles `(series, step, level)` of a mixture: the value with its probability, else what the
        quantiles tell."""
        levels, weight = quantiles.levels, self.probability.to(quantiles.values).unsqueeze(2)
        reached = level_of(quantiles, self.value).unsqueeze(2)
        below, above = levels / (1 - weight), (levels - weight) / (1 - weight)
        moved = quantiles.at(torch.where(below < reached, below, above))
        stands = (below >= reached) & (above <= reached)
        mixed = torch.where(stands, self.value.unsqueeze(2), moved)
        return Quantiles(torch.where(weight > 0, mixed, quantiles.values), levels)


def find_unchanging(
    values: Float[Tensor, "series time"],
    observed: Bool[Tensor, "series time"],
    periods: Int[Tensor, "series period"],
    horizon: int,
) -> Unchanging | None:
    """What stood whole periods (in steps, 0 for none) before each of the `horizon` steps after a history.

    A value counts that has stood there in nearly all seasons and in all of the latest, so often that it
    cannot be chance. None where no row has a value often enough.
    """
    ordered = values.masked_fill(~observed, torch.nan).sort(dim=1).values
    if int((ordered[:, 1:] == ordered[:, :-1]).sum(dim=1).max()) < LATEST_SEASONS:
        return None
    steps = torch.arange(1, horizon + 1).split(STEPS_TOGETHER)
    parts = [_at_steps(values, observed, periods, some) for some in steps]
    value, probability = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
    return Unchanging(value, probability)


def _at_steps(
    values: Tensor, observed: Tensor, periods: Tensor, steps: Int[Tensor, " step"]
) -> tuple[Float[Tensor, "series step"], Float[Tensor, "series step"]]:
    """Value and probability, of steps so many after the last."""
    period = periods.clamp(min=1)[:, None]
    ahead = steps[None, :, None]
    nearest = values.shape[1] - 1 + ahead - (ahead + period - 1) // period * period
    seasons = torch.arange(MOST_SEASONS)
    places = nearest.unsqueeze(3) - seasons * period.unsqueeze(3)
    within = (places >= 0) & (periods > 0)[:, None, :, None]
    flat = places.clamp(min=0).flatten(1)
    there = observed.gather(1, flat).view(places.shape) & within
    stood = values.gather(1, flat).view(places.shape)
    latest = there.to(torch.uint8).argmax(dim=3, keepdim=True)
    value = stood.gather(3, latest).squeeze(3)
    other = (stood != value.unsqueeze(3)) & there
    count, exceptions = there.sum(dim=3), other.sum(dim=3)
    of_late = (other & (there.cumsum(dim=3) <= LATEST_SEASONS)).any(dim=3)
    fits = (count >= LATEST_SEASONS) & ~of_late & (exceptions <= MOST_EXCEPTIONS * count)
    rows, columns, numbers = fits.nonzero(as_tuple=True)
    # How common the value is in the whole of the row.
    alike = ((values[rows] == value[fits].unsqueeze(1)) & observed[rows]).sum(dim=1)
    share = alike / observed[rows].sum(dim=1)
    surprise = count[fits] * share.log() + periods[rows, numbers].log()
    fits = fits.index_put((rows, columns, numbers), surprise <= math.log(LARGEST_CHANCE))
    probability = (count - exceptions + 0.5) / (count + 1.0) * fits
    best = probability.argmax(dim=2, keepdim=True)
    return value.gather(2, best).squeeze(2), probability.gather(2, best).squeeze(2)
