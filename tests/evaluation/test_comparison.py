from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from llamacast.evaluation.answers import LEVELS, Answers
from llamacast.evaluation.comparison import compare, overall_skill, skill, summarise
from llamacast.evaluation.scores import Scores
from llamacast.forecast import DataError

NUM_SERIES, WINDOWS_EACH, HORIZON = 40, 3, 4
NORMAL = norm.ppf(LEVELS)


def normal_answers(mean, spread):
    """Of one forecast for all windows."""
    shape = mean.shape
    quantiles = mean[..., None] + spread * NORMAL
    blank = np.zeros(shape)
    errors = np.full(len(mean), "", dtype="<U200")
    return Answers(quantiles, mean, blank, blank, blank[:, 0], errors, 1.0)


def made_scores(name="data", num_series=NUM_SERIES, **spreads):
    """Standard normal actuals around 5; forecasts of the right mean and the given spreads."""
    rng = np.random.default_rng(len(name))
    shape = (num_series * WINDOWS_EACH, HORIZON)
    actuals = 5 + rng.normal(size=shape)
    centre = np.full(shape, 5.0)
    answers = {"seasonal-naive": normal_answers(centre + 1.0, 2.0)}
    answers |= {key: normal_answers(centre, spread) for key, spread in spreads.items()}
    ones = np.ones(len(actuals))
    series = np.repeat([f"s{n}" for n in range(num_series)], WINDOWS_EACH).tolist()
    return Scores(name, series, list(range(len(actuals))), actuals, ones, ones, answers, {}, [])


def test_skill_is_what_is_saved_of_seasonal_naives_score():
    scores = made_scores(right=1.0)
    table = scores.table()
    found = skill(scores, "right")
    assert found.value == pytest.approx(1 - table.loc["right", "CRPS ratio"])
    assert found.low < found.value < found.high
    assert found.verdict == "better"
    assert skill(scores, "seasonal-naive").value == 0.0


def test_a_worse_forecast_is_called_worse_and_luck_is_called_luck():
    scores = made_scores(absurd=40.0)
    assert skill(scores, "absurd").verdict == "worse"
    same = made_scores(right=1.0)
    nearly = dict(same.answers)
    noise = np.random.default_rng(0).normal(0, 0.05, same.actuals.shape)
    nearly["nearly"] = normal_answers(np.full(same.actuals.shape, 6.0) + noise, 2.0)
    jittered = Scores(
        same.name,
        same.series,
        same.cutoffs,
        same.actuals,
        same.seasonal_errors,
        same.squared_seasonal_errors,
        nearly,
        {},
        [],
    )
    assert skill(jittered, "nearly").verdict == "not told apart"


def test_the_interval_holds_the_true_skill_as_often_as_it_says():
    """Over many data sets made alike, the interval of skill covers the skill of all of them."""
    found, values = [], []
    for number in range(60):
        scores = made_scores("d" * (number + 1), num_series=25, right=1.0)
        found.append(skill(scores, "right", seed=number))
        values.append(found[-1].value)
    truth = np.mean(values)
    covered = np.mean([one.low <= truth <= one.high for one in found])
    assert 0.85 <= covered <= 1.0


def test_too_few_windows_are_not_judged():
    scores = made_scores(num_series=3, right=1.0)
    assert skill(scores, "right").verdict == "too few windows"
    assert set(compare(scores)["verdict"]) == {"", "too few windows"}


def test_a_perfect_forecast_has_a_skill_of_one():
    scores = made_scores(right=1.0)
    perfect = normal_answers(scores.actuals, 0.0)
    best = replace(scores, answers={**scores.answers, "perfect": perfect})
    found = skill(best, "perfect")
    assert (found.value, found.low, found.verdict) == (1.0, 1.0, "better")


def test_one_who_fails_on_a_whole_data_set_ranks_last_there():
    several = [made_scores("a", right=1.0), made_scores("bb", right=1.0)]
    nothing = Answers.failed(len(several[0].actuals), HORIZON, "no")
    several[0] = replace(several[0], answers={**several[0].answers, "right": nothing})
    table = summarise(several)
    assert table.loc["right", "rank"] == 1.5
    assert table.index[0] == "seasonal-naive"
    assert np.isnan(table.loc["right", "CRPS ratio"])


def test_few_series_are_judged_by_windows():
    scores = made_scores(num_series=9, right=1.0)
    assert skill(scores, "right").verdict == "better"


def test_data_sets_together_are_a_geometric_mean():
    several = [made_scores("a", right=1.0), made_scores("bb", right=1.2)]
    ratios = [1 - skill(scores, "right").value for scores in several]
    overall = overall_skill(several, "right")
    assert 1 - overall.value == pytest.approx(np.sqrt(np.prod(ratios)))
    width = overall.high - overall.low
    assert width < max(skill(s, "right").high - skill(s, "right").low for s in several)
    table = summarise(several)
    assert table.loc["right", "CRPS ratio"] == pytest.approx(1 - overall.value)
    assert table.loc["right", "rank"] == 1.0
    assert table.loc["right", "better on"] == 2
    assert table.loc["seasonal-naive", "CRPS ratio"] == 1.0


def test_data_sets_of_one_name_are_refused():
    with pytest.raises(DataError, match="2 scores are called 'data'; name them"):
        summarise([made_scores(good=1.0), made_scores(good=2.0)])


def test_a_forecaster_missing_on_a_data_set_is_judged_on_the_others():
    table = summarise([made_scores("a", right=1.0), made_scores("bb", right=1.0, other=2.0)])
    assert table.loc["other", "data sets"] == 1
    assert np.isfinite(table.loc["other", "CRPS ratio"])


def test_ranks_are_averaged_over_series():
    scores = made_scores(right=1.0, wide=3.0)
    ranks = scores.ranks()
    assert ranks.idxmin() == "right"
    assert ranks.sum() == pytest.approx(1 + 2 + 3)
    by_series = scores.per_series()
    assert len(by_series) == NUM_SERIES * 3
    best = by_series.loc[by_series.groupby("series")["CRPS"].idxmin(), "model"]
    assert (best == "right").mean() > 0.8
