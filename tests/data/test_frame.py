"""The border: every common table is understood, every bad one refused with one clear line."""

from __future__ import annotations

import decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamacast.data.calendar import parse_frequency
from llamacast.data.frame import read_panel
from llamacast.data.tables import read_csv_text
from llamacast.forecast import DataError

HOURS = pd.date_range("2024-01-01", periods=48, freq="h")


@pytest.fixture
def long():
    return pd.DataFrame(
        {
            "unique_id": np.repeat(["a", "b"], 48),
            "ds": [*HOURS, *HOURS],
            "y": np.arange(96.0),
        }
    )


def same(panel, other):
    assert list(panel.ids) == list(other.ids)
    assert list(panel.axes) == list(other.axes)
    for one, two in zip(panel.values, other.values, strict=True):
        np.testing.assert_array_equal(one, two)


# --- Shapes ----------------------------------------------------------------------------------------


def test_long_frames_of_any_names_and_order(long):
    panel = read_panel(long)
    assert list(panel.ids) == ["a", "b"]
    np.testing.assert_array_equal(panel.values[1], np.arange(48.0, 96.0))
    same(read_panel(long.sample(frac=1, random_state=0).sort_values("unique_id")), panel)
    same(
        read_panel(long.rename(columns={"unique_id": "item_id", "ds": "timestamp", "y": "target"})),
        panel,
    )
    odd = long.set_axis(["who", "when", "what"], axis=1).assign(other="text", more=1.0)
    same(read_panel(odd, id_column="who", time_column="when", target_column="what"), panel)
    unusual = long.set_axis(["who", "when", "what"], axis=1)
    same(read_panel(unusual), panel)  # one text column, one of dates, one of numbers
    same(read_panel(long.set_index(["unique_id", "ds"])), panel)
    same(read_panel(long.astype({"unique_id": "category", "y": "Float64"})), panel)
    same(read_panel(long.assign(ds=long.ds.astype(str))), panel)
    same(read_panel(long.assign(ds=long.ds.dt.strftime("%d.%m.%Y %H:%M"))), panel)
    same(read_panel(long.assign(ds=pd.PeriodIndex(long.ds, freq="h"))), panel)


def test_files(long, tmp_path):
    panel = read_panel(long)
    long.to_csv(tmp_path / "long.csv", index=False)
    long.to_csv(tmp_path / "long.csv.gz", index=False)
    long.to_parquet(tmp_path / "long.parquet")
    for name in ("long.csv", "long.csv.gz", "long.parquet"):
        same(read_panel(tmp_path / name), panel)
        same(read_panel(str(tmp_path / name)), panel)


def test_wide_frames(long):
    panel = read_panel(long)
    wide = long.pivot(index="ds", columns="unique_id", values="y")
    same(read_panel(wide), panel)
    same(read_panel(wide.reset_index()), panel)
    assert (panel.columns.id, panel.columns.time) == ("unique_id", "ds")


def test_one_series_needs_no_id(long):
    one = long[long.unique_id == "a"].drop(columns="unique_id")
    for data in (one, one.set_index("ds"), one.set_index("ds")["y"]):
        panel = read_panel(data)
        assert panel.columns.id is None
        np.testing.assert_array_equal(panel.values[0], np.arange(48.0))
        assert panel.axes[0].index(48, 1)[0] == pd.Timestamp("2024-01-03")


@pytest.mark.parametrize(
    "data", [[1, 2, 3], (1.0, 2.0, 3.0), np.array([1, 2, 3]), pd.Series([1, 2, 3])]
)
def test_numbers_alone_are_steps(data):
    panel = read_panel(data)
    np.testing.assert_array_equal(panel.values[0], [1, 2, 3])
    assert panel.axes[0].index(3, 2).tolist() == [3, 4]


def test_several_arrays():
    assert read_panel([[1, 2, 3], [4.0, np.nan]]).values[0].tolist() == [1, 2, 3]
    assert len(read_panel(np.ones((4, 9)))) == 4


def test_series_of_one_name_in_a_list_are_several():
    parts = [pd.Series(np.arange(5.0), name="y"), pd.Series(np.arange(7.0), name="y")]
    assert [len(one) for one in read_panel(parts).values] == [5, 7]
    assert list(read_panel([parts[0], parts[1].rename("z")]).ids) == ["y", "z"]
    # Those without a name take none from the others.
    assert list(read_panel([parts[0], np.ones(3), np.ones(4)]).ids) == ["y", 1, 2]


