from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from llamacast.data.frame import read_panel
from llamacast.data.panel import Panel
from llamacast.evaluation import named
from llamacast.evaluation.baselines import LEVELS, NUM_LEVELS
from llamacast.evaluation.neural import (
    QUANTILES,
    RECIPES,
    NeuralForecaster,
    _interpolation,
)
from llamacast.forecast import DataError, Forecaster

HORIZON = 5


def series(length, seed):
    random = np.random.default_rng(seed)
    return 10 * seed + 5 * np.sin(2 * np.pi * np.arange(length) / 7) + random.normal(size=length)


def panel(*values, frequency="D"):
    frames = []
    for number, one in enumerate(values):
        times = pd.date_range("2024-01-01", periods=len(one), freq=frequency)
        frames.append(pd.DataFrame({"unique_id": f"s{number}", "ds": times, "y": one}))
    return read_panel(pd.concat(frames))


TRAINING = panel(*(series(60, seed) for seed in range(4)))
UNSEEN = panel(series(50, 7), series(9, 8), np.r_[series(40, 9), [np.nan] * 3])


@pytest.fixture(scope="module", params=RECIPES)
def fitted(request):
    return NeuralForecaster(request.param, steps=2).fit(TRAINING, HORIZON)


def test_it_forecasts_series_that_it_was_not_trained_on(fitted):
    found = fitted.forecast(UNSEEN, HORIZON)
    assert isinstance(fitted, Forecaster)
    assert found.samples.shape == (3, NUM_LEVELS, HORIZON)
    assert np.isfinite(found.samples).all()
    assert (np.diff(found.samples, axis=1) >= 0).all()
    assert not found.joint
    assert list(found.ids) == ["s0", "s1", "s2"]
    assert found.index[0][0] == UNSEEN.axes[0].index(50, 1)[0]
    shorter = fitted.forecast(UNSEEN, 2)
    np.testing.assert_array_equal(shorter.samples, found.samples[..., :2])


def test_one_by_one_as_together(fitted):
    if fitted.name == "deepar":
        pytest.skip("its paths are drawn in turn")
    together = fitted.forecast(UNSEEN, HORIZON).samples
    parts = zip(UNSEEN.ids, UNSEEN.values, UNSEEN.axes, strict=True)
    alone = [
        fitted.forecast(Panel([name], [values], [axis], UNSEEN.columns), HORIZON).samples[0]
        for name, values, axis in parts
    ]
    np.testing.assert_allclose(alone, together, atol=1e-3)


def test_forecasts_follow_level_and_scale(fitted):
    base = fitted.forecast(UNSEEN, HORIZON).samples
    for factor, shift in ((1e12, 0.0), (2.0, 1e9), (1e-9, 0.0)):
        moved = [factor * values + shift for values in UNSEEN.values]
        there = Panel(UNSEEN.ids, moved, UNSEEN.axes, UNSEEN.columns)
        samples = (fitted.forecast(there, HORIZON).samples - shift) / factor
        np.testing.assert_allclose(samples, base, atol=2e-3 * np.abs(base).max())


def test_nasty_series(fitted):
    nasty = panel([5.0], np.zeros(40), np.full(30, 1e12), np.r_[np.zeros(30), 1.0])
    assert np.isfinite(fitted.forecast(nasty, HORIZON).samples).all()


def test_same_seed_same_forecast_and_nothing_is_left_behind(fitted, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(3)
    np.random.seed(3)
    again = NeuralForecaster(fitted.name, steps=2).fit(TRAINING, HORIZON)
    expected = fitted.forecast(UNSEEN, HORIZON).samples
    drawn = torch.rand(1), np.random.random()
    np.testing.assert_array_equal(again.forecast(UNSEEN, HORIZON).samples, expected)
    other = NeuralForecaster(fitted.name, steps=2, seed=1).fit(TRAINING, HORIZON)
    assert np.abs(other.forecast(UNSEEN, HORIZON).samples - expected).max() > 1e-3
    assert drawn == (torch.manual_seed(3) and torch.rand(1), np.random.RandomState(3).random())
    assert list(tmp_path.iterdir()) == []
    assert "".join(capfd.readouterr()) == ""
    import ray

    assert not ray.is_initialized()


def test_longer_horizons_need_training(fitted):
    with pytest.raises(DataError, match="trained for 5 steps, not 6"):
        fitted.forecast(UNSEEN, HORIZON + 1)


def test_time_ends_training():
    import time

    start = time.monotonic()
    NeuralForecaster("n-beats", minutes=0.02, steps=100_000).fit(TRAINING, HORIZON)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("name", RECIPES)
def test_single_steps_short_series_and_no_dates(name):
    short = read_panel(pd.DataFrame({"unique_id": list("aab"), "ds": [0, 1, 0], "y": [1.0, 2, 3]}))
    found = NeuralForecaster(name, steps=1).forecast(short, 1)
    assert np.isfinite(found.samples).all()


def test_interpolation_is_exact_where_levels_are_learned_and_normal_beyond():
    from statistics import NormalDist

    learned = np.sort(np.random.default_rng(0).normal(size=len(QUANTILES)))
    grid = _interpolation() @ learned
    np.testing.assert_allclose(np.interp(QUANTILES, LEVELS, grid), learned, atol=1e-12)
    assert (np.diff(grid) >= 0).all()
    normal = np.array([NormalDist(3, 2).inv_cdf(level) for level in QUANTILES])
    expected = [NormalDist(3, 2).inv_cdf(level) for level in LEVELS]
    np.testing.assert_allclose(_interpolation() @ normal, expected)


def test_every_name_has_a_baseline():
    assert tuple(RECIPES) == named.NEURAL
    for name in RECIPES:
        made = named.baseline(name, season=3, minutes=2.0, seed=4)
        assert (made.name, made.season, made.minutes, made.seed) == (name, 3, 2.0, 4)


def test_unknown_names_list_those_there_are():
    with pytest.raises(DataError, match=r"deepar.*patchtst"):
        NeuralForecaster("prophet")
