"""Keys and values kept between steps: a prefix that all samples of a series share, a tail for each.

Both are ways to attend (`transformer.Attend`): the transformer calls them, the engine owns them.
"""

from __future__ import annotations

import torch
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
        shape = (len(prefix.keys), series, num_samples, head, tail_length, head_width)
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
        self.keys[layer, ..., self.length - 1, :] = key.squeeze(-2)
        self.values[layer, ..., self.length - 1, :] = value.squeeze(-2)
        tail_keys = self.keys[layer, ..., : self.length, :]
        tail_values = self.values[layer, ..., : self.length, :]
        prefix_keys, prefix_values = self.prefix.keys[layer], self.prefix.values[layer]

        query = query * query.shape[-1] ** -0.5
        # All samples of a series meet its prefix in one matrix product for each head.
        by_head = query.squeeze(-2).transpose(1, 2)
        prefix_scores = (by_head @ prefix_keys.mT).transpose(1, 2).unsqueeze(-2)
        scores = torch.cat([prefix_scores, query @ tail_keys.mT], dim=-1)
        weights = scores.float().softmax(dim=-1).to(scores.dtype)
        prefix_weights, tail_weights = weights.split([prefix_keys.shape[-2], self.length], dim=-1)
        from_prefix = prefix_weights.squeeze(-2).transpose(1, 2) @ prefix_values
        return from_prefix.transpose(1, 2).unsqueeze(-2) + tail_weights @ tail_values


def bytes_per_sample(
    config: LagLlamaConfig, context_length: int, horizon: int, element_bytes: int
) -> int:
    """Memory that one sample path of one series needs while it is drawn."""
    tail = 2 * config.num_layers * config.width * horizon * element_bytes
    values = (config.max_lag + 1 + horizon) * 4
    # One token on its way through a block: features, residual stream, SwiGLU; scores four times
    # (apart, joined, as weights, parted).
    moving = (4 * config.num_features + 8 * config.width + 3 * config.feedforward_width) * 4
    scores = 4 * config.num_heads * (context_length + horizon) * 4
    return tail + values + moving + scores


def bytes_per_series(config: LagLlamaConfig, context_length: int, element_bytes: int) -> int:
    """Memory that one series needs beside its samples: its prefix, and its way through prefill."""
    prefix = 2 * config.num_layers * config.width * context_length * element_bytes
    moving = (2 * config.num_features + 6 * config.width + 3 * config.feedforward_width) * 4
    return prefix + moving * context_length
