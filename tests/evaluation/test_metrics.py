"""Every score against a trusted library's value, then what no library can tell."""

from __future__ import annotations

import gluonts.ev.metrics as ev
import numpy as np
import pandas as pd
import pytest
import scoringrules
import utilsforecast.losses as nixtla
from gluonts.dataset.common import ListDataset
from gluonts.dataset.split import split
from gluonts.model import evaluate_forecasts
from gluonts.model.forecast import QuantileForecast

from llamacast.evaluation.metrics import (
    DECILES,
    continuous_ranked_probability_score,
    energy_score,
    interval_coverage,
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_absolute_scaled_error,
    mean_quantile_loss,
    mean_scaled_interval_score,
    mean_squared_error,
    mean_weighted_quantile_loss,
    normalised_deviation,
    pit_histogram,
    probability_integral_transform,
    quantile_loss,
    root_mean_squared_error,
    root_mean_squared_scaled_error,
    running_root_mean_squared_error,
    seasonal_error,
    symmetric_mean_absolute_percentage_error,
    weighted_quantile_loss,
)

NUM_WINDOWS, HORIZON, SEASON = 6, 8, 4
LEVELS = (0.025, *DECILES, 0.975)


@pytest.fixture(scope="module")
def case():
    """Histories of differing length with gaps, actuals with gaps and zeros, quantiles, samples."""
    rng = np.random.default_rng(3)
    histories = [rng.normal(5, 3, size=20 + 5 * n).round(1) for n in range(NUM_WINDOWS)]
    histories[1][3:6] = np.nan
    actuals = rng.normal(5, 3, size=(NUM_WINDOWS, HORIZON)).round(1)
    actuals[2, 2] = actuals[3, 4] = 0.0
    actuals[0, 1] = actuals[4, 6:] = np.nan
    samples = rng.normal(5, 3, size=(NUM_WINDOWS, 25, HORIZON))
    quantiles = np.moveaxis(np.quantile(samples, LEVELS, axis=1), 0, -1)
    return histories, actuals, samples, quantiles


# --- GluonTS -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gluonts(case):
    """What GluonTS makes of it, by the names of its metrics."""
    histories, actuals, samples, quantiles = case
    entries = [
        {"item_id": str(n), "start": "2020-01-01", "target": np.r_[history, future]}
        for n, (history, future) in enumerate(zip(histories, actuals, strict=True))
    ]
    _, template = split(ListDataset(entries, freq="D"), offset=-HORIZON)
    forecasts = [
        QuantileForecast(
            forecast_arrays=np.vstack([quantiles[n].T, samples[n].mean(axis=0)]),
            forecast_keys=[f"{level:g}" for level in LEVELS] + ["mean"],
            start_date=pd.Period("2020-01-01", freq="D") + len(histories[n]),
            item_id=str(n),
        )
        for n in range(NUM_WINDOWS)
    ]
    metrics = [
        ev.MASE(),
        ev.MAPE(),
        ev.SMAPE(),
        ev.MSE(),
        ev.RMSE(),
        ev.MAE(),
        ev.ND(),
        ev.MSIS(),
        ev.MeanWeightedSumQuantileLoss(quantile_levels=DECILES),
        *(ev.WeightedSumQuantileLoss(q=level) for level in DECILES),
        *(ev.Coverage(q=level) for level in DECILES),
    ]
    table = evaluate_forecasts(
        forecasts,
        test_data=template.generate_instances(prediction_length=HORIZON),
        metrics=metrics,
        axis=None,
        seasonality=SEASON,
    )
    return table.iloc[0]


