from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from llamacast.data.calendar import calendar_features, stamps_from
from llamacast.data.corpora import read_corpus
from llamacast.data.windows import Draws, WindowShape, draw_windows
from llamacast.training.windows import CorpusOnDevice

FREQUENCIES = ("10s", "min", "5min", "h", "2h", "D", "B", "W-WED", "2W-SUN", "MS", "ME", "QS", "YE")
SHAPE = WindowShape(history=60, horizon=8, num_steps=20)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Values that tell their own place: 1000 * series + step; a gap in each."""
    targets = []
    for number in range(len(FREQUENCIES)):
        values = 1000.0 * number + np.arange(40 + 5 * number)
        values[7] = np.nan
        targets.append(values.astype(np.float32))
    path = tmp_path_factory.mktemp("corpus") / "counting.parquet"
    pd.DataFrame(
        {
            "item_id": FREQUENCIES,
            "start": pd.Timestamp("1969-12-30 21:55:00"),
            "freq": FREQUENCIES,
            "target": targets,
        }
    ).to_parquet(path)
    return read_corpus(path)


@pytest.fixture(scope="module")
def cut(corpus):
    rng = np.random.default_rng(0)
    chances = np.full(corpus.num_series, 1 / corpus.num_series)
    draws = draw_windows(rng, chances, np.zeros_like(corpus.lengths), corpus.lengths, 400, SHAPE)
    return draws, CorpusOnDevice(corpus, torch.device("cpu")).cut(draws, SHAPE)


def shown(draws, row, length):
    """Steps of a series that a window shows, by their places in it."""
    steps = draws.origins[row] + np.arange(-SHAPE.history, SHAPE.horizon)
    return steps, (steps >= draws.firsts[row]) & (steps < length)


def test_windows_are_pieces_of_their_series(corpus, cut):
    draws, windows = cut
    assert windows.values.shape == windows.observed.shape == (400, 68)
    for row, series in enumerate(draws.series):
        whole = corpus.series(series)
        steps, within = shown(draws, row, len(whole))
        expected = np.where(within, whole[np.clip(steps, 0, len(whole) - 1)], np.nan)
        np.testing.assert_array_equal(windows.observed[row], ~np.isnan(expected))
        np.testing.assert_array_equal(windows.values[row], np.nan_to_num(expected))


def test_the_calendar_is_that_of_forecasts_at_every_frequency(corpus, cut):
    draws, windows = cut
    seen = set()
    for row, series in enumerate(draws.series):
        length, frequency = int(corpus.lengths[series]), corpus.frequencies[series]
        _, within = shown(draws, row, length)
        within = within[-SHAPE.num_steps :] & draws.with_calendar[row]
        stamps = stamps_from(corpus.starts[series], frequency, 0, length)
        steps = draws.origins[row] + SHAPE.horizon - SHAPE.num_steps + np.arange(SHAPE.num_steps)
        expected = np.zeros((SHAPE.num_steps, 6), dtype=np.float32)
        expected[within] = calendar_features(stamps, frequency)[steps[within]]
        np.testing.assert_allclose(windows.calendar[row], expected, atol=1e-6)
        seen.add(series)
    assert len(seen) == len(FREQUENCIES)


def test_steps_held_back_are_not_shown(corpus):
    ends = torch.full((corpus.num_series,), 20)
    draws = Draws(*(np.array([n]) for n in (2, 18, 0)), np.array([True]))
    windows = CorpusOnDevice(corpus, torch.device("cpu")).cut(draws, SHAPE, ends)
    assert windows.values.max() == 2019.0
    assert windows.observed[0, -8:].tolist() == [True, True] + [False] * 6


def test_years_that_stamps_cannot_tell_are_not_asked_for(tmp_path):
    series = np.random.default_rng(0).normal(size=40).astype(np.float32)
    start = pd.Timestamp("2021-01-01")
    frame = pd.DataFrame({"item_id": ["a"], "start": start, "freq": "YS", "target": [series]})
    frame.to_parquet(tmp_path / "years.parquet")
    corpus = read_corpus(tmp_path)
    shape = WindowShape(history=60, horizon=400, num_steps=420)
    draws = Draws(*(np.array([n]) for n in (0, 30, 0)), np.array([True]))
    windows = CorpusOnDevice(corpus, torch.device("cpu")).cut(draws, shape)
    assert windows.calendar[0, :30].any()
    assert not windows.calendar[0, 30:].any()
