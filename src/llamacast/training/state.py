"""Where a run stands, on disk: a folder that is whole or not there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from llamacast.forecast import CheckpointError

CHECKPOINTS = "checkpoints"


@dataclass
class Progress:
    """Where a run stands."""

    step: int = 0
    seconds: float = 0.0
    """Training time over all sittings."""
    best: float = float("inf")
    """Lowest validation so far: CRPS where there is one, else loss."""
    validations_since: int = 0
    stopped_early: bool = False


def save(
    objective: nn.Module,
    averaged: nn.Module,
    optimisers: Sequence[Any],
    progress: Progress,
    directory: Path,
) -> None:
    """Write a folder beside, then rename it: an interruption leaves the last whole checkpoint."""
    folder = directory / CHECKPOINTS
    target = folder / f"step-{progress.step:08d}"
    unfinished = folder / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    save_file(_contiguous(objective), unfinished / "weights.safetensors")
    save_file(_contiguous(averaged), unfinished / "averaged.safetensors")
    torch.save([one.state_dict() for one in optimisers], unfinished / "optimisers.pt")
    (unfinished / "progress.json").write_text(json.dumps(asdict(progress)))
    for file in unfinished.iterdir():
        _settle(file)
    if target.exists():
        shutil.rmtree(target)
    os.replace(unfinished, target)
    for older in _checkpoints(directory)[:-1]:
        shutil.rmtree(older)


def _settle(file: Path) -> None:
    """Have a file on the disk itself before an older one is deleted."""
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())


def _contiguous(module: nn.Module) -> dict[str, Tensor]:
    return {name: weight.contiguous() for name, weight in module.state_dict().items()}


def has_checkpoint(directory: Path) -> bool:
    """Whether a run in a folder goes on, and does not begin."""
    return bool(_checkpoints(directory))


def _checkpoints(directory: Path) -> list[Path]:
    return sorted((directory / CHECKPOINTS).glob("step-*"))


def resume(
    objective: nn.Module,
    averaged: nn.Module,
    optimisers: Sequence[Any],
    directory: Path,
) -> Progress:
    found = _checkpoints(directory)
    if not found:
        return Progress()
    weights, means, states, progress = _read_checkpoint(found[-1])
    try:
        objective.load_state_dict(weights)
        averaged.load_state_dict(means)
        for optimiser, state in zip(optimisers, states, strict=True):
            # Of weight decay what is asked for now counts, as of all else that may change between sittings.
            decays = [group.get("weight_decay") for group in optimiser.param_groups]
            optimiser.load_state_dict(state)
            for group, decay in zip(optimiser.param_groups, decays, strict=True):
                if decay is not None:
                    group["weight_decay"] = decay
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{found[-1]} was written by a run of another model or optimiser; train in another "
            f"folder ({str(error).splitlines()[0]})"
        ) from error
    return progress


def _read_checkpoint(folder: Path) -> tuple[Any, Any, Any, Progress]:
    """Weights, their mean, what optimisers remember, and where the run stood."""
    try:
        return (
            load_file(folder / "weights.safetensors"),
            load_file(folder / "averaged.safetensors"),
            torch.load(folder / "optimisers.pt", map_location="cpu", weights_only=True),
            Progress(**json.loads((folder / "progress.json").read_text())),
        )
    except Exception as error:
        # Three formats fail in types of their own; each means that the folder is not whole.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{folder} is damaged; delete it to begin anew ({reason})") from error
