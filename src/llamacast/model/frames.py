"""The frame that each token is seen in: where it measures from, and in which units.

A frame is made of what came before its token's end and nothing else, so each position of a window
is a forecast like the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from llamacast.model.config import CriaConfig
from llamacast.model.running import running_most

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# A frame's scale below this share of its location, or movement of its scale, is rounding.
SMALLEST_SHARE = 1e-6
SMALLEST_WEIGHT = 1e-30
FEWEST_OBSERVED = 4
"""Values before a step without which nothing is learnt from it."""
# Recent movement: its memory is so many times shorter than the frame's.
RECENT = 8
# A trend goes on for so many steps; what lies beyond is the network's.
LONGEST_TREND = 48
# Local distances are told in so many usual movements before they count as large.
LOCAL_UNITS = 3.0


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
        return Frames(*all_at_tokens(tensors_of(self), tokens))

    @property
    def tells(self) -> Bool[Tensor, "series token"]:
        """Whether enough was observed, and moves, for something to be learnt from a forecast."""
        return self.moves & (self.count >= FEWEST_OBSERVED)

    def to_frame(self, values: Float[Tensor, "series token *rest"]) -> Tensor:
        return (values - _along(self.location, values)) / _along(self.scale, values)

    def in_movements(self, framed: Float[Tensor, "series token *rest"]) -> Tensor:
        """Distance of framed values from the last observed one, in usual movements, large ones as
        their logarithm."""
        unit = LOCAL_UNITS * _along(self.movement, framed)
        return ((framed - _along(self.last, framed)) / unit).asinh()

    def from_frame(self, framed: Float[Tensor, "series token *rest"]) -> Tensor:
        return framed * _along(self.scale, framed) + _along(self.location, framed)


def tensors_of(part: DataclassInstance) -> list[Tensor]:
    """What a dataclass of tensors holds, in its order."""
    return [getattr(part, field.name) for field in fields(part)]


def _along(part: Float[Tensor, "series token"], values: Tensor) -> Tensor:
    """A number for each token, to go with all that `values` hold for it."""
    return part.view(*part.shape, *(1,) * (values.dim() - 2))


def at_tokens(
    part: Shaped[Tensor, "series token *rest"], tokens: Int[Tensor, "series chosen"]
) -> Shaped[Tensor, "series chosen *rest"]:
    """What belongs to some tokens of each row."""
    return all_at_tokens([part], tokens)[0]


def all_at_tokens(
    parts: Sequence[Shaped[Tensor, "series token *_"]], tokens: Int[Tensor, "series chosen"]
) -> list[Shaped[Tensor, "series chosen *_"]]:
    """What of each of several parts belongs to some tokens of each row."""
    # By one index, along one axis: torch takes many times longer over two.
    rows = torch.arange(tokens.shape[0], device=tokens.device)[:, None] * parts[0].shape[1]
    places = (rows + tokens).flatten()
    return [
        part.flatten(0, 1).index_select(0, places).view(*tokens.shape, *part.shape[2:])
        for part in parts
    ]


def make_frames(
    values: Float[Tensor, "series time"], observed: Bool[Tensor, "series time"], config: CriaConfig
) -> Frames:
    """The frames of all tokens, by exponentially weighted sums over patches.

    A token with nothing observed has the frame of the last one before it that has something.
    """
    length = config.patch_length
    tokens = torch.arange(values.shape[1] // length, device=values.device)
    if not torch.compiler.is_exporting():  # where what is to be done must not depend on the data
        # Weights of patches in tokens are many: there are none of a far future's.
        steps = torch.arange(values.shape[1], device=values.device)
        last_token = int(torch.where(observed, steps, 0).max()) // length
        tokens = tokens.clamp(max=last_token)
        end = (last_token + 1) * length
        values, observed = values[:, :end], observed[:, :end]

    def summed(*parts: Tensor) -> Float[Tensor, "series part token"]:
        rows = [widest(part).unflatten(1, (-1, length)).sum(dim=2) for part in parts]
        return torch.stack(rows, dim=1)

    def means(sums: Tensor, decay: Tensor) -> tuple[Tensor, ...]:
        """Of all parts but the first, which is their weight."""
        weight, *others = (sums @ decay).unbind(dim=1)
        return tuple(part / weight.clamp(min=SMALLEST_WEIGHT) for part in others)

    known = widest(values).masked_fill(~observed, 0.0)
    last_step, change, gap = _changes(known, observed)
    of_values = summed(observed, known, known.square())
    size = change.abs()
    of_changes = summed(gap > 0, size, size.sqrt(), change, gap)
    half_lives = config.frame_patches, max(1, config.frame_patches // RECENT)
    slow, fast = (_decay(of_values.shape[2], half_life, of_values) for half_life in half_lives)
    location, square = means(of_values, slow)
    recent, long_term = means(of_changes, fast), means(of_changes, slow)
    movement = sum(0.5 * mean.sqrt() * root for mean, root, _, _ in (recent, long_term))
    assert isinstance(movement, Tensor)
    trends = [change / gap.clamp(min=1.0) for _, _, change, gap in (recent, long_term)]
    moves = running_most(size)[:, length - 1 :: length] > 0
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
    return frames.choose((last_step.clamp(min=0) // length)[:, tokens])


def widest(values: Tensor) -> Tensor:
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
    last_step = running_most(torch.where(observed, steps, -1))
    before = torch.nn.functional.pad(last_step, (1, 0), value=-1)[:, :-1]
    pairs = observed & (before >= 0)
    change = values - values.gather(1, before.clamp(min=0))
    return last_step, change.masked_fill(~pairs, 0.0), (steps - before) * pairs


def extrapolate(frames: Frames, config: CriaConfig) -> Float[Tensor, "series token step trend"]:
    """Where the last value goes by recent and by long-term trends at the steps each token predicts."""
    length, num_tokens = config.patch_length, frames.last_step.shape[1]
    first = torch.arange(1, num_tokens + 1, device=frames.last_step.device) * length
    steps = first[:, None] + torch.arange(length, device=first.device)
    ahead = (steps - frames.last_step.unsqueeze(2)).clamp(1, LONGEST_TREND)
    return frames.last[..., None, None] + ahead.unsqueeze(3) * frames.trends.unsqueeze(2)
