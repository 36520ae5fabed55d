"""What of a network may learn when it is fine-tuned: all of it, its end, or small matrices beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from llamacast.model.checkpoint import Network
from llamacast.model.lag_llama import LagLlama

Strategy = Literal["full", "head", "last-layers", "lora"]

NUM_LAST_LAYERS = 2


def full(network: Network, rank: int) -> None:
    """Every weight."""
    network.requires_grad_(True)


def head(network: Network, rank: int) -> None:
    """What turns hidden vectors into distributions."""
    network.requires_grad_(False)
    network.head.requires_grad_(True)
    if isinstance(network, LagLlama) and network.anchor is not None:
        network.anchor.requires_grad_(True)


def last_layers(network: Network, rank: int) -> None:
    """The head, the last norm, and the last two blocks."""
    head(network, rank)
    network.transformer.norm.requires_grad_(True)
    for block in list(network.transformer.blocks)[-NUM_LAST_LAYERS:]:
        block.requires_grad_(True)


def lora(network: Network, rank: int) -> None:
    """Small matrices beside each query and value projection."""
    from llamacast.training.lora import inject  # needs PEFT, which the others do not

    inject(network, rank)


STRATEGIES: dict[str, Callable[[Network, int], None]] = {
    "full": full,
    "head": head,
    "last-layers": last_layers,
    "lora": lora,
}
LEARNING_RATES: dict[str, float] = {
    "full": 3e-4,
    "head": 1e-3,
    "last-layers": 1e-3,
    "lora": 2e-3,
}
"""What has worked on data sets of some tens to hundreds of series."""
