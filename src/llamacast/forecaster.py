"""The facade: load a forecaster, forecast, save."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from copy import deepcopy
from dataclasses import replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from llamacast.anomalies import Anomalies
from llamacast.applied.anomalies import detect
from llamacast.applied.cria import AppliedCria
from llamacast.applied.dependence import check_ends, tie
from llamacast.applied.features import FILE as FEATURES_FILE
from llamacast.applied.features import FeatureHead, Mended
from llamacast.applied.lag_llama import AppliedLagLlama
from llamacast.applied.request import Applied, Floats, Request
from llamacast.applied.support import find_support
from llamacast.attention import Attention
from llamacast.data.covariates import INPUTS_FILE, CovariateInputs
from llamacast.data.frame import ColumnNames, read_known_ahead, read_panel
from llamacast.data.panel import Panel
from llamacast.data.tables import Table
from llamacast.forecast import (
    CheckpointError,
    DataError,
    Forecast,
    TrainingRecord,
    Verdict,
    check_whole,
    needs,
)
from llamacast.model import checkpoint, official
from llamacast.model.cria import Cria
from llamacast.model.lag_llama import LagLlama
from llamacast.sampling.engine import Clamp

if TYPE_CHECKING:
    from llamacast.model.config import HeadName
    from llamacast.training.strategies import Strategy

PACKAGED = ("cria", "lag-llama")
DEFAULT_MEMORY_BYTES, LARGEST_MEMORY = 512 * 2**20, 2**50
LONGEST_HORIZON = 100_000
ADAPTER_FILE = "adapter_config.json"
LARGEST_FALSE_ALARM_RATE = 0.2
FEWEST_VALUES = 10
"""That tell of no spread, if all are alike."""
FEWEST_TO_TELL, LEAST_SHARE = 8, 0.5
"""Known values, and their share of all steps, below which a forecast says so."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class PretrainedForecaster(ABC):
    """A network with its weights, ready to forecast tables. `load` makes them."""

    model: checkpoint.Network

    def __init__(
        self,
        model: checkpoint.Network,
        name: str,
        device: str = "auto",
        dtype: Literal["float32", "bfloat16"] = "float32",
        training: TrainingRecord | None = None,
        features: FeatureHead | None = None,
        inputs: CovariateInputs | None = None,
        verdict: Verdict | None = None,
    ) -> None:
        if dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype must be 'float32' or 'bfloat16'; got {dtype!r}")
        self.name = name
        self.source: str | None = None
        """What `load` makes this forecaster from, if it did."""
        self.training = training or TrainingRecord()
        self.features, self.inputs = features, inputs
        self.verdict = verdict
        """What fine-tuning came to, of a forecaster that `finetune` has made."""
        self.model = model.to(_device(device)).eval()
        # Values, on their way in and out, stay in float32: only blocks gain from less.
        for part in (self.model.transformer.blocks, self.model.transformer.norm):
            part.to(_DTYPES[dtype])

    def __repr__(self) -> str:
        """With a digest of the weights: what tells one forecaster from another."""
        digest = checkpoint.digest(self.model)
        if self.features is not None:
            digest += f"+{self.features.digest}"
        return f"{type(self).__name__}({self.name!r}, weights={digest!r})"

    def forecast(
        self,
        data: Table | Panel,
        horizon: int,
        *,
        num_samples: int = 100,
        seed: int = 0,
        context_length: int | None = None,
        nonnegative: bool | None = None,
        integer: bool | None = None,
        joint: bool | Literal["series"] = True,
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
        progress: bool | None = None,
        **columns: Unpack[ColumnNames],
    ) -> Forecast:
        """Forecast the `horizon` steps after each series ends, as joint sample paths.

        Args:
            data: a long or wide frame, a Series, an array, a list, or the path of a CSV or parquet
                file (see `read_panel`); the columns' names are found or given. Or a `Panel`.
            horizon: steps to forecast.
            num_samples: paths for each series.
            seed: same seed and same series name, same paths, whatever else is in the data; but with
                covariates, whose effects series tell of together.
            context_length: steps to attend to; None takes the model's own.
            nonnegative: no value of a path falls below 0, or some may. None: none does in series that have
                been at 0 again and again, and never below.
            integer: every value of a path is a whole number, or need not be one. None: in series of counts,
                where all values are whole and most came before. Lag-Llama's paths go on from what these two
                have made of each step where they are told; what is found is done to whole paths.
            joint: each sample is one possible future. Without it, samples are quantiles of each
                step. Cria's are exact. Lag-Llama follows one path along the means: as many times
                faster as there are samples, but its intervals do not carry uncertainty forward, so
                that they are too narrow beyond the first steps. With "series", and with a
                `group_column`, sample n of every series (of a group) is one possible future of all of
                them, as they have moved together; each series' own samples are the same ones.
            memory_bytes: requests that need more than this at a time are answered in parts.
            progress: show a bar; None shows it in a terminal when there are several parts.
            columns: `id_column`, `time_column`, `target_column`, where names do not tell them;
                `frequency`, the pandas name of the step, where it is not to be inferred; `group_column`;
                `covariates`, `future_frame` and `holidays`, what may explain the values (see
                `ColumnNames`). A regression on these is added to the network's forecast of the rest,
                where that has been better on the last windows of the history; `notes` of the forecast
                say whether.

        Raises:
            DataError: says what is wrong with the data or the request, where, and how to mend it.
        """
        check_whole("horizon", horizon, LONGEST_HORIZON)
        check_whole("num_samples", num_samples, 1_000_000)
        if context_length is None:
            context_length = self.model.config.context_length
        check_whole("context_length", context_length, 65536)
        check_whole("memory_bytes", memory_bytes, LARGEST_MEMORY)
        panel = read_panel(data, horizon=horizon, **columns)
        clamp = _clamp(bool(nonnegative), bool(integer))
        used, strays = list[str](), dict[Any, int]()
        if joint not in (True, False, "series"):
            raise DataError(f"joint must be True, False or 'series'; got {joint!r}")
        ties = joint == "series" or (joint and panel.groups is not None)
        if ties:
            check_ends(panel)
        request = Request(
            panel,
            horizon,
            num_samples,
            context_length,
            seed,
            clamp,
            bool(joint),
            memory_bytes,
            progress,
            used,
            strays,
        )
        explains = panel.covariates is not None and self.inputs is None
        applied = _explained(self._applied) if explains else self._applied
        samples = applied.sample(request)
        if ties:
            samples = tie(self._network, panel, samples)
        support = find_support(panel, nonnegative, integer)
        support.project(samples)
        answer = panel.answer(samples, self.name, bool(joint))
        notes = (_told_of(used) if used else ()) + _without_spread(panel, samples)
        notes += _unknown(panel, self.inputs)
        notes += _without_strays(panel, strays) + _told_of_history(panel, horizon)
        return replace(answer, notes=notes, whole=support.whole)

    def finetune(
        self,
        data: Table | Panel,
        horizon: int,
        *,
        strategy: Strategy | Literal["features"] = "full",
        steps: int = 600,
        learning_rate: float | None = None,
        context_length: int | None = None,
        history_share: float = 1.0,
        head: HeadName | None = None,
        rank: int = 8,
        search: bool = False,
        seed: int = 0,
        directory: str | os.PathLike[str] | None = None,
        progress: bool | None = None,
        **columns: Unpack[ColumnNames],
    ) -> Self:
        """Learn from one's own series, to forecast `horizon` steps; keep what surely helps.

        The last windows of each series are held back, and what is learnt from the rest is judged by
        them. The forecaster that is returned has the weights that were better there; `verdict` says
        which, and by how much. This one stays as it is.

        Args:
            data: as for `forecast`; all series are learnt from together.
            strategy: what may learn: "full", "last-layers", "head", "lora" (small matrices beside the
                others; needs PEFT), or "features", a regression on the frozen network's hidden
                vectors that mends its medians (needs scikit-learn).
            steps: at most; training ends when nothing improves any more.
            learning_rate: None takes the strategy's own.
            context_length: steps of history to look at from now on; None leaves that as it is.
            history_share: share of each series' history, the latest, to learn from.
            head: of Lag-Llama, another distribution of the next value, learnt from nothing:
                "student_t", "normal", "negative_binomial" (counts), "quantile_network", "quantiles",
                "flow".
            search: try contexts and learning rates first, the better half ever longer.
            directory: receives the run, from which the same call goes on if it is stopped, and the
                result, which `load(directory / "model")` reads.
            progress: tell the cost and each validation on standard error; None does in a terminal.
            columns: as for `forecast`. Covariates become inputs of the network, so that forecasts by
                what is returned need them: all of them ahead, or, where a `future_frame` is given
                here, those that it has.

        Raises:
            DataError: says what is wrong with the data or the request, and how to mend it.
            CheckpointError: if `directory` holds another run.
        """
        if self.features is not None:
            raise DataError(
                "this model has a regression beside its network (strategy 'features'); fine-tune the one "
                "it came from"
            )
        if next(self.model.transformer.blocks.parameters()).dtype != torch.float32:
            raise DataError("fine-tuning needs weights in float32; load them without dtype")
        panel = read_known_ahead(data, **columns)
        try:
            # These need lightning-fabric.
            from llamacast.adapting.finetuning import adapt
            from llamacast.training.finetune import ADAPTER_DIRECTORY
            from llamacast.training.report import Report
        except ModuleNotFoundError as error:
            raise needs("fine-tuning", "finetune", error) from error
        options = {
            "horizon": _whole(horizon),
            "strategy": strategy,
            "steps": _whole(steps),
            "learning_rate": learning_rate,
            "context_length": context_length,
            "history_share": history_share,
            "head": head,
            "rank": _whole(rank),
            "seed": _whole(seed),
        }
        report, target = Report(progress), None if directory is None else Path(directory)
        found = adapt(
            self.model, self.source, self._network, panel, options, search, target, report
        )
        report.line(str(found.verdict))
        last = panel.last_stamp() if found.verdict.improved else ""
        tuned = type(self)(
            deepcopy(found.model),
            f"{self.name}-{strategy}" if found.verdict.improved else self.name,
            str(next(self.model.parameters()).device),
            training=self.training.joined(TrainingRecord(until=last)),
            features=found.features,
            inputs=self.inputs if strategy == "features" else found.inputs,
            verdict=found.verdict,
        )
        if target is not None:
            tuned.save(target / "model")
            if (target / ADAPTER_DIRECTORY).exists():
                checkpoint.save_training(tuned.training, target / ADAPTER_DIRECTORY)
        return tuned

    def detect(
        self,
        data: Table | Panel,
        *,
        false_alarm_rate: float = 0.01,
        progress: bool | None = None,
        **columns: Unpack[ColumnNames],
    ) -> Anomalies:
        """Tell which values of each series are odd, each judged by what came before it.

        Args:
            data: as for `forecast`.
            false_alarm_rate: share of ordinary values that may be flagged, in (0, 0.2].

        Raises:
            DataError: says what is wrong with the data or the request, where, and how to mend it.
        """
        if not 0 < false_alarm_rate <= LARGEST_FALSE_ALARM_RATE:
            raise DataError(
                f"false_alarm_rate must be above 0 and at most {LARGEST_FALSE_ALARM_RATE}; "
                f"got {false_alarm_rate!r}"
            )
        panel = _read_alone(data, columns)
        return detect(panel, lambda one: self._applied.hindcast(one, progress), false_alarm_rate)

    def embed(
        self,
        data: Table | Panel,
        **columns: Unpack[ColumnNames],
    ) -> pd.DataFrame:
        """A vector for each series: what the network makes of its last `context_length` steps.

        The mean of the transformer's last hidden vectors over the tokens that hold something
        observed. Units and levels are taken out beforehand, so it tells shapes, not sizes.

        Returns:
            A row for each series, indexed by its name, of the network's width; ready for scikit-learn.
        """
        panel = _read_alone(data, columns)
        vectors = np.concatenate([one.mean.numpy() for one in self._applied.read(panel)])
        names = [f"e{number}" for number in range(vectors.shape[1])]
        index = pd.Index(panel.ids, name=panel.columns.id or "unique_id")
        return pd.DataFrame(vectors, index=index, columns=names)

    def attention(
        self,
        data: Table | Panel,
        **columns: Unpack[ColumnNames],
    ) -> Attention:
        """Which past steps the newest token attends to, and what mattered when it was hidden.

        Takes about a second a series: what mattered is found by hiding one part of the past after
        the other.
        """
        panel = _read_alone(data, columns)
        return self._applied.attend(panel)

    @property
    @abstractmethod
    def _network(self) -> Applied:
        """The network, ready for panels."""

    @property
    def _applied(self) -> Applied:
        """The same, with what was learnt beside it."""
        if self.features is None:
            return self._network
        return Mended(self._network, self.features)

    def save(
        self, path: str | os.PathLike[str], dtype: Literal["float32", "float16"] = "float32"
    ) -> None:
        """Write a folder that `load` reads: weights, configuration, what they were trained on."""
        checkpoint.save(self.model, Path(path), _DTYPES[dtype])
        checkpoint.save_training(self.training, Path(path))
        for beside, file in ((self.features, FEATURES_FILE), (self.inputs, INPUTS_FILE)):
            if beside is None:
                (Path(path) / file).unlink(missing_ok=True)  # another model's
            else:
                beside.save(Path(path))


