"""The one training loop: an objective, batches by number, a budget; stops and goes on."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

STATE_FILE = "state.pt"
LOG_FILE = "log.csv"
LOG_FIELDS = ("step", "minutes", "loss", "validation_loss", "learning_rate", "gradient_norm")

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class LoopConfig:
    """How long to train and with which optimiser (AdamW; warm-up, plateau, linear decay)."""

    minutes: float | None = None
    """Stop after this much training time, over all sittings."""
    steps: int | None = None
    """Stop after this many steps. Whichever of the two is set ends the run."""
    learning_rate: float = 1e-3
    warmup_share: float = 0.02
    """Share of the budget in which the learning rate rises from 0."""
    decay_share: float = 0.35
    """Share of the budget, at its end, in which it falls linearly to 0."""
    weight_decay: float = 0.05
    gradient_clip: float = 1.0
    """Largest norm of all gradients together."""
    log_every: int = 20
    """Steps between lines of the log."""
    save_every: int = 200
    """Steps between validations and checkpoints."""

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.steps is None):
            raise ValueError("set one of minutes and steps")
        if (self.minutes or self.steps or 0) <= 0:
            raise ValueError("minutes or steps must be positive")

    def progress(self, step: int, seconds: float) -> float:
        """Share of the budget used, 0 to 1."""
        if self.steps is not None:
            return min(1.0, step / self.steps)
        assert self.minutes is not None
        return min(1.0, seconds / (60.0 * self.minutes))

    def learning_rate_at(self, progress: float) -> float:
        rise = progress / self.warmup_share if self.warmup_share > 0 else 1.0
        fall = (1.0 - progress) / self.decay_share if self.decay_share > 0 else 1.0
        return self.learning_rate * min(1.0, max(rise, 1e-3), fall)


@dataclass
class Progress:
    """Where a run stands."""

    step: int = 0
    seconds: float = 0.0


def train(
    objective: nn.Module,
    batch_at: Callable[[int], Batch],
    config: LoopConfig,
    directory: Path,
    fabric: Fabric,
    validate: Callable[[], float] | None = None,
    report: Callable[[dict[str, Any]], None] = lambda row: None,
    on_save: Callable[[], None] = lambda: None,
) -> Progress:
    """Train in place until the budget is used; go on from `directory` where a run stopped.

    `objective(batch)` is the loss to minimise; it holds the network.

    `batch_at(step)` must give the same batch for the same step, so that a run that was stopped
    and resumed sees what an unbroken one sees. Each line of the log goes to `report` too;
    `on_save` is called after each save of the state.
    """
    optimiser = torch.optim.AdamW(
        _decay_groups(objective, config.weight_decay), lr=config.learning_rate, betas=(0.9, 0.95)
    )
    wrapped, optimiser = fabric.setup(objective, optimiser)
    progress = _resume(objective, optimiser, directory, fabric)
    directory.mkdir(parents=True, exist_ok=True)
    losses: list[float] = []
    while (share := config.progress(progress.step, progress.seconds)) < 1.0:
        began = time.perf_counter()
        rate = config.learning_rate_at(share)
        loss, gradient_norm = _step(
            wrapped, optimiser, batch_at(progress.step), rate, config, fabric
        )
        losses.append(loss)
        progress.step += 1
        progress.seconds += time.perf_counter() - began
        ends = config.progress(progress.step, progress.seconds) >= 1.0
        saves = progress.step % config.save_every == 0 or ends
        if saves or progress.step % config.log_every == 0:
            row = {
                "step": progress.step,
                "minutes": round(progress.seconds / 60, 2),
                "loss": round(sum(losses) / len(losses), 4),
                "validation_loss": round(validate(), 4) if saves and validate else "",
                "learning_rate": f"{rate:.2e}",
                "gradient_norm": round(gradient_norm, 3),
            }
            losses.clear()
            if fabric.is_global_zero:
                _append(directory / LOG_FILE, row)
                report(row)
        if saves and fabric.is_global_zero:
            _save(objective, optimiser, progress, directory)
            on_save()
    return progress


def _step(
    objective: nn.Module,
    optimiser: torch.optim.Optimizer,
    batch: Batch,
    rate: float,
    config: LoopConfig,
    fabric: Fabric,
) -> tuple[float, float]:
    """One step; the loss, and the norm of all gradients before they were clipped."""
    objective.train()
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.zero_grad()
    value = objective(fabric.to_device(batch))
    fabric.backward(value)
    norm = fabric.clip_gradients(
        objective, optimiser, max_norm=config.gradient_clip, error_if_nonfinite=False
    )
    assert norm is not None
    if torch.isfinite(norm):
        optimiser.step()
    return value.item(), norm.item()


def _decay_groups(objective: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; biases, norms and single slopes do not."""
    learns = [weight for weight in objective.parameters() if weight.requires_grad]
    return [
        {
            "params": [weight for weight in learns if weight.dim() >= 2],
            "weight_decay": weight_decay,
        },
        {"params": [weight for weight in learns if weight.dim() < 2], "weight_decay": 0.0},
    ]


def _save(
    objective: nn.Module, optimiser: torch.optim.Optimizer, progress: Progress, directory: Path
) -> None:
    """Write beside, then rename: an interruption leaves the last whole state."""
    state = {
        "objective": objective.state_dict(),
        "optimiser": optimiser.state_dict(),
        "step": progress.step,
        "seconds": progress.seconds,
    }
    unfinished = directory / (STATE_FILE + ".part")
    torch.save(state, unfinished)
    os.replace(unfinished, directory / STATE_FILE)


def _resume(
    objective: nn.Module, optimiser: torch.optim.Optimizer, directory: Path, fabric: Fabric
) -> Progress:
    path = directory / STATE_FILE
    if not path.exists():
        return Progress()
    state = torch.load(path, map_location=fabric.device, weights_only=True)
    objective.load_state_dict(state["objective"])
    optimiser.load_state_dict(state["optimiser"])
    _trim_log(directory / LOG_FILE, state["step"])
    return Progress(state["step"], state["seconds"])


def _trim_log(path: Path, step: int) -> None:
    """Drop lines written after the state that a run goes on from."""
    if not path.exists():
        return
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, LOG_FIELDS)
        writer.writeheader()
        writer.writerows(rows)


def _append(path: Path, row: dict[str, Any]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, LOG_FIELDS)
        if new:
            writer.writeheader()
        writer.writerow(row)
