"""Fine-tuning on the benchmark of record: each strategy beside zero-shot and networks trained from nothing.

    python benchmarks/finetuning.py ../shared/data/eval

For each data set a model learns from what comes before the first window of each series, and then
forecasts the last windows, as in accuracy.py. Strategies are run with several seeds, and their scores
averaged; trained networks have one. Answers are kept under runs/, so a run that was stopped goes on.
Writes finetuning_MODEL.md and .png to benchmarks/results.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from accuracy import PROTOCOL, choose
from machine import publish
from matplotlib.figure import Figure

import llamacast
from llamacast.data.arrow import read_panels
from llamacast.evaluation.backtest import Finetuned, Settled
from llamacast.evaluation.report import markdown

RESULTS = Path(__file__).parent / "results"
NEURAL = ("deepar", "tft", "n-beats", "patchtst")


def entrants(arguments: argparse.Namespace, season: int) -> dict:
    forecaster = llamacast.load(arguments.model, device="cpu")
    # Samples that are quantiles are Cria's own; Lag-Llama has paths.
    options = {"num_samples": arguments.num_samples, "seed": 0, "progress": False}
    found: dict = {"zero-shot": Settled(forecaster, options)}
    for told in arguments.strategies.split(","):
        strategy, _, seeds = told.partition(":")
        for seed in range(int(seeds or 1)):
            tuning = {"strategy": strategy, "seed": seed, "steps": arguments.steps}
            tuning |= {"history_share": arguments.history_share, "progress": False}
            found[f"{strategy} {seed}"] = Finetuned(forecaster, tuning, options)
    for name in filter(None, arguments.beside.split(",")):
        found[name] = llamacast.baseline(name, season=season, minutes=arguments.minutes)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of parquet files")
    parser.add_argument("--model", default="cria")
    parser.add_argument("--strategies", default="full:3,lora:2,head,features", help=": and seeds")
    parser.add_argument("--beside", default=",".join(NEURAL), help="baselines, with commas")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--history-share", type=float, default=1.0)
    parser.add_argument("--max-series", type=int, default=60)
    parser.add_argument("--num-samples", type=int, default=99)
    parser.add_argument("--minutes", type=float, default=0.75, help="for each trained network")
    parser.add_argument("--sets", default=",".join(PROTOCOL), help="only these, with commas")
    parser.add_argument("--name", default="", help="of the results")
    arguments = parser.parse_args()
    name = arguments.name or f"finetuning_{arguments.model}"
    panels, table, minutes = read_panels(arguments.data), {}, {}
    for dataset in arguments.sets.split(","):
        horizon, season = PROTOCOL[dataset]
        began = time.perf_counter()
        scores = llamacast.backtest(
            choose(panels[dataset], arguments.max_series),
            horizon,
            entrants(arguments, season),
            season=season,
            name=dataset,
            directory=Path("runs") / name / dataset,
        )
        found = scores.table()
        for entrant, answers in scores.answers.items():
            errors = {str(error) for error in np.unique(answers.errors) if error}
            if errors:
                print(f"{dataset}, {entrant}: {errors}", flush=True)
        table[dataset] = found["CRPS"]
        minutes[dataset] = {
            entrant: answers.seconds / 60 for entrant, answers in scores.answers.items()
        }
        print(
            f"\n{dataset} ({(time.perf_counter() - began) / 60:.0f} minutes)\n{found['CRPS']}",
            flush=True,
        )
    write(pd.DataFrame(table).T, pd.DataFrame(minutes).T, arguments, name)


def told(table: pd.DataFrame) -> str:
    return markdown(table.map("{:.3f}".format))


def write(
    crps: pd.DataFrame, minutes: pd.DataFrame, arguments: argparse.Namespace, name: str
) -> None:
    """Means over seeds, ratios to zero-shot, ranks; and a picture."""
    kinds = [column.rsplit(" ", 1)[0] if column[-1].isdigit() else column for column in crps]
    means = crps.T.groupby(kinds, sort=False).mean().T
    ratios = means.div(means["zero-shot"], axis=0)
    summary = pd.DataFrame(
        {
            "CRPS / zero-shot": np.exp(np.log(ratios).mean()),
            "worst set": ratios.max(),
            "CRPS / seasonal naive": np.exp(
                np.log(means.div(means["seasonal-naive"], axis=0)).mean()
            ),
            "average rank": means.rank(axis=1).mean(),
            "minutes a set": minutes[crps.columns].T.groupby(kinds, sort=False).mean().T.mean(),
        }
    ).sort_values("CRPS / zero-shot")
    spread = crps.T.groupby(kinds, sort=False).std().T.div(means)
    lines = [
        f"# Fine-tuning {arguments.model}",
        "",
        "Geometric means over six data sets (at most "
        f"{arguments.max_series} series of each, five windows); strategies and seeds, over which scores are "
        f"averaged: {arguments.strategies}; ranks over all rows. Trained networks had "
        f"{arguments.minutes:g} minutes each, which is far from what they would need.",
        "",
        told(summary),
        "",
        "CRPS relative to zero-shot, on each set:",
        "",
        told(ratios[summary.index].T),
        "",
        "Standard deviation over seeds, as a share of the mean:",
        "",
        told(spread.dropna(axis=1, how="all").T),
        "",
        f"![CRPS relative to zero-shot]({name}.png)",
    ]
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    shown = [kind for kind in summary.index if summary.loc[kind, "worst set"] < 2]
    for number, kind in enumerate(shown):
        axes.plot(range(len(ratios)), ratios[kind], "o", color=f"C{number}", label=kind)
    axes.axhline(1, color="#888888", linewidth=0.8)
    axes.set_xticks(range(len(ratios)), ratios.index, rotation=15)
    axes.set_ylabel("CRPS relative to zero-shot")
    axes.legend(fontsize="small", frameon=False, ncols=3)
    figure.savefig(RESULTS / f"{name}.png", dpi=120)
    publish(lines, RESULTS / f"{name}.md")


if __name__ == "__main__":
    main()
