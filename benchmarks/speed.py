"""How fast forecasters are, side by side in one run.

    pip install chronos-forecasting     # for the shape of Chronos-Bolt-tiny; left out without it
    python benchmarks/speed.py

Random walks with a daily season, 512 steps each, are forecast 48 steps ahead with one thread: many in
one call, and one alone, five times in a row; other sizes may be asked for. Contenders take turns,
round by round, so that whatever else the machine does meets all of them; medians are told. Ours and
the classical methods read a data frame and return a `Forecast`; Chronos-Bolt gets tensors and has
random weights, on which speed does not depend. Writes benchmarks/results/speed.md and prints its
numbers as a line of JSON. How near Lag-Llama's sampling comes to the machine's limit, and where its
time goes, is for `sampling.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from machine import publish

import llamacast

TIMES_ALONE = 5
RESULTS = Path(__file__).parent / "results"
SEASON = 24
DECILES = [step / 10 for step in range(1, 10)]


@dataclass(frozen=True)
class Contender:
    name: str
    forecast: Callable[[pd.DataFrame], object]
    together: int
    """Series in one call: fewer where one takes long."""


def series(count: int, context: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    steps = np.arange(context)
    season = 3 * np.sin(2 * np.pi * (steps / SEASON + rng.random((count, 1))))
    values = 50 + season + 0.3 * rng.normal(size=(count, context)).cumsum(axis=1)
    return pd.DataFrame(
        {
            "unique_id": np.repeat(np.arange(count), context),
            "ds": np.tile(pd.date_range("2024-01-01", periods=context, freq="h"), count),
            "y": (values + rng.normal(size=values.shape)).ravel(),
        }
    )


def ours(name: str, together: int, asked: argparse.Namespace, **options: object) -> Contender:
    forecaster = llamacast.load(name, device="cpu")
    label = name + "".join(f", {key}={value}" for key, value in options.items())
    options |= {"num_samples": asked.samples, "context_length": asked.context}
    return Contender(
        label, lambda frame: forecaster.forecast(frame, asked.horizon, **options), together
    )


def classical(name: str, asked: argparse.Namespace) -> Contender:
    forecaster = llamacast.baseline(name, SEASON)
    return Contender(name, lambda frame: forecaster.forecast(frame, asked.horizon), together=8)


def bolt_tiny(asked: argparse.Namespace) -> Contender | None:
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
        rows = torch.tensor(frame["y"].to_numpy().reshape(-1, asked.context), dtype=torch.float32)
        return pipeline.predict_quantiles(
            rows, prediction_length=asked.horizon, quantile_levels=DECILES
        )

    return Contender("Chronos-Bolt-tiny (random weights)", forecast, together=256)


def seconds(contender: Contender, frame: pd.DataFrame) -> float:
    began = time.perf_counter()
    contender.forecast(frame)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--models", default="cria,lag-llama", help="packaged models or folders")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--horizon", type=int, default=48)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--batch", type=int, help="series in a call; 256, or 8 of slow forecasters")
    parser.add_argument("--series", type=int, help="series in a round; as many as in a call")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS)
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(asked.threads)  # no fewer on a busy machine
    torch.set_num_threads(asked.threads)
    first, *others = asked.models.split(",")
    contenders = [
        ours(first, 256, asked),
        ours(first, 256, asked, joint=False),
        *(ours(name, 8, asked) for name in others),
        classical("auto-ets", asked),
        classical("dynamic-optimized-theta", asked),
        bolt_tiny(asked),
    ]
    racers = [
        replace(one, together=asked.batch or one.together) for one in contenders if one is not None
    ]
    alone = series(1, asked.context)
    frames = {one.name: series(one.together, asked.context) for one in racers}
    rates: dict[str, list[float]] = {one.name: [] for one in racers}
    waits: dict[str, list[float]] = {one.name: [] for one in racers}
    for one in racers:  # warm caches, compiled methods
        seconds(one, alone)
    for number in range(asked.rounds):
        for one in racers:
            calls = max(1, (asked.series or one.together) // one.together)
            spent = sum(seconds(one, frames[one.name]) for _ in range(calls))
            rates[one.name].append(calls * one.together / spent)
            waits[one.name] += [seconds(one, alone) for _ in range(TIMES_ALONE)]
        print(f"round {number + 1} of {asked.rounds}", flush=True)
    publish(table(racers, rates, waits, asked), asked.output / "speed.md")
    found = [
        {
            "forecaster": one.name,
            "series_in_a_call": one.together,
            "series_a_second": statistics.median(rates[one.name]),
            "one_alone_ms": 1e3 * statistics.median(waits[one.name]),
        }
        for one in racers
    ]
    print(json.dumps({"speed": found}))


def table(
    racers: list[Contender],
    rates: dict[str, list[float]],
    waits: dict[str, list[float]],
    asked: argparse.Namespace,
) -> list[str]:
    lines = [
        "# Speed",
        "",
        f"Context {asked.context}, horizon {asked.horizon}, {asked.samples} samples, {asked.threads} "
        f"thread(s); median of {asked.rounds} rounds in which all take turns, of one alone {TIMES_ALONE} "
        "times in each (lowest to highest in brackets), and how many times the first row is faster.",
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
    return [*lines, "", "Lag-Llama's sampling by itself: [sampling.md](sampling.md)."]


if __name__ == "__main__":
    main()
