from __future__ import annotations

import pytest
import torch

from llamacast.model import checkpoint
from llamacast.sampling.reading import (
    attend_patches,
    attend_values,
    read_patches,
    read_values,
)
from tests.training.small_run import SMALL, SMALL_CRIA

CONTEXT = 40


def network(config):
    found = checkpoint.make_network(config)
    found.initialise(torch.Generator().manual_seed(0))
    return found.eval()


def data(num_series=3):
    rng = torch.Generator().manual_seed(0)
    time = SMALL.max_lag + CONTEXT
    values = torch.randn(num_series, time, generator=rng, dtype=torch.float64).cumsum(dim=1)
    return values, torch.ones_like(values, dtype=torch.bool)


def of_cria(values, observed, function=read_patches):
    seasons = torch.zeros(len(values), 2, dtype=torch.long)
    return function(network(SMALL_CRIA), values, observed, seasons)


def of_lag_llama(values, observed, function=read_values):
    calendar = torch.zeros(len(values), CONTEXT + 1, 6)
    return function(network(SMALL), values, observed, calendar)


KINDS = [pytest.param(of_cria, id="cria"), pytest.param(of_lag_llama, id="lag-llama")]


@pytest.mark.parametrize("read", KINDS)
def test_vectors_tell_shapes_not_units_nor_company(read):
    values, observed = data()
    together = read(values, observed)
    alone = read(values[1:2], observed[1:2])
    other = read(values * 1000 + 5, observed)
    for part in ("mean", "newest"):
        vectors = getattr(together, part)
        torch.testing.assert_close(getattr(alone, part), vectors[1:2], rtol=1e-4, atol=1e-4)
        if read is of_cria:  # Lag-Llama is told the location in scales
            torch.testing.assert_close(getattr(other, part), vectors, rtol=1e-3, atol=1e-3)
        assert (vectors[0] - vectors[1]).abs().max() > 1e-2


@pytest.mark.parametrize("read", KINDS)
def test_a_mean_leaves_out_what_was_not_observed(read):
    values, observed = data()
    observed[0, : values.shape[1] // 2] = False
    told = read(values.masked_fill(~observed, 0.0), observed)
    kept = told.hidden[0][told.told[0]]
    torch.testing.assert_close(told.mean[0], kept.mean(dim=0))
    assert told.told[1].sum() > told.told[0].sum()


def test_attention_is_shares_of_the_past():
    values, observed = data(1)
    found = of_lag_llama(values, observed, attend_values)
    assert found.weights.shape == (SMALL.num_layers, SMALL.num_heads, CONTEXT)
    torch.testing.assert_close(found.weights.sum(dim=2), torch.ones(1, 2))
    assert found.importance.shape == (len(SMALL.lags),)
    found = of_cria(values, observed, attend_patches)
    num_tokens = -(-values.shape[1] // SMALL_CRIA.patch_length)
    assert found.weights.shape == (1, SMALL_CRIA.num_heads, num_tokens)
    torch.testing.assert_close(found.weights.sum(dim=2), torch.ones(1, 2))
    assert found.importance.shape == (num_tokens,)


def test_what_is_not_looked_at_does_not_matter():
    """Of a lag whose weights are nothing, hiding changes nothing."""
    model, (values, observed) = network(SMALL), data(1)
    with torch.no_grad():
        model.transformer.embed.weight[:, [2, 5]] = 0.0  # the largest lag and its flag
        model.anchor.weight[2] = 0.0
        model.anchor.bias[2] = -1e9
    calendar = torch.zeros(1, CONTEXT + 1, 6)
    found = attend_values(model, values, observed, calendar)
    assert found.importance[2] == pytest.approx(0.0, abs=1e-6)  # rows of a batch round apart
    assert found.importance[0] > 0
