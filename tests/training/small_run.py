"""A network, a batch and a run that take no time."""

from __future__ import annotations

import dataclasses

import torch

from llamacast.data.corpora import HoldOut
from llamacast.model.config import CriaConfig, cria, lag_llama
from llamacast.training.augment import ORDER, AugmentConfig
from llamacast.training.config import PretrainConfig, WindowConfig
from llamacast.training.loop import LoopConfig

SMALL = dataclasses.replace(
    lag_llama(), num_layers=1, num_heads=2, head_width=4, feedforward_width=16, lags=(0, 1, 23)
)
WINDOWS = WindowConfig(tokens_per_batch=256, lengths=(16, 32), length_weights=(1.0, 1.0))
SMALL_CRIA = dataclasses.replace(
    cria(),
    num_layers=1,
    num_heads=2,
    head_width=4,
    feedforward_width=16,
    projection_width=16,
    patch_length=8,
    context_length=128,
)
PATCHES = WindowConfig(tokens_per_batch=64, lengths=(4, 8), length_weights=(1.0, 1.0))
CPU = torch.device("cpu")
NOTHING = AugmentConfig(**dict.fromkeys(ORDER, 0.0))


def config(steps=1, model=SMALL, **changes):
    loop = {"learning_rate": 3e-3, "log_every": 10, "save_every": 30, "warmup_steps": 5}
    loop |= {"average_steps": 10}
    changes = {"hold_out": HoldOut(0.1), **changes}
    return PretrainConfig(
        windows=PATCHES if isinstance(model, CriaConfig) else WINDOWS,
        model=model,
        loop=LoopConfig(steps=steps, **loop),
        **changes,
    )
