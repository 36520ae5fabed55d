"""Anomalies, by the packaged weights."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import llamacast
from llamacast import DataError

PLACES = {"a": [310, 420], "b": [350]}


@pytest.fixture(scope="module", params=["cria", "lag-llama"])
def forecaster(request):
    return llamacast.load(request.param, device="cpu")


def frame(seed=0, num_steps=480):
    rng = np.random.default_rng(seed)
    stamps = pd.date_range("2024-01-01", periods=num_steps, freq="h")
    parts = []
    for name, places in PLACES.items():
        y = 50 + 10 * np.sin(np.arange(num_steps) * 2 * np.pi / 24) + rng.normal(size=num_steps)
        y[places] += 12.0
        y[200] = np.nan
        parts.append(pd.DataFrame({"unique_id": name, "ds": stamps, "y": y}))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def found(forecaster):
    return forecaster.detect(frame())


def test_what_was_planted_is_found_and_little_else(found):
    for name, flags in zip(found.ids, found.flags, strict=True):
        assert set(PLACES[name]) <= set(np.flatnonzero(flags))
        ordinary = np.delete(flags[100:], np.array(PLACES[name]) - 100)
        assert ordinary.mean() < 0.03


def test_bands_are_where_flags_begin(found):
    for number, flags in enumerate(found.flags):
        values = found.values[number]
        outside = (values < found.low[number]) | (values > found.high[number])
        known = ~np.isnan(found.probability[number])
        assert (outside[known] == flags[known]).mean() > 0.99
        middle = found.expected[number][known]
        assert (found.low[number][known] < middle).all()


def test_a_missing_value_is_not_judged(found):
    table = found.to_frame()
    missing = table[table.y.isna()]
    assert len(missing) == 2
    assert missing.probability.isna().all()
    assert not missing.anomaly.any()
    assert list(table.columns[:3]) == ["unique_id", "ds", "y"]
    np.testing.assert_allclose(table.score, -np.log10(table.probability), equal_nan=True)


def test_units_do_not_matter(forecaster, found):
    changed = frame()
    changed["y"] = changed.y * 1e-3
    other = forecaster.detect(changed)
    for one, two in zip(found.probability, other.probability, strict=True):
        np.testing.assert_allclose(np.log(one), np.log(two), atol=0.05, equal_nan=True)


def test_a_series_is_judged_alone_as_in_company(forecaster, found):
    whole = frame()
    alone = forecaster.detect(whole[whole.unique_id == "b"])
    np.testing.assert_allclose(alone.probability[0], found.probability[1], rtol=1e-3)


def test_long_series_are_judged_to_their_end(forecaster):
    rng = np.random.default_rng(0)
    y = rng.normal(size=2600)
    y[[2100, 2590]] = 15.0
    found = forecaster.detect(y)
    assert np.isfinite(found.probability[0][100:]).all()
    assert found.flags[0][[2100, 2590]].all()


def test_constant_and_short_series_are_no_alarm(forecaster):
    found = forecaster.detect([np.full(60, 3.0), np.array([1.0, 2.0])])
    assert not any(flags.any() for flags in found.flags)


def test_a_picture_is_drawn(found, tmp_path):
    found.plot(tmp_path / "odd.png", last=100)
    assert (tmp_path / "odd.png").stat().st_size > 10_000


@pytest.mark.parametrize("rate", [0.0, 0.5, -1])
def test_rates_are_refused_that_make_no_sense(forecaster, rate):
    with pytest.raises(DataError, match="false_alarm_rate"):
        forecaster.detect(frame(), false_alarm_rate=rate)


@pytest.mark.parametrize("sign", [-1, 1])
def test_what_no_forecast_could_expect_is_odd_at_any_rate(forecaster, sign):
    values = np.sin(np.arange(300) / 4) + 0.1 * np.random.default_rng(0).normal(size=300)
    values[260] = sign * 1e6
    flags = forecaster.detect(values, false_alarm_rate=1e-9).flags[0]
    assert flags[260]
    # A season later the edge that it was brought to, which is far at such a rate, may count.
    assert flags.sum() <= 2


def test_after_one_and_the_same_value_any_other_is_odd(forecaster):
    values = np.full(120, 5.0)
    values[90] = 6.0
    found = forecaster.detect(values)
    assert found.flags[0][90]
    assert not found.flags[0][:90].any()
    assert np.isfinite(found.to_frame().score.dropna()).all()


def test_one_odd_value_makes_no_others_odd_a_season_later():
    rng = np.random.default_rng(1)
    week = 15 * rng.normal(size=(24, 7))[:, np.arange(150) % 7]
    values = 100 + week + rng.normal(0, 5, (24, 150))
    values[:, 100] = 0.0
    stamps = np.tile(pd.date_range("2024-01-01", periods=150), 24)
    names = np.repeat(range(24), 150)
    table = pd.DataFrame({"unique_id": names, "ds": stamps, "y": values.ravel()})
    flags = np.array(llamacast.load("cria", device="cpu").detect(table).flags)
    assert flags[:, 100].all()
    assert flags[:, [107, 114, 121]].mean() < 0.05


def test_after_few_equal_values_another_is_not_odd_and_what_was_expected_is_told(forecaster):
    values = np.tile([*[0.0] * 8, 1.0, 1.0, 0.0, 2.0], 3)
    found = forecaster.detect(values)
    assert not found.flags[0][8]
    assert found.expected[0][8] == 0.0
    frame = found.to_frame()
    assert frame[frame.anomaly].notna().all(axis=None)


def test_what_comes_after_one_odd_value_among_equal_ones_is_judged(forecaster):
    values = np.full(140, 5.0)
    values[[90, 130]] = 6.0
    found = forecaster.detect(values)
    assert found.flags[0].nonzero()[0].tolist()[0] == 90
    assert np.isfinite(found.probability[0][9:131]).all()
    assert (found.probability[0][91:130] == 1.0).all()


@pytest.mark.parametrize("name", ["high", "score"])
def test_columns_that_would_be_lost_are_refused(forecaster, name):
    table = pd.DataFrame({"ds": pd.date_range("2024", periods=60), name: np.arange(60.0) % 7})
    with pytest.raises(DataError, match=f"'{name}' is also one of what is told of each value"):
        forecaster.detect(table).to_frame()
