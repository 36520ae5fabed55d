"""Fine-tuning: a network goes on learning on one's own series, and is kept only if that helps."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric
from torch import nn

from llamacast.data.corpora import Corpus, HoldOut, join, panel_part
from llamacast.data.covariates import Beside, CovariateInputs, learn_inputs, with_future
from llamacast.data.panel import Panel
from llamacast.data.windows import SHORTEST_HISTORY, Draws
from llamacast.forecast import CheckpointError, DataError, Verdict
from llamacast.model import checkpoint
from llamacast.model.checkpoint import Network
from llamacast.model.config import CriaConfig, HeadName, LagLlamaConfig
from llamacast.training.augment import nothing
from llamacast.training.batches import Batches
from llamacast.training.config import PretrainConfig, WindowConfig
from llamacast.training.log import Row
from llamacast.training.loop import LoopConfig, train
from llamacast.training.objectives import Objective, make_objective
from llamacast.training.state import Progress
from llamacast.training.strategies import LEARNING_RATES, STRATEGIES
from llamacast.training.validation import HeldBack, forecast_shape
from llamacast.training.windows import CorpusOnDevice

RUN_FILE, VERDICT_FILE = "finetune.json", "verdict.json"
BEST_DIRECTORY, MODEL_DIRECTORY = "best", "model"
BEST_ADAPTER_DIRECTORY, ADAPTER_DIRECTORY = "best-adapter", "adapter"

# Windows to validate on: the last ones of each series, one horizon apart, from so many origins.
WINDOWS_WANTED, MOST_WINDOWS = 128, 256
USUAL_ORIGINS, FEWEST_ORIGINS = 4, 3
# Shares of the median series that they may take: usually, and to have the fewest that tell anything.
USUAL_SHARE, LARGEST_SHARE = 0.2, 0.5
# Ways from the weights that were there to those learnt that are tried at the end, as shares.
BLENDS = (0.25, 0.5, 0.75, 1.0)
# Of a batch: tokens, and windows whose end is asked for from afar.
TOKENS_PER_BATCH: dict[type, int] = {CriaConfig: 1024, LagLlamaConfig: 4096}
MASKED_END_SHARE = 0.7
NUM_VALIDATIONS = 16
STEPS_TIMED = 2
# Multiplications and additions for each weight and token: forwards, and twice that backwards.
FLOPS_PER_WEIGHT = 6


@dataclass(frozen=True)
class FinetuneConfig:
    """How to fine-tune.

    Raises:
        ValueError: if a number is out of its range; it names the field.
    """

    horizon: int
    """Steps that will be forecast."""
    strategy: str = "full"
    """What may learn (see `strategies.py`)."""
    steps: int = 600
    """At most; it ends earlier when nothing improves."""
    learning_rate: float | None = None
    """None takes the strategy's own."""
    context_length: int | None = None
    """Steps of history that the network looks at from now on; None leaves that as it is."""
    history_share: float = 1.0
    """Share of each series' history, the latest, to learn from, in (0, 1]."""
    head: str | None = None
    """Another distribution of the next value, learnt from nothing (Lag-Llama only)."""
    rank: int = 8
    """Of LoRA's matrices; they are scaled by alpha / rank = 2."""
    patience: int = 5
    """Validations, sixteen in a whole run, without a better one, after which it ends."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("horizon", "steps", "rank", "patience"):
            value = getattr(self, name)
            if not isinstance(value, (int, np.integer)) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1; got {value!r}")
        if self.strategy not in STRATEGIES:
            known = ", ".join(STRATEGIES)
            raise ValueError(f"strategy must be one of {known}; got {self.strategy!r}")
        if self.head is not None and self.head not in get_args(HeadName):
            known = ", ".join(get_args(HeadName))
            raise ValueError(f"head must be one of {known}; got {self.head!r}")
        if self.learning_rate is not None and not 0 < self.learning_rate < 1:
            raise ValueError(f"learning_rate must be in (0, 1); got {self.learning_rate!r}")
        if self.context_length is not None and not 1 <= self.context_length <= 65536:
            raise ValueError(f"context_length must be 1 to 65536; got {self.context_length!r}")
        if not 0 < self.history_share <= 1:
            raise ValueError(f"history_share must be in (0, 1]; got {self.history_share!r}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative; got {self.seed!r}")

    @property
    def rate(self) -> float:
        return self.learning_rate or LEARNING_RATES[self.strategy]


@dataclass(frozen=True)
class Cost:
    """What a run will take, measured before it starts."""

    steps: int
    minutes: float
    flops: float
    num_weights: int
    """That learn."""

    def __str__(self) -> str:
        return (
            f"at most {self.steps} steps, about {self.minutes:.1f} minutes and {self.flops:.1e} "
            f"floating-point operations; {self.num_weights:,} weights learn"
        )


@dataclass(frozen=True)
class Split:
    """Where learning ends and validation begins."""

    firsts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    """Of each series the steps to learn from; from its end on, windows to validate on."""
    series: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]
    """Of each window its series, and its number among that series' windows."""
    horizon: int

    def draws(self, history_length: int) -> Draws:
        origins = self.ends[self.series] + self.places * self.horizon
        firsts = np.maximum(origins - history_length, 0)
        return Draws(self.series, origins, firsts, np.ones(len(origins), dtype=bool))


