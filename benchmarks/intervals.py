"""How often intervals hold what comes, at short and at long horizons, all over the later half of series.

    python benchmarks/intervals.py ../shared/data/eval

Windows are those of `accuracy.py --spread`, about a thousand of each set. The long horizon is ten times
the short one, in sets whose histories are four times as long as that. Writes intervals.md and intervals.png
to benchmarks/results.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from accuracy import PROTOCOL, choose, spread
from machine import publish
from matplotlib.figure import Figure

import llamacast
from llamacast.data.arrow import read_panels
from llamacast.evaluation.answers import LEVELS
from llamacast.evaluation.backtest import Settled
from llamacast.evaluation.metrics import interval_coverage
from llamacast.evaluation.report import markdown
from llamacast.evaluation.scores import Scores

RESULTS = Path(__file__).parent / "results"
INTERVALS = {"60 %": (0.2, 0.8), "80 %": (0.1, 0.9), "95 %": (0.025, 0.975)}
ASKED = (75, 85)
TIMES_LONGER, HISTORIES_NEEDED = 10, 4
MOST_SERIES = 200


def held(scores: Scores, interval: str) -> np.ndarray:
    """Per cent of windows whose actual lies within, at each step."""
    low, high = (LEVELS.index(level) for level in INTERVALS[interval])
    quantiles = scores.answers["cria"].quantiles
    steps = zip(scores.actuals.T, quantiles[..., low].T, quantiles[..., high].T, strict=True)
    return np.array([100 * interval_coverage(*at_step) for at_step in steps])


def row(name: str, horizon: int, scores: Scores) -> dict[str, object]:
    at_steps = held(scores, "80 %")
    third = max(1, horizon // 3)
    return {
        "set": name,
        "horizon": str(horizon),
        "windows": str(len(scores.series)),
        **{interval: held(scores, interval).mean() for interval in INTERVALS},
        "80 %, first third": at_steps[:third].mean(),
        "80 %, last third": at_steps[-third:].mean(),
    }


def draw(found: dict[tuple[str, int], Scores], path: Path) -> None:
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.axhspan(*ASKED, color="#dfe7f2", label="asked of 80 % intervals")
    names = list(dict.fromkeys(name for name, _ in found))
    for (name, horizon), scores in found.items():
        long = horizon > PROTOCOL[name][0]
        axes.plot(
            np.arange(1, horizon + 1),
            held(scores, "80 %"),
            color=f"C{names.index(name)}",
            linewidth=1,
            linestyle="-" if not long else ":",
            label=None if long else name,
        )
    axes.set(xscale="log", ylim=(50, 100), xlabel="step of the horizon", ylabel="held, %")
    axes.legend(fontsize="small", ncols=2, loc="lower left")
    axes.set_title("What 80 % intervals hold; dotted: at the long horizon", fontsize="medium")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of parquet files, of accuracy.py's sets")
    parser.add_argument("--windows", type=int, default=1000, help="of a set, about")
    asked = parser.parse_args()
    contender = Settled(
        llamacast.load("cria", device="cpu"), {"num_samples": 50, "progress": False}
    )
    found = {}
    for name, panel in sorted(read_panels(asked.data).items()):
        short, season = PROTOCOL[name]
        chosen = choose(panel, MOST_SERIES)
        usual = np.median([len(values) for values in chosen.values])
        for horizon in (short, TIMES_LONGER * short):
            if usual < HISTORIES_NEEDED * horizon:
                continue
            count, step = spread(chosen, horizon, season, asked.windows)
            print(f"{name}, {horizon} steps: {count} windows of each series, {step} steps apart")
            found[name, horizon] = llamacast.backtest(
                chosen,
                horizon,
                {"cria": contender},
                num_windows=count,
                step=step,
                season=season,
                name=name,
            )
    draw(found, RESULTS / "intervals.png")
    table = pd.DataFrame([row(*key, scores) for key, scores in found.items()]).set_index("set")
    publish(
        [
            "# What intervals hold\n",
            "Per cent of actuals within Cria's intervals, of windows all over the later half of series.\n",
            markdown(table.round(1)),
            "\n![By step of the horizon](intervals.png)",
        ],
        RESULTS / "intervals.md",
    )


if __name__ == "__main__":
    main()