def test_rows_without_times_are_counted_within_their_series():
    mixed = pd.DataFrame({"unique_id": list("AABABABBAA"), "y": np.arange(10.0)})
    panel = read_panel(mixed)
    np.testing.assert_array_equal(panel.values[0], [0, 1, 3, 5, 8, 9])
    np.testing.assert_array_equal(panel.values[1], [2, 4, 6, 7])
    same(read_panel(mixed.sort_values("unique_id", kind="stable")), panel)


def test_whole_number_steps_keep_their_distance():
    panel = read_panel(pd.DataFrame({"ds": [1990, 2000, 1995, 2010], "y": [1, 3, 2, 5]}))
    np.testing.assert_array_equal(panel.values[0], [1, 2, 3, np.nan, 5])
    assert panel.axes[0].index(5, 2).tolist() == [2015, 2020]
    assert not panel.axes[0].features(0, 3).any()


# --- Time ------------------------------------------------------------------------------------------


def test_gaps_become_missing(long):
    one = long[long.unique_id == "a"].drop(columns="unique_id")
    panel = read_panel(one.drop(index=[5, 6]))
    assert np.flatnonzero(np.isnan(panel.values[0])).tolist() == [5, 6]
    assert len(panel.values[0]) == 48


@given(st.permutations(range(12)))
def test_order_of_rows_does_not_matter(order):
    frame = pd.DataFrame({"ds": HOURS[:12], "y": np.arange(12.0)})
    same(read_panel(frame.iloc[list(order)]), read_panel(frame))


def test_clock_changes_in_a_zone():
    stamps = pd.date_range("2024-03-30", periods=72, freq="h", tz="Europe/Berlin")
    panel = read_panel(pd.DataFrame({"ds": stamps, "y": np.arange(72.0)}))
    assert not np.isnan(panel.values[0]).any()
    future = panel.axes[0].index(72, 3)
    assert str(future.tz) == "Europe/Berlin"
    assert future[0] == stamps[-1] + pd.Timedelta("1h")
    hours = (panel.axes[0].features(0, 72)[:, 2] + 0.5) * 23
    np.testing.assert_allclose(hours, stamps.hour, atol=1e-4)  # the clock on the wall


def test_days_in_a_zone_are_days_on_the_wall():
    stamps = pd.date_range("2024-03-25", periods=5, freq="D", tz="Europe/Berlin")
    future = read_panel(pd.Series(np.arange(5.0), stamps)).axes[0].index(5, 4)
    assert (future.hour == 0).all()
    assert future[-1] == pd.Timestamp("2024-04-02", tz="Europe/Berlin")


def test_offsets_that_differ_are_told_in_utc():
    stamps = pd.date_range("2024-03-30", periods=48, freq="h", tz="Europe/Berlin")
    texts = [stamp.isoformat() for stamp in stamps]
    panel = read_panel(pd.DataFrame({"ds": texts, "y": np.arange(48.0)}))
    assert panel.axes[0].index(48, 1)[0] == stamps[-1] + pd.Timedelta("1h")


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_stamps_of_arrow_are_as_those_of_pandas(zone):
    pa = pytest.importorskip("pyarrow")
    stamps = pd.Series(pd.date_range("2024-03-01", periods=40, freq="D", tz=zone))
    frame = pd.DataFrame({"ds": stamps, "y": np.arange(40.0)})
    of_arrow = stamps.astype(pd.ArrowDtype(pa.timestamp("us", tz=zone)))
    same(read_panel(frame.assign(ds=of_arrow)), read_panel(frame))


def test_days_of_series_that_are_read_at_different_hours_are_days():
    parts = [
        pd.DataFrame(
            {
                "unique_id": name,
                "ds": pd.date_range(start, periods=40, freq="D", tz="Europe/Berlin"),
                "y": np.arange(40.0),
            }
        )
        for name, start in (("a", "2024-03-10"), ("b", "2024-03-10 12:00"))
    ]
    together = read_panel(pd.concat(parts))
    for number, part in enumerate(parts):
        assert together.axes[number] == read_panel(part).axes[0]


