from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamacast.forecast import DataError, Forecast


@pytest.fixture
def forecast():
    samples = np.random.default_rng(0).normal(size=(2, 200, 4)).cumsum(axis=2)
    index = pd.date_range("2024-02-01", periods=4, freq="D")
    past = pd.date_range("2024-01-20", periods=12, freq="D")
    return Forecast(
        samples=samples,
        ids=["a", "b"],
        index=[index, index + pd.Timedelta("1D")],
        history=[pd.Series(np.arange(12.0), past), pd.Series(np.arange(12.0), past)],
        model="lag-llama",
    )


def test_summaries_are_those_of_the_samples(forecast):
    np.testing.assert_allclose(forecast.mean, forecast.samples.mean(axis=1))
    np.testing.assert_allclose(forecast.median, np.median(forecast.samples, axis=1))
    assert forecast.quantile([0.1, 0.9]).shape == (2, 4, 2)
    np.testing.assert_array_equal(forecast.quantile([0.1, 0.9])[..., 1], forecast.quantile(0.9))
    low, high = forecast.interval(80)
    np.testing.assert_allclose(low, forecast.quantile(0.1))
    np.testing.assert_allclose(high, forecast.quantile(0.9))
    inside = (forecast.samples >= low[:, None]) & (forecast.samples <= high[:, None])
    assert inside.mean() == pytest.approx(0.8, abs=0.02)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=5))
def test_quantiles_do_not_cross(levels):
    samples = np.random.default_rng(0).normal(size=(1, 50, 3))
    forecast = Forecast(samples, ["a"], [pd.RangeIndex(3)])
    values = forecast.quantile(sorted(levels))
    assert (np.diff(values, axis=-1) >= 0).all()


@pytest.mark.parametrize("q", [-0.1, 1.1, [0.5, 2.0], float("nan"), []])
def test_levels_out_of_range_are_refused(forecast, q):
    with pytest.raises(ValueError, match="quantiles"):
        forecast.quantile(q)


@pytest.mark.parametrize("level", [0, 100, -5, 0.8e3])
def test_interval_levels_are_per_cent(forecast, level):
    with pytest.raises(ValueError, match="per cent"):
        forecast.interval(level)


def test_frames(forecast):
    frame = forecast.to_frame()
    assert list(frame.columns) == ["unique_id", "ds", "mean", "0.1", "0.5", "0.9"]
    assert len(frame) == 8
    assert frame.unique_id.tolist() == ["a"] * 4 + ["b"] * 4
    assert frame.ds.iloc[4] == pd.Timestamp("2024-02-02")
    np.testing.assert_allclose(frame["0.9"].to_numpy().reshape(2, 4), forecast.quantile(0.9))
    levels = forecast.to_frame(levels=[80, 95])
    assert list(levels.columns)[2:] == ["mean"] + [
        f"lag-llama-{end}-{level}" for level in (80, 95) for end in ("lo", "hi")
    ]
    both = forecast.to_frame(quantiles=[0.25], levels=[50])
    np.testing.assert_allclose(both["0.25"], both["lag-llama-lo-50"])


def test_names_of_the_user(forecast):
    named = dataclasses.replace(forecast, id_column="shop", time_column="day")
    assert list(named.to_frame().columns)[:2] == ["shop", "day"]
    single = dataclasses.replace(forecast, id_column=None)
    assert single.to_frame().columns[0] == "ds"


def test_pictures(forecast, tmp_path):
    actuals = pd.DataFrame(
        {
            "unique_id": ["a"] * 4 + ["b"] * 4,
            "ds": [*forecast.index[0], *forecast.index[1]],
            "y": np.arange(8.0),
        }
    )
    figure = forecast.plot(tmp_path / "fan.png", actuals=actuals)
    assert (tmp_path / "fan.png").stat().st_size > 10_000
    drawn = figure.axes[1].lines[-1].get_ydata()
    np.testing.assert_array_equal(drawn, [4.0, 5.0, 6.0, 7.0])
    with pytest.raises(DataError, match="unique_id"):
        forecast.plot(actuals=actuals.drop(columns="unique_id"))


def test_the_legend_has_the_colours_of_the_bands_and_each_is_darker_than_the_wider(forecast):
    figure = forecast.plot()
    shown = {patch.get_label(): patch.get_facecolor()[0] for patch in figure.axes[0].collections}
    assert list(shown) == ["95 %", "80 %", "50 %"]
    assert all(colour[3] == 1.0 for colour in shown.values())
    brightness = [sum(colour[:3]) for colour in shown.values()]
    assert brightness == sorted(brightness, reverse=True)


def test_a_value_between_gaps_is_seen_and_so_is_that_not_all_series_are(forecast):
    nan = np.nan
    past = pd.Series([1.0, nan, 2.0, nan, 3.0, 4.0], pd.RangeIndex(6))
    figure = dataclasses.replace(forecast, history=[past, past]).plot(max_series=1)
    dots = next(line for line in figure.axes[0].lines if line.get_marker() == ".")
    assert dots.get_xydata().tolist() == [[0, 1], [2, 2]]
    assert figure.get_supxlabel() == "1 of 2 series"
    assert forecast.plot().get_supxlabel() == ""


def test_it_is_frozen_and_whole(forecast):
    with pytest.raises(dataclasses.FrozenInstanceError):
        forecast.ids = []
    with pytest.raises(ValueError, match="shape"):
        Forecast(np.ones((2, 3)), ["a"], [pd.RangeIndex(3)])
    with pytest.raises(ValueError, match="as many"):
        Forecast(np.ones((2, 3, 4)), ["a"], [pd.RangeIndex(4)])


@pytest.mark.parametrize("levels", [(0.1, 0.1000000001), (1 / 3, 0.333333), (0.99999999, 1.0)])
def test_columns_of_levels_are_told_apart(forecast, levels):
    frame = forecast.to_frame(quantiles=levels)
    assert [float(name) for name in frame.columns[-2:]] == list(levels)


def test_what_it_is_shows_on_one_line(forecast):
    shown = repr(dataclasses.replace(forecast, notes=("A note.",)))
    assert shown.count("\n") == 1
    assert f"{forecast.horizon} steps" in shown
