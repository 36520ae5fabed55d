import numpy as np
import pytest

from llamacast.text.codec import DIGITS, CodecConfig, read, word
from llamacast.text.grammar import Grammar

WAYS = [
    CodecConfig(precision=0, most_digits=2),
    CodecConfig(precision=0, most_digits=2, sign="none"),
    CodecConfig(precision=0, most_digits=2, sign="both"),
    CodecConfig(precision=1, most_digits=2, point=True),
    CodecConfig(precision=1, width=2, point=True, sign="both"),
    CodecConfig(precision=0, width=2, sign="minus"),
    CodecConfig(
        precision=0, width=2, sign="centred", value_separator="", step_separator="", missing="?"
    ),
    CodecConfig(base=3, precision=0, width=2, sign="centred"),
]


def spellings(grammar, state, written=""):
    """Every number that may be written from a state on, with the state that it ends in."""
    for symbol, name in enumerate(grammar.symbols):
        following = grammar.following[state, symbol]
        if following < 0:
            continue
        if grammar.completes[state, symbol]:
            yield written + name, int(following)
        else:
            yield from spellings(grammar, following, written + name)


@pytest.mark.parametrize("config", WAYS, ids=str)
def test_every_number_has_one_spelling_and_every_spelling_is_a_number(config):
    grammar = Grammar(config, 1)
    found = [text for text, state in spellings(grammar, 0)]
    numbers = [int(read(text, config, 1)[0, 0]) for text in found]
    assert len(set(numbers)) == len(numbers)
    most = config.base ** (config.width or config.most_digits) - 1
    expected = set(range(-most, most + 1))
    if config.sign in ("none", "centred"):
        expected = set(range(config.zero, config.zero + most + 1))
    assert set(numbers) == expected
    assert {word(one, config) + config.step_separator for one in numbers} == set(found)


@pytest.mark.parametrize("config", WAYS, ids=str)
def test_what_is_spelled_is_legal_and_ends_where_the_next_channel_begins(config):
    grammar = Grammar(config, 3)
    for channel in range(3):
        state = grammar.beginning(channel)
        for one in (0, 1, config.zero, 5 % config.base):
            at = state
            for symbol in grammar.spell(one, channel):
                step = at, grammar.symbols.index(symbol)
                at = grammar.following[step]
                assert at >= 0
            assert grammar.completes[step]
            assert at == grammar.beginning((channel + 1) % 3)


@pytest.mark.parametrize("config", WAYS, ids=str)
def test_no_state_is_a_dead_end_and_no_number_is_endless(config):
    grammar = Grammar(config, 2)
    assert (grammar.following >= 0).any(axis=1).all()
    longest = max(len(text) for text, _ in spellings(Grammar(config, 1), 0))
    assert longest == grammar.longest_number


def test_missing_words_are_never_written():
    for config in WAYS:
        grammar = Grammar(config, 2)
        assert (grammar.following[:, grammar.symbols.index(config.missing)] == -1).all()


def test_slots_tell_the_first_channel_from_others():
    config = WAYS[6]
    grammar = Grammar(config, 3)
    assert [slot.place for slot in grammar.slots] == [0, 1] * 3
    assert [slot.is_first_channel for slot in grammar.slots] == [True] * 2 + [False] * 4
    assert np.array_equal(np.flatnonzero(grammar.following[0] >= 0), np.arange(10))
    assert grammar.symbols[:10] == tuple(DIGITS[:10])
