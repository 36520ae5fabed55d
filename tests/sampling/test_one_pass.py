from __future__ import annotations

import numpy as np
import pytest
import torch

from llamacast.model.quantiles import Quantiles
from llamacast.sampling.one_pass import (
    BYTES_PER_DRAW,
    BYTES_PER_TOKEN,
    TOKENS_ON_CPU,
    Answer,
    even_levels,
    evenly_spaced,
    forecast_quantiles,
    paths_through,
    plan_rows,
)
from llamacast.sampling.streams import uniforms
from tests.model.test_cria import SMALL, network, series

NO_SEASONS = torch.zeros(3, 2, dtype=torch.long)


def forecast(values, horizon, observed=None, seasons=NO_SEASONS):
    observed = torch.ones_like(values, dtype=torch.bool) if observed is None else observed
    return forecast_quantiles(network(), values, observed, seasons[: len(values)], horizon)


@pytest.mark.parametrize("horizon", [1, 7, 8, 9, 100, 1000])
def test_any_horizon_is_answered_and_a_shorter_one_is_the_beginning_of_a_longer(horizon):
    values = series().double()
    found = forecast(values, horizon).quantiles.values
    assert found.shape == (3, horizon, 21)
    assert found.isfinite().all()
    assert (found.diff(dim=-1) >= 0).all()
    longer = forecast(values, horizon + 20).quantiles.values
    torch.testing.assert_close(longer[:, :horizon], found, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("factor", "shift"), [(1e-9, 0.0), (3.0, 1e6), (1e12, -1e15), (1.0, 1e9)])
def test_shift_and_scale_are_exact(factor, shift):
    values = series().double()
    plain = forecast(values, 20).quantiles.values
    moved = forecast(factor * values + shift, 20).quantiles.values
    # As exact as numbers of that size are.
    lost = 1e-4 + 16 * 2.3e-16 * abs(shift) / factor
    torch.testing.assert_close((moved - shift) / factor, plain, rtol=0, atol=lost)


@pytest.mark.parametrize("padding", [1, 5, 8, 100])
def test_the_length_of_padding_does_not_matter(padding):
    values = series().double()
    seen = torch.ones_like(values, dtype=torch.bool)
    padded = torch.nn.functional.pad(values, (padding, 0), value=123.0)
    found = forecast(padded, 20, torch.nn.functional.pad(seen, (padding, 0)))
    torch.testing.assert_close(
        found.quantiles.values, forecast(values, 20).quantiles.values, rtol=1e-4, atol=1e-4
    )


def test_series_of_any_length_beside_each_other_are_forecast_as_if_alone():
    values = series(3, 75).double()
    observed = torch.ones_like(values, dtype=torch.bool)
    observed[1, :40] = False
    observed[2, :73] = False
    together = forecast(values, 30, observed)
    for row in range(3):
        one = slice(row, row + 1)
        alone = forecast(values[one], 30, observed[one])
        torch.testing.assert_close(
            alone.quantiles.values, together.quantiles.values[one], rtol=1e-4, atol=1e-4
        )
        torch.testing.assert_close(
            alone.persistence, together.persistence[one], rtol=1e-3, atol=1e-3
        )


@pytest.mark.parametrize("value", [0.0, 7.3, -1e12, 1e-12])
def test_a_constant_goes_on(value):
    values = torch.full((1, 30), value, dtype=torch.float64)
    assert forecast(values, 20).quantiles.values.eq(value).all()


def test_a_single_value_goes_on():
    assert forecast(torch.tensor([[5.0]]).double(), 9).quantiles.values.eq(5.0).all()


