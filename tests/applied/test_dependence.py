from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import llamacast
from llamacast import DataError
from llamacast.applied.dependence import correlation, reorder
from llamacast.evaluation.metrics import energy_score

HORIZON = 12


@pytest.fixture(scope="module", params=["cria", "lag-llama"])
def forecaster(request):
    return llamacast.load(request.param, device="cpu")


def walks(share, num_steps=300, num_series=3, seed=0, horizon=0):
    """Random walks whose steps are in part the same; a column for each."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(num_steps + horizon, 1))
    own = rng.normal(size=(num_steps + horizon, num_series))
    steps = np.sqrt(share) * common + np.sqrt(1 - share) * own
    return 100 + steps.cumsum(axis=0)


def table(values):
    stamps = pd.date_range("2024-01-01", periods=len(values), freq="D")
    return pd.concat(
        pd.DataFrame({"unique_id": f"s{n}", "ds": stamps, "y": column, "region": n // 2})
        for n, column in enumerate(values.T)
    )


def ties(forecast):
    """Correlation of the sums of paths between series."""
    return np.corrcoef(forecast.samples.sum(axis=2))


def test_paths_move_together_as_series_have_and_margins_stay(forecaster):
    frame = table(walks(0.9))
    apart = forecaster.forecast(frame, HORIZON, num_samples=100)
    together = forecaster.forecast(frame, HORIZON, num_samples=100, joint="series")
    np.testing.assert_array_equal(np.sort(apart.samples, axis=1), np.sort(together.samples, axis=1))
    outside = ~np.eye(3, dtype=bool)
    assert np.abs(ties(apart)[outside]).max() < 0.4
    assert ties(together)[outside].min() > 0.7
    assert together.joint


def test_series_that_do_not_move_together_stay_apart(forecaster):
    together = forecaster.forecast(table(walks(0.0)), HORIZON, num_samples=100, joint="series")
    assert np.abs(ties(together)[~np.eye(3, dtype=bool)]).max() < 0.45


def test_only_series_of_a_group_are_tied(forecaster):
    frame = table(walks(0.9, num_series=4))
    found = ties(forecaster.forecast(frame, HORIZON, num_samples=100, group_column="region"))
    assert min(found[0, 1], found[2, 3]) > 0.7
    assert np.abs(found[:2, 2:]).max() < 0.4


def test_the_energy_score_gains():
    forecaster = llamacast.load("cria", device="cpu")
    scores = {True: [], "series": []}
    for seed in range(12):
        values = walks(0.9, seed=seed, horizon=HORIZON)
        actual = values[-HORIZON:].T.reshape(1, -1)
        for joint, found in scores.items():
            told = forecaster.forecast(
                table(values[:-HORIZON]), HORIZON, num_samples=100, joint=joint
            )
            samples = np.moveaxis(told.samples, 1, 0).reshape(1, 100, -1)
            found.append(energy_score(actual, samples, unbiased=False)[0])
    assert np.mean(scores["series"]) < 0.99 * np.mean(scores[True])


def test_a_way_through_time_is_mostly_kept():
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(3, 200, 20)).cumsum(axis=2)
    between = np.full((3, 3), 0.5) + 0.5 * np.eye(3)
    found = reorder(samples, between)

    def smoothness(paths):
        return np.mean([np.corrcoef(one[:, 9], one[:, 10])[0, 1] for one in paths])

    assert smoothness(found) > smoothness(samples) - 0.05
    assert np.corrcoef(found[0, :, 10], found[1, :, 10])[0, 1] == pytest.approx(0.5, abs=0.15)


def test_no_correlation_changes_nothing():
    samples = np.random.default_rng(0).normal(size=(3, 50, 4))
    np.testing.assert_array_equal(reorder(samples, np.eye(3)), samples)


def test_correlations_are_believed_as_far_as_steps_are_common():
    rng = np.random.default_rng(0)
    common = rng.normal(size=500)
    scores = pd.DataFrame({n: common + 0.1 * rng.normal(size=500) for n in range(3)})
    scores.loc[12:, 2] = np.nan
    found = correlation(scores)
    assert found[0, 1] > 0.95
    assert 0.3 < found[0, 2] < 0.7
    assert (np.linalg.eigvalsh(found) > 0).all()


def test_series_that_end_at_other_times_are_refused(forecaster):
    frame = table(walks(0.5))
    shorter = frame[(frame.unique_id != "s1") | (frame.ds < "2024-06-01")]
    with pytest.raises(DataError, match=r"'s0' ends at 2024-10-26.*'s1' at 2024-05-31"):
        forecaster.forecast(shorter, HORIZON, num_samples=5, joint="series")


def test_bad_groups_are_named(forecaster):
    frame = table(walks(0.5))
    frame["region"] = np.arange(len(frame))
    with pytest.raises(DataError, match="'s0' is in several groups"):
        forecaster.forecast(frame, HORIZON, num_samples=5, group_column="region")
    with pytest.raises(DataError, match="joint must be"):
        forecaster.forecast(frame, HORIZON, num_samples=5, joint="all")
