from __future__ import annotations

import numpy as np
import pandas as pd

from llamacast.evaluation.baselines import SeasonalNaive
from llamacast.forecast import Forecaster


def hourly(values):
    return pd.Series(values, pd.date_range("2024-01-01", periods=len(values), freq="h"))


def test_it_is_a_forecaster():
    assert isinstance(SeasonalNaive(), Forecaster)


def test_the_last_season_repeats_and_uncertainty_grows_by_seasons():
    values = np.tile(np.arange(24.0), 10) + np.random.default_rng(0).normal(size=240)
    forecast = SeasonalNaive().forecast(hourly(values), 60)
    np.testing.assert_allclose(forecast.median[0], values[-24:][np.arange(60) % 24], atol=1e-9)
    width = np.subtract(*forecast.interval(80)[::-1])[0]
    np.testing.assert_allclose(width[24] / width[0], np.sqrt(2))
    np.testing.assert_allclose(width[48] / width[0], np.sqrt(3))


def test_quantiles_are_those_of_the_normal():
    forecast = SeasonalNaive(season=1).forecast(hourly([0.0, 1.0, 0.0, 1.0]), 1)
    low, high = forecast.interval(80)
    np.testing.assert_allclose([low[0, 0], high[0, 0]], [1 - 1.2815516, 1 + 1.2815516], atol=1e-6)
    assert not forecast.joint


def test_short_and_gappy_series():
    forecast = SeasonalNaive().forecast(hourly([5.0, np.nan, 7.0, np.nan]), 3)
    np.testing.assert_allclose(forecast.median[0], 7.0)
    assert np.isfinite(forecast.samples).all()
