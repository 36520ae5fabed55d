from __future__ import annotations

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from llamacast.data.frame import read_panel
from llamacast.data.windows import rolling_origins
from llamacast.forecast import DataError

HORIZON = 5


def table(num_steps=60, start="2024-01-01", ids=("b", "a")):
    rng = np.random.default_rng(0)
    return pd.concat(
        pd.DataFrame(
            {
                "shop": name,
                "day": pd.date_range(start, periods=num_steps),
                "sold": rng.normal(size=num_steps),
                "price": rng.normal(size=num_steps),
                "kind": rng.choice(["red", "green", "blue"], num_steps),
                "size": 10.0 * number,
            }
        )
        for number, name in enumerate(ids)
    )


COLUMNS = {"id_column": "shop", "time_column": "day", "target_column": "sold"}


def both(num_steps=60):
    whole = table(num_steps + HORIZON)
    step = whole.groupby("shop").cumcount()
    return whole[step < num_steps], whole[step >= num_steps].drop(columns="sold")


def read(history, **more):
    return read_panel(history, horizon=HORIZON, **COLUMNS, **more)


def test_every_covariate_of_the_future_lies_beside_its_series():
    history, future = both()
    found = read(history, future_frame=future)
    names = found.covariates.names
    assert names[0] == "price"
    assert names[-1] == "size"
    assert set(names[1:-1]) == {"kind=red", "kind=green", "kind=blue"}
    assert found.covariates.ahead.all()
    whole = pd.concat([history, future])
    for identifier, values in zip(found.ids, found.covariates.values, strict=True):
        own = whole[whole.shop == identifier]
        np.testing.assert_array_equal(values[:, 0], own.price)
        np.testing.assert_array_equal(values[:, -1], own["size"])
        word = names[1].removeprefix("kind=")
        np.testing.assert_array_equal(values[:, 1], own.kind == word)


