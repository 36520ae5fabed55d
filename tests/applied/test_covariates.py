"""Covariates beside the packaged networks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import llamacast
from llamacast.applied.covariates import _backs, _designs, _effects_of_windows
from llamacast.applied.regression import Design, fit_alone, fit_together
from llamacast.data.frame import read_panel
from llamacast.data.panel import Covariates, Panel
from llamacast.data.windows import Origins

STEPS, HORIZON = 250, 14


@pytest.fixture(scope="module", params=["cria", "lag-llama"])
def forecaster(request):
    return llamacast.load(request.param, device="cpu")


def tables(effect, num_series=3, seed=0):
    """History, future and what comes, of daily series with a week and what `effect` adds."""
    rng = np.random.default_rng(seed)
    history, future, actuals = [], [], []
    for number in range(num_series):
        time = np.arange(STEPS + HORIZON)
        promotion = (rng.random(len(time)) < 0.15).astype(float)
        warmth = 15 + 10 * np.sin(2 * np.pi * time / 365) + rng.normal(0, 4, len(time))
        unit = number + 1
        y = 50 * unit * (1 + 0.3 * np.sin(2 * np.pi * time / 7)) + rng.normal(0, unit, len(time))
        y = y + unit * effect(promotion, warmth)
        frame = pd.DataFrame(
            {
                "unique_id": f"s{number}",
                "ds": pd.date_range("2022-01-03", periods=len(time)),
                "y": y,
                "promotion": promotion,
                "warmth": warmth,
            }
        )
        history.append(frame[:STEPS])
        future.append(frame[STEPS:].drop(columns="y"))
        actuals.append(y[STEPS:])
    return pd.concat(history), pd.concat(future), np.array(actuals)


def error(forecast, actuals):
    return np.abs(forecast.median - actuals).mean()


@pytest.mark.parametrize(
    "effect",
    [lambda promotion, warmth: 25 * promotion, lambda promotion, warmth: 3 * np.abs(warmth - 16)],
    ids=["promotions", "load by temperature"],
)
def test_a_covariate_that_matters_makes_forecasts_better(forecaster, effect):
    history, future, actuals = tables(effect)
    plain = forecaster.forecast(history[["unique_id", "ds", "y"]], HORIZON, num_samples=50)
    told = forecaster.forecast(history, HORIZON, num_samples=50, future_frame=future)
    assert "used in 3 of 3 series" in told.notes[0]
    assert error(told, actuals) < 0.6 * error(plain, actuals)
    low, high = told.interval(80)
    assert 0.5 < ((low <= actuals) & (actuals <= high)).mean() <= 1.0


def test_noise_is_left_out_and_changes_nothing(forecaster):
    history, future, _ = tables(lambda promotion, warmth: 0.0)
    plain = forecaster.forecast(history[["unique_id", "ds", "y"]], HORIZON, num_samples=20)
    told = forecaster.forecast(history, HORIZON, num_samples=20, future_frame=future)
    assert "did not help" in told.notes[0]
    np.testing.assert_array_equal(plain.samples, told.samples)


def test_a_series_is_forecast_alone_as_in_company_unless_series_tell_of_each_other(forecaster):
    history, future, _ = tables(lambda promotion, warmth: 25 * promotion)
    one = history.unique_id == "s1"
    options = {"num_samples": 20, "seed": 3}
    told = forecaster.forecast(history, HORIZON, future_frame=future, **options)
    again = forecaster.forecast(history, HORIZON, future_frame=future, **options)
    np.testing.assert_array_equal(told.samples, again.samples)
    alone = forecaster.forecast(
        history[one], HORIZON, future_frame=future[future.unique_id == "s1"], **options
    )
    np.testing.assert_allclose(alone.median[0], told.median[1], rtol=0.05)


def test_bounds_hold_for_the_sum(forecaster):
    history, future, _ = tables(lambda promotion, warmth: -200 * promotion)
    told = forecaster.forecast(
        history, HORIZON, num_samples=20, future_frame=future, nonnegative=True, integer=True
    )
    assert told.samples.min() >= 0
    np.testing.assert_array_equal(told.samples, told.samples.round())


def test_short_series_have_no_regression(forecaster):
    history, future, _ = tables(lambda promotion, warmth: 25 * promotion)
    short = history.groupby("unique_id").tail(10)
    told = forecaster.forecast(short, HORIZON, num_samples=5, future_frame=future)
    assert "did not help" in told.notes[0]


# --- Regressions -----------------------------------------------------------------------------------


def design(slope=3.0, noise=0.1, seed=0, steps=120, horizon=10, ahead=True):
    rng = np.random.default_rng(seed)
    known = rng.integers(0, 3, (steps + horizon, 1)).astype(float)
    level = np.cumsum(rng.normal(0, noise, steps))
    values = level + slope * known[:steps, 0] + rng.normal(0, noise, steps)
    if not ahead:
        known[steps:] = np.nan
    return Design(values, known, np.array([ahead]), 7), known


@pytest.mark.parametrize("kind", ["levels", "changes", "seasons"])
def test_the_effect_is_found_beside_season_and_level(kind):
    found, known = design()
    effects = fit_alone(found, kind)
    jumps = known[1:, 0] - known[:-1, 0]
    slope = np.polyfit(jumps, np.diff(effects.mean), 1)[0]
    assert slope == pytest.approx(3.0, abs=0.3)
    assert effects.mean[:120].mean() == pytest.approx(0.0, abs=1e-9)


def test_draws_spread_by_what_is_not_known():
    wide, narrow = (fit_alone(design(noise=n)[0], "changes") for n in (3.0, 0.01))
    rng = np.random.default_rng(0)
    spread = [one.draw(2000, rng, True).std(axis=0).mean() for one in (wide, narrow)]
    assert spread[0] > 20 * spread[1] > 0
    drawn = wide.draw(4000, rng, True).mean(axis=0)
    np.testing.assert_allclose(drawn, wide.mean[-10:], atol=0.15)
    np.testing.assert_array_equal(wide.draw(1, rng, False)[0], wide.mean[-10:])


def test_what_is_known_in_the_past_only_is_used_a_horizon_late():
    rng = np.random.default_rng(0)
    known = rng.normal(size=(130, 1))
    values = np.full(120, np.nan)
    values[10:] = 2 * known[:110, 0]  # what happens shows ten steps later
    known[120:] = np.nan
    effects = fit_alone(Design(values, known, np.array([False]), 0), "levels")
    np.testing.assert_allclose(
        effects.mean[120:] - effects.mean[120:].mean(),
        2 * (known[110:120, 0] - known[110:120, 0].mean()),
        atol=0.3,
    )


def test_series_together_tell_what_each_tells_too_seldom():
    found = [design(seed=seed, steps=20, noise=0.3)[0] for seed in range(30)]
    effects = fit_together(found)
    slopes = [
        np.ptp(one.mean) / np.ptp(own.covariates[:, 0])
        for one, own in zip(effects, found, strict=True)
    ]
    assert np.median(slopes) == pytest.approx(3.0, abs=0.5)


def test_windows_are_explained_without_what_comes_after_them():
    rng = np.random.default_rng(0)
    values, beside = rng.normal(size=(2, 60)).cumsum(axis=1), rng.normal(size=(2, 67, 2))

    def effects(last):
        changed = values.copy()
        changed[:, 32:] += last
        axes = [read_panel(one).axes[0] for one in changed]
        known = Covariates(("a", "b"), np.ones(2, bool), np.zeros(2, bool), list(beside))
        plain = read_panel(list(changed))
        panel = Panel(plain.ids, plain.values, axes, plain.columns, known)
        origins = Origins(panel, np.repeat([0, 1], 4), np.tile([32, 39, 46, 53], 2), 7)
        designs = _designs(origins.histories(slice(None)), 7)
        return [one.mean for one in _effects_of_windows(designs, "together", origins)]

    plain, changed = effects(0.0), effects(rng.normal(size=(2, 28)) * 9)
    for first in (0, 4):
        np.testing.assert_array_equal(plain[first], changed[first])
    assert not np.allclose(plain[3], changed[3])


def test_what_tells_series_apart_alters_what_a_covariate_does():
    rng = np.random.default_rng(0)
    designs = []
    for number in range(20):
        size = number % 2
        known = np.stack([rng.random(70), np.full(70, float(size))], axis=1)
        values = (1 + 4 * size) * known[:60, 0] + rng.normal(0, 0.05, 60)
        # All in the same units, whatever their own changes.
        designs.append(Design(values / (1 + 4 * size), known, np.array([True, True]), 0))
    for one, own in zip(fit_together(designs), designs, strict=True):
        assert np.corrcoef(one.mean[:60], own.covariates[:60, 0])[0, 1] > 0.99


def test_a_covariate_that_never_changes_does_nothing():
    values = np.random.default_rng(0).normal(size=50)
    still = Design(values, np.ones((60, 1)), np.array([True]), 0)
    for effects in (fit_alone(still, "levels"), *fit_together([still, still])):
        np.testing.assert_array_equal(effects.mean, np.zeros(60))


def test_what_is_rare_is_judged_where_it_was():
    """A holiday comes once a year, and the last weeks before it tell nothing of what it does."""
    closed = pytest.importorskip("holidays").country_holidays("DE")
    days = pd.date_range("2021-01-04", "2023-12-20", freq="D")
    feasts = [day in closed for day in days.date]
    rng = np.random.default_rng(0)
    sold = np.where(feasts, 0.0, 80 + 10 * np.sin(days.dayofweek) + 5 * rng.normal(size=len(days)))
    table = pd.DataFrame({"ds": days, "y": sold})
    found = llamacast.load("cria", device="cpu").forecast(table, 7, holidays="DE", nonnegative=True)
    assert "used in 1 of 1" in found.notes[0]
    christmas = np.isin(found.index[0].day, [25, 26])
    assert (found.median[0, christmas] < 20).all()
    assert (found.median[0, ~christmas] > 50).all()


@pytest.mark.parametrize("length", [100, 365])
def test_windows_that_judge_are_the_last_unless_something_rare_comes(length):
    beside = np.zeros((length + 7, 2))
    beside[:, 0] = np.arange(length + 7)
    assert _backs(beside, length, 7, 4) == [4, 3, 2, 1]
    beside[length + 3, 1] = 1.0
    assert _backs(beside, length, 7, 4) == [4, 3, 2, 1]  # it was never before
    beside[length - 50, 1] = 1.0
    assert _backs(beside, length, 7, 4) == [8, 3, 2, 1]
    beside[length - 2, 1] = 1.0
    assert _backs(beside, length, 7, 4) == [4, 3, 2, 1]
    assert _backs(beside[-15:], 8, 7, 4) == []
