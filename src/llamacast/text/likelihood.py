"""How likely numbers are: of a text that is there, and of every number that may come next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor
from transformers.cache_utils import Cache

from llamacast.forecast import DataError
from llamacast.text.codec import Units
from llamacast.text.generation import Machine
from llamacast.text.language import Language, empty_cache, head_logits, replicate
from llamacast.text.vocabulary import Tokens

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

SMALLEST_BRANCH = 1e-4
"""Of a tree of digits: branches of less probability are not followed."""
LEAST_FOLLOWED = 0.98
"""Quantiles are not told where less of the probability is in what was followed."""
ROWS_AT_A_TIME = 256


def log_probabilities(
    language: Language, windows: Sequence[Tokens], num_channels: int
) -> list[Floats]:
    """Logarithms of each number's probability, given all before it, `(number,)` for each window.

    Among what the grammar allows, so that those of all numbers sum to one. NaN for missing numbers and
    for a window's first, whose first symbol nothing foretells. Windows may be differently long.
    """
    machine = Machine(language.writing(num_channels), language.device)
    longest = max(len(one.ids) for one in windows)
    ids = torch.zeros((len(windows), longest), dtype=torch.int64)
    for row, one in enumerate(windows):
        ids[row, : len(one.ids)] = torch.from_numpy(one.ids)  # what is filled up stands behind
    with torch.inference_mode():
        hidden = language.hidden(ids.to(language.device))
        found = []
        for row, one in enumerate(windows):
            logits = head_logits(language.model, hidden[row, : len(one.ids) - 1], machine.ids)
            states = torch.from_numpy(one.states[1:]).to(logits.device)
            columns = torch.from_numpy(one.columns[1:]).to(logits.device)
            chances = machine.log_probabilities(logits, states)
            matches = machine.columns[states] == columns[:, None]
            own = chances.masked_fill(~matches, 0.0).sum(dim=1).double().cpu().numpy()
            found.append(_by_number(own, one))
    return found


def _by_number(own: Floats, window: Tokens) -> Floats:
    """Sum over the symbols of each number."""
    values = window.values[1:] - window.values[0]
    total = np.bincount(values, own, minlength=int(values[-1]) + 1)
    total[0] = np.nan
    total[np.unique(values[window.columns[1:] < 0])] = np.nan
    return np.asarray(total, dtype=np.float64)


@dataclass(frozen=True)
class NextNumber:
    """The whole distribution of the next number of one series, from the tree of its digits."""

    units: Units
    """Numbers in order, `(number,)`."""
    probabilities: Floats
    """Of each. What is missing from 1 lies in branches that were too unlikely to be followed."""

    @property
    def followed(self) -> float:
        """Probability of all numbers that are told of."""
        return float(self.probabilities.sum())

    def quantile(self, levels: Sequence[float]) -> Floats:
        """In units, evenly spread within each; shape `(level,)`.

        Raises:
            DataError: if too much lies in branches that were not followed.
        """
        if self.followed < LEAST_FOLLOWED:
            raise DataError(
                f"the model spreads {1 - self.followed:.0%} of the next value's probability over unlikely "
                "numbers, so its quantiles are not exact; take them of a forecast's samples"
            )
        ends = np.concatenate([[0.0], np.cumsum(self.probabilities)]) / self.followed
        found = np.searchsorted(ends, levels, side="left").clip(1, len(self.units)) - 1
        within = (np.asarray(levels) - ends[found]) / np.diff(ends)[found]
        return self.units[found] - 0.5 + within


def next_number(language: Language, ids: Integers, num_channels: int = 1) -> NextNumber:
    """The distribution of the number that follows a prompt, without sampling.

    All branches of likely digits are followed, a level at a time, from a prompt that is read once.
    """
    machine = Machine(language.writing(num_channels), language.device)
    with torch.inference_mode():
        cache = empty_cache(language.model)
        prompt = torch.from_numpy(np.asarray(ids))[None].to(language.device)
        hidden = language.hidden(prompt, cache=cache)[:, -1]
        numbers: dict[int, float] = {}
        _follow(language, machine, hidden, cache, numbers)
    units = np.array(sorted(numbers), dtype=np.int64)
    return NextNumber(units, np.array([numbers[one] for one in units.tolist()]))


def _follow(
    language: Language,
    machine: Machine,
    hidden: Float[Tensor, "branch width"],
    cache: Cache,
    numbers: dict[int, float],
) -> None:
    """Add each number that may be written, with its probability, to `numbers`."""
    device = language.device
    prompt_length = cache.get_seq_length()
    # A level of the tree: of each branch its state, its digits so far, its sign, its probability, and
    # the tokens that lead to it.
    state = torch.zeros(1, dtype=torch.int64, device=device)
    count, sign = torch.zeros_like(state), torch.ones_like(state)
    chance = torch.zeros(1, dtype=torch.float64, device=device)
    written = torch.zeros((1, 0), dtype=torch.int64, device=device)
    for _ in range(machine.longest_number):
        logits = head_logits(language.model, hidden, machine.ids)
        chances = chance[:, None] + machine.log_probabilities(logits, state).double()
        # Whole numbers are kept however unlikely; branches that would have to be followed are not.
        ends = machine.completes[state]
        kept = torch.where(ends, chances > -torch.inf, chances > np.log(SMALLEST_BRANCH))
        branch, symbol = torch.nonzero(kept, as_tuple=True)
        chance = chances[branch, symbol]
        digit = machine.digits[symbol]
        grown = count[branch] * machine.base + digit.clamp(min=0)
        count = torch.where(digit >= 0, grown, count[branch])
        sign = torch.where(machine.is_minus[symbol], -1, sign[branch])
        whole = machine.completes[state[branch], symbol]
        units = (sign * count + machine.zero)[whole].tolist()
        for one, log in zip(units, chance[whole].tolist(), strict=True):
            numbers[one] = numbers.get(one, 0.0) + float(np.exp(log))
        token = machine.ids[machine.columns[state[branch], symbol]]
        written = torch.cat([written[branch], token[:, None]], dim=1)[~whole]
        state = machine.following[state[branch], symbol][~whole]
        count, sign, chance = count[~whole], sign[~whole], chance[~whole]
        if not len(state):
            return
        parts = []
        for part in written.split(ROWS_AT_A_TIME):
            own = replicate(cache, len(part), part.shape[1])
            positions = prompt_length + torch.arange(part.shape[1], device=device)
            parts.append(language.hidden(part, None, positions.expand(part.shape), own)[:, -1])
        hidden = torch.cat(parts)
