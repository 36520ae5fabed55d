"""Make tokens of patches: what each shows, the frame it is seen in, and its seasonal lags.

Every token is seen in a frame of its own, made of what came before its end, so that each position
of a window is a forecast like the last one. Patches without any observed value are how a network
is asked for the future; nothing else tells them from missing data.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from llamacast.model.config import CriaConfig
from llamacast.model.periods import Periods

# A frame's scale or movement below this share of the window's is rounding.
SMALLEST_SHARE = 1e-6
# Local distances are told in so many mean movements before they count as large.
LOCAL_UNITS = 3.0
# Recent movement: its memory is so many times shorter than the frame's.
RECENT = 8
NUM_SCALARS = 8


def to_patches(
    values: Float[Tensor, "series time"],
    observed: Bool[Tensor, "series time"],
    patch_length: int,
    num_future: int,
) -> tuple[Float[Tensor, "series patched"], Bool[Tensor, "series patched"], Int[Tensor, " series"]]:
    """Move each row to the left, so that it begins in the first patch and ends with a whole one.

    Rows end with their last step. `num_future` patches of nothing observed follow, and more after
    rows that are shorter than others. Returns values, observed, and the number of each row's patches.
    """
    time = values.shape[1]
    steps = torch.arange(time, device=values.device)
    first = torch.where(observed, steps, time - 1).amin(dim=1)
    num_tokens = -(-(time - first) // patch_length)
    width = (int(num_tokens.max()) + num_future) * patch_length
    source = torch.arange(width, device=values.device) + time - num_tokens[:, None] * patch_length
    within = (source >= 0) & (source < time)
    source = source.clamp(0, time - 1)
    seen = observed.gather(1, source) & within
    return values.gather(1, source).masked_fill(~seen, 0.0), seen, num_tokens


@dataclass(frozen=True)
class Frames:
    """Where each token measures from, and in which units; `(series, token)` each."""

    location: Float[Tensor, "series token"]
    """Weighted mean of what was observed up to the token's end."""
    scale: Float[Tensor, "series token"]
    """Weighted standard deviation; 1 where nothing has moved yet."""
    movement: Float[Tensor, "series token"]
    """Mean distance from one observed value to the next, recent and long-term, in scales."""
    last: Float[Tensor, "series token"]
    """Last observed value, in the frame."""
    last_step: Int[Tensor, "series token"]
    """Step of it; -1 before the first."""
    count: Float[Tensor, "series token"]
    """How many values were observed up to the token's end."""
    moves: Bool[Tensor, "series token"]
    """Whether two of them differ."""

    def choose(self, tokens: Int[Tensor, "series chosen"]) -> Frames:
        """The frames of some tokens of each row."""
        return Frames(*(part.gather(1, tokens) for part in _parts(self)))

    def to_frame(self, values: Float[Tensor, "series token *rest"]) -> Tensor:
        shape = (*self.location.shape, *(1,) * (values.dim() - 2))
        return (values - self.location.view(shape)) / self.scale.view(shape)

    def from_frame(self, framed: Float[Tensor, "series token *rest"]) -> Tensor:
        shape = (*self.location.shape, *(1,) * (framed.dim() - 2))
        return framed * self.scale.view(shape) + self.location.view(shape)


