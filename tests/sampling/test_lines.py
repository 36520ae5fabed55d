from __future__ import annotations

import numpy as np
import pytest
import torch

import llamacast
from llamacast.model.quantiles import Quantiles
from llamacast.sampling.lines import find_lines

STEPS, HORIZON = 200, 24


@pytest.fixture(scope="module")
def cria():
    return llamacast.load("cria", device="cpu")


def seasonal(noise, slope=0.0, seed=0, steps=STEPS):
    at = np.arange(steps)
    rng = np.random.default_rng(seed)
    return slope * at + 20 * np.sin(2 * np.pi * at / 7) + noise * rng.normal(size=steps)


def walk(seed=0, steps=STEPS):
    return np.random.default_rng(seed).normal(size=steps).cumsum()


def lines_of(*rows, period=7):
    values = torch.from_numpy(np.stack(rows))
    return find_lines(values, ~values.isnan(), torch.full((len(rows),), period))


def quantiles(forecaster, values):
    return forecaster.forecast([values], HORIZON).quantile([0.1, 0.5, 0.9])[0]


@pytest.mark.parametrize("slope", [2.0, -0.5])
def test_what_repeats_on_a_line_goes_on_along_it(cria, slope):
    values = seasonal(0.0, slope, steps=STEPS + HORIZON)
    found = quantiles(cria, values[:STEPS])
    np.testing.assert_allclose(found, values[STEPS:, None].repeat(3, 1), atol=1.5)
    straight = slope * np.arange(STEPS + HORIZON)
    found = quantiles(cria, straight[:STEPS])
    np.testing.assert_allclose(found[:, 1], straight[STEPS:], atol=1e-6)


def test_a_slope_goes_through(cria):
    """Where a line is beyond doubt, a steeper one changes nothing but the slope."""
    values, ahead = seasonal(1.0, 2.0), STEPS + np.arange(HORIZON)
    found = quantiles(cria, values)
    steeper = quantiles(cria, values + 7.0 * np.arange(STEPS))
    np.testing.assert_allclose(steeper - 7.0 * ahead[:, None], found, atol=1e-2)


def test_intervals_beside_a_line_are_those_without(cria):
    line = 1.0 * np.arange(STEPS + HORIZON)
    level = np.stack([seasonal(3.0, 0.0, seed, STEPS + HORIZON) for seed in range(40)])
    held, width = [], []
    for rows in (level, level + line):
        low, high = cria.forecast(list(rows[:, :STEPS]), HORIZON).interval(80)
        future = rows[:, STEPS:]
        held.append(((low <= future) & (future <= high)).mean())
        width.append((high - low).mean())
    assert abs(held[1] - held[0]) < 0.05
    assert 1.0 < width[1] / width[0] < 1.15


def test_what_wanders_has_no_line():
    walks = [walk(seed) + 0.3 * np.arange(STEPS) for seed in range(20)]
    bent = np.minimum(np.arange(STEPS), 150.0) + np.random.default_rng(0).normal(size=STEPS)
    few = np.r_[np.full(STEPS - 8, np.nan), np.arange(8.0)]
    assert lines_of(*walks, bent, few, seasonal(3.0), np.full(STEPS, 5.0), period=1) is None


def test_lines_are_found_beside_what_has_none():
    holes = seasonal(1.0, 1.0)
    holes[::5] = np.nan
    rows = [walk(), seasonal(1.0, 1.0), seasonal(1.0), holes]
    found = lines_of(*rows)
    assert found.rows.tolist() == [1, 3]
    alone = lines_of(rows[3])
    np.testing.assert_allclose(found.slope[1], alone.slope[0])
    np.testing.assert_allclose(found.slope, 1.0, atol=0.01)


def test_neither_shift_nor_scale_matters():
    row = seasonal(8.0, 0.3)
    found, other = lines_of(row), lines_of(1e4 + 5.0 * row)
    assert 0 < found.weight.item() < 1
    np.testing.assert_allclose(other.weight, found.weight, rtol=1e-6)
    np.testing.assert_allclose(other.slope, 5.0 * found.slope, rtol=1e-6)


def test_a_slope_that_may_err_widens_and_keeps_medians():
    lines = lines_of(seasonal(8.0, 0.3))
    levels = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    told = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64).expand(1, HORIZON, 3)
    back = lines.put_back(told, levels)
    np.testing.assert_allclose(back[0, :, 1], lines.slope.item() * np.arange(1, HORIZON + 1))
    width = back[0, :, 2] - back[0, :, 0]
    assert (width.diff() > 0).all()
    assert width[0] > 2
    mixed = lines.mixed_into(Quantiles(told, levels), back).values
    assert ((mixed - told) * (back - mixed) >= 0).all()


def test_forecasts_do_not_depend_on_neighbours(cria):
    rows = [walk(), seasonal(1.0, 1.0), seasonal(1.0)]
    together = cria.forecast(rows, HORIZON, joint=False).samples
    for row, found in zip(rows, together, strict=True):
        alone = cria.forecast([row], HORIZON, joint=False).samples[0]
        np.testing.assert_allclose(alone, found, rtol=1e-4, atol=1e-3)
