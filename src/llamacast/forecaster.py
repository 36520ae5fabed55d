"""The facade: load a forecaster, forecast, save."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from llamacast.data.frame import read_panel
from llamacast.data.panel import Panel
from llamacast.data.tables import Table
from llamacast.data.windows import last_values, last_windows
from llamacast.forecast import CheckpointError, DataError, Forecast, TrainingRecord
from llamacast.model import checkpoint, official
from llamacast.model.cria import Cria
from llamacast.model.lag_llama import LagLlama
from llamacast.sampling.engine import Clamp, Part, plan, sample_paths
from llamacast.sampling.one_pass import (
    Rows,
    evenly_spaced,
    forecast_quantiles,
    paths_through,
    plan_rows,
)
from llamacast.sampling.streams import uniforms
from llamacast.sampling.threads import considerate_threads, share_out

PACKAGED = ("cria", "lag-llama")
DEFAULT_MEMORY_BYTES = 512 * 2**20
LONGEST_HORIZON = 100_000

Floats = npt.NDArray[np.float64]
Of = TypeVar("Of", Part, Rows)

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
    ) -> None:
        if dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype must be 'float32' or 'bfloat16'; got {dtype!r}")
        self.name = name
        self.training = training or TrainingRecord()
        self.model = model.to(_device(device)).eval()
        # The head and the values stay in float32: only the transformer gains from less.
        self.model.transformer.to(_DTYPES[dtype])

    def __repr__(self) -> str:
        """With a digest of the weights: what tells one forecaster from another."""
        digest = checkpoint.digest(self.model)
        return f"{type(self).__name__}({self.name!r}, weights={digest!r})"

    def forecast(
        self,
        data: Table | Panel,
        horizon: int,
        *,
        num_samples: int = 100,
        seed: int = 0,
        context_length: int | None = None,
        nonnegative: bool = False,
        integer: bool = False,
        joint: bool = True,
        id_column: str | None = None,
        time_column: str | None = None,
        target_column: str | None = None,
        frequency: str | None = None,
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
        progress: bool | None = None,
    ) -> Forecast:
        """Forecast the `horizon` steps after each series ends, as joint sample paths.

        Args:
            data: a long or wide frame, a Series, an array, a list, or the path of a CSV or parquet
                file (see `read_panel`); the columns' names are found or given. Or a `Panel`.
            horizon: steps to forecast.
            num_samples: paths for each series.
            seed: same seed and same series name, same paths, whatever else is in the data.
            context_length: steps to attend to; None takes the model's own.
            nonnegative: no value of a path falls below 0.
            integer: every value of a path is a whole number.
            joint: each sample is one possible future. Without it, samples are quantiles of each
                step. Cria's are exact. Lag-Llama follows one path along the means: as many times
                faster as there are samples, but its intervals do not carry uncertainty forward, so
                that they are too narrow beyond the first steps.
            frequency: pandas name of the step; None infers it.
            memory_bytes: requests that need more than this at a time are answered in parts.
            progress: show a bar; None shows it in a terminal when there are several parts.

        Raises:
            DataError: says what is wrong with the data or the request, where, and how to mend it.
        """
        _check_whole("horizon", horizon, LONGEST_HORIZON)
        _check_whole("num_samples", num_samples, 1_000_000)
        if context_length is None:
            context_length = self.model.config.context_length
        _check_whole("context_length", context_length, 65536)
        panel = read_panel(
            data,
            id_column=id_column,
            time_column=time_column,
            target_column=target_column,
            frequency=frequency,
        )
        clamp = _clamp(nonnegative, integer)
        request = Request(
            panel, horizon, num_samples, context_length, seed, clamp, joint, memory_bytes, progress
        )
        return panel.answer(self._answer(request), self.name, joint)

    @abstractmethod
    def _answer(self, request: Request) -> Floats:
        """Samples of each series, `(series, sample, horizon)`."""

    def save(
        self, path: str | os.PathLike[str], dtype: Literal["float32", "float16"] = "float32"
    ) -> None:
        """Write a folder that `load` reads: weights, configuration, what they were trained on."""
        checkpoint.save(self.model, Path(path), _DTYPES[dtype])
        checkpoint.save_training(self.training, Path(path))


@dataclass(frozen=True)
class Request:
    """What is asked of a forecaster, checked."""

    panel: Panel
    horizon: int
    num_samples: int
    context_length: int
    seed: int
    clamp: Clamp | None
    joint: bool
    memory_bytes: int
    progress: bool | None

    def uniforms(self, series: Iterable[int], samples: slice) -> Tensor:
        """The random numbers of some series' paths."""
        names = [str(self.panel.ids[one]) for one in series]
        return uniforms(names, self.seed, self.num_samples, self.horizon)[:, samples]


