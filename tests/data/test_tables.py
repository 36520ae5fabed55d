"""Odd but common tables: nothing that means something is dropped, what cannot be meant is refused."""

from __future__ import annotations

import datetime

import numpy as np
import pandas as pd
import pytest

from llamacast.data.frame import read_panel
from llamacast.data.tables import read_csv_text
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


def columns_of(path, *columns):
    """A file with semicolons, with these columns beside days; the values that are read."""
    rows = [
        f"{day:%d.%m.%Y};" + ";".join(column[n % len(column)] for column in columns)
        for n, day in enumerate(DAYS)
    ]
    names = ";".join(f"c{n}" for n in range(len(columns)))
    path.write_text("\n".join([f"Tag;{names}", *rows]))
    return [
        values[: len(column)].tolist()
        for values, column in zip(read_panel(path).values, columns, strict=True)
    ]


@pytest.mark.parametrize(
    ("columns", "meant"),
    [
        ([["900", "1.134"]], [[900, 1134]]),
        ([["-1.134", "2", "-"]], [[-1134, 2, np.nan]]),
        ([["1.134.000", "1.134"]], [[1134000, 1134]]),
        ([["1.221,24", "2,5", "3"]], [[1221.24, 2.5, 3]]),
        ([["9,00", "9,50"], ["1.134", "2.268"]], [[9, 9.5], [1134, 2268]]),
        ([["9,00", "9,50"], ["1.134", "2268"]], [[9, 9.5], [1134, 2268]]),
        ([["0.125", "1.134"]], [[0.125, 1.134]]),
        ([["12.5", "13", "1.134"]], [[12.5, 13, 1.134]]),
        ([["12.5", "13"], ["1.134", "2.268"]], [[12.5, 13], [1.134, 2.268]]),
        ([["1e3", "1.134"]], [[1000, 1.134]]),
    ],
)
def test_dots_that_group_thousands_are_no_decimal_points(tmp_path, columns, meant):
    np.testing.assert_array_equal(columns_of(tmp_path / "a.csv", *columns), meant)


@pytest.mark.parametrize("column", [["1.134", "2.268"], ["1134", "1.134"]])
def test_dots_that_may_be_either_are_refused(tmp_path, column):
    with pytest.raises(DataError, match=r"a\.csv: column 'c0': row \d holds '1\.134'.*thousands"):
        columns_of(tmp_path / "a.csv", column)


def test_encodings_are_told_by_their_first_bytes_or_refused(tmp_path):
    path = tmp_path / "a.csv"
    text = "\n".join(["Tag;Menge (Stück)", *(f"{day:%d.%m.%y};{n}" for n, day in enumerate(DAYS))])
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_text(text, encoding=encoding)
        assert first_future(path) == pd.Timestamp("2024-01-31")
    path.write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=r"a\.csv.*save it as UTF-8"):
        read_panel(path)


def test_an_index_of_any_whole_numbers_that_pandas_wrote_is_no_series(tmp_path):
    path = tmp_path / "rows.csv"
    frame = pd.DataFrame({"when": DAYS, "sales": VALUES})
    for part in (frame.sample(frac=1, random_state=0), frame.set_axis(range(7, 67, 2))):
        part.to_csv(path)
        assert first_future(path) == pd.Timestamp("2024-01-31")
    pd.DataFrame({"sales": VALUES}, index=range(1990, 2020)).to_csv(path)
    assert first_future(path) == 2020


def test_rows_longer_than_the_header_are_refused(tmp_path):
    path = tmp_path / "ragged.csv"
    path.write_text("ds,y\n2024-01-01,1,5\n2024-01-02,1,6\n")
    with pytest.raises(DataError, match=r"ragged\.csv: rows have more cells .* a title"):
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


# --- As people have them ---------------------------------------------------------------------------


def csv(*lines):
    return read_csv_text("\n".join(lines) + "\n", None)


def test_row_numbers_that_a_csv_brings_back_are_no_series():
    frame = pd.DataFrame({"Unnamed: 0": np.arange(30), "date": DAYS.astype(str), "sold": VALUES})
    assert first_future(frame) == pd.Timestamp("2024-01-31")


@pytest.mark.parametrize("odd", ["closed", "?", "#DIV/0!"])
def test_a_cell_that_cannot_be_read_is_named_and_no_other_column_taken(odd):
    sold = [str(value) if n != 17 else odd for n, value in enumerate(VALUES)]
    frame = pd.DataFrame({"date": DAYS, "warmth": VALUES, "sold": sold})
    with pytest.raises(DataError, match="'sold': row 17 holds"):
        read_panel(frame)
    assert first_future(frame, target_column="warmth") == pd.Timestamp("2024-01-31")
    wide = pd.DataFrame({f"shop {n}": VALUES for n in range(40)}).assign(date=DAYS, last=sold)
    with pytest.raises(DataError, match="'last': row 17 holds"):
        read_panel(wide)


