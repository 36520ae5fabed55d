from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from llamacast.data.calendar import calendar_features, parse_frequency
from llamacast.data.corpora import read_corpus
from llamacast.data.frame import read_panel
from llamacast.data.windows import (
    WindowShape,
    last_windows,
    pad_left,
    random_windows,
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


@pytest.fixture
def corpus(tmp_path):
    """Values that tell their own position: 1000 * series + step."""
    rows = [(f"s{n}", 30 + 20 * n, "h" if n % 2 else "MS") for n in range(40)]
    frame = pd.DataFrame(
        {
            "item_id": [name for name, _, _ in rows],
            "start": pd.Timestamp("2020-01-01"),
            "freq": [freq for _, _, freq in rows],
            "target": [
                (1000 * n + np.arange(length)).astype(np.float32)
                for n, (_, length, _) in enumerate(rows)
            ],
        }
    )
    frame.to_parquet(tmp_path / "counting.parquet")
    return read_corpus(tmp_path)


SHAPE = WindowShape(history=60, horizon=8, num_steps=20)


def test_random_windows_are_pieces_of_series_with_their_calendar(corpus):
    windows = random_windows(corpus, np.random.default_rng(0), 200, SHAPE)
    assert windows.values.shape == windows.observed.shape == (200, 68)
    assert windows.calendar.shape == (200, 20, 6)
    for values, observed, calendar in zip(
        windows.values, windows.observed, windows.calendar, strict=True
    ):
        seen = np.abs(values[observed])
        assert observed[58:61].all()  # two values before the origin, one after
        np.testing.assert_array_equal(np.diff(seen), 1.0)
        np.testing.assert_array_equal(np.diff(np.flatnonzero(observed)), 1)
        if not calendar.any():
            continue  # shown without a calendar
        series, origin = divmod(int(np.abs(values[60])), 1000)
        stamps = pd.date_range("2020-01-01", periods=origin + 8, freq="h" if series % 2 else "MS")
        frequency = parse_frequency("h" if series % 2 else "MS")
        expected = calendar_features(stamps.to_numpy().astype("datetime64[ns]")[-20:], frequency)
        first = max(0, int(observed.argmax()) - 48)
        end = int(np.flatnonzero(observed)[-1]) + 1 - 48
        expected = np.pad(expected, ((20 - len(expected), 0), (0, 0)))
        np.testing.assert_allclose(calendar[first:end], expected[first:end])
        assert not calendar[:first].any()
        assert not calendar[end:].any()  # after the series' end


def test_series_shorter_than_a_window_are_drawn_too(corpus):
    shape = WindowShape(history=60, horizon=500, num_steps=520)
    windows = random_windows(corpus, np.random.default_rng(0), 300, shape)
    drawn = set(np.abs(windows.values[:, 60]) // 1000)
    assert len(drawn) == 38  # every series but the two held out


def test_yearly_series_go_on_for_longer_than_stamps_can_tell(tmp_path):
    series = np.random.default_rng(0).normal(size=40).astype(np.float32)
    frame = pd.DataFrame(
        {"item_id": ["a"], "start": pd.Timestamp("1991-01-01"), "freq": "YS", "target": [series]}
    )
    frame.to_parquet(tmp_path / "years.parquet")
    shape = WindowShape(history=60, horizon=400, num_steps=420)
    windows = random_windows(
        read_corpus(tmp_path / "years.parquet"), np.random.default_rng(0), 20, shape
    )
    assert windows.calendar.any()


def test_a_corpus_of_constants_is_refused(tmp_path):
    frame = pd.DataFrame(
        {"item_id": ["a"], "start": pd.Timestamp("2020-01-01"), "freq": "h", "target": [[1.0] * 50]}
    )
    frame.to_parquet(tmp_path / "constant.parquet")
    with pytest.raises(DataError, match="move"):
        random_windows(read_corpus(tmp_path), np.random.default_rng(0), 1, SHAPE)


def test_held_out_series_are_never_trained_on(corpus):
    rng = np.random.default_rng(0)
    held = random_windows(corpus, rng, 50, SHAPE, held_out=True)
    trained = random_windows(corpus, rng, 500, SHAPE)
    numbers = [set(np.abs(w.values[:, 60]) // 1000) for w in (held, trained)]
    assert numbers[0] <= {19.0, 39.0}
    assert not numbers[0] & numbers[1]


def test_same_seed_same_windows(corpus):
    one, two = (random_windows(corpus, np.random.default_rng(7), 10, SHAPE) for _ in range(2))
    np.testing.assert_array_equal(one.values, two.values)
    np.testing.assert_array_equal(one.calendar, two.calendar)


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


def test_windows_without_anything_to_compare_are_left_out():
    values = np.r_[np.full(5, np.nan), np.arange(5.0), np.full(5, np.nan), np.arange(5.0)]
    panel = read_panel(pd.Series(values, pd.date_range("2024-01-01", periods=20, freq="D")))
    origins = rolling_origins(panel, 5, 4, 5)
    assert origins.cuts.tolist() == [15]  # at 10 nothing follows, at 5 nothing is known


def test_a_horizon_longer_than_the_data_is_refused(hours):
    with pytest.raises(DataError, match="'long', has 50 steps; shorten the horizon"):
        rolling_origins(hours, 50, 1, 50)
