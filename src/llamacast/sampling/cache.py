"""Keys and values kept between steps: a prefix that all samples of a series share, a tail for each.

Both are ways to attend (`transformer.Attend`): the transformer calls them, the engine owns them.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from llamacast.model.config import LagLlamaConfig
from llamacast.model.transformer import CausalAttention

Found = tuple[Float[Tensor, "series head sample head_width"], Float[Tensor, "series head sample"]]

# Private to torch, so it may be gone one day: what its public attention calls, which keeps the
# logarithm to itself.
FLASH_ATTENTION = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
# Multiplications in a product below which torch's batched product on the CPU is a plain loop.
SMALLEST_BATCHED_PRODUCT = 400


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

    def choose(self, series: slice) -> PrefixCache:
        """The prefixes of some series."""
        chosen = PrefixCache()
        chosen.keys = [keys[series] for keys in self.keys]
        chosen.values = [values[series] for values in self.values]
        return chosen


class SampleCache:
    """Attention of one new step of each sample to its series' prefix and to its own tail.

    A tail grows by one step each time every layer has been called; nothing is ever dropped, so
    the result is that of plain causal attention over the whole sequence. Tails lie in blocks of
    equal length (on the CPU see `block_length`), each made when the one before is full.
    """

    def __init__(self, prefix: PrefixCache, num_samples: int, tail_length: int) -> None:
        self.prefix = prefix
        series, head, _, head_width = prefix.keys[0].shape
        self.on_cpu = prefix.keys[0].device.type == "cpu"
        tiles = (
            self.on_cpu and prefix.keys[0].dtype == torch.float32 and FLASH_ATTENTION is not None
        )
        self._attend_prefix = attend_prefix_in_tiles if tiles else attend_prefix
        self.block_length = block_length(tail_length, head_width) if self.on_cpu else tail_length
        self._shape = (len(prefix.keys), series, head, num_samples, self.block_length, head_width)
        self.keys: list[Float[Tensor, "layer series head sample block head_width"]] = []
        self.values: list[Float[Tensor, "layer series head sample block head_width"]] = []
        self.length = 0

    def advance(self) -> None:
        """Make room for the next step; call before the transformer."""
        if self.length == len(self.keys) * self.block_length:
            # Room that is not taken yet is read on the CPU: what its keys score is overwritten, but
            # its values are weighted with zero, which must not meet what is not a number.
            self.keys.append(self.prefix.keys[0].new_empty(self._shape))
            self.values.append(self.prefix.keys[0].new_zeros(self._shape))
        self.length += 1

    def __call__(
        self,
        layer: int,
        query: Float[Tensor, "series sample head 1 head_width"],
        key: Float[Tensor, "series sample head 1 head_width"],
        value: Float[Tensor, "series sample head 1 head_width"],
    ) -> Float[Tensor, "series sample head 1 head_width"]:
        query, key, value = (part.squeeze(-2).transpose(1, 2) for part in (query, key, value))
        taken = self.length - (len(self.keys) - 1) * self.block_length
        self.keys[-1][layer, ..., taken - 1, :] = key
        self.values[-1][layer, ..., taken - 1, :] = value
        read = self.block_length if self.on_cpu else taken

        query = query * query.shape[-1] ** -0.5
        # All samples of a series meet its prefix together; for the softmax over a tail, what they
        # found there is one step more, whose score is the logarithm of its total weight.
        found, score = self._attend_prefix(
            query, self.prefix.keys[layer], self.prefix.values[layer]
        )
        scores = [score.unsqueeze(-1)]
        for block in self.keys:
            met = query.unsqueeze(-2) @ block[layer, ..., :read, :].mT
            scores.append(met.squeeze(-2).float())
        scores[-1][..., taken:] = -math.inf
        weights = torch.cat(scores, dim=-1).softmax(dim=-1)
        found = found * weights[..., :1]
        blocks = weights[..., 1:].to(query.dtype).split(read, dim=-1)
        for part, block in zip(blocks, self.values, strict=True):
            found += (part.unsqueeze(-2) @ block[layer, ..., :read, :]).squeeze(-2)
        return found.to(query.dtype).transpose(1, 2).unsqueeze(-2)


def attend_prefix(
    query: Float[Tensor, "series head sample head_width"],
    keys: Float[Tensor, "series head prefix head_width"],
    values: Float[Tensor, "series head prefix head_width"],
) -> Found:
    """Softmax attention of scaled queries, and the logarithm of the sum of its exponentials."""
    scores = (query @ keys.mT).float()
    largest = scores.amax(dim=-1, keepdim=True)
    weights = scores.sub_(largest).exp_()
    total = weights.sum(dim=-1, keepdim=True)
    attended = (weights.to(query.dtype) @ values) / total
    return attended, (largest + total.log()).squeeze(-1)


def attend_prefix_in_tiles(query: Tensor, keys: Tensor, values: Tensor) -> Found:
    """The same by torch's flash attention for the CPU, in float32."""
    assert FLASH_ATTENTION is not None
    attended, logarithm = FLASH_ATTENTION(query, keys, values, 0.0, False, scale=1.0)
    return attended, logarithm


def block_length(tail_length: int, head_width: int) -> int:
    """Steps in each block of a tail on the CPU; the last block may have room to spare.

    There, torch leaves small products to a slow loop, so a block is never smaller; and a product
    is slow over parts of rows that lie apart, so blocks are read whole, and hence not much larger.
    """
    smallest = math.ceil(SMALLEST_BATCHED_PRODUCT / head_width)
    return max(smallest, math.ceil(tail_length / max(1, tail_length // smallest)))


def bytes_per_sample(
    config: LagLlamaConfig, context_length: int, horizon: int, element_bytes: int
) -> int:
    """Memory that one sample path of one series needs while it is drawn."""
    tail_length = max(1, horizon - 1)
    block = block_length(tail_length, config.head_width)
    room = math.ceil(tail_length / block) * block
    tail = 2 * config.num_layers * config.width * room * element_bytes
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
