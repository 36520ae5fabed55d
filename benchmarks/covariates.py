"""Covariates where they matter and where they are noise: beside the network, and learnt by it.

    python benchmarks/covariates.py

Made-up daily series with a week's season and a wandering level, to which is added: nothing (the covariates
are noise), promotions on one day in seven, or a load that grows with the distance of the temperature from
16 degrees. Each with a column of noise, a category and a static number beside it. CRPS is relative to the
same network without covariates. Writes covariates.md to benchmarks/results.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from machine import publish

import llamacast
from llamacast.evaluation.metrics import mean_weighted_quantile_loss
from llamacast.evaluation.report import markdown

RESULTS = Path(__file__).parent / "results"
LEVELS = np.arange(1, 10) / 10
NUM_STEPS, HORIZON = 500, 28
KINDS = ("noise", "promotions", "temperature")


def made(kind: str, num_series: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    """History, covariates of the future, and what came."""
    rng = np.random.default_rng(seed)
    history, future, actuals = [], [], []
    time = np.arange(NUM_STEPS + HORIZON)
    for number in range(num_series):
        unit = number + 1
        level = (
            50 * (1 + 0.3 * np.sin(2 * np.pi * time / 7)) + rng.normal(0, 0.5, len(time)).cumsum()
        )
        day = rng.random(len(time)) < 0.15
        warmth = 15 + 10 * np.sin(2 * np.pi * time / 365) + rng.normal(0, 4, len(time))
        effect = {"noise": 0.0, "promotions": 25.0 * day, "temperature": 1.5 * np.abs(warmth - 16)}
        y = unit * (level + effect[kind] + rng.normal(0, 3, len(time)))
        frame = pd.DataFrame(
            {
                "unique_id": f"s{number}",
                "ds": pd.date_range("2022-01-01", periods=len(time)),
                "y": y,
                "event": day.astype(float),
                "temperature": warmth,
                "noise": rng.normal(size=len(time)),
                "colour": rng.choice(["red", "green", "blue"], len(time)),
                "size": number % 3,
            }
        )
        history.append(frame[:NUM_STEPS])
        future.append(frame[NUM_STEPS:].drop(columns="y"))
        actuals.append(y[NUM_STEPS:])
    return pd.concat(history), pd.concat(future), np.array(actuals)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="cria,lag-llama", help="with commas")
    parser.add_argument("--series", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300, help="of fine-tuning")
    parser.add_argument("--tuned", default="cria", help="models to fine-tune, with commas")
    arguments = parser.parse_args()
    rows = []
    for name in arguments.models.split(","):
        forecaster = llamacast.load(name, device="cpu")
        for kind in KINDS:
            for seed in range(arguments.seeds):
                history, future, actuals = made(kind, arguments.series, seed)
                alone = history[["unique_id", "ds", "y"]]
                asked = {"num_samples": 100, "progress": False}
                told = {
                    "without": forecaster.forecast(alone, HORIZON, **asked),
                    "beside": forecaster.forecast(history, HORIZON, future_frame=future, **asked),
                }
                if name in arguments.tuned.split(","):
                    options = {"steps": arguments.steps, "progress": False}
                    tuned = forecaster.finetune(alone, HORIZON, **options)
                    told["fine-tuned without"] = tuned.forecast(alone, HORIZON, **asked)
                    columns = ["event", "temperature", "noise", "colour", "size"]
                    tuned = forecaster.finetune(history, HORIZON, covariates=columns, **options)
                    told["fine-tuned with"] = tuned.forecast(
                        history, HORIZON, future_frame=future, **asked
                    )
                for way, forecast in told.items():
                    low, high = forecast.interval(80)
                    rows.append(
                        {
                            "model": name,
                            "kind": kind,
                            "way": way,
                            "CRPS": mean_weighted_quantile_loss(
                                actuals, forecast.quantile(LEVELS), LEVELS
                            ),
                            "covered": ((low <= actuals) & (actuals <= high)).mean(),
                        }
                    )
            print(
                pd.DataFrame(rows).groupby(["model", "kind", "way"], sort=False).mean(), flush=True
            )
    table = pd.DataFrame(rows).groupby(["model", "way", "kind"], sort=False).mean().unstack("kind")
    crps = table["CRPS"]
    ratio = crps.div(crps.xs("without", level="way"), level="model")
    shown = pd.concat({"CRPS": ratio, "coverage of 80 %": table["covered"]}, axis=1)
    shown.index = [f"{model}, {way}" for model, way in shown.index]
    shown.columns = [f"{kind}: {what}" for what, kind in shown.columns]
    shown.index.name = "CRPS relative to the model without covariates"
    lines = [
        "# Covariates",
        "",
        f"{arguments.series} made-up daily series of each kind, {arguments.seeds} seeds, {HORIZON} steps "
        f"ahead; fine-tuning for at most {arguments.steps} steps.",
        "",
        markdown(shown.map("{:.3f}".format)),
    ]
    publish(lines, RESULTS / "covariates.md")


if __name__ == "__main__":
    main()
