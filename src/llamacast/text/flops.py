"""Floating point operations of a decoder of Qwen2's class, told primitive by primitive, beforehand.

The convention: an addition, multiplication or division counts 1, `exp`, `log`, `sqrt`, `sin` and `cos`
10; a product of `(m, n)` and `(n, p)` counts `m p (2 n - 1)`; a backward pass twice a forward one;
grouped keys and values as if each query head had its own. Reckoning positions is free, adding them is
not. `grouped` counts what grouped heads really take, and `measure` what torch does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

EXPENSIVE = 10
FORWARD_AND_BACKWARD = 3


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder."""

    width: int
    num_heads: int
    num_key_value_heads: int
    head_width: int
    mlp_width: int
    vocabulary: int
    num_layers: int


QWEN2_5_05B = Shape(896, 14, 2, 64, 4864, 151936, 24)


def config_of(shape: Shape) -> Any:
    """A Hugging Face configuration of so many weights, input and output embeddings shared."""
    from transformers import Qwen2Config

    return Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.mlp_width,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_key_value_heads,
        tie_word_embeddings=True,
    )


def shape_of(config: Any) -> Shape:
    """Of a Hugging Face configuration of Qwen2's class."""
    heads = config.num_attention_heads
    return Shape(
        config.hidden_size,
        heads,
        getattr(config, "num_key_value_heads", heads),
        getattr(config, "head_dim", None) or config.hidden_size // heads,
        config.intermediate_size,
        config.vocab_size,
        config.num_hidden_layers,
    )


@dataclass(frozen=True)
class Item:
    """A primitive of one sequence's forward pass."""

    name: str
    flops: int
    times: int
    """How often it is done."""

    @property
    def total(self) -> int:
        return self.flops * self.times


def product(rows: int, inner: int, columns: int) -> int:
    """Of a `(rows, inner)` matrix with an `(inner, columns)` one."""
    return rows * columns * (2 * inner - 1)


def account(
    shape: Shape, tokens: int, rank: int = 0, grouped: bool = False, only_last: bool = False
) -> list[Item]:
    """Every primitive of the forward pass of one sequence.

    Args:
        tokens: length of the sequence.
        rank: of LoRA beside each query and value projection; 0 for none.
        grouped: count keys and values as few as they are.
        only_last: logits of the last token only, as when text is gone on with.
    """
    n, width, layers = tokens, shape.width, shape.num_layers
    heads, head_width, mlp = shape.num_heads, shape.head_width, shape.mlp_width
    inner = heads * head_width
    key_width = (shape.num_key_value_heads if grouped else heads) * head_width
    norm = n * (4 * width + 1 + EXPENSIVE)
    items = [
        Item("position add", n * width, 1),
        Item("RMSNorm", norm, 2 * layers + 1),
        Item("query", product(n, width, inner) + n * inner, layers),
        Item("key", product(n, width, key_width) + n * key_width, layers),
        Item("value", product(n, width, key_width) + n * key_width, layers),
        Item("scores", heads * product(n, head_width, n), layers),
        Item("scale", heads * n * n + EXPENSIVE, layers),
        Item("softmax", heads * n * ((EXPENSIVE + 2) * n - 1), layers),
        Item("attention x values", heads * product(n, n, head_width), layers),
        Item("output projection", product(n, inner, width), layers),
        Item("gate and up", 2 * product(n, width, mlp), layers),
        Item("SiLU", (EXPENSIVE + 3) * n * mlp, layers),
        Item("gate product", n * mlp, layers),
        Item("down", product(n, mlp, width), layers),
        Item("residual adds", 2 * n * width, layers),
    ]
    if rank:
        items += [
            Item("LoRA on query", _lora(n, width, inner, rank), layers),
            Item("LoRA on value", _lora(n, width, key_width, rank), layers),
        ]
    items.append(Item("head", product(1 if only_last else n, width, shape.vocabulary), 1))
    return items


