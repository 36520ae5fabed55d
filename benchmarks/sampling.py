"""How near Lag-Llama's sampling comes to what the machine can do.

    python benchmarks/sampling.py
    python benchmarks/sampling.py --context 512 --horizon 96 --series 8 --batch 4

For each request: seconds a series by native code and by torch alone, turn by turn, and the floor: the
floating-point operations that the paths need, at the rate at which torch multiplies matrices of these
shapes in the same run. A profile tells where the time of native decoding goes. Writes
benchmarks/results/sampling.md and prints its numbers as a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from machine import publish

import llamacast
from llamacast.model.lag_llama import LagLlama
from llamacast.sampling import decoder, engine, native
from llamacast.sampling.streams import uniforms

RESULTS = Path(__file__).parent / "results"
REQUESTS = ((32, 24), (32, 96), (512, 24), (512, 96))
# Seconds a series of the official code as documented and with its cache on, 100 samples, one thread
# of another, busy machine: from the project's notes, not measured here.
OFFICIAL = {
    (32, 24): (9.4, 1.25),
    (32, 96): (63, 3.8),
    (512, 24): (131, 20.6),
    (512, 96): (494, 51),
}

Request = Callable[[], object]


def request(model: LagLlama, arguments: argparse.Namespace, context: int, horizon: int) -> Request:
    """Sampling of a batch of random walks."""
    generator = torch.Generator().manual_seed(0)
    length = model.config.max_lag + context
    values = torch.randn(arguments.batch, length, generator=generator).cumsum(dim=1).double()
    observed = torch.ones_like(values, dtype=torch.bool)
    calendar = torch.rand(arguments.batch, context + horizon, 6, generator=generator) - 0.5
    names = [str(number) for number in range(arguments.batch)]
    draws = uniforms(names, 0, arguments.samples, horizon)
    threads = arguments.threads
    return lambda: engine.sample_paths(
        model, values, observed, calendar, draws, num_threads=threads
    )


@contextmanager
def by_torch() -> Iterator[None]:
    """Decode without native code."""
    known = decoder.native_weights
    decoder.native_weights = lambda transformer: None
    try:
        yield
    finally:
        decoder.native_weights = known


def flops(model: LagLlama, context: int, horizon: int, samples: int) -> tuple[float, float]:
    """Operations of one series' prefill and decode: products with weights, scores, weighted values."""
    config = model.config
    weights = sum(weight.numel() for weight in model.parameters() if weight.dim() == 2)
    attention = 4 * config.num_layers * config.width  # for each key that a token looks at
    prefill = context * (2 * weights + attention * (context + 1) / 2)
    keys = context + horizon / 2  # on average over the horizon - 1 decoded steps
    return prefill, samples * (horizon - 1) * (2 * weights + attention * keys)


def matmul_rate(model: LagLlama, rows: int) -> float:
    """Operations a second of torch's product of `rows` tokens with a SwiGLU's first matrices."""
    config = model.config
    tokens = torch.randn(rows, config.width)
    weight = torch.randn(2 * config.feedforward_width, config.width)
    times = []
    for _ in range(50):
        began = time.perf_counter()
        torch.nn.functional.linear(tokens, weight)
        times.append(time.perf_counter() - began)
    return 2 * weight.numel() * rows / statistics.median(times)


def seconds(run: Request) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def profile(model: LagLlama, run: Request) -> dict[str, float]:
    """Seconds of the parts of one request."""
    parts = {
        "prefill": (engine, "prefill"),
        "tokens": (engine, "make_tokens"),
        "native code and embedding": (native.NativeDecoder, "__call__"),
        "heads": (type(model), "distribution"),
    }
    found = dict.fromkeys(parts, 0.0)
    known = {name: getattr(owner, attribute) for name, (owner, attribute) in parts.items()}

    def timed(name: str) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            began = time.perf_counter()
            try:
                return known[name](*arguments, **options)
            finally:
                found[name] += time.perf_counter() - began

        return call

    for name, (owner, attribute) in parts.items():
        setattr(owner, attribute, timed(name))
    try:
        whole = seconds(run)
    finally:
        for name, (owner, attribute) in parts.items():
            setattr(owner, attribute, known[name])
    found["lags, draws and the rest"] = whole - sum(found.values())
    return {name: spent / whole for name, spent in found.items()}


