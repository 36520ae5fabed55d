"""Keys and values kept between steps: a prefix that all samples of a series share, a tail for each.

Both are ways to attend (`transformer.Attend`): the transformer calls them, the engine owns them.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from llamacast.model.config import LagLlamaConfig
from llamacast.model.transformer import CausalAttention


class PrefixCache:
    """Plain causal attention that keeps the turned keys and the values of every layer."""

    def __init__(self) -> None:
        self.keys: list[Float[Tensor, "series head prefix head_width"]] = []
        self.values: list[Float[Tensor, "series head prefix head_width"]] = []
        self._attend = CausalAttention()

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        assert layer == len(self.keys), "a prefix is filled once, layer by layer"
        self.keys.append(key)
        self.values.append(value)
        return self._attend(layer, query, key, value)


class SampleCache:
    """Attention of one new step of each sample to its series' prefix and to its own tail.

    A tail grows by one step each time every layer has been called; nothing is ever dropped, so
    the result is that of plain causal attention over the whole sequence.
    """

    def __init__(self, prefix: PrefixCache, num_samples: int, tail_length: int) -> None:
        self.prefix = prefix
        series, head, _, head_width = prefix.keys[0].shape
        shape = (len(prefix.keys), series, head, num_samples, tail_length, head_width)
        self.keys = prefix.keys[0].new_empty(shape)
        self.values = prefix.keys[0].new_empty(shape)
        self.length = 0

    def advance(self) -> None:
        """Make room for the next step; call before the transformer."""
        self.length += 1

    def __call__(
        self,
        layer: int,
        query: Float[Tensor, "series sample head 1 head_width"],
        key: Float[Tensor, "series sample head 1 head_width"],
        value: Float[Tensor, "series sample head 1 head_width"],
    ) -> Float[Tensor, "series sample head 1 head_width"]:
        query, key, value = (part.squeeze(-2).transpose(1, 2) for part in (query, key, value))
        self.keys[layer, ..., self.length - 1, :] = key
        self.values[layer, ..., self.length - 1, :] = value
        tail_keys = self.keys[layer, ..., : self.length, :]
        tail_values = self.values[layer, ..., : self.length, :]

        query = query * query.shape[-1] ** -0.5
        # All samples of a series meet its prefix in one matrix product for each head.
        prefix = (query @ self.prefix.keys[layer].mT).float()
        tail = (query.unsqueeze(-2) @ tail_keys.mT).squeeze(-2).float()
        # One softmax over both parts, without joining them.
        largest = prefix.amax(dim=-1, keepdim=True).maximum(tail.amax(dim=-1, keepdim=True))
        prefix, tail = prefix.sub_(largest).exp_(), tail.sub_(largest).exp_()
        total = prefix.sum(dim=-1, keepdim=True) + tail.sum(dim=-1, keepdim=True)
        attended = prefix.to(query.dtype) @ self.prefix.values[layer]
        attended += (tail.to(query.dtype).unsqueeze(-2) @ tail_values).squeeze(-2)
        return (attended / total).to(query.dtype).transpose(1, 2).unsqueeze(-2)


def bytes_per_sample(
    config: LagLlamaConfig, context_length: int, horizon: int, element_bytes: int
) -> int:
    """Memory that one sample path of one series needs while it is drawn."""
    tail = 2 * config.num_layers * config.width * horizon * element_bytes
    values = (config.max_lag + 1 + horizon) * 4
    # One token on its way through a block: features, residual stream, SwiGLU; scores twice.
    moving = (4 * config.num_features + 8 * config.width + 3 * config.feedforward_width) * 4
    scores = 2 * config.num_heads * (context_length + horizon) * 4
    return tail + values + moving + scores


def bytes_per_series(config: LagLlamaConfig, context_length: int, element_bytes: int) -> int:
    """Memory that one series needs beside its samples: its prefix, and its way through prefill."""
    prefix = 2 * config.num_layers * config.width * context_length * element_bytes
    moving = (2 * config.num_features + 6 * config.width + 3 * config.feedforward_width) * 4
    return prefix + moving * context_length
