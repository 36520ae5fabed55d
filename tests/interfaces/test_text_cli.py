from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from llamacast.interfaces.cli import app
from llamacast.text.language import OWN_CODECS, Language, Settings, make_decoder


@pytest.fixture
def run():
    runner = CliRunner()
    return lambda *arguments: runner.invoke(app, ["text", *map(str, arguments)])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "small"
    small = make_decoder(width=16, num_layers=1, num_heads=1, num_key_value_heads=1)
    Language(small, Settings(OWN_CODECS, 160)).save(folder)
    return folder


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "table.csv"
    frames = [
        pd.DataFrame(
            {
                "unique_id": name,
                "ds": pd.date_range("2024-01-01", periods=30, freq="D"),
                "y": 3 + np.sin(np.arange(30) * 0.6 + phase),
                "farm": farm,
            }
        )
        for name, farm, phase in (
            ("a/fox", "a", 0),
            ("a/hare", "a", 1),
            ("b/fox", "b", 2),
            ("b/hare", "b", 3),
        )
    ]
    pd.concat(frames).to_csv(path, index=False)
    return path


def test_a_forecast_is_printed_written_and_drawn(run, model, table, tmp_path):
    out, picture = tmp_path / "out.csv", tmp_path / "out.png"
    options = ["--model", model, "--group-column", "farm", "--output", out, "--plot", picture]
    result = run("forecast", table, "--horizon", 4, *options)
    assert result.exit_code == 0, result.output
    frame = pd.read_csv(out)
    assert list(frame.columns) == ["unique_id", "ds", "mean", "0.1", "0.5", "0.9"]
    assert len(frame) == 16
    assert picture.stat().st_size > 10_000
    again = run("forecast", table, "--horizon", 4, *options)
    assert again.output == result.output


def test_fine_tuning_tells_its_cost_and_leaves_a_model(run, model, table, tmp_path):
    options = ["--group-column", "farm", "--steps", 3, "--batch", 2]
    result = run(
        "finetune", table, "--horizon", 4, "--model", model, "--output", tmp_path / "run", *options
    )
    assert result.exit_code == 0, result.output
    assert "FLOPs" in result.output
    assert "windows held back" in result.output
    forecast = run(
        "forecast",
        table,
        "--horizon",
        4,
        "--model",
        tmp_path / "run" / "model",
        "--group-column",
        "farm",
    )
    assert forecast.exit_code == 0, forecast.output


def test_a_budget_is_kept_to_before_anything_is_written(run, model, table, tmp_path):
    result = run(
        "finetune", table, "--horizon", 4, "--model", model, "--output", tmp_path / "run",
        "--flops-budget", "1e6",
    )  # fmt: skip
    assert result.exit_code == 2
    assert "more than the budget of 1.000e+06; 0 steps fit" in result.output
    assert not list((tmp_path / "run").glob("*.csv"))


def test_a_grid_is_told_best_first(run, model, table, tmp_path):
    result = run(
        "search", table, "--horizon", 4, "--model", model, "--output", tmp_path / "grid",
        "--learning-rates", "1e-3,1e-2", "--ranks", "2", "--contexts", "60,100",
        "--steps", 2, "--batch", 2, "--group-column", "farm",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert (tmp_path / "grid" / "search.png").exists()
    lines = [
        line.split()
        for line in result.stdout.splitlines()
        if line.strip().startswith(("-", "0", "1", "2", "3"))
    ]
    scores = [float(line[0]) for line in lines if len(line) == 4]
    assert len(scores) == 4
    assert scores == sorted(scores)


def test_flops_are_told_by_primitive(run):
    result = run("flops", "--tokens", 512, "--batch", 4, "--rank", 8)
    assert result.exit_code == 0
    assert "6,776,280,781,632" in result.output
    assert "14,757 steps fit into 1e+17 FLOPs" in result.output


def test_pretraining_leaves_a_model(run, tmp_path):
    result = run("pretrain", "--output", tmp_path / "run", "--steps", 1)
    assert result.exit_code == 0, result.output
    assert "is at step 1" in result.output
    assert (tmp_path / "run" / "model" / "codec.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nothing"], "no language model 'nothing'"),
        (["--quantiles", "2"], "--quantiles must lie between"),
        (["--text", "a holiday"], "reads digits only"),
        (["--output", "out.xlsx"], "--output must end in"),
    ],
)
def test_bad_requests_end_in_one_line(run, model, table, arguments, message):
    options = [] if "--model" in arguments else ["--model", model]
    result = run("forecast", table, "--horizon", 4, *options, *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1
