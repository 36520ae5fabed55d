"""Odd but common tables: nothing that means something is dropped, what cannot be meant is refused."""

from __future__ import annotations

import datetime

import numpy as np
import pandas as pd
import pytest

from llamacast.data.frame import read_panel
from llamacast.forecast import DataError

DAYS = pd.date_range("2024-01-01", periods=30, freq="D")
VALUES = np.arange(30.0)


def first_future(data, **arguments):
    panel = read_panel(data, **arguments)
    assert len(panel) == 1
    np.testing.assert_array_equal(panel.values[0], VALUES)
    return panel.axes[0].index(30, 1)[0]


@pytest.mark.parametrize(
    "index",
    [
        DAYS,
        DAYS.date,
        DAYS.astype(str),
        DAYS.strftime("%d.%m.%Y"),
        pd.PeriodIndex(DAYS, freq="D"),
        pd.DatetimeIndex(DAYS, name="when"),
        pd.DatetimeIndex(DAYS, name="y"),
    ],
)
@pytest.mark.parametrize("kind", ["series", "frame"])
def test_dates_in_the_index_are_the_times(index, kind):
    series = pd.Series(VALUES, index)
    data = series if kind == "series" else series.to_frame("sold")
    assert first_future(data) == pd.Timestamp("2024-01-31")


def test_whole_numbers_in_the_index_are_steps_where_there_are_no_times():
    years = pd.Series(VALUES, range(1990, 2020))
    assert first_future(years) == 2020
    filtered = pd.DataFrame({"ds": DAYS, "y": VALUES}, index=range(100, 160, 2))
    assert first_future(filtered) == pd.Timestamp("2024-01-31")


def test_a_year_is_a_time():
    frame = pd.DataFrame({"year": range(1990, 2020), "sales": VALUES})
    assert first_future(frame) == 2020


def test_dates_written_as_numbers_are_dates():
    days = DAYS.strftime("%Y%m%d").astype(int)
    assert first_future(pd.DataFrame({"date": days, "y": VALUES})) == pd.Timestamp("2024-01-31")
    months = pd.date_range("2022-05-01", periods=30, freq="MS").strftime("%Y%m").astype(int)
    assert first_future(pd.DataFrame({"date": months, "y": VALUES})) == pd.Timestamp("2024-11-01")


def test_an_index_that_repeats_a_column_is_welcome():
    frame = pd.DataFrame({"ds": DAYS, "y": VALUES})
    assert first_future(frame.set_index("ds", drop=False)) == pd.Timestamp("2024-01-31")
    other = frame.set_index(pd.DatetimeIndex(DAYS + pd.Timedelta("1D"), name="ds"))
    with pytest.raises(DataError, match="'ds'"):
        read_panel(other)


def test_names_may_be_of_any_type():
    frame = pd.DataFrame({0: DAYS, 1: VALUES})
    assert first_future(frame) == pd.Timestamp("2024-01-31")
    assert first_future(frame, time_column=0, target_column=1) == pd.Timestamp("2024-01-31")
    series = pd.Series(VALUES, DAYS, name=("a", "b"))
    assert first_future(series) == pd.Timestamp("2024-01-31")


def test_arrow_types():
    pa = pytest.importorskip("pyarrow")
    frame = pd.DataFrame(
        {
            "ds": pd.Series(DAYS.date, dtype=pd.ArrowDtype(pa.date32())),
            "y": pd.Series(VALUES, dtype=pd.ArrowDtype(pa.float64())),
        }
    )
    assert first_future(frame) == pd.Timestamp("2024-01-31")


def test_objects_with_missing_values_are_numbers():
    wide = pd.DataFrame({"a": [1, pd.NA, 3], "b": [4, 5, pd.NA]}, index=DAYS[:3], dtype=object)
    panel = read_panel(wide)
    np.testing.assert_array_equal(panel.values[0], [1, np.nan, 3])


def test_masked_values_are_missing():
    masked = np.ma.masked_array([[1.0, 2.0, 9e9, 4.0]], mask=[[0, 0, 1, 0]])
    for data in (masked, masked[0]):
        np.testing.assert_array_equal(read_panel(data).values[0], [1, 2, np.nan, 4])


