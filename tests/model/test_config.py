from __future__ import annotations

import dataclasses

import pytest

from llamacast.data.calendar import parse_frequency, season_length
from llamacast.model.config import (
    LAGS,
    PAPER_LAGS,
    LagLlamaConfig,
    lag_llama,
    official_lag_llama,
    paper_lag_llama,
)


def test_lags_are_the_official_ones(golden):
    assert list(PAPER_LAGS) == golden("lags")["lag_indices"].tolist()


def test_presets_are_of_official_size():
    for config in (paper_lag_llama(), official_lag_llama()):
        assert (config.width, config.num_features, config.max_lag) == (144, 92, 1092)
    assert lag_llama().width == 144


def test_our_lags_hold_the_papers_and_each_natural_season():
    assert {*PAPER_LAGS} < {*LAGS}
    # Lag 0 is one step before what is predicted.
    names = ("5min", "10min", "15min", "30min", "min", "h", "D", "B", "W", "MS", "QS")
    assert all(season_length(parse_frequency(name)) - 1 in LAGS for name in names)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_layers", 0),
        ("num_layers", 2.0),
        ("num_heads", True),
        ("head_width", 7),
        ("context_length", 0),
        ("lags", (1, 2)),
        ("lags", (0, 5, 3)),
        ("lags", [0, 1]),
        ("head", "cauchy"),
        ("scaling", "max"),
        ("rotary", None),
        ("rotary_factor", 0.5),
        ("rotary_factor", "2"),
        ("dropout", 1.0),
        ("head_width", 10**18),
        ("num_layers", 10**9),
        ("rotary_factor", float("inf")),
        ("input_limit", float("nan")),
        ("input_limit", -1.0),
        ("anchor", "current"),
        ("lag_flags", 1),
    ],
)
def test_a_field_out_of_range_is_named(field, value):
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(lag_llama(), **{field: value})


def test_whole_rotary_factor_is_welcome():
    assert LagLlamaConfig(rotary="linear", rotary_factor=2).rotary_factor == 2


def test_counts_need_a_scaling_without_location():
    with pytest.raises(ValueError, match="scaling"):
        LagLlamaConfig(head="negative_binomial")
    assert LagLlamaConfig(head="negative_binomial", scaling="mean").scaling == "mean"