def test_a_whole_date_goes_before_a_year():
    weeks = pd.date_range("2022-01-03", periods=30, freq="7D")
    for dates in (weeks, weeks.astype(str)):
        frame = pd.DataFrame({"week_start": dates, "year": weeks.year, "sales": VALUES})
        assert first_future(frame, target_column="sales") == weeks[-1] + pd.Timedelta("7D")


@pytest.mark.parametrize("data", [np.ones((50, 1)), [[1.0], [2.0], [3.0]], [(1,), (2,)]])
def test_a_column_is_not_many_series_of_one_value(data):
    with pytest.raises(DataError, match=r"series of one value each.*array\[:, 0\]"):
        read_panel(data)


def test_frames_of_polars_are_read():
    polars = pytest.importorskip("polars")
    assert first_future(polars.DataFrame({"ds": DAYS.to_numpy(), "y": VALUES})) == DAYS[
        -1
    ] + pd.Timedelta("1D")


def test_tables_of_arrow_are_read():
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({"ds": DAYS.to_numpy(), "y": VALUES})
    assert first_future(table) == pd.Timestamp("2024-01-31")


def test_codes_keep_the_zeros_that_they_begin_with(tmp_path):
    lines = [
        "store,date,sales",
        *(f"{s},{d.date()},{n}" for s in ("001", "012") for n, d in enumerate(DAYS)),
    ]
    for name, mark in (("a.csv", ","), ("b.csv", ";"), ("c.tsv", "\t")):
        (tmp_path / name).write_text("\n".join(line.replace(",", mark) for line in lines))
        assert list(read_panel(tmp_path / name).ids) == ["001", "012"]


def test_what_sheets_leave_at_their_edges_is_no_data():
    lines = ["Tag;Umsatz;", *(f"{d:%d.%m.%Y};{n};" for n, d in enumerate(DAYS)), ";;", ";;"]
    assert first_future(csv(*lines)) == pd.Timestamp("2024-01-31")
    assert first_future(csv("sep=;", *lines)) == pd.Timestamp("2024-01-31")


@pytest.mark.parametrize(
    ("spelled", "expected"),
    [
        (DAYS.strftime("%Y-%m-%d 10:00:00 UTC"), pd.Timestamp("2024-01-31 10:00", tz="UTC")),
        (DAYS.strftime("%m/%d/%Y, 10:00:00 AM"), pd.Timestamp("2024-01-31 10:00")),
        (DAYS.strftime("%Y%m%d06"), pd.Timestamp("2024-01-31 06:00")),
        (pd.date_range("2022-05-01", periods=30, freq="MS").strftime("%YM%m"), pd.Timestamp("2024-11-01")),
        (pd.date_range("1949-01-01", periods=30, freq="MS").strftime("%b-%y"), pd.Timestamp("1951-07-01")),
        (pd.date_range("1963-01-31", periods=30, freq="D").strftime("%d %b %y"), pd.Timestamp("1963-03-02")),
    ],
)  # fmt: skip
def test_times_as_they_are_written(spelled, expected):
    assert first_future(pd.DataFrame({"date": spelled, "y": VALUES})) == expected


def test_numbers_and_texts_that_spell_times_are_times():
    hours = pd.date_range("2023-12-31", periods=30, freq="h").strftime("%Y%m%d%H").astype(int)
    frame = pd.DataFrame({"timestamp": hours, "load": VALUES})
    assert first_future(frame) == pd.Timestamp("2024-01-01 06:00")
    weeks = pd.date_range("2023-10-02", periods=30, freq="7D").strftime("%G%V").astype(int)
    frame = pd.DataFrame({"date": weeks, "y": VALUES})
    assert first_future(frame) == pd.Timestamp("2024-04-29")
    months = pd.date_range("2022-05-01", periods=30, freq="MS").strftime("%Y%m")
    frame = pd.DataFrame({"month": months, "sales": VALUES})
    assert first_future(frame) == pd.Timestamp("2024-11-01")


