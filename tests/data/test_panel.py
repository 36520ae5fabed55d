from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from llamacast.data.frame import read_panel
from llamacast.forecast import DataError


def daily(*parts):
    days = pd.DatetimeIndex(np.concatenate([part.to_numpy() for part in parts]))
    return pd.DataFrame({"ds": days, "y": np.arange(float(len(days)))})


def test_a_row_that_a_wrong_year_has_put_far_apart_is_named():
    days = pd.date_range("2024-01-01", periods=40)
    before, after = pd.DatetimeIndex(["1954-01-01"]), pd.DatetimeIndex(["2204-01-01"])
    with pytest.raises(DataError, match=r"'y' has 41 rows.*1954-01-01.*before 2024-01-01"):
        read_panel(daily(before, days))
    with pytest.raises(DataError, match=r"'y' has 42 rows.*2204-01-01.*after 2024-02-09"):
        read_panel(daily(before, days, after))
    with pytest.raises(DataError, match=r"lies 99960 steps after 39"):
        read_panel(pd.DataFrame({"ds": [*range(40), 99999], "y": 1.0}))


def test_rows_that_are_few_and_scattered_are_laid_out():
    rare = daily(pd.date_range("2000-01-01", periods=60, freq="97D"))
    assert len(read_panel(rare, frequency="D").values[0]) == 59 * 97 + 1
    parts = pd.date_range("2014-01-01", periods=400), pd.date_range("2020-01-01", periods=400)
    assert np.isnan(read_panel(daily(*parts)).values[0]).sum() == 2191 - 400
    short = daily(pd.date_range("2024-01-01", periods=20), pd.DatetimeIndex(["2026-01-01"]))
    assert len(read_panel(short).values[0]) == 732


def test_the_last_stamp_is_told_though_some_series_have_a_zone():
    days = pd.date_range("2024-01-01", periods=9)
    early, late = (pd.Series(np.arange(9.0), index) for index in (days, days + pd.Timedelta("3D")))
    one, other = read_panel(early.tz_localize("Asia/Tokyo")), read_panel(late)
    both = dataclasses.replace(
        one, ids=["a", "b"], values=[*one.values, *other.values], axes=[*one.axes, *other.axes]
    )
    assert both.last_stamp() == "2024-01-12T00:00:00"
    assert one.last_stamp() == "2024-01-09T00:00:00+09:00"
    assert read_panel(np.arange(5.0)).last_stamp() == ""
