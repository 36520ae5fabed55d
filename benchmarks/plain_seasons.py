"""Coverage on the plainest of series: a season that stays as it is, and noise.

    python benchmarks/plain_seasons.py --models cria,lag-llama

Sixty series of each kind, 200 steps of history and 14 ahead; the best there is forecasts the season and
the noise's normal quantiles. Tells how often actuals lie within the intervals, and the median's mean
absolute error in that of the best. Writes plain_seasons.md to benchmarks/results.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from machine import publish

import llamacast
from llamacast.evaluation.report import markdown

RESULTS = Path(__file__).parent / "results"
SEASONS = {"week of days": (7, "D"), "day of hours": (24, "h"), "year of months": (12, "MS")}
NOISES = (0.1, 0.3, 1.0)
LEVELS = (0.5, 0.8, 0.95)
NUM_SERIES, HISTORY, HORIZON = 60, 200, 14
MEAN_ABSOLUTE = (2 / np.pi) ** 0.5  # of a standard normal


def make(period: int, noise: float, rng: np.random.Generator) -> np.ndarray:
    """`(series, step)`: a profile of deviation 1 that is drawn for each series, and noise."""
    profiles = rng.standard_normal((NUM_SERIES, period))
    steps = np.arange(HISTORY + HORIZON) % period
    return profiles[:, steps] + noise * rng.standard_normal((NUM_SERIES, len(steps)))


def score(model: str, period: int, frequency: str, noise: float) -> dict[str, float]:
    values = make(period, noise, np.random.default_rng(0))
    stamps = pd.date_range("2015-01-01", periods=HISTORY, freq=frequency)
    table = pd.DataFrame(values[:, :HISTORY].T, index=stamps).add_prefix("s")
    found = llamacast.load(model, device="cpu").forecast(table, HORIZON, progress=False)
    actuals = values[:, HISTORY:]
    told = {}
    for level in LEVELS:
        low, high = np.moveaxis(found.quantile([0.5 - level / 2, 0.5 + level / 2]), -1, 0)
        told[f"{level:.0%}"] = 100 * float(((actuals >= low) & (actuals <= high)).mean())
    told["error"] = float(np.abs(found.median - actuals).mean() / (noise * MEAN_ABSOLUTE))
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="cria,lag-llama", help="with commas")
    models = parser.parse_args().models.split(",")
    rows = [
        {"season": name, "noise": noise, "model": model, **score(model, *season, noise)}
        for name, season in SEASONS.items()
        for noise in NOISES
        for model in models
    ]
    table = pd.DataFrame(rows).set_index(["season", "noise", "model"])
    publish(
        [
            "# A season and noise\n",
            "Noise is told in deviations of the season's profile; coverage in per cent of actuals, by the",
            "intervals' levels; the error of medians in that of the season itself.\n",
            markdown(table.round(2).reset_index().set_index("season")),
        ],
        RESULTS / "plain_seasons.md",
    )


if __name__ == "__main__":
    main()
