"""Windows of patches, of which some are not shown: what a network of patches learns from."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from llamacast.model.frames import FEWEST_OBSERVED
from llamacast.model.scaling import standardise
from llamacast.training.config import WindowConfig
from llamacast.training.loop import Batch
from llamacast.training.windows import CutWindows

LONGEST_SCATTERED = 8
MEAN_SHOWN = 4


def as_patch_batch(
    cut: CutWindows,
    patch_length: int,
    config: WindowConfig,
    generator: torch.Generator,
    num_periods: int,
) -> Batch:
    """What the objective of patches takes: windows that begin in the first patch, partly masked.

    Of some windows the end is not shown, of some stretches all over; the others are shown whole.
    Of some, periods are not told, or in an order that is drawn.
    Windows that do not move count for nothing.
    """
    standardised, _, scale = standardise(cut.values.double(), cut.observed)
    source = _to_first_patch(cut.observed, patch_length)
    moved, seen = _moved(standardised, cut.observed, source)
    num_tokens = seen.shape[1] // patch_length
    filled = seen.view(len(seen), num_tokens, patch_length).any(dim=2)
    tokens = torch.arange(num_tokens, device=seen.device)
    count = torch.where(filled, tokens + 1, 1).amax(dim=1).clamp(min=2)
    kind = torch.rand(len(seen), generator=generator, device=seen.device)
    at_end = kind < config.masked_end_share
    scattered = ~at_end & (kind < config.masked_end_share + config.masked_within_share)
    first = _first_of_end(count, config.horizon and -(-config.horizon // patch_length), generator)
    hidden = (tokens >= first[:, None]) & at_end[:, None]
    hidden |= _scattered(len(seen), num_tokens, generator) & scattered[:, None]
    shown = seen & ~hidden.repeat_interleave(patch_length, dim=1)
    counts = seen[:, patch_length:] & _tells(moved, shown, patch_length) & (scale > 0)
    beside = {}
    if cut.covariates is not None:
        rows = torch.arange(len(source), device=source.device)[:, None]
        within = source.unsqueeze(2) < source.shape[1]
        told = cut.covariates[rows, source.clamp(max=source.shape[1] - 1)] * within
        # Of the patch after the last, nothing is asked.
        beside["covariates"] = torch.nn.functional.pad(told, (0, 0, 0, patch_length))
    return {
        **beside,
        "values": moved,
        "observed": seen,
        "shown": shown,
        "seasons": cut.seasons,
        "told_periods": _told_periods(len(seen), num_periods, config, generator),
        "counts": counts,
        "count": counts.sum(),
    }


def _told_periods(
    num_windows: int, num_periods: int, config: WindowConfig, generator: torch.Generator
) -> Int[Tensor, "window period"]:
    """Ranks of periods in the order in which they are told, -1 for those that are hidden.

    Each is hidden in a share of windows; in another share, all but the strongest. The order is drawn in
    a share of windows, by its own.
    """
    shape, share = (3, num_windows, num_periods + 1), config.hidden_periods_share
    hiding, shuffling, order = torch.rand(shape, generator=generator, device=generator.device)
    ranks = torch.arange(num_periods, device=order.device)
    told = torch.where(hiding[:, :1] < share, ranks == 0, hiding[:, 1:] >= share)
    told_ranks = torch.where(told, ranks, -1)
    shuffled = shuffling[:, :1] < config.shuffled_periods_share
    return torch.where(shuffled, told_ranks.gather(1, order[:, 1:].argsort(dim=1)), told_ranks)


def _first_of_end(
    count: Int[Tensor, " window"], most: int | None, generator: torch.Generator
) -> Int[Tensor, " window"]:
    """First patch of an end that is hidden: from 1 patch to all but the first, or to `most`, evenly in
    the logarithm, so that short horizons are asked for as often as long ones."""
    size = torch.rand(len(count), generator=generator, device=count.device)
    largest = count if most is None else count.clamp(max=most + 1)
    masked = (largest.float() ** size).long().clamp(min=1)
    return count - masked.minimum(count - 1)


def _scattered(
    num_windows: int, num_tokens: int, generator: torch.Generator
) -> Bool[Tensor, "window token"]:
    """Runs of shown and of hidden patches by turns, the first of them shown.

    Hidden runs are 1 to 8 patches long, evenly in the logarithm; shown ones 1 or more, 4 on average.
    """
    shape = (2, num_windows, num_tokens // 2 + 1)
    draws = torch.rand(shape, generator=generator, device=generator.device)
    hidden = ((LONGEST_SCATTERED + 1) ** draws[0]).long().clamp(max=LONGEST_SCATTERED)
    more = draws[1].clamp(min=1e-6).log() / math.log(1 - 1 / MEAN_SHOWN)
    ends = torch.stack([1 + more.long(), hidden], dim=2).flatten(1).cumsum(dim=1)
    tokens = torch.arange(num_tokens, device=ends.device).expand(num_windows, -1)
    return torch.searchsorted(ends, tokens.contiguous(), right=True) % 2 == 1


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
    observed: Bool[Tensor, "window time"], patch_length: int
) -> Int[Tensor, "window time"]:
    """Where each step of rows lies that are moved to the left by whole patches, so that nothing is
    missing before their first one; beyond the end, what is not there."""
    empty = observed.to(torch.uint8).argmax(dim=1, keepdim=True) // patch_length * patch_length
    return torch.arange(observed.shape[1], device=observed.device) + empty


def _moved(
    values: Float[Tensor, "window time"],
    observed: Bool[Tensor, "window time"],
    source: Int[Tensor, "window time"],
) -> tuple[Float[Tensor, "window time"], Bool[Tensor, "window time"]]:
    within = source < values.shape[1]
    source = source.clamp(max=values.shape[1] - 1)
    seen = observed.gather(1, source) & within
    return values.gather(1, source).masked_fill(~seen, 0.0), seen
