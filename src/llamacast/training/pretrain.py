"""Pretraining: a network learns the next value, or patch, of random windows of a corpus."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from matplotlib.figure import Figure
from torch import nn

from llamacast.data.corpora import SHORTEST_SERIES, Corpus, read_corpus
from llamacast.forecast import CheckpointError, DataError, TrainingRecord
from llamacast.model import checkpoint
from llamacast.model.config import CriaConfig
from llamacast.training.batches import Batches
from llamacast.training.config import PretrainConfig, WindowConfig
from llamacast.training.log import LOG_FILE, Row
from llamacast.training.loop import train
from llamacast.training.objectives import Objective, make_objective
from llamacast.training.state import CHECKPOINTS, Progress
from llamacast.training.validation import (
    HORIZON,
    HeldBack,
    draw_held_back,
    forecast_shape,
    num_origins,
)

CPU_FLAGS = Path("/proc/cpuinfo")
MODEL_DIRECTORY = "model"
RUN_FILE = "run.json"


def is_hidden_matrix(name: str) -> bool:
    """Whether a weight of an objective lies between the first and the last layer."""
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
    `config.model`, but for Cria's inputs that this tells and they do not know, and for the more past
    seasons and the more layers of the two). `directory` receives `checkpoints/` (to go on), `log.csv`,
    and `model/` (the averaged weights so far). `minutes` ends this sitting, not the run.

    Raises:
        DataError: if the corpus leaves nothing to learn from, or `config` asks of it what it has not.
        CheckpointError: if there is no checkpoint at `start_from`, or the run is of another model.
    """
    fabric = fabric or Fabric(devices=1)
    network, record = _network(config, start_from)
    # Windows must be as long as the weights want them that are trained.
    config = dataclasses.replace(config, model=network.config)
    _check_share(config.windows, fabric.world_size)
    told = _told(config, corpus)
    if (directory / CHECKPOINTS).exists():
        _check_same(told, directory)
        # A run that began with other weights goes on without being told again which.
        record = record.joined(checkpoint.load_training(directory / MODEL_DIRECTORY))
    record = record.joined(TrainingRecord(tuple(corpus.datasets), licences=licences or {}))
    licences = {name: one for name, one in record.licences.items() if name in record.datasets}
    record = dataclasses.replace(record, licences=licences)
    objective = make_objective(network)
    batches = Batches(corpus, config, fabric.device)
    validate = _validation(batches, config, fabric)
    if config.loop.compile:
        network.transformer.compile(dynamic=False)

    def save_model(averaged: nn.Module) -> None:
        assert isinstance(averaged, Objective)
        checkpoint.write_json(told, directory / RUN_FILE)
        checkpoint.save(averaged.network, directory / MODEL_DIRECTORY)
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


def _network(
    config: PretrainConfig, start_from: Path | None
) -> tuple[checkpoint.Network, TrainingRecord]:
    """The network to train, and what it has learnt from before."""
    if start_from is not None:
        found = checkpoint.load(start_from)
        if isinstance(found.config, CriaConfig) and isinstance(config.model, CriaConfig):
            # Covariates come with fine-tuning.
            asked = dataclasses.replace(config.model, num_covariates=0)
            found = checkpoint.widened(found, checkpoint.with_inputs_of(found.config, [asked]))
            if asked.num_layers > found.config.num_layers:
                drawn = torch.Generator().manual_seed(config.seed)
                found = checkpoint.deepened(found, asked.num_layers, drawn)
        return found, checkpoint.load_training(start_from)
    network = checkpoint.make_network(config.model)
    network.initialise(torch.Generator().manual_seed(config.seed))
    return network, TrainingRecord()


def _check_share(windows: WindowConfig, num_processes: int) -> None:
    fewest = windows.tokens_per_batch // max(windows.lengths)
    if fewest < num_processes:
        raise DataError(
            f"[windows] a batch may be {fewest} windows of {max(windows.lengths)}, too few for "
            f"{num_processes} processes; raise tokens_per_batch to "
            f"{num_processes * max(windows.lengths)}"
        )


def _told(config: PretrainConfig, corpus: Corpus) -> dict[str, Any]:
    """What a run follows from, but for the loop, whose plan may change."""
    points = np.add.reduceat(corpus.lengths, corpus.dataset_bounds[:-1]).tolist()
    return _members(config) | {"data": dict(zip(corpus.datasets, points, strict=True))}


