from __future__ import annotations

import numpy as np
import pytest

import llamacast
from llamacast.applied.support import find_support
from llamacast.data.frame import read_panel

RNG = np.random.default_rng(0)
"""For parameters only, which are made once."""


@pytest.mark.parametrize(
    ("values", "counts"),
    [
        (RNG.poisson(0.3, 100), True),
        (np.r_[RNG.poisson(4, 50), np.full(20, np.nan)], True),
        (np.full(20, 5.0), True),
        (RNG.poisson(0.3, 100) * 0.5, False),
        (RNG.normal(size=100), False),
        (np.arange(100), False),
        (np.r_[RNG.poisson(4, 99), 0.5], False),
        ([0, 1, 0, 1], False),
    ],
)
def test_counts_are_whole_and_come_again(values, counts):
    other = np.random.default_rng(1).normal(size=30)
    panel = read_panel([np.asarray(values, float), other])
    assert find_support(panel, None, None).whole.tolist() == [counts, False]


@pytest.mark.parametrize("model", ["cria", "lag-llama"])
def test_forecasts_of_counts_are_whole_beside_others_that_are_not(model):
    forecaster = llamacast.load(model, device="cpu")
    rng = np.random.default_rng(0)
    counts, other = rng.poisson(0.7, 120).astype(float), rng.normal(size=120)
    found = forecaster.forecast([counts, other], 12, num_samples=20, seed=1)
    assert found.whole.tolist() == [True, False]
    levels = found.quantile([0.1, 0.33, 0.5, 0.97])
    np.testing.assert_array_equal(levels[0], levels[0].round())
    np.testing.assert_array_equal(found.samples[0], found.samples[0].round())
    assert not np.signbit(found.samples[0][found.samples[0] == 0]).any()
    assert (found.samples[1] != found.samples[1].round()).all()
    np.testing.assert_array_equal(
        found.quantile(0.33)[1], np.quantile(found.samples[1], 0.33, axis=0)
    )


@pytest.mark.parametrize(
    ("values", "floored"),
    [
        (np.maximum(RNG.normal(size=100), 0), True),
        (RNG.poisson(0.3, 100), True),
        (np.r_[np.maximum(RNG.normal(size=50), 0), np.full(20, np.nan)], True),
        (np.maximum(RNG.normal(size=100), -1), False),
        (-np.maximum(RNG.normal(size=100), 0), False),
        (RNG.poisson(50, 100), False),
        (np.r_[0, 0, 0, RNG.poisson(50, 97)], False),  # it begins there
        ([0, 0, 0, 1], False),
    ],
)
def test_a_series_that_met_0_again_and_again_and_never_passed_it_has_a_floor(values, floored):
    panel = read_panel([np.asarray(values, float), np.arange(30) - 15.0])
    assert find_support(panel, None, None).nonnegative.tolist() == [floored, False]


@pytest.mark.parametrize("stray", [-9999.0, 99999.5])
def test_a_stray_value_hides_neither_counts_nor_a_floor(stray):
    counts, rain = RNG.poisson(0.7, 200).astype(float), np.maximum(RNG.normal(size=200), 0)
    counts[70] = rain[70] = stray
    found = find_support(read_panel([counts, rain]), None, None)
    assert found.whole.tolist() == [True, False]
    assert found.nonnegative.tolist() == [True, True]
    # What comes again, or last, is the series' own.
    counts[[30, 110]] = rain[[30, 110]] = stray
    counts[-1] = rain[-1] = stray
    found = find_support(read_panel([counts, rain]), None, None)
    assert not (found.whole & found.nonnegative).any()


def test_what_is_told_goes_before_what_the_past_shows():
    panel = read_panel([RNG.poisson(0.3, 100).astype(float), RNG.normal(size=100)])
    for told in (True, False):
        found = find_support(panel, told, None)
        assert found.nonnegative.tolist() == [told, told]
        assert found.whole.tolist() == [True, False]
        found = find_support(panel, None, told)
        assert found.nonnegative.tolist() == [True, False]
        assert found.whole.tolist() == [told, told]


@pytest.mark.parametrize("model", ["cria", "lag-llama"])
def test_forecasts_keep_to_a_floor_unless_they_are_told_of_none(model):
    forecaster = llamacast.load(model, device="cpu")
    noise = np.random.default_rng(0).normal(size=(2, 120))
    rain, other = np.maximum(noise[0], 0) * 1.7, noise[1]
    found, free = (
        forecaster.forecast([rain, other], 12, nonnegative=told, seed=1).samples
        for told in (None, False)
    )
    assert free[0].min() < 0 <= found[0].min()
    assert not np.signbit(found[0]).any()
    np.testing.assert_array_equal(found[0], free[0].clip(min=0.0))
    np.testing.assert_array_equal(found[1], free[1])


@pytest.mark.parametrize("integer", [True, False])
def test_who_says_so_has_whole_numbers_or_not(integer):
    values = np.random.default_rng(0).poisson(0.7, 120).astype(float)
    found = llamacast.load("cria", device="cpu").forecast(values, 12, integer=integer)
    assert found.whole.tolist() == [integer]
    assert (found.samples == found.samples.round()).all() == integer


def test_rounding_brings_counts_nearer():
    """Of independent counts the best quantiles are known: those of their distribution."""
    rate, horizon, levels = 0.7, 24, np.arange(0.1, 0.95, 0.1)
    values = np.random.default_rng(1).poisson(rate, (40, 300 + horizon)).astype(float)
    forecaster = llamacast.load("cria", device="cpu")
    # Half of a thousandth beside them, and they are no counts.
    known = [*values[:, :300]], [*(values[:, :300] + 5e-4)]
    whole, between = (forecaster.forecast(one, horizon).quantile(levels) for one in known)

    def loss(quantiles):
        error = values[:, 300:, None] - quantiles
        return np.maximum(levels * error, (levels - 1) * error).mean()

    draws = np.random.default_rng(2).poisson(rate, 100_000)
    best = loss(np.quantile(draws, levels, method="inverted_cdf"))
    assert loss(whole) < 1.03 * best < loss(between)
