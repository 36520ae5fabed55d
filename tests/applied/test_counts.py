from __future__ import annotations

import numpy as np
import pytest

import llamacast
from llamacast.applied.counts import find_counts
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
    assert find_counts(panel).tolist() == [counts, False]


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
