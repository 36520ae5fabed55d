"""How the cost of a forecast grows: with horizon, samples, context and series, one at a time.

    python benchmarks/scaling.py

Each size is measured in turn, round after round; medians are drawn beside the straight line through
the first and the last size. Writes benchmarks/results/scaling.md and .png, and prints its numbers as a
line of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from machine import publish
from matplotlib.figure import Figure

import llamacast

RESULTS = Path(__file__).parent / "results"
USUAL = {"horizon": 24, "samples": 100, "context": 128, "series": 4}
SIZES = {
    "horizon": (6, 24, 48, 96, 144, 192),
    "samples": (8, 50, 100, 200, 300, 400),
    "context": (32, 128, 256, 512, 768, 1024),
    "series": (1, 4, 8, 16, 24, 32),
}
HISTORY = 2600


def seconds(forecaster: llamacast.PretrainedForecaster, rows: np.ndarray, size: dict) -> float:
    began = time.perf_counter()
    forecaster.forecast(
        rows[: size["series"]],
        size["horizon"],
        num_samples=size["samples"],
        context_length=size["context"],
        progress=False,
    )
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="lag-llama")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS)
    for name, size in USUAL.items():
        parser.add_argument(f"--{name}", type=int, default=size, help="where it is not what varies")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    forecaster = llamacast.load(arguments.model, device="cpu")
    rows = np.random.default_rng(0).normal(size=(max(SIZES["series"]), HISTORY)).cumsum(axis=1)
    usual = {name: getattr(arguments, name) for name in USUAL}
    seconds(forecaster, rows, usual)
    taken: dict[tuple[str, int], list[float]] = {}
    for number in range(arguments.rounds):
        for name, sizes in SIZES.items():
            for size in sizes:
                spent = seconds(forecaster, rows, usual | {name: size})
                taken.setdefault((name, size), []).append(spent)
        print(f"round {number + 1} of {arguments.rounds}", flush=True)
    medians = {key: statistics.median(values) for key, values in taken.items()}
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    lines = [
        f"# How the cost of {arguments.model} grows",
        "",
        "Seconds of a call, medians of "
        f"{arguments.rounds} rounds; but for what varies, {usual['series']} series, context "
        f"{usual['context']}, horizon {usual['horizon']}, {usual['samples']} samples, "
        f"{arguments.threads} thread(s).",
        "",
        "![Seconds by size](scaling.png)",
        "",
        "| what varies | " + " | ".join(f"size {n + 1}" for n in range(6)) + " |",
        "|---" * 7 + "|",
    ]
    for axes, (name, sizes) in zip(figure.subplots(1, len(SIZES)), SIZES.items(), strict=True):
        spent = [medians[name, size] for size in sizes]
        axes.plot(sizes, spent, "o-")
        axes.plot([sizes[0], sizes[-1]], [spent[0], spent[-1]], "--", color="grey", linewidth=0.8)
        axes.set_xlabel(name)
        axes.set_ylim(bottom=0)
        cells = " | ".join(f"{size}: {one:.2f}" for size, one in zip(sizes, spent, strict=True))
        lines.append(f"| {name} | {cells} |")
    figure.axes[0].set_ylabel("seconds")
    publish(lines, arguments.output / "scaling.md")
    figure.savefig(arguments.output / "scaling.png", dpi=110)
    told_sizes = [
        {"varies": name, "size": size, "seconds": s} for (name, size), s in medians.items()
    ]
    print(json.dumps({"scaling": told_sizes}))


if __name__ == "__main__":
    main()
