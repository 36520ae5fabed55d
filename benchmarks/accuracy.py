"""The benchmark of record: our models beside classical and trained models on sets it never saw.

    python benchmarks/accuracy.py ../shared/data/eval
    python benchmarks/accuracy.py ../shared/data/eval --max-series 100 --name accuracy_trained \
        --models cria,seasonal-naive,auto-ets,auto-theta,auto-arima,deepar,tft,n-beats,patchtst

Every parquet file of the folder is a data set (item_id, start, freq, target). The last windows of
each series, one horizon apart, are forecast from all that came before each; models that learn do so
from what comes before the first window. Answers are kept under runs/, so a run that was stopped goes
on. Writes NAME.md and a folder NAME of tables and pictures to benchmarks/results.
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import platform
import shlex
import sys
from pathlib import Path

import numpy as np

import llamacast
from llamacast.data.arrow import read_panels
from llamacast.data.panel import Panel
from llamacast.evaluation.backtest import Settled
from llamacast.evaluation.named import BASELINES
from llamacast.evaluation.report import markdown, remarks, score_table, summary_table, write_report
from llamacast.evaluation.scores import Scores

RESULTS = Path(__file__).parent / "results"
MODELS = (
    "cria,lag-llama,seasonal-naive,naive,drift,auto-ets,dynamic-optimized-theta,croston-sba,mstl"
)

# Horizon and season of the sets of the Lag-Llama paper, from their publications.
PROTOCOL = {
    "weather": (30, 7),
    "weather_2020": (30, 7),
    "pedestrian_counts": (24, 24),
    "ett_m2": (24, 96),
    "exchange_rate": (30, 5),
    "beijing_pm25": (24, 24),
}
# Of other sets: GIFT-Eval's short horizons, and the frequency's own season.
HORIZONS = {"s": 60, "min": 48, "h": 48, "D": 30, "B": 30, "W": 8, "M": 12, "Q": 8, "Y": 6}

FEWEST_WINDOWS = 5


def protocol(name: str, panel: Panel) -> tuple[int, int | None]:
    """Horizon and season of a set; None is the frequency's own season."""
    return PROTOCOL.get(name, (HORIZONS.get(panel.axes[0].frequency.unit, 60), None))


def choose(panel: Panel, most: int) -> Panel:
    """A seeded choice of series; all of them where `most` is 0 or there are no more."""
    if not most or len(panel) <= most:
        return panel
    chosen = np.sort(np.random.default_rng(0).permutation(len(panel))[:most])
    columns = [[part[n] for n in chosen] for part in (panel.ids, panel.values, panel.axes)]
    return Panel(*columns, panel.columns)


