from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import llamacast

checks = pytest.importorskip("sktime.utils.estimator_checks")
from sktime.datasets import load_airline  # noqa: E402
from sktime.forecasting.model_evaluation import evaluate  # noqa: E402
from sktime.performance_metrics.forecasting.probabilistic import PinballLoss  # noqa: E402
from sktime.split import ExpandingWindowSplitter  # noqa: E402

from llamacast.interfaces.sktime import LlamaCastForecaster  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


def test_sktime_finds_nothing_to_object_to():
    # One instance: every set of parameters of the class would go through all checks again.
    first, *_ = LlamaCastForecaster.get_test_params()
    one = LlamaCastForecaster(**first)
    found = checks.check_estimator(one, raise_exceptions=False, verbose=False)
    assert len(found) > 300
    assert {name: told for name, told in found.items() if told != "PASSED"} == {}


@pytest.mark.parametrize("parameters", LlamaCastForecaster.get_test_params())
def test_each_set_of_parameters_that_sktime_tries_forecasts(parameters):
    found = LlamaCastForecaster(**parameters).fit(load_airline()).predict(fh=[1, 12])
    assert np.isfinite(found).all()
    assert (found == found.round()).all() == parameters.get("integer", False)


def test_its_forecasts_are_the_facades():
    y = load_airline()
    found = LlamaCastForecaster(seed=3).fit(y).predict_quantiles(fh=[1, 12], alpha=[0.1, 0.9])
    frame = pd.DataFrame({"ds": y.index.to_timestamp(), "y": y.to_numpy()})
    own = llamacast.load("cria").forecast(frame, 12, seed=3).quantile([0.1, 0.9])[0]
    assert np.allclose(found, own[[0, 11]])
    assert found.index.astype(str).tolist() == ["1961-01", "1961-12"]


def test_what_it_is_updated_with_it_looks_at():
    y = load_airline()
    early = LlamaCastForecaster().fit(y.iloc[:-12])
    early.update(y.iloc[-12:])
    whole = LlamaCastForecaster().fit(y)
    pd.testing.assert_series_equal(early.predict(fh=[1, 2]), whole.predict(fh=[1, 2]))


def with_promotions():
    rng = np.random.default_rng(0)
    index = pd.period_range("2024-01-01", periods=200, freq="D")
    promoted = pd.DataFrame({"y": (rng.random(200) < 0.2).astype(float)}, index=index)
    sold = pd.Series(50 + 30 * promoted["y"] + rng.normal(0, 1, 200), index=index, name="sold")
    return sold, promoted


def test_exogenous_data_are_covariates():
    sold, promoted = with_promotions()
    forecaster = LlamaCastForecaster().fit(sold[:186], X=promoted[:186])
    found = forecaster.predict(fh=np.arange(1, 15), X=promoted[186:])
    assert np.abs(found - sold[186:]).mean() < 4
    # Of steps between those that are asked for nothing need be told.
    some = forecaster.predict(fh=[2, 9], X=promoted[186:].iloc[[1, 8]])
    assert np.abs(some - sold.loc[some.index]).max() < 10
    # As the facade has it, whatever columns are called.
    frame = pd.DataFrame({"ds": sold.index.to_timestamp(), "y": sold.to_numpy()})
    frame["promotion"] = promoted["y"].to_numpy()
    own = llamacast.load("cria").forecast(
        frame[:186], 14, target_column="y", future_frame=frame[186:].drop(columns="y")
    )
    assert np.allclose(found, own.median[0])


def test_exogenous_data_that_predict_is_not_given_are_asked_for():
    sold, promoted = with_promotions()
    forecaster = LlamaCastForecaster().fit(sold[:186], X=promoted[:186])
    with pytest.raises(ValueError, match="fit was given X"):
        forecaster.predict(fh=[1, 2])


def test_it_stands_in_evaluate():
    splitter = ExpandingWindowSplitter(fh=[1, 2, 3], initial_window=100, step_length=20)
    told = evaluate(LlamaCastForecaster(), splitter, load_airline(), scoring=PinballLoss())
    assert len(told) == 3
    assert np.isfinite(told["test_PinballLoss"]).all()


def test_steps_are_the_indexs_own():
    """Days of which only those of work are there; and every other whole number."""
    days = pd.period_range("2024-01-01", periods=140, freq="D")
    week = pd.Series(10.0 * days.dayofweek, index=days)[days.dayofweek < 5].iloc[:-2]
    found = LlamaCastForecaster().fit(week).predict(fh=range(1, 8))
    assert found.index[0] == week.index[-1] + 1
    work = found.index.dayofweek < 5
    np.testing.assert_allclose(found[work], 10.0 * found.index.dayofweek[work], atol=6)
    evens = pd.Series(np.tile([0.0, 10.0, 20.0], 40), index=range(0, 240, 2))
    found = LlamaCastForecaster().fit(evens).predict(fh=[2, 4, 6])
    assert found.index.tolist() == [240, 242, 244]
    np.testing.assert_allclose(found, [0, 10, 20], atol=4)
