"""How fast forecasters are, side by side in one run.

    pip install chronos-forecasting     # for the shape of Chronos-Bolt-tiny; left out without it
    python benchmarks/speed.py

Random walks with a daily season, 512 steps each, are forecast 48 steps ahead with one thread: many in
one call, and one alone. Contenders take turns, round by round, so that whatever else the machine does
meets all of them; medians over rounds are told. Ours and the classical methods read a data frame and
return a `Forecast`; Chronos-Bolt gets tensors and has random weights, on which speed does not depend.
Writes benchmarks/results/speed.md.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import datetime
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import llamacast

RESULTS = Path(__file__).parent / "results"
CONTEXT, HORIZON, SEASON = 512, 48, 24
DECILES = [step / 10 for step in range(1, 10)]


@dataclass(frozen=True)
class Contender:
    name: str
    forecast: Callable[[pd.DataFrame], object]
    together: int
    """Series in one call: fewer where one takes long."""


def series(count: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    steps = np.arange(CONTEXT)
    season = 3 * np.sin(2 * np.pi * (steps / SEASON + rng.random((count, 1))))
    values = 50 + season + 0.3 * rng.normal(size=(count, CONTEXT)).cumsum(axis=1)
    return pd.DataFrame(
        {
            "unique_id": np.repeat(np.arange(count), CONTEXT),
            "ds": np.tile(pd.date_range("2024-01-01", periods=CONTEXT, freq="h"), count),
            "y": (values + rng.normal(size=values.shape)).ravel(),
        }
    )


def ours(name: str, together: int, **options: object) -> Contender:
    forecaster = llamacast.load(name, device="cpu")
    label = name + "".join(f", {key}={value}" for key, value in options.items())
    return Contender(label, lambda frame: forecaster.forecast(frame, HORIZON, **options), together)


def classical(name: str) -> Contender:
    forecaster = llamacast.baseline(name, SEASON)
    return Contender(name, lambda frame: forecaster.forecast(frame, HORIZON), together=8)


def bolt_tiny() -> Contender | None:
    """The architecture of amazon/chronos-bolt-tiny, as its configuration tells it."""
    try:
        from chronos.chronos_bolt import ChronosBoltModelForForecasting, ChronosBoltPipeline
        from transformers import T5Config
    except ImportError:
        print("chronos-forecasting is not installed: without Chronos-Bolt-tiny", file=sys.stderr)
        return None
    config = T5Config(
        d_model=256,
        d_kv=64,
        d_ff=1024,
        num_layers=4,
        num_decoder_layers=4,
        num_heads=4,
        feed_forward_proj="relu",
        dropout_rate=0.1,
        vocab_size=2,
        pad_token_id=0,
        decoder_start_token_id=0,
    )
    config.chronos_config = {
        "context_length": 2048,
        "input_patch_size": 16,
        "input_patch_stride": 16,
        "prediction_length": 64,
        "quantiles": DECILES,
        "use_reg_token": True,
    }
    pipeline = ChronosBoltPipeline(ChronosBoltModelForForecasting(config).eval())

    def forecast(frame: pd.DataFrame) -> object:
        rows = torch.tensor(frame["y"].to_numpy().reshape(-1, CONTEXT), dtype=torch.float32)
        return pipeline.predict_quantiles(rows, prediction_length=HORIZON, quantile_levels=DECILES)

    return Contender("Chronos-Bolt-tiny (random weights)", forecast, together=256)


def seconds(contender: Contender, frame: pd.DataFrame) -> float:
    began = time.perf_counter()
    contender.forecast(frame)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--models", default="cria,lag-llama", help="packaged models or folders")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    first, *others = arguments.models.split(",")
    contenders = [
        ours(first, together=256),
        ours(first, together=256, joint=False),
        *(ours(name, together=8) for name in others),
        classical("auto-ets"),
        classical("dynamic-optimized-theta"),
        bolt_tiny(),
    ]
    racers = [one for one in contenders if one]
    alone = series(1)
    frames = {one.name: series(one.together) for one in racers}
    rates: dict[str, list[float]] = {one.name: [] for one in racers}
    waits: dict[str, list[float]] = {one.name: [] for one in racers}
    for one in racers:  # warm caches, compiled methods
        seconds(one, alone)
    for number in range(arguments.rounds):
        for one in racers:
            rates[one.name].append(one.together / seconds(one, frames[one.name]))
            waits[one.name].append(seconds(one, alone))
        print(f"round {number + 1} of {arguments.rounds}", flush=True)
    write(racers, rates, waits, arguments.rounds)


def write(
    racers: list[Contender],
    rates: dict[str, list[float]],
    waits: dict[str, list[float]],
    rounds: int,
) -> None:
    lines = [
        "# Speed",
        "",
        f"Context {CONTEXT}, horizon {HORIZON}, one thread; median of {rounds} rounds in which all "
        "take turns (lowest to highest in brackets), and how many times Cria's first row is faster.",
        "",
        "| forecaster | series in a call | series a second | times | one alone, ms | times |",
        "|---|---|---|---|---|---|",
    ]
    reference = racers[0].name
    for one in racers:
        rate, wait = statistics.median(rates[one.name]), statistics.median(waits[one.name])
        faster = statistics.median(rates[reference]) / rate
        sooner = wait / statistics.median(waits[reference])
        low, high = min(rates[one.name]), max(rates[one.name])
        soonest, latest = 1e3 * min(waits[one.name]), 1e3 * max(waits[one.name])
        lines.append(
            f"| {one.name} | {one.together} | {rate:.3g} ({low:.3g} to {high:.3g}) | {faster:.3g} "
            f"| {1e3 * wait:.3g} ({soonest:.3g} to {latest:.3g}) | {sooner:.3g} |"
        )
    lines += [
        "",
        f"Measured {datetime.date.today()} on {platform.processor() or platform.machine()}, "
        f"{os.cpu_count()} shared cores, Python {platform.python_version()}, torch "
        f"{torch.__version__}, by `python {shlex.join(sys.argv)}`.",
        "",
    ]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "speed.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
