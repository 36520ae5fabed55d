"""The official network at test size, and its sampling loop without any cache."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from llamacast.model.checkpoint import build
from llamacast.model.config import LagLlamaConfig, official_lag_llama
from llamacast.model.distributions import StudentT
from llamacast.model.lag_llama import LagLlama
from llamacast.model.official import translate_official_weights

TINY = dataclasses.replace(
    official_lag_llama(),
    num_layers=2,
    num_heads=3,
    head_width=8,
    feedforward_width=256,
    context_length=16,
)


def official_model(
    weights: dict[str, Tensor], config: LagLlamaConfig = TINY, **changes
) -> LagLlama:
    named = translate_official_weights(weights, "fixture")
    return build(dataclasses.replace(config, **changes), named, "fixture")


def naive_decode(
    model: LagLlama, values: Tensor, observed: Tensor, calendar: Tensor, horizon: int
) -> dict[str, Tensor]:
    """The official loop with one path fed its mean: the window grows, and is scaled anew each step.

    `calendar` describes the context's and the horizon's steps. Everything is computed again at
    every step.
    """
    context_length = calendar.shape[1] - horizon
    steps = []
    for step in range(horizon):
        window = model.scale_window(values, observed)
        seen = calendar[:, : context_length + step + 1]
        distribution = model(window, seen)
        assert isinstance(distribution, StudentT)
        df, loc, scale = (
            part[:, -1] for part in (distribution.df, distribution.loc, distribution.scale)
        )
        mean = loc * window.scale[:, 0] + window.location[:, 0]
        steps.append(
            {
                "df": df,
                "dist_loc": loc,
                "dist_scale": scale,
                "loc": window.location[:, 0],
                "scale": window.scale[:, 0],
                "mean": mean,
            }
        )
        values = torch.cat([values, mean[:, None]], dim=1)
        observed = torch.cat([observed, torch.ones_like(observed[:, :1])], dim=1)
    return {key: torch.stack([step[key] for step in steps], dim=1) for key in steps[0]}