def split(panel: Panel, config: FinetuneConfig) -> Split:
    """Hold back the last horizons of every series, as many of each.

    Raises:
        DataError: if the series are too short to tell whether anything is learnt.
    """
    lengths = np.array([len(values) for values in panel.values])
    median, horizon = float(np.median(lengths)), config.horizon
    wanted = max(USUAL_ORIGINS, WINDOWS_WANTED // len(lengths))
    count = min(wanted, int(USUAL_SHARE * median / horizon))
    if count < FEWEST_ORIGINS:
        count = FEWEST_ORIGINS
        if count * horizon > LARGEST_SHARE * median:
            need = math.ceil(count * horizon / LARGEST_SHARE)
            raise DataError(
                f"the series are too short to fine-tune on: with horizon {horizon}, half of them must "
                f"have at least {need} steps, and the median has {median:.0f}; give more history or "
                "shorten the horizon"
            )
    ends = np.maximum(lengths - count * horizon, 0)
    firsts = (ends * (1 - config.history_share)).astype(np.int64)
    known = [int(np.isfinite(v[:end]).sum()) for v, end in zip(panel.values, ends, strict=True)]
    usable = np.flatnonzero(np.array(known) >= SHORTEST_HISTORY)
    if not any(
        np.isfinite(panel.values[number][ends[number] :]).any() for number in usable.tolist()
    ):
        raise DataError(
            f"the last {count * horizon} steps of each series are held back to judge what is learnt, and no "
            "series that has a history before them has a value in them; cut the empty steps off"
        )
    series, places = np.repeat(usable, count), np.tile(np.arange(count), len(usable))
    rng = np.random.default_rng(config.seed)
    chosen = np.sort(rng.permutation(len(series))[:MOST_WINDOWS])
    return Split(firsts, ends, series[chosen], places[chosen], horizon)


class Validation:
    """The windows held back, as seen by networks of any context."""

    def __init__(
        self, panel: Panel, parts: Split, seed: int, inputs: CovariateInputs | None = None
    ) -> None:
        beside = () if inputs is None else inputs.matrices(panel)
        self.corpus = join([panel_part("data", panel, beside)])
        self.parts, self.seed = parts, seed
        self.on_device = CorpusOnDevice(self.corpus, torch.device("cpu"))
        self._held_back: dict[tuple[int, int], HeldBack] = {}

    def scores(self, network: Network) -> npt.NDArray[np.float64]:
        """Mean CRPS of the windows of each origin, in units of seasonal naive's errors."""
        config = network.config
        key = config.history_length, config.context_length
        if key not in self._held_back:
            shape = forecast_shape(config, self.parts.horizon)
            draws = self.parts.draws(config.history_length)
            self._held_back[key] = HeldBack(self.corpus, self.on_device, draws, shape, self.seed)
        on_cpu = deepcopy(network).cpu()
        found = self._held_back[key].scores(make_objective(on_cpu)).numpy()
        by_origin = [found[self.parts.places == n] for n in np.unique(self.parts.places)]
        return np.array([np.nanmean(one) for one in by_origin if np.isfinite(one).any()])


@dataclass(frozen=True)
class Learner:
    """A network that is about to learn."""

    start: Network
    """With the context and the head that are asked for."""
    objective: Objective
    """Of a copy of it, in which some weights may move."""
    batches: Batches
    plan: PretrainConfig
    validation: Validation
    strategy: str

    def learn(self, directory: Path, fabric: Fabric, report: Callable[[Row], None]) -> Progress:
        """Train, or go on; the best weights so far are kept in `directory`."""

        def validate(averaged: nn.Module) -> dict[str, float]:
            return {"validation_crps": float(self.validation.scores(_plain(averaged)).mean())}

        def keep(averaged: nn.Module) -> None:
            checkpoint.save(_plain(averaged), directory / BEST_DIRECTORY)
            if self.strategy == "lora":
                from llamacast.training.lora import save_adapter

                save_adapter(_network(averaged), self.start, directory / BEST_ADAPTER_DIRECTORY)

        return train(
            self.objective,
            lambda step: self.batches.shared(step, fabric.global_rank, fabric.world_size, 1),
            self.plan.loop,
            directory,
            fabric,
            validate=validate,
            report=report,
            on_save=keep,
        )


def prepare(
    network: Network,
    panel: Panel,
    parts: Split,
    validation: Validation,
    config: FinetuneConfig,
    fabric: Fabric,
    inputs: CovariateInputs | None = None,
    decays: bool = True,
) -> Learner:
    """Make a network ready to learn; `decays` lets the learning rate fall at the end.

    Raises:
        DataError: if `config` does not suit the network.
    """
    start = prepared(network, config, 0 if inputs is None else len(inputs.names))
    learning = deepcopy(start).train()
    with torch.random.fork_rng(devices=[]):  # LoRA's matrices are drawn from torch's own state
        torch.manual_seed(config.seed)
        STRATEGIES[config.strategy](learning, config.rank)
    if config.head is not None:
        learning.head.requires_grad_(True)
    if inputs is not None:
        learning.transformer.embed.requires_grad_(True)
        for name, weight in learning.named_parameters():
            if name.startswith("slopes."):
                weight.requires_grad_(True)
    plan = _plan(learning, parts, config, decays)
    batches = Batches(_corpus(panel, parts, inputs), plan, fabric.device)
    objective = make_objective(learning)
    return Learner(start, objective, batches, plan, validation, config.strategy)


def finetune(
    network: Network,
    panel: Panel,
    config: FinetuneConfig,
    directory: Path,
    fabric: Fabric,
    report: Callable[[Row], None] = lambda row: None,
    announce: Callable[[str], None] = lambda text: None,
) -> tuple[Network, Verdict, CovariateInputs | None]:
    """Fine-tune, or go on with the run in `directory`; answer with the better network.

    What is learnt is judged by windows at the end of each series that come after all that it was
    learnt from. From the weights that were best there, and those the network came with, some
    mixtures are made; the one is taken whose gain exceeds its own standard error over origins by
    most. If none does, it is the network as it came. Covariates of the panel are learnt from, too;
    what the better network looks at of them is the last of the answers.

    `directory` receives `model/`, for `--model`; for LoRA also `adapter/`; `verdict.json`, `log.csv`
    and what a stopped run goes on from.

    Raises:
        DataError: if the series are too short or too large, or `config` does not suit the network.
        CheckpointError: if `directory` holds another run.
    """
    parts = split(panel, config)
    _check_counts(panel, config)
    inputs = inputs_of(panel, parts, config)
    learnt = learnable(network, panel)
    validation = Validation(learnt, parts, config.seed, inputs)
    learner = prepare(network, learnt, parts, validation, config, fabric, inputs)
    claim(directory, told_of(network, panel, config))
    begun = time.perf_counter()
    at_first = validation.scores(network)
    announce(str(_cost(learner, fabric, time.perf_counter() - begun)))
    progress = learner.learn(directory, fabric, report)
    best = checkpoint.load(directory / BEST_DIRECTORY)
    chosen, share, after = _choose(network, learner.start, best, validation, at_first)
    num_windows = len(parts.series)
    before = float(at_first.mean())
    verdict = Verdict(config.strategy, before, after, share, progress.step, num_windows)
    checkpoint.save(chosen, directory / MODEL_DIRECTORY)
    shutil.rmtree(directory / ADAPTER_DIRECTORY, ignore_errors=True)
    if config.strategy == "lora" and config.head is None and share > 0:
        _save_share(learner, network, directory, share)
    (directory / VERDICT_FILE).write_text(json.dumps(dataclasses.asdict(verdict), indent=1) + "\n")
    if chosen.config.num_covariates and inputs is not None:
        inputs.save(directory / MODEL_DIRECTORY)
    return chosen.eval(), verdict, inputs if chosen.config.num_covariates else None


def inputs_of(panel: Panel, parts: Split, config: FinetuneConfig) -> CovariateInputs | None:
    """What the network is to look at of a panel's covariates, if it has any.

    Raises:
        DataError: if the strategy cannot learn from them, or they do not vary.
    """
    if panel.covariates is None or not panel.covariates.names:
        return None
    if config.strategy == "lora":
        raise DataError("covariates need weights of their own; use the strategy 'full'")
    return learn_inputs(panel, parts.ends, config.horizon)


def prepared(network: Network, config: FinetuneConfig, num_covariates: int = 0) -> Network:
    """The network with the context, the head and the covariates that are asked for.

    Covariates are inputs behind the others whose weights are nothing yet: what it says stays the same.
    """
    if network.config.num_covariates:
        raise DataError(
            "this model has learnt from covariates already; fine-tune the one it came from"
        )
    changes: dict[str, Any] = {"num_covariates": num_covariates}
    if config.context_length is not None:
        changes["context_length"] = config.context_length
    if config.head is not None:
        if not isinstance(network.config, LagLlamaConfig):
            raise DataError("head: Cria tells quantiles; only Lag-Llama's head can be exchanged")
        counts = config.head == "negative_binomial"
        changes |= {"head": config.head, **({"scaling": "mean"} if counts else {})}
    try:
        asked = dataclasses.replace(network.config, **changes)
    except ValueError as error:
        raise DataError(str(error)) from error
    if config.head is None:
        return checkpoint.widened(network, asked)
    found = checkpoint.make_network(asked).to(next(network.parameters()).device)
    found.initialise(torch.Generator().manual_seed(config.seed))
    assert isinstance(asked, LagLlamaConfig)
    assert isinstance(network.config, LagLlamaConfig)
    own = checkpoint.widened(network, dataclasses.replace(asked, head=network.config.head))
    kept = {name: one for name, one in own.state_dict().items() if not name.startswith("head.")}
    found.load_state_dict(kept, strict=False)
    return found.eval()


@torch.no_grad()
def blend(one: Network, other: Network, share: float) -> Network:
    """Weights a share of the way from one network to another (arXiv 2109.01903)."""
    found = deepcopy(one)
    for weight, goal in zip(found.state_dict().values(), other.state_dict().values(), strict=True):
        weight.lerp_(goal.to(weight), share)
    return found


def _choose(
    network: Network,
    changed: Network,
    best: Network,
    validation: Validation,
    at_first: npt.NDArray[np.float64],
) -> tuple[Network, float, float]:
    """The network that surely gains most, its share of what was learnt, its score."""
    new_head = type(best.head) is not type(network.head)
    found: list[tuple[float, float, Network, float]] = []
    for share in (1.0,) if new_head else BLENDS:
        one = blend(changed, best, share)
        scores = validation.scores(one)
        gain = np.log(scores / at_first)
        error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.inf
        found.append((float(gain.mean() + error), share, one, float(scores.mean())))
    if not new_head:  # which has been asked for, whatever it is worth
        found.append((0.0, 0.0, network, float(at_first.mean())))
    _, share, chosen, after = min(found, key=lambda one: one[:2])
    return chosen, share, after


def _save_share(learner: Learner, network: Network, directory: Path, share: float) -> None:
    """The best adapter, with the share of its effect that was chosen, for the network as it came."""
    from llamacast.training.lora import read_into, save_adapter

    best = read_into(learner.objective.network, directory / BEST_ADAPTER_DIRECTORY)
    save_adapter(best, network, directory / ADAPTER_DIRECTORY, share)


def _check_counts(panel: Panel, config: FinetuneConfig) -> None:
    if config.head != "negative_binomial":
        return
    for identifier, values in zip(panel.ids, panel.values, strict=True):
        known = values[np.isfinite(values)]
        if (known < 0).any() or (known != known.round()).any():
            raise DataError(
                f"head negative_binomial is for counts, and series {identifier!r} has values that are "
                "negative or not whole; choose another head"
            )


def _network(objective: nn.Module) -> Network:
    return cast(Objective, objective).network


def _plain(objective: nn.Module) -> Network:
    """The network without adapters beside its matrices."""
    network = _network(objective)
    if not any("lora" in name for name, _ in network.named_parameters()):
        return network
    from llamacast.training.lora import merged

    return merged(network)


def learnable(network: Network, panel: Panel) -> Panel:
    """The panel as it is learnt from, in float32: for Cria, which no shift matters to, each series is told
    from its first known value, or the steps of a meter that stands at a hundred million would be lost."""
    if not isinstance(network.config, CriaConfig):
        return panel
    return dataclasses.replace(
        panel, values=[values - values[np.isfinite(values).argmax()] for values in panel.values]
    )


def _corpus(panel: Panel, parts: Split, inputs: CovariateInputs | None = None) -> Corpus:
    """What is learnt from."""
    longer = np.flatnonzero(parts.ends > parts.firsts)
    shown = panel.choose(longer.tolist()).stretch(
        parts.firsts[longer].tolist(), parts.ends[longer].tolist()
    )
    # Covariates end with their stretch, or what is told late would be told later than in forecasts.
    shown = with_future(shown, 0, Beside())
    return join([panel_part("data", shown, () if inputs is None else inputs.matrices(shown))])


def _plan(network: Network, parts: Split, config: FinetuneConfig, decays: bool) -> PretrainConfig:
    model = network.config
    longest = int(np.quantile(parts.ends - parts.firsts, 0.9))
    steps = min(model.context_length, longest) + config.horizon
    num_tokens = max(2, math.ceil(steps / model.steps_per_token))
    loop = LoopConfig(
        steps=config.steps,
        optimiser="adamw",
        learning_rate=config.rate,
        warmup_steps=min(20, config.steps // 10),
        decay_share=0.5 if decays else 0.0,
        weight_decay=0.0,
        average_steps=50,
        patience=config.patience if decays else 0,
        log_every=max(1, config.steps // NUM_VALIDATIONS),
        validate_every=max(1, config.steps // NUM_VALIDATIONS),
        save_every=max(1, config.steps // 4),
    )
    windows = WindowConfig(
        tokens_per_batch=max(num_tokens, TOKENS_PER_BATCH[type(model)]),
        lengths=(num_tokens,),
        length_weights=(1.0,),
        horizon=config.horizon,
        masked_end_share=MASKED_END_SHARE,
        masked_within_share=0.0,
    )
    return PretrainConfig(
        hold_out=HoldOut(0.0),
        windows=windows,
        augment=nothing(),
        loop=loop,
        model=model,
        seed=config.seed,
    )


def _cost(learner: Learner, fabric: Fabric, validation_seconds: float) -> Cost:
    """Measure a step; nothing is learnt."""
    trial = deepcopy(learner.objective).to(fabric.device)
    batch = fabric.to_device(learner.batches.at(0))
    for _ in range(STEPS_TIMED):
        begun = time.perf_counter()
        with fabric.autocast():
            loss = trial(batch)
        loss.backward()
        step = time.perf_counter() - begun
    loop = learner.plan.loop
    validations = loop.steps / loop.validate_every + len(BLENDS)
    weights = list(trial.parameters())
    tokens = learner.plan.windows.tokens_per_batch * loop.steps
    return Cost(
        loop.steps,
        (loop.steps * step + validations * validation_seconds) / 60,
        float(FLOPS_PER_WEIGHT) * sum(weight.numel() for weight in weights) * tokens,
        sum(weight.numel() for weight in weights if weight.requires_grad),
    )


def told_of(network: Network, panel: Panel, config: FinetuneConfig) -> dict[str, object]:
    """What a run follows from, but for its length."""
    fields = dataclasses.asdict(config)
    del fields["steps"]  # a run may be lengthened
    known = panel.covariates
    beside = list(zip(known.names, known.ahead.tolist(), strict=True)) if known else []
    fields |= {"weights": checkpoint.digest(network), "series": len(panel), "data": _digest(panel)}
    fields["covariates"] = beside
    found: dict[str, object] = json.loads(json.dumps(fields))
    return found


def _digest(panel: Panel) -> str:
    """A short text that tells a panel from others."""
    found = hashlib.blake2b(repr(list(panel.ids)).encode(), digest_size=8)
    for values, axis in zip(panel.values, panel.axes, strict=True):
        steps = f"{axis.start} {axis.frequency} {axis.step}"
        found.update(np.ascontiguousarray(values).tobytes() + steps.encode())
    for known in panel.covariates.values if panel.covariates else ():
        found.update(np.ascontiguousarray(known).tobytes())
    return found.hexdigest()


def claim(directory: Path, told: dict[str, object]) -> None:
    """Make a folder that of a run, or go on with it.

    Raises:
        CheckpointError: if it is another's.
    """
    known = directory / RUN_FILE
    if not known.exists():
        directory.mkdir(parents=True, exist_ok=True)
        known.write_text(json.dumps(told, indent=1) + "\n")
        return
    before = json.loads(known.read_text())
    changed = ", ".join(sorted(name for name in told if before.get(name) != told[name]))
    if changed:
        raise CheckpointError(
            f"{directory} holds a fine-tuning that differs in {changed}; use another folder"
        )
