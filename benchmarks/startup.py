"""Where the time of `llamacast forecast` on the example goes, from the start of the process.

    python benchmarks/startup.py

Runs what the command line runs, step by step, each round in a fresh process; medians of rounds.
Writes benchmarks/results/startup.md.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import publish

HERE = Path(__file__).parent
EXAMPLE = HERE.parent / "examples" / "data" / "pedestrians.csv"
ROUNDS = 5
STEPS = """
import time; began = time.perf_counter(); told = {}
def step(name):
    global began
    now = time.perf_counter(); told[name] = now - began; began = now
import numpy, pandas; step("import of pandas")
import torch; step("import of torch")
import typer, rich.progress, llamacast.interfaces.cli; step("import of the command line")
import llamacast; llamacast.load; step("import of llamacast, pyarrow and safetensors")
forecaster = llamacast.load(MODEL, device="cpu"); step("load weights")
from llamacast.data.frame import read_panel
panel = read_panel(EXAMPLE); step("read and check the table")
answer = forecaster.forecast(panel, 48, nonnegative=True); step("forecast")
answer.to_frame().to_csv(OUTPUT + ".csv"); step("write the file")
import matplotlib.figure; step("import of matplotlib")
answer.plot(OUTPUT + ".png"); step("plot")
import json; print(json.dumps(told))
"""


def main() -> None:
    found: dict[str, dict[str, list[float]]] = {"cria": {}, "lag-llama": {}}
    with tempfile.TemporaryDirectory() as directory:
        for _ in range(ROUNDS):
            for model, steps in found.items():
                output = str(Path(directory) / "forecast")
                given = f"MODEL, EXAMPLE, OUTPUT = {model!r}, {str(EXAMPLE)!r}, {output!r}\n"
                began = time.perf_counter()
                done = subprocess.run(
                    [sys.executable, "-c", given + STEPS],
                    capture_output=True,
                    text=True,
                    check=True,
                )
                whole = time.perf_counter() - began
                spent = json.loads(done.stdout.splitlines()[-1])
                spent["start and end of Python"] = whole - sum(spent.values())
                for name, seconds in {**spent, "all": whole}.items():
                    steps.setdefault(name, []).append(seconds)
    lines = [
        "# From the start of the process to the picture",
        "",
        f"`{EXAMPLE.name}`, 48 steps, milliseconds, medians of {ROUNDS} fresh processes.",
        "",
        "| step | " + " | ".join(found) + " |",
        "|---" * (1 + len(found)) + "|",
    ]
    for name in found["cria"]:
        cells = [f"{1e3 * statistics.median(steps[name]):.0f}" for steps in found.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    publish(lines, HERE / "results" / "startup.md")


if __name__ == "__main__":
    main()
