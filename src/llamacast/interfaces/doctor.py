"""What is installed here, and whether it forecasts."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from llamacast import __version__

NEEDED = ("torch", "numpy", "pandas", "pyarrow", "safetensors", "matplotlib", "typer")
# What each extra brings, by the library that tells of it.
OPTIONAL = {
    "train": "lightning-fabric",
    "finetune": "peft",
    "text": "transformers",
    "serve": "fastapi",
    "mcp": "mcp",
    "covariates": "holidays",
    "baselines": "statsforecast",
    "deep": "neuralforecast",
    "onnx": "onnx",
    "ray": "ray",
    "spark": "pyspark",
}
PACKAGED = ("cria", "lag-llama")
COMPILERS = ("cc", "gcc", "clang")
LENGTH, HORIZON = 96, 12
# Of a wave of height 1 without noise; either model is far below.
LARGEST_ERROR = 0.3


def examine() -> Iterator[tuple[str, str, bool]]:
    """Findings: what, how it is, and whether that is well."""
    yield "llamacast", __version__, True
    yield "python", f"{platform.python_version()} on {platform.platform()}", True
    for name in NEEDED:
        found = _version(name)
        yield name, found or "missing", found is not None
    for extra, name in OPTIONAL.items():
        found = _version(name)
        yield f"[{extra}]", found or f"not installed (pip install 'llamacast[{extra}]')", True
    try:
        import torch
    except ImportError as error:
        yield "threads", f"not known: {error}", False
    else:
        yield from _devices(torch)
    for name in PACKAGED:
        yield from _weights(name)


def _devices(torch: Any) -> Iterator[tuple[str, str, bool]]:
    given = os.environ.get("OMP_NUM_THREADS")
    threads = f"{torch.get_num_threads()} of {os.cpu_count()} cores"
    yield "threads", threads + (f" (OMP_NUM_THREADS={given})" if given else ""), True
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    yield "cuda", cuda, True
    yield "mps", "there" if torch.backends.mps.is_available() else "none", True
    # As sampling/native.py looks for one.
    asked = os.environ.get("CC", "").split()[:1]
    compiler = next(filter(None, map(shutil.which, [*asked, *COMPILERS])), None)
    yield "C compiler", compiler or "none: torch runs the networks, somewhat slower", True


def _weights(name: str) -> Iterator[tuple[str, str, bool]]:
    """The packaged weights, and a wave that they must go on with."""
    folder = Path(str(files("llamacast") / "weights" / name))
    try:
        import numpy as np

        from llamacast.forecaster import load

        size = (folder / "model.safetensors").stat().st_size / 1e6
        forecaster = load(name, device="cpu")
        wave = np.sin(np.arange(LENGTH + HORIZON) * 2 * np.pi / 24)
        begun = time.perf_counter()
        found = forecaster.forecast(wave[:LENGTH], HORIZON, progress=False)
        seconds = time.perf_counter() - begun
    except Exception as error:
        # Whatever it is, the doctor is there to tell of it.
        yield name, f"does not forecast: {error}", False
        return
    missed = float(np.abs(found.median[0] - wave[LENGTH:]).mean())
    well = bool(np.isfinite(found.samples).all()) and missed < LARGEST_ERROR
    yield name, f"{size:.1f} MB; forecasts a wave in {seconds:.2f} s, off by {missed:.3f}", well


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
