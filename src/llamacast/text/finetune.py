"""A language model taught one's own series: LoRA or all weights, within a budget that is told first."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from llamacast.data.windows import evenly
from llamacast.forecast import DataError
from llamacast.text.codec import CodecConfig, fit
from llamacast.text.flops import forward, shape_of, steps_within, training_step
from llamacast.text.language import LORA_TARGETS, Language, Settings, load_language
from llamacast.text.likelihood import log_probabilities
from llamacast.text.objective import NextSymbol
from llamacast.text.prompts import FEWEST_STEPS
from llamacast.text.vocabulary import Tokens, Writing
from llamacast.text.windows import System, batch_of, tokens_of, usable
from llamacast.training.log import Row
from llamacast.training.loop import Batch, LoopConfig, train
from llamacast.training.lora import inject, merge, read_into, write_adapter

Strategy = Literal["lora", "full"]

MODEL_DIRECTORY, ADAPTER_DIRECTORY, BEST_DIRECTORY = "model", "adapter", "best"
GRADIENTS_FILE = "gradients.csv"
# Learning rates that have worked, times the network's width: wider ones take smaller steps.
RATE_TIMES_WIDTH: dict[Strategy, float] = {"lora": 0.6, "full": 0.08}
FEWEST_KNOWN = 8
"""Steps before the horizon, at least, of a window."""
NUM_VALIDATIONS = 8
MOST_VALIDATED = 128
"""Windows of a validation, at most."""
VALIDATED_AT_A_TIME = 16
SHARE_WHOLE = 0.5
"""Of windows, those that go to the end of their system; others end anywhere."""


@dataclass(frozen=True)
class FinetuneConfig:
    """What to learn, and how long."""

    horizon: int
    """Steps that will be forecast: a window is scaled by what comes before its last so many."""
    strategy: Strategy = "lora"
    rank: int = 8
    """Of LoRA's matrices, whose effect is counted twice (alpha = 2 rank)."""
    learning_rate: float | None = None
    """None takes 0.6 (LoRA) or 0.08 (full) over the network's width."""
    context: int | None = None
    """Most tokens of a window; None as many as the model reads."""
    batch: int = 16
    """Windows of a step."""
    steps: int = 600
    seed: int = 0
    budget: float = math.inf
    """FLOPs that training and validation together may take."""

    @property
    def lora_rank(self) -> int:
        """Of the matrices that learn; 0 where all weights do."""
        return self.rank if self.strategy == "lora" else 0

    def __post_init__(self) -> None:
        for name, least in {"horizon": 1, "rank": 1, "batch": 1, "steps": 1, "seed": 0}.items():
            value = getattr(self, name)
            if not isinstance(value, (int, np.integer)) or value < least:
                raise DataError(f"{name} must be a whole number of at least {least}; got {value!r}")
            object.__setattr__(self, name, int(value))  # runs are told apart by JSON
        if self.strategy not in ("lora", "full"):
            raise DataError(f"strategy must be lora or full; got {self.strategy!r}")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise DataError(f"learning_rate must be positive; got {self.learning_rate}")
        if not self.budget > 0:
            raise DataError(f"the budget of FLOPs must be positive; got {self.budget:g}")


@dataclass(frozen=True)
class Outcome:
    """What fine-tuning came to, on windows that nothing was learnt from."""

    before: float
    """Mean of negative logarithms of the density of values to be forecast, each given those before it:
    of the model as it was."""
    after: float
    """Of the model that is returned; no more than `before`."""
    steps: int
    num_windows: int
    flops: float
    """In the stated convention, validation among them."""

    @property
    def improved(self) -> bool:
        return self.after < self.before

    def __str__(self) -> str:
        windows = f"{self.num_windows} windows held back"
        if not self.improved:
            return (
                f"nothing learnt in {self.steps} steps was better on {windows} than the model as it "
                f"was ({self.before:.3f} nats a value); it is kept"
            )
        return (
            f"negative log density on {windows} went from {self.before:.3f} to {self.after:.3f} nats a "
            f"value in {self.steps} steps ({self.flops:.2e} FLOPs)"
        )


