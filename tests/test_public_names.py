from __future__ import annotations

import subprocess
import sys

import llamacast

PUBLIC = {
    "CheckpointError",
    "CriaForecaster",
    "DataError",
    "Forecast",
    "Forecaster",
    "LagLlamaForecaster",
    "TextForecaster",
    "load_text",
    "backtest",
    "baseline",
    "convert",
    "load",
}


def test_public_names_are_these():
    assert set(llamacast.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(llamacast, name).__doc__, name
    assert set(dir(llamacast)) >= PUBLIC


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, llamacast; "
        "print([name for name in ('torch', 'pandas', 'numpy', 'matplotlib') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_command_lines_help_does_not_import_torch():
    code = (
        "import sys; from typer.testing import CliRunner; from llamacast.interfaces.cli import app; "
        "CliRunner().invoke(app, ['forecast', '--help']); "
        "print([name for name in ('torch', 'pandas', 'matplotlib') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
