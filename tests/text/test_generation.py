import numpy as np
import pytest
import torch

from llamacast.text.codec import CodecConfig, read, write
from llamacast.text.generation import Draws, choose, draw
from llamacast.text.grammar import Grammar
from llamacast.text.language import Language, Settings
from llamacast.text.vocabulary import probe

MANY = Draws(num_samples=8, seed=3)


def prompts_of(language, lengths, num_channels=2, seed=0):
    rng = np.random.default_rng(seed)
    config = language.settings.codecs[0]
    least, most = (0, 400) if config.sign == "none" else (-300, 300)
    units = [rng.integers(least, most, (length, num_channels)) for length in lengths]
    return [language.writing(num_channels).encode(one).ids for one in units]


@pytest.mark.parametrize("which", ["decoder", "reader"])
@pytest.mark.parametrize("num_channels", [1, 2, 3])
def test_random_weights_write_nothing_but_numbers(which, num_channels, request):
    language = request.getfixturevalue(which)
    prompts = prompts_of(language, (5, 5), num_channels)
    units = draw(language, prompts, ["a", "b"], num_channels, 4, MANY).numpy()
    assert units.shape == (2, 8, 4, num_channels)
    config = language.settings.codecs[0]
    for path in units.reshape(-1, 4, num_channels):
        assert (read(write(path, config), config, num_channels) == path).all()
    least, most = config.range
    assert ((units >= least) & (units <= most)).all()
    assert len(np.unique(units)) > 20


@pytest.mark.parametrize("which", ["decoder", "reader"])
def test_one_by_one_is_batched_whatever_the_lengths(which, request):
    language = request.getfixturevalue(which)
    prompts, names = prompts_of(language, (4, 9, 6)), ["a", "b", "c"]
    together = draw(language, prompts, names, 2, 3, MANY)
    for one in range(3):
        alone = draw(language, prompts[one : one + 1], names[one : one + 1], 2, 3, MANY)
        assert (alone[0] == together[one]).all()


@pytest.mark.parametrize("which", ["decoder", "reader"])
def test_sampling_is_the_models_own_distribution(which, request):
    """Greedy decoding against a decoder that reads everything anew for each symbol."""
    language = request.getfixturevalue(which)
    (prompt,) = prompts_of(language, (5,))
    greedy = draw(language, [prompt], ["a"], 2, 3, Draws(1, temperature=0))[0, 0]
    writing = language.writing(2)
    ids, state, text = prompt.tolist(), 0, ""
    while len(read_so_far(text, language, 2)) < 3:
        with torch.inference_mode():
            logits = language.model(input_ids=torch.tensor([ids])).logits[0, -1]
        legal = np.flatnonzero(writing.grammar.following[state] >= 0)
        tokens = [int(writing.ids[writing.columns[state, one]]) for one in legal]
        best = int(legal[int(logits[tokens].argmax())])
        ids.append(tokens[legal.tolist().index(best)])
        text += writing.grammar.symbols[best]
        state = writing.grammar.following[state, best]
    assert greedy.tolist() == read_so_far(text, language, 2).tolist()


def read_so_far(text, language, num_channels):
    """Whole steps of a text that may end anywhere."""
    config = language.settings.codecs[0]
    if config.step_separator:
        whole = text[: text.rfind(config.step_separator) + 1]
    else:
        size = config.width * num_channels
        whole = text[: len(text) // size * size]
    return read(whole, config, num_channels)


def test_same_seed_same_paths_and_others_differ(decoder):
    prompts = prompts_of(decoder, (5,))
    one, again = (draw(decoder, prompts, ["a"], 2, 4, MANY) for _ in range(2))
    assert (one == again).all()
    assert (draw(decoder, prompts, ["a"], 2, 4, Draws(8, seed=4)) != one).any()
    assert (draw(decoder, prompts, ["other"], 2, 4, MANY) != one).any()


def test_a_longer_horizon_begins_with_a_shorter_one(decoder):
    prompts = prompts_of(decoder, (5,))
    short, long = (draw(decoder, prompts, ["a"], 2, steps, MANY) for steps in (2, 5))
    assert (long[:, :, :2] == short).all()


def test_choosing_follows_chances_temperature_and_top_p():
    chances = torch.tensor([[0.5, 0.0, 0.3, 0.2]]).log().expand(10_000, -1)
    random = (torch.arange(10_000) + 0.5) / 10_000

    def shares(**options):
        found = choose(chances, random, **{"temperature": 1.0, "top_p": 1.0} | options)
        return torch.bincount(found, minlength=4) / 10_000

    assert torch.allclose(shares(), torch.tensor([0.5, 0.0, 0.3, 0.2]), atol=2e-4)
    assert torch.allclose(shares(top_p=0.6), torch.tensor([0.625, 0.0, 0.375, 0.0]), atol=2e-4)
    squares = torch.tensor([0.25, 0.0, 0.09, 0.04]) / 0.38
    assert torch.allclose(shares(temperature=0.5), squares, atol=2e-4)
    assert shares(temperature=0.0).tolist() == [1, 0, 0, 0]
    assert choose(chances[:1], torch.tensor([1.0]), 1.0, 1.0).tolist() == [3]


def test_signs_and_numbers_of_any_length_are_written(reader, qwen):
    """Words of several digits, with a point; a codec with signs, by a tokenizer that cuts them."""
    config = CodecConfig(precision=2, point=True, sign="none", most_digits=5)
    language = Language(reader.model, Settings((config,), 400), qwen, "pointed")
    units = draw(language, prompts_of(language, (6,), 1), ["a"], 1, 5, Draws(30)).numpy()
    lengths = {len(str(one)) for one in units.ravel().tolist()}
    assert len(lengths) > 2
    assert units.max() < 10**5
    assert "." in probe(qwen, config).ids
    assert Grammar(config, 1).longest_number == 7
