from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import stats

from llamacast.model.config import lag_llama, official_lag_llama
from llamacast.model.heads import NegativeBinomial, Normal, StudentT, make_head
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


# --- Drawing from uniforms -------------------------------------------------------------------------


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


@pytest.mark.parametrize("name", ["student_t", "normal", "negative_binomial", "quantile_network"])
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