@pytest.mark.parametrize(("name", "unit"), [("timestamp", "s"), ("ts", "ms"), ("time", "ns")])
def test_seconds_since_1970_are_times(name, unit):
    hours = pd.date_range("2024-01-01", periods=30, freq="h", unit=unit).to_numpy().astype(np.int64)
    assert first_future(pd.DataFrame({name: hours, "load": VALUES})) == pd.Timestamp(
        "2024-01-02 06:00"
    )
    small = pd.DataFrame({"ds": np.arange(1000, 1030), "load": VALUES})
    assert first_future(small) == 1030


def test_days_that_a_sheet_counts_are_dates():
    months = (pd.date_range("2019-01-01", periods=30, freq="MS") - pd.Timestamp("1899-12-30")).days
    assert first_future(pd.DataFrame({"Date": months, "Sales": VALUES})) == pd.Timestamp(
        "2021-07-01"
    )
    hours = 45292 + np.arange(30) / 24
    assert first_future(pd.DataFrame({"Datum": hours, "y": VALUES})) == pd.Timestamp(
        "2024-01-02 06:00"
    )


@pytest.mark.parametrize("shops", [1, 2])
def test_ten_days_are_days_whichever_comes_first(shops):
    days = pd.date_range("2024-03-01", periods=12)
    for spelling in ("%d/%m/%Y", "%Y-%m-%d"):
        frame = pd.DataFrame({"Date": days.strftime(spelling), "Sales": np.arange(12.0)})
        several = pd.concat([frame.assign(shop=f"shop {n}") for n in range(shops)])
        panel = read_panel(several, id_column="shop")
        assert panel.axes[0].index(12, 1)[0] == pd.Timestamp("2024-03-13")


@pytest.mark.parametrize("name", ["index", "instant"])
def test_counts_of_rows_are_no_series(name):
    frame = pd.DataFrame({name: np.arange(30), "date": DAYS, "sales": VALUES})
    assert first_future(frame) == pd.Timestamp("2024-01-31")


def test_an_array_that_lies_on_its_side_is_refused():
    with pytest.raises(DataError, match=r"120 of 2 values each.*array\.T"):
        read_panel(np.ones((120, 2)))
    assert len(read_panel(np.ones((2, 120)))) == 2


@pytest.mark.parametrize("cell", ["$1,506.29", "1,506", "15.1%"])
def test_numbers_that_are_written_for_people_are_told_so(cell):
    frame = pd.DataFrame({"date": DAYS, "sold": [cell] * 30})
    with pytest.raises(DataError, match="write numbers plainly"):
        read_panel(frame)


def test_whole_numbers_that_are_called_as_times_are_steps_in_their_order():
    frame = pd.DataFrame({"Period": np.arange(30)[::-1] + 1, "Demand": VALUES[::-1]})
    assert first_future(frame) == 31
    series = pd.Series(VALUES, pd.Index(np.arange(1, 31), name="week"), name="sales")
    assert first_future(series) == 31


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: pd.DataFrame(
                {
                    "Date": np.repeat(DAYS[:5], 24),
                    "Hour_Ending": np.tile(np.arange(1, 25), 5),
                    "Load": np.arange(120.0),
                }
            ),
            "'Hour_Ending' tells a part of the time",
        ),
        (
            lambda: pd.DataFrame(
                {
                    "SETTLEMENT_DATE": np.repeat(DAYS[:5].astype(str), 48),
                    "SETTLEMENT_PERIOD": np.tile(np.arange(1, 49), 5),
                    "ND": np.arange(240.0),
                }
            ),
            "'SETTLEMENT_PERIOD' tells a part of the time",
        ),
        (
            lambda: pd.DataFrame(
                {"Year": range(1990, 2010)}
                | {f"{month:%b}": np.arange(20.0) for month in pd.date_range("2024", periods=12, freq="MS")}
            ),
            "named by months",
        ),
        (
            lambda: pd.Series(VALUES, [f"week {n}" for n in range(30)], name="cpi"),
            "the index .'week 0'",
        ),
    ],
)  # fmt: skip
def test_what_would_be_laid_out_wrongly_is_refused(build, message):
    with pytest.raises(DataError, match=message):
        read_panel(build())


def test_names_and_times_may_stand_in_the_index_in_either_order():
    frame = pd.DataFrame({"unique_id": "a", "ds": DAYS, "y": VALUES})
    assert first_future(frame.set_index("unique_id")) == pd.Timestamp("2024-01-31")
    long = pd.DataFrame({"ds": DAYS, "a": VALUES, "b": VALUES}).set_index("ds").stack()
    panel = read_panel(long.rename_axis([None, None]))
    assert list(panel.ids) == ["a", "b"]
    assert panel.axes[0].index(30, 1)[0] == pd.Timestamp("2024-01-31")