def make_frames(
    values: Float[Tensor, "series time"], observed: Bool[Tensor, "series time"], config: CriaConfig
) -> Frames:
    """The frames of all tokens, by exponentially weighted sums over patches."""
    length = config.patch_length
    patched = (len(values), -1, length)
    known = values.double().masked_fill(~observed, 0.0)
    seen = observed.double()
    sums = torch.stack(
        [part.view(patched).sum(dim=2) for part in (seen, known, known.square())], dim=1
    )
    decay = _decay(sums.shape[2], config.frame_patches, sums)
    weight, first, second = (sums @ decay).unbind(dim=1)
    location = first / weight.clamp(min=1e-30)
    variance = (second / weight.clamp(min=1e-30) - location.square()).clamp(min=0.0)
    last_step, distances, pairs = _movements(values, observed)
    moved = torch.stack([part.view(patched).sum(dim=2) for part in (distances, pairs)], dim=1)
    recent = moved @ _decay(sums.shape[2], max(1, config.frame_patches // RECENT), sums)
    long_term = moved @ decay
    movement = sum(
        0.5 * distance / count.clamp(min=1e-30)
        for distance, count in (recent.unbind(dim=1), long_term.unbind(dim=1))
    )
    assert isinstance(movement, Tensor)
    moves = long_term[:, 0] > 0
    scale = variance.sqrt().maximum(SMALLEST_SHARE * location.abs())
    scale = torch.where(moves & (scale > 0), scale, 1.0)
    last_step = last_step[:, length - 1 :: length]
    last = values.double().gather(1, last_step.clamp(min=0))
    return Frames(
        location.float(),
        scale.float(),
        (movement / scale).clamp(min=SMALLEST_SHARE).float(),
        torch.where(last_step >= 0, (last - location) / scale, 0.0).float(),
        last_step,
        seen.view(patched).sum(dim=2).cumsum(dim=1).float(),
        moves,
    )


def _decay(num_tokens: int, half_life: int, like: Tensor) -> Float[Tensor, "from to"]:
    """Weight of each patch's sum in each token's: it halves every `half_life` patches."""
    tokens = torch.arange(num_tokens, device=like.device, dtype=like.dtype)
    age = tokens[None, :] - tokens[:, None]
    return torch.where(age >= 0, 0.5 ** (age / half_life), 0.0)


def _movements(
    values: Tensor, observed: Tensor
) -> tuple[Int[Tensor, "series time"], Float[Tensor, "series time"], Float[Tensor, "series time"]]:
    """Step of the last observed value at each step, and its distance from the one before it."""
    steps = torch.arange(values.shape[1], device=values.device)
    last_step = torch.where(observed, steps, -1).cummax(dim=1).values
    before = torch.nn.functional.pad(last_step, (1, 0), value=-1)[:, :-1]
    pairs = observed & (before >= 0)
    distance = (values - values.gather(1, before.clamp(min=0))).abs().double()
    return last_step, distance * pairs, pairs.double()


@dataclass(frozen=True)
class SeasonalLags:
    """For each step that a token predicts, what stood there in past seasons, in the token's frame."""

    latest: Float[Tensor, "series token step period"]
    """A period before, or as few periods as lie in the token's past; 0 where not observed."""
    latest_seen: Bool[Tensor, "series token step period"]
    mean: Float[Tensor, "series token step period"]
    """Mean of what was observed there in some past seasons."""
    mean_seen: Bool[Tensor, "series token step period"]

    def choose(self, tokens: Int[Tensor, "series chosen"]) -> SeasonalLags:
        """The lags of some tokens of each row."""
        rows = torch.arange(len(tokens), device=tokens.device)[:, None]
        return SeasonalLags(*(part[rows, tokens] for part in _parts(self)))


def _parts(record: Frames | SeasonalLags) -> list[Tensor]:
    return [getattr(record, field.name) for field in fields(record)]


def gather_seasons(
    values: Float[Tensor, "series time"],
    observed: Bool[Tensor, "series time"],
    frames: Frames,
    periods: Periods,
    config: CriaConfig,
) -> SeasonalLags:
    """Look whole periods back from each of the steps that each token predicts."""
    series, time = values.shape
    length = config.patch_length
    # Steps predicted by all tokens, one after the other, are one run, a patch later than the window.
    steps = torch.arange(length, time + length, device=values.device)
    known = frames.last_step.repeat_interleave(length, dim=1).unsqueeze(2)
    period = periods.lengths.clamp(min=1).unsqueeze(1)
    ahead = (steps[None, :, None] - known).clamp(min=1)
    nearest = (
        steps[None, :, None] - (ahead + period - 1).div(period, rounding_mode="floor") * period
    )
    back = torch.arange(config.num_seasons, device=values.device)
    places = nearest.unsqueeze(3) - back * period.unsqueeze(3)
    there = (places >= 0) & (periods.lengths > 0)[:, None, :, None]
    flat = places.clamp(min=0).flatten(1)
    seen = observed.gather(1, flat).view(places.shape) & there
    framed = values.gather(1, flat).view(series, -1, length, *places.shape[2:])
    seen = seen.view(framed.shape)
    framed = frames.to_frame(framed) * seen
    count = seen.sum(dim=4)
    return SeasonalLags(
        framed[..., 0], seen[..., 0], framed.sum(dim=4) / count.clamp(min=1), count > 0
    )


def num_features(config: CriaConfig) -> int:
    """Width of a token."""
    length, periods = config.patch_length, config.num_periods
    return 3 * length + length * periods * 6 + 2 * periods + NUM_SCALARS


def make_patch_tokens(
    values: Float[Tensor, "series time"],
    observed: Bool[Tensor, "series time"],
    frames: Frames,
    seasons: SeasonalLags,
    periods: Periods,
    config: CriaConfig,
) -> Float[Tensor, "series token feature"]:
    """Join what a token holds: its patch, seasonal lags of the next, periods, a few scalars.

    Values are told twice, in the frame (where among all that was?) and from the last observed
    value in mean movements (what has changed lately?), both through the inverse hyperbolic sine.
    """
    patched = (len(values), -1, config.patch_length)
    seen = observed.view(patched)
    patch = frames.to_frame(values.view(patched)) * seen
    parts = [patch.asinh(), _locally(patch, frames) * seen, seen.float()]
    for told, there in (
        (seasons.latest, seasons.latest_seen),
        (seasons.mean, seasons.mean_seen),
    ):
        parts += [
            (told.asinh() * there).flatten(2),
            (_locally(told, frames) * there).flatten(2),
            there.float().flatten(2),
        ]
    num_tokens = seen.shape[1]
    told_periods = torch.cat(
        [periods.lengths.float().log1p() / 5.0, periods.strengths.float()], dim=1
    )
    parts += [told_periods[:, None].expand(-1, num_tokens, -1), _scalars(patch, seen, frames)]
    return torch.cat(parts, dim=2)


def _locally(framed: Float[Tensor, "series token *rest"], frames: Frames) -> Tensor:
    """Distance from the last observed value, in mean movements."""
    shape = (*frames.last.shape, *(1,) * (framed.dim() - 2))
    unit = LOCAL_UNITS * frames.movement.view(shape)
    return ((framed - frames.last.view(shape)) / unit).asinh()


def _scalars(patch: Tensor, seen: Tensor, frames: Frames) -> Float[Tensor, "series token 8"]:
    """History and frame in a few numbers of size one."""
    length, num_tokens = patch.shape[2], patch.shape[1]
    ends = torch.arange(1, num_tokens + 1, device=patch.device) * length - 1
    unseen = (ends - frames.last_step).float()
    scale, location = frames.scale, frames.location
    before = torch.cat([scale[:, :1], scale[:, :-1]], dim=1)
    shift = torch.cat([torch.zeros_like(location[:, :1]), location.diff(dim=1)], dim=1)
    return torch.stack(
        [
            frames.movement.log() / 3.0,
            frames.last.asinh(),
            frames.count.log1p() / 4.0,
            frames.count / (ends + 1),
            (unseen / length).log1p(),
            seen.float().mean(dim=2),
            (scale / before).log().clamp(-3.0, 3.0),
            (shift / scale).asinh(),
        ],
        dim=2,
    )
