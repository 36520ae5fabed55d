"""`llamacast export`: ONNX or torch.export files, each compared with torch before it is kept."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from llamacast.data.calendar import season_candidates
from llamacast.exporting.programs import OnePass, Prefill, Step
from llamacast.forecast import DataError, needs
from llamacast.model.cria import Cria
from llamacast.model.lag_llama import LagLlama

Format = Literal["onnx", "torch"]
SUFFIXES: dict[str, str] = {"onnx": ".onnx", "torch": ".pt2"}
ABOUT_FILE = "about.json"
LARGEST_DIFFERENCE = 1e-4
"""Between the file's answers and torch's, as a share of the answers' size."""
NUM_TRIED = 3
"""Series in the comparison; another number than that which the file is made with."""


@dataclass(frozen=True)
class Program:
    """What becomes a file."""

    name: str
    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    example: Callable[[int], tuple[Tensor, ...]]
    """Inputs for a number of series."""
    dynamic: tuple[dict[int, str], ...]
    """Of each input the dimensions that may be of any length."""


def export(
    network: Cria | LagLlama, folder: Path, format_: Format, horizon: int, context_length: int
) -> dict[str, float]:
    """Write a network's programs into a folder, and `about.json`, which tells their inputs.

    Returns:
        Of each file the largest difference to torch's answers, as a share of their size.

    Raises:
        DataError: if the lengths do not suit the network, a library is missing, or an answer differs
            or is no number.
    """
    programs = _programs(network, horizon, context_length)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as unfinished:
        found = _write(programs, Path(unfinished), format_)
        about = {
            "horizon": horizon,
            "context_length": context_length,
            "config": dataclasses.asdict(network.config),
            "programs": {p.name: {"inputs": p.inputs, "outputs": p.outputs} for p in programs},
            "difference_to_torch": found,
        }
        # What is told of files that are there no more is worse than nothing.
        (folder / ABOUT_FILE).unlink(missing_ok=True)
        for made in Path(unfinished).iterdir():
            os.replace(made, folder / made.name)
        (folder / ABOUT_FILE).write_text(json.dumps(about, indent=1) + "\n")
    return found


def _write(programs: list[Program], folder: Path, format_: str) -> dict[str, float]:
    """All of a network's files, and how far each is from torch."""
    found = {}
    for program in programs:
        made = folder / f"{program.name}{SUFFIXES[format_]}"
        with torch.no_grad():
            exported = torch.export.export(
                program.module.eval(),
                program.example(2),
                dynamic_shapes=_dynamic_shapes(program),
                strict=False,
            )
            if format_ == "torch":
                torch.export.save(exported, made)
                answer: Callable[..., Any] = torch.export.load(made).module()
            else:
                answer = _as_onnx(program, exported, made)
            found[made.name] = _difference(program, answer)
        if not found[made.name] <= LARGEST_DIFFERENCE:
            raise DataError(
                f"{made.name} answers otherwise than torch (by {found[made.name]:.1e}); it is not kept"
            )
    return found


def _programs(network: Cria | LagLlama, horizon: int, context_length: int) -> list[Program]:
    if network.config.num_covariates:
        raise DataError("a model that was fine-tuned with covariates cannot be exported")
    if isinstance(network, Cria):
        length = network.config.patch_length
        if context_length % length:
            raise DataError(f"context_length must be a multiple of {length}; got {context_length}")
        return [
            Program(
                "forecast",
                OnePass(network, horizon),
                ("history", "seasons"),
                ("quantiles",),
                lambda count: _histories(count, context_length),
                ({0: "series"}, {0: "series"}),
            )
        ]
    if network.config.head != "student_t":
        raise DataError(f"Lag-Llama with the head {network.config.head!r} cannot be exported")
    return [
        Program(
            "prefill",
            Prefill(network, horizon),
            ("history", "calendar"),
            (
                *("df", "loc", "spread", "scaled", "observed", "location", "scale"),
                *("statistics", "keys", "values"),
            ),
            lambda count: _contexts(network, count, context_length),
            ({0: "series"}, {0: "series"}),
        ),
        Program(
            "step",
            Step(network, context_length, horizon),
            ("lags", "observed", "calendar", "statistics", "scale", "keys", "values"),
            ("df", "loc", "spread", "keys_after", "values_after"),
            lambda count: _steps(network, count, context_length, horizon),
            (*({0: "path"},) * 5, *({1: "path", 3: "past"},) * 2),
        ),
    ]


def _histories(count: int, context_length: int) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(count)
    days = np.arange(context_length)
    waves = 20 + 5 * np.sin(days * 2 * np.pi / 24 + np.arange(count)[:, None])
    history = torch.from_numpy(waves + rng.normal(0, 1, waves.shape))
    history[0, : context_length // 3] = torch.nan
    history[-1, -5:-2] = torch.nan
    return history, torch.tensor([season_candidates(None)] * count, dtype=torch.int64)


def _contexts(network: LagLlama, count: int, context_length: int) -> tuple[Tensor, Tensor]:
    history, _ = _histories(count, network.config.max_lag + context_length)
    generator = torch.Generator().manual_seed(count)
    calendar = torch.rand(count, context_length + 1, 6, generator=generator) - 0.5
    return history, calendar


def _steps(network: LagLlama, count: int, context_length: int, horizon: int) -> tuple[Tensor, ...]:
    found = Prefill(network, horizon)(*_contexts(network, count, context_length))
    scaled, statistics, scale, keys, values = found[3], found[7], found[6], found[8], found[9]
    back = torch.tensor(network.config.lags)
    lags = scaled[:, -1 - back]
    calendar = torch.rand(count, 2, 6, generator=torch.Generator().manual_seed(1)) - 0.5
    return lags, torch.ones_like(lags), calendar, statistics, scale, keys, values


def _dynamic_shapes(program: Program) -> tuple[dict[int, Any], ...]:
    names = {name for dims in program.dynamic for name in dims.values()}
    dims = {name: torch.export.Dim(name, min=1) for name in names}
    return tuple({axis: dims[name] for axis, name in one.items()} for one in program.dynamic)


def _as_onnx(program: Program, exported: Any, file: Path) -> Callable[..., Any]:
    """Write it, and answer with what runs it."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 (what torch writes ONNX with)
    except ModuleNotFoundError as error:
        raise needs("ONNX", "onnx", error) from error
    torch.onnx.export(
        exported,
        f=file,
        input_names=list(program.inputs),
        output_names=list(program.outputs),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])

    def answer(*given: Tensor) -> list[Tensor]:
        fed = {name: one.numpy() for name, one in zip(program.inputs, given, strict=True)}
        return [torch.from_numpy(one) for one in session.run(None, fed)]

    return answer


def _difference(program: Program, answer: Callable[..., Any]) -> float:
    """The largest, as a share of the answers' size; infinite where either says what is no number."""
    given = program.example(NUM_TRIED)
    expected, found = program.module(*given), answer(*given)
    if isinstance(expected, Tensor):
        expected = (expected,)
    if isinstance(found, Tensor):
        found = (found,)
    largest = 0.0
    for one, other in zip(expected, found, strict=True):
        if not (one.isfinite().all() and other.isfinite().all()):
            return math.inf
        size = one.double().abs().mean().clamp(min=1e-30)
        largest = max(largest, float((one.double() - other.double()).abs().max() / size))
    return largest
