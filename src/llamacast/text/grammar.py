"""Which symbol may follow which, so that all that is written can be read: a state machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from llamacast.text.codec import DIGITS, CodecConfig, word

Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class Slot(NamedTuple):
    """Where in a step a symbol stands."""

    is_first_channel: bool
    place: int
    """Symbols of the number that came before it."""


class State(NamedTuple):
    """What has been written of a number. Each number has one spelling: no needless zero in front, no
    minus before nothing."""

    channel: int
    place: int = 0
    """Symbols so far."""
    whole: int = 0
    """Digits before the point; all of them, where none is written."""
    decimals: int = -1
    """Digits after it; -1 before it."""
    negative: bool = False
    only_zeros: bool = True
    ended: bool = False
    """Only its separator is left to write."""


@dataclass(frozen=True)
class Grammar:
    """All states of numbers of several channels, one after the other; state 0 begins a step."""

    config: CodecConfig
    num_channels: int

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """All that may be written: digits first. The missing word is only ever read."""
        config = self.config
        signs = {"none": "", "centred": "", "minus": "-", "both": "+-"}[config.sign]
        own = [*DIGITS[: config.base], *signs, *("." if config.point else "")]
        words = [config.value_separator, config.step_separator]
        return tuple(dict.fromkeys([*own, *filter(None, words), config.missing]))

    @cached_property
    def _graph(self) -> tuple[list[State], list[dict[str, tuple[State, bool]]]]:
        """States in the order they are met, and what each symbol leads to, and whether a number is
        whole with it."""
        states = [State(0)]
        places = {states[0]: 0}
        moves: list[dict[str, tuple[State, bool]]] = []
        for state in states:  # which grows
            moves.append(dict(self._moves(state)))
            for following, _ in moves[-1].values():
                if following not in places:
                    places[following] = len(states)
                    states.append(following)
        return states, moves

    @cached_property
    def following(self) -> Integers:
        """The state that a symbol leads to, `(state, symbol)`; -1 where it may not be written."""
        states, moves = self._graph
        places = {state: number for number, state in enumerate(states)}
        found = np.full((len(states), len(self.symbols)), -1, dtype=np.int64)
        for row, move in enumerate(moves):
            for symbol, (state, _) in move.items():
                found[row, self.symbols.index(symbol)] = places[state]
        return found

    @cached_property
    def completes(self) -> Flags:
        """Whether a number is whole, with its separator, once a symbol is written: `(state, symbol)`."""
        _, moves = self._graph
        found = np.zeros((len(moves), len(self.symbols)), dtype=bool)
        for row, move in enumerate(moves):
            for symbol, (_, whole) in move.items():
                found[row, self.symbols.index(symbol)] = whole
        return found

    @cached_property
    def slots(self) -> list[Slot]:
        """Of what is written next, in each state."""
        return [Slot(state.channel == 0, state.place) for state in self._graph[0]]

    def beginning(self, channel: int) -> int:
        """The state in which a channel's number begins."""
        return self._graph[0].index(State(channel))

    def spell(self, one: int, channel: int) -> list[str]:
        """The symbols of a number of units, with its separator."""
        separator = self.separator(channel)
        return [*word(one, self.config), *([separator] if separator else [])]

    @property
    def longest_number(self) -> int:
        """Symbols of the longest number that may be written, with its separator."""
        config = self.config
        digits = config.width or config.most_digits
        separators = max(len(config.value_separator), len(config.step_separator)) > 0
        return digits + (config.sign in ("minus", "both")) + config.point + separators

    def _moves(self, state: State) -> Iterator[tuple[str, tuple[State, bool]]]:
        config = self.config
        if state.place == 0 and config.sign in ("minus", "both"):
            if config.sign == "both":
                yield "+", (state._replace(place=1), False)
            yield "-", (state._replace(place=1, negative=True), False)
            if config.sign == "both":
                return
        if state.ended:
            yield self.separator(state.channel), (self._next(state), True)
            return
        free, pointed = config.width is None, state.decimals >= 0
        most = (config.width or config.most_digits) - config.precision * config.point
        may_end = state.whole >= 1 if free else state.whole == most
        closed = state.whole == most or (free and may_end and state.only_zeros)
        if pointed or not closed:
            for digit in DIGITS[: config.base]:
                yield from self._digit(state, digit)
        if may_end and not pointed and config.point:
            yield ".", (state._replace(place=state.place + 1, decimals=0), False)
        elif may_end and not pointed:
            yield self.separator(state.channel), (self._next(state), True)

    def _digit(self, state: State, digit: str) -> Iterator[tuple[str, tuple[State, bool]]]:
        config, pointed = self.config, state.decimals >= 0
        zeros_count = state.negative or config.width is None
        after = state._replace(
            place=state.place + 1,
            whole=state.whole + (not pointed),
            decimals=state.decimals + pointed,
            only_zeros=state.only_zeros and (digit == "0" or not zeros_count),
        )
        last = after.decimals == config.precision if config.point else after.whole == config.width
        is_nothing = after.only_zeros and (last or (config.width is None and not config.point))
        if after.negative and is_nothing:
            return
        if last and not self.separator(after.channel):
            yield digit, (self._next(after), True)
        else:
            yield digit, (after._replace(ended=last), False)

    def separator(self, channel: int) -> str:
        """What follows a channel's number; it may be nothing."""
        ends_step = channel == self.num_channels - 1
        return self.config.step_separator if ends_step else self.config.value_separator

    def _next(self, state: State) -> State:
        """The beginning of the next number."""
        return State((state.channel + 1) % self.num_channels)
