from __future__ import annotations

import dataclasses

import pytest
import torch

from llamacast.model.config import lag_llama, official_lag_llama
from llamacast.model.tokens import fill_missing, gather_lags, limit, token_calendar


def test_a_window_gathers_what_single_steps_gather():
    values, lags = torch.randn(2, 60), (0, 3, 7, 20)
    window = gather_lags(values, lags, context_length=30)
    for step in range(30):
        single = gather_lags(values[:, : 31 + step], lags, context_length=1)
        assert torch.equal(window[:, step], single[:, 0])


def test_lags_look_back_as_far_as_they_say():
    values = torch.arange(50.0)[None]
    assert gather_lags(values, (0, 7), 2).tolist() == [[[48.0, 41.0], [49.0, 42.0]]]
    with pytest.raises(AssertionError, match="history"):
        gather_lags(values, (0, 49), 2)


def test_missing_values_are_carried_or_zero():
    values = torch.tensor([[9.0, 1.0, 9.0, 2.0, 9.0]])
    observed = torch.tensor([[False, True, False, True, False]])
    location = torch.tensor([[1.5]])
    carried = fill_missing(values, observed, location, lag_llama())
    assert carried.tolist() == [[1.5, 1.0, 1.0, 2.0, 2.0]]
    zeroed = fill_missing(values, observed, location, official_lag_llama())
    assert zeroed.tolist() == [[0.0, 1.0, 0.0, 2.0, 0.0]]


def test_the_limit_is_smooth_odd_and_leaves_the_bulk_alone():
    config = lag_llama()
    values = torch.linspace(-1e4, 1e4, 2001, dtype=torch.float64)
    limited = limit(values, config)
    bulk = values.abs() <= config.input_limit
    assert torch.equal(limited[bulk], values[bulk])
    assert (limited.diff() > 0).all()
    torch.testing.assert_close(limited, -limited.flip(0))
    assert torch.equal(limit(values, official_lag_llama()), values)


def test_calendar_tells_the_step_that_the_config_names():
    calendar = torch.arange(5.0)[None, :, None].expand(1, 5, 6)

    def told(choice):
        config = dataclasses.replace(lag_llama(), calendar=choice)
        return token_calendar(calendar, config)

    assert told("next")[0, :, 0].tolist() == [1, 2, 3, 4]
    assert told("current")[0, :, 0].tolist() == [0, 1, 2, 3]
    assert told("none").shape == (1, 4, 0)
