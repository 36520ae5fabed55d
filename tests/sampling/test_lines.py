from __future__ import annotations

import numpy as np
import pytest
import torch

import llamacast
from llamacast.model.config import CriaConfig
from llamacast.model.cria import Cria
from llamacast.model.quantiles import Quantiles
from llamacast.sampling.lines import find_lines
from llamacast.sampling.one_pass import _ask, forecast_quantiles
from llamacast.sampling.patched import look

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
    observed = ~values.isnan()
    model = Cria(CriaConfig(num_layers=1))
    seen = look(model, values, observed, torch.zeros(len(rows), 2, dtype=torch.long))
    return find_lines(values, observed, seen, torch.full((len(rows),), period))


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
    np.testing.assert_allclose(steeper - 7.0 * ahead[:, None], found, atol=1e-5)


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
    assert 0.95 < width[1] / width[0] < 1.15


def test_what_wanders_has_no_line():
    walks = [walk(seed) + 0.3 * np.arange(STEPS) for seed in range(20)]
    bent = np.minimum(np.arange(STEPS), 150.0) + np.random.default_rng(0).normal(size=STEPS)
    few = np.r_[np.full(STEPS - 8, np.nan), np.arange(8.0)]
    level = np.full(STEPS, 5.0)
    assert lines_of(*walks, bent, few, seasonal(3.0), level, period=1) is None


@pytest.mark.parametrize("every", [2, 3, 7])
def test_what_wanders_has_no_line_where_values_are_missing(every):
    walks = [walk(seed, 400) + 0.3 * np.arange(400) for seed in range(20)]
    for row in walks:
        missing = np.arange(400) % every > 0
        row[missing] = np.nan
    assert lines_of(*walks, period=1) is None
    holes = [walk(seed, 400) for seed in range(20)]
    for seed, row in enumerate(holes):
        row[np.random.default_rng(seed).random(400) < 0.6] = np.nan
    assert lines_of(*holes, period=1) is None


def test_lines_are_found_beside_what_has_none():
    holes = seasonal(1.0, 1.0)
    holes[::5] = np.nan
    rows = [walk(), seasonal(1.0, 1.0), seasonal(1.0), holes]
    found = lines_of(*rows)
    assert found.rows.tolist() == [1, 3]
    alone = lines_of(rows[3])
    np.testing.assert_allclose(found.slope[1], alone.slope[0])
    np.testing.assert_allclose(found.slope, 1.0, atol=0.01)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("shift", "scale"), [(1e4, 5.0), (0.0, 1e200), (0.0, 1e-200)])
def test_neither_shift_nor_scale_matters(cria, shift, scale):
    row = seasonal(8.0, 0.3)
    found, other = lines_of(row), lines_of(shift + scale * row)
    assert 0 < found.weight.item() < 1
    np.testing.assert_allclose(other.weight, found.weight, rtol=1e-6)
    np.testing.assert_allclose(other.slope, scale * found.slope, rtol=1e-6)
    moved = (quantiles(cria, shift + scale * row) - shift) / scale
    np.testing.assert_allclose(moved, quantiles(cria, row), rtol=1e-4, atol=1e-3)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("shift", "slope"), [(0.0, 1e12), (1e12, 0.37), (0.0, 1e-12)])
def test_exact_lines_of_any_size_are_lines(shift, slope):
    found = lines_of(shift + slope * np.arange(STEPS), period=1)
    assert found.weight.item() == 1
    assert found.error.item() == 0
    np.testing.assert_allclose(found.slope, slope, rtol=1e-3)


def test_what_is_known_of_the_future_is_no_line():
    """A network that is told covariates is asked as it was taught."""
    model = Cria(CriaConfig(num_covariates=1)).eval()
    model.initialise(torch.Generator().manual_seed(0))
    values = torch.from_numpy(seasonal(0.5, 2.0))[None]
    observed, seasons = torch.ones_like(values, dtype=torch.bool), torch.zeros(1, 2, dtype=int)
    beside = torch.zeros(1, STEPS + HORIZON, 1)
    told = forecast_quantiles(model, values, observed, seasons, HORIZON, beside)
    plain, *_ = _ask(model, values, observed, seasons, HORIZON, beside)
    torch.testing.assert_close(told.quantiles.values, plain.quantiles.values, rtol=1e-5, atol=1e-3)


def test_strays_beside_a_line_are_told(cria):
    row = seasonal(1.0, 10.0)
    row[90] += 3000.0
    assert any("value lies" in note for note in cria.forecast([row], 3).notes)


def test_a_slope_that_may_err_widens_and_keeps_medians():
    lines = lines_of(seasonal(8.0, 0.3))
    levels = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    told = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64).expand(1, HORIZON, 3)
    level = Quantiles(told, levels)
    beside = lines.put_back(level)
    back = beside.values
    np.testing.assert_allclose(back[0, :, 1], lines.slope.item() * np.arange(1, HORIZON + 1))
    width = back[0, :, 2] - back[0, :, 0]
    assert (width.diff() > 0).all()
    assert width[0] > 2
    mixed = lines.mixed_into(level, beside).values
    share = lines.weight.item()
    np.testing.assert_allclose(mixed, (1 - share) * told + share * back)


def test_forecasts_do_not_depend_on_neighbours(cria):
    rows = [walk(), seasonal(1.0, 1.0), seasonal(1.0), seasonal(1.0, 2.0, steps=61)]
    together = cria.forecast(rows, HORIZON, joint=False).samples
    for row, found in zip(rows, together, strict=True):
        alone = cria.forecast([row], HORIZON, joint=False).samples[0]
        np.testing.assert_allclose(alone, found, rtol=1e-4, atol=1e-3)
