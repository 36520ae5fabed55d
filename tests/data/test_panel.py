from __future__ import annotations

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
