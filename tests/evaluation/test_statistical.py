from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from statsforecast import StatsForecast
from statsforecast import models as library

from llamacast.data.panel import Panel
from llamacast.evaluation import named
from llamacast.evaluation.baselines import NUM_LEVELS, SeasonalNaive
from llamacast.evaluation.statistical import (
    FEWEST_SHARED,
    METHODS,
    StatisticalForecaster,
    Task,
    answer_one,
)
from llamacast.forecast import DataError, Forecaster

SEASON = 7


def weekly(length, seed=0, level=50.0):
    random = np.random.default_rng(seed)
    season = 10 * np.sin(2 * np.pi * np.arange(length) / SEASON)
    return level + season + np.cumsum(random.normal(size=length)) + random.normal(size=length)


def table(*series):
    return pd.concat(
        pd.DataFrame(
            {
                "unique_id": f"s{number:02}",
                "ds": pd.date_range("2024-01-01", periods=len(values), freq="D"),
                "y": values,
            }
        )
        for number, values in enumerate(series)
    )


def answer(name, values, horizon=14, seasons=(SEASON,)):
    grid = answer_one(Task(name, np.asarray(values, dtype=float), horizon, seasons))
    assert not isinstance(grid, str), grid
    return grid


def deviation(grid):
    """Of a normal, from its 10 % and 90 % quantiles; a row is a level."""
    return (grid[180] - grid[20]) / (2 * 1.2815515655446004)


@pytest.mark.parametrize(
    ("forecaster", "theirs"),
    [
        (StatisticalForecaster("naive"), library.Naive()),
        (StatisticalForecaster("drift"), library.RandomWalkWithDrift()),
        (SeasonalNaive(), library.SeasonalNaive(SEASON)),
    ],
)
def test_simple_ones_are_the_librarys_own(forecaster, theirs):
    data = table(weekly(1500), weekly(60, 1))
    expected = StatsForecast([theirs], freq="D").forecast(df=data, h=17, level=[80])
    found = forecaster.forecast(data, 17)
    low, high = found.interval(80)
    columns = expected.drop(columns=["unique_id", "ds"]).to_numpy()
    ours = np.stack([found.median, low, high], axis=-1).reshape(-1, 3)
    np.testing.assert_allclose(ours, columns, rtol=1e-9)
    assert isinstance(forecaster, Forecaster)
    assert not found.joint


@pytest.mark.filterwarnings("ignore:possible convergence problem")  # the library's own call
@pytest.mark.parametrize("name", ["auto-arima", "auto-ets", "mstl"])
def test_points_and_intervals_of_the_library_are_kept(name):
    theirs = {
        "auto-arima": library.AutoARIMA(season_length=SEASON, approximation=True),
        "auto-ets": library.AutoETS(),
        "mstl": library.AutoETS(model="ZZN"),
    }[name]
    values = np.random.default_rng(2).normal(size=80).cumsum() + 100
    expected = theirs.forecast(y=values, h=9, level=[80, 95])
    grid = answer(name, values, 9, (SEASON,) if name == "auto-arima" else ())
    for level, row in (("lo-95", 5), ("lo-80", 20), ("hi-80", 180), ("hi-95", 195)):
        np.testing.assert_allclose(grid[row], expected[level], rtol=1e-9)
    np.testing.assert_allclose(grid[100], expected["mean"], rtol=1e-9)


def test_mstl_takes_several_seasons():
    hours = np.arange(3 * 168)
    day, week = np.sin(2 * np.pi * hours / 24), np.cos(2 * np.pi * hours / 168)
    values = 20 + 5 * day + 8 * week + 0.1 * np.random.default_rng(0).normal(size=len(hours))
    frame = pd.Series(values, pd.date_range("2024-01-01", periods=len(hours), freq="h"))
    found = StatisticalForecaster("mstl").forecast(frame, 168)
    np.testing.assert_allclose(found.median[0], values[-168:], atol=1.5)


@pytest.mark.parametrize("name", ["theta", "optimized-theta", "auto-theta"])
def test_thetas_deviation_is_that_of_the_librarys_draws(name):
    kinds = {
        "theta": library.Theta,
        "optimized-theta": library.OptimizedTheta,
        "auto-theta": library.AutoTheta,
    }
    values = np.random.default_rng(3).normal(size=200).cumsum() + 100
    model = kinds[name]()
    model.fit(values)
    grid = answer(name, values, 12, ())
    np.testing.assert_allclose(grid[100], model.predict(12)["mean"])
    drawn = model.simulate(12, 20_000).std(axis=0)
    np.testing.assert_allclose(deviation(grid), drawn, rtol=0.05)


@pytest.mark.parametrize("level", [100.0, 0.0])  # a multiplicative, an additive season
def test_thetas_deviation_leaves_the_season_out(level):
    random = np.random.default_rng(4)
    values = level + 20 * np.sin(2 * np.pi * np.arange(140) / SEASON) + random.normal(size=140)
    assert deviation(answer("theta", values))[0] < 2


