from __future__ import annotations

import builtins

import numpy as np
import pandas as pd
import pytest
import torch

import llamacast
from llamacast import DataError
from llamacast.adapting import finetuning
from llamacast.adapting.features import fit_head
from llamacast.applied.cria import AppliedCria
from llamacast.data.frame import read_panel
from llamacast.forecaster import CriaForecaster
from llamacast.model import checkpoint
from llamacast.training.finetune import FinetuneConfig, split
from tests.training.small_run import SMALL_CRIA


@pytest.fixture(scope="module")
def forecaster():
    return llamacast.load("cria", device="cpu")


def table(num_steps=240, num_series=3):
    rng = np.random.default_rng(0)
    parts = []
    for n in range(num_series):
        event = (rng.random(num_steps) < 0.2).astype(float)
        y = 10 + np.sin(np.arange(num_steps) / 3) + 6 * event + 0.2 * rng.normal(size=num_steps)
        days = pd.date_range("2024-01-01", periods=num_steps)
        parts.append(pd.DataFrame({"unique_id": f"s{n}", "ds": days, "y": y, "event": event}))
    return pd.concat(parts)


def test_a_fine_tuned_forecaster_asks_for_its_covariates(forecaster, tmp_path):
    frame = table()
    step = frame.groupby("unique_id").cumcount()
    history, future = frame[step < 232], frame[step >= 232].drop(columns="y")
    tuned = forecaster.finetune(
        history, 8, covariates=["event"], steps=24, learning_rate=2e-3, progress=False
    )
    assert tuned.verdict.improved
    tuned.save(tmp_path)
    loaded = llamacast.load(tmp_path, device="cpu")
    asked = {"num_samples": 10, "future_frame": future}
    one, two = (forecaster.forecast(history, 8, **asked) for forecaster in (tuned, loaded))
    np.testing.assert_array_equal(one.samples, two.samples)
    assert not one.notes
    told = tuned.forecast(history, 8, holidays="DE", **asked)
    np.testing.assert_array_equal(told.samples, one.samples)
    assert "has not learnt holiday, day before holiday" in told.notes[0]
    with pytest.raises(DataError, match="event"):
        tuned.forecast(history, 8)
    with pytest.raises(DataError, match="covariates already"):
        tuned.finetune(history, 8)


