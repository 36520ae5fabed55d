"""Windows of patches, of which some are not shown: what a network of patches learns from."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from llamacast.model.scaling import standardise
from llamacast.training.loop import Batch
from llamacast.training.windows import CutWindows

FEWEST_OBSERVED = 4
"""Values before a step without which nothing is learnt from it."""


def as_patch_batch(
    cut: CutWindows, patch_length: int, masked_share: float, generator: torch.Generator
) -> Batch:
    """What the objective of patches takes: windows that begin in the first patch, partly masked.

    The end of a `masked_share` of the windows is not shown, from 1 patch to all but the first, short
    ends as often as long ones; of half of the others a stretch within is not. Windows that do not
    move count for nothing.
    """
    standardised, _, scale = standardise(cut.values.double(), cut.observed)
    moved, seen = _to_first_patch(standardised, cut.observed, patch_length)
    num_tokens = seen.shape[1] // patch_length
    filled = seen.view(len(seen), num_tokens, patch_length).any(dim=2)
    tokens = torch.arange(num_tokens, device=seen.device)
    count = torch.where(filled, tokens + 1, 1).amax(dim=1).clamp(min=2)
    kind, size, place = torch.rand(
        (3, len(seen)), generator=generator, device=seen.device, dtype=torch.float64
    )
    at_end = kind < masked_share
    within = ~at_end & (kind < masked_share + (1 - masked_share) / 2)
    # Evenly in the logarithm, up to all but the first patch, or a third where more follows.
    most = torch.where(at_end, count, count / 3).clamp(min=2.0)
    masked = (most**size).long().minimum(count - 1)
    first = torch.where(at_end, count - masked, 1 + (place * (count - masked)).long())
    hidden = (tokens >= first[:, None]) & (tokens < (first + masked)[:, None])
    hidden &= (at_end | within)[:, None]
    shown = seen & ~hidden.repeat_interleave(patch_length, dim=1)
    # Periods are looked for in what a forecast would know.
    known = torch.where(at_end, first, (count * (1 + place) / 2).long())
    counts = seen[:, patch_length:] & _tells(moved, shown, patch_length) & (scale > 0)
    return {
        "values": moved,
        "observed": seen,
        "shown": shown,
        "seasons": cut.seasons,
        "num_known": known * patch_length,
        "counts": counts,
        "count": counts.sum(),
    }


def _tells(
    values: Float[Tensor, "window time"], shown: Bool[Tensor, "window time"], patch_length: int
) -> Bool[Tensor, "window step"]:
    """For each step after the first patch, whether the patches before its own say anything: there are
    4 values, and two that differ."""
    count = shown.cumsum(dim=1)
    highest = values.masked_fill(~shown, -torch.inf).cummax(dim=1).values
    lowest = values.masked_fill(~shown, torch.inf).cummin(dim=1).values
    tells = (count >= FEWEST_OBSERVED) & (highest > lowest)
    return tells[:, patch_length - 1 : -1 : patch_length].repeat_interleave(patch_length, dim=1)


def _to_first_patch(
    values: Float[Tensor, "window time"], observed: Bool[Tensor, "window time"], patch_length: int
) -> tuple[Float[Tensor, "window time"], Bool[Tensor, "window time"]]:
    """Rows moved to the left by whole patches, so that nothing is missing before their first one."""
    empty = observed.to(torch.uint8).argmax(dim=1, keepdim=True) // patch_length * patch_length
    source = torch.arange(values.shape[1], device=values.device) + empty
    within = source < values.shape[1]
    source = source.clamp(max=values.shape[1] - 1)
    seen = observed.gather(1, source) & within
    return values.gather(1, source).masked_fill(~seen, 0.0), seen
