"""Symbols of numbers as tokens: of our own decoder, or of any tokenizer that cuts numbers cleanly."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from llamacast.forecast import DataError
from llamacast.text.codec import DIGITS, MISSING, CodecConfig, Units, write
from llamacast.text.grammar import Grammar, Slot

Integers = npt.NDArray[np.int64]

# What a tokenizer is tried with: figures of many lengths, repeated ones, missing ones, long ones.
TRIAL_SEED, TRIAL_STEPS = 0, 64


class Vocabulary(Protocol):
    """Tokens of symbols."""

    def tokens(self, symbol: str, slot: Slot) -> tuple[int, ...]:
        """Of a symbol at its place. All that a model may write are one token each."""
        ...


@dataclass(frozen=True)
class PlacedDigits:
    """Our own decoder's: each place of a number has digits of its own, other ones in the first channel
    than in the rest, so that a token tells by itself what it is worth. For numbers of a fixed width,
    without signs and separators."""

    base: int
    width: int

    @property
    def size(self) -> int:
        return 2 * self.width * (self.base + 1)

    def tokens(self, symbol: str, slot: Slot) -> tuple[int, ...]:
        place = slot.place if slot.is_first_channel else self.width + slot.place
        digit = DIGITS.find(symbol)
        return ((self.base + 1) * place + (digit if 0 <= digit < self.base else self.base),)


@dataclass(frozen=True)
class TokenizerDigits:
    """A tokenizer's: the same wherever a symbol stands. `probe` makes them."""

    ids: dict[str, tuple[int, ...]]

    def tokens(self, symbol: str, slot: Slot) -> tuple[int, ...]:
        return self.ids[symbol]


def probe(tokenizer: Any, config: CodecConfig) -> TokenizerDigits:
    """The tokens of a codec's symbols, found by trying how a tokenizer cuts numbers.

    A model has learnt from text that was cut by its tokenizer, and is at a loss where symbols are put
    together otherwise; so a trial series must be cut into just these symbols.

    Raises:
        DataError: if it merges digits or separators; the message shows where, and what to change.
    """
    grammar = Grammar(config, 2)
    if not (config.value_separator and config.step_separator):
        raise DataError(
            "a language model needs separators; give value_separator and step_separator"
        )
    found = {}
    for symbol in grammar.symbols:
        # After what it stands behind: some tokenizers put a mark before the first word of a text.
        before = config.step_separator + ("1" if symbol == "." else "")
        lead, one = _ids(tokenizer, before), _ids(tokenizer, before + symbol)
        found[symbol] = tuple(one[len(lead) :])
        own = one[: len(lead)] == lead and (len(found[symbol]) == 1 or symbol == config.missing)
        if not own and symbol not in (config.step_separator, config.value_separator):
            raise DataError(
                f"the tokenizer does not cut {symbol!r} off {before!r} as one token; "
                "give other separators, or numbers without a sign: sign='none', scaler='offset'"
            )
    for separator in (config.value_separator, config.step_separator):
        after_digit = _ids(tokenizer, "1" + separator)
        digit = _ids(tokenizer, "1")
        found[separator] = tuple(after_digit[len(digit) :])
        if len(found[separator]) != 1:
            raise DataError(f"the separator {separator!r} is not one token; give another")
    _try_out(tokenizer, found, grammar)
    return TokenizerDigits(found)


def _try_out(tokenizer: Any, found: dict[str, tuple[int, ...]], grammar: Grammar) -> None:
    """A text of numbers must come out as the tokens of its symbols, one by one."""
    config = grammar.config
    rng = np.random.default_rng(TRIAL_SEED)
    sizes = 10.0 ** rng.uniform(0, config.width or config.most_digits - 1, (TRIAL_STEPS, 2))
    units = (sizes * rng.choice([-1, 1], sizes.shape)).astype(np.int64)
    units = np.abs(units) if config.sign == "none" else units
    units = np.clip(units, *config.range).astype(np.int64)
    units[3], units[4], units[7, 1] = 0, units[5], MISSING
    writing = Writing(grammar, TokenizerDigits(found))
    for first in range(TRIAL_STEPS):
        part = units[first : first + 1]
        text = config.step_separator + write(part, config)
        lead = _ids(tokenizer, config.step_separator)
        if _ids(tokenizer, text)[len(lead) :] != writing.encode(part).ids.tolist():
            raise DataError(
                f"the tokenizer puts symbols of {text[len(config.step_separator) :]!r} together, so a "
                "model would read other numbers than are written; take a model that cuts numbers into "
                "single digits (as Qwen2.5 does), or other separators"
            )