def spread(panel: Panel, horizon: int, season: int, num_windows: int) -> tuple[int, int]:
    """Windows of each series, and the steps from one to the next, so that about `num_windows` of a set
    lie all over the later half of a usual series, at all steps of a season in turn."""
    count = max(FEWEST_WINDOWS, num_windows // len(panel))
    usual = int(np.median([len(values) for values in panel.values]))
    step = max(1, (usual // 2 - horizon) // count)
    while math.gcd(step, season) > 1:
        step -= 1
    return count, step


def entrants(
    names: list[str], season: int | None, minutes: float, num_samples: int, context: int | None
) -> dict:
    found = {}
    options = {"num_samples": num_samples, "seed": 0, "progress": False}
    if context is not None:
        options["context_length"] = context
    for name in names:
        if name in BASELINES:
            found[name] = llamacast.baseline(name, season=season, minutes=minutes)
        else:
            forecaster = llamacast.load(name, device="cpu")
            found[name] = Settled(forecaster, options)
    return found


def in_words(several: list[Scores], model: str) -> str:
    """Where `model` stands on each set, and who is ahead of it."""
    lines = []
    for scores in several:
        table = scores.table()
        place = list(table.index).index(model)
        ahead = [f"{name} ({table.loc[name, 'CRPS']:.3g})" for name in table.index[:place]]
        own = f"{table.loc[model, 'CRPS']:.3g}"
        if not ahead:
            lines.append(f"- **{scores.name}**: first of {len(table)}, CRPS {own}.")
            continue
        lines.append(
            f"- **{scores.name}**: {place + 1} of {len(table)}, CRPS {own}, behind {', '.join(ahead)}."
        )
        if table.loc[model, "MASE ratio"] > 1:
            lines.append("  Its medians are worse than seasonal naive (MASE).")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of parquet files")
    parser.add_argument("--models", default=MODELS, help="with commas; the first is ours")
    parser.add_argument("--windows", type=int, default=5, help="windows of each series")
    parser.add_argument("--spread", type=int, help="windows of each set, about; not the last ones")
    parser.add_argument("--max-series", type=int, default=0, help="series of a set; 0: all")
    parser.add_argument("--num-samples", type=int, default=50, help="paths of our model")
    parser.add_argument("--context-length", type=int, help="of our model; its own if not said")
    parser.add_argument("--minutes", type=float, default=1.0, help="to train each deep model for")
    parser.add_argument("--sets", default="", help="only these, with commas")
    parser.add_argument("--name", default="accuracy", help="of the results")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results")
    arguments = parser.parse_args()

    panels = read_panels(arguments.data)
    only = [name for name in arguments.sets.split(",") if name]
    several = []
    for name in [n for n in [*PROTOCOL, *sorted(panels.keys() - PROTOCOL.keys())] if n in panels]:
        if only and name not in only:
            continue
        horizon, season = protocol(name, panels[name])
        panel = choose(panels[name], arguments.max_series)
        windows, step = arguments.windows, horizon
        if arguments.spread:
            windows, step = spread(panel, horizon, season or 1, arguments.spread)
        scores = llamacast.backtest(
            panel,
            horizon,
            entrants(
                arguments.models.split(","),
                season,
                arguments.minutes,
                arguments.num_samples,
                arguments.context_length,
            ),
            num_windows=windows,
            step=step,
            season=season,
            name=name,
            directory=Path("runs") / arguments.name / name,
        )
        several.append(scores)
        print(f"\n{name}\n{score_table(scores).to_string()}", flush=True)
        print("\n".join(remarks(scores)), flush=True)
    if not several:
        parser.error(f"{arguments.data} holds none of the sets asked for")
    write(several, arguments)


def write(several: list[Scores], arguments: argparse.Namespace) -> None:
    folder = arguments.output / arguments.name
    write_report(several, folder, arguments.name)
    model = arguments.models.split(",")[0]
    minutes = sum(answers.seconds for scores in several for answers in scores.answers.values()) / 60
    threads = os.environ.get("OMP_NUM_THREADS", f"idle cores, at most {os.cpu_count()}")
    command = shlex.join(["python", *sys.argv])
    (arguments.output / f"{arguments.name}.md").write_text(
        f"# {model} beside {len(several[0].answers) - 1} others\n\n"
        f"{markdown(summary_table(several))}\n\n"
        "CRPS is the mean weighted quantile loss over nine deciles; ratios, and skill (the share of "
        "CRPS saved), are to seasonal naive with normal errors, and averaged geometrically over data "
        "sets. Intervals are of a paired bootstrap over series. Ranks are averaged over data sets.\n\n"
        f"![Skill]({arguments.name}/skill.png)\n\n"
        f"## Where {model} stands\n\n{in_words(several, model)}\n\n"
        f"Each set, with calibration: [{arguments.name}/report.md]({arguments.name}/report.md).\n\n"
        f"`{command}`, {datetime.date.today()}, {platform.machine()} with {os.cpu_count()} shared "
        f"cores, threads: {threads}, {minutes:.0f} minutes in all.\n"
    )
    print(f"\n{summary_table(several).to_string()}\n\nwrote {arguments.output / arguments.name}.md")


if __name__ == "__main__":
    main()