# The longer one is found in all that is known, and in no half of it.
@pytest.mark.parametrize("period", [12, 88])
def test_missing_values_at_the_end_widen_the_forecast_of_the_day_after(period):
    values = series(1, 160).double() + 3 * torch.sin(2 * torch.pi * torch.arange(160) / period)
    observed = torch.ones_like(values, dtype=torch.bool)
    observed[:, -24:] = False
    found = forecast(values, 8, observed).quantiles.values
    assert found.isfinite().all()
    # As of what follows the last known value, at that distance.
    afar = forecast(values[:, :-24], 32).quantiles.values[:, 24:]
    torch.testing.assert_close(found, afar, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("code", [-9999.0, 1e20])
def test_a_stray_is_as_good_as_missing(code):
    values = series(2, 160).double()
    strayed, observed = values.clone(), torch.ones_like(values, dtype=torch.bool)
    strayed[0, 90], observed[0, 90] = code, False
    found, without = forecast(strayed, 20), forecast(values, 20, observed)
    assert found.num_strays.tolist() == [1, 0]
    torch.testing.assert_close(found.quantiles.values, without.quantiles.values)


def test_intermittent_demand_is_finite_and_in_its_range():
    generator = torch.Generator().manual_seed(0)
    values = (torch.rand(3, 90, generator=generator) < 0.1).double() * 5
    found = forecast(values, 16).quantiles.values
    assert found.isfinite().all()


def made_up(persistence, growth=0.0, horizon=30, num_series=1):
    """Normal quantiles that widen as steps**growth."""
    levels = torch.tensor(SMALL.levels, dtype=torch.float64)
    width = torch.arange(1.0, horizon + 1).double() ** growth
    values = (width[:, None] * torch.special.ndtri(levels)).expand(num_series, -1, -1)
    tied = torch.full((num_series,), persistence, dtype=torch.float64)
    return Answer(Quantiles(values, levels), tied, torch.zeros(num_series).long())


def drawn(answer, num_samples, seed=0):
    count, horizon = answer.quantiles.values.shape[:2]
    return paths_through(
        answer, uniforms([str(n) for n in range(count)], seed, num_samples, horizon)
    )


@pytest.mark.parametrize("num_samples", [2, 5, 100, 201])
@pytest.mark.parametrize("persistence", [0.0, 0.9])
def test_quantiles_of_paths_are_exactly_those_of_the_network(num_samples, persistence):
    answer = made_up(persistence)
    paths = drawn(answer, num_samples)
    torch.testing.assert_close(paths.sort(dim=1).values, evenly_spaced(answer, num_samples))
    if num_samples == 201:
        deciles = np.quantile(paths[0].numpy(), np.arange(1, 10) / 10, axis=0)
        at = torch.arange(1, 10).double() / 10
        expected = answer.quantiles.at(at.expand(1, 30, -1))[0].T
        np.testing.assert_allclose(deciles, expected, atol=1e-6)


@pytest.mark.parametrize("persistence", [0.0, 0.5, 0.9])
def test_successive_steps_are_tied_as_errors_are(persistence):
    paths = drawn(made_up(persistence), 4000)[0]
    for step in (4, 20):
        found = np.corrcoef(paths[:, step], paths[:, step + 1])[0, 1]
        assert found == pytest.approx(persistence, abs=0.05)


def test_errors_that_pile_up_tie_steps_as_a_random_walk_does():
    paths = drawn(made_up(1.0, growth=0.5), 4000)[0]
    found = np.corrcoef(paths[:, 3], paths[:, 15])[0, 1]
    assert found == pytest.approx((4 / 16) ** 0.5, abs=0.06)


def test_paths_belong_to_the_seed_and_the_name():
    answer = made_up(0.5, num_series=2)
    one, again, other = drawn(answer, 50), drawn(answer, 50), drawn(answer, 50, seed=1)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not torch.equal(one[0], one[1])


def test_a_single_path_is_a_draw():
    answer = made_up(0.5, num_series=400, horizon=2)
    paths = drawn(answer, 1)[:, 0]
    assert paths.std(dim=0).tolist() == pytest.approx([1.0, 1.0], abs=0.15)
    assert len(paths.unique()) == paths.numel()


def noisy(innovation_share, time=400):
    generator = torch.Generator().manual_seed(7)
    news = torch.randn(3, time, generator=generator).double()
    return news.cumsum(dim=1) if innovation_share else news


def test_persistence_is_learnt_from_the_series_own_past():
    """Whatever the network makes of them, a random walk's errors stay and those of noise do not."""
    walk, noise = forecast(noisy(True), 8).persistence, forecast(noisy(False), 8).persistence
    assert (walk > noise + 0.2).all()


def test_levels_are_even_and_within():
    assert even_levels(1).tolist() == [0.5]
    assert even_levels(5).tolist() == [0.1, 0.25, 0.5, 0.75, 0.9]
    assert even_levels(101)[10].item() == pytest.approx(0.1)


def test_parts_hold_every_series_once_and_stay_within_the_budget():
    lengths = [5, 2000, 16, 17, 300] * 20
    for budget in (2**20, 40 * 2**20):
        parts, most = plan_rows(lengths, 20, 100, SMALL, True, budget)
        rows = np.concatenate([part.series for part in parts])
        assert sorted(rows) == list(range(100))
        assert most >= 1
        for part in parts:
            tokens = -(-max(lengths[row] for row in part.series) // 8) + 2
            needed = len(part.series) * (tokens * BYTES_PER_TOKEN + 100 * 20 * BYTES_PER_DRAW)
            assert needed <= budget or len(part.series) == 1
            assert len(part.series) * tokens <= TOKENS_ON_CPU


def test_many_samples_make_smaller_parts_and_fewer_at_a_time():
    few, many = (plan_rows([24] * 400, 48, count, SMALL, True, 2**26) for count in (10, 5000))
    assert len(many[0]) > len(few[0])
    assert many[1] <= few[1]


def test_a_series_larger_than_the_budget_is_answered_alone():
    parts, most = plan_rows([65536, 65536], 1, 100, SMALL, True, 1)
    assert [part.series.tolist() for part in parts] == [[0], [1]]
    assert most == 1