@dataclass(frozen=True)
class Lesson:
    """Systems to learn from, and windows to judge by, written as one model does."""

    train: Sequence[System]
    judged: Sequence[System]
    """Each up to the end of its horizon."""
    codec: CodecConfig
    context: int
    """Most tokens of a window that is learnt from."""
    longest: int
    """And of one that is judged by, which the whole horizon must fit into."""
    horizon: int
    writing: Callable[[int], Writing]
    tried: Sequence[int] = ()
    """Tokens of each window that was read to choose the codec."""

    def window(self, system: System, end: int, most: int) -> Tokens:
        """A system up to a step, its last steps that fit; scaled by all before the horizon."""
        writing = self.writing(system.shape[1])
        tokens = tokens_of(system[:end], end - self.horizon, self.codec, writing)
        return tokens.last_steps(system.shape[1], most)[1]

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        found: list[Tokens] = []
        while len(found) < size:
            system = self.train[int(rng.integers(len(self.train)))]
            fewest = min(len(system), self.horizon + max(FEWEST_KNOWN, len(system) // 2))
            end = len(system)
            if rng.random() >= SHARE_WHOLE:
                end = int(rng.integers(fewest, len(system) + 1))
            if usable(system[:end], end - self.horizon, self.codec):
                found.append(self.window(system, end, self.context))
        return batch_of(found)

    def within(self, context: int) -> Lesson:
        """The same in windows of so many tokens.

        Raises:
            DataError: if these do not hold two steps.
        """
        step = max(one.shape[1] for one in self.train) * self.writing(1).grammar.longest_number
        if context < 2 * step:
            raise DataError(f"a context of {context} tokens does not hold two steps, {2 * step}")
        return dataclasses.replace(self, context=context)

    @cached_property
    def windows(self) -> Sequence[Tokens]:
        """What is judged by."""
        return [self.window(system, len(system), self.longest) for system in self.judged]


def check_context(language: Language, context: int) -> None:
    """Refuse a context that the model does not read.

    Raises:
        DataError: if it is too long.
    """
    longest = language.settings.longest
    if context > longest:
        raise DataError(
            f"the model reads {longest} tokens at once; a context of {context} is too long"
        )


def lesson_of(
    language: Language,
    systems: Sequence[System],
    validation: Sequence[System] | None,
    config: FinetuneConfig,
) -> Lesson:
    """Without systems to judge by, the last horizon of each is kept for that.

    Raises:
        DataError: if what is left is too short to learn from, or a context is asked for that the model
            does not read.
    """
    longest = language.settings.longest
    context = config.context or longest
    check_context(language, context)
    shortest = config.horizon + FEWEST_KNOWN
    judged = list(systems if validation is None else validation)
    train = [one[: len(one) - config.horizon] if validation is None else one for one in systems]
    train = [one for one in train if len(one) >= shortest]
    judged = [one for one in judged if len(one) >= shortest]
    # What says nothing of its horizon judges nothing.
    judged = [one for one in judged if np.isfinite(one[-config.horizon :]).any()]
    judged = [judged[place] for place in evenly(len(judged), MOST_VALIDATED)]
    if not train or not judged:
        extra = config.horizon if validation is None else 0
        raise DataError(
            f"no series has the {shortest + extra} steps that it takes to learn a horizon of "
            f"{config.horizon}, with values among the last; ask for a shorter horizon"
        )
    train, judged = (
        [one for one in some if np.isfinite(one[: -config.horizon]).any(axis=0).all()]
        for some in (train, judged)
    )
    if not train or not judged:
        raise DataError(
            "no series has values before its last horizon to scale by; bring longer ones, or ask for a "
            "shorter horizon"
        )
    codec, tried = choose_codec(language, train, judged, config.horizon)
    lesson = Lesson(train, judged, codec, longest, longest, config.horizon, language.writing, tried)
    lesson = lesson.within(context)
    for system, window in zip(judged, lesson.windows, strict=True):
        held = (window.values[-1] - window.values[0] + 1) // system.shape[1]
        if held < config.horizon + FEWEST_STEPS:
            raise DataError(
                f"{longest} tokens, which the model reads at once, do not hold a horizon of "
                f"{config.horizon} steps; ask for a shorter horizon"
            )
    return lesson


def choose_codec(
    language: Language, systems: Sequence[System], judged: Sequence[System], horizon: int
) -> tuple[CodecConfig, list[int]]:
    """The way of writing that all systems can be written in and under which the ends of some of them
    are likeliest; and the tokens of what was read to find it.

    Raises:
        DataError: if there is none.
    """
    codecs = [
        one
        for one in language.settings.codecs
        if all(usable(system, len(system) - horizon, one) for system in [*systems, *judged])
    ]
    if not codecs:
        raise DataError("some values have no logarithms, and the model writes nothing else")
    if len(codecs) == 1:
        return codecs[0], []
    known = [one for one in systems if np.isfinite(one[-horizon:]).any()] or list(judged)
    some = known[:: max(1, len(known) // VALIDATED_AT_A_TIME)][:VALIDATED_AT_A_TIME]
    longest, scores, tried = language.settings.longest, [], list[int]()
    for codec in codecs:
        lesson = Lesson([], some, codec, longest, longest, horizon, language.writing)
        scores.append(float(np.mean(judge(language, lesson))))
        tried += [len(window.ids) for window in lesson.windows]
    return codecs[int(np.argmin(scores))], tried


def judge(language: Language, lesson: Lesson) -> list[float]:
    """Of each window held back, the mean negative log density of the values of its horizon."""
    found = []
    both = list(zip(lesson.judged, lesson.windows, strict=True))
    for channels in sorted({one.shape[1] for one in lesson.judged}):
        own = [(system, window) for system, window in both if system.shape[1] == channels]
        for first in range(0, len(own), VALIDATED_AT_A_TIME):
            part = own[first : first + VALIDATED_AT_A_TIME]
            chances = log_probabilities(language, [window for _, window in part], channels)
            for (system, _), chance in zip(part, chances, strict=True):
                density = chance[-lesson.horizon * channels :].reshape(-1, channels).copy()
                for one in range(channels):
                    scale = fit(system[: -lesson.horizon, one], lesson.codec)
                    written = scale.written(system[:, one], lesson.codec.writable)
                    added = scale.log_density(system[:, one], written)
                    density[:, one] += added[-lesson.horizon :]
                found.append(float(-np.nanmean(density)))
    return found


def cost(language: Language, lesson: Lesson, config: FinetuneConfig) -> float:
    """FLOPs of a run in the stated convention, validations and all."""
    shape = shape_of(language.model.config)
    step = training_step(shape, lesson.context, config.batch, config.lora_rank)
    return config.steps * step + _validation_cost(language, lesson, config)


def _validation_cost(language: Language, lesson: Lesson, config: FinetuneConfig) -> float:
    shape = shape_of(language.model.config)
    once = sum(forward(shape, len(window.ids), config.lora_rank) for window in lesson.windows)
    every = _validate_every(config)
    passes = 1 + math.ceil(config.steps / every)  # one before, one each so often, one at the end
    return passes * once + sum(forward(shape, tokens) for tokens in lesson.tried)


def _validate_every(config: FinetuneConfig) -> int:
    return max(1, config.steps // NUM_VALIDATIONS)


def check_budget(language: Language, lesson: Lesson, config: FinetuneConfig) -> float:
    """The cost, if the budget allows it.

    Raises:
        DataError: if it does not; the message says how many steps would fit.
    """
    flops = cost(language, lesson, config)
    if flops > config.budget:
        fit_in = _steps_that_fit(language, lesson, config)
        raise DataError(
            f"{config.steps} steps would take {flops:.3e} FLOPs, more than the budget of "
            f"{config.budget:.3e}; {fit_in} steps fit"
        )
    return flops


def _steps_that_fit(language: Language, lesson: Lesson, config: FinetuneConfig) -> int:
    """How many the budget allows, with their own validations."""
    shape, rank = shape_of(language.model.config), config.lora_rank
    steps = steps_within(config.budget, shape, lesson.context, config.batch, rank)
    step = training_step(shape, lesson.context, config.batch, rank)
    while steps > 0:
        excess = cost(language, lesson, dataclasses.replace(config, steps=steps)) - config.budget
        if excess <= 0:
            return steps
        steps -= math.ceil(excess / step)
    return 0


def finetune(
    language: Language,
    lesson: Lesson,
    config: FinetuneConfig,
    directory: Path,
    fabric: Fabric,
    report: Callable[[Row], None] = lambda row: None,
    told: Callable[[str], None] = lambda text: None,
) -> tuple[Language, Outcome]:
    """Learn from a lesson; keep what was best on what it holds back, or the model as it was.

    `directory` receives checkpoints, from which the same call goes on, `log.csv`, `gradients.csv`,
    `model/` and, with LoRA, `adapter/`. `language` stays as it is.

    Raises:
        DataError: if the budget does not allow the run, before anything is written.
    """
    flops = check_budget(language, lesson, config)
    shape = shape_of(language.model.config)
    others = [one for one in language.settings.codecs if one != lesson.codec]
    settings = dataclasses.replace(
        language.settings, codecs=(lesson.codec, *others), prefers="first"
    )
    learner = _copy(language, settings)
    if config.strategy == "lora":
        torch.manual_seed(config.seed)
        inject(learner.model, config.rank, LORA_TARGETS)
    num_learnt = sum(one.numel() for one in learner.model.parameters() if one.requires_grad)
    told(
        f"{config.steps} steps of {config.batch} windows of up to {lesson.context} tokens: "
        f"{flops:.2e} FLOPs; {num_learnt:,} weights learn"
    )
    rate = config.learning_rate or RATE_TIMES_WIDTH[config.strategy] / shape.width
    every = _validate_every(config)
    loop = LoopConfig(
        steps=config.steps,
        optimiser="adamw",
        learning_rate=rate,
        warmup_steps=min(50, config.steps // 10),
        decay_share=1.0,
        decay="cosine",
        weight_decay=0.01,
        average_steps=min(50, config.steps // 10),
        patience=config.steps,  # never stops, and keeps the best
        log_every=max(1, config.steps // 50),
        validate_every=every,
        save_every=every,
    )
    num_channels = max(one.shape[1] for one in lesson.train)
    objective = NextSymbol(learner.model, language.writing(num_channels).ids)
    norms = GradientNorms(learner.model, directory / GRADIENTS_FILE)
    before = float(np.mean(judge(_with(learner, language.model), lesson)))
    best = directory / BEST_DIRECTORY

    def validate(averaged: Any) -> dict[str, float]:
        found = judge(_with(learner, averaged.model), lesson)
        return {"validation_loss": float(np.mean(found))}

    def save(averaged: Any) -> None:
        if config.strategy == "lora":
            write_adapter(averaged.model, best, {}, targets=LORA_TARGETS)
        else:
            _with(learner, averaged.model).save(best)

    def batches_at(step: int) -> list[Batch]:
        return [lesson.batch(np.random.default_rng((config.seed, step)), config.batch)]

    def tell(row: Row) -> None:
        norms.write(int(row["step"]))
        report(row)

    progress = train(
        objective, batches_at, loop, directory, fabric, validate=validate, report=tell, on_save=save
    )
    outcome = Outcome(before, min(before, progress.best), progress.step, len(lesson.judged), flops)
    if not outcome.improved:
        return language, outcome
    if config.strategy == "lora":
        read_into(learner.model, best)
        write_adapter(learner.model, directory / ADAPTER_DIRECTORY, {}, targets=LORA_TARGETS)
        merge(learner.model)
    else:
        kept = str(language.model.dtype).removeprefix("torch.")
        learner = load_language(str(best), str(language.device), kept)  # type: ignore[arg-type]
    learner.name = f"{language.name}-{config.strategy}"
    learner.model.eval()
    return learner, outcome


def _copy(language: Language, settings: Settings) -> Language:
    """The same model with weights of its own."""
    found = Language(deepcopy(language.model), settings, language.tokenizer, language.name)
    found.model.requires_grad_(True)
    return found


def _with(language: Language, model: Any) -> Language:
    return Language(model, language.settings, language.tokenizer, language.name)


class GradientNorms:
    """Norms of the gradients of LoRA's two matrices, A and B, over all layers, step by step."""

    def __init__(self, model: nn.Module, path: Path) -> None:
        self.path = path
        self.squares = {"A": 0.0, "B": 0.0}
        self.norms: list[dict[str, float]] = []
        self.waiting: dict[str, int] = {}
        for name, weight in model.named_parameters():
            kind = "A" if ".lora_A." in name else "B" if ".lora_B." in name else ""
            if kind and weight.requires_grad:
                weight.register_post_accumulate_grad_hook(self._hook(kind))
                self.waiting[kind] = self.waiting.get(kind, 0) + 1
        self.seen = dict.fromkeys(self.waiting, 0)
        self.begun = False

    def _hook(self, kind: str) -> Callable[[Tensor], None]:
        def take(weight: Tensor) -> None:
            assert weight.grad is not None
            self.squares[kind] += float(weight.grad.detach().square().sum())
            self.seen[kind] += 1
            if self.seen == self.waiting:
                self.norms.append({one: math.sqrt(total) for one, total in self.squares.items()})
                self.squares = dict.fromkeys(self.squares, 0.0)
                self.seen = dict.fromkeys(self.seen, 0)

        return take

    def write(self, step: int) -> None:
        """A line: the mean norms of the steps since the last."""
        if not self.norms:
            return
        if not self.begun and self.path.exists():
            # Lines after the checkpoint that the run goes on from are written again.
            lines = self.path.read_text().splitlines()
            kept = [one for one in lines[1:] if int(one.split(",")[0]) < step]
            self.path.write_text("\n".join([lines[0], *kept]) + "\n")
        self.begun = True
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["step", "lora_A", "lora_B"])
            means = [sum(one[kind] for one in self.norms) / len(self.norms) for kind in ("A", "B")]
            writer.writerow([step, *(f"{one:.5f}" for one in means)])
        self.norms.clear()


def read_gradients(path: Path) -> Iterator[dict[str, float]]:
    """Lines of `gradients.csv`."""
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            yield {name: float(value) for name, value in row.items()}