class LagLlamaForecaster(PretrainedForecaster):
    """Lag-Llama with its weights: paths sampled step by step."""

    model: LagLlama

    @property
    def _network(self) -> AppliedLagLlama:
        return AppliedLagLlama(self.model, self.inputs)


class CriaForecaster(PretrainedForecaster):
    """Cria with its weights: all quantiles in one pass, and paths that run through them."""

    model: Cria

    @property
    def _network(self) -> AppliedCria:
        return AppliedCria(self.model, self.inputs)


def load(
    model: str | os.PathLike[str] = "cria",
    *,
    device: str = "auto",
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> PretrainedForecaster:
    """Load a packaged forecaster by name ("cria", "lag-llama"), or one saved in a folder.

    Args:
        model: a packaged name, or a folder ("./cria" where a folder has a packaged name).
        device: "auto" (the first of cuda, mps, cpu that is there) or a torch device.
        dtype: "float32", or "bfloat16" for less memory and, on hardware made for it, more speed.

    Raises:
        CheckpointError: if there is no such model, or its files are damaged.
        DataError: if the device is not there.
    """
    path = find_checkpoint(model)
    if (path / ADAPTER_FILE).exists():
        return _load_adapter(path, device, dtype)
    network, training = checkpoint.load(path), checkpoint.load_training(path)
    features, inputs = FeatureHead.load(path), CovariateInputs.load(path)
    kind = CriaForecaster if isinstance(network, Cria) else LagLlamaForecaster
    found = kind(network, path.name, device, dtype, training, features, inputs)
    found.source = str(model) if str(model) in PACKAGED else str(path.resolve())
    return found


def _load_adapter(
    path: Path, device: str, dtype: Literal["float32", "bfloat16"]
) -> PretrainedForecaster:
    """The model that an adapter belongs to, with it."""
    try:
        from llamacast.training.lora import with_adapter
    except ModuleNotFoundError as error:
        raise needs(f"{path}: an adapter", "finetune", error) from error
    try:
        base = json.loads((path / ADAPTER_FILE).read_text())["base_model_name_or_path"]
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path / ADAPTER_FILE}: names no base model ({error})") from error
    found = load(base, device="cpu", dtype="float32")
    network = with_adapter(found.model, path)
    training = found.training.joined(checkpoint.load_training(path))
    made = type(found)(network, path.name, device, dtype, training, found.features, found.inputs)
    made.source = str(path.resolve())
    return made