def _ids(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


@dataclass(frozen=True)
class Tokens:
    """A series as tokens; all arrays are `(token,)`."""

    ids: Integers
    columns: Integers
    """Which of a `Writing`'s `ids` each is; -1 for parts of missing words, which are not written."""
    states: Integers
    """The grammar's state before each."""
    values: Integers
    """Which number each belongs to, counted through steps and channels."""

    def last_steps(self, num_channels: int, most: int) -> tuple[int, Tokens]:
        """The first step from which on all fits into so many tokens, and what follows from it.

        Everything, where not even the last step fits.
        """
        steps = self.values // num_channels
        begins = np.searchsorted(steps, np.arange(steps[-1] + 1))
        first = int(np.argmax(len(self.ids) - begins <= most))
        kept = slice(begins[first], None)
        return first, Tokens(
            self.ids[kept], self.columns[kept], self.states[kept], self.values[kept]
        )


@dataclass(frozen=True)
class Writing:
    """A grammar in a vocabulary's tokens."""

    grammar: Grammar
    vocabulary: Vocabulary

    @cached_property
    def ids(self) -> Integers:
        """All tokens that may be written, ascending: the same for any number of channels."""
        if self.grammar.num_channels != 2:
            return Writing(Grammar(self.grammar.config, 2), self.vocabulary).ids
        return np.unique(self._token[self._token >= 0])

    @cached_property
    def columns(self) -> Integers:
        """Which of `ids` a symbol is in a state, `(state, symbol)`; -1 where it may not be written."""
        found = np.searchsorted(self.ids, self._token)
        return np.where(self._token >= 0, found, -1)

    @cached_property
    def _token(self) -> Integers:
        """Tokens, `(state, symbol)`; -1 where a symbol may not be written."""
        grammar = self.grammar
        found = np.full(grammar.following.shape, -1, dtype=np.int64)
        for state, symbol in np.argwhere(grammar.following >= 0):
            slot = grammar.slots[state]
            (found[state, symbol],) = self.vocabulary.tokens(grammar.symbols[symbol], slot)
        return found

    @cached_property
    def _beginnings(self) -> list[int]:
        """The state in which each channel's number begins."""
        return [self.grammar.beginning(channel) for channel in range(self.grammar.num_channels)]

    def encode(self, units: Units) -> Tokens:
        """The tokens of numbers `(step, channel)`."""
        if self._is_plain:
            return self._encode_digits(units)
        config, grammar = self.grammar.config, self.grammar
        symbols = {symbol: number for number, symbol in enumerate(grammar.symbols)}
        rows: list[tuple[int, int, int, int]] = []
        for value, one in enumerate(units.ravel().tolist()):
            channel = value % grammar.num_channels
            state = self._beginnings[channel]
            if one == MISSING:
                for place in range(len(config.missing_word) // len(config.missing)):
                    slot = Slot(channel == 0, place)
                    tokens = self.vocabulary.tokens(config.missing, slot)
                    rows += [(token, -1, state, value) for token in tokens]
                separator = grammar.separator(channel)
                if separator:
                    (token,) = self.vocabulary.tokens(separator, Slot(channel == 0, 0))
                    rows.append((token, -1, state, value))
                continue
            for symbol in grammar.spell(one, channel):
                at = symbols[symbol]
                rows.append((self._token[state, at], self.columns[state, at], state, value))
                state = grammar.following[state, at]
        return Tokens(*np.array(rows, dtype=np.int64).reshape(-1, 4).T)

    @cached_property
    def _is_plain(self) -> bool:
        """Digits and nothing else, always as many: reckoned for all numbers at once."""
        config = self.grammar.config
        unsigned = config.width is not None and config.sign in ("none", "centred")
        return unsigned and not (config.point or config.value_separator or config.step_separator)

    def _encode_digits(self, units: Units) -> Tokens:
        config, num_channels = self.grammar.config, self.grammar.num_channels
        assert config.width is not None
        powers = config.base ** np.arange(config.width - 1, -1, -1)
        missing = units == MISSING
        counts = np.where(missing, 0, units - config.zero).astype(np.int64)
        digits = counts[..., None] // powers % config.base
        absent = np.broadcast_to(missing[..., None], digits.shape)
        # States of such a grammar are channels times places, in order.
        states = np.arange(num_channels * config.width).reshape(num_channels, config.width)
        states = np.broadcast_to(states, digits.shape)
        nothing = self._missing_tokens.reshape(num_channels, config.width)
        values = np.broadcast_to(np.arange(units.size).reshape(*units.shape, 1), digits.shape)
        return Tokens(
            np.where(absent, nothing, self._token[states, digits]).ravel(),
            np.where(absent, -1, self.columns[states, digits]).ravel(),
            states.ravel(),
            values.ravel(),
        )

    @cached_property
    def _missing_tokens(self) -> Integers:
        missing = self.grammar.config.missing
        found = [self.vocabulary.tokens(missing, slot)[0] for slot in self.grammar.slots]
        return np.array(found, dtype=np.int64)