def test_a_list_of_dated_series_keeps_dates_and_names():
    members = [pd.Series(VALUES, DAYS, name="a"), pd.Series(VALUES, DAYS, name="b")]
    panel = read_panel(members)
    assert list(panel.ids) == ["a", "b"]
    assert panel.axes[1].index(30, 1)[0] == pd.Timestamp("2024-01-31")


# --- Files -----------------------------------------------------------------------------------------


def test_row_numbers_that_pandas_wrote_are_not_a_series(tmp_path):
    path = tmp_path / "rows.csv"
    pd.DataFrame({"ds": DAYS, "sales": VALUES}).to_csv(path)
    assert first_future(path) == pd.Timestamp("2024-01-31")


def test_ids_stay_as_they_are_written(tmp_path):
    path = tmp_path / "ids.csv"
    rows = [f"{name},{day:%Y-%m-%d},{n}" for name in ("001", "NA") for n, day in enumerate(DAYS)]
    path.write_text("\n".join(["item_id,timestamp,target", *rows]))
    assert list(read_panel(path).ids) == ["001", "NA"]
    path.write_text("\n".join(["shop,timestamp,target", *rows]))
    assert list(read_panel(path, id_column="shop").ids) == ["001", "NA"]
    path.write_text("\n".join(["item_id,timestamp,target", ",2024-01-01,3"]))
    with pytest.raises(DataError, match=r"'item_id'.*row 0"):
        read_panel(path)


def test_semicolons_and_decimal_commas(tmp_path):
    path = tmp_path / "continental.csv"
    rows = [f"{day:%d.%m.%Y};{n},0" for n, day in enumerate(DAYS)]
    path.write_text("\n".join(["Tag;Umsatz", *rows]))
    assert first_future(path) == pd.Timestamp("2024-01-31")


def test_rows_longer_than_the_header_are_refused(tmp_path):
    path = tmp_path / "ragged.csv"
    path.write_text("ds,y\n2024-01-01,1,5\n2024-01-02,1,6\n")
    with pytest.raises(DataError, match=r"ragged\.csv"):
        read_panel(path)


def test_one_offset_is_kept():
    texts = [f"{day:%Y-%m-%d}T00:00:00+02:00" for day in DAYS]
    future = first_future(pd.DataFrame({"ds": texts, "y": VALUES}))
    assert future.isoformat() == "2024-01-31T00:00:00+02:00"


def test_ids_are_not_taken_for_dates():
    frame = pd.DataFrame(
        {
            "store": np.repeat(["M1", "10-20"], 30),
            "week": [*DAYS, *DAYS],
            "sold": [*VALUES, *VALUES],
        }
    )
    panel = read_panel(frame.assign(week=frame.week.astype(str)))
    assert list(panel.ids) == ["M1", "10-20"]


REFUSED = {
    "levels": (
        pd.DataFrame([[1.0, 2.0]], columns=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)])),
        "level",
    ),
    "durations": (pd.Series([1.0, 2.0], pd.to_timedelta([1, 2], unit="h")), "durations"),
    "duration targets": (
        pd.DataFrame({"ds": DAYS[:2], "y": pd.to_timedelta([1, 2], unit="h")}),
        "'y'",
    ),
    "times of day": (
        pd.DataFrame({"time": [datetime.time(12), datetime.time(13)], "y": [1, 2]}),
        "'time'.*date",
    ),
    "overflow": (pd.DataFrame({"ds": DAYS[:2], "y": [1e308, 1.0]}), "'y'.*row 0.*unit"),
    "nested lists": ([[[1, 2], [3]]], "series 0"),
    "three levels": (
        pd.DataFrame({"y": [1.0]}, index=pd.MultiIndex.from_tuples([(1, 2, 3)])),
        "3 levels",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_meant_is_refused(name):
    data, message = REFUSED[name]
    with pytest.raises(DataError, match=message):
        read_panel(data)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"frequency": pd.offsets.Day()}, "frequency"),
        ({"frequency": "99999999999D"}, "frequency"),
        ({"target_column": ["y"]}, "target_column"),
        ({"id_column": ["y"]}, "id_column"),
    ],
)
def test_arguments_of_odd_types_are_refused(arguments, message):
    with pytest.raises(DataError, match=message):
        read_panel(pd.DataFrame({"ds": DAYS, "y": VALUES}), **arguments)