def test_as_gluonts_defines_them(case, gluonts):
    histories, actuals, samples, quantiles = case
    deciles = quantiles[..., 1:-1]
    median, mean = deciles[..., 4], samples.mean(axis=1)
    errors = np.array([seasonal_error(history, SEASON) for history in histories])
    ours = {
        "MASE[0.5]": mean_absolute_scaled_error(actuals, median, errors),
        "MAPE[0.5]": mean_absolute_percentage_error(actuals, median),
        "sMAPE[0.5]": symmetric_mean_absolute_percentage_error(actuals, median),
        "MSE[mean]": mean_squared_error(actuals, mean),
        "RMSE[mean]": root_mean_squared_error(actuals, mean),
        "MAE[0.5]": mean_absolute_error(actuals, median),
        "ND[0.5]": normalised_deviation(actuals, median),
        "MSIS": mean_scaled_interval_score(actuals, quantiles[..., 0], quantiles[..., -1], errors),
        "mean_weighted_sum_quantile_loss": mean_weighted_quantile_loss(actuals, deciles),
    }
    for level, loss in zip(DECILES, weighted_quantile_loss(actuals, deciles), strict=True):
        ours[f"weighted_sum_quantile_loss[{level}]"] = float(loss)
    floor = np.full_like(actuals, -np.inf)
    for number, level in enumerate(DECILES):
        ours[f"coverage[{level}]"] = interval_coverage(actuals, floor, deciles[..., number])
    assert set(ours) <= set(gluonts.index)
    for name, value in ours.items():
        assert value == pytest.approx(gluonts[name], rel=1e-6), name


# --- utilsforecast -------------------------------------------------------------------------------


def long(actuals, **columns):
    ids, steps = np.indices(actuals.shape)
    return pd.DataFrame(
        {
            "unique_id": ids.ravel(),
            "ds": steps.ravel() + 1000,
            "y": actuals.ravel(),
            **{name: values.ravel() for name, values in columns.items()},
        }
    )


def test_as_utilsforecast_defines_them(case):
    """It averages series of equal length one by one, and knows no missing values."""
    _, _, samples, quantiles = case
    actuals = np.random.default_rng(9).normal(5, 3, size=(NUM_WINDOWS, HORIZON))
    histories = np.random.default_rng(8).normal(size=(NUM_WINDOWS, 30))
    median, mean = quantiles[..., 5], samples.mean(axis=1)
    frame = long(actuals, median=median, mean=mean, lo=quantiles[..., 0], hi=quantiles[..., -1])
    past = long(histories)
    past["ds"] -= 1000

    def theirs(loss, **options):
        return loss(frame, models=["median"], **options)["median"].mean()

    errors = np.array([seasonal_error(history, SEASON) for history in histories])
    squares = np.array([seasonal_error(history, SEASON, power=2) for history in histories])
    assert mean_absolute_error(actuals, median) == pytest.approx(theirs(nixtla.mae))
    assert mean_squared_error(actuals, median) == pytest.approx(theirs(nixtla.mse))
    assert mean_absolute_percentage_error(actuals, median) == pytest.approx(theirs(nixtla.mape))
    # Theirs runs from 0 to 1.
    assert symmetric_mean_absolute_percentage_error(actuals, median) == pytest.approx(
        2 * theirs(nixtla.smape)
    )
    assert mean_absolute_scaled_error(actuals, median, errors) == pytest.approx(
        theirs(nixtla.mase, seasonality=SEASON, train_df=past)
    )
    assert root_mean_squared_scaled_error(actuals, median, squares) == pytest.approx(
        theirs(nixtla.rmsse, seasonality=SEASON, train_df=past)
    )
    named = frame.rename(columns={"lo": "m-lo-95", "hi": "m-hi-95"})
    assert interval_coverage(actuals, quantiles[..., 0], quantiles[..., -1]) == pytest.approx(
        nixtla.coverage(named, models=["m"], level=95)["m"].mean()
    )
    # Theirs is the pinball loss itself.
    levels = np.array(LEVELS)
    by_level = {f"q{n}": quantiles[..., n] for n in range(len(LEVELS))}
    many = long(actuals, **by_level)
    mqloss = nixtla.mqloss(many, models={"m": list(by_level)}, quantiles=levels)["m"].mean()
    assert mean_quantile_loss(actuals, quantiles, LEVELS) == pytest.approx(2 * mqloss)


# --- scoringrules --------------------------------------------------------------------------------


