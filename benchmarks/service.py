"""The service under load on loopback: with and without batching, malformed bodies, a soak.

    python benchmarks/service.py --minutes 10

Starts `llamacast serve` as a process of its own, and asks it from another: series of 512 steps, horizon
48, by so many connections that are never idle. Latency is from the first byte of a request to the last of
its answer.
Writes `results/service.md`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
from machine import publish

RESULTS = Path(__file__).parent / "results"
FORECAST = "/v1/timeseries/forecast"
JSON = {"Content-Type": "application/json"}
CONNECTIONS = (1, 8, 32)
SECONDS = 10
LENGTH, HORIZON = 512, 48


def body(number: int, length: int = LENGTH) -> bytes:
    rng = np.random.default_rng(number)
    values = 50 + 10 * np.sin(np.arange(length) * 2 * np.pi / 24) + rng.normal(0, 2, length)
    asked = {
        "inputs": [
            {
                "name": f"s{number}",
                "series": values.round(3).tolist(),
                "frequency": "h",
                "start_timestamp": "2026-01-01",
            }
        ],
        "options": {"horizon": HORIZON},
    }
    return json.dumps(asked).encode()


class Server:
    """The service as users start it."""

    def __init__(self, *options: str) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port = taken.getsockname()[1]
        command = [sys.executable, "-m", "llamacast", "serve", "--model", "cria"]
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port), *options],
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self.address = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Server:
        for _ in range(600):
            try:
                if httpx.get(self.address + "/health").status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.1)
        httpx.post(
            self.address + FORECAST, content=body(0), timeout=120, headers=JSON
        )  # code is compiled once
        return self

    def __exit__(self, *error: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)

    @property
    def memory(self) -> float:
        """MiB that the process holds."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


async def load(
    address: str, connections: int, seconds: float
) -> tuple[list[float], dict[int, int]]:
    """Latencies and counts of statuses of so many connections that are never idle."""
    bodies = [body(number) for number in range(64)]
    latencies: list[float] = []
    statuses: dict[int, int] = {}
    end = time.perf_counter() + seconds
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)

    async def ask(client: httpx.AsyncClient, number: int) -> None:
        while time.perf_counter() < end:
            begun = time.perf_counter()
            answer = await client.post(FORECAST, content=bodies[number % 64])
            latencies.append(time.perf_counter() - begun)
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
            number += 1

    async with httpx.AsyncClient(
        base_url=address, limits=limits, timeout=120, headers=JSON
    ) as client:
        await asyncio.gather(*(ask(client, 7 * one) for one in range(connections)))
    return latencies, statuses


def damaged(count: int, address: str) -> dict[int, int]:
    """Statuses of bodies that are cut, mangled, deep or huge."""
    rng = random.Random(0)
    good, statuses = body(1, 60), dict[int, int]()
    shapes = [
        b"[" * 200_000,
        b'{"a":' * 50_000,
        b" " * (17 * 2**20),
        b"\xff" * 1000,
        b"NaN",
        b"1e999",
    ]
    with httpx.Client(base_url=address, timeout=60, headers=JSON) as client:
        for number in range(count):
            if number % 100 < len(shapes):
                content = shapes[number % 100]
            else:
                mangled = bytearray(good)
                for _ in range(rng.randint(1, 8)):
                    mangled[rng.randrange(len(mangled))] = rng.randrange(256)
                content = bytes(mangled[: rng.randrange(1, len(mangled) + 1)])
            status = client.post(FORECAST, content=content).status_code
            statuses[status] = statuses.get(status, 0) + 1
    return statuses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10, help="of the soak")
    parser.add_argument("--damaged", type=int, default=3000)
    arguments = parser.parse_args()
    lines = [
        "# The service under load",
        "",
        f"Requests of one series of {LENGTH} steps, horizon {HORIZON}; who asks shares the two cores.",
        "",
        "| batching | connections | requests a second | median, ms | 95 %, ms | 99 %, ms |",
        "|---|---|---|---|---|---|",
    ]
    # One after the other for each number of connections, so that both meet the same machine.
    with Server() as together, Server("--no-batching") as apart:
        for connections in CONNECTIONS:
            for name, server in (("with", together), ("without", apart)):
                latencies, statuses = asyncio.run(load(server.address, connections, SECONDS))
                assert set(statuses) == {200}, statuses
                middle, high, highest = 1000 * np.quantile(latencies, [0.5, 0.95, 0.99])
                lines.append(
                    f"| {name} | {connections} | {len(latencies) / SECONDS:.1f} | {middle:.0f} | "
                    f"{high:.0f} | {highest:.0f} |"
                )
                print(lines[-1], flush=True)
        statuses = damaged(arguments.damaged, together.address)
        lines += ["", f"{arguments.damaged} damaged bodies (cut, mangled, 200,000 levels deep, 17 MiB, NaN): "
                  + ", ".join(f"{count} times {status}" for status, count in sorted(statuses.items()))
                  + "; none in 5xx."]  # fmt: skip
        assert all(status < 500 for status in statuses)
        print(lines[-1], flush=True)
        memory = []
        counts: dict[int, int] = {}
        for _ in range(max(1, round(arguments.minutes * 2))):
            _, found = asyncio.run(load(together.address, 16, 30))
            memory.append(together.memory)
            for status, count in found.items():
                counts[status] = counts.get(status, 0) + count
        third = max(1, len(memory) // 3)
        lines += ["", f"A soak of {arguments.minutes:g} minutes by 16 connections: "
                  + ", ".join(f"{count} answers of {status}" for status, count in sorted(counts.items()))
                  + f"; none was lost. Memory {np.mean(memory[:third]):.0f} MiB in its first third, "
                  f"{np.mean(memory[-third:]):.0f} MiB in its last."]  # fmt: skip
    publish(lines, RESULTS / "service.md")


if __name__ == "__main__":
    main()