def measure(model: LagLlama, arguments: argparse.Namespace, context: int, horizon: int) -> dict:
    run = request(model, arguments, context, horizon)
    run()
    rounds: dict[str, list[float]] = {"native": [], "torch": [], "rate": []}
    for _ in range(arguments.rounds):
        calls = max(1, arguments.series // arguments.batch)
        rounds["native"].append(sum(seconds(run) for _ in range(calls)) / calls / arguments.batch)
        with by_torch():
            rounds["torch"].append(seconds(run) / arguments.batch)
        rows = arguments.batch * arguments.samples
        rounds["rate"].append(matmul_rate(model, rows))
    found = {name: statistics.median(values) for name, values in rounds.items()}
    prefill, decode = flops(model, context, horizon, arguments.samples)
    floor = (prefill + decode) / found["rate"] / arguments.threads
    documented, cached = OFFICIAL.get((context, horizon), (None, None))
    return {
        "context": context,
        "horizon": horizon,
        "seconds": found["native"],
        "seconds_by_torch": found["torch"],
        "gflops": (prefill + decode) / 1e9,
        "gflops_a_second_of_matmul": found["rate"] / 1e9,
        "floor_seconds": floor,
        "share_of_floor": floor / found["native"],
        "official_as_documented": documented,
        "official_cached": cached,
        "profile": profile(model, run),
    }


def told(found: list[dict], arguments: argparse.Namespace) -> list[str]:
    lines = [
        "# Sampling of Lag-Llama",
        "",
        f"{arguments.samples} joint paths, float32, {arguments.threads} thread(s), {arguments.batch} "
        f"series in a call; medians of {arguments.rounds} rounds in which native code and torch take "
        "turns. The floor is the operations that the paths need at the rate of torch's own products of "
        "these shapes, measured in the same run; native products are faster than those, so more than "
        "100 % of it is not out of the question. In brackets how many times faster than the official "
        "code as documented and with its cache, by seconds that the project's notes tell of another, "
        "busy machine.",
        "",
        "| context / horizon | seconds a series | torch alone | times | GFLOP | floor, seconds | share of "
        "the floor | official |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        told = ""
        if one["official_cached"]:
            told = (
                f"({one['official_as_documented'] / one['seconds']:.0f}, "
                f"{one['official_cached'] / one['seconds']:.1f})"
            )
        lines.append(
            f"| {one['context']} / {one['horizon']} | {one['seconds']:.3f} | "
            f"{one['seconds_by_torch']:.3f} | {one['seconds_by_torch'] / one['seconds']:.2f} | "
            f"{one['gflops']:.1f} | {one['floor_seconds']:.3f} | {one['share_of_floor']:.0%} | {told} |"
        )
    lines += ["", "Where the time goes, in shares of a request:", ""]
    names = list(found[0]["profile"])
    lines += [
        "| context / horizon | " + " | ".join(names) + " |",
        "|---" * (1 + len(names)) + "|",
    ]
    for one in found:
        shares = " | ".join(f"{one['profile'][name]:.0%}" for name in names)
        lines.append(f"| {one['context']} / {one['horizon']} | {shares} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--context", type=int, help="one request in place of four")
    parser.add_argument("--horizon", type=int, default=24)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--batch", type=int, default=1, help="series in a call")
    parser.add_argument("--series", type=int, default=1, help="series in a round")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    forecaster = llamacast.load("lag-llama", device="cpu")
    model = forecaster.model
    assert isinstance(model, LagLlama)
    requests = [(arguments.context, arguments.horizon)] if arguments.context else REQUESTS
    found = []
    for context, horizon in requests:
        found.append(measure(model, arguments, context, horizon))
        print(f"{context} / {horizon}: {found[-1]['seconds']:.3f} s a series", flush=True)
    publish(told(found, arguments), arguments.output / "sampling.md")
    print(json.dumps({"sampling": found}))


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
