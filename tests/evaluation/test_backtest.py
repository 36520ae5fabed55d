from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import pytest

import llamacast
from llamacast.data.frame import read_panel
from llamacast.evaluation import backtest as module
from llamacast.evaluation.answers import LEVELS
from llamacast.evaluation.backtest import Settled, Trainable, backtest
from llamacast.evaluation.baselines import SeasonalNaive
from llamacast.evaluation.metrics import seasonal_error
from llamacast.forecast import DataError, Forecaster, TrainingRecord

HORIZON = 6
NOTHING = TrainingRecord()


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    return pd.concat(
        pd.DataFrame(
            {
                "unique_id": f"s{number}",
                "ds": pd.date_range("2024-01-01", periods=length, freq="h"),
                "y": 10 + np.sin(np.arange(length) * np.pi / 12) + rng.normal(0, 0.3, length),
            }
        )
        for number, length in enumerate((90, 120, 200))
    )


@dataclass(frozen=True)
class LastValue:
    """Independent normal draws around the last value; remembers what it was asked."""

    spread: float = 1.0
    asked: list[str] = field(default_factory=list, repr=False, compare=False)
    training: TrainingRecord = NOTHING

    def forecast(self, data, horizon):
        panel = read_panel(data)
        self.asked.extend(panel.ids)
        samples = [
            values[-1]
            + self.spread
            * np.random.default_rng(len(values)).normal(size=(40, horizon)).cumsum(axis=1)
            for values in panel.values
        ]
        return panel.answer(np.stack(samples), "last-value")


@dataclass(frozen=True)
class FailsOn:
    """Refuses any request with a series whose name begins so."""

    beginning: str

    def forecast(self, data, horizon):
        panel = read_panel(data)
        if any(str(name).startswith(self.beginning) for name in panel.ids):
            raise RuntimeError(f"cannot do {self.beginning}\nand a second line")
        return SeasonalNaive().forecast(panel, horizon)


@dataclass(frozen=True)
class Learner:
    """Forecasts the mean of what it was trained on."""

    seen: list[int] = field(default_factory=list, repr=False)

    def fit(self, data, horizon):
        panel = read_panel(data)
        self.seen.append(sum(map(len, panel.values)))
        return LastValue(float(np.mean(np.concatenate(panel.values))))


def test_scores_are_those_of_the_windows_forecast_one_by_one(table):
    """What a user would do by hand: cut the table, forecast, compare."""
    scores = backtest(table, HORIZON, {"last": LastValue()}, num_windows=3)
    answers = scores.answers["last"]
    assert scores.actuals.shape == (9, HORIZON)
    assert answers.quantiles.shape == (9, HORIZON, len(LEVELS))
    for row, (name, cutoff) in enumerate(zip(scores.series, scores.cutoffs, strict=True)):
        one = table[table.unique_id == name]
        past, future = one[one.ds <= cutoff], one[one.ds > cutoff].head(HORIZON)
        forecast = LastValue().forecast(past, HORIZON)
        np.testing.assert_allclose(answers.mean[row], forecast.mean[0])
        np.testing.assert_allclose(answers.quantiles[row], forecast.quantile(LEVELS)[0])
        np.testing.assert_allclose(scores.actuals[row], future.y)
        expected = seasonal_error(past.y.to_numpy(), 24)
        assert scores.seasonal_errors[row] == pytest.approx(expected)


def test_chunks_do_not_matter(table, monkeypatch):
    whole = backtest(table, HORIZON, {"last": LastValue()})
    monkeypatch.setattr(module, "CHUNK", 2)
    parts = backtest(table, HORIZON, {"last": LastValue()})
    np.testing.assert_array_equal(whole.answers["last"].quantiles, parts.answers["last"].quantiles)
    for name in ("energy", "transform", "crps"):
        one, other = (getattr(scores.answers["last"], name) for scores in (whole, parts))
        np.testing.assert_array_equal(one, other)


@dataclass(frozen=True)
class OfWholeGroups:
    """Refuses a group of which a member is missing, and any with a window that ends at `bad`."""

    bad: str = "never"

    def forecast(self, data, horizon):
        panel = read_panel(data)
        sizes = {group: panel.groups.count(group) for group in panel.groups}
        assert set(sizes.values()) == {2}
        if any(self.bad in name for name in panel.ids):
            raise RuntimeError("bad")
        return SeasonalNaive().forecast(panel, horizon)


