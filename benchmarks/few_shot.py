"""How much history fine-tuning needs: the few-shot study of arXiv 2310.08278, section 5.2.

    python benchmarks/few_shot.py ../shared/data/eval

A model is fine-tuned on the latest 20, 40, 60, 80 and 100 % of each series' history before the windows, and
scored on the last windows, as in finetuning.py. Answers are kept under runs/, so a run that was stopped
goes on. Writes few_shot.md and .png to benchmarks/results.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from accuracy import PROTOCOL, choose
from machine import publish
from matplotlib.figure import Figure

import llamacast
from llamacast.data.arrow import read_panels
from llamacast.evaluation.backtest import Finetuned, Settled
from llamacast.evaluation.report import markdown

RESULTS = Path(__file__).parent / "results"
SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of parquet files")
    parser.add_argument("--model", default="cria")
    parser.add_argument("--strategy", default="full")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--sets", default="pedestrian_counts,beijing_pm25", help="with commas")
    parser.add_argument("--max-series", type=int, default=60)
    arguments = parser.parse_args()
    forecaster = llamacast.load(arguments.model, device="cpu")
    options = {"num_samples": 99, "seed": 0, "progress": False}
    panels, table = read_panels(arguments.data), {}
    for dataset in arguments.sets.split(","):
        horizon, season = PROTOCOL[dataset]
        entrants: dict = {"0 %": Settled(forecaster, options)}
        for share in SHARES:
            tuning = {"strategy": arguments.strategy, "steps": arguments.steps, "progress": False}
            tuning["history_share"] = share
            entrants[f"{share:.0%}".replace("%", " %")] = Finetuned(forecaster, tuning, options)
        scores = llamacast.backtest(
            choose(panels[dataset], arguments.max_series),
            horizon,
            entrants,
            season=season,
            name=dataset,
            directory=Path("runs") / "few_shot" / dataset,
        )
        found = scores.table()["CRPS"].loc[list(entrants)]
        table[dataset] = found / found["0 %"]
        print(table[dataset], flush=True)
    ratios = pd.DataFrame(table).T
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, row in ratios.iterrows():
        axes.plot(range(len(row)), row, "o-", label=name)
    axes.set_xticks(range(ratios.shape[1]), ratios.columns)
    axes.set_xlabel("share of the history that is learnt from")
    axes.set_ylabel("CRPS relative to zero-shot")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(RESULTS / "few_shot.png", dpi=120)
    lines = [
        f"# How much history fine-tuning {arguments.model} needs",
        "",
        f"CRPS relative to zero-shot after learning ({arguments.strategy}, at most {arguments.steps} "
        "steps, one seed) from the latest share of each series' history; 0 % is zero-shot.",
        "",
        markdown(ratios.map("{:.3f}".format)),
        "",
        "![CRPS by share of history](few_shot.png)",
    ]
    publish(lines, RESULTS / "few_shot.md")


if __name__ == "__main__":
    main()
