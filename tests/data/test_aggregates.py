from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from llamacast.data.aggregates import LONGER_STEPS, SHORTEST_AGGREGATE, aggregate
from llamacast.data.calendar import parse_frequency
from llamacast.data.corpora import DataSet, join


def corpus(*series):
    """Of `(name, start, frequency, values)`."""
    return join(
        DataSet(
            f"set {name}",
            [name],
            [np.asarray(values, np.float32)],
            np.array([np.datetime64(start, "ns")]),
            [frequency and parse_frequency(frequency)],
        )
        for name, start, frequency, values in series
    )


def walk(length, seed=0, gaps=0.0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=length).cumsum()
    values[rng.random(length) < gaps] = np.nan
    return values


@pytest.mark.parametrize(
    ("start", "frequency", "length"),
    [
        ("2020-02-27T05:00", "h", 90 * 24),
        ("2019-12-31T23:50", "5min", 30_000),
        ("2001-03-03", "D", 4_000),
        ("2001-03-03T07:00", "B", 3_000),
        ("2020-01-01", "15min", 9_000),
    ],
)
def test_means_are_those_of_pandas(start, frequency, length):
    made = corpus(("a", start, frequency, walk(length, gaps=0.3)))
    stamps = pd.date_range(start, periods=length, freq=frequency)
    plain = pd.Series(made.series(0).astype(float), index=stamps)
    beyond = stamps[:1].shift(-1).append(stamps[-1:].shift(1))
    marks = pd.concat([plain * 0.0, pd.Series(1.0, index=beyond)]).sort_index()
    found = aggregate(made, made.lengths)
    told = {}
    for name in LONGER_STEPS:
        parts = plain.resample(name)
        means, counts = parts.mean(), parts.count()
        means = means.where(counts >= parts.size().max() / 2)
        # What began before, or goes on.
        means = means.where(marks.resample(name).sum().reindex(means.index) == 0)
        span = means.loc[means.first_valid_index() : means.last_valid_index()]
        steps = stamps.to_series().diff().mean()
        if span.notna().sum() >= SHORTEST_AGGREGATE and length * steps / len(means) >= 2.9 * steps:
            told[f"set a in {name}"] = span
    assert list(found.datasets) == list(told)
    for number, (label, span) in enumerate(told.items()):
        np.testing.assert_allclose(found.series(number), span, rtol=1e-4, atol=1e-4)
        assert found.starts[number] == span.index[0].to_datetime64(), label
        assert found.frequencies[number].name == label.split(" in ")[1]


def test_what_may_not_be_looked_at_is_not():
    values = walk(4_000)
    whole = corpus(("a", "2020-01-01", "h", values))
    spoilt = corpus(("a", "2020-01-01", "h", np.where(np.arange(4_000) < 3_000, values, 1e6)))
    one = aggregate(whole, np.array([3_000]))
    other = aggregate(spoilt, np.array([3_000]))
    np.testing.assert_array_equal(one.values, other.values)
    assert np.abs(other.values).max() < 1e3
    assert aggregate(whole, np.array([0])) is None


def test_what_is_short_has_no_dates_or_stands_still_is_left_out():
    made = corpus(
        ("short", "2020-01-01", "D", walk(200)),
        ("counted", "2020-01-01", None, walk(5_000)),
        ("still", "2020-01-01", "h", np.tile([1.0, 2.0], 3_000)),
        ("monthly", "1900-01-01", "MS", walk(900)),
        ("hourly", "2020-01-01", "h", walk(2_400)),
    )
    found = aggregate(made, made.lengths)
    assert list(found.datasets) == ["set hourly in D"]
    assert found.lengths.tolist() == [100]
