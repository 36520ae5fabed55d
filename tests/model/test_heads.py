from __future__ import annotations

import dataclasses
from typing import get_args

import pytest
import torch

from llamacast.model.config import HeadName, lag_llama, official_lag_llama
from llamacast.model.heads import make_head
from llamacast.model.official import translate_official_weights

HEADS = {"studentT": "student_t", "neg_bin": "negative_binomial", "iqn": "quantile_network"}


@pytest.fixture
def official_head(golden):
    """A head of width 24 with the fixture's weights."""

    def build(key):
        fixture = golden("heads")
        scaling = "mean" if key == "neg_bin" else "robust"
        config = dataclasses.replace(
            official_lag_llama(), num_heads=3, head_width=8, head=HEADS[key], scaling=scaling
        )
        head = make_head(config)
        named = {f"param_proj.{name}": w for name, w in fixture.under(f"{key}.w.").items()}
        ours = translate_official_weights(named, "fixture")
        head.load_state_dict({name.removeprefix("head."): w for name, w in ours.items()})
        return head.eval(), fixture

    return build


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_student_t_is_the_official_one(official_head):
    head, fixture = official_head("studentT")
    loc, scale = fixture["loc"], fixture["scale"]
    found = head(fixture["x"], torch.zeros(2, 4), scale)
    for name in ("df", "loc", "scale"):
        close(getattr(found, name), fixture[f"studentT.{name}"])
    in_data_units = found.log_prob((fixture["value"] - loc) / scale) - scale.log()
    close(in_data_units, fixture["studentT.log_prob"])
    close(found.mean * scale + loc, fixture["studentT.mean"])
    close(found.variance * scale**2, fixture["studentT.variance"])


def test_negative_binomial_is_the_official_one_however_often_it_is_asked(official_head):
    head, fixture = official_head("neg_bin")
    scale = fixture["scale"]
    for _ in range(2):  # the official code scales twice when asked twice
        found = head(fixture["x"], torch.zeros(2, 4), scale)
        close(found.total_count, fixture["neg_bin.total_count"])
        close(found.logits, fixture["neg_bin.logits"] + scale.log())
        close(found.log_prob(fixture["value"] / scale), fixture["neg_bin.log_prob"])
        close(found.mean * scale, fixture["neg_bin.mean"])
        close(found.variance * scale**2, fixture["neg_bin.variance"])


def test_quantile_network_is_the_official_one(official_head):
    head, fixture = official_head("iqn")
    for prefix in ("iqn.", "iqn.train."):
        close(
            head.at(fixture["x"], fixture[f"{prefix}taus"]), fixture[f"{prefix}quantile_function"]
        )
    loc, scale, taus = fixture["loc"], fixture["scale"], fixture["iqn.taus"]
    found = head(fixture["x"], torch.zeros(2, 4), scale)
    close(found.quantile(taus) * scale + loc, fixture["iqn.outputs"])
    close(found.quantile_loss((fixture["value"] - loc) / scale, taus) * scale, fixture["iqn.loss"])


def test_extreme_raw_values_stay_in_the_domain(golden):
    fixture = golden("heads")
    raw = fixture["studentT.raw"]
    hidden = raw[:, None]
    head = make_head(dataclasses.replace(official_lag_llama(), num_heads=1, head_width=2))
    for projection in (head.df, head.loc, head.scale):
        projection.weight = torch.nn.Parameter(torch.tensor([[1.0, 0.0]]))
        torch.nn.init.zeros_(projection.bias)
    found = head(
        torch.cat([hidden, torch.zeros_like(hidden)], 1), torch.zeros(12), torch.ones(1, 1)
    )
    for name in ("df", "loc", "scale"):
        close(getattr(found, name), fixture[f"studentT.raw_{name}"])


@pytest.mark.parametrize("name", get_args(HeadName))
def test_mean_is_that_of_many_draws(name):
    scaling = "mean" if name == "negative_binomial" else "robust"
    config = dataclasses.replace(lag_llama(), num_heads=1, head_width=4, head=name, scaling=scaling)
    torch.manual_seed(1)
    head = make_head(config)
    hidden, scale = torch.randn(3, 4), torch.full((3, 1), 2.0)
    with torch.no_grad():
        found = head(hidden[:, None], torch.zeros(3, 1), scale)
        uniforms = torch.rand(3, 20_000, 2, generator=torch.Generator().manual_seed(0))
        average = found.sample(uniforms).mean(dim=1, keepdim=True)
    torch.testing.assert_close(average, found.mean, rtol=0.1, atol=0.06)


@pytest.mark.parametrize("name", get_args(HeadName))
def test_levels_and_quantiles_are_inverse_and_draws_follow_them(name):
    scaling = "mean" if name == "negative_binomial" else "robust"
    config = dataclasses.replace(lag_llama(), num_heads=1, head_width=4, head=name, scaling=scaling)
    torch.manual_seed(1)
    head = make_head(config)
    with torch.no_grad():
        found = head(torch.randn(2, 1, 4), torch.zeros(2, 1), torch.full((2, 1), 20.0))
        uniforms = torch.rand(2, 4000, 2, generator=torch.Generator().manual_seed(0))
        drawn = found.sample(uniforms)
        level = found.cdf(drawn)
        asked = torch.tensor([[0.05], [0.3], [0.5], [0.9]], dtype=torch.float64).unsqueeze(2)
        values = found.quantile(asked.expand(4, 2, 1))
        shares = (drawn < values).double().mean(dim=2, keepdim=True)
        shares += (drawn == values).double().mean(dim=2, keepdim=True)
    assert values.shape == (4, 2, 1)
    assert level.dtype == torch.float64
    torch.testing.assert_close(
        level.mean(dim=1), torch.full((2,), 0.5, dtype=torch.float64), atol=0.03, rtol=0
    )
    if name == "quantile_network":
        return  # nothing keeps its quantiles from crossing
    slack = 0.03 if name != "negative_binomial" else 0.25  # few counts take all the mass
    assert ((shares - asked) > -0.03).all()
    assert ((shares - asked) < slack).all()
    order = drawn.argsort(dim=1)
    assert (level.gather(1, order).diff() >= -1e-6).all()