class LagLlamaForecaster(PretrainedForecaster):
    """Lag-Llama with its weights: paths sampled step by step."""

    model: LagLlama

    def _answer(self, request: Request) -> Floats:
        samples = np.empty((len(request.panel), request.num_samples, request.horizon))
        parts, most = plan(
            self.model,
            len(request.panel),
            request.num_samples,
            request.context_length,
            request.horizon,
            request.memory_bytes,
            request.joint,
        )
        with considerate_threads() as num_threads:
            # One part alone shares out its samples.
            within = num_threads if len(parts) == 1 else 1
            drawn = share_out(
                lambda part: self._draw(request, part, within), parts, min(num_threads, most)
            )
            for part, paths in _shown(drawn, len(parts), request.progress):
                samples[part.series, part.samples] = paths.numpy()
        return samples

    def _draw(self, request: Request, part: Part, num_threads: int) -> Tensor:
        """Cut the last windows of some series and sample their futures."""
        context_length = request.context_length
        history_length = self.model.config.max_lag + context_length
        windows = last_windows(
            request.panel, part.series, history_length, context_length, request.horizon
        )
        return sample_paths(
            self.model,
            torch.from_numpy(windows.values),
            torch.from_numpy(windows.observed),
            torch.from_numpy(windows.calendar),
            request.uniforms(range(len(request.panel))[part.series], part.samples),
            request.clamp,
            num_threads,
            request.joint,
        )


class CriaForecaster(PretrainedForecaster):
    """Cria with its weights: all quantiles in one pass, and paths that run through them."""

    model: Cria

    def _answer(self, request: Request) -> Floats:
        lengths = [min(len(one), request.context_length) for one in request.panel.values]
        device = self.model.levels.device
        parts, most = plan_rows(
            lengths,
            request.horizon,
            request.num_samples,
            self.model.config,
            device.type == "cpu",
            request.memory_bytes,
        )
        samples = np.empty((len(lengths), request.num_samples, request.horizon))
        with considerate_threads(min(len(parts), most)) as num_threads:
            # Also where there is one part only, or rounding would tell how busy the machine was.
            torch.set_num_threads(1)
            told = share_out(lambda rows: self._tell(request, rows), parts, num_threads)
            for rows, paths in _shown(told, len(parts), request.progress):
                samples[rows.series] = paths.numpy()
        return samples

    def _tell(self, request: Request, rows: Rows) -> Tensor:
        """Samples of some series."""
        values, observed, seasons = last_values(request.panel, rows.series, request.context_length)
        answer = forecast_quantiles(
            self.model,
            torch.from_numpy(values),
            torch.from_numpy(observed),
            torch.from_numpy(seasons),
            request.horizon,
        )
        if request.joint:
            uniforms = request.uniforms(rows.series, slice(None))
            paths = paths_through(answer, uniforms)
        else:
            paths = evenly_spaced(answer, request.num_samples)
        return request.clamp(paths) if request.clamp else paths


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
    training = checkpoint.load_training(path)
    network = checkpoint.load(path)
    if isinstance(network, Cria):
        return CriaForecaster(network, path.name, device, dtype, training)
    return LagLlamaForecaster(network, path.name, device, dtype, training)


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


def _clamp(nonnegative: bool, integer: bool) -> Clamp | None:
    if not (nonnegative or integer):
        return None

    def clamp(values: Tensor) -> Tensor:
        values = values.round() if integer else values
        return values.clamp(min=0.0) if nonnegative else values

    return clamp


def _shown(
    drawn: Iterable[tuple[Of, Tensor]], total: int, progress: bool | None
) -> Iterable[tuple[Of, Tensor]]:
    if progress is None:
        progress = total > 1 and sys.stderr.isatty()
    if not progress:
        return drawn  # even a bar that is not shown starts a thread
    console = Console(stderr=True)
    return track(drawn, "Forecasting", total, console=console, transient=True)


def _check_whole(name: str, value: int, largest: int) -> None:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or not 1 <= value <= largest:
        raise DataError(f"{name} must be a whole number from 1 to {largest}; got {value!r}")


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
