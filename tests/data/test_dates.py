"""Every common spelling of a date is read, the same way in all rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from llamacast.data.dates import dates_in_numbers, looks_like_dates, named_like_dates, read_dates

DAYS = pd.date_range("2024-01-01", periods=200)
MONTHS = pd.date_range("2015-01-01", periods=40, freq="MS")
WEEKS = pd.date_range("2021-12-27", periods=80, freq="W-MON")
HOURS = pd.date_range("2024-01-31 20:00", periods=60, freq="h")

SPELLINGS = {
    **dict.fromkeys(
        ("%d.%m.%y", "%d/%m/%y", "%d-%m-%y", "%m/%d/%y", "%m-%d-%y", "%y-%m-%d", "%y/%m/%d"), DAYS
    ),
    **dict.fromkeys(
        ("%d.%m.%Y", "%d/%m/%Y", "%m-%d-%Y", "%Y.%m.%d", "%Y/%m/%d", "%Y%m%d", "%Y-%m-%d"), DAYS
    ),
    **dict.fromkeys(
        ("%b %d, %Y", "%d %B %Y", "%d-%b-%Y", "%d %b %y", "%Y-%b-%d", "%d%b%Y", "%B %d %Y"), DAYS
    ),
    **dict.fromkeys(("%a %d.%m.%Y", "%A, %d/%m/%Y", "%a, %d %b %Y"), DAYS),
    **dict.fromkeys(
        ("%b %Y", "%B %Y", "%b-%y", "%b '%y", "%m/%Y", "%m.%Y", "%Y/%m", "%Y-%m"), MONTHS
    ),
    **dict.fromkeys(("%G-W%V", "%GW%V", "%G-W%V-%u", "W%V %G", "KW %V/%G"), WEEKS),
    **dict.fromkeys(
        ("%d.%m.%Y %H:%M", "%d/%m/%y %H:%M:%S", "%m/%d/%Y %I:%M %p", "%d.%m.%Y %H:%M Uhr"), HOURS
    ),
    **dict.fromkeys(("%Y-%m-%dT%H:%M:%S", "%d %b %Y %H:%M:%S.000", "%y-%m-%d %H:%M"), HOURS),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_what_is_written_is_read_in_every_order_of_rows(spelling):
    stamps = SPELLINGS[spelling]
    texts = pd.Series(stamps.strftime(spelling))
    assert looks_like_dates(texts)
    np.testing.assert_array_equal(read_dates(texts), stamps)
    np.testing.assert_array_equal(read_dates(texts[::-1]), stamps[::-1])


def test_an_order_that_fits_every_row_is_chosen_by_the_steps_it_makes():
    months = pd.date_range("2022-01-01", periods=30, freq="MS")
    np.testing.assert_array_equal(read_dates(pd.Series(months.strftime("%d/%m/%Y"))), months)
    few = pd.date_range("2024-01-01", periods=31)
    np.testing.assert_array_equal(read_dates(pd.Series(few.strftime("%y-%m-%d"))), few)
    np.testing.assert_array_equal(read_dates(pd.Series(few.strftime("%d-%m-%y"))), few)


def test_where_the_steps_do_not_tell_months_come_first_but_for_dots():
    assert read_dates(pd.Series(["01/02/2024"])).iloc[0] == pd.Timestamp("2024-01-02")
    assert read_dates(pd.Series(["01.02.2024"])).iloc[0] == pd.Timestamp("2024-02-01")
    assert read_dates(pd.Series(["01.02.24"])).iloc[0] == pd.Timestamp("2024-02-01")


def test_no_row_is_read_in_another_order_than_the_others():
    for texts in (["31/01/2024", "01/31/2024"], ["01.13.2024", "13.01.2024", "14.01.2024"]):
        assert read_dates(pd.Series(texts)).isna().sum() == 1


def test_quarters_and_german_months():
    quarters = pd.date_range("2023-01-01", periods=4, freq="QS")
    for texts in (["2023Q1", "2023Q2", "2023Q3", "2023Q4"], ["Q1 2023", "Q2-2023", "Q3/2023"]):
        np.testing.assert_array_equal(read_dates(pd.Series(texts)), quarters[: len(texts)])
    german = pd.Series(["Januar 2024", "Februar 2024", "März 2024"])
    np.testing.assert_array_equal(read_dates(german), pd.date_range("2024", periods=3, freq="MS"))


def test_offsets_are_kept_and_those_that_differ_told_in_utc():
    one = read_dates(pd.Series(["31.01.2024 10:00 +02:00", "31.01.2024 11:00 +02:00"]))
    assert one.iloc[0].isoformat() == "2024-01-31T10:00:00+02:00"
    two = read_dates(pd.Series(["31.01.2024 10:00+02:00", "31.01.2024 11:00+03:00"]))
    assert two.iloc[0] == two.iloc[1] == pd.Timestamp("2024-01-31 08:00", tz="UTC")


@pytest.mark.parametrize(
    "texts",
    [
        ["Jan 1", "Jan 2"],  # a day, or a year
        ["north", "south"],
        ["May", "June"],
        ["10-20", "M1"],
        ["1.2.3", "1.2.4"],
        ["001", "002"],
        ["1/2", "3/4"],
        ["1234.10", "1500.05"],
        ["12:00", "13:00"],
        ["Marketing 2024", "Sales 2024"],
        [],
    ],
)
def test_other_texts_are_no_dates(texts):
    assert not looks_like_dates(pd.Series(texts, dtype=object))


def test_numbers_are_dates_where_they_or_their_name_say_so():
    months = MONTHS.strftime("%Y%m").astype(int)
    np.testing.assert_array_equal(dates_in_numbers(months, "ds"), MONTHS)
    np.testing.assert_array_equal(dates_in_numbers(months[:12], "Year-Month"), MONTHS[:12])
    assert dates_in_numbers(months[:12], "ds") is None  # may be counted
    np.testing.assert_array_equal(dates_in_numbers(months[:12], "Date"), MONTHS[:12])
    quarters = months[2::3]
    np.testing.assert_array_equal(dates_in_numbers(quarters, "ds"), MONTHS[2::3])
    assert dates_in_numbers(np.arange(202300, 202420), "date") is None
    weeks = WEEKS.strftime("%G%V").astype(int)
    np.testing.assert_array_equal(dates_in_numbers(weeks, "week"), WEEKS)
    days = DAYS.strftime("%Y%m%d").astype(int)
    np.testing.assert_array_equal(dates_in_numbers(days, "number"), DAYS)
    fractions = MONTHS.strftime("%m.%Y").astype(float)
    np.testing.assert_array_equal(dates_in_numbers(fractions, "month"), MONTHS)
    assert dates_in_numbers(fractions, "y") is None
    assert dates_in_numbers(np.array([202413, 202414]), "month") is None


def test_only_names_of_times_make_numbers_times():
    months = pd.Series(MONTHS.strftime("%Y%m").astype(int))
    assert named_like_dates(months, "Month")
    assert not named_like_dates(months, "sold")
    assert not named_like_dates(months % 100, "Month")


def test_a_text_that_is_no_date_stays_one_whatever_is_in_it():
    found = read_dates(pd.Series(["31.01.2024", "01.02.2024\nlate", "", "02.02.2024"]))
    assert found.isna().tolist() == [False, True, True, False]
