from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamacast.data.calendar import (
    calendar_features,
    infer_frequency,
    natural_seasons,
    parse_frequency,
    placed_like,
    season_candidates,
    season_length,
    stamps_from,
    step_numbers,
)
from llamacast.forecast import DataError
from tests.conftest import GOLDEN, Golden

CASES = json.loads((GOLDEN / "time_features.json").read_text())["cases"]

# A stamp of each kind, and pandas' name for its frequency.
PANDAS = {
    "100ms": "2024-01-01 00:00:00.500",
    "s": "2024-02-28 23:59:50",
    "15min": "2024-02-28 23:07",
    "h": "2024-02-28 22:00",
    "6h": "2024-02-28 22:00",
    "D": "2024-02-28",
    "2D": "2024-02-28",
    "B": "2024-02-28",
    "W-SUN": "2024-02-25",
    "W-WED": "2024-02-28",
    "2W-MON": "2024-02-26",
    "MS": "2023-11-01",
    "ME": "2023-11-30",
    "2ME": "2023-11-30",
    "BMS": "2023-11-01",
    "BME": "2023-11-30",
    "QS-JAN": "2023-10-01",
    "QS-NOV": "2023-11-01",
    "QE-DEC": "2023-12-31",
    "QE-OCT": "2023-10-31",
    "YS-JAN": "2024-01-01",
    "YS-APR": "2024-04-01",
    "YE-DEC": "2023-12-31",
    "YE-JUN": "2024-06-30",
}


def pandas_stamps(start, name, count):
    return pd.date_range(start, periods=count, freq=name).to_numpy().astype("datetime64[ns]")


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['freq']} {case['start_given']}")
def test_stamps_and_features_are_the_official_ones(case):
    fixture = Golden("time_features").arrays
    number = case["i"]
    expected = fixture[f"start_time_ns_{number}"].astype("datetime64[ns]")
    frequency = placed_like(expected, parse_frequency(case["freq"]))
    stamps = stamps_from(expected[0], frequency, 0, 50)
    np.testing.assert_array_equal(stamps, expected)
    features = calendar_features(stamps, frequency)
    np.testing.assert_allclose(features.T, fixture[f"features_{number}"], atol=1e-6)


@pytest.mark.parametrize("name", PANDAS)
def test_stamps_are_pandas_stamps(name):
    expected = pandas_stamps(PANDAS[name], name, 60)
    frequency = parse_frequency(name)
    np.testing.assert_array_equal(stamps_from(expected[0], frequency, 0, 60), expected)
    np.testing.assert_array_equal(stamps_from(expected[0], frequency, 17, 20), expected[17:37])


@pytest.mark.parametrize("name", PANDAS)
def test_inference_finds_the_frequency_even_with_gaps(name):
    stamps = pandas_stamps(PANDAS[name], name, 60)
    assert infer_frequency(stamps).name == name
    kept = np.delete(stamps, [7, 8, 9, 21, 40])
    assert infer_frequency(kept).name == name


@pytest.mark.parametrize("name", PANDAS)
def test_step_numbers_undo_stamps(name):
    frequency = parse_frequency(name)
    stamps = pandas_stamps(PANDAS[name], name, 40)
    numbers, falls = step_numbers(stamps, np.repeat(stamps[:1], 40), frequency)
    assert falls.all()
    assert numbers.tolist() == list(range(40))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("H", "h"),
        ("T", "min"),
        ("15T", "15min"),
        ("S", "s"),
        ("L", "ms"),
        ("U", "us"),
        ("N", "ns"),
        ("M", "ME"),
        ("3M", "3ME"),
        ("Q", "QE-DEC"),
        ("Q-OCT", "QE-OCT"),
        ("A", "YE-DEC"),
        ("Y", "YE-DEC"),
        ("A-JUN", "YE-JUN"),
        ("AS", "YS-JAN"),
        ("BM", "BME"),
        ("BQ", "BQE-DEC"),
        ("W", "W-SUN"),
        ("d", "D"),
        ("QS-OCT", "QS-OCT"),
    ],
)
def test_old_and_new_names_mean_the_same(old, new):
    assert parse_frequency(old).name == new
    assert parse_frequency(new) == parse_frequency(old)


@pytest.mark.parametrize("name", ["", "x", "0D", "5", "h-MON", "W-JAN", "Q-MON", "D D", "-1D"])
def test_unknown_names_are_refused(name):
    with pytest.raises(DataError, match="frequency"):
        parse_frequency(name)


