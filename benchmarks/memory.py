"""Peak memory of forecasting, each request in a process of its own.

    python benchmarks/memory.py
    python benchmarks/memory.py --models lag-llama --context 512 --horizon 24 --series 32

Tells the process' largest resident set, and how much of it is above what importing, loading and a
forecast of one short series take. `--batch` series are asked for in a call. Writes
benchmarks/results/memory.md and prints its numbers as a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from machine import publish

import llamacast

RESULTS = Path(__file__).parent / "results"
HISTORY = 1604
REQUESTS = ((32, 24, 32), (512, 24, 32), (512, 24, 96), (512, 96, 32))


def peak() -> float:
    """Mebibytes of the largest resident set so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def once(model: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Forecast here, in this process."""
    torch.set_num_threads(arguments.threads)
    forecaster = llamacast.load(model, device="cpu")
    rows = np.random.default_rng(0).normal(size=(arguments.batch, HISTORY)).cumsum(axis=1)
    options = {"context_length": arguments.context, "num_samples": arguments.samples}
    forecaster.forecast(rows[:1, :64], 2, context_length=32, num_samples=2)
    before, began = peak(), time.perf_counter()
    for _ in range(max(1, arguments.series // arguments.batch)):
        forecaster.forecast(rows, arguments.horizon, progress=False, **options)
    return {"peak": peak(), "above": peak() - before, "seconds": time.perf_counter() - began}


def apart(
    model: str, arguments: argparse.Namespace, context: int, horizon: int, series: int
) -> dict:
    """The same in a fresh process."""
    given = {"context": context, "horizon": horizon, "series": series}
    given |= {"samples": arguments.samples, "threads": arguments.threads}
    given["batch"] = min(arguments.batch or series, series)
    command = [sys.executable, __file__, "--once", "--models", model]
    command += [part for name, value in given.items() for part in (f"--{name}", str(value))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {"model": model, **given, **json.loads(done.stdout.splitlines()[-1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="lag-llama,cria")
    parser.add_argument("--context", type=int, help="one request in place of several")
    parser.add_argument("--horizon", type=int, default=24)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--batch", type=int, help="series in a call; all of them unless told")
    parser.add_argument("--series", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.once:
        print(json.dumps(once(arguments.models, arguments)))
        return
    requests = REQUESTS
    if arguments.context:
        requests = ((arguments.context, arguments.horizon, arguments.series),)
    found = [
        apart(model, arguments, *request)
        for model in arguments.models.split(",")
        for request in requests
    ]
    lines = [
        "# Memory",
        "",
        f"{arguments.samples} paths, {arguments.threads} thread(s); histories of {HISTORY} steps. The "
        "process' largest resident set, Python, torch and weights among it, and what of it is above that "
        "of a process that has forecast one short series.",
        "",
        "| forecaster | context / horizon | series in a call | peak, MiB | above, MiB | seconds |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one['model']} | {one['context']} / {one['horizon']} | {one['batch']} | {one['peak']:.0f} | "
        f"{one['above']:.0f} | {one['seconds']:.1f} |"
        for one in found
    ]
    publish(lines, arguments.output / "memory.md")
    print(json.dumps({"memory": found}))


if __name__ == "__main__":
    main()