def test_months_keep_to_the_day_of_their_series():
    days = {"a": 15, "b": 20, "c": 1, "d": 31}
    first = pd.date_range("2023-01-01", periods=14, freq="MS")
    parts = [
        pd.DataFrame(
            {
                "unique_id": name,
                "ds": [one + pd.Timedelta(min(day, one.days_in_month) - 1, "D") for one in first],
                "y": np.arange(14.0),
            }
        )
        for name, day in days.items()
    ]
    for some in (parts, parts[::-1], parts[1:3]):
        together = read_panel(pd.concat(some))
        for axis, part in zip(together.axes, some, strict=True):
            alone = read_panel(part).axes[0]
            assert axis.index(0, 14).tolist() == part.ds.tolist()
            assert axis.index(14, 3).tolist() == alone.index(14, 3).tolist()
    assert not together.steps_behind().any()


def test_series_may_be_named_by_dates():
    born = pd.to_datetime(["2022-01-01", "2023-01-01"])
    frame = pd.DataFrame(
        {
            "cohort": np.repeat(born, 48),
            "ds": [*HOURS, *HOURS],
            "y": np.arange(96.0),
            "club": np.repeat(["x", "y"], 48),
        }
    )
    panel = read_panel(frame, id_column="cohort", group_column="club")
    assert list(panel.ids) == list(born)
    assert panel.groups == ["x", "y"]


def test_series_may_start_at_different_times(long):
    later = long[(long.unique_id == "a") | (long.ds >= HOURS[20])]
    panel = read_panel(later)
    assert [len(values) for values in panel.values] == [48, 28]


def test_business_days_give_way_to_days_where_a_series_has_weekends():
    business = pd.date_range("2024-01-01", periods=40, freq="B")
    daily = pd.date_range("2024-01-01", periods=20, freq="D")
    frame = pd.DataFrame(
        {"unique_id": ["a"] * 40 + ["b"] * 20, "ds": [*business, *daily], "y": np.arange(60.0)}
    )
    panel = read_panel(frame)
    assert panel.axes[0].frequency.name == "D"
    assert np.isnan(panel.values[0]).sum() == 14
    assert read_panel(frame[frame.unique_id == "a"]).axes[0].frequency.name == "B"


def test_a_given_frequency_counts_in_any_spelling(long):
    for name in ("h", "H", "1h", "60min"):
        same_length = read_panel(long, frequency=name)
        assert len(same_length.values[0]) == 48
    single = pd.DataFrame({"ds": ["2024-01-31"], "y": [1.0]})
    axis = read_panel(single, frequency="M").axes[0]
    assert axis.index(1, 2).astype(str).tolist() == ["2024-02-29", "2024-03-31"]


def told(frame, tmp_path, **arguments):
    """The panel of a table, once it has been written to a file and read."""
    frame.to_csv(tmp_path / "table.csv", index=False)
    return read_panel(tmp_path / "table.csv", **arguments)


def test_months_of_any_spelling_are_times_and_tell_series_apart(tmp_path):
    months = pd.date_range("2015-01-01", periods=30, freq="MS")
    both = pd.DataFrame({"month": [*months, *months], "sales": np.arange(60.0), "shop": "a"})
    both.loc[30:, "shop"] = "b"
    panel = read_panel(both)
    assert list(panel.ids) == ["a", "b"]
    for spelling in ("%b %Y", "%Y%m", "%m.%Y"):
        written = both.assign(month=both.month.dt.strftime(spelling))
        same(told(written[::-1].sort_values("shop", kind="stable"), tmp_path), panel)


def test_midnights_on_either_side_of_a_clock_change_are_days(tmp_path):
    stamps = pd.date_range("2024-03-20", periods=20, freq="D", tz="Europe/Berlin")
    frame = pd.DataFrame({"ds": stamps, "y": np.arange(20.0), "price": 1.0})
    panel = told(frame[["ds", "y"]], tmp_path)
    assert panel.axes[0].frequency.name == "D"
    assert panel.axes[0].index(0, 20).tolist() == stamps.tz_localize(None).tolist()
    assert np.isfinite(panel.values[0]).all()
    once_more = told(read_panel(frame[["ds", "y"]]).to_frame().drop(columns="unique_id"), tmp_path)
    same(once_more, panel)
    later = frame.assign(ds=frame.ds.astype(str))
    beside = read_panel(later[:15], future_frame=later[15:].drop(columns="y"), horizon=5)
    assert len(beside.covariates.values[0]) == 20


# --- Which column is what --------------------------------------------------------------------------