@pytest.mark.parametrize("size", [1, 3, 64])
def test_groups_are_told_together(table, monkeypatch, size):
    monkeypatch.setattr(module, "CHUNK", size)
    farms = pd.concat(
        table.assign(unique_id=table.unique_id + kind, farm=table.unique_id)
        for kind in (" foxes", " hares")
    )
    panel = read_panel(farms, group_column="farm")
    cut = panel.axes[0].index(len(panel.values[0]) - HORIZON - 1, 1)[0]
    scores = backtest(
        panel, HORIZON, {"good": OfWholeGroups(), "bad": OfWholeGroups(str(cut))}, num_windows=3
    )
    assert scores.answers["good"].answered.all()
    failed = ~scores.answers["bad"].answered
    named = {name for name, one in zip(scores.series, failed, strict=True) if one}
    assert failed.sum() == 2
    assert named == {"s0 foxes", "s0 hares"}


def test_seasonal_naive_is_always_there(table):
    scores = backtest(table, HORIZON, {"last": LastValue()})
    assert list(scores.answers) == ["seasonal-naive", "last"]


def test_lag_llama_with_settled_options_repeats(table):
    small = llamacast.load("lag-llama")
    settled = Settled(small, {"num_samples": 10, "seed": 4})
    assert isinstance(settled, Forecaster)
    one = backtest(table, HORIZON, {"lag-llama": settled}, num_windows=1)
    two = backtest(table, HORIZON, {"lag-llama": settled}, num_windows=1)
    other = Settled(small, {"num_samples": 10, "seed": 5})
    three = backtest(table, HORIZON, {"lag-llama": other}, num_windows=1)
    np.testing.assert_array_equal(one.actuals, two.actuals)
    np.testing.assert_array_equal(one.answers["lag-llama"].mean, two.answers["lag-llama"].mean)
    assert (one.answers["lag-llama"].mean != three.answers["lag-llama"].mean).any()


# --- Failures ------------------------------------------------------------------------------------


def test_a_failure_is_told_and_the_others_are_answered(table):
    scores = backtest(table, HORIZON, {"fails": FailsOn("s1")}, num_windows=3)
    answers = scores.answers["fails"]
    assert answers.answered.tolist() == [True] * 3 + [False] * 3 + [True] * 3
    assert scores.errors() == {"fails": {"RuntimeError: cannot do s1": 3}}
    reference = scores.answers["seasonal-naive"]
    np.testing.assert_array_equal(answers.mean[:3], reference.mean[:3])
    row = scores.table().loc["fails"]
    assert row["failed"] == 3
    # Judged on what it answered, and so is seasonal naive beside it; but it ranks behind.
    assert row["CRPS ratio"] == pytest.approx(1.0)
    assert row["rank"] > scores.table().loc["seasonal-naive", "rank"]


def test_a_forecaster_that_always_fails_does_not_sink_the_run(table):
    scores = backtest(table, HORIZON, {"fails": FailsOn("s"), "last": LastValue()})
    assert np.isnan(scores.table().loc["fails", "CRPS"])
    assert scores.answers["last"].answered.all()


@dataclass(frozen=True)
class Spoils:
    """Seasonal naive, spoilt in one way."""

    how: str

    def forecast(self, data, horizon):
        forecast = SeasonalNaive().forecast(data, horizon)
        if self.how == "nan":
            return replace(forecast, samples=np.full_like(forecast.samples, np.nan))
        return replace(forecast, samples=forecast.samples[:, :, :-1])


@pytest.mark.parametrize(("how", "message"), [("nan", "not finite"), ("short", "horizon")])
def test_forecasts_that_are_not_what_was_asked_for_fail(table, how, message):
    scores = backtest(table, HORIZON, {"spoils": Spoils(how)}, num_windows=1)
    (told,) = scores.errors()["spoils"]
    assert message in told


def test_a_forecaster_cannot_change_what_it_is_judged_by(table):
    class InPlace:
        def forecast(self, data, horizon):
            for values in data.values:
                values -= values.mean()
            return SeasonalNaive().forecast(data, horizon)

    scores = backtest(table, HORIZON, {"in place": InPlace()}, num_windows=2)
    (told,) = scores.errors()["in place"]
    assert "read-only" in told


