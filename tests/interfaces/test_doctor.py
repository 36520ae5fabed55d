from __future__ import annotations

from typer.testing import CliRunner

from llamacast.forecast import CheckpointError
from llamacast.interfaces import doctor
from llamacast.interfaces.cli import app


def test_here_all_is_well():
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert all(line.startswith("ok") for line in lines)
    for name in ("llamacast", "torch", "cria", "lag-llama", "threads", "[serve]"):
        assert any(line.split()[1] == name for line in lines), name


def test_what_does_not_forecast_is_told_and_what_is_missing_too(monkeypatch):
    def broken(name, device):
        raise CheckpointError("the weights are damaged")

    monkeypatch.setattr("llamacast.forecaster.load", broken)
    monkeypatch.setattr(doctor, "NEEDED", ("torch", "no-such-library"))
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "BAD cria" in result.output
    assert "the weights are damaged" in result.output
    assert "BAD no-such-library missing" in result.output
