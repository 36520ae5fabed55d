from __future__ import annotations

import numpy as np
import pytest
import torch

from llamacast.model import checkpoint
from llamacast.sampling.hindcast import hindcast_patches, hindcast_values
from llamacast.sampling.one_pass import forecast_quantiles
from tests.training.small_run import SMALL, SMALL_CRIA

STEPS, TIME = 24, 120


def network(config):
    found = checkpoint.make_network(config)
    found.initialise(torch.Generator().manual_seed(0))
    return found.eval()


def data(num_series=3, time=TIME, seed=0):
    rng = torch.Generator().manual_seed(seed)
    values = torch.randn(num_series, time, generator=rng, dtype=torch.float64).cumsum(dim=1) + 30
    return values, torch.ones_like(values, dtype=torch.bool)


def of_cria(model, values, observed, num_steps=STEPS):
    seasons = torch.zeros(len(values), 2, dtype=torch.long)
    return hindcast_patches(model, values, observed, seasons, num_steps)


def of_lag_llama(model, values, observed, num_steps=STEPS):
    context = values.shape[1] - model.config.max_lag - num_steps
    calendar = torch.zeros(len(values), context + num_steps, 6)
    return hindcast_values(model, values, observed, calendar, num_steps)


KINDS = [pytest.param(SMALL_CRIA, of_cria, id="cria"), pytest.param(SMALL, of_lag_llama, id="lag")]


@pytest.mark.parametrize(("config", "hindcast"), KINDS)
def test_levels_and_quantiles_are_inverse(config, hindcast):
    model, (values, observed) = network(config), data()
    told = hindcast(model, values, observed)
    asked = torch.tensor([[0.1], [0.5], [0.9]], dtype=torch.float64)
    found = told.level(told.quantile(asked))
    torch.testing.assert_close(found, asked.expand(3, STEPS), rtol=0, atol=1e-3)
    level = told.level(values[:, -STEPS:])
    assert ((level > 0) & (level < 1)).all()


@pytest.mark.parametrize(("config", "hindcast"), KINDS)
def test_what_is_told_does_not_depend_on_what_comes_then(config, hindcast):
    model, (values, observed) = network(config), data()
    half = torch.full((3, 1), 0.5, dtype=torch.float64)
    before = hindcast(model, values, observed).quantile(half)
    changed = values.clone()
    changed[:, -10:] += 5
    after = hindcast(model, changed, observed).quantile(half)
    torch.testing.assert_close(before[:, :-10], after[:, :-10], rtol=1e-5, atol=1e-5)
    assert (before[:, -5:] - after[:, -5:]).abs().max() > 1e-3


@pytest.mark.parametrize(("config", "hindcast"), KINDS)
def test_a_series_is_told_of_alone_as_in_company(config, hindcast):
    model, (values, observed) = network(config), data()
    half = torch.full((3, 1), 0.5, dtype=torch.float64)
    together = hindcast(model, values, observed).quantile(half)
    for row in range(3):
        part = slice(row, row + 1)
        alone = hindcast(model, values[part], observed[part]).quantile(half[part])
        torch.testing.assert_close(alone, together[part], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("config", "hindcast"), KINDS)
def test_missing_values_have_no_level(config, hindcast):
    model, (values, observed) = network(config), data()
    asked = values[:, -STEPS:].clone()
    asked[1, 3] = torch.nan
    level = hindcast(model, values, observed).level(asked)
    assert level.isnan().sum() == 1
    assert level[1, 3].isnan()
    observed[0, : -STEPS + 1] = False  # next to nothing is known
    told = hindcast(model, values.masked_fill(~observed, 0.0), observed)
    assert told.level(values[:, -STEPS:])[0, :1].isnan().all()


def test_lag_llama_is_told_what_a_forecast_of_the_next_step_says():
    model, (values, _) = network(SMALL), data()
    context, history = 40, SMALL.max_lag + 40
    calendar = torch.zeros(3, context + 1, 6)
    kept = values[:, -history - 1 :]
    told = hindcast_values(model, kept, torch.ones_like(kept, dtype=torch.bool), calendar, 1)
    window = model.scale_window(kept[:, :-1], torch.ones_like(kept[:, :-1], dtype=torch.bool))
    with torch.no_grad():
        said = model(window, calendar)
        scaled = window.to_scaled(kept[:, -1:]).float()
        expected = said.cdf(torch.cat([torch.zeros(3, context - 1), scaled], dim=1))[:, -1:]
    torch.testing.assert_close(told.level(kept[:, -1:]), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("back", [2, 4, 6])
def test_cria_is_told_what_a_forecast_from_there_says(back):
    """Where a pass ends: every second step of patches of 8."""
    model, (values, observed) = network(SMALL_CRIA), data()
    seasons = torch.zeros(3, 2, dtype=torch.long)
    levels = torch.tensor([[0.25], [0.5], [0.9]], dtype=torch.float64)
    told = of_cria(model, values, observed).quantile(levels)
    answer = forecast_quantiles(model, values[:, :-back], observed[:, :-back], seasons, 2)
    expected = answer.quantiles.at(levels.expand(3, 2).unsqueeze(2)).squeeze(2)
    found = told[:, STEPS - back : STEPS - back + 2]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


def test_every_step_of_a_short_series_is_told_of_once_enough_is_known():
    model, (values, observed) = network(SMALL_CRIA), data(time=21)
    level = of_cria(model, values, observed, num_steps=21).level(values)
    first = np.flatnonzero(~level[0].isnan().numpy())[0]
    assert 4 <= first <= 12
    assert not level[:, first:].isnan().any()