@pytest.mark.parametrize(("unbiased", "estimator"), [(True, "fair"), (False, "nrg")])
def test_as_scoringrules_defines_them(case, unbiased, estimator):
    _, actuals, samples, _ = case
    members_last = np.moveaxis(samples, 1, -1)
    crps = continuous_ranked_probability_score(actuals, samples, unbiased)
    np.testing.assert_allclose(
        crps, scoringrules.crps_ensemble(actuals, members_last, estimator=estimator), rtol=1e-9
    )
    whole = np.isfinite(actuals).all(axis=1)
    energy = energy_score(actuals[whole], samples[whole], unbiased)
    expected = scoringrules.es_ensemble(actuals[whole], samples[whole], estimator=estimator)
    np.testing.assert_allclose(energy, expected, rtol=1e-9)


def test_energy_of_a_single_step_is_the_crps(case):
    _, actuals, samples, _ = case
    one, paths = actuals[:, 2:3], samples[:, :, 2:3]
    crps = continuous_ranked_probability_score(one, paths)[:, 0]
    np.testing.assert_allclose(energy_score(one, paths), crps)


def test_energy_leaves_missing_steps_out(case):
    _, actuals, samples, _ = case
    gone = np.isnan(actuals[4])
    expected = energy_score(actuals[4:5, ~gone], samples[4:5][:, :, ~gone])
    np.testing.assert_allclose(energy_score(actuals, samples)[4], expected[0])
    assert np.isnan(energy_score(np.full((1, HORIZON), np.nan), samples[:1])).all()


def test_the_crps_is_the_mean_quantile_loss_over_all_levels(case):
    _, actuals, samples, _ = case
    levels = (np.arange(2000) + 0.5) / 2000
    ordered = np.sort(samples, axis=1)
    places = np.minimum((levels * samples.shape[1]).astype(int), samples.shape[1] - 1)
    losses = quantile_loss(actuals, np.moveaxis(ordered[:, places], 1, -1), levels)
    crps = continuous_ranked_probability_score(actuals, samples, unbiased=False)
    np.testing.assert_allclose(losses.mean(axis=-1), crps, rtol=1e-3)


def test_the_unbiased_crps_does_not_depend_on_how_many_samples_there_are():
    rng = np.random.default_rng(0)
    actuals = rng.normal(size=(4000, 1))

    def mean_score(num_samples, unbiased):
        samples = rng.normal(size=(4000, num_samples, 1))
        return continuous_ranked_probability_score(actuals, samples, unbiased).mean()

    truth = 1 / np.sqrt(np.pi)  # of the standard normal forecasting itself
    assert mean_score(4, True) == pytest.approx(truth, abs=0.03)
    assert mean_score(100, True) == pytest.approx(truth, abs=0.03)
    assert mean_score(4, False) > truth * 1.15


# --- What no library tells -----------------------------------------------------------------------


def test_the_loss_of_the_median_is_the_absolute_error():
    actuals = np.array([[1.0, -2.0, 5.0]])
    quantiles = np.array([[[0.0], [0.0], [9.0]]])
    np.testing.assert_allclose(quantile_loss(actuals, quantiles, [0.5])[..., 0], [[1.0, 2.0, 4.0]])


def test_true_quantiles_score_best():
    rng = np.random.default_rng(0)
    actuals = rng.normal(10.0, 1.0, size=(200, 50))
    truth = np.quantile(actuals, DECILES)

    def score(shift, stretch):
        quantiles = (truth - 10.0) * stretch + 10.0 + shift
        return mean_weighted_quantile_loss(actuals, np.broadcast_to(quantiles, (200, 50, 9)))

    best = score(0.0, 1.0)
    assert best < min(score(0.3, 1.0), score(-0.3, 1.0), score(0.0, 2.0), score(0.0, 0.3))


def test_running_error_ends_at_the_error_of_the_whole_horizon(case):
    _, actuals, samples, _ = case
    points = samples.mean(axis=1)
    running = running_root_mean_squared_error(actuals, points)
    assert running.shape == (HORIZON,)
    assert running[-1] == pytest.approx(root_mean_squared_error(actuals, points))
    first_three = root_mean_squared_error(actuals[:, :3], points[:, :3])
    assert running[2] == pytest.approx(first_three)


