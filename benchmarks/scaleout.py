"""A table of many short series: one process, Ray, Spark, a worker killed; and memory as tables grow.

    python benchmarks/scaleout.py --series 100000

Makes a parquet table of series of 60 days, whose rows lie anywhere, and forecasts 14 days of each by one
process, by two actors of a local Ray, one of which is killed in the middle, and by two workers of a local
Spark, one of which is killed, too. Tells seconds from the call to its end, and whether all forecasts are
the same. Then the command line forecasts tables of 1 and 8 million rows in processes of their own, whose
peak of memory is told. Writes `results/scaleout.md`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
from machine import publish

from llamacast.scaleout import FrameForecaster, forecast_dataset
from llamacast.scaleout.run import Run

RESULTS = Path(__file__).parent / "results"
DAYS, HORIZON, SHARDS, WORKERS = 60, 14, 20, 2
MILLIONS = (1, 8)
STEPS_OF_LONG = 2_000
ASKED = FrameForecaster(horizon=HORIZON, device="cpu")
KEYS = ["unique_id", "ds"]


def table(folder: Path, count: int, length: int, files: int = 10) -> Path:
    """Rows in any order, in some files."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(files):
        names = np.arange(number, count, files)
        days = pd.date_range("2026-01-01", periods=length, unit="us")
        weeks = 50 + 10 * np.sin(np.arange(length) * 2 * np.pi / 7 + names[:, None])
        frame = pd.DataFrame(
            {
                "unique_id": np.repeat([f"series {name:07d}" for name in names], length),
                "ds": np.tile(days, len(names)),
                "y": (weeks + rng.normal(0, 3, weeks.shape)).ravel(),
            }
        )
        frame.iloc[rng.permutation(len(frame))].to_parquet(folder / f"{number}.parquet")
    return folder


class Killer(threading.Thread):
    """Kills a worker once a quarter of the parts is there."""

    def __init__(self, output: Path, mark: str) -> None:
        super().__init__(daemon=True)
        self.output, self.mark, self.killed = output, mark, 0

    def run(self) -> None:
        while len(list(self.output.glob("part-*"))) < SHARDS // 4:
            time.sleep(0.05)
        while not self.killed and len(list(self.output.glob("part-*"))) < SHARDS:
            for process in psutil.process_iter(["cmdline"]):
                told = " ".join(process.info["cmdline"] or ())
                # Not the one that starts the others, which waits.
                if self.mark in told and process.cpu_percent(0.1) > 10:
                    process.kill()
                    self.killed = 1
                    break


def on_ray(source: Path, output: Path) -> Run:
    import ray

    from llamacast.scaleout.on_ray import forecast_on_ray

    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    try:
        return forecast_on_ray(source, output, ASKED, concurrency=WORKERS, num_shards=SHARDS)
    finally:
        ray.shutdown()


def on_spark(source: Path, output: Path) -> Run:
    from pyspark.sql import SparkSession

    from llamacast.scaleout.on_spark import forecast_on_spark

    os.environ["PYSPARK_PYTHON"] = sys.executable
    spark = (
        SparkSession.builder.master(f"local[{WORKERS},4]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", SHARDS)
        .config("spark.sql.adaptive.enabled", "false")
        .config("spark.driver.memory", "4g")
        .getOrCreate()
    )
    try:
        return forecast_on_spark(spark.read.parquet(str(source)), output, ASKED, num_shards=SHARDS)
    finally:
        spark.stop()


def engines(folder: Path, count: int) -> list[str]:
    source = table(folder / "short", count, DAYS)
    rows = []
    expected = None
    for name, work, mark in (
        (
            "one process, one thread",
            lambda output: forecast_dataset(source, output, ASKED, num_shards=SHARDS),
            None,
        ),
        (f"Ray, {WORKERS} actors", lambda output: on_ray(source, output), "MapBatches"),
        (f"Spark, {WORKERS} workers", lambda output: on_spark(source, output), "pyspark.daemon"),
    ):
        output = folder / name.replace(" ", "-")
        killer = Killer(output, mark) if mark else None
        if killer:
            killer.start()
        begun = time.perf_counter()
        run = work(output)
        seconds = time.perf_counter() - begun
        found = run.read()
        if expected is None:
            expected = found
        same = len(found) == count * HORIZON and found[KEYS].equals(expected[KEYS])
        apart = np.abs(found["mean"] - expected["mean"]).max()
        killed = "-" if killer is None else f"{killer.killed} worker"
        row = (
            f"| {name} | {seconds:.0f} | {count / seconds:.0f} | {killed} | "
            f"{len(found):,} rows, {'each once' if same else 'NOT THE SAME'} | {apart:.1e} |"
        )
        print(row, flush=True)
        rows.append(row)
        shutil.rmtree(output)
    return rows


def memory(folder: Path) -> list[str]:
    rows = []
    for millions in MILLIONS:
        source = table(
            folder / f"long{millions}", millions * 1_000_000 // STEPS_OF_LONG, STEPS_OF_LONG
        )
        size = sum(file.stat().st_size for file in source.iterdir()) / 2**20
        output = folder / f"out{millions}"
        command = [sys.executable, "-m", "llamacast", "forecast", str(source)]
        process = subprocess.Popen(
            [*command, "--horizon", str(HORIZON), "--output", str(output)],
            stderr=subprocess.DEVNULL,
        )
        _, code, used = os.wait4(process.pid, 0)
        assert code == 0
        parts = len(list(output.glob("part-*")))
        row = f"| {millions} million | {size:.0f} | {parts} | {used.ru_maxrss / 1024:.0f} |"
        print(row, flush=True)
        rows.append(row)
        shutil.rmtree(source)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=100_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        rows, peaks = engines(folder, asked.series), memory(folder)
    lines = [
        "# Many series, many workers",
        "",
        f"{asked.series:,} series of {DAYS} days in random order of rows, {HORIZON} days of each forecast",
        f"with 100 samples, in {SHARDS} shards. Seconds are from the call to its end, with the start of the",
        "engine, the cut of the table into shards, and the loss of a worker that is killed when a quarter",
        "is done.",
        "",
        "| engine | seconds | series a second | killed | found | means differ by at most |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        "`llamacast forecast FOLDER --output FOLDER` on tables of series of "
        f"{STEPS_OF_LONG:,} steps, each in a process of its own:",
        "",
        "| rows | MiB of parquet | parts | peak memory, MiB |",
        "|---|---|---|---|",
        *peaks,
    ]
    publish(lines, RESULTS / "scaleout.md")


if __name__ == "__main__":
    main()
