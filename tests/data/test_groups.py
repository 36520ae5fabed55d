from __future__ import annotations

import numpy as np
import pytest

from llamacast.data.aggregates import aggregate, origin
from llamacast.data.calendar import parse_frequency
from llamacast.data.corpora import DataSet, join
from llamacast.data.groups import FEWEST_BESIDE, sum_groups


def corpus(*parts):
    """Of `(name, starts, frequency, rows)`."""
    return join(
        DataSet(
            name,
            [str(n) for n in range(len(rows))],
            [np.asarray(row, np.float32) for row in rows],
            np.array([np.datetime64(start, "ns") for start in starts]),
            [frequency and parse_frequency(frequency)] * len(rows),
        )
        for name, starts, frequency, rows in parts
    )


def powers(count, length=40):
    """Series whose sums tell what they are of."""
    return [2.0**n * (1 + np.arange(length) % 2) for n in range(count)]


def test_a_group_is_a_sum_of_series_that_begin_together():
    rows = [1024 * row for row in powers(8)]
    starts = ["2020-01-01"] * 5 + ["2021-01-01"] * 3
    made = corpus(("sales", starts, "D", rows))
    found = sum_groups(made, made.lengths, most=200, seed=0)
    assert list(found.datasets) == ["sales in groups"]
    assert set(found.starts) == {np.datetime64("2020-01-01", "ns")}  # three are too few
    plain = [values for values in map(found.series, range(found.num_series)) if values[0] >= 1024]
    assert plain
    for values in plain:
        np.testing.assert_array_equal(values[1::2], 2 * values[::2])
        which = int(values[0]) // 1024
        assert 2 <= which.bit_count() <= 4  # never all of them
        assert which < 2**5


def test_half_of_groups_weigh_their_series_alike():
    made = corpus(("sales", ["2020-01-01"] * 30, "D", powers(30)))
    found = sum_groups(made, made.lengths, most=30, seed=0)
    # A series of 1 and 2 in turn has mean absolute deviation 0.5, so that it counts as 2 and 4.
    alike = [found.series(n)[0] for n in range(found.num_series) if found.series(n)[0] <= 60]
    assert 5 <= len(alike) <= 25
    assert all(value == pytest.approx(2 * round(value / 2), rel=1e-5) for value in alike)


def test_what_may_not_be_looked_at_is_not():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(6, 50))
    spoilt = rows.copy()
    spoilt[:, 30:] = 1e6
    spoilt[5] = 1e6
    lengths = np.array([30, 30, 30, 30, 30, 0])
    one, other = (
        sum_groups(corpus(("a", ["2020-01-01"] * 6, "D", some)), lengths, 50, 1)
        for some in (rows, spoilt)
    )
    np.testing.assert_array_equal(one.values, other.values)
    assert one.lengths.tolist() == [30] * one.num_series


def test_missing_values_lower_no_sum():
    rng = np.random.default_rng(0)
    rows = 100 + rng.normal(size=(8, 400))
    rows[rng.random(rows.shape) < 0.2] = np.nan
    rows[:, 7] = np.nan
    made = corpus(("a", ["2020-01-01"] * 8, "h", rows))
    found = sum_groups(made, made.lengths, 20, 0)
    for number in range(found.num_series):
        values = found.series(number)
        assert np.isnan(values[7])
        assert np.nanstd(values) < 0.1 * np.nanmean(values)


def test_data_sets_are_not_mixed_and_few_or_undated_series_make_no_groups():
    rows = powers(FEWEST_BESIDE - 1)
    few = ("few", ["2020-01-01"] * len(rows), "D", rows)
    undated = ("undated", ["2020-01-01"] * 6, None, powers(6))
    made = corpus(few, undated)
    assert sum_groups(made, made.lengths, 10, 0) is None
    made = corpus(few, undated, ("b", ["2020-01-01"] * 6, "D", powers(6)))
    assert list(sum_groups(made, made.lengths, 10, 0).datasets) == ["b in groups"]


def test_no_more_groups_than_asked_for_and_the_same_for_the_same_seed():
    made = corpus(("a", ["2020-01-01"] * 40, "D", powers(40)))
    one, again, other = (sum_groups(made, made.lengths, 10, seed) for seed in (0, 0, 1))
    assert one.num_series <= 10
    np.testing.assert_array_equal(one.values, again.values)
    assert one.values.tobytes() != other.values.tobytes()


def test_longer_steps_of_groups_remember_where_they_come_from():
    rng = np.random.default_rng(0)
    made = corpus(("sold in shops", ["2020-01-01"] * 5, "D", rng.normal(size=(5, 700))))
    groups = sum_groups(made, made.lengths, 10, 0)
    longer = aggregate(groups, groups.lengths)
    assert list(longer.datasets) == ["sold in shops in groups in W-SUN"]
    assert origin(longer.datasets[0]) == "sold in shops"
    assert origin("sold in shops") == "sold in shops"