def test_order_of_rows_and_extra_rows_do_not_matter():
    history, future = both()
    mixed = future.sample(frac=1.0, random_state=0)
    one, other = read(history, future_frame=future), read(history, future_frame=mixed)
    for first, second in zip(one.covariates.values, other.covariates.values, strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_single_day_of_the_future_is_read_in_the_zone_of_the_history():
    history, future = (part.assign(day=part.day.dt.tz_localize("Europe/Berlin")) for part in both())
    found = read(history, future_frame=future)
    day = future[future.day == future.day.min()]
    first = read_panel(history, horizon=1, future_frame=day, **COLUMNS)
    for one, other in zip(first.covariates.values, found.covariates.values, strict=True):
        np.testing.assert_array_equal(one, other[: len(one)])


def test_the_future_is_spelled_as_the_history_is():
    history, future = (part.assign(day=part.day.dt.strftime("%d/%m/%Y")) for part in both())
    found, plain = read(history, future_frame=future), read(both()[0], future_frame=both()[1])
    for one, other in zip(found.covariates.values, plain.covariates.values, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_is_not_in_the_future_frame_is_known_in_the_past_only():
    history, future = both()
    found = read(history, covariates=["price", "size"], future_frame=future[["shop", "day"]])
    assert found.covariates.ahead.tolist() == [False, True]  # what never changes goes on
    values = found.covariates.values[0]
    assert np.isnan(values[60:, 0]).all()
    assert (values[:, 1] == values[0, 1]).all()


def test_gaps_in_the_past_are_filled_and_gaps_in_the_future_refused():
    history, future = both()
    history = history.copy()
    history.iloc[3, 3] = np.nan
    found = read(history, future_frame=future)
    assert found.covariates.values[0][3, 0] == found.covariates.values[0][2, 0]
    future = future.copy()
    future.iloc[2, 2] = np.nan
    with pytest.raises(DataError, match=r"'price' of series 'b' is not known at 2024-03-03"):
        read(history, future_frame=future)
    with pytest.raises(DataError, match="is not known at 2024-03-05"):
        read(history, future_frame=both()[1].groupby("shop").head(4))


@pytest.mark.parametrize(
    ("change", "options", "told"),
    [
        (lambda h, f: (h, f), {"covariates": ["cost"]}, "no covariate 'cost'.*price"),
        (lambda h, f: (h, f), {"covariates": ["sold"]}, "'sold' is no covariate"),
        (lambda h, f: (h, f.drop(columns="day")), {}, "no column 'day'"),
        (lambda h, f: (h, f.assign(shop="c")), {}, "no series 'c'"),
        (lambda h, f: (h, f.assign(kind="violet")), {}, "'violet', which the history never had"),
        (lambda h, f: (h.assign(price=np.inf), f), {}, "'price'.*infinite"),
        (lambda h, f: (h, f.assign(day=f.day + pd.Timedelta("1h"))), {}, "none of its steps"),
        (
            lambda h, f: (h.assign(kind=[str(n) for n in range(len(h))]), f),
            {},
            "'kind' has 120 different values",
        ),
        (lambda h, f: (h, f), {"holidays": "Atlantis"}, "no country 'Atlantis'"),
    ],
)
def test_what_cannot_be_used_is_named(change, options, told):
    history, future = change(*both())
    with pytest.raises(DataError, match=told):
        read(history, future_frame=future, **options)


def test_windows_know_of_the_future_only_what_is_known_ahead():
    history, future = both()
    future = future[["shop", "day", "price"]]
    panel = read(history, covariates=["price", "kind"], future_frame=future)
    histories = rolling_origins(panel, HORIZON, 2, HORIZON).histories(slice(None))
    ahead = panel.covariates.ahead
    for values, known in zip(histories.values, histories.covariates.values, strict=True):
        assert len(known) >= len(values) + HORIZON
        assert not np.isnan(known[: len(values) + HORIZON, ahead]).any()
        assert np.isnan(known[len(values) :, ~ahead]).all()


def test_parts_of_a_panel_keep_what_lies_beside_them():
    history, future = both()
    panel = read(history, future_frame=future)
    part = panel.choose([1]).stretch([10], [40])
    np.testing.assert_array_equal(part.covariates.values[0][:35], panel.covariates.values[1][10:45])
    assert part.axes[0].index(0, 1)[0] == panel.axes[1].index(10, 1)[0]


def test_holidays_are_those_of_the_country():
    history = table(num_steps=360)
    found = read(history, holidays="DE")
    names = found.covariates.names
    assert names == ("holiday", "day before holiday", "day after holiday")
    values, axis = found.covariates.values[0], found.axes[0]
    labels = axis.index(0, len(values))
    assert labels[values[:, 0] > 0].strftime("%m-%d").tolist()[:2] == ["01-01", "03-29"]
    assert values[labels == "2024-12-24", 1] == 1  # beyond the history, which ends on the 25th
    assert labels[-1] == pd.Timestamp("2024-12-30")
    monthly = (
        history.groupby("shop")
        .head(20)
        .assign(day=lambda h: np.tile(pd.date_range("2023-01-01", periods=20, freq="MS"), 2))
    )
    values = read(monthly, holidays="DE").covariates.values[0]
    assert values[0, 0] == 1
    assert values[11, 0] == 2  # both days of Christmas
    counted = history.groupby("shop").head(20).assign(day=lambda h: np.tile(np.arange(20), 2))
    with pytest.raises(DataError, match="holidays need dates"):
        read(counted, holidays="DE")


def test_whole_numbers_as_steps_have_covariates_too():
    history, future = both()
    number = {day: n for n, day in enumerate(pd.date_range("2024-01-01", periods=65))}
    history, future = (f.assign(day=f.day.map(number) * 2) for f in (history, future))
    found = read(history, future_frame=future)
    np.testing.assert_array_equal(found.covariates.values[1][60:, 0], future.price[5:])


def test_a_wide_table_has_no_covariates():
    wide = pd.DataFrame({"ds": pd.date_range("2024", periods=20), "a": 1.0, "b": 2.0, "c": 3.0})
    with pytest.raises(DataError, match="long table"):
        read_panel(wide, covariates=["a"])


def test_columns_of_the_future_are_no_series_of_a_wide_table():
    days = pd.date_range("2024-01-01", periods=30)
    table = pd.DataFrame(
        {"day": days, "sold": np.arange(30.0), "promotion": np.arange(30) % 3 == 0}
    )
    past, future = table[:25], table[25:].drop(columns="sold")
    found = read_panel(past, future_frame=future, horizon=5)
    assert found.columns.target == "sold"
    assert len(found) == 1
    assert len(found.covariates.values[0]) == 30
    named = read_panel(past, covariates=["promotion"])
    assert named.columns.target == "sold"


def test_future_rows_are_told_once_and_do_not_alter_the_past():
    history, future = both()
    twice = pd.concat([future, future[:1]])
    with pytest.raises(DataError, match="'b' has two rows at 2024-03-01"):
        read(history, future_frame=twice)
    overlapping = pd.concat([history.drop(columns="sold").assign(price=77.0)[50:60], future])
    found = read(history, future_frame=overlapping)
    np.testing.assert_array_equal(found.covariates.values[0][:60, 0], history.price[:60])


def test_a_flag_that_was_never_raised_is_wanted_for_the_future():
    history, future = both()
    history, future = history.assign(flag=0.0), future.assign(flag=0.0)
    with pytest.raises(DataError, match="is not known at"):
        read(history, future_frame=future.groupby("shop").head(3))


def test_names_are_compared_as_texts_where_files_disagree(tmp_path):
    history, future = both()
    numbers = {"b": 7, "a": 12}
    history, future = (f.assign(shop=f.shop.map(numbers)) for f in (history, future))
    future.to_csv(tmp_path / "future.csv", index=False)
    found = read_panel(
        history.rename(columns={"shop": "id"}),
        future_frame=future.rename(columns={"shop": "id"}).astype({"id": str}),
        horizon=HORIZON,
        time_column="day",
        target_column="sold",
    )
    np.testing.assert_array_equal(found.covariates.values[1][60:, 0], future.price[5:])


def test_the_future_is_told_in_the_zone_of_the_history():
    history, future = both()
    berlin = history.assign(day=history.day.dt.tz_localize("Europe/Berlin"))
    for other in (future, future.assign(day=future.day.dt.tz_localize("Europe/Berlin"))):
        found = read(berlin, future_frame=other)
        np.testing.assert_array_equal(found.covariates.values[0][60:, 0], future.price[:5])
    zoned = future.assign(day=future.day.dt.tz_localize("UTC"))
    with pytest.raises(DataError, match="time zone, which the history's has not"):
        read(history, future_frame=zoned)


def test_a_target_in_the_future_frame_is_left_out():
    history, future = both()
    columns = {"sold": "y"}
    found = read_panel(
        history.rename(columns=columns),
        future_frame=future.assign(y=np.nan),
        horizon=HORIZON,
        id_column="shop",
    )
    assert found.columns.target == "y"
    assert "y" not in found.covariates.names


def test_holidays_of_long_steps_are_those_within_them():
    days = pd.date_range("2020-01-31", periods=12, freq="ME")
    found = read_panel(pd.Series(np.arange(12.0), days), holidays="DE", horizon=1)
    counts = found.covariates.values[0][:, 0]
    assert counts[:5].tolist() == [1, 0, 0, 2, 2]  # New Year; Easter; Labour and Ascension Day
    assert counts[12] == 1


@pytest.mark.parametrize(
    "spelled", [lambda one: Decimal(str(round(one, 2))), lambda one: None if one < -1 else one]
)
def test_objects_that_are_numbers_are_no_words(spelled):
    history, future = both()
    expected = (
        pd.to_numeric(history.price.map(spelled).astype(object)).ffill().bfill().to_numpy(float)
    )
    told = history.assign(price=history.price.map(spelled).astype(object))
    found = read(told, future_frame=future.assign(price=0.5))
    assert found.covariates.names[0] == "price"
    first = found.covariates.values[found.ids.index("b")][:60, 0]
    np.testing.assert_allclose(first, expected[:60], rtol=1e-12)


def test_columns_may_be_named_by_numbers():
    history, future = both()
    numbers = {"shop": 0, "day": 1, "sold": 2, "price": 3}
    names = {"id_column": 0, "time_column": 1, "target_column": 2}
    found = read_panel(
        history.rename(columns=numbers),
        horizon=HORIZON,
        future_frame=future[["shop", "day", "price"]].rename(columns=numbers),
        **names,
    )
    expected = read(history, covariates=["price"], future_frame=future[["shop", "day", "price"]])
    for one, other in zip(found.covariates.values, expected.covariates.values, strict=True):
        np.testing.assert_array_equal(one, other)


def test_where_no_word_stands_there_is_none():
    history, future = both()
    rare = np.where(np.arange(len(history)) % 9 == 4, "sale", None)
    found = read(history.assign(event=rare), future_frame=future.assign(event=None))
    place = found.covariates.names.index("event=sale")
    told = np.concatenate([one[:60, place] for one in found.covariates.values])
    np.testing.assert_array_equal(told, (history.assign(event=rare).event == "sale").astype(float))
    assert all((one[60:, place] == 0).all() for one in found.covariates.values)
