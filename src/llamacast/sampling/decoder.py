"""Ways to run a transformer, over contexts and over newest steps: native code on a CPU, else torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from llamacast.model.transformer import CausalAttention, Rotation, Transformer
from llamacast.sampling.cache import PrefixCache, SampleCache
from llamacast.sampling.native import NativeDecoder, native_weights


def run_context(
    transformer: Transformer,
    tokens: Float[Tensor, "series time feature"],
    turn: Rotation | None,
    prefix: PrefixCache | None = None,
) -> Float[Tensor, "series time width"]:
    """What a transformer makes of whole contexts; keys and values are left in `prefix`."""
    weights = None if torch.is_grad_enabled() else native_weights(transformer)
    if weights is not None:
        return weights.run(tokens, turn, prefix)
    hidden: Tensor = transformer(tokens, turn, CausalAttention() if prefix is None else prefix)
    return hidden


# Native products are as fast with few rows as with many, and the tails of few paths are more often
# in the processor's caches; but each step costs Python some time, whatever the number.
ROWS_TOGETHER = 100


@runtime_checkable
class Decoder(Protocol):
    """Samples of the series of a prefix; each call is a step, and remembered."""

    def __call__(
        self, tokens: Float[Tensor, "series sample feature"], turn: Rotation | None
    ) -> Float[Tensor, "series sample width"]:
        """What the transformer makes of the newest token of each sample, turned to its position."""
        ...


class TorchDecoder:
    """By the transformer's own modules, on any device and in any precision."""

    def __init__(
        self, transformer: Transformer, prefix: PrefixCache, num_samples: int, tail_length: int
    ) -> None:
        self.transformer = transformer
        self.cache = SampleCache(prefix, num_samples, tail_length)

    def __call__(self, tokens: Tensor, turn: Rotation | None) -> Tensor:
        self.cache.advance()
        hidden: Tensor = self.transformer(tokens.unsqueeze(2), turn, self.cache)
        return hidden.squeeze(2)


@dataclass(frozen=True)
class Decoders:
    """How to decode any share of the samples that follow a prefix."""

    make: Callable[[slice, int, int], Decoder]
    """For some series: a number of samples of each, with room for a number of steps."""
    rows_together: int | None
    """Paths that are best decoded side by side; None for as many as there is memory for."""


def decoders_after(transformer: Transformer, prefix: PrefixCache) -> Decoders:
    """The fastest that run here."""
    weights = native_weights(transformer)

    def make(series: slice, num_samples: int, tail_length: int) -> Decoder:
        chosen = prefix.choose(series)
        if weights is None:
            return TorchDecoder(transformer, chosen, num_samples, tail_length)
        return NativeDecoder(weights, chosen, num_samples, tail_length)

    return Decoders(make, None if weights is None else ROWS_TOGETHER)
