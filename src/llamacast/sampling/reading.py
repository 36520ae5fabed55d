"""What networks make of contexts before they say anything: hidden vectors, and what is attended to."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from llamacast.model.cria import Cria
from llamacast.model.lag_llama import LagLlama
from llamacast.model.tokens import Lags
from llamacast.model.transformer import Attend, CausalAttention
from llamacast.sampling.decoder import run_context
from llamacast.sampling.patched import look


@dataclass(frozen=True)
class Reading:
    """Of some contexts, on the CPU."""

    hidden: Float[Tensor, "series token width"]
    """The transformer's last vectors."""
    told: Bool[Tensor, "series token"]
    """Tokens that hold something observed."""
    last: Int[Tensor, " series"]
    """The newest token of each."""

    @property
    def mean(self) -> Float[Tensor, "series width"]:
        """Mean over the tokens that hold something observed."""
        count = self.told.sum(dim=1, keepdim=True).clamp(min=1)
        return (self.hidden * self.told.unsqueeze(2)).sum(dim=1) / count

    @property
    def newest(self) -> Float[Tensor, "series width"]:
        return self.hidden[torch.arange(len(self.hidden)), self.last]


@torch.inference_mode()
def read_values(
    model: LagLlama,
    values: Float[Tensor, "series history"],
    observed: Bool[Tensor, "series history"],
    calendar: Float[Tensor, "series step feature"],
) -> Reading:
    """`values` are float64; `calendar` describes the context's steps and the one after them."""
    device = model.transformer.norm.weight.device
    window = model.scale_window(values, observed).to(device)
    tokens, turn, _ = model.inputs(window, calendar.to(device))
    hidden = run_context(model.transformer, tokens, turn).float().cpu()
    num_tokens = hidden.shape[1]
    last = torch.full((len(hidden),), num_tokens - 1)
    return Reading(hidden, observed[:, -num_tokens:], last)


@torch.inference_mode()
def read_patches(
    model: Cria,
    values: Float[Tensor, "series time"],
    observed: Bool[Tensor, "series time"],
    seasons: Int[Tensor, "series season"],
) -> Reading:
    """`values` are float64; `seasons` are periods that the calendar suggests, 0 for none."""
    seen = look(model, values, observed, seasons)
    hidden = run_context(model.transformer, *model.inputs(seen.window)).float().cpu()
    patched = seen.window.observed.unflatten(1, (-1, model.config.patch_length))
    return Reading(hidden, patched.any(dim=2).cpu(), seen.num_tokens - 1)


class WatchedAttention:
    """Causal attention that keeps what the newest token of each layer attends to."""

    def __init__(self) -> None:
        self.weights: list[Float[Tensor, "series head token"]] = []
        self._attend: Attend = CausalAttention()

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        scores = query[..., -1:, :] @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        self.weights.append(scores.softmax(dim=-1).squeeze(-2))
        return self._attend(layer, query, key, value)


@dataclass(frozen=True)
class Attention:
    """What the forecast of one series drew on, on the CPU."""

    weights: Float[Tensor, "layer head token"]
    """Shares, which add up to 1, of the newest token's attention."""
    importance: Float[Tensor, " part"]
    """By how much the median of the next step, or patch, changes when a part of what is known is
    hidden, in widths of the 80 % interval."""


@torch.inference_mode()
def attend_values(
    model: LagLlama,
    values: Float[Tensor, "1 history"],
    observed: Bool[Tensor, "1 history"],
    calendar: Float[Tensor, "1 step feature"],
) -> Attention:
    """Of one series; the parts are the lags, hidden from all tokens one at a time."""
    device = model.transformer.norm.weight.device
    window = model.scale_window(values, observed).to(device)
    tokens, turn, lags = model.inputs(window, calendar.to(device))
    watched = WatchedAttention()
    whole = model.transformer(tokens, turn, watched)[:, -1:]
    told = model.distribution(whole, lags.last(1), window.scale)
    middle, low, high = (told.quantile(_full(q, told.mean)) for q in (0.5, 0.1, 0.9))
    width = (high - low).clamp(min=torch.finfo(high.dtype).tiny)
    found = []
    for number in range(len(model.config.lags)):
        hidden_lags = _without(lags, number)
        changed = model.tokens(window, calendar.to(device), hidden_lags)
        hidden = run_context(model.transformer, changed, turn)[:, -1:]
        other = model.distribution(hidden, hidden_lags.last(1), window.scale)
        found.append(((other.quantile(_full(0.5, other.mean)) - middle) / width).abs().mean())
    weights = torch.stack([weight[0] for weight in watched.weights])
    return Attention(weights.cpu(), torch.stack(found).float().cpu())


def _without(lags: Lags, number: int) -> Lags:
    """A lag hidden: not observed, and as the next older one, as a missing value would be."""
    values, observed = lags.values.clone(), lags.observed.clone()
    older = values[..., number + 1] if number + 1 < values.shape[-1] else 0.0
    values[..., number], observed[..., number] = older, False
    return Lags(values, observed)


def _full(level: float, like: Tensor) -> Tensor:
    return torch.full_like(like, level, dtype=torch.float64)


@torch.inference_mode()
def attend_patches(
    model: Cria,
    values: Float[Tensor, "1 time"],
    observed: Bool[Tensor, "1 time"],
    seasons: Int[Tensor, "1 season"],
) -> Attention:
    """Of one series; the parts are its patches, hidden one at a time."""
    seen, length = look(model, values, observed, seasons), model.config.patch_length
    whole, count = seen.window, int(seen.num_tokens)
    # The whole, and then without each patch.
    without = whole.observed.repeat(count + 1, 1)
    for number in range(count):
        without[number + 1, number * length : (number + 1) * length] = False
    rows = whole.values.expand(count + 1, -1)
    window = model.window(rows, without, whole.seasons.expand(count + 1, -1))
    tokens, turn = model.inputs(window)
    watched = WatchedAttention()
    model.transformer(tokens[:1], turn, watched)
    hidden = run_context(model.transformer, tokens, turn)[:, -1:]
    outlook = window.outlook.choose(torch.full((count + 1, 1), count - 1, device=rows.device))
    told = outlook.frames.from_frame(model.quantiles(hidden, outlook))[:, 0]
    low, middle, high = (told[..., (model.levels - q).abs().argmin()] for q in (0.1, 0.5, 0.9))
    width = (high[:1] - low[:1]).clamp(min=torch.finfo(told.dtype).tiny)
    importance = ((middle[1:] - middle[:1]) / width).abs().mean(dim=1)
    weights = torch.stack([weight[0] for weight in watched.weights])
    return Attention(weights.cpu(), importance.float().cpu())
