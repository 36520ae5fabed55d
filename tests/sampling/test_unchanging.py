from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import llamacast
from llamacast.model.quantiles import Quantiles, level_of
from llamacast.sampling import unchanging as module
from llamacast.sampling.unchanging import Unchanging, find_unchanging

LEVELS = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)


@pytest.fixture(scope="module")
def cria():
    return llamacast.load("cria", device="cpu")


def shop(noise, seed=0, num_days=400, closed=6):
    rng = np.random.default_rng(seed)
    days = pd.date_range("2024-01-01", periods=num_days)
    sold = (100 + noise * rng.normal(size=num_days)).round().clip(1)
    return pd.Series(np.where(days.dayofweek == closed, 0.0, sold), days)


def rows(*series):
    values = torch.tensor(np.stack(series))
    return values, torch.ones_like(values, dtype=torch.bool)


@pytest.mark.parametrize("noise", [5, 35])
def test_a_day_that_is_always_closed_is_closed(cria, noise):
    found = cria.forecast(shop(noise), 28)
    closed = np.asarray(found.index[0].dayofweek == 6)
    levels = found.quantile([0.05, 0.5, 0.95])[0]
    assert not levels[closed].any()
    assert (levels[~closed, 1] > 50).all()
    assert (np.diff(levels[~closed], axis=1) > 0).all()


def test_units_change_nothing_and_neighbours_neither(cria):
    plain, noise = shop(20), np.random.default_rng(1).normal(size=400)
    other = pd.Series(noise, plain.index)
    alone = cria.forecast(plain, 14, joint=False).samples[0]
    together = cria.forecast(pd.DataFrame({"a": other, "b": plain}), 14, joint=False).samples
    np.testing.assert_allclose(together[1], alone, atol=1e-3)
    np.testing.assert_allclose(
        cria.forecast(other, 14, joint=False).samples[0], together[0], atol=1e-5
    )
    moved = cria.forecast(-4.0 * plain + 1024.0, 14, joint=False).quantile(0.5)[0]
    sundays = np.asarray(cria.forecast(plain, 14).index[0].dayofweek == 6)
    np.testing.assert_array_equal(moved[sundays], 1024.0)


def test_what_is_common_anyway_or_has_changed_lately_is_no_rule():
    rare = np.random.default_rng(0).random((200, 300)) < 0.2
    sold = np.where(rare, np.random.default_rng(1).random((200, 300)), 0.0)
    periods = torch.full((200, 1), 7)
    found = find_unchanging(*rows(*sold), periods, 14)
    assert found is None or float((found.probability > 0).double().mean()) < 0.01
    week = shop(20).to_numpy()
    assert len(week) % 7 == 1  # the first step of the horizon is a Tuesday, the sixth a Sunday
    always = find_unchanging(*rows(week), torch.tensor([[7]]), 7)
    assert (always.probability[0] > 0.98).nonzero().flatten().tolist() == [5]
    week[np.flatnonzero(week == 0)[-2]] = 50.0
    lately = find_unchanging(*rows(week), torch.tensor([[7]]), 7)
    assert lately is None or not lately.probability.any()


def test_one_exception_long_ago_is_counted():
    week = shop(20).to_numpy()
    sundays = np.flatnonzero(week == 0)
    week[sundays[5]] = 50.0
    found = find_unchanging(*rows(week), torch.tensor([[7, 0]]), 7)
    count = len(sundays)
    assert found.probability[0, 5] == pytest.approx((count - 0.5) / (count + 1))
    assert found.value[0, 5] == 0


def test_horizons_in_parts_are_those_at_once(monkeypatch):
    values = rows(shop(20).to_numpy())
    whole = find_unchanging(*values, torch.tensor([[7, 14, 0]]), 60)
    monkeypatch.setattr(module, "STEPS_TOGETHER", 7)
    parts = find_unchanging(*values, torch.tensor([[7, 14, 0]]), 60)
    torch.testing.assert_close(whole.value, parts.value, rtol=0, atol=0)
    torch.testing.assert_close(whole.probability, parts.probability, rtol=0, atol=0)


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("value", [-3.0, 0.1, 0.7, 4.0])
def test_the_mixture_is_one(weight, value):
    """Its distribution function is that of either part by its weight."""
    plain = Quantiles(torch.sort(torch.randn(1, 1, 19, dtype=torch.float64)).values, LEVELS)
    stands = Unchanging(*(torch.tensor([[one]], dtype=torch.float64) for one in (value, weight)))
    mixed = stands.mixed_into(plain).values[0, 0]
    assert (mixed.diff() >= 0).all()
    for level, at in zip(LEVELS, mixed, strict=True):
        below = float(level_of(plain, at.view(1, 1)))
        if at == value and weight:
            assert (1 - weight) * below - 1e-9 <= level <= (1 - weight) * below + weight + 1e-9
        else:
            assert (1 - weight) * below + weight * float(at > value) == pytest.approx(float(level))