@pytest.mark.parametrize("changing", [3.0, 0.0])
def test_seasonal_ets_deviates_as_its_paths_do(changing):
    random = np.random.default_rng(5)
    values = 200 + 20 * np.sin(2 * np.pi * np.arange(203) / SEASON) + random.normal(size=203)
    for step in range(SEASON, len(values)):
        values[step] += changing * random.normal() + (values[step - SEASON] - 200) * (changing > 0)
        values[step] = 200 + np.clip(values[step] - 200, -80, 80)
    model = library.AutoETS(season_length=SEASON)
    model.fit(values)
    assert model.model_["components"][2] != "N"
    paths = model.simulate(21, 3000, seed=7)
    low, high = np.quantile(paths, [0.1, 0.9], axis=0)
    grid = answer("auto-ets", values, 21)
    np.testing.assert_allclose(deviation(grid), (high - low) / 2.5631, rtol=0.15)


def test_crostons_quantiles_are_those_of_past_errors():
    values = np.zeros(60)
    values[::6] = 5.0
    grid = answer("croston-sba", values, 3)
    assert (grid >= 0).all()
    assert grid[100, 0] < 1 < 4 < grid[-5, 0]


NASTY = {
    "constant": np.full(60, 3.0),
    "zeros": np.zeros(60),
    "one": [5.0],
    "three": [5.0, 1.0, 2.0],
    "short": weekly(12),
    "intermittent": np.where(np.random.default_rng(0).random(90) < 0.2, 4.0, 0.0),
    "gaps": np.where(np.random.default_rng(1).random(90) < 0.3, np.nan, weekly(90)),
    "first only": [4.0, *[np.nan] * 30],
    "large": weekly(90) * 1e12,
    "huge": weekly(90) * 1e100,
    "tiny": weekly(90) * 1e-12,
    "far": weekly(90) + 1e9,
    "negative": weekly(90, level=-500.0),
    "one spike": np.r_[np.zeros(89), 1.0],
    "exponential": np.exp(np.arange(90) * 0.3),
    "straight": np.arange(90.0),
    "exact season": np.tile(np.arange(7.0), 12),
}


@pytest.mark.parametrize("name", METHODS)
def test_nasty_series_have_finite_ascending_quantiles(name):
    found = StatisticalForecaster(name, processes=1).forecast(table(*NASTY.values()), 5)
    assert found.samples.shape == (len(NASTY), NUM_LEVELS, 5)
    assert np.isfinite(found.samples).all()
    assert (np.diff(found.samples, axis=1) >= 0).all()


@pytest.mark.parametrize("name", METHODS)
def test_alone_as_together_and_always_the_same(name):
    values = [weekly(40), weekly(70, 1, 0.0)]
    forecaster = StatisticalForecaster(name)
    np.random.seed(0)
    expected_draw = np.random.RandomState(0).random()
    together = forecaster.forecast(table(*values), 10).samples
    assert np.random.random() == expected_draw  # the global generator is the user's
    alone = [forecaster.forecast(table(series), 10).samples[0] for series in values]
    np.testing.assert_array_equal(together, alone)


def test_many_processes_give_what_one_gives():
    data = table(*(weekly(40, seed) for seed in range(FEWEST_SHARED + 1)))
    for name in ("auto-ets", "auto-theta"):
        one = StatisticalForecaster(name, processes=1).forecast(data, 8)
        two = StatisticalForecaster(name, processes=2).forecast(data, 8)
        np.testing.assert_array_equal(one.samples, two.samples)
    # A failure in a worker arrives here, and the pool goes on.
    broken = table(*(weekly(40, seed) * (1e298 if seed == 9 else 1.0) for seed in range(20)))
    two = StatisticalForecaster("theta", processes=2)
    with pytest.raises(DataError, match="theta cannot forecast series 's09'"):
        two.forecast(broken, 8)
    assert len(two.forecast(data, 8).ids) == FEWEST_SHARED + 1


@pytest.mark.parametrize("name", ["naive", "auto-theta", "mstl"])
def test_a_failure_names_the_series(name):
    with pytest.raises(DataError, match="series 's01'"):
        StatisticalForecaster(name).forecast(table(weekly(40), weekly(40) * 1e298), 5)


def test_an_explosion_is_a_failure(monkeypatch):
    explosive = METHODS["naive"].__class__(lambda values, horizon, seasons: np.full((201, 5), 1e9))
    monkeypatch.setitem(METHODS, "theta", explosive)
    with pytest.raises(DataError, match="exploded to 1e\\+09"):
        StatisticalForecaster("theta").forecast(table(weekly(40)), 5)


def test_only_the_last_steps_are_fitted():
    forecaster = StatisticalForecaster("auto-theta", longest_history=50)
    whole, last = weekly(90), weekly(90)[-50:]
    np.testing.assert_array_equal(
        forecaster.forecast(table(whole), 6).samples, forecaster.forecast(table(last), 6).samples
    )


def test_a_checked_panel_is_taken_with_any_names():
    frame = table(weekly(40), weekly(40, 1))
    panel = StatisticalForecaster("naive").forecast(frame, 3)
    from llamacast.data.frame import read_panel

    read = read_panel(frame)
    same = Panel([("a", 1), ("a", 2)], read.values, read.axes, read.columns)
    found = StatisticalForecaster("naive").forecast(same, 3)
    assert list(found.ids) == [("a", 1), ("a", 2)]
    np.testing.assert_array_equal(found.samples, panel.samples)


def test_every_name_has_a_baseline():
    assert tuple(METHODS) == named.STATISTICAL


def test_unknown_names_list_those_there_are():
    with pytest.raises(DataError, match="auto-ets"):
        StatisticalForecaster("prophet")
