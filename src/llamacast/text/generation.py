"""Many futures from one prompt: read once, then written symbol by symbol as the grammar allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.cache_utils import Cache

from llamacast.sampling.streams import uniforms
from llamacast.text.codec import DIGITS
from llamacast.text.language import Language, empty_cache, head_logits, replicate
from llamacast.text.vocabulary import Writing

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Draws:
    """How paths are drawn. There is no penalty on what has been written before: digits repeat."""

    num_samples: int = 20
    temperature: float = 1.0
    """Below 1 sharpens each symbol's chances; 0 takes the likeliest."""
    top_p: float = 1.0
    """Draw from the likeliest symbols that together have this much probability."""
    seed: int = 0


class Machine:
    """A grammar as tensors, for a batch of rows that are each in a state of their own."""

    def __init__(self, writing: Writing, device: torch.device) -> None:
        grammar = writing.grammar
        self.ids = torch.from_numpy(writing.ids).to(device)
        self.columns = torch.from_numpy(writing.columns).to(device)
        self.following = torch.from_numpy(grammar.following).to(device)
        self.completes = torch.from_numpy(grammar.completes).to(device)
        values = [DIGITS.find(symbol) for symbol in grammar.symbols]
        values = [one if one < grammar.config.base else -1 for one in values]
        self.digits = torch.tensor(values, device=device)
        self.is_minus = torch.tensor([symbol == "-" for symbol in grammar.symbols], device=device)
        self.base, self.zero = grammar.config.base, grammar.config.zero
        self.longest_number = grammar.longest_number

    def log_probabilities(
        self, logits: Float[Tensor, "row column"], states: Int[Tensor, " row"]
    ) -> Float[Tensor, "row symbol"]:
        """Of the symbols that may follow; -inf for others."""
        columns = self.columns[states]
        own = logits.gather(1, columns.clamp(min=0)).masked_fill(columns < 0, -torch.inf)
        return own.log_softmax(dim=1)


def draw(
    language: Language,
    prompts: Sequence[Integers],
    names: Sequence[str],
    num_channels: int,
    horizon: int,
    draws: Draws,
    samples: slice = slice(None),
) -> Int[Tensor, "series sample step channel"]:
    """Units of the steps that follow each prompt.

    Prompts may be differently long. What is drawn for a name depends on its own prompt and `seed`; some
    of the samples alone are the same as among all.
    """
    count = len(range(draws.num_samples)[samples])
    machine = Machine(language.writing(num_channels), language.device)
    room = horizon * num_channels * machine.longest_number
    with torch.inference_mode():
        hidden, cache, observed = _read(language, prompts, count, room)
        random = uniforms(list(names), draws.seed, draws.num_samples, room)[:, samples, :, 0]
        units = _write(
            language,
            machine,
            hidden.repeat_interleave(count, dim=0),
            cache,
            observed,
            torch.tensor([len(one) for one in prompts]).repeat_interleave(count),
            random.flatten(0, 1).to(language.device),
            horizon * num_channels,
            draws,
        )
    return units.reshape(len(prompts), count, horizon, num_channels)


def _read(
    language: Language, prompts: Sequence[Integers], times: int, room: int
) -> tuple[Float[Tensor, "series width"], Cache, Int[Tensor, "row past"] | None]:
    """Prefill: each prompt once. The last hidden vectors, keys and values for `times` rows of each, and
    which of these are of tokens (None: all)."""
    longest = max(len(one) for one in prompts)
    ids = torch.zeros((len(prompts), longest), dtype=torch.int64)
    observed = torch.zeros((len(prompts), longest), dtype=torch.int64)
    for row, one in enumerate(prompts):
        ids[row, longest - len(one) :] = torch.from_numpy(np.asarray(one))
        observed[row, longest - len(one) :] = 1
    cache = empty_cache(language.model)
    even = bool(observed.all())
    positions = (observed.cumsum(dim=1) - 1).clamp(min=0)
    observed = observed.to(language.device)
    hidden = language.hidden(
        ids.to(language.device),
        None if even else observed,
        positions.to(language.device),
        cache,
    )[:, -1]
    past = None
    if not even:
        past = observed.repeat_interleave(times, dim=0)
        past = torch.cat([past, past.new_ones((len(past), room))], dim=1)
    return hidden, replicate(cache, times, room), past


def _write(
    language: Language,
    machine: Machine,
    hidden: Float[Tensor, "row width"],
    cache: Cache,
    observed: Int[Tensor, "row past"] | None,
    lengths: Int[Tensor, " row"],
    random: Float[Tensor, "row token"],
    num_values: int,
    draws: Draws,
) -> Int[Tensor, "row value"]:
    """Decode until every row has as many numbers as are asked for."""
    num_rows, device = len(hidden), language.device
    rows = torch.arange(num_rows, device=device)
    units = torch.zeros((num_rows, num_values + 1), dtype=torch.int64, device=device)
    state, done, count = (torch.zeros_like(rows) for _ in range(3))
    sign = torch.ones_like(rows)
    positions = lengths.to(device)
    past = cache.get_seq_length()
    for step in range(random.shape[1]):
        logits = head_logits(language.model, hidden, machine.ids)
        chances = machine.log_probabilities(logits, state)
        symbol = choose(chances, random[:, step], draws.temperature, draws.top_p)
        token = machine.ids[machine.columns[state, symbol]]
        digit = machine.digits[symbol]
        count = torch.where(digit >= 0, count * machine.base + digit.clamp(min=0), count)
        sign = torch.where(machine.is_minus[symbol], -1, sign)
        whole = machine.completes[state, symbol]
        # Rows that are through write on beyond the last column, where nobody looks.
        units[rows, done] = torch.where(whole, sign * count + machine.zero, units[rows, done])
        done = (done + whole.long()).clamp(max=num_values)
        count, sign = torch.where(whole, 0, count), torch.where(whole, 1, sign)
        state = machine.following[state, symbol]
        if bool((done == num_values).all()):
            break
        seen = None if observed is None else observed[:, : past + step + 1]
        hidden = language.hidden(token[:, None], seen, positions[:, None] + step, cache)[:, 0]
    assert bool((done == num_values).all())
    return units[:, :num_values]


def choose(
    chances: Float[Tensor, "row symbol"],
    random: Float[Tensor, " row"],
    temperature: float,
    top_p: float,
) -> Int[Tensor, " row"]:
    """A symbol of each row, by a uniform number in (0, 1): the one at which the chances, added up,
    pass it."""
    if temperature == 0:
        return chances.argmax(dim=1)
    chances = (chances / temperature).softmax(dim=1).double()
    if top_p < 1:
        chances = chances * _likeliest(chances, top_p)
    summed = chances.cumsum(dim=1)
    wanted = random.double()[:, None] * summed[:, -1:]
    found = (summed <= wanted).sum(dim=1)
    # Rounding may pass the last symbol that has any chance.
    last = chances.shape[1] - 1 - (chances > 0).flip(1).int().argmax(dim=1)
    return torch.minimum(found, last)


def _likeliest(chances: Float[Tensor, "row symbol"], top_p: float) -> Bool[Tensor, "row symbol"]:
    """The fewest symbols that together have at least so much probability."""
    ordered, places = chances.sort(dim=1, descending=True, stable=True)
    before = ordered.cumsum(dim=1) - ordered
    return torch.zeros_like(chances, dtype=torch.bool).scatter(1, places, before < top_p)
