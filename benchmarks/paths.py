"""How many independent paths those of the packaged scheme are worth.

    python benchmarks/paths.py ../shared/data/eval

Lag-Llama's 100 paths of a series are not independent: the draws of a step are spread evenly over the
unit square (sampling/streams.py), each path for itself still being an exact draw. For windows of real
series, quantiles from n such paths, and from n independent ones, are held against those of 4,000
independent ones: the mean error of nine deciles over the width between the outer two, and CRPS
against what happened. Writes benchmarks/results/paths.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
from machine import publish

import llamacast
from llamacast.data.frame import read_panel
from llamacast.data.windows import last_windows
from llamacast.model.lag_llama import LagLlama
from llamacast.sampling.engine import sample_paths
from llamacast.sampling.streams import uniforms

RESULTS = Path(__file__).parent / "results"
DECILES = np.arange(1, 10) / 10
NUMBERS = (25, 50, 100, 200, 400)
HORIZON, CONTEXT, MANY = 24, 64, 4000


def windows(folder: Path, per_set: int) -> list[tuple[torch.Tensor, ...]]:
    """Window, flags and calendar of some series of each set, and what happened after it."""
    found = []
    for file in sorted(folder.glob("*.parquet")):
        table = pq.read_table(file).to_pandas()
        table = table[
            table.target.map(len) > 1300 if len(table) < 1000 else table.target.map(len) > 300
        ]
        for _, row in table.sample(min(per_set, len(table)), random_state=0).iterrows():
            values = np.asarray(row.target, dtype=float)
            if np.isnan(values[-HORIZON:]).any():
                continue
            stamps = pd.date_range(row.start, periods=len(values), freq=row.freq)
            panel = read_panel(pd.Series(values, stamps)[:-HORIZON], frequency=row.freq)
            cut = last_windows(panel, slice(0, 1), 1440 + CONTEXT, CONTEXT, HORIZON)
            parts = (cut.values, cut.observed, cut.calendar)
            found.append((*map(torch.from_numpy, parts), torch.from_numpy(values[-HORIZON:])))
    return found


def crps(quantiles: np.ndarray, actual: np.ndarray) -> float:
    error = actual - quantiles
    losses = np.maximum(DECILES[:, None] * error, (DECILES[:, None] - 1) * error)
    return 2 * losses.mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of parquet files")
    parser.add_argument("--per-set", type=int, default=4, help="series of each file")
    parser.add_argument("--repeats", type=int, default=8, help="seeds")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    model = llamacast.load("lag-llama", device="cpu").model
    assert isinstance(model, LagLlama)
    generator = torch.Generator().manual_seed(0)
    errors: dict[tuple[str, int], list[float]] = {}
    scores: dict[tuple[str, int], list[float]] = {}
    cases = windows(arguments.data, arguments.per_set)
    for number, (values, observed, calendar, actual) in enumerate(cases):

        def quantiles(
            draws: torch.Tensor, window: tuple = (values, observed, calendar)
        ) -> np.ndarray:
            return np.quantile(sample_paths(model, *window, draws)[0], DECILES, axis=0)

        def independent(size: int) -> torch.Tensor:
            return torch.rand(1, size, HORIZON, 2, generator=generator).clamp(1e-7, 1 - 1e-7)

        truth = quantiles(independent(MANY))
        width = np.maximum(truth[-1] - truth[0], 1e-12)
        best = crps(truth, actual.numpy())
        for size in NUMBERS:
            for seed in range(arguments.repeats):
                for scheme, draws in (
                    ("independent", independent(size)),
                    ("spread evenly", uniforms([f"{number}"], seed, size, HORIZON)),
                ):
                    told_quantiles = quantiles(draws)
                    error = (np.abs(told_quantiles - truth) / width).mean()
                    errors.setdefault((scheme, size), []).append(error)
                    ratio = crps(told_quantiles, actual.numpy()) / best
                    scores.setdefault((scheme, size), []).append(ratio)
        print(f"series {number + 1} of {len(cases)}", flush=True)
    mean = {key: float(np.mean(one)) for key, one in errors.items()}
    loss = {key: float(np.mean(one)) - 1 for key, one in scores.items()}
    # Of independent paths the error falls as one over the root of their number.
    worth = {n: n * (mean["independent", n] / mean["spread evenly", n]) ** 2 for n in NUMBERS}
    lines = [
        "# What evenly spread paths are worth",
        "",
        f"{len(cases)} series of {arguments.data.name}, horizon {HORIZON}, context {CONTEXT}, "
        f"{arguments.repeats} seeds each, against {MANY} independent paths. Error of nine deciles, in "
        "shares of the width between the outer two; loss of CRPS against the deciles of "
        f"{MANY} paths; and how many independent paths have the same error of deciles.",
        "",
        "| paths | error, independent | error, spread evenly | CRPS lost, independent | CRPS lost, spread "
        "evenly | worth in independent paths |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {n} | {mean['independent', n]:.4f} | {mean['spread evenly', n]:.4f} | "
        f"{loss['independent', n]:.2%} | {loss['spread evenly', n]:.2%} | {worth[n]:.0f} |"
        for n in NUMBERS
    ]
    publish(lines, arguments.output / "paths.md")
    print(json.dumps({"worth": worth}))


if __name__ == "__main__":
    main()