def _members(config: PretrainConfig) -> dict[str, Any]:
    fields = dataclasses.asdict(config)
    del fields["loop"]
    found: dict[str, Any] = json.loads(json.dumps(fields))  # tuples come back as lists
    return found


def _check_same(told: dict[str, Any], directory: Path) -> None:
    """Refuse to go on with a run of other data or another recipe."""
    known = directory / RUN_FILE
    if not known.exists():
        return
    try:
        before = json.loads(known.read_text())
    except ValueError as error:
        raise CheckpointError(
            f"{known} cannot be read ({error}); delete it to go on without asking whether the run is the same"
        ) from error
    # What an older version did not write had its default, but for the network's shape.
    usual = _members(PretrainConfig()) | {"model": {}}
    changed = ", ".join(_changes(before, told, usual))
    if changed:
        raise CheckpointError(
            f"{directory} holds a run that differs in {changed}; train in another folder, perhaps "
            f"with --start-from {directory / MODEL_DIRECTORY}"
        )


def _changes(before: dict[str, Any], now: dict[str, Any], usual: dict[str, Any]) -> list[str]:
    """Names of members that differ, of `before` as usual where they are not told: tables by their own
    members."""
    found = []
    for name in sorted(before.keys() | now.keys()):
        one, two = before.get(name, usual.get(name)), now.get(name)
        if isinstance(one, dict) and isinstance(two, dict):
            found += [f"{name}.{inner}" for inner in _changes(one, two, usual.get(name) or {})]
        elif one != two:
            found.append(name)
    return found


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
    shape = forecast_shape(config.model, HORIZON)
    draws = draw_held_back(batches.real, config.mixture, batches.train_lengths, shape, config.seed)
    held_back = HeldBack(batches.real, batches.on_device, draws, shape, config.seed)

    def validate(averaged: nn.Module) -> dict[str, float]:
        assert isinstance(averaged, Objective)
        found = held_back.crps(averaged) if fabric.is_global_zero else 0.0
        return {"validation_crps": fabric.broadcast(found)}

    return validate


def run_pretraining(
    data: Path,
    directory: Path,
    config: PretrainConfig | None = None,
    *,
    minutes: float | None = None,
    without: tuple[str, ...] = (),
    left_out_days: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    start_from: Path | None = None,
    device: str = "auto",
    precision: Any = "32-true",
    threads: int | None = None,
    licences: Mapping[str, str] | None = None,
    other_data: bool = False,
    report: Callable[[Row], None] = lambda row: None,
) -> Progress:
    """Pretrain on the corpus at `data`, and draw the loss curve.

    With `other_data`, what `config` says of data sets that are not there does not matter. Under
    `torchrun`, the processes it starts share each batch.

    Raises:
        DataError: if the corpus cannot be read, or the device is not there or too small.
        CheckpointError: if there is no checkpoint at `start_from`.
    """
    fabric = open_fabric(device, precision)
    corpus = read_corpus(data, without, left_out_days)
    strange = set(left_out_days) - set(corpus.datasets)
    if strange and not other_data:
        raise DataError(
            f"{data}: there is no data set {sorted(strange)[0]!r}, of which days are left out"
        )
    if threads is not None:
        torch.set_num_threads(threads)
    config = config or PretrainConfig()
    config = config.about(corpus.datasets) if other_data else config
    try:
        progress = pretrain(
            corpus, directory, config, start_from, fabric, report, minutes, licences
        )
    except torch.OutOfMemoryError as error:
        raise DataError(
            "the device's memory is too small for a batch; raise [loop] accumulate (now "
            f"{config.loop.accumulate}), which changes no numbers"
        ) from error
    if fabric.is_global_zero:
        plot_losses(directory)
    return progress


def open_fabric(device: str, precision: Any) -> Fabric:
    """One device, or all processes that torchrun has started."""
    world, local = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if device == "auto":
        # Others, such as mps, only if asked for: not all that training needs is known to be there.
        device = "cuda" if torch.cuda.is_available() else "cpu"
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


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether products of bfloat16 are faster than those of float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not CPU_FLAGS.exists():
        return False
    flags = set(CPU_FLAGS.read_text().split())
    return bool(flags & {"avx512_bf16", "amx_bf16"})


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
