from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from llamacast.data.frame import read_panel
from llamacast.data.windows import (
    WindowShape,
    draw_stretches,
    draw_windows,
    last_values,
    last_windows,
    pad_left,
    rolling_origins,
)
from llamacast.forecast import DataError

CONTEXT, HORIZON = 16, 5


@pytest.mark.parametrize(
    ("number", "start", "freq"), [(0, "2021-05-01", "h"), (1, "2019-01-15", "D")]
)
def test_the_last_window_is_the_official_pipelines(golden, number, start, freq):
    """A short series with NaN, padded; and a long one."""
    fixture = golden("pipeline").under(f"s{number}.")
    raw = fixture["raw_target"].double().numpy()
    stamps = pd.date_range(start, periods=len(raw), freq=freq)
    panel = read_panel(pd.Series(raw, stamps), frequency=freq)
    windows = last_windows(panel, slice(0, 1), 1092 + CONTEXT, 1092 + CONTEXT, HORIZON)
    observed = fixture["past_observed_values"].numpy().astype(bool)
    np.testing.assert_array_equal(windows.observed[0], observed)
    past = fixture["past_target"].numpy()
    np.testing.assert_allclose(windows.values[0][observed], past[observed], rtol=1e-6)
    assert not windows.values[0][~observed].any()
    calendar = np.concatenate([fixture["past_time_feat"], fixture["future_time_feat"]])
    np.testing.assert_allclose(windows.calendar[0], calendar, atol=1e-6)
    shorter = last_windows(panel, slice(0, 1), 1092 + CONTEXT, CONTEXT, HORIZON)
    np.testing.assert_array_equal(shorter.calendar[0], windows.calendar[0, 1092:])


@pytest.mark.parametrize("length", [1, 3, 5, 9])
def test_padding_is_on_the_left_and_unobserved(length):
    values, observed = pad_left(np.array([1.0, np.nan, 3.0, 4.0, 5.0]), length)
    assert len(values) == len(observed) == length
    assert values[-1] == 5.0
    assert observed.sum() == min(length, 5) - (length >= 4)
    assert not np.isnan(values).any()


SHAPE = WindowShape(history=60, horizon=8, num_steps=20)


def draw(num_windows=500, begins=(0, 0, 50), ends=(30, 200, 100), chances=(0.25, 0.25, 0.5)):
    rng = np.random.default_rng(0)
    bounds = np.array(begins), np.array(ends)
    return draw_windows(rng, np.array(chances), *bounds, num_windows, SHAPE), *bounds


def test_origins_lie_where_they_may():
    draws, begins, ends = draw(2000)
    assert len(draws) == 2000
    assert (draws.origins >= np.maximum(begins[draws.series], 4)).all()
    assert (draws.origins < ends[draws.series]).all()
    assert set(draws.origins[draws.series == 0]) == set(range(4, 30))


def test_histories_are_cut_short_now_and_then_but_hold_four_steps():
    draws, _, _ = draw(2000)
    whole = np.maximum(draws.origins - SHAPE.history, 0)
    assert ((draws.firsts >= whole) & (draws.firsts <= draws.origins - 4)).all()
    assert 0.05 < (draws.firsts > whole).mean() < 0.2


def test_series_are_drawn_by_their_chances():
    draws, _, _ = draw(4000, chances=(0.1, 0.0, 0.9))
    counts = np.bincount(draws.series, minlength=3)
    assert counts[1] == 0
    assert counts[0] / 4000 == pytest.approx(0.1, abs=0.02)


def test_same_seed_same_draws():
    for one, two in zip(*(vars(draw()[0]).values() for _ in range(2)), strict=True):
        np.testing.assert_array_equal(one, two)


# --- Rolling origins -----------------------------------------------------------------------------


@pytest.fixture
def hours():
    rng = np.random.default_rng(0)
    return read_panel(
        pd.concat(
            pd.DataFrame(
                {
                    "unique_id": name,
                    "ds": pd.date_range("2024-03-01", periods=length, freq="h"),
                    "y": rng.normal(size=length),
                }
            )
            for name, length in (("long", 50), ("short", 20), ("tiny", 6))
        )
    )


