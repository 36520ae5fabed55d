import numpy as np
import pytest

from llamacast.forecast import DataError
from llamacast.text.codec import MISSING, CodecConfig, fit
from llamacast.text.generation import Draws, draw
from llamacast.text.language import Language, Settings
from llamacast.text.likelihood import log_probabilities, next_number

TWO_DIGITS = CodecConfig(precision=0, most_digits=2, sign="none")


def windows_of(language, lengths, num_channels, seed=0):
    rng = np.random.default_rng(seed)
    writing = language.writing(num_channels)
    return [writing.encode(rng.integers(0, 300, (length, num_channels))) for length in lengths]


@pytest.mark.parametrize("which", ["decoder", "reader"])
def test_probabilities_of_all_numbers_sum_to_one(which, request, qwen):
    language = request.getfixturevalue(which)
    if which == "reader":
        language = Language(language.model, Settings((TWO_DIGITS,), 200), qwen, "two digits")
    config = language.settings.codecs[0]
    start = np.array([[3], [17]])
    least, most = config.range if config.width else (0, 99)
    numbers = np.arange(least, most + 1, dtype=np.int64)
    windows = [language.writing(1).encode(np.vstack([start, [[one]]])) for one in numbers]
    parts = [windows[first : first + 128] for first in range(0, len(windows), 128)]
    found = [one[-1] for part in parts for one in log_probabilities(language, part, 1)]
    assert np.exp(found).sum() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("which", ["decoder", "reader"])
def test_one_by_one_is_batched(which, request):
    language = request.getfixturevalue(which)
    windows = windows_of(language, (4, 7, 5), 2)
    together = log_probabilities(language, windows, 2)
    for window, found in zip(windows, together, strict=True):
        (alone,) = log_probabilities(language, [window], 2)
        assert np.allclose(alone, found, atol=1e-5, equal_nan=True)
        assert np.isnan(found[0])
        assert np.isfinite(found[1:]).all()


def test_missing_numbers_have_no_probability(decoder):
    units = np.array([[5], [MISSING], [7], [8]])
    (found,) = log_probabilities(decoder, [decoder.writing(1).encode(units)], 1)
    assert np.isnan(found).tolist() == [True, True, False, False]


def test_the_tree_of_digits_is_the_likelihood(decoder):
    start = np.array([[30], [-40], [12]])
    tree = next_number(decoder, decoder.writing(1).encode(start).ids)
    assert 0.9 < tree.followed <= 1 + 1e-6
    some = tree.units[:: max(1, len(tree.units) // 20)]
    windows = [decoder.writing(1).encode(np.vstack([start, [[one]]])) for one in some]
    logs = [one[-1] for one in log_probabilities(decoder, windows, 1)]
    told = tree.probabilities[np.isin(tree.units, some)]
    assert np.allclose(np.log(told), logs, atol=1e-4)


@pytest.mark.parametrize("which", ["decoder", "reader"])
def test_exact_quantiles_are_those_of_many_samples(which, request, qwen):
    language = request.getfixturevalue(which)
    if which == "reader":
        language = Language(language.model, Settings((TWO_DIGITS,), 200), qwen, "two digits")
    ids = language.writing(1).encode(np.array([[30], [40], [12]])).ids
    tree = next_number(language, ids)
    samples = draw(language, [ids], ["a"], 1, 1, Draws(4000)).numpy().ravel()
    levels = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    exact = tree.quantile(levels)
    assert (np.diff(exact) >= 0).all()
    # Within half a unit: a single number may have much of the probability.
    assert (np.array([(samples <= one + 0.5).mean() for one in exact]) > levels - 0.03).all()
    assert (np.array([(samples < one - 0.5).mean() for one in exact]) < levels + 0.03).all()
    often = tree.units[tree.probabilities.argsort()[-5:]]
    shares = [(samples == one).mean() for one in often]
    assert np.allclose(shares, np.sort(tree.probabilities)[-5:], atol=0.03)


def test_quantiles_are_not_told_of_what_was_not_followed(reader):
    tree = next_number(reader, reader.writing(1).encode(np.array([[30], [40], [12]])).ids)
    assert tree.followed < 0.9  # nine digits of random weights
    with pytest.raises(DataError, match="not exact"):
        tree.quantile([0.5])


def test_density_integrates_to_one_in_data_units(decoder):
    """Bin widths and the transform's slope, by numeric integration over all next values."""
    history = np.array([1.0, 1.3, 0.9, 1.2])
    for codec in decoder.settings.codecs:
        scale = fit(history, codec)
        written = scale.units(history)[:, None]
        tree = next_number(decoder, decoder.writing(1).encode(written).ids)
        level = scale.values(written[:, 0])[-1]
        values = np.array([scale.values(np.array([one]), level)[0] for one in tree.units])
        density = tree.probabilities * np.exp(scale.log_density(values))
        edges = [scale.values(np.array([one - 0.5, 0.0])[:1], level)[0] for one in tree.units]
        tops = [scale.values(np.array([one + 0.5]), level)[0] for one in tree.units]
        mass = (density * (np.array(tops) - np.array(edges))).sum()
        assert mass == pytest.approx(tree.followed, rel=0.02)