@given(
    st.integers(1, 31),
    st.sampled_from([1, 2, 3, 6, 12, 24]),
    st.integers(0, 40),
    st.integers(3, 12),
)
def test_a_day_of_the_month_is_kept(day, months, first, count):
    """What is inferred from stamps makes those stamps, and the next ones stand alike."""
    month = np.datetime64("2021-01", "M") + first + months * np.arange(count + 6)
    start, last = month.astype("datetime64[D]"), (month + 1).astype("datetime64[D]") - 1
    stamps = np.minimum(start + day - 1, last).astype("datetime64[ns]")
    frequency = infer_frequency(stamps[:count])
    made = stamps_from(stamps[0], frequency, 0, count + 6)
    np.testing.assert_array_equal(made[:count], stamps[:count])
    # Stamps seen in short months only (28 February) may mean the end of the month.
    seen = stamps[:count].astype("datetime64[D]")
    told_apart = (seen < last[:count]).any() or (seen == seen[0]).all() or day == 31
    if told_apart and (seen - start[:count]).astype(int).max() == day - 1:
        np.testing.assert_array_equal(made[count:], stamps[count:])


def test_time_of_day_is_kept():
    start = np.datetime64("2024-01-01T09:30", "ns")
    for name in ("D", "B", "MS"):
        stamps = stamps_from(start, parse_frequency(name), 0, 5)
        assert (stamps - stamps.astype("datetime64[D]") == np.timedelta64(570, "m")).all()


def test_irregular_stamps_have_no_frequency():
    stamps = np.array(["2024-01-01", "2024-01-02", "2024-01-09", "2024-01-11", "2024-03-01"])
    assert infer_frequency(stamps.astype("datetime64[ns]")) is None
    assert infer_frequency(stamps[:1].astype("datetime64[ns]")) is None


def test_long_series_of_old_dates_are_within_reach():
    """Monthly sunspots since 1749."""
    stamps = stamps_from(np.datetime64("1749-01-01", "ns"), parse_frequency("MS"), 3000, 310)
    assert str(stamps[-1].astype("datetime64[M]")) == "2024-10"


def test_stamps_out_of_reach_are_refused():
    start = np.datetime64("2250-01-01", "ns")
    with pytest.raises(DataError, match="2260"):
        stamps_from(start, parse_frequency("YS"), 0, 20)


@given(st.sampled_from(sorted(PANDAS)), st.integers(0, 500))
def test_features_lie_in_their_range(name, first):
    frequency = parse_frequency(name)
    stamps = stamps_from(np.datetime64(PANDAS[name], "ns"), frequency, first % 100, 20)
    features = calendar_features(stamps, frequency)
    assert features.shape == (20, 6)
    assert (np.abs(features) <= 0.5).all()


@pytest.mark.parametrize(
    ("name", "season"),
    {
        **{"s": 3600, "10s": 360, "15min": 96, "h": 24, "6h": 4, "D": 7, "B": 5, "W": 52},
        **{"MS": 12, "QS": 4, "YS": 1, "7h": 1, "2D": 1, "3MS": 4},
    }.items(),
)
def test_season_length(name, season):
    assert season_length(parse_frequency(name)) == season


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("h", (24, 168)),
        ("15min", (96, 672)),
        ("D", (7, 365)),
        ("B", (5, 261)),
        ("W-SUN", (52, 0)),
        ("MS", (12, 0)),
        ("QS", (4, 0)),
        ("YS", (1, 0)),
        ("s", (60, 3600)),
        ("10s", (6, 360)),
        # A season that steps do not divide is none, whatever seven of them were.
        ("7h", (24, 0)),
        ("5h", (1, 0)),
        ("36h", (1, 0)),
        ("8s", (450, 0)),
    ],
)
def test_season_candidates(name, expected):
    assert season_candidates(parse_frequency(name)) == expected
    assert season_candidates(None) == (0, 0)


@pytest.mark.parametrize(
    ("frequency", "seasons"),
    [("h", (24, 168)), ("15min", (96, 672)), ("D", (7, 365)), ("MS", (12,)), ("YS", (1,))],
)
def test_natural_seasons(frequency, seasons):
    assert natural_seasons(parse_frequency(frequency)) == seasons


def test_without_dates_there_is_no_season():
    assert natural_seasons(None) == ()
