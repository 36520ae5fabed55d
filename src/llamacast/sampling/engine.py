"""Many futures from one past: prefill a series once, replicate it, decode its samples by steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from llamacast.model.config import LagLlamaConfig
from llamacast.model.distributions import Distribution
from llamacast.model.lag_llama import LagLlama, ScaledWindow
from llamacast.model.tokens import Lags, gather_lags, make_tokens, token_calendar
from llamacast.model.transformer import Rotation, rotation
from llamacast.sampling.cache import PrefixCache, bytes_per_sample, bytes_per_series
from llamacast.sampling.decoder import Decoder, decoders_after, run_context
from llamacast.sampling.native import GROUP
from llamacast.sampling.threads import share_out

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
    joint: bool,
) -> tuple[list[Part], int]:
    """Parts of a request for `model`, and how many of them fit into the budget at a time."""
    num_paths = num_samples if joint else GROUP  # the memory of one path is that of a group
    weights = model.transformer.norm.weight
    series_bytes = bytes_per_series(model.config, context_length, weights.element_size())
    if weights.device.type == "cpu":
        series_bytes *= 2  # the prefix once more, in the order of native code
    sample_bytes = bytes_per_sample(model.config, context_length, horizon, weights.element_size())
    part_bytes = budget_bytes
    if weights.device.type == "cpu":
        together = max(1, ROWS_ON_CPU // num_paths)
        part_bytes = min(budget_bytes, together * (series_bytes + num_paths * sample_bytes))
    parts = list(plan_parts(num_series, num_paths, series_bytes, sample_bytes, part_bytes))
    if not joint:
        parts = [Part(part.series, slice(0, num_samples)) for part in parts]
    return parts, max(1, budget_bytes // part_bytes)


@torch.inference_mode()
def sample_paths(
    model: LagLlama,
    values: Float[Tensor, "series history"],
    observed: Bool[Tensor, "series history"],
    calendar: Float[Tensor, "series step feature"],
    uniforms: Float[Tensor, "series sample horizon 2"],
    clamp: Clamp | None = None,
    num_threads: int = 1,
    joint: bool = True,
) -> Float[Tensor, "series sample horizon"]:
    """Joint sample paths, in the units of `values` (float64, on the CPU, as what is returned).

    The history is the largest lag and the context; `calendar` describes the context's steps and
    the horizon's. The scale is frozen at the forecast origin, the window grows. Each number drawn
    is fed back (after `clamp`, which keeps values in data units within what may be), so paths are
    joint and spread out as the horizon goes on.

    Without `joint`, one path is run for all samples of a series, along the means of the steps'
    distributions, and samples are draws from these, ascending: far cheaper, but as if each step's
    past were known, so that they do not spread out.
    """
    device = model.transformer.norm.weight.device
    horizon = uniforms.shape[2]
    history = model.scale_window(values, observed)
    prefix = PrefixCache()
    origin = prefill(model, history.to(device), calendar.to(device), horizon, prefix)
    decoders = decoders_after(model.transformer, prefix)

    def draw(part: Part) -> Tensor:
        random = uniforms[part.series, part.samples].to(device)
        num_paths = random.shape[1] if joint else 1
        decoder = decoders.make(part.series, num_paths, horizon - 1)
        settle = _settle(history.choose(part.series), clamp)
        return draw_samples(model, origin.choose(part.series), random, decoder, settle, joint)

    together = decoders.rows_together if joint else None
    scaled = torch.empty(uniforms.shape[:3], dtype=torch.float64)
    parts = groups(uniforms.shape[0], uniforms.shape[1], together)
    for part, paths in share_out(draw, parts, num_threads):
        scaled[part.series, part.samples] = paths.cpu().double()
    plain = history.to_values(scaled.flatten(1)).view_as(scaled)
    plain = plain if clamp is None else clamp(plain)  # scaled units had rounded it
    return plain.masked_fill(plain.abs() < SMALLEST_VALUE, 0.0)


def groups(num_series: int, num_samples: int, together: int | None) -> list[Part]:
    """Paths that are drawn side by side: all of them, or at least two groups of few rows each, if
    there are more than four.

    All samples of a series before another series, as they share its prefix. Two groups, so that two
    threads have work; they must not depend on how many threads there are.
    """
    if together is None:
        return [Part(slice(0, num_series), slice(0, num_samples))]
    series, samples = max(1, together // num_samples), min(num_samples, together)
    if series >= num_series and samples >= num_samples:
        if num_series > 1:
            series = math.ceil(num_series / 2)
        else:
            samples = math.ceil(num_samples / 2)
    samples = math.ceil(samples / GROUP) * GROUP
    return [
        Part(slice(one, min(one + series, num_series)), slice(n, min(n + samples, num_samples)))
        for one in range(0, num_series, series)
        for n in range(0, num_samples, samples)
    ]


@dataclass(frozen=True)
class Origin:
    """Where the samples of some series set out from."""

    window: ScaledWindow
    calendar: Float[Tensor, "series step feature"]
    """Of the context's steps and the horizon's."""
    hidden: Float[Tensor, "series 1 width"]
    """What the network knows at the end of the context."""
    lags: Lags

    def choose(self, series: slice) -> Origin:
        """That of some series."""
        lags = Lags(self.lags.values[series], self.lags.observed[series])
        window = self.window.choose(series)
        return Origin(window, self.calendar[series], self.hidden[series], lags)


def prefill(
    model: LagLlama,
    window: ScaledWindow,
    calendar: Float[Tensor, "series step feature"],
    horizon: int,
    prefix: PrefixCache,
) -> Origin:
    """Run each context once."""
    context_length = calendar.shape[1] - horizon
    known = calendar[:, : context_length + 1]
    tokens, turn, lags = model.inputs(window, known, context_length + horizon - 1)
    hidden = run_context(model.transformer, tokens, turn, prefix)
    return Origin(window, calendar, hidden[:, -1:], lags.last(1))


@torch.inference_mode()  # of each thread, not of those that it starts
def draw_samples(
    model: LagLlama,
    origin: Origin,
    uniforms: Float[Tensor, "series sample horizon 2"],
    decoder: Decoder,
    settle: Clamp,
    joint: bool,
) -> Float[Tensor, "series sample horizon"]:
    """Draw samples of each series step by step, in scaled units (see `sample_paths`).

    `settle` is what may be of what was drawn, also in scaled units.
    """
    window = origin.window
    num_samples, horizon = uniforms.shape[1:3]
    lookback = model.config.max_lag + 1
    num_paths = num_samples if joint else 1
    paths = replicate(window.scaled[:, -lookback:], num_paths, horizon)
    found = paths.new_empty(len(paths), num_samples, horizon)
    known = known_of_steps(model.config, origin, horizon)
    distribution = model.distribution(origin.hidden, origin.lags, window.scale)
    for step in range(horizon):
        if step > 0:
            lags = paths[:, :, known.places + step - 1]
            distribution = decode_step(model, window, lags, known, step - 1, decoder)
        found[:, :, step] = settle(distribution.sample(uniforms[:, :, step]))
        # Means are not drawn: rounded, those of rare events would be 0 from then on.
        paths[:, :, lookback + step] = found[:, :, step] if joint else distribution.mean
    return found if joint else found.sort(dim=1).values


@dataclass(frozen=True)
class KnownOfSteps:
    """What is known of steps before they are drawn, one fewer than the horizon, for all samples."""

    places: Int[Tensor, " lag"]
    """Where the lags of the first step lie in a path."""
    observed: Bool[Tensor, "series step lag"]
    calendar: Float[Tensor, "series step calendar"]
    turns: Rotation | None


def known_of_steps(config: LagLlamaConfig, origin: Origin, horizon: int) -> KnownOfSteps:
    calendar = origin.calendar
    lookback, context_length = config.max_lag + 1, calendar.shape[1] - horizon
    # What is drawn counts as observed.
    seen = functional.pad(origin.window.observed[:, -lookback:], (0, horizon - 1), value=True)
    positions = torch.arange(context_length, context_length + horizon - 1, device=calendar.device)
    return KnownOfSteps(
        lookback - torch.tensor(config.lags, device=calendar.device),
        gather_lags(seen, config.lags, horizon - 1),
        token_calendar(calendar[:, -horizon:], config),
        rotation(positions, context_length + horizon - 1, config),
    )


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
    lags: Float[Tensor, "series sample lag"],
    known: KnownOfSteps,
    step: int,
    decoder: Decoder,
) -> Distribution:
    """Feed the last value of each path; the distribution of its next one, `(series, sample)`."""
    num_samples = lags.shape[1]
    seen = known.observed[:, step, None].expand_as(lags)
    calendar = known.calendar[:, step, None].expand(-1, num_samples, -1)
    # Samples stand side by side, where a context's steps would.
    tokens = make_tokens(Lags(lags, seen), window.statistics, calendar, model.config)
    turns = known.turns
    turn = turns and (turns[0][step : step + 1], turns[1][step : step + 1])
    hidden = decoder(tokens, turn)
    return model.distribution(hidden, Lags(lags, seen), window.scale)


def _settle(history: ScaledWindow, clamp: Clamp | None) -> Clamp:
    """`clamp`, as it acts on scaled values."""
    if clamp is None:
        return lambda scaled: scaled

    def settle(scaled: Tensor) -> Tensor:
        values = clamp(history.to_values(scaled.cpu().double()))
        return history.to_scaled(values).to(scaled)

    return settle