def test_missing_actuals_do_not_count(case):
    """A missing actual and no point at all score the same, whatever was forecast there."""
    _, actuals, samples, quantiles = case
    gone = np.isnan(actuals)
    errors = np.ones(NUM_WINDOWS)
    wild = np.where(gone[..., None], 1e9, quantiles)
    for score in (
        lambda q: mean_weighted_quantile_loss(actuals, q, LEVELS),
        lambda q: mean_quantile_loss(actuals, q, LEVELS),
        lambda q: mean_absolute_scaled_error(actuals, q[..., 5], errors),
        lambda q: root_mean_squared_scaled_error(actuals, q[..., 5], errors),
        lambda q: root_mean_squared_error(actuals, q[..., 5]),
        lambda q: normalised_deviation(actuals, q[..., 5]),
        lambda q: mean_scaled_interval_score(actuals, q[..., 0], q[..., -1], errors),
        lambda q: interval_coverage(actuals, q[..., 0], q[..., -1]),
        lambda q: symmetric_mean_absolute_percentage_error(actuals, q[..., 5]),
    ):
        assert np.isfinite(score(quantiles))
        assert score(wild) == score(quantiles)
    assert (np.isnan(continuous_ranked_probability_score(actuals, samples)) == gone).all()


def test_percentages_skip_actuals_of_zero():
    actuals = np.array([[0.0, 2.0, 0.0]])
    points = np.array([[1.0, 1.0, 0.0]])
    assert mean_absolute_percentage_error(actuals, points) == pytest.approx(0.5)
    assert symmetric_mean_absolute_percentage_error(actuals, points) == pytest.approx(
        (2.0 + 2.0 / 3.0) / 2
    )


def test_scores_without_a_yardstick_are_nan():
    zeros, ones = np.zeros((1, 3)), np.ones((1, 3))
    assert np.isnan(mean_weighted_quantile_loss(zeros, np.ones((1, 3, 9))))
    assert np.isnan(mean_absolute_scaled_error(ones, ones, np.array([0.0])))
    assert np.isnan(root_mean_squared_scaled_error(ones, ones, np.array([np.nan])))
    assert np.isnan(mean_absolute_percentage_error(zeros, ones))
    assert np.isnan(mean_absolute_error(np.full((1, 3), np.nan), ones))
    assert np.isnan(seasonal_error(np.array([1.0]), 24))
    assert np.isnan(running_root_mean_squared_error(np.array([[np.nan, 1.0]]), ones[:, :2])[0])


def test_seasonal_error():
    assert seasonal_error(np.array([1.0, 5.0, 2.0, 7.0]), 2) == pytest.approx(1.5)
    assert seasonal_error(np.array([1.0, 5.0, 2.0, 7.0]), 2, power=2) == pytest.approx(2.5)
    assert seasonal_error(np.array([1.0, 5.0, np.nan, 7.0]), 2) == pytest.approx(2.0)
    assert seasonal_error(np.array([1.0, 3.0]), 24) == pytest.approx(2.0)


def test_seasonal_naive_itself_has_a_mase_of_one_on_its_history():
    history = np.random.default_rng(0).normal(size=240)
    points = history[:-24].reshape(9, 24)
    actuals = history[24:].reshape(9, 24)
    error = seasonal_error(history, 24)
    found = mean_absolute_scaled_error(actuals, points, np.full(9, error))
    assert found == pytest.approx(1.0)


@pytest.mark.parametrize("counts", [False, True])
def test_the_transform_of_a_calibrated_forecast_is_even(counts):
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.poisson(0.7, shape).astype(float) if counts else rng.normal(size=shape)

    actuals, samples = draw(4000, 3), draw(4000, 30, 3)
    transform = probability_integral_transform(actuals, samples, np.random.default_rng(1))
    np.testing.assert_allclose(pit_histogram(transform), 0.1, atol=0.012)
    too_wide = probability_integral_transform(actuals, 3 * samples, np.random.default_rng(1))
    if not counts:
        assert pit_histogram(too_wide)[4:6].sum() > 0.35


def test_the_transform_of_a_missing_actual_is_missing():
    actuals = np.array([[np.nan, 0.0]])
    transform = probability_integral_transform(
        actuals, np.ones((1, 4, 2)), np.random.default_rng(0)
    )
    assert np.isnan(transform[0, 0])
    assert 0 <= transform[0, 1] <= 0.2
    assert pit_histogram(transform, 5).tolist() == [1, 0, 0, 0, 0]
