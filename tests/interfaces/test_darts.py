from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import llamacast

darts = pytest.importorskip("darts")
from darts.metrics import mae, mql  # noqa: E402

from llamacast.interfaces.darts import LlamaCastModel  # noqa: E402

HORIZON = 7


@pytest.fixture(scope="module")
def model():
    return LlamaCastModel(llamacast.load("cria", device="cpu")).fit(series())


def series(seed=0, length=120, freq="D", components=1):
    rng = np.random.default_rng(seed)
    index = pd.date_range("2025-01-01", periods=length, freq=freq)
    values = 20 + 5 * (np.arange(length) % 7 > 4)[:, None] + rng.normal(0, 1, (length, components))
    return darts.TimeSeries.from_times_and_values(index, values)


def test_its_forecasts_are_the_facades(model):
    one = series()
    found = model.fit(one).predict(HORIZON)
    frame = pd.DataFrame({"ds": one.time_index, "y": one.values()[:, 0]})
    own = model.forecaster.forecast(frame, HORIZON)
    assert found.time_index.equals(own.index[0])
    assert np.allclose(found.values()[:, 0], own.median[0])


def test_series_of_any_number_frequency_and_components_are_forecast_at_once(model):
    several = [series(1), series(2, 60, "MS"), series(3, 90, "h", 2), series(4)]
    together = model.predict(HORIZON, several, num_samples=50, random_state=5)
    for one, found in zip(several, together, strict=True):
        assert found.all_values().shape == (HORIZON, one.n_components, 50)
        assert found.start_time() == one.end_time() + one.freq
        assert found.components.equals(one.components)
    # In whatever company, the medians are the same.
    alone = model.predict(HORIZON, several[2])
    company = model.predict(HORIZON, several)[2]
    assert np.allclose(alone.values(), company.values(), rtol=1e-4)


@pytest.mark.skipif(
    pd.__version__ >= "3", reason="Darts divides times by days, which pandas 3 does not take"
)
def test_it_stands_in_historical_forecasts_and_backtest(model):
    one = series()
    found = model.historical_forecasts(
        one, start=0.7, forecast_horizon=HORIZON, stride=HORIZON, retrain=False,
        last_points_only=False, num_samples=30,
    )  # fmt: skip
    assert len(found) == 5
    sold, promoted, _ = with_promotions(7)
    fitted = LlamaCastModel(model.forecaster).fit(sold, future_covariates=promoted)
    beside = fitted.historical_forecasts(
        sold, future_covariates=promoted, start=0.8, forecast_horizon=HORIZON, stride=HORIZON,
        retrain=False, last_points_only=False,
    )  # fmt: skip
    assert np.mean(mae([sold] * len(beside), beside)) < 3
    error, loss = model.backtest(
        one, historical_forecasts=found, last_points_only=False, metric=[mae, mql]
    )
    assert loss > 0
    assert 0 < error < 3


def test_missing_values_and_whole_numbers_as_times(model):
    index = pd.RangeIndex(5, 105)
    values = np.sin(np.arange(100) / 3)
    values[40:44] = np.nan
    found = model.predict(HORIZON, darts.TimeSeries.from_times_and_values(index, values))
    assert list(found.time_index) == list(range(105, 112))
    assert np.isfinite(found.values()).all()


def with_promotions(seed):
    """A series that rises where something of two components is known to."""
    rng = np.random.default_rng(seed)
    index = pd.date_range("2025-01-01", periods=150 + HORIZON, freq="D")
    known = (rng.random((len(index), 2)) < 0.2).astype(float)
    values = 50 + 30 * known[:, :1] + rng.normal(0, 1, (len(index), 1))
    sold, promoted = (
        darts.TimeSeries.from_times_and_values(index, part) for part in (values, known)
    )
    return sold[:150], promoted, sold[150:]


def test_covariates_of_each_series_are_the_facades(model):
    several, known, actual = zip(*(with_promotions(seed) for seed in range(3)), strict=True)
    found = model.predict(HORIZON, list(several), future_covariates=list(known))
    for one, right in zip(found, actual, strict=True):
        assert mae(right, one) < 3
    frames, ahead = [], []
    for number, (one, beside) in enumerate(zip(several, known, strict=True)):
        told = beside.to_dataframe().set_axis(["p", "q"], axis=1).rename_axis("ds").reset_index()
        told.insert(0, "id", f"{number}/0")
        ahead.append(told[150:])
        frames.append(told[:150].assign(y=one.values()[:, 0]))
    own = model.forecaster.forecast(
        pd.concat(frames), HORIZON, target_column="y", future_frame=pd.concat(ahead)
    )
    assert np.allclose([one.values()[:, 0] for one in found], own.median)


def test_covariates_given_to_fit_need_not_be_given_again(model):
    sold, promoted, actual = with_promotions(7)
    fitted = LlamaCastModel(model.forecaster).fit(sold, promoted, promoted)
    found = fitted.predict(HORIZON)
    assert mae(actual, found) < 3
    again = fitted.predict(HORIZON, sold, promoted, promoted)
    assert np.array_equal(found.values(), again.values())
    # Of the past alone they cannot tell what is to come.
    blind = model.predict(HORIZON, sold, past_covariates=promoted)
    assert mae(actual, blind) > mae(actual, found)


def test_covariates_that_do_not_suit_are_refused(model):
    sold, promoted, _ = with_promotions(7)
    with pytest.raises(ValueError, match="future_covariates: 1 for 2 series"):
        model.predict(HORIZON, [sold, sold], future_covariates=promoted)
    with pytest.raises(ValueError, match="series 0 end 5 steps after it; 7 are"):
        model.predict(HORIZON, sold, future_covariates=promoted[:-2])


def test_without_a_series_it_refuses(model):
    with pytest.raises(ValueError, match="fit remembers one"):
        LlamaCastModel(model.forecaster).predict(HORIZON)
