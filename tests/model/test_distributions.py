from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import special, stats

from llamacast.model.distributions import (
    Flow,
    NegativeBinomial,
    Normal,
    QuantileGrid,
    StudentT,
    incomplete_beta,
)
from llamacast.model.quantiles import Quantiles
from llamacast.model.splines import NUM_SPLINE_NUMBERS, make_spline


def draws(distribution, count=20_000):
    generator = torch.Generator().manual_seed(0)
    uniforms = torch.rand(count, 2, generator=generator, dtype=torch.float64)
    return distribution.sample(uniforms).numpy()


def scalars(*numbers):
    return [torch.tensor(number, dtype=torch.float64) for number in numbers]


@pytest.mark.parametrize("df", [2.01, 3.0, 10.0, 1e4])
def test_student_t_draws_have_its_distribution(df):
    found = draws(StudentT(*scalars(df, 1.0, 2.0)))
    assert stats.kstest((found - 1.0) / 2.0, stats.t(df).cdf).pvalue > 1e-3


def test_normal_draws_have_its_distribution():
    found = draws(Normal(*scalars(-1.0, 0.5)))
    assert stats.kstest((found + 1.0) / 0.5, stats.norm.cdf).pvalue > 1e-3


@pytest.mark.parametrize(("total", "mean"), [(0.3, 0.5), (2.0, 20.0), (50.0, 3000.0)])
def test_negative_binomial_draws_have_its_distribution(total, mean):
    count, logits, scale = scalars(total, math.log(mean / total), 4.0)
    found = draws(NegativeBinomial(count, logits, scale), 5_000) * 4.0
    assert np.array_equal(found, found.round())
    reference = stats.nbinom(total, total / (total + mean))
    steps = np.unique(np.quantile(found, np.linspace(0.05, 0.95, 19)))
    shares = [(found <= step).mean() for step in steps]
    np.testing.assert_allclose(shares, reference.cdf(steps), atol=0.03)


def test_log_densities_are_scipys():
    values = torch.linspace(-5, 5, 11, dtype=torch.float64)
    found = StudentT(*scalars(4.0, 1.0, 2.0)).log_prob(values)
    np.testing.assert_allclose(found, stats.t(4, 1, 2).logpdf(values.numpy()), rtol=1e-9)
    found = Normal(*scalars(1.0, 2.0)).log_prob(values)
    np.testing.assert_allclose(found, stats.norm(1, 2).logpdf(values.numpy()), rtol=1e-9)


def test_the_incomplete_beta_function_is_scipys():
    rng = np.random.default_rng(0)
    a, b = 10 ** rng.uniform(-2, 4, (2, 3000))
    x = np.concatenate([rng.random(2000), 10 ** rng.uniform(-12, 0, 1000)])
    found = incomplete_beta(*map(torch.from_numpy, (x, a, b))).numpy()
    np.testing.assert_allclose(found, special.betainc(a, b, x), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("df", [2.01, 3.0, 10.0, 1e4])
def test_levels_of_student_t_are_scipys_far_into_the_tails(df):
    distribution = StudentT(*scalars(df, 1.0, 2.0))
    values = torch.tensor([-300.0, -20.0, -1.0, 1.0, 1.5, 9.0], dtype=torch.float64)
    found, expected = distribution.cdf(values), stats.t(df, 1, 2).cdf(values.numpy())
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-300)
    levels = torch.tensor([1e-6, 0.01, 0.5, 0.9, 1 - 1e-6], dtype=torch.float64)
    expected = stats.t(df, 1, 2).ppf(levels.numpy())
    np.testing.assert_allclose(distribution.quantile(levels), expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize(("total", "mean"), [(0.3, 0.5), (2.0, 20.0), (50.0, 3000.0)])
def test_levels_of_counts_are_the_middle_of_their_steps(total, mean):
    count, logits, scale = scalars(total, math.log(mean / total), 4.0)
    distribution = NegativeBinomial(count, logits, scale)
    reference = stats.nbinom(total, total / (total + mean))
    counts = np.unique(np.linspace(0, 3 * mean, 20).round())
    found = distribution.cdf(torch.from_numpy(counts / 4.0))
    middle = reference.cdf(counts) - reference.pmf(counts) / 2
    np.testing.assert_allclose(found, middle, rtol=1e-7, atol=1e-9)
    levels = torch.tensor([0.1, 0.5, 0.99], dtype=torch.float64)
    found = distribution.quantile(levels) * 4.0
    np.testing.assert_array_equal(found.numpy(), reference.ppf(levels.numpy()))


def flow(seed=0, size=1.0):
    raw = torch.randn(
        NUM_SPLINE_NUMBERS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return Flow(make_spline(size * raw), *scalars(0.5, 2.0))


@pytest.mark.parametrize("seed", range(5))
def test_a_flow_is_a_density_and_draws_from_it(seed):
    distribution = flow(seed)
    grid = torch.linspace(-30, 31, 400_001, dtype=torch.float64)
    density = distribution.log_prob(grid).exp()
    assert torch.trapezoid(density, grid).item() == pytest.approx(1.0, abs=1e-4)
    level = torch.cumulative_trapezoid(density, grid)
    np.testing.assert_allclose(distribution.cdf(grid[1:]), level, atol=2e-4)
    # The cumulative distribution is built from the density, so this ties draws to densities.
    assert stats.kstest(draws(distribution), lambda x: np.interp(x, grid[1:], level)).pvalue > 1e-3


@pytest.mark.parametrize("seed", range(5))
def test_a_spline_is_monotone_and_its_inverse_undoes_it(seed):
    spline = flow(seed).spline
    argument = torch.linspace(-8.001, 8, 2001, dtype=torch.float64)  # beside the ends
    value = spline(argument)
    assert (value.diff() > 0).all()
    back, slope = spline.inverse(value)
    np.testing.assert_allclose(back, argument, atol=1e-8)
    step = 1e-6
    measured = (spline(argument + step) - spline(argument - step)) / (2 * step)
    np.testing.assert_allclose(slope, measured, rtol=1e-3, atol=1e-4)


def test_zeros_make_the_identity():
    spline = make_spline(torch.zeros(NUM_SPLINE_NUMBERS, dtype=torch.float64))
    argument = torch.linspace(-7, 7, 101, dtype=torch.float64)
    np.testing.assert_allclose(spline(argument), argument, atol=1e-12)


def test_a_grid_of_quantiles_loses_the_pinball_loss():
    levels = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    grid = QuantileGrid(Quantiles(torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64), levels))
    value = torch.tensor(1.0, dtype=torch.float64)
    assert grid.loss(value).item() == pytest.approx((0.2 + 0.5 + 0.1) / 3)
    np.testing.assert_allclose(grid.quantile(levels), [-1.0, 0.0, 2.0], atol=1e-12)
    np.testing.assert_allclose(
        torch.stack([grid.cdf(torch.tensor(x).double()) for x in (0.0, 1.0)]), [0.5, 0.7]
    )