def find_checkpoint(model: str | os.PathLike[str]) -> Path:
    """The folder of a packaged model, or of one saved.

    Raises:
        CheckpointError: if there is no such model.
    """
    path = Path(model)
    if str(model) in PACKAGED:
        path = Path(str(files("llamacast") / "weights" / str(model)))
    if path.suffix == ".ckpt":
        raise CheckpointError(f"{path}: convert it first: llamacast convert {path} DIRECTORY")
    if not path.is_dir():
        names = ", ".join(PACKAGED)
        raise CheckpointError(f"no model {str(model)!r}: neither packaged ({names}) nor a folder")
    return path


def load_once(model: str | os.PathLike[str], device: str = "auto") -> PretrainedForecaster:
    """As `load`, but for what this process has loaded last and whose files are still the same."""
    known = [file.stat() for file in sorted(find_checkpoint(model).iterdir())]
    return _load_once(str(model), device, tuple((file.st_mtime_ns, file.st_size) for file in known))


@lru_cache(maxsize=4)
def _load_once(model: str, device: str, known: tuple[tuple[int, int], ...]) -> PretrainedForecaster:
    return load(model, device=device)


def convert(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> LagLlamaForecaster:
    """Turn an official `lag-llama.ckpt` into a folder that `load` reads; nothing in it is executed.

    Raises:
        CheckpointError: if the file is not such a checkpoint, or is damaged; nothing is written.
    """
    forecaster = LagLlamaForecaster(
        official.import_official(Path(source)), Path(target).name, "cpu"
    )
    forecaster.save(target)
    return forecaster


def _read_alone(data: Table | Panel, columns: ColumnNames) -> Panel:
    """A table of which nothing is looked at but series, times and values.

    Raises:
        DataError: as `read_panel`, or if more is given.
    """
    for name in ("covariates", "future_frame", "holidays"):
        if columns.get(name) is not None:
            raise DataError(f"{name} explains forecasts and nothing else; leave it out here")
    return read_panel(data, **columns)


def _explained(applied: Applied) -> Applied:
    """A network, and a regression on covariates."""
    try:
        from llamacast.applied.covariates import WithCovariates
    except ModuleNotFoundError as error:
        raise needs("a covariate", "covariates", error) from error
    return WithCovariates(applied)


def _told_of(used: list[str]) -> tuple[str, ...]:
    """In how many series covariates have been found to help."""
    helped = sum(map(bool, used))
    if not helped:
        return ("covariates: did not help on windows of the history, and are left out",)
    return (f"covariates: used in {helped} of {len(used)} series, where they helped before",)


def _unknown(panel: Panel, inputs: CovariateInputs | None) -> tuple[str, ...]:
    """Which covariates are given to a network that has learnt others."""
    if panel.covariates is None or inputs is None:
        return ()
    learnt = {name.split("=")[0] for name in inputs.names}
    others = dict.fromkeys(name.split("=")[0] for name in panel.covariates.names)
    left = [name for name in others if name not in learnt]
    if not left:
        return ()
    return (f"covariates: this model has not learnt {', '.join(left)}, and leaves them out",)


def _without_spread(panel: Panel, samples: Floats) -> tuple[str, ...]:
    """Which forecasts are certain only because next to nothing is known."""
    unsure = []
    for name, values, paths in zip(panel.ids, panel.values, samples, strict=True):
        known = values[np.isfinite(values)]
        few_alike = len(known) < FEWEST_VALUES and (known == known[:1]).all()
        if few_alike and (paths == paths[:1]).all():
            unsure.append(name)
    if not unsure:
        return ()
    told = "nothing is known of how values vary, as there are few and all are alike"
    return (
        f"{_first_of(unsure)}: {told}; that intervals have no width does not mean that they are sure",
    )


def _without_strays(panel: Panel, strays: dict[Any, int]) -> tuple[str, ...]:
    """In which series values were taken as missing."""
    found = [(name, strays[name]) for name in panel.ids if name in strays]
    if not found:
        return ()
    (name, number), *others = found
    values, were = ("a value lies", "was") if number == 1 else (f"{number} values lie", "were")
    several = f" (and some in {len(others)} more)" if others else ""
    return (f"series {name!r}{several}: {values} far from all others, and {were} taken as missing",)


def _told_of_history(panel: Panel, horizon: int) -> tuple[str, ...]:
    """Of histories that are short, full of holes or over before those of others."""
    known = np.array([np.isfinite(values).sum() for values in panel.values])
    lengths = np.array([len(values) for values in panel.values])
    notes = []
    for found, told in (
        (
            known < FEWEST_TO_TELL,
            f"fewer than {FEWEST_TO_TELL} values are known; do not rely on it",
        ),
        (
            known < LEAST_SHARE * lengths,
            "most steps have no value and count as not known; if they mean that nothing happened, give 0",
        ),
        (panel.steps_behind() > horizon, "ends long before others do; its forecast begins there"),
    ):
        names = [panel.ids[number] for number in np.flatnonzero(found).tolist()]
        if names:
            notes.append(f"{_first_of(names)}: {told}")
    return tuple(notes)


def _first_of(names: list[Any]) -> str:
    """One of some series, and how many more there are."""
    return f"series {names[0]!r}" + (f" and {len(names) - 1} more" if names[1:] else "")


def _clamp(nonnegative: bool, integer: bool) -> Clamp | None:
    if not (nonnegative or integer):
        return None

    def clamp(values: Tensor) -> Tensor:
        values = values.round() if integer else values
        values = values.clamp(min=0.0) if nonnegative else values
        return values + 0.0  # there is no -0

    return clamp


def _whole(value: Any) -> Any:
    """Numbers of numpy, too, as Python's own."""
    return int(value) if isinstance(value, np.integer) else value


def _device(name: str) -> torch.device:
    if name != "auto":
        try:
            device = torch.device(name)
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(
                f"device {name!r} cannot be used here ({reason}); try 'auto'"
            ) from error
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