def test_what_is_missing_is_told_of(forecaster, monkeypatch):
    there = builtins.__import__

    def without(name, *rest):
        if name.startswith("sklearn"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return there(name, *rest)

    monkeypatch.delitem(finetuning.__dict__, "fit_head", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    for module in ("llamacast.adapting.features",):
        monkeypatch.delitem(__import__("sys").modules, module, raising=False)
    with pytest.raises(DataError, match=r"sklearn.*pip install 'llamacast\[finetune\]'"):
        forecaster.finetune(table(), 8, strategy="features")


def test_a_regression_on_hidden_vectors_mends_what_can_be_told(monkeypatch):
    """A network of drawn weights, whose medians say little: the ridge does better."""
    network = checkpoint.make_network(SMALL_CRIA)
    network.initialise(torch.Generator().manual_seed(0))
    panel = read_panel(table(num_series=8)[["unique_id", "ds", "y"]])
    config = FinetuneConfig(8)
    parts = split(panel, config)
    head, verdict = fit_head(AppliedCria(network.eval()), panel, parts, 128, 0)
    assert verdict.improved
    assert verdict.crps_after < verdict.crps_before
    assert head.coefficients.shape == (SMALL_CRIA.width, 8)
    # Also where a single value is wanted, of which no width is told.
    mended = CriaForecaster(network, "small", "cpu", features=head)
    one, many = (mended.forecast(panel, 8, num_samples=n, joint=False).median for n in (1, 101))
    plain = CriaForecaster(network, "small", "cpu")
    frozen = plain.forecast(panel, 8, num_samples=1, joint=False).median
    np.testing.assert_allclose(one, many, rtol=2e-3)
    assert (abs(one - frozen) > 0.01).any()


def test_features_are_learnt_without_covariates(forecaster):
    with pytest.raises(DataError, match="'features' learns from the series alone"):
        forecaster.finetune(table(), 8, strategy="features", covariates=["event"])


def test_what_was_known_ahead_in_learning_is_wanted_in_forecasting(forecaster):
    frame = table().assign(other=lambda f: np.sin(np.arange(len(f))))
    step = frame.groupby("unique_id").cumcount()
    history, future = frame[step < 226], frame[step >= 226].drop(columns="y")
    tuned = forecaster.finetune(
        history,
        8,
        covariates=["event", "other"],
        future_frame=future.drop(columns="other"),
        steps=12,
        learning_rate=2e-3,
        progress=False,
    )
    assert tuned.inputs.ahead == (True, False)
    with pytest.raises(DataError, match="'event' of series 's0' is not known at 2024-08-14"):
        tuned.forecast(history, 8, covariates=["event", "other"])
    longer = tuned.forecast(
        history, 14, covariates=["event", "other"], future_frame=future, num_samples=5
    )
    assert np.isfinite(longer.samples).all()


def test_holidays_are_learnt_from(forecaster):
    frame = table(num_steps=400)
    tuned = forecaster.finetune(
        frame[["unique_id", "ds", "y"]], 8, holidays="DE", steps=2, progress=False
    )
    if tuned.verdict.improved:
        assert "holiday" in tuned.inputs.names


def test_an_adapter_is_the_same_however_often_it_is_asked_for(forecaster, tmp_path):
    options = {"strategy": "lora", "steps": 24, "learning_rate": 5e-3}
    options |= {"context_length": 256, "progress": False}
    adapter = tmp_path / "adapter" / "adapter_model.safetensors"
    found = []
    for _ in range(2):
        tuned = forecaster.finetune(table(), 8, directory=tmp_path, **options)
        assert tuned.verdict.improved
        found.append(adapter.read_bytes())
    assert found[0] == found[1]
    loaded = llamacast.load(tmp_path / "adapter", device="cpu")
    assert loaded.model.config.context_length == 256
    samples = [one.forecast(table(), 8, num_samples=5).samples for one in (tuned, loaded)]
    np.testing.assert_allclose(*samples, rtol=1e-3, atol=1e-3)
    assert loaded.training == tuned.training != forecaster.training
    # What has been learnt from is not forgotten when less recent data are.
    earlier = table().assign(ds=lambda frame: frame.ds - pd.Timedelta("400D"))
    assert tuned.finetune(earlier, 8, steps=1, progress=False).training == tuned.training
    # Of a forecaster that nothing loads, an adapter would fit nothing.
    tuned.finetune(table(), 8, strategy="lora", steps=4, directory=tmp_path / "b", progress=False)
    assert not (tmp_path / "b" / "adapter").exists()


def test_a_folder_is_of_one_run_and_one_model(forecaster, tmp_path):
    options = {"strategy": "head", "steps": 2, "directory": tmp_path, "progress": False}
    forecaster.finetune(table(), 8, **options)
    other = table().assign(y=lambda f: f.y + 1)
    with pytest.raises(llamacast.CheckpointError, match="differs in data"):
        forecaster.finetune(other, 8, **options)
    with pytest.raises(llamacast.CheckpointError, match="strategy"):
        forecaster.finetune(table(), 8, **{**options, "strategy": "features"})
    (tmp_path / "model" / "features.safetensors").write_text("of another model")
    forecaster.save(tmp_path / "model")
    assert llamacast.load(tmp_path / "model").features is None


def test_counts_are_wanted_for_a_distribution_of_counts():
    with pytest.raises(DataError, match=r"negative_binomial is for counts.*'s0'"):
        llamacast.load("lag-llama", device="cpu").finetune(
            table(), 8, head="negative_binomial", progress=False
        )
