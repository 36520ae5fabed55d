from __future__ import annotations

import numpy as np
import pytest

from llamacast.evaluation.metrics import (
    DECILES,
    mean_absolute_scaled_error,
    mean_weighted_quantile_loss,
    quantile_loss,
    seasonal_error,
)


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


def test_missing_actuals_do_not_count():
    actuals = np.array([[1.0, np.nan, 3.0]])
    quantiles = np.array([[[0.5], [1e9], [4.0]]])
    kept = mean_weighted_quantile_loss(actuals[:, [0, 2]], quantiles[:, [0, 2]], [0.5])
    assert mean_weighted_quantile_loss(actuals, quantiles, [0.5]) == kept == pytest.approx(1.5 / 4)
    points = quantiles[..., 0]
    assert mean_absolute_scaled_error(actuals, points, np.array([2.0])) == pytest.approx(0.375)


def test_scores_without_a_yardstick_are_nan():
    assert np.isnan(mean_weighted_quantile_loss(np.zeros((1, 3)), np.ones((1, 3, 9))))
    assert np.isnan(mean_absolute_scaled_error(np.ones((1, 3)), np.ones((1, 3)), np.array([0.0])))
    assert np.isnan(seasonal_error(np.array([1.0]), 24))


def test_seasonal_error():
    assert seasonal_error(np.array([1.0, 5.0, 2.0, 7.0]), 2) == pytest.approx(1.5)
    assert seasonal_error(np.array([1.0, 5.0, np.nan, 7.0]), 2) == pytest.approx(2.0)
    assert seasonal_error(np.array([1.0, 3.0]), 24) == pytest.approx(2.0)


def test_seasonal_naive_itself_has_a_mase_of_one_on_its_history():
    history = np.random.default_rng(0).normal(size=240)
    points = history[:-24].reshape(9, 24)
    actuals = history[24:].reshape(9, 24)
    error = seasonal_error(history, 24)
    found = mean_absolute_scaled_error(actuals, points, np.full(9, error))
    assert found == pytest.approx(1.0)
