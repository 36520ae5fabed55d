"""Covariates as inputs of networks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from lightning_fabric import Fabric

from llamacast.applied.cria import AppliedCria
from llamacast.applied.lag_llama import AppliedLagLlama
from llamacast.applied.request import Request
from llamacast.data.covariates import UNIT_TOLD, CovariateInputs
from llamacast.data.frame import read_panel
from llamacast.forecast import DataError
from llamacast.model import checkpoint
from llamacast.training.finetune import (
    FinetuneConfig,
    _corpus,
    finetune,
    inputs_of,
    prepared,
    split,
)
from tests.training.small_run import SMALL, SMALL_CRIA

HORIZON = 8
KINDS = [
    pytest.param(SMALL_CRIA, AppliedCria, id="cria"),
    pytest.param(SMALL, AppliedLagLlama, id="lag-llama"),
]


def network(config, num_covariates=0):
    found = checkpoint.make_network(dataclasses.replace(config, num_covariates=num_covariates))
    found.initialise(torch.Generator().manual_seed(0))
    return found.eval()


def table(num_steps=160, num_series=6, seed=0):
    rng = np.random.default_rng(seed)
    parts = []
    for n in range(num_series):
        event = (rng.random(num_steps) < 0.2).astype(float)
        y = 10 + np.sin(np.arange(num_steps)) + 8 * event + 0.1 * rng.normal(size=num_steps)
        stamps = pd.date_range("2024-01-01", periods=num_steps, freq="D")
        parts.append(
            pd.DataFrame({"unique_id": f"s{n}", "ds": stamps, "y": y, "event": event, "one": 1.0})
        )
    return pd.concat(parts)


def request(panel):
    return Request(panel, HORIZON, 10, 64, 0, None, True, 2**28, False)


def halves(frame):
    step = frame.groupby("unique_id").cumcount()
    last = frame.unique_id.value_counts().iloc[0] - HORIZON
    return frame[step < last], frame[step >= last].drop(columns="y")


@pytest.fixture
def panel():
    history, future = halves(table())
    return read_panel(history, future_frame=future, horizon=HORIZON)


@pytest.mark.parametrize(("config", "applied"), KINDS)
def test_a_network_that_is_about_to_learn_says_what_it_said(config, applied, panel):
    net = network(config)
    start = prepared(net, FinetuneConfig(HORIZON), num_covariates=2)
    assert start.config.num_covariates == 2
    inputs = CovariateInputs(("event", "one"), (True, True), (0.2, 1.0), (0.4, 1.0), HORIZON)
    before = applied(net).sample(request(panel))
    after = applied(start, inputs).sample(request(panel))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("config", "applied"), KINDS)
def test_what_lies_beside_the_horizon_alters_the_forecast_of_its_step(config, applied, panel):
    net = network(config, num_covariates=1)
    inputs = CovariateInputs(("event",), (True,), (0.2,), (0.4,), HORIZON)
    before = applied(net, inputs).sample(request(panel))
    values = [one.copy() for one in panel.covariates.values]
    values[2][-1, 0] += 3.0  # the last step of the horizon
    changed = dataclasses.replace(
        panel, covariates=dataclasses.replace(panel.covariates, values=values)
    )
    after = applied(net, inputs).sample(request(changed))
    others = [n for n in range(len(panel)) if n != 2]
    np.testing.assert_allclose(after[others], before[others], rtol=1e-5, atol=1e-5)
    assert np.abs(after[2, :, -1] - before[2, :, -1]).max() > 1e-4
    if applied is AppliedLagLlama:  # a patch is told as a whole
        np.testing.assert_allclose(after[2, :, :-1], before[2, :, :-1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("config", "applied"), KINDS)
def test_a_series_is_forecast_alone_as_in_company(config, applied, panel):
    net = network(config, num_covariates=1)
    inputs = CovariateInputs(("event",), (True,), (0.2,), (0.4,), HORIZON)
    together = applied(net, inputs).sample(request(panel))
    alone = applied(net, inputs).sample(request(panel.choose([3])))
    np.testing.assert_allclose(alone[0], together[3], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("config", "applied"), KINDS)
def test_what_matters_is_learnt(config, applied, panel, tmp_path):
    fabric = Fabric(devices=1, accelerator="cpu")
    plain = dataclasses.replace(panel, covariates=None)
    asked = FinetuneConfig(HORIZON, steps=120, learning_rate=1e-2)
    found = {
        name: finetune(network(config), one, asked, tmp_path / name, fabric)
        for name, one in (("with", panel), ("without", plain))
    }
    _, verdict, inputs = found["with"]
    assert inputs.names == ("event",)  # the other never changes
    assert found["without"][2] is None
    assert verdict.crps_after < 0.7 * found["without"][1].crps_after
    loaded = checkpoint.load(tmp_path / "with" / "model")
    again = CovariateInputs.load(tmp_path / "with" / "model")
    assert again == inputs
    one, two = (applied(net, inputs).sample(request(panel)) for net in (found["with"][0], loaded))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(("config", "applied"), KINDS)
def test_other_questions_take_covariates_as_usual(config, applied, panel):
    net = network(config, num_covariates=1)
    inputs = CovariateInputs(("event",), (True,), (0.2,), (0.4,), HORIZON)
    asked = applied(net, inputs)
    plain = dataclasses.replace(panel, covariates=None)
    assert np.isfinite(asked.hindcast(plain).levels(plain.values)[0][60:]).all()
    assert next(iter(asked.read(plain))).hidden.isfinite().all()
    assert len(asked.attend(plain.choose([0])).weights) == 1


def test_what_is_known_in_the_past_only_is_learnt_as_late_as_it_is_told():
    panel = read_panel(table(), covariates=["event"], horizon=0)
    asked = FinetuneConfig(HORIZON)
    parts = split(panel, asked)
    inputs = inputs_of(panel, parts, asked)
    assert inputs.ahead == (False,)
    corpus = _corpus(panel, parts, inputs)
    for number, known in enumerate(panel.covariates.values):
        told = (known[:, 0] - inputs.mean[0]) / inputs.width[0] * UNIT_TOLD
        learnt = corpus.covariates[slice(*corpus.bounds[number : number + 2]), 0]
        assert len(learnt) == parts.ends[number]
        np.testing.assert_allclose(learnt[HORIZON:], told[: len(learnt) - HORIZON], rtol=1e-5)


def test_covariates_that_are_not_given_are_named(panel):
    inputs = CovariateInputs(("event", "price"), (True, True), (0.2, 1.0), (0.4, 1.0), HORIZON)
    with pytest.raises(DataError, match="'price', which is not given"):
        inputs.matrices(panel)
    with pytest.raises(DataError, match=r"fine-tuned with covariates \(event, price\)"):
        inputs.matrices(dataclasses.replace(panel, covariates=None))


def test_a_word_that_does_not_occur_is_none_of_the_others(panel):
    named = dataclasses.replace(panel.covariates, names=("kind=red", "kind=blue"))
    inputs = CovariateInputs(("kind=green",), (True,), (0.25,), (0.5,), HORIZON)
    found = inputs.matrices(dataclasses.replace(panel, covariates=named))
    np.testing.assert_allclose(found[0], -0.5 * UNIT_TOLD)


def test_adapters_have_no_place_for_covariates(panel, tmp_path):
    fabric = Fabric(devices=1, accelerator="cpu")
    with pytest.raises(DataError, match="'full'"):
        finetune(network(SMALL), panel, FinetuneConfig(HORIZON, "lora"), tmp_path / "x", fabric)
    assert not (tmp_path / "x").exists()