@pytest.mark.parametrize("damaged", [lambda b: b[:100], lambda b: b"", lambda b: b[:300] + b[400:]])
def test_damaged_answers_are_asked_for_again_and_damaged_settings_named(table, tmp_path, damaged):
    backtest(table, HORIZON, {"last": LastValue()}, directory=tmp_path)
    (kept,) = (tmp_path / "answers").glob("last-*/*.npz")
    kept.write_bytes(damaged(kept.read_bytes()))
    again = LastValue()
    backtest(table, HORIZON, {"last": again}, directory=tmp_path)
    assert again.asked
    (tmp_path / "backtest.json").write_text("")
    with pytest.raises(DataError, match="damaged"):
        backtest(table, HORIZON, {}, directory=tmp_path)


def test_the_frequency_is_part_of_what_was_asked(table, tmp_path):
    daily = read_panel(np.arange(90.0))
    backtest(daily, HORIZON, {}, directory=tmp_path)
    stamped = read_panel(pd.Series(np.arange(90.0), pd.date_range("2024", periods=90, freq="D")))
    with pytest.raises(DataError, match="other data"):
        backtest(stamped, HORIZON, {}, directory=tmp_path)


# --- Going on ------------------------------------------------------------------------------------


def test_an_interrupted_run_goes_on(table, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 2)

    class Interrupted(LastValue):
        def forecast(self, data, horizon):
            if len(self.asked) >= 4:
                raise KeyboardInterrupt
            return super().forecast(data, horizon)

        def __repr__(self):
            return repr(LastValue())

    with pytest.raises(KeyboardInterrupt):
        backtest(table, HORIZON, {"last": Interrupted()}, num_windows=3, directory=tmp_path)
    resumed = LastValue()
    scores = backtest(table, HORIZON, {"last": resumed}, num_windows=3, directory=tmp_path)
    assert len(resumed.asked) == 5  # of nine, four were kept
    unbroken = backtest(table, HORIZON, {"last": LastValue()}, num_windows=3)
    np.testing.assert_array_equal(
        scores.answers["last"].transform, unbroken.answers["last"].transform
    )
    pd.testing.assert_frame_equal(
        scores.table().drop(columns="seconds"), unbroken.table().drop(columns="seconds")
    )


def test_what_failed_is_tried_again(table, tmp_path):
    class Recovers(FailsOn):
        def __repr__(self):
            return "the same"

    backtest(table, HORIZON, {"x": Recovers("s1")}, num_windows=2, directory=tmp_path)
    again = backtest(table, HORIZON, {"x": Recovers("none")}, num_windows=2, directory=tmp_path)
    assert again.answers["x"].answered.all()


def test_answers_with_other_covariates_or_options_are_others(table, tmp_path):
    class Plain:
        def __init__(self, level):
            self.level = level

        def forecast(self, data, horizon):
            found = SeasonalNaive().forecast(data, horizon)
            return replace(found, samples=np.full_like(found.samples, self.level))

    def mean(data, level):
        found = backtest(data, HORIZON, {"plain": Plain(level)}, directory=tmp_path)
        return found.answers["plain"].mean.mean()

    assert mean(table, 3.0) == 3.0
    assert mean(table, 7.0) == 7.0
    beside = read_panel(table.assign(price=1.0), covariates=["price"])
    with pytest.raises(DataError, match="other data"):
        mean(beside, 3.0)


def test_a_forecaster_without_a_name_of_its_own_is_found_again(table, tmp_path):
    class Plain:
        def forecast(self, data, horizon):
            asked.append(1)
            return SeasonalNaive().forecast(data, horizon)

    asked: list[int] = []
    for _ in range(2):
        backtest(table, HORIZON, {"plain": Plain()}, directory=tmp_path)
    assert len(asked) == 1


def test_another_forecaster_of_that_name_starts_anew(table, tmp_path):
    backtest(table, HORIZON, {"last": LastValue(1.0)}, directory=tmp_path)
    changed = LastValue(2.0)
    backtest(table, HORIZON, {"last": changed}, directory=tmp_path)
    assert changed.asked


