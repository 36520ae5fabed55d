"""Anomalies planted in real series: who finds them, and who cries wolf.

    python benchmarks/anomalies.py ../shared/data/eval

The last steps of some series of each data set get anomalies of four kinds, planted where a seeded draw
says: spikes, short plateaus, dropouts and noisy stretches, sized by the series' own steps around there,
so that none stands out by its mere value. Average precision ranks all values by their scores; recall and
false alarms are those at the stated rate. Beside our models, a moving quantile (distance from the
median of a centred window in its interquartile ranges, which sees the future too) and the error of
seasonal naive in its robust deviations. Writes anomalies.md and .png to benchmarks/results.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from accuracy import PROTOCOL, choose
from machine import publish
from matplotlib.figure import Figure

import llamacast
from llamacast.data.arrow import read_panels
from llamacast.evaluation.report import markdown

RESULTS = Path(__file__).parent / "results"
NUM_STEPS, NUM_SERIES, NUM_PLANTED = 2000, 8, 12
FALSE_ALARM_RATE = 0.01
KINDS = ("spike", "plateau", "dropout", "noise")
LENGTHS = {"spike": 1, "plateau": 12, "dropout": 4, "noise": 12}
FIRST = 300  # earlier values are left alone: everybody needs some history


def plant(
    values: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values with anomalies, which of them are, and of which kind (-1: none)."""
    planted, kinds = values.copy(), np.full(len(values), -1)
    places = rng.choice(np.arange(FIRST, len(values) - 20, 25), NUM_PLANTED, replace=False)
    for number, place in enumerate(places):
        kind = KINDS[number % len(KINDS)]
        part = slice(place, place + LENGTHS[kind])
        around = values[max(0, place - 100) : place + 100]
        unit = max(np.nanstd(around), 1e-9)
        if kind == "spike":
            planted[part] += rng.choice([-1, 1]) * 3.0 * unit
        elif kind == "plateau":
            planted[part] = values[place] + 0.02 * unit * rng.normal(size=LENGTHS[kind])
        elif kind == "dropout":
            planted[part] = np.nanmin(around) - 0.3 * unit
        else:
            planted[part] += 1.5 * unit * rng.normal(size=LENGTHS[kind])
        kinds[part] = number % len(KINDS)
    return planted, kinds >= 0, kinds


def moving_quantile(values: np.ndarray, season: int) -> np.ndarray:
    series = pd.Series(values)
    window = series.rolling(max(25, 2 * season + 1), center=True, min_periods=10)
    width = window.quantile(0.75) - window.quantile(0.25)
    return ((series - window.median()).abs() / width.clip(lower=1e-9)).to_numpy()


def seasonal_error(values: np.ndarray, season: int) -> np.ndarray:
    error = pd.Series(values).diff(season)
    deviation = 1.4826 * (error - error.median()).abs().median()
    return (error.abs() / max(deviation, 1e-9)).to_numpy()


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    order = np.argsort(-scores, kind="stable")
    hits = truth[order]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of parquet files")
    parser.add_argument("--models", default="cria,lag-llama", help="with commas")
    parser.add_argument("--sets", default=",".join(PROTOCOL), help="only these, with commas")
    arguments = parser.parse_args()
    models = {name: llamacast.load(name, device="cpu") for name in arguments.models.split(",")}
    panels, rows, kinds_found = read_panels(arguments.data), [], []
    for dataset in arguments.sets.split(","):
        season = PROTOCOL[dataset][1]
        panel = choose(panels[dataset], NUM_SERIES)
        lengths = [len(values) for values in panel.values]
        panel = panel.stretch([max(0, length - NUM_STEPS) for length in lengths], lengths)
        rng = np.random.default_rng(0)
        found = [plant(values, rng) for values in panel.values if len(values) > 2 * FIRST]
        kept = [n for n, values in enumerate(panel.values) if len(values) > 2 * FIRST]
        if not kept:
            continue
        clean, panel = panel.choose(kept), panel.choose(kept)
        planted = type(panel)(panel.ids, [one[0] for one in found], panel.axes, panel.columns)
        truth = np.concatenate([one[1][FIRST:] for one in found])
        kinds = np.concatenate([one[2][FIRST:] for one in found])
        scores: dict[str, np.ndarray] = {}
        alarms: dict[str, np.ndarray] = {}
        for name, model in models.items():
            told = model.detect(planted, false_alarm_rate=FALSE_ALARM_RATE, progress=False)
            scores[name] = np.concatenate([1 - one[FIRST:] for one in told.probability])
            calm = model.detect(clean, false_alarm_rate=FALSE_ALARM_RATE, progress=False)
            alarms[name] = np.concatenate([one[FIRST:] for one in calm.probability])
        for name, rule in (
            ("moving quantile", moving_quantile),
            ("seasonal naive", seasonal_error),
        ):
            scores[name] = np.concatenate([rule(one, season)[FIRST:] for one in planted.values])
        known = ~np.isnan(np.stack(list(scores.values()))).any(axis=0)
        for name, score in scores.items():
            row = {"data set": dataset, "model": name}
            row["average precision"] = average_precision(score[known], truth[known])
            if name in alarms:
                flagged = score > 1 - FALSE_ALARM_RATE
                row["recall"] = float(flagged[known & truth].mean())
                row["false alarms"] = float(flagged[known & ~truth].mean())
                row["flagged before planting"] = float(np.nanmean(alarms[name] < FALSE_ALARM_RATE))
            rows.append(row)
            for number, kind in enumerate(KINDS):
                part = known & ((kinds == number) | ~truth)
                precision = average_precision(score[part], truth[part])
                kinds_found.append({"kind": kind, "model": name, "average precision": precision})
        print(
            pd.DataFrame([row for row in rows if row["data set"] == dataset]).to_string(),
            flush=True,
        )
    write(pd.DataFrame(rows), pd.DataFrame(kinds_found))


def write(table: pd.DataFrame, by_kind: pd.DataFrame) -> None:
    means = table.drop(columns="data set").groupby("model", sort=False).mean()
    sets = table.pivot(index="model", columns="data set", values="average precision").loc[
        means.index
    ]
    kinds = (
        by_kind.groupby(["model", "kind"])["average precision"].mean().unstack().loc[means.index]
    )
    shown = [frame.map("{:.3f}".format) for frame in (means, sets, kinds[list(KINDS)])]
    lines = [
        "# Planted anomalies",
        "",
        f"At most {NUM_SERIES} series of each data set, their last {NUM_STEPS} steps, {NUM_PLANTED} "
        f"anomalies in each; flags at a stated rate of {FALSE_ALARM_RATE:.0%}.",
        "",
        markdown(shown[0]),
        "",
        "Average precision by data set:",
        "",
        markdown(shown[1]),
        "",
        "By kind:",
        "",
        markdown(shown[2]),
        "",
        "![Average precision](anomalies.png)",
    ]
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    sets.T.plot.bar(ax=axes, rot=15, width=0.8)
    axes.set_ylabel("average precision")
    axes.set_xlabel("")
    axes.legend(fontsize="small", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(RESULTS / "anomalies.png", dpi=120)
    publish(lines, RESULTS / "anomalies.md")


if __name__ == "__main__":
    main()
