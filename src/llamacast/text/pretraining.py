"""A small decoder of digits, taught on systems and series that are made up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from transformers import PreTrainedModel

from llamacast.data.synthetic import synthesise
from llamacast.data.synthetic.coupled import coupled
from llamacast.forecast import TrainingRecord
from llamacast.text.language import OWN_CODECS, Language, Settings, make_decoder
from llamacast.text.objective import NextSymbol
from llamacast.text.vocabulary import Tokens, Writing
from llamacast.text.windows import System, batch_of, tokens_of, usable
from llamacast.training.log import Row
from llamacast.training.loop import Batch, LoopConfig, train
from llamacast.training.pretrain import open_fabric
from llamacast.training.state import Progress

MODEL_DIRECTORY = "model"
LONGEST_PROMPT = 704
"""Tokens of a window and more; positions beyond are not learnt."""
RECORD = TrainingRecord(("synthetic",))


@dataclass(frozen=True)
class PretrainConfig:
    """A run. Everything follows from `seed`."""

    seed: int = 0
    tokens_per_batch: int = 9600
    lengths: tuple[int, ...] = (128, 256, 400, 512, 704)
    """Tokens of windows; all of a batch share one."""
    length_weights: tuple[float, ...] = (0.1, 0.15, 0.45, 0.15, 0.15)
    channel_weights: tuple[float, ...] = (0.35, 0.5, 0.15)
    """How often windows have one, two, three channels."""
    general_share: float = 0.6
    """Of windows of one channel: how many are series like those that Cria learns from, and not part of
    a system."""
    shortest_known: float = 0.3
    """Share of a window, at least, that it is scaled by; up to all of it."""
    pool: int = 2048
    """Systems that are made at a time."""
    pool_steps: int = 400
    """Training steps that they serve for."""
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=6000, learning_rate=4e-3, warmup_steps=100, average_steps=200, save_every=100
        )
    )


class Windows:
    """Batches by number."""

    def __init__(self, config: PretrainConfig, writing: Callable[[int], Writing]) -> None:
        self.config, self.writing = config, writing
        self.pool = lru_cache(maxsize=4)(self._pool)

    def at(self, step: int) -> list[Batch]:
        config = self.config
        rng = np.random.default_rng((config.seed, 1, step))
        weights = np.asarray(config.length_weights)
        length = int(rng.choice(config.lengths, p=weights / weights.sum()))
        chances = np.asarray(config.channel_weights)
        num_channels = 1 + int(rng.choice(len(chances), p=chances / chances.sum()))
        writing = self.writing(num_channels)
        num_steps = length // (num_channels * writing.grammar.longest_number)
        systems = self.pool(step // config.pool_steps, num_channels)
        general = self.pool(step // config.pool_steps, 0) if num_channels == 1 else []
        found: list[Tokens] = []
        while len(found) < config.tokens_per_batch // length:
            source = general if general and rng.random() < config.general_share else systems
            system = _cut(rng, source[int(rng.integers(len(source)))], num_steps)
            num_known = round(len(system) * rng.uniform(config.shortest_known, 1.0))
            codec = OWN_CODECS[rng.choice(len(OWN_CODECS), p=_chances(system))]
            if usable(system, max(1, num_known), codec):
                found.append(tokens_of(system, max(1, num_known), codec, writing))
        return [batch_of(found)]

    def _pool(self, number: int, num_channels: int) -> Sequence[System]:
        """Systems of so many channels; 0 channels stands for series of all kinds."""
        config = self.config
        rng = np.random.default_rng((config.seed, 2, number, num_channels))
        if num_channels == 0:
            made = synthesise(config.pool, int(rng.integers(2**31)), longest=512)
            return [one.values.astype(np.float64)[:, None] for one in made]
        writing = self.writing(num_channels)
        steps = max(config.lengths) // (num_channels * writing.grammar.longest_number)
        return list(coupled(rng, config.pool, steps, num_channels))


def _cut(rng: np.random.Generator, system: System, num_steps: int) -> System:
    """A stretch that begins anywhere; of systems often at their beginning, which is wilder."""
    latest = max(0, len(system) - num_steps)
    first = 0 if rng.random() < 0.4 else int(rng.integers(latest + 1))
    return system[first : first + num_steps]


def _chances(system: System) -> Sequence[float]:
    """How often each of `OWN_CODECS` writes a system."""
    known = system[np.isfinite(system)]
    if len(known) and known.min() > 0:
        return 0.6, 0.15, 0.25
    return 0.0, 0.6, 0.4


def is_matrix(name: str) -> bool:
    """Whether a weight is Muon's: the matrices of the blocks."""
    return name.endswith("_proj.weight")


def pretrain(
    directory: Path,
    config: PretrainConfig,
    fabric: Fabric,
    make: Callable[[], PreTrainedModel] = make_decoder,
    minutes: float | None = None,
    report: Callable[[Row], None] = lambda row: None,
) -> Progress:
    """Teach a decoder from random weights; the same call goes on where it stopped.

    `directory` receives `model/`, which `load_language` reads, `log.csv` and checkpoints.
    """
    torch.manual_seed(config.seed)
    model = make()
    language = Language(model, Settings(OWN_CODECS, LONGEST_PROMPT, RECORD))
    windows = Windows(config, language.writing)
    # Digits of the first channel and of others are all that there is to write.
    ids = language.writing(2).ids

    def save(averaged: Any) -> None:
        Language(averaged.model, language.settings).save(directory / MODEL_DIRECTORY)

    return train(
        NextSymbol(model, ids),
        windows.at,
        config.loop,
        directory,
        fabric,
        is_matrix,
        report=report,
        on_save=save,
        minutes=minutes,
    )


def run_pretraining(
    directory: Path,
    steps: int | None = None,
    minutes: float | None = None,
    seed: int = 0,
    threads: int | None = None,
    device: str = "auto",
    report: Callable[[Row], None] = lambda row: None,
) -> Progress:
    """Pretrain the decoder that is packaged, or one like it, on one device."""
    config = PretrainConfig(seed=seed)
    if steps is not None:
        config = replace(config, loop=replace(config.loop, steps=steps))
    if threads is not None:
        torch.set_num_threads(threads)
    fabric = open_fabric(device, "bf16-mixed")
    return pretrain(directory, config, fabric, minutes=minutes, report=report)
