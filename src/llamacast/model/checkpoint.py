"""Networks on disk: safetensors beside a `config.json` that is checked field by field."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from llamacast.forecast import CheckpointError
from llamacast.model.config import LagLlamaConfig
from llamacast.model.lag_llama import LagLlama

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
ARCHITECTURE = "lag-llama"


def save(model: LagLlama, directory: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write weights (as `dtype`) and configuration; the configuration last, once all is there."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = {
        name: weight.detach().to("cpu", dtype).contiguous()
        for name, weight in model.state_dict().items()
    }
    save_file(weights, directory / WEIGHTS_FILE)
    config = {"architecture": ARCHITECTURE, **dataclasses.asdict(model.config)}
    (directory / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")


def load(directory: Path) -> LagLlama:
    """Read a network in float32, in evaluation mode.

    Raises:
        CheckpointError: if a file is missing, unreadable, or does not say what it must.
    """
    config = read_config(directory / CONFIG_FILE)
    path = directory / WEIGHTS_FILE
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read as safetensors ({error})") from error
    return build(config, weights, str(path))


def read_config(path: Path) -> LagLlamaConfig:
    """Read a configuration field by field; nothing named in the file is imported or called."""
    try:
        fields = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(fields, dict):
        raise CheckpointError(f"{path}: must hold one JSON object")
    architecture = fields.pop("architecture", None)
    if architecture != ARCHITECTURE:
        raise CheckpointError(f"{path}: architecture is {architecture!r}, not {ARCHITECTURE!r}")
    known = {field.name for field in dataclasses.fields(LagLlamaConfig)}
    if fields.keys() != known:
        odd = ", ".join(sorted(fields.keys() ^ known))
        raise CheckpointError(f"{path}: fields missing or unknown: {odd}")
    if isinstance(fields["lags"], list):
        fields["lags"] = tuple(fields["lags"])
    try:
        return LagLlamaConfig(**fields)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def build(config: LagLlamaConfig, weights: Mapping[str, Tensor], source: str) -> LagLlama:
    """Make a network of exactly these weights."""
    with torch.device("meta"):
        model = LagLlama(config)
    expected = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    for name in sorted(expected.keys() | weights.keys()):
        found = tuple(weights[name].shape) if name in weights else "nothing"
        wanted = expected.get(name, "nothing")
        if found != wanted:
            raise CheckpointError(f"{source}: weight {name} is {found}, the config wants {wanted}")
        if not weights[name].isfinite().all():
            raise CheckpointError(f"{source}: weight {name} is not finite")
    # Copies lie where torch aligns them: matrix products round by alignment, and a file's does vary.
    copies = {name: weights[name].to(torch.float32, copy=True) for name in expected}
    model.load_state_dict(copies, assign=True)
    return model.eval()