def test_the_series_are_told_apart_by_the_column_under_which_times_do_not_repeat(long, tmp_path):
    panel = read_panel(long)
    named = long.rename(columns={"unique_id": "who"})
    kinds = named.assign(kind=np.where(np.arange(96) % 7 < 2, "weekend", "week"))
    same(read_panel(kinds), panel)
    numbered = named.assign(who=named.who.map({"a": 101, "b": 7}))
    assert list(read_panel(numbered).ids) == [101, 7]
    assert list(told(numbered.rename(columns={"y": "sold"}), tmp_path).ids) == [101, 7]
    assert list(read_panel(numbered.assign(kind=kinds.kind)).ids) == [101, 7]
    assert list(read_panel(named.assign(who=named.who.map({"a": "01", "b": "02"}))).ids) == [
        "01",
        "02",
    ]


@pytest.mark.parametrize(
    ("time", "part", "values"),
    [
        ("date", "hour", range(24)),
        ("year", "Month", range(1, 13)),
        ("year", "month", pd.date_range("2024", periods=12, freq="MS").month_name()),
        ("year", "quarter", range(1, 5)),
    ],
)
def test_hours_beside_a_date_and_months_beside_a_year_do_not_name_series(time, part, values):
    stamps = pd.date_range("2015", periods=6, freq="YS" if time == "year" else "D")
    stamps = stamps.year if time == "year" else stamps
    rows = [(stamp, one) for stamp in stamps for one in values]
    table = pd.DataFrame(rows, columns=[time, part])
    table["sales"] = np.random.default_rng(0).normal(size=len(table))
    with pytest.raises(DataError, match=rf"'{part}' tells a part of the time.*join both"):
        read_panel(table)
    # What names series may be called so, if it is said.
    assert len(read_panel(table, id_column=part)) == len(values)
    # And a part that goes with the time is no part of it.
    shops = pd.DataFrame({"day": [*HOURS, *HOURS], "shop": np.repeat(["a", "b"], 48)})
    shops = shops.assign(hour=[*HOURS.hour, *HOURS.hour], sold=np.arange(96.0))
    assert list(read_panel(shops, target_column="sold").ids) == ["a", "b"]


def test_numbers_of_rows_name_no_series(long, tmp_path):
    shops = long.rename(columns={"unique_id": "shop", "y": "sales"})
    shops = shops.assign(price=np.arange(96.0) % 7)
    numbered = shops.assign(id=range(5, 101))
    same(told(numbered, tmp_path, target_column="sales"), read_panel(shops, target_column="sales"))
    past, plan = (numbered[numbered.ds < HOURS[40]], numbered[numbered.ds >= HOURS[40]])
    panel = read_panel(
        past, target_column="sales", future_frame=plan.drop(columns="sales"), horizon=8
    )
    assert list(panel.ids) == ["a", "b"]
    assert panel.covariates.names == ("price",)
    # At a single time, and where it is said, they do.
    both = pd.DataFrame({"id": [1, 2], "ds": HOURS[:1].repeat(2), "y": [3.0, 4.0]})
    assert len(read_panel(both, frequency="h")) == 2
    assert len(read_panel(numbered, id_column="id", target_column="sales", frequency="h")) == 96


@pytest.mark.parametrize("name", ["part_no", "store_id", "Article Number", "sku"])
def test_numbers_of_parts_are_no_values(name):
    table = pd.DataFrame({name: [100206] * 48, "ds": HOURS, "sold": np.arange(48.0)})
    with pytest.raises(DataError, match=f"'{name}' is called as what tells series apart"):
        read_panel(table)
    assert list(read_panel(table, id_column=name, target_column="sold").ids) == [100206]
    assert len(read_panel(table.rename(columns={name: "NO"}))) == 2


def test_switches_do_not_name_series_where_a_time_stands_twice():
    switches = pd.DataFrame({"ds": HOURS, "one": np.arange(48) % 2, "two": np.arange(48) % 3})
    twice = pd.concat([switches, switches.iloc[[5]].assign(one=0, two=1)])
    with pytest.raises(DataError, match="two rows at ds = 2024-01-01 05:00:00"):
        read_panel(twice)


def test_covariates_of_texts_do_not_hide_the_series(long, tmp_path):
    shops = long.rename(columns={"unique_id": "shop", "ds": "when", "y": "sold"})
    shops = shops.assign(price=np.arange(96.0), kind=np.where(np.arange(96) % 5 < 2, "x", "y"))
    past = shops[shops.when < HOURS[40]]
    plan = shops[shops.when >= HOURS[40]].drop(columns=["sold", "kind"])
    panel = read_panel(past, future_frame=plan, horizon=8)
    assert list(panel.ids) == ["a", "b"]
    assert panel.columns.target == "sold"
    assert panel.covariates.names == ("price",)
    plan.to_csv(tmp_path / "plan.csv", index=False)
    same(told(past, tmp_path, future_frame=tmp_path / "plan.csv", horizon=8), panel)


