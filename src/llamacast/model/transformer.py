"""The LLaMA decoder: RMSNorm, rotary positions, causal attention, SwiGLU."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from llamacast.model.config import TransformerShape

NORM_EPSILON = 1e-5
ROTARY_BASE = 10000.0


def full_precision(like: Tensor) -> AbstractContextManager[None]:
    """Where training in mixed precision keeps float32."""
    return torch.autocast(like.device.type, enabled=False)


@runtime_checkable
class Attend(Protocol):
    """How queries meet keys and values: plainly causal, or over keys kept from before.

    The owner of a cache (the sampling engine) passes one in; layers are told apart by number.
    """

    def __call__(
        self,
        layer: int,
        query: Float[Tensor, "... head time head_width"],
        key: Float[Tensor, "... head time head_width"],
        value: Float[Tensor, "... head time head_width"],
    ) -> Float[Tensor, "... head time head_width"]: ...


class CausalAttention:
    """Attention of a whole sequence to itself, each step to its past; keeps nothing."""

    def __init__(self, dropout: float = 0.0) -> None:
        self.dropout = dropout

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if query.device.type != "cpu":
            return self._attend(query, key, value)
        # torch's attention on the CPU goes back three times slower in bfloat16 than in float32.
        with full_precision(query):
            return self._attend(query.float(), key.float(), value.float()).to(value.dtype)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, dropout_p=self.dropout
        )


Rotation = tuple[Float[Tensor, "time head_width"], Float[Tensor, "time head_width"]]


def rotation(
    positions: Int[Tensor, " time"], sequence_length: int, config: TransformerShape
) -> Rotation | None:
    """Cosines and sines that turn queries and keys at `positions`; None for no rotation.

    Nothing is stored, so a long sequence never changes a later short one. Dynamic NTK (the base
    grows with length, as in the official code) takes the length that the sequence will have at
    its end, `sequence_length`, so that keys turned early stay valid while it grows.
    """
    if config.rotary == "absent":
        return None
    width, base, factor = config.head_width, ROTARY_BASE, config.rotary_factor
    if config.rotary == "dynamic" and sequence_length > config.max_context_length:
        stretch = factor * sequence_length / config.max_context_length - (factor - 1)
        base *= stretch ** (width / (width - 2))
    pairs = torch.arange(0, width, 2, device=positions.device, dtype=torch.float32)
    times = positions.float()
    if config.rotary == "linear":
        times = times / factor
    angles = torch.outer(times, 1.0 / base ** (pairs / width)).repeat(1, 2)
    return angles.cos(), angles.sin()


def rotate(vectors: Float[Tensor, "... time head_width"], turn: Rotation) -> Tensor:
    """Turn the first half of each vector against its second half."""
    first, second = vectors.chunk(2, dim=-1)
    cosine, sine = turn
    return vectors * cosine + torch.cat([-second, first], dim=-1) * sine


class RMSNorm(nn.Module):
    """Divide by the root mean square, then scale each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, hidden: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
        return functional.rms_norm(hidden, self.weight.shape, self.weight, NORM_EPSILON)


class SelfAttention(nn.Module):
    def __init__(self, config: TransformerShape) -> None:
        super().__init__()
        self.num_heads, self.head_width = config.num_heads, config.head_width
        self.query = nn.Linear(config.width, config.width, bias=False)
        self.key = nn.Linear(config.width, config.width, bias=False)
        self.value = nn.Linear(config.width, config.width, bias=False)
        self.output = nn.Linear(config.width, config.width, bias=False)

    def forward(
        self,
        hidden: Float[Tensor, "... time width"],
        layer: int,
        turn: Rotation | None,
        attend: Attend,
    ) -> Float[Tensor, "... time width"]:
        query, key = self.heads(self.query(hidden)), self.heads(self.key(hidden))
        if turn is not None:
            query, key = rotate(query, turn), rotate(key, turn)
        attended = attend(layer, query, key, self.heads(self.value(hidden)))
        return self.output(attended.transpose(-2, -3).flatten(start_dim=-2))

    def heads(self, projected: Tensor) -> Float[Tensor, "... head time head_width"]:
        return projected.unflatten(-1, (self.num_heads, self.head_width)).transpose(-2, -3)


class SwiGLU(nn.Module):
    def __init__(self, config: TransformerShape) -> None:
        super().__init__()
        self.gate = nn.Linear(config.width, config.feedforward_width, bias=False)
        self.up = nn.Linear(config.width, config.feedforward_width, bias=False)
        self.down = nn.Linear(config.feedforward_width, config.width, bias=False)

    def forward(self, hidden: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
        return self.down(functional.silu(self.gate(hidden)) * self.up(hidden))


class Block(nn.Module):
    def __init__(self, config: TransformerShape) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width)
        self.attention = SelfAttention(config)
        self.feedforward_norm = RMSNorm(config.width)
        self.feedforward = SwiGLU(config)

    def forward(self, hidden: Tensor, layer: int, turn: Rotation | None, attend: Attend) -> Tensor:
        hidden = hidden + self.attention(self.attention_norm(hidden), layer, turn, attend)
        return hidden + self.feedforward(self.feedforward_norm(hidden))


class Transformer(nn.Module):
    """Tokens in, one hidden vector for each out."""

    def __init__(self, config: TransformerShape, embed: nn.Module) -> None:
        """`embed` turns a token's features into a vector of the transformer's width."""
        super().__init__()
        self.config = config
        self.embed = embed
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.width)

    def forward(
        self,
        tokens: Float[Tensor, "... time feature"],
        turn: Rotation | None,
        attend: Attend,
    ) -> Float[Tensor, "... time width"]:
        """Blocks compute in the precision of their weights; takes and answers in that of the tokens."""
        compute = self.norm.weight.dtype
        turn = turn and (turn[0].to(compute), turn[1].to(compute))
        embed = next(self.embed.parameters()).dtype
        hidden = self.embed(tokens.to(embed)).to(compute)
        for layer, block in enumerate(self.blocks):
            hidden = block(hidden, layer, turn, attend)
        return self.norm(hidden).to(tokens.dtype)


@torch.no_grad()
def draw_weights(
    network: nn.Module,
    num_layers: int,
    small: tuple[str, ...],
    generator: torch.Generator | None = None,
) -> None:
    """Draw weights: deviation 1/sqrt(inputs), residual outputs shrunk by depth, biases 0, norms 1.

    Those whose names begin with one of `small` are a tenth as large, so that a network begins with
    its anchors.
    """
    for name, weight in network.named_parameters():
        if name.endswith("slope.weight"):
            continue
        if weight.dim() < 2:
            weight.fill_(0.0 if name.endswith("bias") else 1.0)
            continue
        deviation = 1.0 / math.sqrt(weight.shape[1])
        if name.endswith(("output.weight", "down.weight")):
            deviation /= math.sqrt(2 * num_layers)
        if name.startswith(small):
            deviation *= 0.1
        weight.normal_(0.0, deviation, generator=generator)
