"""Neural forecasters of published papers, trained for each data set, through neuralforecast.

DeepAR (Salinas et al. 2020), TFT (Lim et al. 2021), N-BEATS (Oreshkin et al. 2020), PatchTST (Nie et
al. 2023). One network learns from all series of a panel and then forecasts any panel. They run on the
processor, where their training time is compared.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from neuralforecast import NeuralForecast
from neuralforecast.losses.pytorch import DistributionLoss, MQLoss
from neuralforecast.models import NBEATS, TFT, DeepAR, PatchTST

from llamacast.data.calendar import NUM_FEATURES, season_length
from llamacast.data.frame import read_panel
from llamacast.data.panel import Panel
from llamacast.data.tables import Table
from llamacast.evaluation.baselines import NORMAL, carried
from llamacast.forecast import DataError, Forecast

Floats = npt.NDArray[np.float64]

QUANTILES = (0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.975)
"""Levels that networks learn; those of DeepAR are read off its sample paths."""
LONGEST_INPUT = 512
LONGEST_HISTORY = 2000
"""Last steps of each series to train on."""
SERIES_PER_STEP = 16
"""Series whose windows are drawn in a training step; neuralforecast copies all windows that they have."""
NUM_PATHS = 200
CALENDAR = [f"calendar_{number}" for number in range(NUM_FEATURES)]


@dataclass(frozen=True)
class Recipe:
    """What one paper's network is built from."""

    network: Any
    steps: int
    """Training steps that the library takes by default."""
    calendar: bool
    """Whether it reads calendar features, of the future too."""
    windows: int
    """Training windows in a step."""
    own: dict[str, Any] = field(default_factory=dict)
    """Where it departs from the library's defaults."""


RECIPES = {
    "deepar": Recipe(DeepAR, 1000, calendar=True, windows=128),
    # Half the library's width, and few windows: a step with two weeks of hours still takes seconds.
    "tft": Recipe(TFT, 1000, calendar=True, windows=64, own={"hidden_size": 64}),
    "n-beats": Recipe(NBEATS, 1000, calendar=False, windows=256),
    "patchtst": Recipe(PatchTST, 5000, calendar=False, windows=128),
}


@dataclass(frozen=True)
class NeuralForecaster:
    """A network of `RECIPES`, to be trained. Training ends at `steps` or `minutes`, whichever is first.

    Same seed and same number of steps, same network. What a clock ends is not reproducible: how
    many steps fit into the minutes depends on the machine.
    """

    name: str
    minutes: float = 10.0
    """Longest training time by the clock."""
    seed: int = 0
    steps: int | None = None
    """None takes the library's own number."""
    season: int | None = None
    """Steps in a season; None takes the frequency's own."""

    def __post_init__(self) -> None:
        if self.name not in RECIPES:
            raise DataError(f"no neural forecaster {self.name!r}; there are {list(RECIPES)}")

    def fit(self, data: Table | Panel, horizon: int) -> FittedNeuralForecaster:
        """Train one network on all series, to forecast `horizon` steps of any."""
        panel = read_panel(data)
        recipe = RECIPES[self.name]
        input_length = self._input_length(panel, horizon)
        frame = _frame(panel, LONGEST_HISTORY, input_length + horizon + 1, recipe.calendar).frame
        with _contained():
            library = NeuralForecast([self._network(recipe, horizon, input_length)], freq=1)
            library.fit(frame)
        return FittedNeuralForecaster(self.name, horizon, input_length, library)

    def forecast(self, data: Table | Panel, horizon: int) -> Forecast:
        """Train on the data, then forecast them. See `Forecaster.forecast`."""
        panel = read_panel(data)
        return self.fit(panel, horizon).forecast(panel, horizon)

    def _input_length(self, panel: Panel, horizon: int) -> int:
        """Three horizons or two seasons, if the longest series leaves a horizon to learn from."""
        frequency = panel.axes[0].frequency
        season = self.season or (season_length(frequency) if frequency else 1)
        longest = max(len(values) for values in panel.values)
        wanted = min(max(3 * horizon, 2 * season), LONGEST_INPUT)
        return max(min(wanted, longest - horizon), 2)

    def _network(self, recipe: Recipe, horizon: int, input_length: int) -> Any:
        own: dict[str, Any] = {"loss": MQLoss(quantiles=list(QUANTILES))}
        if self.name == "deepar":
            loss = DistributionLoss("StudentT", quantiles=list(QUANTILES), num_samples=NUM_PATHS)
            # By default the library learns from the first step after each window only.
            own = {"loss": loss, "trajectory_samples": NUM_PATHS, "h_train": horizon}
        if self.name == "n-beats" and horizon == 1:
            # One step has neither trend nor season, and the library refuses their stacks.
            own["stack_types"] = ["identity"] * 3
        steps = self.steps or recipe.steps
        return recipe.network(
            h=horizon,
            input_size=input_length,
            **recipe.own,
            **own,
            **({"futr_exog_list": CALENDAR} if recipe.calendar else {}),
            # Robust scaling divides by a median deviation, which is next to nothing where most
            # values of a window are equal.
            scaler_type="standard",
            # The library pads with zeros, whatever the level of a series; `_frame` pads instead.
            training_data_availability_threshold=[1.0, 0.0],
            batch_size=SERIES_PER_STEP,
            valid_batch_size=64,
            windows_batch_size=recipe.windows,
            inference_windows_batch_size=1024,
            max_steps=steps,
            val_check_steps=steps,
            random_seed=self.seed,
            accelerator="cpu",
            devices=1,
            max_time=timedelta(minutes=self.minutes),
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )


