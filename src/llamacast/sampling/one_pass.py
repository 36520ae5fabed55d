"""All quantiles of any horizon from one pass of the network (two beside a line), and paths through them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from llamacast.model.config import CriaConfig
from llamacast.model.cria import Cria, PatchWindow
from llamacast.model.frames import at_tokens
from llamacast.model.quantiles import Quantiles, level_of
from llamacast.sampling.decoder import run_context
from llamacast.sampling.lines import Lines, find_lines
from llamacast.sampling.patched import Look, look
from llamacast.sampling.unchanging import find_unchanging

# Patches at the end of a history whose forecasts, made along the way, tell how errors persist.
NUM_LOOKED_BACK = 12
# A tie of successive errors that is assumed before any were seen, and how many it is worth.
USUAL_PERSISTENCE, PAIRS_ASSUMED = 0.7, 20.0
LARGEST_SURPRISE = 3.0

# Tokens that go through the network together on the CPU, and about what each needs in memory; about
# what each number drawn does.
TOKENS_ON_CPU = 2048
BYTES_PER_TOKEN = 64 * 1024
BYTES_PER_DRAW = 128


@dataclass(frozen=True)
class Rows:
    """Series of a request that are forecast together: of like length, so that little is padding."""

    series: np.ndarray


def plan_rows(
    lengths: Sequence[int],
    horizon: int,
    num_samples: int,
    config: CriaConfig,
    on_cpu: bool,
    budget_bytes: int,
) -> tuple[list[Rows], int]:
    """Parts of a request, and how many of them fit into the budget at a time.

    A part is one series at least, whatever that needs. What is in parts depends on the request alone.
    """
    order = np.argsort(lengths, kind="stable")
    future = -(-horizon // config.patch_length) - 1
    tokens = -(-np.asarray(lengths)[order] // config.patch_length) + future
    # Rows are as long as the last of them, which is the longest.
    bytes_per_row = tokens * BYTES_PER_TOKEN + num_samples * horizon * BYTES_PER_DRAW
    parts, first, largest = [], 0, 0
    while first < len(order):
        count = np.arange(1, len(order) - first + 1)
        fits = count * bytes_per_row[first:] <= budget_bytes
        if on_cpu:
            fits &= count * tokens[first:] <= TOKENS_ON_CPU
        taken = max(1, int(fits.argmin()) if not fits.all() else len(fits))
        parts.append(Rows(order[first : first + taken]))
        largest = max(largest, taken * int(bytes_per_row[first + taken - 1]))
        first += taken
    return parts, max(1, budget_bytes // max(1, largest))


@dataclass(frozen=True)
class Answer:
    """What is told of some series."""

    quantiles: Quantiles
    """Values `(series, horizon, level)`, in the units of the data, in float64 on the CPU."""
    persistence: Float[Tensor, " series"]
    """How much of an error remains a step later, 0 to 1, as the series' own past showed."""
    num_strays: Int[Tensor, " series"]
    """Values of each history that were so far from all others that they were taken as missing."""


@torch.inference_mode()
def forecast_quantiles(
    model: Cria,
    values: Float[Tensor, "series history"],
    observed: Bool[Tensor, "series history"],
    seasons: Int[Tensor, "series season"],
    horizon: int,
    covariates: Float[Tensor, "series longer covariate"] | None = None,
) -> Answer:
    """Quantiles of the `horizon` steps after each history.

    `values` are float64 on the CPU. A history ends with the last of its values; before its first
    observed one may be any padding. `seasons` are periods that the calendar suggests, in steps; 0
    for none; `covariates` of the history and the horizon.
    """
    asked = values, observed, seasons, horizon
    told, seen, periods = _ask(model, *asked, covariates)
    # What covariates foretell is no line, though the history may be one.
    lines = None if covariates is not None else find_lines(values, observed, seen, periods[:, 0])
    if lines is not None:
        told = _beside(lines, told, model, *asked)
    stands = find_unchanging(values, observed, periods, horizon)
    if stands is not None:
        told = replace(told, quantiles=stands.mixed_into(told.quantiles))
    return told


def _beside(
    lines: Lines,
    told: Answer,
    model: Cria,
    values: Float[Tensor, "series history"],
    observed: Bool[Tensor, "series history"],
    seasons: Int[Tensor, "series season"],
    horizon: int,
) -> Answer:
    """What was told, and beside lines what is told without them."""
    rows, weight = lines.rows, lines.weight.squeeze(1)
    without = lines.removed(values), observed[rows], seasons[rows]
    beside, *_ = _ask(model, *without, horizon, None)
    ties = torch.lerp(told.persistence[rows], beside.persistence, weight)
    strays = told.num_strays[rows].maximum(beside.num_strays)
    return Answer(
        lines.mixed_into(told.quantiles, lines.put_back(beside.quantiles)),
        told.persistence.index_copy(0, rows, ties),
        told.num_strays.index_copy(0, rows, strays),
    )


