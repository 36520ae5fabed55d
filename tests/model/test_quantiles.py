from __future__ import annotations

import math

import pytest
import torch

from llamacast.model.config import QUANTILE_LEVELS
from llamacast.model.quantiles import Quantiles, level_of, pinball, spread_out

LEVELS = torch.tensor(QUANTILE_LEVELS, dtype=torch.float64)


def normal(*shape):
    generator = torch.Generator().manual_seed(0)
    location = torch.randn(*shape, 1, generator=generator, dtype=torch.float64)
    scale = torch.rand(*shape, 1, generator=generator, dtype=torch.float64) + 0.5
    return Quantiles(location + scale * torch.special.ndtri(LEVELS), LEVELS)


def test_known_levels_give_known_quantiles():
    quantiles = normal(4, 3)
    found = quantiles.at(LEVELS.expand(4, 3, -1))
    torch.testing.assert_close(found, quantiles.values)


def test_quantiles_ascend_with_the_level():
    levels = torch.linspace(1e-5, 1 - 1e-5, 4001, dtype=torch.float64)
    found = normal(2).at(levels.expand(2, -1))
    assert (found.diff(dim=-1) > 0).all()


def test_a_level_is_where_its_quantile_lies():
    quantiles = normal(3)
    levels = torch.tensor([1e-4, 0.004, 0.01, 0.033, 0.5, 0.62, 0.99, 0.998], dtype=torch.float64)
    values = quantiles.at(levels.expand(3, -1))
    for number, level in enumerate(levels):
        torch.testing.assert_close(
            level_of(quantiles, values[:, number]), level.expand(3), rtol=1e-6, atol=1e-9
        )


def test_tails_are_exponential():
    """Each tenth part of the outer probability lies as far beyond the one before it."""
    quantiles = normal(1)
    down = quantiles.at(torch.tensor([[0.01, 0.001, 0.0001]], dtype=torch.float64))[0]
    torch.testing.assert_close(down[0] - down[1], down[1] - down[2])
    up = quantiles.at(1 - torch.tensor([[0.01, 0.001, 0.0001]], dtype=torch.float64))[0]
    torch.testing.assert_close(up[1] - up[0], up[2] - up[1])
    expected = (quantiles.values[0, 1] - quantiles.values[0, 0]) / math.log(5) * math.log(10)
    torch.testing.assert_close(down[0] - down[1], expected)


def test_a_value_that_takes_a_share_of_all_levels_has_the_middle_one():
    values = torch.tensor([[0.0, 0.0, 0.0, 1.0, 2.0]], dtype=torch.float64)
    levels = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64)
    found = level_of(Quantiles(values, levels), torch.zeros(1, dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor([0.3], dtype=torch.float64))


@pytest.mark.parametrize("size", [1e-3, 1.0, 50.0])
def test_whatever_the_network_says_quantiles_do_not_cross(size):
    generator = torch.Generator().manual_seed(1)
    gaps = size * torch.randn(200, 20, generator=generator)
    spread = torch.rand(200, generator=generator) * size
    median = torch.randn(200, generator=generator)
    found = spread_out(median, spread, gaps)
    assert (found.diff(dim=-1) >= 0).all()
    torch.testing.assert_close(found[:, 10], median)


def test_pinball_loss_is_least_at_the_quantile():
    generator = torch.Generator().manual_seed(2)
    draws = torch.randn(20_000, generator=generator, dtype=torch.float64)
    best = torch.quantile(draws, LEVELS)

    def loss(values):
        return pinball(draws, Quantiles(values.expand(len(draws), -1), LEVELS)).mean()

    for shift in (-0.05, 0.05):
        assert loss(best) < loss(best + shift)


def test_pinball_loss_by_hand():
    quantiles = Quantiles(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.1, 0.5, 0.9]))
    # Errors 1.5, 0.5 and -0.5 of the value 2.5.
    expected = (0.1 * 1.5 + 0.5 * 0.5 + 0.1 * 0.5) / 3
    torch.testing.assert_close(pinball(torch.tensor(2.5), quantiles), torch.tensor(expected))