# --- Refusals --------------------------------------------------------------------------------------


def change(column, row, value):
    def changed(long):
        values = long[column].astype(object)
        values.iloc[row] = value
        return long.assign(**{column: values})

    return changed


REFUSED = {
    "missing column": (lambda long: long, {"target_column": "z"}, "'z'.*unique_id, ds, y"),
    "text": (change("y", 3, "many"), {}, "'y'.*row 3.*'many'"),
    "infinite": (change("y", 50, np.inf), {}, "'y'.*row 50.*'b'.*infinite"),
    "twice": (lambda long: pd.concat([long, long.iloc[[60]]]), {}, "'b'.*2024-01-01 12:00:00"),
    "no frequency": (
        lambda long: long.iloc[[0, 1, 8, 10, 30]],
        {},
        "no frequency.*'a'.*frequency",
    ),
    "off the grid": (lambda long: long, {"frequency": "2h"}, "'a'.*01:00:00.*2h"),
    "unknown frequency": (lambda long: long, {"frequency": "fortnight"}, "'fortnight'"),
    "empty": (lambda long: long.iloc[:0], {}, "empty"),
    "no columns": (lambda long: pd.DataFrame(), {}, "empty"),
    "all missing": (
        lambda long: long.assign(y=long.y.where(long.unique_id == "a")),
        {},
        "'b'.*missing",
    ),
    "no date": (change("ds", 7, "soon"), {}, "'ds'.*row 7.*'soon'"),
    "missing date": (change("ds", 7, None), {}, "'ds'.*row 7"),
    "missing id": (change("unique_id", 9, None), {}, "'unique_id'.*row 9"),
    "two targets": (
        lambda long: long.assign(z=1.0).rename(columns={"y": "x"}),
        {},
        "target_column",
    ),
    "dates as target": (lambda long: long, {"target_column": "ds"}, "'ds'.*not numbers"),
    "twice a column": (lambda long: long.set_axis(["y", "ds", "y"], axis=1), {}, "two columns 'y'"),
    "fractions of steps": (
        lambda long: pd.DataFrame({"ds": [0.0, 0.5], "y": [1, 2]}),
        {},
        "'ds'.*row 1.*whole",
    ),
    "frequency of steps": (lambda long: [1, 2, 3], {"frequency": "D"}, "whole numbers"),
    "one row": (lambda long: long.iloc[[0]], {}, "single row"),
    "too long ago": (
        lambda long: pd.DataFrame({"ds": ["1066-10-14", "1066-10-15"], "y": [1, 2]}),
        {},
        "'ds'",
    ),
    "too sparse": (
        lambda long: pd.DataFrame({"ds": [0, 1, 10**9], "y": [1, 2, 3]}),
        {},
        "1000000001 steps",
    ),
    "times unread": (
        lambda long: long.assign(ds=[f"period {n}" for n in range(96)]).rename(
            columns={"ds": "when"}
        ),
        {},
        "'when'.*'period 0'.*time_column",
    ),
    "series without times": (
        lambda long: long.drop(columns="ds").rename(columns={"unique_id": "shop"}),
        {},
        "'shop'.*id_column",
    ),
    "several names": (
        lambda long: long.assign(who=long.unique_id + "!").rename(columns={"unique_id": "shop"}),
        {},
        r"\(shop, who\).*id_column",
    ),
    "names in two columns": (
        lambda long: pd.concat(
            [long.assign(item=item, unique_id=long.unique_id) for item in ("x", "y")]
        ).rename(columns={"unique_id": "shop"}),
        {},
        "'shop' and 'item' together.*join",
    ),
    "names in no columns": (
        lambda long: pd.concat([long, long]).rename(columns={"unique_id": "shop"}).assign(kind="x"),
        {},
        "shop, kind.*times repeat",
    ),
    "times of day beside days": (
        lambda long: pd.DataFrame(
            {"day": HOURS.strftime("%d.%m.%Y"), "hour": HOURS.strftime("%H:%M"), "y": 1.0}
        ),
        {},
        "'hour'.*times of the day; join it with 'day'",
    ),
    "some in a zone": (
        lambda long: pd.DataFrame({"ds": ["2024-01-01 00:00+01:00", "2024-01-02"], "y": [1, 2]}),
        {},
        "'ds'.*row 1.*zone",
    ),
    "turned": (
        lambda long: (
            long.pivot(index="unique_id", columns="ds", values="y")
            .rename(columns=str)
            .reset_index(names="sensor")
        ),
        {},
        "named by dates .* and 40 more.*turn the table",
    ),
    "turned, names in the index": (
        lambda long: long.pivot(index="unique_id", columns="ds", values="y"),
        {},
        "named by dates .* and 40 more.*turn the table",
    ),
    "many columns": (
        lambda long: pd.DataFrame({f"c{n}": [1.0, 2.0] for n in range(99)}),
        {"target_column": "z"},
        "'z'.*c7 and 91 more",
    ),
    "a stray date": (
        lambda long: pd.DataFrame(
            {"ds": [*pd.date_range("2024", periods=30), pd.Timestamp("2204-01-31")], "y": 1.0}
        ),
        {},
        "'y' has 31 rows.*2204-01-31.*after 2024-01-30",
    ),
    "a panel and names": (
        lambda long: read_panel(long),
        {"covariates": ["price"]},
        "covariates tells how to read a table",
    ),
    "no group": (
        lambda long: long.assign(club=np.where(long.unique_id == "a", "x", None)),
        {"group_column": "club"},
        "'club': row 48 .series 'b'. has no group",
    ),
    "nothing": (lambda long: None, {}, "NoneType"),
    "a dict": (lambda long: {"a": 1}, {}, "dict"),
    "empty list": (lambda long: [], {}, "empty"),
    "empty member": (lambda long: [[1], []], {}, "series 1"),
    "list of frames": (lambda long: [long, long], {}, "join frames into one"),
    "mixed list": (lambda long: [1, [2]], {}, "list"),
    "three dimensions": (lambda long: np.ones((2, 2, 2)), {}, "dimension"),
    "no such file": (lambda long: "/nowhere/data.csv", {}, "/nowhere/data.csv"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_tables_are_refused_in_one_line(long, name):
    build, arguments, message = REFUSED[name]
    with pytest.raises(DataError, match=f"(?s){message}") as error:
        read_panel(build(long), **arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content"), [("a.csv", ""), ("a.parquet", "junk"), ("a.xlsx", "x")]
)
def test_bad_files_are_refused_by_name(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=name):
        read_panel(tmp_path / name)


@pytest.mark.parametrize("spoilt", ["1,221.24", "$12", "12 %", "12..5", "€ 3"])
def test_numbers_that_cannot_be_read_are_named_with_their_row(long, spoilt):
    sold = long.y.astype(str).where(np.arange(96) != 17, spoilt)
    with pytest.raises(DataError, match="'sold': row 17 holds") as error:
        read_panel(long[["unique_id", "ds"]].assign(sold=sold))
    assert repr(spoilt) in str(error.value)


LONG = 200_000


@pytest.mark.parametrize(
    "cell",
    [
        "1" + LONG * " " + "a",
        "1" + LONG * " " + "2x",
        "1 1:00" + LONG * " " + "x",
        "€" + LONG * " " + "x",
        LONG * "1" + "x",
    ],
)
def test_long_cells_take_no_longer_than_their_length(cell):
    """Of an expression that can read a run of spaces in two ways, none of these would ever end."""
    for text in (f"x\n{cell}\n2\n", f"x;y\n{cell};1\n2;2\n"):
        with pytest.raises(DataError):
            read_panel(read_csv_text(text, None))


def test_names_of_frequencies_take_no_longer_than_their_length():
    with pytest.raises(DataError, match="not known"):
        parse_frequency(LONG * " " + "!")


def test_many_columns_of_texts_are_refused_at_once():
    columns = {f"c{number}": ["a", "a"] for number in range(1000)}
    frame = pd.DataFrame({"ds": ["2024-01-01"] * 2, **columns, "y": [1.0, 1.0]})
    with pytest.raises(DataError, match="none of the columns"):
        read_panel(frame)


@pytest.mark.parametrize("kind", [decimal.Decimal, str, np.float16, bool, int])
def test_numbers_of_any_kind(kind):
    values = [kind(1) for _ in range(3)]
    if kind is str:
        values = ["1", "1.0", "1e0"]
    panel = read_panel(pd.DataFrame({"ds": HOURS[:3], "y": pd.Series(values, dtype=object)}))
    np.testing.assert_array_equal(panel.values[0], [1.0, 1.0, 1.0])
