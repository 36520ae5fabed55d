"""Pretraining: Lag-Llama learns the next value of random windows of a corpus."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from matplotlib.figure import Figure
from torch import Tensor, nn

from llamacast.data.corpora import Corpus, read_corpus
from llamacast.data.windows import WindowShape, random_windows
from llamacast.forecast import DataError, TrainingRecord
from llamacast.model import checkpoint
from llamacast.model.config import LagLlamaConfig, lag_llama
from llamacast.model.lag_llama import LagLlama
from llamacast.training.loop import LOG_FILE, Batch, LoopConfig, Progress, train

MODEL_DIRECTORY = "model"


@dataclass(frozen=True)
class PretrainConfig:
    """What a batch looks like."""

    tokens_per_batch: int = 4096
    lengths: tuple[int, ...] = (64, 128, 256, 512)
    """Tokens in a window, context and horizon together; all windows of a batch share one."""
    length_weights: tuple[float, ...] = (0.2, 0.3, 0.35, 0.15)
    largest_horizon_share: float = 0.5
    """Up to this share of a window comes after the steps that it is scaled by."""
    target_noise: float = 0.01
    """Deviation, in scales, of noise on targets: values that repeat exactly would otherwise be
    worth ever narrower distributions."""
    num_validation_batches: int = 6
    seed: int = 0


def pretrain(
    corpus: Corpus,
    directory: Path,
    loop: LoopConfig,
    config: PretrainConfig | None = None,
    model_config: LagLlamaConfig | None = None,
    start_from: Path | None = None,
    fabric: Fabric | None = None,
    report: Callable[[dict[str, Any]], None] = lambda row: None,
) -> Progress:
    """Pretrain on `corpus`, or go on with the run in `directory`; leaves a loadable checkpoint.

    A new run begins with drawn weights, or with those of the checkpoint `start_from` (in place of
    `model_config`). `directory` receives `state.pt` (to go on), `log.csv`, and `model/` (the
    weights so far).
    """
    config = config or PretrainConfig()
    fabric = fabric or Fabric(devices=1)
    if start_from is None:
        network = LagLlama(model_config or lag_llama())
        network.initialise(torch.Generator().manual_seed(config.seed))
        seen_before: tuple[str, ...] = ()
    else:
        network = checkpoint.load(start_from)
        seen_before = checkpoint.load_training(start_from).datasets

    objective = NextValue(network)

    def batch_at(step: int) -> Batch:
        return make_batch(corpus, network.config, config, (config.seed, step, fabric.global_rank))

    held_out = [
        make_batch(corpus, network.config, config, (config.seed, number, 2**31), held_out=True)
        for number in range(config.num_validation_batches if corpus.holds_out else 0)
    ]

    @torch.no_grad()
    def validate() -> float:
        objective.eval()
        losses = [objective(fabric.to_device(batch)) for batch in held_out]
        return float(torch.stack(losses).mean())

    def save_model() -> None:
        checkpoint.save(network, directory / MODEL_DIRECTORY)
        record = TrainingRecord(tuple(dict.fromkeys([*seen_before, *corpus.datasets])))
        checkpoint.save_training(record, directory / MODEL_DIRECTORY)

    validator = validate if held_out else None
    return train(objective, batch_at, loop, directory, fabric, validator, report, save_model)


class NextValue(nn.Module):
    """Mean loss of the next value over the observed steps of a batch."""

    def __init__(self, network: LagLlama) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Batch) -> Tensor:
        losses, counted = self.network.loss(
            batch["values"],
            batch["observed"],
            batch["calendar"],
            int(batch["history_length"]),
            batch["noise"],
        )
        return losses[counted].mean()


def make_batch(
    corpus: Corpus,
    model: LagLlamaConfig,
    config: PretrainConfig,
    key: tuple[int, ...],
    held_out: bool = False,
) -> Batch:
    """Draw the batch that `key` names: always the same one."""
    rng = np.random.default_rng(key)
    weights = np.asarray(config.length_weights) / np.sum(config.length_weights)
    num_tokens = int(rng.choice(config.lengths, p=weights))
    num_windows = max(1, config.tokens_per_batch // num_tokens)
    horizon = int(rng.integers(1, max(2, int(num_tokens * config.largest_horizon_share))))
    history = model.max_lag + num_tokens + 1 - horizon
    shape = WindowShape(history, horizon, num_steps=num_tokens + 1)
    windows = random_windows(corpus, rng, num_windows, shape, held_out)
    noise = rng.normal(0.0, config.target_noise, (num_windows, num_tokens)).astype(np.float32)
    return {
        "values": torch.from_numpy(windows.values),
        "observed": torch.from_numpy(windows.observed),
        "calendar": torch.from_numpy(windows.calendar),
        "history_length": torch.tensor(history),
        "noise": torch.from_numpy(noise),
    }


def run_pretraining(
    data: Path,
    directory: Path,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    learning_rate: float = 1.5e-3,
    tokens_per_batch: int = 2048,
    seed: int = 0,
    start_from: Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    report: Callable[[dict[str, Any]], None] = lambda row: None,
) -> Progress:
    """Pretrain the packaged architecture on the corpus at `data`, and draw the loss curve.

    Raises:
        DataError: if the corpus cannot be read, or the device is not there.
        CheckpointError: if there is no checkpoint at `start_from`.
    """
    corpus = read_corpus(data)
    if threads is not None:
        torch.set_num_threads(threads)
    progress = pretrain(
        corpus,
        directory,
        LoopConfig(minutes=minutes, steps=steps, learning_rate=learning_rate),
        PretrainConfig(tokens_per_batch=tokens_per_batch, seed=seed),
        start_from=start_from,
        fabric=_fabric(device),
        report=report,
    )
    plot_losses(directory)
    return progress


def _fabric(device: str) -> Fabric:
    try:
        return Fabric(accelerator=device, devices=1)
    except Exception as error:
        # Lightning's own type of error, and others by accelerator; all say that it is not there.
        raise DataError(f"device {device!r} cannot be used here; try 'auto'") from error


def plot_losses(directory: Path) -> None:
    """Draw `loss.png` from the log of a run."""
    with (directory / LOG_FILE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for field, label in (("loss", "training"), ("validation_loss", "held-out series")):
        points = [(int(row["step"]), float(row[field])) for row in rows if row[field]]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, linewidth=1.0)
    axes.set_xlabel("step")
    axes.set_ylabel("minus log-likelihood, scaled units")
    axes.legend(frameon=False)
    figure.savefig(directory / "loss.png", dpi=120)
