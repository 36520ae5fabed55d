"""Pretraining: Lag-Llama learns the next value of random windows of a corpus."""

from __future__ import annotations

import csv
import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from matplotlib.figure import Figure
from torch import Tensor, nn

from llamacast.data.corpora import (
    SHORTEST_SERIES,
    Corpus,
    DataSet,
    HoldOut,
    Mixture,
    join,
    read_corpus,
)
from llamacast.data.synthetic import synthesise
from llamacast.data.windows import WindowShape, draw_windows
from llamacast.forecast import CheckpointError, DataError, TrainingRecord
from llamacast.model import checkpoint
from llamacast.model.config import LagLlamaConfig, lag_llama
from llamacast.model.lag_llama import LagLlama
from llamacast.training.augment import AugmentConfig, augment
from llamacast.training.batches import CorpusOnDevice, CutWindows
from llamacast.training.loop import CHECKPOINTS, LOG_FILE, Batch, LoopConfig, Progress, Row, train
from llamacast.training.validation import HORIZON, HeldBack, num_origins

MODEL_DIRECTORY = "model"
SHORTEST_OBSERVED = 4


@dataclass(frozen=True)
class WindowConfig:
    """What a batch looks like."""

    tokens_per_batch: int = 4096
    """Tokens of a step, over all processes."""
    lengths: tuple[int, ...] = (64, 128, 256, 512)
    """Tokens in a window, context and horizon together; all windows of a batch share one."""
    length_weights: tuple[float, ...] = (0.25, 0.3, 0.35, 0.1)
    """How often each of the lengths is drawn."""
    largest_horizon_share: float = 0.5
    """Up to this share of a window comes after the steps that it is scaled by."""
    target_noise: float = 0.01
    """Deviation, in scales, of noise on targets: values that repeat exactly would otherwise be
    worth ever narrower distributions."""

    def __post_init__(self) -> None:
        if len(self.lengths) != len(self.length_weights) or not self.lengths:
            raise ValueError("lengths and length_weights must be equally many")
        if min(self.lengths) < 2 or min(self.length_weights) < 0 or sum(self.length_weights) <= 0:
            raise ValueError("lengths must be at least 2, length_weights positive")
        if self.tokens_per_batch < max(self.lengths):
            raise ValueError("tokens_per_batch must be at least the longest of lengths")
        if not 0 < self.largest_horizon_share < 1 or self.target_noise < 0:
            raise ValueError("largest_horizon_share must be in (0, 1), target_noise not negative")


@dataclass(frozen=True)
class SyntheticConfig:
    """Series made beside those of the corpus."""

    share: float = 0.0
    """Share of windows that come from them, in [0, 1)."""
    num_series: int = 6000

    def __post_init__(self) -> None:
        if not 0.0 <= self.share < 1.0 or self.num_series < 1:
            raise ValueError("share must be in [0, 1), num_series positive")