def _lora(tokens: int, width: int, out: int, rank: int) -> int:
    """Down, up, times alpha over rank, added."""
    return product(tokens, width, rank) + product(tokens, rank, out) + 2 * tokens * out


def forward(shape: Shape, tokens: int, rank: int = 0, grouped: bool = False) -> int:
    """Of one sequence."""
    return sum(item.total for item in account(shape, tokens, rank, grouped))


def training_step(
    shape: Shape, tokens: int, batch: int, rank: int = 0, grouped: bool = False
) -> int:
    """Of a batch, forward and backward; with LoRA, too, as if all weights had gradients."""
    return FORWARD_AND_BACKWARD * batch * forward(shape, tokens, rank, grouped)


def generation(shape: Shape, prompt: int, written: int, cached: bool = True) -> int:
    """Of text gone on with: a prompt is read, then symbols are written one by one.

    With a cache the prompt's last logits are reckoned, then each symbol passes alone and attends to all
    before it. Without one all pass anew for each, with the logits of all.
    """
    if not cached:
        return sum(forward(shape, prompt + step) for step in range(written))
    first = _last(shape, prompt)
    return first + sum(_one_more(shape, prompt + step) for step in range(written - 1))


def _last(shape: Shape, tokens: int) -> int:
    return sum(item.total for item in account(shape, tokens, only_last=True))


def _one_more(shape: Shape, past: int) -> int:
    """A token that attends to `past` ones and itself."""
    alone = _last(shape, 1)
    per_key = product(1, shape.head_width, 1) + 1 + EXPENSIVE + 2 + 2 * shape.head_width
    return alone + shape.num_layers * shape.num_heads * per_key * past


def steps_within(
    budget: float, shape: Shape, tokens: int, batch: int, rank: int, validation: int = 0
) -> int:
    """Training steps that a budget allows, after `validation` FLOPs are put aside."""
    return max(0, int((budget - validation) // training_step(shape, tokens, batch, rank)))


@dataclass(frozen=True)
class Measured:
    """What torch counts, of matrix products alone, `2 m n p` each."""

    forward: int
    lora_step: int
    """Forward and backward where only LoRA's matrices learn: gradients of frozen ones are not needed."""
    full_step: int


def measure(shape: Shape, tokens: int, rank: int = 8) -> Measured:
    """Count a step of one sequence by running it without data, on torch's meta device."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForCausalLM

    from llamacast.text.language import LORA_TARGETS
    from llamacast.training.lora import inject

    def count(adapted: bool, learns: bool) -> int:
        with torch.device("meta"):
            config = config_of(shape)
            model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
            if adapted:
                inject(model, rank, LORA_TARGETS)
            ids = torch.zeros((1, tokens), dtype=torch.int64)
            # No mask is made of data that is not there; products are as many.
            unmasked = {"full_attention": None}
            with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(learns):
                logits = model(ids, attention_mask=unmasked, use_cache=False).logits
                if learns:
                    logits.sum().backward()
        return int(counter.get_total_flops())

    return Measured(count(False, False), count(True, True), count(False, True))


def table(shape: Shape, tokens: int, rank: int, batch: int) -> Sequence[tuple[str, int]]:
    """What is told of a plan: name and FLOPs, each primitive of a sequence first."""
    rows = [(item.name, item.total) for item in account(shape, tokens, rank)]
    numeric = replace(shape, vocabulary=NUMERIC_SYMBOLS)
    return [
        *rows,
        ("forward, one sequence", forward(shape, tokens, rank)),
        (f"training step, batch {batch}", training_step(shape, tokens, batch, rank)),
        ("the same, heads as grouped", training_step(shape, tokens, batch, rank, grouped=True)),
        (
            f"the same, {NUMERIC_SYMBOLS} numeric symbols only",
            training_step(numeric, tokens, batch, rank, grouped=True),
        ),
    ]


NUMERIC_SYMBOLS = 13
"""Digits, separators, a minus."""
