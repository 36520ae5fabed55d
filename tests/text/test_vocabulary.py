import dataclasses

import numpy as np
import pytest

from llamacast.forecast import DataError
from llamacast.text.codec import MISSING, CodecConfig, write
from llamacast.text.grammar import Grammar, Slot
from llamacast.text.language import PLAIN
from llamacast.text.vocabulary import PlacedDigits, Writing, probe
from tests.text.conftest import QWEN_CUTS, tokenizer_of

UNSIGNED = CodecConfig(sign="none", scaler="offset")
UNITS = np.array([[123, 45], [0, 7], [MISSING, 900]])


def test_the_fixture_cuts_as_qwen_does(qwen):
    assert qwen("1.23")["input_ids"] == [16, 13, 17, 18]
    assert qwen("1 . 2 3")["input_ids"] == [16, 659, 220, 17, 220, 18]
    assert qwen("0123456789")["input_ids"] == list(range(15, 25))
    assert qwen(";;")["input_ids"] == [6768]


@pytest.mark.parametrize(
    "config",
    [
        UNSIGNED,
        CodecConfig(sign="none", point=True, precision=3),
        CodecConfig(sign="none", width=3),
    ],
)
def test_tokens_of_symbols_are_those_of_the_text(qwen, config):
    writing = Writing(Grammar(config, 2), probe(qwen, config))
    units = UNITS if config.width is None else UNITS.clip(min=0)
    text = write(units, config)
    assert writing.encode(units).ids.tolist() == qwen(text)["input_ids"]


def test_signs_that_merge_with_separators_are_refused(qwen):
    with pytest.raises(DataError, match=r"'-'.*sign='none'"):
        probe(qwen, CodecConfig())
    with pytest.raises(DataError, match="needs separators"):
        probe(qwen, PLAIN)


def test_merged_digits_and_separators_are_refused(qwen):
    letters = {chr(code): code for code in range(33, 127)} | {"12": 200, ";;": 201, "NaN": 202}
    letters |= {"Na": 203}
    merges = [("1", "2"), (";", ";"), ("N", "a"), ("Na", "N")]
    merging = tokenizer_of(letters, merges, r"\p{N}+|[^\p{N}]+")
    with pytest.raises(DataError, match=r"puts symbols of '.*12"):
        probe(merging, UNSIGNED)
    # The same merges do no harm where digits are cut apart first.
    single = tokenizer_of(letters, merges, QWEN_CUTS)
    assert probe(single, UNSIGNED).ids["1"] == (ord("1"),)


def test_states_and_columns_follow_the_grammar(qwen):
    for vocabulary, config in ((probe(qwen, UNSIGNED), UNSIGNED), (PlacedDigits(32, 2), PLAIN)):
        writing = Writing(Grammar(config, 2), vocabulary)
        tokens = writing.encode(UNITS)
        state = 0
        for token, column, at, value in zip(
            tokens.ids, tokens.columns, tokens.states, tokens.values, strict=True
        ):
            if value == 4:  # the missing one
                assert column == -1
                state = writing.grammar.beginning(1)
                continue
            assert at == state
            assert writing.ids[column] == token
            (symbol,) = np.flatnonzero(writing.columns[state] == column)
            state = writing.grammar.following[state, symbol]
        assert tokens.values.tolist() == sorted(tokens.values)


def test_digits_alone_are_encoded_as_symbol_by_symbol():
    signed = dataclasses.replace(PLAIN, step_separator=";", value_separator=",")
    vocabulary = PlacedDigits(32, 2)
    quick = Writing(Grammar(PLAIN, 3), vocabulary)
    slow = Writing(Grammar(signed, 3), vocabulary)
    assert quick._is_plain
    assert not slow._is_plain
    units = np.random.default_rng(0).integers(-512, 512, (20, 3))
    ids = slow.encode(units).ids
    digits_only = [one for place, one in enumerate(ids) if place % 3 < 2]
    assert quick.encode(units).ids.tolist() == digits_only


def test_every_place_has_digits_of_its_own():
    vocabulary = PlacedDigits(10, 3)
    slots = [Slot(first, place) for first in (True, False) for place in range(3)]
    found = [vocabulary.tokens(symbol, slot) for slot in slots for symbol in [*"0123456789", "?"]]
    assert sorted(found) == [(one,) for one in range(vocabulary.size)]


def test_columns_are_the_same_for_any_number_of_channels(qwen):
    for vocabulary, config in ((probe(qwen, UNSIGNED), UNSIGNED), (PlacedDigits(32, 2), PLAIN)):
        all_ids = [Writing(Grammar(config, count), vocabulary).ids.tolist() for count in (1, 2, 3)]
        assert all_ids[0] == all_ids[1] == all_ids[2]
