"""What a network would have said of steps that are known, each from what came before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from llamacast.model.cria import Cria
from llamacast.model.frames import FEWEST_OBSERVED
from llamacast.model.lag_llama import LagLlama
from llamacast.model.quantiles import Quantiles, level_of
from llamacast.sampling.decoder import run_context
from llamacast.sampling.patched import look

# Cria tells a patch at a time. It is asked so many times, from patches that begin elsewhere, that no
# step is told from further away than a quarter of a patch.
NUM_SHIFTS = 4


@dataclass(frozen=True)
class Hindcast:
    """Of the last steps of some series, in the units of the data, float64 on the CPU."""

    level: Callable[[Float[Tensor, "series step"]], Float[Tensor, "series step"]]
    """The level at which each value falls, in (0, 1); NaN where it is, or nothing was told."""
    quantile: Callable[[Float[Tensor, "series 1"]], Float[Tensor, "series step"]]
    """What was told to lie at a level, one for each series."""


@torch.inference_mode()
def hindcast_values(
    model: LagLlama,
    values: Float[Tensor, "series time"],
    observed: Bool[Tensor, "series time"],
    calendar: Float[Tensor, "series step feature"],
    num_steps: int,
) -> Hindcast:
    """Of the last `num_steps` steps, each from the steps up to the one before it.

    `values` are float64 on the CPU; there are the largest lag and the context before the steps, by
    all of which these are scaled. `calendar` describes the context's steps and those told of.
    """
    device = model.transformer.norm.weight.device
    past = values[:, :-num_steps], observed[:, :-num_steps]
    window = model.scale_window(*past)
    known = model.extend_window(window, values[:, :-1], observed[:, :-1])
    tokens, turn, lags = model.inputs(known.to(device), calendar.to(device))
    hidden = run_context(model.transformer, tokens, turn)[:, -num_steps:]
    last = lags.last(num_steps)
    told = model.distribution(hidden, last, window.scale.to(device))
    enough = past[1].sum(dim=1, keepdim=True) >= FEWEST_OBSERVED

    def level(asked: Tensor) -> Tensor:
        scaled = window.to_scaled(asked.nan_to_num())
        found = told.cdf(scaled.to(hidden)).cpu()
        return found.masked_fill(asked.isnan() | ~enough, torch.nan)

    def quantile(asked: Tensor) -> Tensor:
        found = told.quantile(asked.to(device).expand(-1, num_steps))
        return window.to_values(found.cpu().double()).masked_fill(~enough, torch.nan)

    return Hindcast(level, quantile)


@torch.inference_mode()
def hindcast_patches(
    model: Cria,
    values: Float[Tensor, "series time"],
    observed: Bool[Tensor, "series time"],
    seasons: Int[Tensor, "series season"],
    num_steps: int,
) -> Hindcast:
    """Of the last `num_steps` steps, each from what was known a quarter of a patch before it, or less.

    `values` are float64 on the CPU; `seasons` are periods that the calendar suggests, 0 for none.
    """
    length = model.config.patch_length
    stride = max(1, length // NUM_SHIFTS)
    time, num_levels = values.shape[1], len(model.config.levels)
    grid = torch.full((len(values), num_steps, num_levels), torch.nan, dtype=torch.float64)
    for shift in range(0, length, stride):
        if shift >= time:
            break
        told = _told_patches(model, values, observed, seasons, shift)
        # Distance of each step from where this pass' patches end; patches back, steps into the patch.
        back = time - shift - torch.arange(time - num_steps, time)
        patches = torch.div(back + length - 1, length, rounding_mode="floor").clamp(min=0)
        lead = patches * length - back
        chosen = lead < stride
        token = told.num_tokens[:, None] - 1 - patches[chosen]
        rows = torch.arange(len(values))[:, None]
        found = told.quantiles[rows, token.clamp(min=0), lead[chosen]]
        there = (token >= 0) & told.tells[rows, token.clamp(min=0)]
        grid[:, chosen] = found.masked_fill(~there.unsqueeze(2), torch.nan)
    quantiles = Quantiles(grid, model.levels.cpu().double())
    told_of = ~grid[..., 0].isnan()

    def level(asked: Tensor) -> Tensor:
        found = level_of(Quantiles(grid.nan_to_num(), quantiles.levels), asked.nan_to_num())
        return found.masked_fill(asked.isnan() | ~told_of, torch.nan)

    def quantile(asked: Tensor) -> Tensor:
        return quantiles.at(asked.expand(-1, num_steps).unsqueeze(2)).squeeze(2)

    return Hindcast(level, quantile)


@dataclass(frozen=True)
class _Told:
    quantiles: Float[Tensor, "series token step level"]
    """Of the steps after each token, in the units of the data."""
    num_tokens: Int[Tensor, " series"]
    tells: Bool[Tensor, "series token"]


def _told_patches(
    model: Cria, values: Tensor, observed: Tensor, seasons: Tensor, shift: int
) -> _Told:
    """What each patch tells of the next one, of series without their last `shift` steps."""
    kept = values.shape[1] - shift
    seen = look(model, values[:, :kept], observed[:, :kept], seasons)
    hidden = run_context(model.transformer, *model.inputs(seen.window))
    outlook = seen.window.outlook
    framed = outlook.frames.from_frame(model.quantiles(hidden, outlook)).cpu().double()
    return _Told(seen.in_units(framed), seen.num_tokens, outlook.frames.tells.cpu())