@pytest.mark.parametrize("options", [{"num_windows": 2}, {"step": 3}, {"season": 7}])
def test_a_folder_of_another_backtest_is_refused(table, tmp_path, options):
    backtest(table, HORIZON, {}, num_windows=3, directory=tmp_path)
    with pytest.raises(DataError, match="other data or windows"):
        backtest(table, HORIZON, {}, **{"num_windows": 3, "directory": tmp_path, **options})
    changed = table.assign(y=table.y + 1)
    with pytest.raises(DataError, match="other data or windows"):
        backtest(changed, HORIZON, {}, num_windows=3, directory=tmp_path)


# --- Learning first ------------------------------------------------------------------------------


def test_what_must_learn_does_so_once_from_before_the_first_window(table, tmp_path):
    learner = Learner()
    assert isinstance(learner, Trainable)
    assert not isinstance(LastValue(), Trainable)
    first = backtest(table, HORIZON, {"learner": learner}, num_windows=3, directory=tmp_path)
    assert learner.seen == [90 + 120 + 200 - 3 * 3 * HORIZON]
    again = backtest(table, HORIZON, {"learner": learner}, num_windows=3, directory=tmp_path)
    assert len(learner.seen) == 1
    np.testing.assert_array_equal(first.answers["learner"].mean, again.answers["learner"].mean)


def test_a_training_that_fails_is_told(table):
    class Broken:
        def fit(self, data, horizon):
            raise ValueError("no gradient")

    scores = backtest(table, HORIZON, {"broken": Broken()}, num_windows=2)
    assert scores.errors() == {"broken": {"ValueError: no gradient": 6}}


# --- Wrong use -----------------------------------------------------------------------------------


def test_leakage_is_named(table):
    seen = LastValue(training=TrainingRecord(datasets=("Electricity Load",)))
    scores = backtest(table, HORIZON, {"seen": seen}, name="electricity_load")
    assert list(scores.leaks) == ["seen"]
    assert not backtest(table, HORIZON, {"seen": seen}, name="other").leaks
    # Options settled on top do not hide it.
    assert backtest(table, HORIZON, {"s": Settled(seen, {})}, name="electricity_load").leaks


def test_windows_in_the_time_of_fine_tuning_are_named(table):
    until = table[table.unique_id == "s2"].ds.iloc[-2 * HORIZON]
    tuned = LastValue(training=TrainingRecord(until=str(until)))
    scores = backtest(table, HORIZON, {"tuned": tuned}, num_windows=3)
    # s0 and s1 end before; of the three of s2, the last begins after.
    assert scores.leaks["tuned"].startswith("8 of 9 windows")


def test_what_cannot_be_is_refused(table):
    with pytest.raises(DataError, match="shorten the horizon"):
        backtest(table, 400, {})
    with pytest.raises(DataError, match="num_windows must be 1 or more"):
        backtest(table, HORIZON, {}, num_windows=0)


def test_the_limits_of_the_windows_are_noted(table):
    scores = backtest(table, 80, {}, num_windows=2, step=40)
    assert any("too short" in note or "fewer than 2" in note for note in scores.notes)
    assert any("overlap" in note for note in scores.notes)


def test_columns_are_named_as_for_a_forecast_and_covariates_are_known_ahead(table):
    @dataclass(frozen=True)
    class Sees:
        def forecast(self, data, horizon):
            known = read_panel(data).covariates
            assert known.ahead.all()
            assert all(len(beside) >= horizon for beside in known.values)
            return SeasonalNaive().forecast(data, horizon)

    named = table.assign(sold=table.y, price=1.0 + np.arange(len(table)) % 3).drop(columns="y")
    scores = backtest(
        named, HORIZON, {"sees": Sees()}, target_column="sold", covariates=["price"], num_windows=2
    )
    assert scores.answers["sees"].answered.all()


def test_windows_know_of_holidays(table):
    @dataclass(frozen=True)
    class Sees:
        def forecast(self, data, horizon):
            known = read_panel(data).covariates
            assert "holiday" in known.names
            assert known.ahead.all()
            pairs = zip(known.values, data.values, strict=True)
            assert all(len(beside) >= len(values) + horizon for beside, values in pairs)
            return SeasonalNaive().forecast(data, horizon)

    scores = backtest(table, HORIZON, {"sees": Sees()}, holidays="DE", num_windows=2)
    assert scores.answers["sees"].answered.all()