def _ask(
    model: Cria,
    values: Float[Tensor, "series history"],
    observed: Bool[Tensor, "series history"],
    seasons: Int[Tensor, "series season"],
    horizon: int,
    covariates: Float[Tensor, "series longer covariate"] | None,
) -> tuple[Answer, Look, Int[Tensor, "series period"]]:
    """What the network tells, how it looked at the histories, and the periods that it was told at their
    ends."""
    length = model.config.patch_length
    num_future = -(-horizon // length)
    # The last known patch tells the first of the horizon, so one fewer must be asked for.
    seen = look(model, values, observed, seasons, num_future - 1, covariates)
    window, num_tokens = seen.window, seen.num_tokens
    hidden = run_context(model.transformer, *model.inputs(window))
    back = min(NUM_LOOKED_BACK, int(num_tokens.max()) - 1)
    tokens = (num_tokens[:, None] - 1 + torch.arange(-back, num_future)).to(hidden.device)
    chosen = tokens.clamp(min=0)
    outlook = window.outlook.choose(chosen)
    framed = model.quantiles(at_tokens(hidden, chosen), outlook)
    told = outlook.frames.from_frame(framed)
    persistence = _persistence(told[:, :back], window, tokens[:, :back], model)
    future = told[:, back:].flatten(1, 2)[:, :horizon].cpu().double()
    quantiles = Quantiles(seen.in_units(future), model.levels.cpu().double())
    periods = at_tokens(window.periods.lengths, num_tokens.to(hidden.device)[:, None] - 1)
    answer = Answer(quantiles, persistence.cpu().double(), seen.strays.sum(dim=1))
    return answer, seen, periods.squeeze(1).cpu()


def _persistence(
    told: Float[Tensor, "series past step level"],
    window: PatchWindow,
    tokens: Int[Tensor, "series past"],
    model: Cria,
) -> Float[Tensor, " series"]:
    """Least squares of each past error on the one a step earlier, of forecasts of whole patches.

    Errors are told as normal scores z of the levels at which they fell; if an error e persists as
    phi e, and s is its width, the z of successive steps correlate by r = phi s before / s now. So
    phi is the mean of z z' r over that of r r, with some pairs assumed.
    """
    length = model.config.patch_length
    steps = (tokens.clamp(min=0)[..., None] + 1) * length + torch.arange(
        length, device=tokens.device
    )
    values, frames = window.values, window.outlook.frames
    rows = torch.arange(len(values), device=values.device)[:, None, None]
    # What is forecast from next to nothing was not learnt, and tells nothing.
    told_from = frames.tells.gather(1, tokens.clamp(min=0)) & (tokens >= 0)
    known = window.observed[rows, steps] & told_from[..., None]
    quantiles = Quantiles(told, model.levels)
    score = torch.special.ndtri(level_of(quantiles, values[rows, steps]))
    score = score.clamp(-LARGEST_SURPRISE, LARGEST_SURPRISE).masked_fill(~known, 0.0)
    ratio = step_ratios(quantiles)[..., 1:]
    pairs = known[..., 1:] & known[..., :-1]
    product = (score[..., 1:] * score[..., :-1] * ratio * pairs).sum(dim=(1, 2))
    # Scores that are wider than they should be are no sign of persistence.
    both = 0.5 * (score[..., 1:].square() + score[..., :-1].square())
    weight = (ratio.square() * both * pairs).sum(dim=(1, 2))
    found = (product + PAIRS_ASSUMED * USUAL_PERSISTENCE) / (weight + PAIRS_ASSUMED)
    return found.clamp(0.0, 1.0)


def step_ratios(quantiles: Quantiles) -> Float[Tensor, "*batch step"]:
    """How wide quantiles have been up to the step before, as a share of how wide they have been up to
    this one; 0 at the first. A step that is surer than others forgets nothing."""
    width = quantiles.width.cummax(dim=-1).values
    tiny = torch.finfo(width.dtype).tiny
    ratio = width[..., :-1] / width[..., 1:].clamp(min=tiny)
    return torch.nn.functional.pad(ratio, (1, 0)).clamp(max=1.0)


def paths_through(
    answer: Answer, uniforms: Float[Tensor, "series sample horizon 2"]
) -> Float[Tensor, "series sample horizon"]:
    """Joint paths whose quantiles at each step are exactly those of the answer.

    Errors follow a normal autoregression of order 1: e = phi e before + news, as wide at each step
    as the quantiles are. Its ranks at each step choose among evenly spaced levels, so that the k-th
    smallest of n values is the quantile at (k - 1) / (n - 1), and at 1 / 2n at the ends. A single
    path takes its level as drawn.
    """
    num_samples = uniforms.shape[1]
    ties = (answer.persistence[:, None] * step_ratios(answer.quantiles)).clamp(0.0, 1.0)
    # Steps come first, since each is made from the one before.
    ties = ties.T.unsqueeze(2)
    news = torch.special.ndtri(uniforms[..., 0].double()).permute(2, 0, 1)
    score = news.contiguous()
    score[1:] *= (1 - ties[1:].square()).sqrt()
    for tie, before, now in zip(ties[1:], score[:-1], score[1:], strict=True):
        now.addcmul_(tie, before)
    if num_samples == 1:
        return answer.quantiles.at(torch.special.ndtr(score).transpose(0, 1)).transpose(1, 2)
    ascending = evenly_spaced(answer, num_samples).permute(2, 0, 1)
    paths = torch.empty_like(score).scatter_(2, score.argsort(dim=2), ascending)
    return paths.permute(1, 2, 0)


def evenly_spaced(answer: Answer, num_samples: int) -> Float[Tensor, "series sample horizon"]:
    """Quantiles of each step at the levels of `paths_through`, ascending."""
    return answer.quantiles.at(even_levels(num_samples)).transpose(1, 2)


def even_levels(count: int) -> Float[Tensor, " level"]:
    """Evenly from 0 to 1, the ends drawn in by half a sample."""
    if count == 1:
        return torch.full((1,), 0.5, dtype=torch.float64)
    levels = torch.linspace(0.0, 1.0, count, dtype=torch.float64)
    return levels.clamp(0.5 / count, 1 - 0.5 / count)