@pytest.mark.parametrize("step", [3, 6])
def test_history_and_actuals_meet_at_the_origin(hours, step):
    origins = rolling_origins(hours, 6, 4, step)
    histories, actuals = origins.histories(slice(None)), origins.actuals()
    assert actuals.shape == (len(origins), 6)
    for row, number in enumerate(origins.series):
        whole = hours.values[number]
        both = np.concatenate([histories.values[row], actuals[row]])
        np.testing.assert_array_equal(both, whole[: len(both)])
        assert (len(whole) - len(both)) % step == 0
        assert (
            histories.axes[row].index(len(histories.values[row]) - 1, 1)[0]
            == (origins.cutoffs()[row])
        )
    assert len(set(histories.ids)) == len(origins)


def test_windows_are_counted_from_the_end_and_stay_within_the_series(hours):
    origins = rolling_origins(hours, 6, 4, 6)
    assert origins.series.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert origins.cuts.tolist() == [26, 32, 38, 44, 2, 8, 14]


def test_what_may_be_learnt_from_ends_at_each_first_origin(hours):
    before = rolling_origins(hours, 6, 4, 6).before()
    assert list(before.ids) == ["long", "short"]
    assert [len(values) for values in before.values] == [26, 2]


def test_windows_of_a_group_stand_together_and_in_order_of_time(hours):
    plain = rolling_origins(hours, 5, 4, 3)
    origins = rolling_origins(replace(hours, groups=["a", "b", "a"]), 5, 4, 3)
    places = [list(zip(one.series, one.cuts, strict=True)) for one in (plain, origins)]
    assert places[1] != places[0]
    assert sorted(places[1]) == sorted(places[0])
    stretches = [group for group, _ in itertools.groupby(origins.groups)]
    assert len(stretches) == len(set(stretches))
    for number in range(len(hours)):
        assert (np.diff(origins.cuts[origins.series == number]) > 0).all()
    before = origins.before()
    assert before.groups == ["a", "b", "a"]
    np.testing.assert_array_equal(before.values[2], plain.before().values[2])


def test_windows_without_anything_to_compare_are_left_out():
    values = np.r_[np.full(5, np.nan), np.arange(5.0), np.full(5, np.nan), np.arange(5.0)]
    panel = read_panel(pd.Series(values, pd.date_range("2024-01-01", periods=20, freq="D")))
    origins = rolling_origins(panel, 5, 4, 5)
    assert origins.cuts.tolist() == [15]  # at 10 nothing follows, at 5 nothing is known


def test_a_horizon_longer_than_the_data_is_refused(hours):
    with pytest.raises(DataError, match="'long', has 50 steps; shorten the horizon"):
        rolling_origins(hours, 50, 1, 50)


def test_stretches_lie_in_their_series_and_begin_anywhere_in_a_patch():
    rng = np.random.default_rng(0)
    ends = np.array([500, 40, 0, 64])
    chances = np.array([0.4, 0.3, 0.0, 0.3])
    draws = draw_stretches(rng, chances, ends, 2000, length=64, patch_length=16)
    assert set(draws.series.tolist()) == {0, 1, 3}
    offset = draws.firsts - draws.origins
    assert set(offset.tolist()) == set(range(16))
    assert (draws.firsts >= 0).all()
    # As far as the series reaches, nothing beyond its end is asked for.
    fits = ends[draws.series] >= 64
    assert (draws.origins[fits] + 64 <= np.maximum(ends[draws.series], 64)[fits] + 15).all()
    assert draws.origins[draws.series == 0].max() > 420
    assert (draws.firsts[draws.series == 1] == 0).all()


def test_the_ends_of_series_with_the_periods_their_frequencies_suggest():
    days = [*pd.date_range("2024-01-01", periods=5), *pd.date_range("2024-03-01", periods=3)]
    panel = read_panel(
        pd.DataFrame(
            {
                "unique_id": ["a"] * 5 + ["b"] * 3,
                "ds": days,
                "y": [1.0, 2.0, np.nan, 4.0, 5.0, 7.0, 8.0, 9.0],
            }
        )
    )
    values, observed, seasons = last_values(panel, np.array([0, 1]), 4)
    assert values.tolist() == [[2, 0, 4, 5], [0, 7, 8, 9]]
    assert observed.tolist() == [[True, False, True, True], [False, True, True, True]]
    assert seasons.tolist() == [[7, 365], [7, 365]]
    values, _, _ = last_values(panel, np.array([1]), 100)
    assert values.shape == (1, 3)