@dataclass(frozen=True, eq=False)
class FittedNeuralForecaster:
    """A trained network. Its weights no longer change.

    Between the levels that it learned, quantiles are interpolated, exact at these, linearly in the
    quantile of the standard normal; tails go on with the slope of the outermost two levels, as those
    of a normal. DeepAR draws paths: its numbers vary slightly with what else is forecast in one call.
    """

    name: str
    horizon: int
    """Steps that it was trained for; fewer are the first of these."""
    input_length: int
    """Last steps that it sees; shorter series are preceded by their first value."""
    library: Any = field(repr=False)

    def forecast(self, data: Table | Panel, horizon: int) -> Forecast:
        """See `Forecaster.forecast`. Missing values are carried forward.

        Raises:
            DataError: names the first series whose forecast is not finite.
        """
        if horizon > self.horizon:
            raise DataError(
                f"this {self.name} was trained for {self.horizon} steps, not {horizon}; train it again"
            )
        panel = read_panel(data)
        # Recurrent networks see one step more, to begin from.
        length, calendar = self.input_length + 1, RECIPES[self.name].calendar
        laid = _frame(panel, length, length, calendar)
        future = _future(panel, length, self.horizon) if calendar else None
        with _contained():
            answer = self.library.predict(laid.frame, futr_df=future)
        learned = answer.iloc[:, -len(QUANTILES) :].to_numpy(dtype=np.float64)
        learned = learned.reshape(len(panel), self.horizon, len(QUANTILES))[:, :horizon]
        grid = np.moveaxis(np.sort(learned) @ _interpolation().T, -1, 1)
        samples = laid.loc[:, None, None] + laid.scale[:, None, None] * grid
        finite = np.isfinite(samples).all(axis=(1, 2))
        if not finite.all():
            identifier = panel.ids[int((~finite).argmax())]
            raise DataError(f"{self.name}'s forecast of series {identifier!r} is not finite")
        return panel.answer(samples, self.name, joint=False)


@dataclass(frozen=True)
class Laid:
    """Series as neuralforecast takes them: numbered, in steps, each with mean 0 and deviation 1.

    The networks scale each window once more; this keeps its single precision from losing what a
    far or large series holds.
    """

    frame: pd.DataFrame
    loc: Floats
    """Shape `(series,)`, as `scale`."""
    scale: Floats


def _frame(panel: Panel, longest: int, shortest: int, calendar: bool) -> Laid:
    """The last `longest` steps of each series; shorter than `shortest`, after its first value."""
    parts, locs, scales = [], [], []
    for number, (values, axis) in enumerate(zip(panel.values, panel.axes, strict=True)):
        kept = carried(values)[-longest:]
        kept = np.pad(kept, (max(shortest - len(kept), 0), 0), mode="edge")
        loc, deviation = kept.mean(), kept.std()
        scale = deviation if deviation > 0 else 1.0
        steps = np.arange(len(kept))
        part = pd.DataFrame({"unique_id": number, "ds": steps, "y": (kept - loc) / scale})
        if calendar:
            part[CALENDAR] = axis.features(len(values) - len(kept), len(kept))
        parts.append(part)
        locs.append(loc)
        scales.append(scale)
    return Laid(pd.concat(parts, ignore_index=True), np.array(locs), np.array(scales))


def _future(panel: Panel, length: int, horizon: int) -> pd.DataFrame:
    """Calendar features of the steps after `length` ones of each series."""
    steps = np.arange(length, length + horizon)
    parts = []
    for number, (values, axis) in enumerate(zip(panel.values, panel.axes, strict=True)):
        part = pd.DataFrame({"unique_id": number, "ds": steps})
        part[CALENDAR] = axis.features(len(values), horizon)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _interpolation(levels: Sequence[float] = QUANTILES) -> Floats:
    """Weights `(level, learned level)` that turn learned quantiles into those at `LEVELS`."""
    known = np.array([NormalDist().inv_cdf(level) for level in levels])
    left = np.clip(np.searchsorted(known, NORMAL) - 1, 0, len(known) - 2)
    share = (NORMAL - known[left]) / (known[left + 1] - known[left])
    rows = np.arange(len(NORMAL))
    weights = np.zeros((len(NORMAL), len(known)))
    weights[rows, left], weights[rows, left + 1] = 1 - share, share
    return weights


@contextmanager
def _contained() -> Iterator[None]:
    """Keeps to itself what Lightning logs, warns of and seeds: global generators are the user's."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    told = [logger.level for logger in loggers]
    states = random.getstate(), np.random.get_state()
    handler = signal.getsignal(signal.SIGINT)
    seeds = {name: os.environ.get(name) for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")}
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # Advice on loaders and devices that are chosen here on purpose.
            warnings.simplefilter("ignore")
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
    except SystemExit as ended:
        # Lightning answers Ctrl-C by ignoring the next ones and leaving Python.
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from ended
    finally:
        for logger, level in zip(loggers, told, strict=True):
            logger.setLevel(level)
        random.setstate(states[0])
        np.random.set_state(states[1])
        for name, value in seeds.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
