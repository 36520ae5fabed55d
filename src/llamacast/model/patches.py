"""Make tokens of patches: what each shows, the frame it is seen in, and its seasonal lags.

Every token is seen in a frame of its own, made of what came before its end, so that each position
of a window is a forecast like the last one. Patches without any observed value are how a network
is asked for the future; nothing else tells them from missing data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from llamacast.model.config import CriaConfig
from llamacast.model.periods import Periods

# A frame's scale below this share of its location, or movement of its scale, is rounding.
SMALLEST_SHARE = 1e-6
# Local distances are told in so many usual movements before they count as large.
LOCAL_UNITS = 3.0
# Recent movement: its memory is so many times shorter than the frame's.
RECENT = 8
# A trend goes on for so many steps, growth for so many periods; what lies beyond is the network's.
LONGEST_TREND, MOST_GROWTH = 48, 4
NUM_SCALARS = 10
SMALLEST_WEIGHT = 1e-30


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
    """Usual distance from one observed value to the next, recent and long-term, in scales. Between
    the mean and the squared mean of roots: outliers raise it little, rare events lower it little."""
    trends: Float[Tensor, "series token 2"]
    """Mean change in a step, recent and long-term, in scales."""
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
        return Frames(*_choose(self, tokens))

    def to_frame(self, values: Float[Tensor, "series token *rest"]) -> Tensor:
        shape = (*self.location.shape, *(1,) * (values.dim() - 2))
        return (values - self.location.view(shape)) / self.scale.view(shape)

    def from_frame(self, framed: Float[Tensor, "series token *rest"]) -> Tensor:
        shape = (*self.location.shape, *(1,) * (framed.dim() - 2))
        return framed * self.scale.view(shape) + self.location.view(shape)


def make_frames(
    values: Float[Tensor, "series time"], observed: Bool[Tensor, "series time"], config: CriaConfig
) -> Frames:
    """The frames of all tokens, by exponentially weighted sums over patches.

    A token with nothing observed has the frame of the last one before it that has something.
    """
    length = config.patch_length

    def summed(*parts: Tensor) -> Float[Tensor, "series part token"]:
        rows = [_widest(part).view(len(part), -1, length).sum(dim=2) for part in parts]
        return torch.stack(rows, dim=1)

    def means(sums: Tensor, half_life: int) -> tuple[Tensor, ...]:
        """Of all parts but the first, which is their weight."""
        weight, *others = (sums @ _decay(sums.shape[2], half_life, sums)).unbind(dim=1)
        return tuple(part / weight.clamp(min=SMALLEST_WEIGHT) for part in others)

    known = _widest(values).masked_fill(~observed, 0.0)
    last_step, change, gap = _changes(known, observed)
    of_values = summed(observed, known, known.square())
    size = change.abs()
    of_changes = summed(gap > 0, size, size.sqrt(), change, gap)
    location, square = means(of_values, config.frame_patches)
    recent = means(of_changes, max(1, config.frame_patches // RECENT))
    long_term = means(of_changes, config.frame_patches)
    movement = sum(0.5 * mean.sqrt() * root for mean, root, _, _ in (recent, long_term))
    assert isinstance(movement, Tensor)
    trends = [change / gap.clamp(min=1.0) for _, _, change, gap in (recent, long_term)]
    moves = size.cummax(dim=1).values[:, length - 1 :: length] > 0
    scale = (square - location.square()).clamp(min=0.0).sqrt()
    scale = scale.maximum(SMALLEST_SHARE * location.abs())
    scale = torch.where(moves & (scale > 0), scale, 1.0)
    last_step = last_step[:, length - 1 :: length]
    last = known.gather(1, last_step.clamp(min=0))
    frames = Frames(
        location.float(),
        scale.float(),
        (movement / scale).clamp(min=SMALLEST_SHARE).float(),
        (torch.stack(trends, dim=2) / scale.unsqueeze(2)).float(),
        torch.where(last_step >= 0, (last - location) / scale, 0.0).float(),
        last_step,
        of_values[:, 0].cumsum(dim=1).float(),
        moves,
    )
    # As weights fade alike, only rounding would tell the frames of later tokens apart.
    return frames.choose(last_step.clamp(min=0) // length)


def _widest(values: Tensor) -> Tensor:
    """In the longest floats that the device has: sums of squares lose the differences that count."""
    return values.float() if values.device.type == "mps" else values.double()


def _decay(num_tokens: int, half_life: int, like: Tensor) -> Float[Tensor, "from to"]:
    """Weight of each patch's sum in each token's: it halves every `half_life` patches."""
    tokens = torch.arange(num_tokens, device=like.device, dtype=like.dtype)
    age = tokens[None, :] - tokens[:, None]
    return torch.where(age >= 0, 0.5 ** (age / half_life), 0.0)


def _changes(
    values: Float[Tensor, "series time"], observed: Bool[Tensor, "series time"]
) -> tuple[Int[Tensor, "series time"], Float[Tensor, "series time"], Int[Tensor, "series time"]]:
    """At each step, the step of the last observed value; where it is observed itself, how far it is
    from the one before it, and after how many steps (else 0, and at the first)."""
    steps = torch.arange(values.shape[1], device=values.device)
    last_step = torch.where(observed, steps, -1).cummax(dim=1).values
    before = torch.nn.functional.pad(last_step, (1, 0), value=-1)[:, :-1]
    pairs = observed & (before >= 0)
    change = values - values.gather(1, before.clamp(min=0))
    return last_step, change.masked_fill(~pairs, 0.0), (steps - before) * pairs


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

    def choose(self, tokens: Int[Tensor, "series chosen"]) -> SeasonalLags:
        """The lags of some tokens of each row."""
        return SeasonalLags(*_choose(self, tokens))


def _choose(
    record: Frames | SeasonalLags, tokens: Int[Tensor, "series chosen"]
) -> Iterator[Tensor]:
    rows = torch.arange(len(tokens), device=tokens.device)[:, None]
    return (getattr(record, field.name)[rows, tokens] for field in fields(record))


def gather_seasons(
    values: Float[Tensor, "series time"],
    observed: Bool[Tensor, "series time"],
    frames: Frames,
    periods: Periods,
    config: CriaConfig,
) -> SeasonalLags:
    """Look whole periods (of each token) back from each of the steps that each token predicts."""
    length, num_tokens = config.patch_length, frames.last_step.shape[1]
    first = torch.arange(1, num_tokens + 1, device=values.device) * length
    steps = (first[:, None] + torch.arange(length, device=values.device))[None, :, :, None]
    period = periods.lengths.clamp(min=1).unsqueeze(2)
    ahead = (steps - frames.last_step[:, :, None, None]).clamp(min=1)
    num_back = (ahead + period - 1).div(period, rounding_mode="floor")
    nearest = steps - num_back * period
    seasons = torch.arange(config.num_seasons, device=values.device)
    places = nearest.unsqueeze(4) - seasons * period.unsqueeze(4)
    there = (places >= 0) & (periods.lengths > 0)[:, :, None, :, None]
    flat = places.clamp(min=0).flatten(1)
    seen = observed.gather(1, flat).view(places.shape) & there
    framed = frames.to_frame(values.gather(1, flat).view(places.shape)) * seen
    count = seen.sum(dim=4)
    latest, latest_seen = framed[..., 0], seen[..., 0]
    growth, growth_seen = _growth(values, observed, frames, periods)
    grown_seen = latest_seen & growth_seen.unsqueeze(2)
    grown = latest + num_back.clamp(max=MOST_GROWTH) * growth.unsqueeze(2)
    mean = framed.sum(dim=4) / count.clamp(min=1)
    return SeasonalLags(
        latest, latest_seen, mean, count > 0, grown * grown_seen, grown_seen, growth
    )


def _growth(
    values: Float[Tensor, "series time"],
    observed: Bool[Tensor, "series time"],
    frames: Frames,
    periods: Periods,
) -> tuple[Float[Tensor, "series token period"], Bool[Tensor, "series token period"]]:
    """How far the mean of the last period lies above that of the one before, and where both are known."""
    zero = (1, 0)
    known = _widest(values).masked_fill(~observed, 0.0)
    sums = torch.nn.functional.pad(known.cumsum(dim=1), zero)
    counts = torch.nn.functional.pad(observed.cumsum(dim=1), zero)
    end = (frames.last_step + 1)[..., None]
    bounds = [end - back * periods.lengths for back in range(3)]
    within = (bounds[2] >= 0) & (periods.lengths > 0)
    at = [bound.clamp(min=0).flatten(1).expand(-1, periods.lengths[0].numel()) for bound in bounds]
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


def num_features(config: CriaConfig) -> int:
    """Width of a token."""
    length, periods = config.patch_length, config.num_periods
    return 3 * length + length * periods * 6 + 4 * periods + NUM_SCALARS


def make_patch_tokens(
    values: Float[Tensor, "series time"],
    observed: Bool[Tensor, "series time"],
    frames: Frames,
    seasons: SeasonalLags,
    periods: Periods,
    config: CriaConfig,
) -> Float[Tensor, "series token feature"]:
    """Join what a token holds: its patch, seasonal lags of the next, periods, a few scalars.

    A token with nothing observed holds the last patch that has something. Values are told twice, in
    the frame (where among all that was?) and from the last observed value in usual movements (what
    has changed lately?), both through the inverse hyperbolic sine.
    """
    patched = (len(values), -1, config.patch_length)
    holder = frames.last_step.clamp(min=0) // config.patch_length
    rows = torch.arange(len(values), device=values.device)[:, None]
    seen = observed.view(patched)[rows, holder]
    patch = frames.to_frame(values.view(patched)[rows, holder]) * seen
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
    unit = LOCAL_UNITS * frames.movement.unsqueeze(2)
    parts += [
        periods.lengths.float().log1p() / 5.0,
        periods.strengths.float(),
        _scalars(observed.view(patched), frames),
        seasons.growth.asinh(),
        (seasons.growth / unit).asinh(),
    ]
    return torch.cat(parts, dim=2)


def _locally(framed: Float[Tensor, "series token *rest"], frames: Frames) -> Tensor:
    """Distance from the last observed value, in usual movements."""
    shape = (*frames.last.shape, *(1,) * (framed.dim() - 2))
    unit = LOCAL_UNITS * frames.movement.view(shape)
    return ((framed - frames.last.view(shape)) / unit).asinh()


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


def extrapolate(frames: Frames, config: CriaConfig) -> Float[Tensor, "series token step trend"]:
    """Where the last value goes by recent and by long-term trends at the steps each token predicts."""
    length, num_tokens = config.patch_length, frames.last_step.shape[1]
    first = torch.arange(1, num_tokens + 1, device=frames.last_step.device) * length
    steps = first[:, None] + torch.arange(length, device=first.device)
    ahead = (steps - frames.last_step.unsqueeze(2)).clamp(1, LONGEST_TREND)
    return frames.last[..., None, None] + ahead.unsqueeze(3) * frames.trends.unsqueeze(2)
