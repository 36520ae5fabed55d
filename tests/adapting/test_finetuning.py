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
from llamacast.adapting.report import Report
from llamacast.applied.cria import AppliedCria
from llamacast.data.frame import read_panel
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


def test_blocks_run_in_bfloat16_where_the_processor_multiplies_it(monkeypatch, tmp_path):
    flags = tmp_path / "cpuinfo"
    monkeypatch.setattr(finetuning, "CPU_FLAGS", flags)
    cpu = torch.device("cpu")
    assert not finetuning._multiplies_bfloat16(cpu)
    flags.write_text("flags : sse avx2 avx512f")
    assert not finetuning._multiplies_bfloat16(cpu)
    flags.write_text("flags : sse avx512_bf16 avx2")
    assert finetuning._multiplies_bfloat16(cpu)


def test_a_report_is_silent_unless_asked(capsys):
    for progress in (None, False):
        Report(progress).line("[bold]something")
    assert capsys.readouterr().err == ""
    report = Report(True)
    report.line("[bold]something")
    report.row({"step": 3, "minutes": 0.5, "loss": 0.25, "learning_rate": 1e-3})
    told = capsys.readouterr().err
    assert "[bold]something" in told
    assert "step 3  minutes 0.50  loss 0.2500" in told


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
