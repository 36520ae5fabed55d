"""Make tokens of patches: what each shows, in its frame, and the seasonal lags of what it predicts.

Patches without any observed value are how a network is asked for the future; nothing else tells
them from missing data.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from llamacast.model.config import CriaConfig
from llamacast.model.frames import LOCAL_UNITS, Frames, at_tokens
from llamacast.model.periods import Periods
from llamacast.model.seasons import SeasonalLags

NUM_SCALARS = 10
NUM_OF_TOLD_SEASON = 3
NUM_OF_SPREAD = 3
# Spreads are told by their logarithm; below this share of the movement there is none.
SMALLEST_SPREAD = 1e-3


def to_patches(
    values: Float[Tensor, "series time"],
    observed: Bool[Tensor, "series time"],
    patch_length: int,
    num_future: int,
    num_known: int | None = None,
) -> tuple[Float[Tensor, "series patched"], Bool[Tensor, "series patched"], Int[Tensor, " series"]]:
    """Move each row to the left, so that it begins in the first patch and ends with a whole one.

    Rows end with their last step. `num_future` patches of nothing observed follow, and more after
    rows that are shorter than others: than `num_known` patches, if it is given, as many as there can
    be. Returns values, observed, and the number of each row's patches.
    """
    time = values.shape[1]
    steps = torch.arange(time, device=values.device)
    first = torch.where(observed, steps, time - 1).amin(dim=1)
    num_tokens = -(-(time - first) // patch_length)
    most = int(num_tokens.max()) if num_known is None else num_known
    width = (most + num_future) * patch_length
    source = torch.arange(width, device=values.device) + time - num_tokens[:, None] * patch_length
    within = (source >= 0) & (source < time)
    source = source.clamp(0, time - 1)
    seen = observed.gather(1, source) & within
    return values.gather(1, source).masked_fill(~seen, 0.0), seen, num_tokens


def feature_widths(config: CriaConfig) -> tuple[int, ...]:
    """Widths of what a token is joined from: what every network is told, then what some are (the
    calendar, spreads, covariates)."""
    length, periods = config.patch_length, config.num_periods
    return (
        3 * length + length * periods * 6 + 4 * periods + NUM_SCALARS,
        NUM_OF_TOLD_SEASON * config.num_told_seasons,
        NUM_OF_SPREAD * periods * config.tells_spreads,
        2 * length * config.num_covariates,
    )


def make_patch_tokens(
    values: Float[Tensor, "series time"],
    observed: Bool[Tensor, "series time"],
    frames: Frames,
    seasons: SeasonalLags,
    periods: Periods,
    told_seasons: Int[Tensor, "series season"],
    config: CriaConfig,
    covariates: Float[Tensor, "series longer covariate"] | None = None,
) -> Float[Tensor, "series token feature"]:
    """Join what a token holds: its patch, seasonal lags of the next, periods, a few scalars; if it is
    told, what the calendar suggests (periods in steps, 0 for none) and how far past seasons lie
    apart; and covariates of its own steps and of the next patch's, until which they are told.

    A token with nothing observed holds the last patch that has something. Values are told twice, in
    the frame (where among all that was?) and from the last observed value in usual movements (what
    has changed lately?), both through the inverse hyperbolic sine.
    """
    patched = (-1, config.patch_length)
    holder = frames.last_step.clamp(min=0) // config.patch_length
    seen = at_tokens(observed.unflatten(1, patched), holder)
    patch = frames.to_frame(at_tokens(values.unflatten(1, patched), holder)) * seen
    parts = [patch.asinh(), frames.in_movements(patch) * seen, seen.float()]
    for told, there in (
        (seasons.latest, seasons.latest_seen),
        (seasons.mean, seasons.mean_seen),
    ):
        parts += [
            (told.asinh() * there).flatten(2),
            (frames.in_movements(told) * there).flatten(2),
            there.float().flatten(2),
        ]
    unit = LOCAL_UNITS * frames.movement.unsqueeze(2)
    parts += [
        periods.lengths.float().log1p() / 5.0,
        periods.strengths.float(),
        _scalars(observed.unflatten(1, patched), frames),
        seasons.growth.asinh(),
        (seasons.growth / unit).asinh(),
        _of_calendar(told_seasons[:, : config.num_told_seasons], frames),
    ]
    if config.tells_spreads:
        parts.append(_of_spreads(seasons, frames))
    if covariates is not None:
        per_patch = covariates.unflatten(1, (-1, config.patch_length)).flatten(2)
        parts += [per_patch[:, :-1], per_patch[:, 1:]]
    return torch.cat(parts, dim=2)


def _of_calendar(
    seasons: Int[Tensor, "series season"], frames: Frames
) -> Float[Tensor, "series token told"]:
    """Of each season whether it is known, how long it is, and how often the history holds it: also of
    those that are longer than the history, which no lag reaches."""
    length = seasons[:, None].float()
    known = (length > 0).expand(-1, frames.count.shape[1], -1)
    held = (frames.count.unsqueeze(2) / length.clamp(min=1.0)).log1p()
    told = torch.stack(
        [torch.ones_like(held), (length.log1p() / 5.0).expand_as(held), held / 3.0], 3
    )
    return (told * known.unsqueeze(3)).flatten(2)


def _of_spreads(seasons: SeasonalLags, frames: Frames) -> Float[Tensor, "series token told"]:
    """Of each period whether it is known how far its seasons lie apart, and how far, in movements."""
    known = seasons.spread_seen.unsqueeze(3)
    share = seasons.spread / frames.movement[..., None, None]
    told = share.clamp(min=SMALLEST_SPREAD).log() / 3.0
    return torch.cat([known.float(), told * known], dim=3).flatten(2)


def _scalars(
    seen: Bool[Tensor, "series token step"], frames: Frames
) -> Float[Tensor, "series token scalar"]:
    """History and frame in a few numbers of size one."""
    length, num_tokens = seen.shape[2], seen.shape[1]
    ends = torch.arange(1, num_tokens + 1, device=seen.device) * length - 1
    unseen = (ends - frames.last_step).float()
    scale, location = frames.scale, frames.location
    # A frame that has not moved has no units to compare with.
    known = torch.nn.functional.pad(frames.moves, (1, 0))[:, :-1]
    before = torch.cat([scale[:, :1], scale[:, :-1]], dim=1)
    shift = torch.cat([torch.zeros_like(location[:, :1]), location.diff(dim=1)], dim=1)
    trends = (frames.trends / frames.movement.unsqueeze(2)).asinh()
    told = [
        frames.movement.log() / 3.0,
        frames.last.asinh(),
        frames.count.log1p() / 4.0,
        frames.count / (ends + 1),
        (unseen / length).log1p(),
        seen.float().mean(dim=2),
        (scale / before).log().clamp(-3.0, 3.0) * known,
        (shift / scale).asinh() * known,
    ]
    return torch.cat([torch.stack(told, dim=2), trends], dim=2)
