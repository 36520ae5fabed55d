"""Score Lag-Llama beside seasonal naive on rolling windows of real series it never saw.

    python benchmarks/accuracy.py ../shared/data/eval [--model lag-llama]

Reads one parquet file for each data set (item_id, start, freq, target). The last windows of each
series (as many as PROTOCOL says), one horizon apart, are forecast from all that came before each.
Sets of many series are scored on a seeded choice of series, --max-windows in all (0: on all).
Writes a table (accuracy.md, accuracy.csv) and a picture (accuracy.png) to benchmarks/results.

CRPS is the mean weighted quantile loss over nine deciles, summed over all windows of a set; MASE
scales by the seasonal error of each window's history.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import time
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import llamacast
from llamacast.data.calendar import stamps_from
from llamacast.data.corpora import Corpus, read_corpus
from llamacast.evaluation.baselines import SeasonalNaive
from llamacast.evaluation.metrics import (
    DECILES,
    mean_absolute_scaled_error,
    mean_weighted_quantile_loss,
    seasonal_error,
)

RESULTS = Path(__file__).parent / "results"

# Horizon and season of each set, from its publication; rolling windows: at least 5 where series
# are long (those of weather_2020 are one year), more where they are few.
PROTOCOL = {
    "weather": (30, 7, 5),
    "weather_2020": (30, 7, 1),
    "pedestrian_counts": (24, 24, 5),
    "ett_m2": (24, 96, 20),
    "exchange_rate": (30, 5, 20),
    "beijing_pm25": (24, 24, 50),
}
LEAST_HISTORY_SEASONS = 2
# Windows given to a model at a time; memory, not scores, depends on it.
CHUNK = 400


def rolling_windows(
    corpus: Corpus, chosen: np.ndarray, horizon: int, season: int, num_windows: int
) -> tuple[list[pd.DataFrame], np.ndarray, np.ndarray]:
    """Histories as long frames, actuals `(window, horizon)`, seasonal errors `(window,)`."""
    histories, actuals, errors = [], [], []
    for series in chosen:
        values = corpus.series(series).astype(np.float64)
        stamps = stamps_from(corpus.starts[series], corpus.frequencies[series], 0, len(values))
        for window in range(num_windows):
            cut = len(values) - horizon * (window + 1)
            enough = cut >= max(LEAST_HISTORY_SEASONS * season, horizon)
            future = values[max(cut, 0) : cut + horizon]
            if not enough or np.isnan(values[:cut]).all() or np.isnan(future).all():
                continue
            name = f"{series}/{window}"
            histories.append(
                pd.DataFrame({"unique_id": name, "ds": stamps[:cut], "y": values[:cut]})
            )
            actuals.append(future)
            errors.append(seasonal_error(values[:cut], season))
    return histories, np.stack(actuals), np.array(errors)


def deciles(forecaster, histories: list[pd.DataFrame], horizon: int, frequency: str) -> np.ndarray:
    """Deciles of every window, `(window, horizon, 9)`."""
    found = []
    for first in range(0, len(histories), CHUNK):
        table = pd.concat(histories[first : first + CHUNK])
        forecast = forecaster.forecast(table, horizon, frequency=frequency)
        found.append(forecast.quantile(DECILES))
    return np.concatenate(found)


def score_set(name: str, folder: Path, forecasters: dict, max_windows: int) -> list[dict]:
    horizon, season, num_windows = PROTOCOL[name]
    corpus = read_corpus(folder / f"{name}.parquet")
    most = max_windows // num_windows if max_windows else corpus.num_series
    chosen = np.sort(np.random.default_rng(0).permutation(corpus.num_series)[:most])
    histories, actuals, errors = rolling_windows(corpus, chosen, horizon, season, num_windows)
    rows = []
    for model, forecaster in forecasters.items():
        if isinstance(forecaster, SeasonalNaive):
            forecaster = SeasonalNaive(season)
        began = time.perf_counter()
        quantiles = deciles(forecaster, histories, horizon, corpus.frequencies[0].name)
        rows.append(
            {
                "data set": name,
                "model": model,
                "series": len(chosen),
                "of": corpus.num_series,
                "windows": len(histories),
                "horizon": horizon,
                "CRPS": mean_weighted_quantile_loss(actuals, quantiles),
                "MASE": mean_absolute_scaled_error(actuals, quantiles[..., 4], errors),
                "coverage 80": float(coverage(actuals, quantiles)),
                "seconds": time.perf_counter() - began,
            }
        )
        print(pd.DataFrame(rows[-1:]).to_string(index=False, header=len(rows) == 1), flush=True)
    return rows


def coverage(actuals: np.ndarray, quantiles: np.ndarray) -> float:
    """Share of observed actuals between the first and the last decile."""
    inside = (actuals >= quantiles[..., 0]) & (actuals <= quantiles[..., -1])
    return inside[np.isfinite(actuals)].mean()


def summarise(rows: pd.DataFrame, model: str) -> pd.DataFrame:
    """Scores side by side, ratios to seasonal naive, and their geometric mean in the last row."""
    wide = rows.pivot(index="data set", columns="model", values=["CRPS", "MASE", "coverage 80"])
    ours = rows[rows.model == model].set_index("data set")
    table = pd.DataFrame(
        {
            "series": ours.series.astype(str) + " of " + ours.of.astype(str),
            "windows": ours.windows,
            "CRPS": wide["CRPS"][model],
            "CRPS seasonal naive": wide["CRPS"]["seasonal-naive"],
            "MASE": wide["MASE"][model],
            "MASE seasonal naive": wide["MASE"]["seasonal-naive"],
            "coverage of 80 %": wide["coverage 80"][model],
        }
    ).reindex([name for name in PROTOCOL if name in wide.index])
    table.insert(4, "CRPS ratio", table["CRPS"] / table["CRPS seasonal naive"])
    table.insert(7, "MASE ratio", table["MASE"] / table["MASE seasonal naive"])
    geometric = {
        column: np.exp(np.log(table[column]).mean()) for column in ("CRPS ratio", "MASE ratio")
    }
    return pd.concat([table, pd.DataFrame(geometric, index=["geometric mean"])])


def shown(value: object) -> str:
    if isinstance(value, str):
        return value
    return "" if pd.isna(value) else f"{value:.3f}".removesuffix(".000")


def markdown(table: pd.DataFrame) -> str:
    cells = table.map(shown)
    lines = [
        "| data set | " + " | ".join(cells.columns) + " |",
        "|---" * (len(cells.columns) + 1) + "|",
    ]
    lines += [
        f"| {name} | " + " | ".join(row) + " |"
        for name, row in zip(cells.index, cells.values, strict=True)
    ]
    return "\n".join(lines)


def draw(table: pd.DataFrame, path: Path) -> None:
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(table))
    for offset, column, colour in ((-0.2, "CRPS ratio", "#1d3f73"), (0.2, "MASE ratio", "#8fb0dc")):
        axes.bar(places + offset, table[column], 0.38, color=colour, label=column)
    axes.axhline(1.0, color="#c2452d", linewidth=1.0, label="seasonal naive")
    axes.set_xticks(places, [name.replace("_", "\n") for name in table.index], fontsize="small")
    axes.set_ylabel("lower is better")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small", ncols=3)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of parquet files")
    parser.add_argument("--model", default="lag-llama", help="packaged model, or the folder of one")
    parser.add_argument("--max-windows", type=int, default=500, help="windows of a set; 0: all")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results")
    arguments = parser.parse_args()

    model = Path(arguments.model).name
    forecasters = {
        model: llamacast.load(arguments.model, device="cpu"),
        "seasonal-naive": SeasonalNaive(),
    }
    rows: list[dict] = []
    for name in PROTOCOL:
        if (arguments.data / f"{name}.parquet").exists():
            rows += score_set(name, arguments.data, forecasters, arguments.max_windows)
    if not rows:
        parser.error(f"{arguments.data} holds none of {', '.join(PROTOCOL)}")
    command = (
        f"python benchmarks/accuracy.py {arguments.data} --max-windows {arguments.max_windows}"
    )
    write_results(pd.DataFrame(rows), model, command, arguments.output)


def write_results(rows: pd.DataFrame, model: str, command: str, output: Path) -> None:
    """Scores as they are first, so that nothing is lost; then the table and the picture."""
    output.mkdir(parents=True, exist_ok=True)
    rows.to_csv(output / "accuracy.csv", index=False, float_format="%.6g")
    table = summarise(rows, model)
    threads = os.environ.get("OMP_NUM_THREADS", f"idle cores, at most {os.cpu_count()}")
    minutes = rows[rows.model == model].seconds.sum() / 60
    (output / "accuracy.md").write_text(
        f"# {model} beside seasonal naive\n\n{markdown(table)}\n\n"
        f"Command: `{command}`. CRPS is the mean weighted quantile loss over nine deciles of 100 "
        "paths, seed 0; ratios are to seasonal naive with normal errors; lower is better. "
        f"{datetime.date.today()}, {platform.machine()} with {os.cpu_count()} shared cores, "
        f"threads: {threads}, {minutes:.0f} minutes for the model.\n\n![ratios](accuracy.png)\n"
    )
    draw(table, output / "accuracy.png")
    print(f"\n{markdown(table)}\n\nwrote {output}/accuracy.{{md,csv,png}}")


if __name__ == "__main__":
    main()