@dataclass(frozen=True)
class PretrainConfig:
    """Everything that a run follows from, beside the corpus."""

    mixture: Mixture = field(default_factory=Mixture)
    hold_out: HoldOut = field(default_factory=HoldOut)
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    windows: WindowConfig = field(default_factory=WindowConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    model: LagLlamaConfig = field(default_factory=lag_llama)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed must not be negative; got {self.seed}")


class Batches:
    """Batches by number, cut on the device: each process makes all of a batch and takes its rows.

    So a batch is the same however many processes share it.
    """

    def __init__(self, corpus: Corpus, config: PretrainConfig, device: torch.device) -> None:
        self.config = config
        self.train_lengths = corpus.train_lengths(config.hold_out)
        self.real, self.synthetic = corpus, _synthesise(config.synthetic, config.seed)
        whole = corpus.join(self.synthetic) if self.synthetic else corpus
        added = whole.lengths[corpus.num_series :]
        self.ends = np.concatenate([self.train_lengths, added])
        self.device = device
        self.on_device = CorpusOnDevice(whole, device)
        self.device_ends = torch.from_numpy(self.ends).to(device)
        self._chances = {length: self._mixed(length) for length in config.windows.lengths}

    def _mixed(self, length: int) -> np.ndarray:
        """Probability of each series in a batch of windows of `length`."""
        chances = self.real.probabilities(self.config.mixture, self.train_lengths, length)
        if self.synthetic is None:
            return chances
        share = self.config.synthetic.share
        evenly = Mixture(points_exponent=0.0)
        made = self.synthetic.probabilities(evenly, self.synthetic.lengths, length)
        return np.concatenate([(1 - share) * chances, share * made])

    def at(self, step: int) -> Batch:
        """The whole batch of a step."""
        windows = self.config.windows
        rng = np.random.default_rng((self.config.seed, step))
        weights = np.asarray(windows.length_weights) / np.sum(windows.length_weights)
        num_tokens = int(rng.choice(windows.lengths, p=weights))
        horizon = int(rng.integers(1, max(2, int(num_tokens * windows.largest_horizon_share))))
        history = self.config.model.max_lag + num_tokens + 1 - horizon
        shape = WindowShape(history, horizon, num_steps=num_tokens + 1)
        draws = draw_windows(
            rng,
            self._chances[num_tokens],
            np.zeros_like(self.ends),
            self.ends,
            windows.tokens_per_batch // num_tokens,
            shape,
        )
        cut = self.on_device.cut(draws, shape, self.device_ends)
        generator = torch.Generator(self.device).manual_seed(int(rng.integers(2**62)))
        cut = altered(cut, self.config.augment, generator, history)
        noise = torch.randn((len(draws), num_tokens), generator=generator, device=self.device)
        return as_batch(cut, history, noise * windows.target_noise)

    def shared(self, step: int, rank: int, num_processes: int, num_parts: int) -> list[Batch]:
        """One process' rows of the batch of a step, in parts."""
        batch = self.at(step)
        rows = torch.arange(rank, len(batch["values"]), num_processes)
        return [take(batch, part) for part in rows.tensor_split(min(num_parts, max(1, len(rows))))]


def altered(
    cut: CutWindows, config: AugmentConfig, generator: torch.Generator, history_length: int
) -> CutWindows:
    """Augmented windows; those that run at another pace now have no calendar."""
    values, observed, keeps = augment(cut.values, cut.observed, config, generator, history_length)
    return CutWindows(values, observed, cut.calendar * keeps[:, None, None])


def as_batch(cut: CutWindows, history_length: int, noise: Tensor) -> Batch:
    """What the objective takes. Windows whose history hardly moves count for nothing."""
    values, observed = cut.values, cut.observed
    past, seen = values[:, :history_length], observed[:, :history_length]
    highest = past.masked_fill(~seen, -torch.inf).amax(dim=1)
    lowest = past.masked_fill(~seen, torch.inf).amin(dim=1)
    moves = (highest > lowest) & (seen.sum(dim=1) >= SHORTEST_OBSERVED)
    counts = observed[:, -noise.shape[1] :] & moves[:, None]
    return {
        "values": values,
        "observed": observed,
        "calendar": cut.calendar,
        "noise": noise,
        "counts": counts,
        "history_length": torch.tensor(history_length),
        "count": counts.sum(),
    }


def take(batch: Batch, rows: Tensor) -> Batch:
    """Some windows of a batch."""
    part = {name: value[rows] if value.dim() else value for name, value in batch.items()}
    return {**part, "count": part["counts"].sum()}


class NextValue(nn.Module):
    """Sum of the losses of the next value over the steps of a batch that count."""

    def __init__(self, network: LagLlama) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Batch) -> Tensor:
        losses, _ = self.network.loss(
            batch["values"],
            batch["observed"],
            batch["calendar"],
            int(batch["history_length"]),
            batch["noise"],
        )
        return losses[batch["counts"]].sum()


def is_hidden_matrix(name: str) -> bool:
    """Whether a weight of `NextValue` lies between the first and the last layer."""
    return ".blocks." in name


def pretrain(
    corpus: Corpus,
    directory: Path,
    config: PretrainConfig,
    start_from: Path | None = None,
    fabric: Fabric | None = None,
    report: Callable[[Row], None] = lambda row: None,
    minutes: float | None = None,
    licences: Mapping[str, str] | None = None,
) -> Progress:
    """Pretrain on `corpus`, or go on with the run in `directory`; leaves a loadable checkpoint.

    A new run begins with drawn weights, or with those of the checkpoint `start_from` (in place of
    `config.model`). `directory` receives `checkpoints/` (to go on), `log.csv`, and `model/` (the
    averaged weights so far). `minutes` ends this sitting, not the run.

    Raises:
        DataError: if the corpus leaves nothing to learn from, or `config` asks of it what it has not.
        CheckpointError: if there is no checkpoint at `start_from`, or the run is of another model.
    """
    fabric = fabric or Fabric(devices=1)
    network, seen_before = _network(config, start_from)
    # Windows must be as long as the weights want them that are trained.
    config = dataclasses.replace(config, model=network.config)
    _check_share(config.windows, fabric.world_size)
    _check_model(config.model, directory)
    objective = NextValue(network)
    batches = Batches(corpus, config, fabric.device)
    validate = _validation(batches, config, fabric)
    if config.loop.compile:
        network.transformer.compile(dynamic=False)

    def save_model(averaged: nn.Module) -> None:
        assert isinstance(averaged, NextValue)
        checkpoint.save(averaged.network, directory / MODEL_DIRECTORY)
        names = tuple(dict.fromkeys([*seen_before, *corpus.datasets]))
        known = {name: text for name, text in (licences or {}).items() if name in names}
        record = TrainingRecord(names, licences=known)
        checkpoint.save_training(record, directory / MODEL_DIRECTORY)

    return train(
        objective,
        lambda step: batches.shared(
            step, fabric.global_rank, fabric.world_size, config.loop.accumulate
        ),
        config.loop,
        directory,
        fabric,
        is_hidden_matrix,
        validate,
        report,
        save_model,
        minutes,
    )


