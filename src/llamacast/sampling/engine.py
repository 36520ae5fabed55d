"""Many futures from one past: prefill a series once, replicate it, decode its samples by steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from llamacast.model.heads import Distribution
from llamacast.model.lag_llama import LagLlama, ScaledWindow
from llamacast.model.tokens import Lags, gather_lags, make_tokens, token_calendar
from llamacast.model.transformer import rotation
from llamacast.sampling.cache import (
    PrefixCache,
    SampleCache,
    bytes_per_sample,
    bytes_per_series,
)

# A series of zeros has the smallest of scales; its forecast is 0, not what rounding leaves.
SMALLEST_VALUE = 1e-300

# Paths drawn together on the CPU: enough for matrix products to be fast, few enough to stay in its
# caches and to leave parts for other cores. The layout of parts must not depend on how busy the
# machine is, or rounding would.
ROWS_ON_CPU = 400

Clamp = Callable[[Float[Tensor, "series sample"]], Float[Tensor, "series sample"]]


@dataclass(frozen=True)
class Part:
    """Some samples of some series that are drawn together."""

    series: slice
    samples: slice


def plan_parts(
    num_series: int, num_samples: int, series_bytes: int, sample_bytes: int, budget_bytes: int
) -> Iterator[Part]:
    """Split a request so that each part stays within the budget, by series first, then samples.

    A single path is never split, whatever it needs.
    """
    whole = series_bytes + num_samples * sample_bytes
    if whole <= budget_bytes:
        together = budget_bytes // whole
        for first in range(0, num_series, together):
            yield Part(slice(first, min(first + together, num_series)), slice(0, num_samples))
        return
    fits = max(1, (budget_bytes - series_bytes) // sample_bytes)
    for one in range(num_series):
        for first in range(0, num_samples, fits):
            yield Part(slice(one, one + 1), slice(first, min(first + fits, num_samples)))


def plan(
    model: LagLlama,
    num_series: int,
    num_samples: int,
    context_length: int,
    horizon: int,
    budget_bytes: int,
) -> tuple[list[Part], int]:
    """Parts of a request for `model`, and how many of them fit into the budget at a time."""
    weights = model.transformer.norm.weight
    series_bytes = bytes_per_series(model.config, context_length, weights.element_size())
    sample_bytes = bytes_per_sample(model.config, context_length, horizon, weights.element_size())
    part_bytes = budget_bytes
    if weights.device.type == "cpu":
        together = max(1, ROWS_ON_CPU // num_samples)
        part_bytes = min(budget_bytes, together * (series_bytes + num_samples * sample_bytes))
    parts = list(plan_parts(num_series, num_samples, series_bytes, sample_bytes, part_bytes))
    return parts, max(1, budget_bytes // part_bytes)


@torch.inference_mode()
def sample_paths(
    model: LagLlama,
    values: Float[Tensor, "series history"],
    observed: Bool[Tensor, "series history"],
    calendar: Float[Tensor, "series step feature"],
    uniforms: Float[Tensor, "series sample horizon 2"],
    clamp: Clamp | None = None,
) -> Float[Tensor, "series sample horizon"]:
    """Joint sample paths, in the units of `values` (float64, on the CPU, as what is returned).

    The history is the largest lag and the context; `calendar` describes the context's steps and
    the horizon's. The scale is frozen at the forecast origin, the window grows. Each number drawn
    is fed back (after `clamp`, which keeps values in data units within what may be), so paths are
    joint and spread out as the horizon goes on.
    """
    device = model.transformer.norm.weight.device
    horizon = uniforms.shape[2]
    context_length = calendar.shape[1] - horizon
    history = model.scale_window(values, observed)
    window = history.to(device)
    calendar, uniforms = calendar.to(device), uniforms.to(device)
    settle = _settle(history, clamp)

    prefix = PrefixCache()
    distribution = prefill(model, window, calendar[:, : context_length + 1], horizon, prefix)
    lookback = model.config.max_lag + 1
    paths = replicate(window.scaled[:, -lookback:], uniforms.shape[1], horizon)
    # What is drawn counts as observed.
    seen = functional.pad(window.observed[:, -lookback:], (0, horizon), value=True)
    samples = SampleCache(prefix, uniforms.shape[1], horizon - 1) if horizon > 1 else None
    for step in range(horizon):
        if samples is not None and step > 0:
            known, known_seen = paths[:, :, : lookback + step], seen[:, : lookback + step]
            around = calendar[:, context_length + step - 1 : context_length + step + 1]
            position = context_length + step - 1
            distribution = decode_step(
                model,
                window,
                known,
                known_seen,
                around,
                position,
                context_length + horizon - 1,
                samples,
            )
        paths[:, :, lookback + step] = settle(distribution.sample(uniforms[:, :, step]))
    drawn = paths[:, :, lookback:].cpu().double()
    plain = history.to_values(drawn.flatten(1)).view_as(drawn)
    plain = plain if clamp is None else clamp(plain)  # scaled units had rounded it
    return plain.masked_fill(plain.abs() < SMALLEST_VALUE, 0.0)


def prefill(
    model: LagLlama,
    window: ScaledWindow,
    calendar: Float[Tensor, "series step feature"],
    horizon: int,
    prefix: PrefixCache,
) -> Distribution:
    """Run each context once; the distribution of the first future value, `(series, 1)`."""
    sequence_length = calendar.shape[1] - 1 + horizon - 1
    hidden, lags = model.encode(window, calendar, prefix, sequence_length)
    last = Lags(lags.values[:, -1:], lags.observed[:, -1:])
    return model.distribution(hidden[:, -1:], last, window.scale)


def replicate(
    scaled: Float[Tensor, "series history"], num_samples: int, horizon: int
) -> Float[Tensor, "series sample time"]:
    """Give each sample its own copy of the history, with room for the values to be drawn."""
    paths = scaled.new_zeros(len(scaled), num_samples, scaled.shape[1] + horizon)
    paths[:, :, : scaled.shape[1]] = scaled[:, None]
    return paths


def decode_step(
    model: LagLlama,
    window: ScaledWindow,
    known: Float[Tensor, "series sample time"],
    seen: Bool[Tensor, "series time"],
    calendar: Float[Tensor, "series 2 feature"],
    position: int,
    sequence_length: int,
    samples: SampleCache,
) -> Distribution:
    """Feed the last value of each path; the distribution of its next one, `(series, sample)`.

    `seen` tells which values of a series were observed or drawn, the same for all of its paths.
    `calendar` describes the last known step and the one after it.
    """
    shape = known.shape[:2]
    num_samples = shape[1]
    aligned = token_calendar(calendar, model.config)
    lags = Lags(
        gather_lags(known.flatten(0, 1), model.config.lags, context_length=1),
        gather_lags(seen, model.config.lags, context_length=1).repeat_interleave(
            num_samples, dim=0
        ),
    )
    tokens = make_tokens(
        lags,
        window.statistics.repeat_interleave(num_samples, dim=0),
        aligned.repeat_interleave(num_samples, dim=0),
        model.config,
    )
    turn = rotation(torch.tensor([position], device=known.device), sequence_length, model.config)
    samples.advance()
    hidden = model.transformer(tokens.unflatten(0, shape), turn, samples)
    lags = Lags(lags.values.view(*shape, -1), lags.observed.view(*shape, -1))
    return model.distribution(hidden.squeeze(2), lags, window.scale)


def _settle(history: ScaledWindow, clamp: Clamp | None) -> Clamp:
    """`clamp`, as it acts on scaled values."""
    if clamp is None:
        return lambda scaled: scaled

    def settle(scaled: Tensor) -> Tensor:
        values = clamp(history.to_values(scaled.cpu().double()))
        return history.to_scaled(values).to(scaled)

    return settle
