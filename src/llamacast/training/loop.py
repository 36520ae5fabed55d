"""The one training loop: an objective, batches by number, a budget; stops and goes on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from llamacast.forecast import DataError
from llamacast.training.log import Log, Row
from llamacast.training.muon import Muon
from llamacast.training.state import Progress, resume, save

# A mean of weights over few steps is worth nothing; its horizon grows with the run up to what is asked.
AVERAGE_START = 10
# Steps in a row whose gradients are not finite, and that are left out, before a run is given up.
MOST_BROKEN_STEPS = 50

Batch = dict[str, Tensor]
"""What an objective takes. `"count"` is the number of terms that its loss is the sum of."""

Validate = Callable[[nn.Module], dict[str, float]]


@dataclass(frozen=True)
class LoopConfig:
    """How long to train and with which optimiser.

    Warm-up, plateau and decay count in steps: the plan may be lengthened or shortened between
    sittings, as long as the decay has not begun.
    """

    steps: int = 20_000
    """The run ends after so many."""
    optimiser: Literal["muon", "adamw"] = "muon"
    """Muon for matrices between the first and the last layer and AdamW for the rest, or AdamW."""
    learning_rate: float = 2e-3
    warmup_steps: int = 200
    """In which the learning rate rises from 0."""
    decay_share: float = 0.35
    """Share of the steps, at their end, in which it falls to 0."""
    decay: Literal["linear", "cosine"] = "linear"
    """How it falls."""
    weight_decay: float = 0.05
    gradient_clip: float = 1.0
    """Largest norm of all gradients together."""
    accumulate: int = 1
    """Parts that each step's batch is taken in, where it does not fit into memory at once."""
    average_steps: int = 500
    """The weights that are kept are a mean over about so many last steps; 0 keeps the last ones."""
    patience: int = 0
    """Stop after so many validations without a better one, and keep the best; 0 never stops."""
    compile: bool = False
    """Compile the objective's transformer: faster steps after a minute of waiting."""
    log_every: int = 20
    """Steps between lines of the log."""
    save_every: int = 200
    """Steps between checkpoints."""
    validate_every: int = 1000
    """Steps between validations."""
    tensorboard: bool = False
    """Log for TensorBoard too (needs tensorboardX or tensorboard)."""

    def __post_init__(self) -> None:
        whole = ("steps", "accumulate", "log_every", "save_every", "validate_every")
        for name in whole:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        for name in ("warmup_steps", "average_steps", "patience", "weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        if self.optimiser not in ("muon", "adamw"):
            raise ValueError(f"optimiser must be muon or adamw; got {self.optimiser!r}")
        if self.decay not in ("linear", "cosine"):
            raise ValueError(f"decay must be linear or cosine; got {self.decay!r}")
        if not self.learning_rate > 0 or not self.gradient_clip > 0:
            raise ValueError("learning_rate and gradient_clip must be positive")
        if not 0 <= self.decay_share <= 1:
            raise ValueError("decay_share must be in [0, 1]")

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of a step, the first being 0."""
        rise = (step + 1) / self.warmup_steps if self.warmup_steps else 1.0
        decay_steps = self.decay_share * self.steps
        fall = min(1.0, max(0.0, (self.steps - step) / decay_steps)) if decay_steps else 1.0
        if self.decay == "cosine":
            fall = (1 - math.cos(math.pi * fall)) / 2
        return self.learning_rate * min(1.0, rise, fall)


def train(
    objective: nn.Module,
    batches_at: Callable[[int], Sequence[Batch]],
    config: LoopConfig,
    directory: Path,
    fabric: Fabric,
    is_matrix: Callable[[str], bool] = lambda name: False,
    validate: Validate | None = None,
    report: Callable[[Row], None] = lambda row: None,
    on_save: Callable[[nn.Module], None] = lambda averaged: None,
    minutes: float | None = None,
) -> Progress:
    """Train in place until the steps are done, or for `minutes` now; go on where a run stopped.

    `objective(batch)` is the sum of the losses of a batch; it holds the network. `batches_at(step)`
    gives this process' share of the step's batch, in parts; always the same for the same step, so
    that a run that was stopped and gone on with sees what an unbroken one sees. The loss that is
    followed is the mean over all terms of all parts of all processes. `is_matrix` tells by name
    which weights are Muon's. `validate` and `on_save` (called before each checkpoint; with
    `patience`, once something has been validated, only when it is the best so far) receive the
    averaged objective. Each line of the log goes to `report` too.

    Raises:
        CheckpointError: if the checkpoint in `directory` is of another objective, or damaged.
        DataError: if a log for TensorBoard is wanted, and nothing is there to write it with.
    """
    optimisers = _optimisers(objective, config, is_matrix)
    averaged = deepcopy(objective).requires_grad_(False)
    wrapped, *optimisers = fabric.setup(objective, *optimisers)
    averaged.to(fabric.device)
    # Now that the weights are on the device: what optimisers remember is read to where these are.
    progress = resume(objective, averaged, optimisers, directory)
    progress.stopped_early = _has_stalled(progress, config)
    log = Log(directory, config.log_every, config.tensorboard, fabric, report, progress)
    begun, first = time.perf_counter(), Progress(progress.step, progress.seconds)
    num_broken = 0
    while progress.step < config.steps and not progress.stopped_early:
        rate = config.learning_rate_at(progress.step)
        # Dropout and random quantile levels draw from torch's own generator; so that they, too, are
        # told by the step, and differ between processes.
        torch.manual_seed(progress.step * fabric.world_size + fabric.global_rank)
        taken = _step(wrapped, optimisers, batches_at(progress.step), rate, config, fabric)
        num_broken = 0 if taken.is_finite else num_broken + 1
        _give_up_after(num_broken, progress, rate)
        progress.step += 1
        _average(averaged, objective, config.average_steps, progress.step)
        now = time.perf_counter() - begun
        progress.seconds = first.seconds + now
        over = fabric.broadcast(minutes is not None and now >= 60 * minutes)
        last = progress.step == config.steps
        found: dict[str, float] = {}
        if validate and (last or progress.step % config.validate_every == 0):
            found = validate(averaged)
            _judge(found, progress, config)
        best = bool(found) and progress.validations_since == 0
        saves = (
            last
            or over
            or progress.stopped_early
            or progress.step % config.save_every == 0
            or (best and config.patience > 0)
        )
        log.remember(taken.loss)
        if saves or log.is_due(progress):
            per_step = now / (progress.step - first.step)
            log.add(
                progress,
                {
                    **found,
                    "learning_rate": rate,
                    "gradient_norm": taken.gradient_norm,
                    "tokens_per_second": taken.num_terms / per_step,
                    "minutes_left": (config.steps - progress.step) * per_step / 60,
                },
            )
        if saves:
            if fabric.is_global_zero:
                # First what is made of the weights: a run that ends in between makes it again.
                if not config.patience or best or progress.best == float("inf"):
                    on_save(averaged)
                save(objective, averaged, optimisers, progress, directory)
            fabric.barrier()
        if over:
            break
    return progress


class Taken(NamedTuple):
    """A step."""

    loss: float
    """Mean over all terms."""
    gradient_norm: float
    """Before it was clipped."""
    num_terms: float
    is_finite: bool
    """Whether weights have moved; a step whose gradients are not finite is left out."""


def _step(
    objective: Any,
    optimisers: Sequence[Any],
    parts: Sequence[Batch],
    rate: float,
    config: LoopConfig,
    fabric: Fabric,
) -> Taken:
    objective.train()
    for optimiser in optimisers:
        optimiser.zero_grad()
        for group in optimiser.param_groups:
            group["lr"] = rate
    own = torch.stack([part["count"] for part in parts]).sum().to(fabric.device, torch.float32)
    count = fabric.all_reduce(own, reduce_op="sum")
    assert isinstance(count, Tensor)
    # Gradients are averaged over processes; each holds its share of one sum.
    factor = fabric.world_size / count.clamp(min=1.0)
    total = torch.zeros((), device=fabric.device)
    for number, part in enumerate(parts):
        with _without_exchange(objective, fabric, number < len(parts) - 1):
            loss = objective(fabric.to_device(part)) * factor
            fabric.backward(loss)
        total += loss.detach()
    norm = torch.nn.utils.clip_grad_norm_(objective.parameters(), config.gradient_clip)
    mean = fabric.all_reduce(total, reduce_op="mean")
    assert isinstance(mean, Tensor)
    is_finite = bool(norm.isfinite())
    if is_finite:
        # Muon's products, too, run in the precision that is asked for.
        with fabric.autocast():
            for optimiser in optimisers:
                optimiser.step()
    return Taken(mean.item(), norm.item(), count.item(), is_finite)


def _give_up_after(num_broken: int, progress: Progress, rate: float) -> None:
    if num_broken >= MOST_BROKEN_STEPS:
        raise DataError(
            f"the gradients of {num_broken} steps in a row, up to step {progress.step}, are not "
            f"finite; lower [loop] learning_rate (now {rate:.3g}) and start anew, or go on from the "
            "last checkpoint"
        )


def _without_exchange(objective: Any, fabric: Fabric, enabled: bool) -> AbstractContextManager[Any]:
    """Gradients of all but the last part need not be sent yet."""
    return fabric.no_backward_sync(objective, enabled=enabled and fabric.world_size > 1)


def _optimisers(
    objective: nn.Module, config: LoopConfig, is_matrix: Callable[[str], bool]
) -> list[torch.optim.Optimizer]:
    """Muon's, if any, and AdamW's. Matrices decay; biases, norms and single slopes do not."""
    learns = [
        (name, weight) for name, weight in objective.named_parameters() if weight.requires_grad
    ]
    muon = [
        w for name, w in learns if w.dim() == 2 and config.optimiser == "muon" and is_matrix(name)
    ]
    taken = {id(weight) for weight in muon}
    rest = [weight for _, weight in learns if id(weight) not in taken]
    groups = [
        {"params": [w for w in rest if w.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [w for w in rest if w.dim() < 2], "weight_decay": 0.0},
    ]
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=config.learning_rate,
            betas=(0.9, 0.95),
        )
    ]
    if muon:
        found.append(Muon(muon, config.learning_rate, weight_decay=config.weight_decay))
    return found


@torch.no_grad()
def _average(averaged: nn.Module, objective: nn.Module, horizon: int, step: int) -> None:
    """Move the mean of weights towards the latest, by one part in `horizon`."""
    horizon = min(horizon, (AVERAGE_START + step) // AVERAGE_START)
    means, latest = list(averaged.state_dict().values()), list(objective.state_dict().values())
    torch._foreach_lerp_(means, latest, 1.0 / max(1, horizon))


def _has_stalled(progress: Progress, config: LoopConfig) -> bool:
    """Whether nothing has improved for as long as is waited."""
    return 0 < config.patience <= progress.validations_since


def _judge(found: dict[str, float], progress: Progress, config: LoopConfig) -> None:
    value = found.get("validation_crps", found.get("validation_loss", float("inf")))
    progress.validations_since = 0 if value < progress.best else progress.validations_since + 1
    progress.best = min(progress.best, value)
    progress.stopped_early = _has_stalled(progress, config)
