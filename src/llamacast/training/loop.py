"""The one training loop: an objective, batches by number, a budget; stops and goes on."""

from __future__ import annotations

import csv
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from llamacast.forecast import CheckpointError, DataError
from llamacast.training.muon import Muon

LOG_FILE = "log.csv"
CHECKPOINTS = "checkpoints"
LOG_FIELDS = (
    "step",
    "minutes",
    "loss",
    "validation_loss",
    "validation_crps",
    "learning_rate",
    "gradient_norm",
    "tokens_per_second",
    "minutes_left",
)
# A mean of weights over few steps is worth nothing; its horizon grows with the run up to what is asked.
AVERAGE_START = 10

Batch = dict[str, Tensor]
"""What an objective takes. `"count"` is the number of terms that its loss is the sum of."""

Validate = Callable[[nn.Module], dict[str, float]]
Row = dict[str, Any]


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
    """Share of the steps, at their end, in which it falls linearly to 0."""
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
        if not self.learning_rate > 0 or not self.gradient_clip > 0:
            raise ValueError("learning_rate and gradient_clip must be positive")
        if not 0 <= self.decay_share <= 1:
            raise ValueError("decay_share must be in [0, 1]")

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of a step, the first being 0."""
        rise = (step + 1) / self.warmup_steps if self.warmup_steps else 1.0
        decay_steps = self.decay_share * self.steps
        fall = (self.steps - step) / decay_steps if decay_steps else 1.0
        return self.learning_rate * min(1.0, rise, max(0.0, fall))


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
    progress = _resume(objective, averaged, optimisers, directory)
    log = _Log(directory, config, fabric, report, progress)
    begun, first_step = time.perf_counter(), progress.step
    already = progress.seconds
    while progress.step < config.steps and not progress.stopped_early:
        rate = config.learning_rate_at(progress.step)
        # Dropout and random quantile levels draw from torch's own generator; so that they, too, are
        # told by the step, and differ between processes.
        torch.manual_seed(progress.step * fabric.world_size + fabric.global_rank)
        loss, norm, count = _step(
            wrapped, optimisers, batches_at(progress.step), rate, config, fabric
        )
        progress.step += 1
        _average(averaged, objective, config.average_steps, progress.step)
        now = time.perf_counter() - begun
        progress.seconds = already + now
        over = fabric.broadcast(minutes is not None and now >= 60 * minutes)
        ends = over or progress.step == config.steps
        found: dict[str, float] = {}
        if validate and (
            progress.step % config.validate_every == 0 or progress.step == config.steps
        ):
            found = validate(averaged)
            _judge(found, progress, config)
        best = bool(found) and progress.validations_since == 0
        saves = (
            ends
            or progress.stopped_early
            or progress.step % config.save_every == 0
            or (best and config.patience > 0)
        )
        per_step = now / (progress.step - first_step)
        log.add(loss, norm, count, rate, progress, found, per_step, forced=saves)
        if saves:
            if fabric.is_global_zero:
                # First what is made of the weights: a run that ends in between makes it again.
                if not config.patience or best or progress.best == float("inf"):
                    on_save(averaged)
                _save(objective, averaged, optimisers, progress, directory)
            fabric.barrier()
        if over:
            break
    return progress


def _step(
    objective: Any,
    optimisers: Sequence[Any],
    parts: Sequence[Batch],
    rate: float,
    config: LoopConfig,
    fabric: Fabric,
) -> tuple[float, float, float]:
    """One step; the mean loss, the gradients' norm before they were clipped, and the terms."""
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
    if torch.isfinite(norm):
        for optimiser in optimisers:
            optimiser.step()
    return mean.item(), norm.item(), count.item()


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


def _judge(found: dict[str, float], progress: Progress, config: LoopConfig) -> None:
    value = found.get("validation_crps", found.get("validation_loss", float("inf")))
    progress.validations_since = 0 if value < progress.best else progress.validations_since + 1
    progress.best = min(progress.best, value)
    progress.stopped_early = 0 < config.patience <= progress.validations_since


def _save(
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
    if target.exists():
        shutil.rmtree(target)
    os.replace(unfinished, target)
    for older in _checkpoints(directory)[:-1]:
        shutil.rmtree(older)


def _contiguous(module: nn.Module) -> dict[str, Tensor]:
    return {name: weight.contiguous() for name, weight in module.state_dict().items()}


def _checkpoints(directory: Path) -> list[Path]:
    return sorted((directory / CHECKPOINTS).glob("step-*"))


def _resume(
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
            optimiser.load_state_dict(state)
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


class _Log:
    """Lines of `log.csv`, and of TensorBoard's log where it is wanted."""

    def __init__(
        self,
        directory: Path,
        config: LoopConfig,
        fabric: Fabric,
        report: Callable[[Row], None],
        progress: Progress,
    ) -> None:
        self.path, self.config, self.report = directory / LOG_FILE, config, report
        self.writes = fabric.is_global_zero
        self.losses: list[float] = []
        self.board: Any = None
        if not self.writes:
            return
        if config.tensorboard:
            self.board = _board(directory)
        directory.mkdir(parents=True, exist_ok=True)
        _trim(self.path, progress.step)

    def add(
        self,
        loss: float,
        norm: float,
        count: float,
        rate: float,
        progress: Progress,
        found: dict[str, float],
        seconds_per_step: float,
        forced: bool,
    ) -> None:
        """Remember a step; write a line where one is due."""
        self.losses.append(loss)
        if not self.writes or not (forced or found or progress.step % self.config.log_every == 0):
            return
        row: Row = {
            "step": progress.step,
            "minutes": round(progress.seconds / 60, 2),
            "loss": round(sum(self.losses) / len(self.losses), 4),
            "validation_loss": "",
            "validation_crps": "",
            "learning_rate": f"{rate:.2e}",
            "gradient_norm": round(norm, 3),
            "tokens_per_second": round(count / seconds_per_step),
            "minutes_left": round((self.config.steps - progress.step) * seconds_per_step / 60, 1),
            **{name: round(value, 4) for name, value in found.items()},
        }
        self.losses.clear()
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, LOG_FIELDS)
            if new:
                writer.writeheader()
            writer.writerow(row)
        if self.board is not None:
            numbers = {name: float(value) for name, value in row.items() if value != ""}
            self.board.log_metrics(numbers, progress.step)
        self.report(row)


def _board(directory: Path) -> Any:
    """Lightning's logger for TensorBoard; it writes nothing before its first line."""
    from lightning_fabric.loggers.tensorboard import TensorBoardLogger

    try:
        return TensorBoardLogger(directory, name="tensorboard", version="")
    except ModuleNotFoundError as error:
        raise DataError(
            "tensorboard = true needs a package that is missing; pip install tensorboardX"
        ) from error


def _trim(path: Path, step: int) -> None:
    """Drop lines written after the checkpoint that a run goes on from."""
    if not path.exists():
        return
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, LOG_FIELDS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