def _network(config: PretrainConfig, start_from: Path | None) -> tuple[LagLlama, tuple[str, ...]]:
    """The network to train, and the data sets that it has seen before."""
    if start_from is not None:
        return checkpoint.load(start_from), checkpoint.load_training(start_from).datasets
    network = LagLlama(config.model)
    network.initialise(torch.Generator().manual_seed(config.seed))
    return network, ()


def _check_share(windows: WindowConfig, num_processes: int) -> None:
    fewest = windows.tokens_per_batch // max(windows.lengths)
    if fewest < num_processes:
        raise DataError(
            f"[windows] a batch may be {fewest} windows of {max(windows.lengths)}, too few for "
            f"{num_processes} processes; raise tokens_per_batch to "
            f"{num_processes * max(windows.lengths)}"
        )


def _check_model(model: LagLlamaConfig, directory: Path) -> None:
    """Refuse to go on with weights that mean something else, though they may be of the same shapes."""
    known = directory / MODEL_DIRECTORY / checkpoint.CONFIG_FILE
    if not (directory / CHECKPOINTS).exists() or not known.exists():
        return
    before, now = (dataclasses.asdict(one) for one in (checkpoint.read_config(known), model))
    if before != now:
        changed = ", ".join(name for name in now if now[name] != before[name])
        raise CheckpointError(
            f"{directory} holds a run of another model (it differs in {changed}); train in another "
            "folder"
        )


def _validation(
    batches: Batches, config: PretrainConfig, fabric: Fabric
) -> Callable[[nn.Module], dict[str, float]] | None:
    """CRPS of forecasts of what is held back; None where no series has enough of it."""
    origins = num_origins(batches.real, batches.train_lengths)
    if origins.max() < SHORTEST_SERIES:
        if config.loop.patience:
            raise DataError(
                "[loop] patience stops by what is held back, and no series is held back by "
                f"{SHORTEST_SERIES + HORIZON - 1} steps or more; raise [hold_out] share or leave "
                "patience out"
            )
        return None
    held_back = HeldBack(
        batches.real,
        batches.on_device,
        config.mixture,
        batches.train_lengths,
        config.model.max_lag,
        config.seed,
    )

    def validate(averaged: nn.Module) -> dict[str, float]:
        assert isinstance(averaged, NextValue)
        found = held_back.crps(averaged.network) if fabric.is_global_zero else 0.0
        return {"validation_crps": fabric.broadcast(found)}

    return validate


def _synthesise(config: SyntheticConfig, seed: int) -> Corpus | None:
    """Series made for this run, a data set for each family.

    Real ones are mixed where batches are augmented, as windows, which keep their calendar.
    """
    if config.share == 0:
        return None
    made = synthesise(config.num_series, seed)
    families = dict.fromkeys(series.family for series in made)
    return join(
        DataSet(
            f"synthetic {family}",
            [str(n) for n, series in enumerate(made) if series.family == family],
            [series.values for series in made if series.family == family],
            np.array([series.start for series in made if series.family == family]),
            [series.frequency for series in made if series.family == family],
        )
        for family in families
    )


def run_pretraining(
    data: Path,
    directory: Path,
    config: PretrainConfig | None = None,
    *,
    minutes: float | None = None,
    without: tuple[str, ...] = (),
    start_from: Path | None = None,
    device: str = "auto",
    precision: Any = "32-true",
    threads: int | None = None,
    licences: Mapping[str, str] | None = None,
    report: Callable[[Row], None] = lambda row: None,
) -> Progress:
    """Pretrain on the corpus at `data`, and draw the loss curve.

    Under `torchrun`, the processes it starts share each batch.

    Raises:
        DataError: if the corpus cannot be read, or the device is not there.
        CheckpointError: if there is no checkpoint at `start_from`.
    """
    fabric = _fabric(device, precision)
    corpus = read_corpus(data, without)
    if threads is not None:
        torch.set_num_threads(threads)
    progress = pretrain(
        corpus,
        directory,
        config or PretrainConfig(),
        start_from,
        fabric,
        report,
        minutes,
        licences,
    )
    if fabric.is_global_zero:
        plot_losses(directory)
    return progress


def _fabric(device: str, precision: Any) -> Fabric:
    """One device, or all processes that torchrun has started."""
    world, local = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    try:
        fabric = Fabric(
            accelerator=device,
            devices=local,
            num_nodes=world // local,
            strategy="ddp" if world > 1 else "auto",
            precision=precision,
        )
    except Exception as error:
        # Lightning's own type of error, and others by accelerator; all say that it is not there.
        raise DataError(f"device {device!r} cannot be used here; try 'auto'") from error
    fabric.launch()
    return fabric


def plot_losses(directory: Path) -> None:
    """Draw `loss.png` from the log of a run."""
    with (directory / LOG_FILE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(7, 5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for axes, name, label in (
        (above, "loss", "training loss"),
        (below, "validation_crps", "CRPS on what is held back"),
    ):
        points = [(int(row["step"]), float(row[name])) for row in rows if row[name]]
        if points:
            axes.plot(*zip(*points, strict=True), linewidth=1.0)
        axes.set_ylabel(label)
    below.set_xlabel("step")
    figure.savefig(directory / "loss.png", dpi=120)
