"""What helps pretraining: short runs that differ from one plain run in one thing each.

    python benchmarks/ablations.py ../shared/data/pretrain_small.parquet --steps 300

All runs see the same number of tokens of the same windows, wherever the difference allows it, and are
scored alike on what is held back (CRPS of 24 steps ahead, in mean errors of seasonal naive). Finished
runs are kept under runs/ablations. Two runs go side by side, one thread each. Writes
benchmarks/results/ablations.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import torch

from llamacast.data.corpora import Corpus, HoldOut, Mixture, paper_mixture, read_corpus
from llamacast.model import checkpoint
from llamacast.model.config import lag_llama, paper_lag_llama
from llamacast.model.lag_llama import LagLlama
from llamacast.training.augment import AugmentConfig, published
from llamacast.training.config import PretrainConfig, SyntheticConfig, WindowConfig
from llamacast.training.loop import LoopConfig
from llamacast.training.objectives import make_objective
from llamacast.training.pretrain import pretrain
from llamacast.training.validation import HeldBack
from llamacast.training.windows import CorpusOnDevice

RESULTS = Path(__file__).parent / "results"
RUNS = Path("runs") / "ablations"
NOTHING = AugmentConfig(
    **dict.fromkeys(
        (
            "freq_mask",
            "freq_mix",
            "mixup",
            "jitter",
            "scale_magnitude",
            "flip_sign",
            "flip_time",
            "downsample",
            "censor",
            "drop_stretches",
        ),
        0.0,
    )
)
NUM_WINDOWS = 200
SCORES = "scores.json"


def plain(steps: int) -> PretrainConfig:
    return PretrainConfig(
        hold_out=HoldOut(shares={"m1": 0.1, "m3": 0.1, "tourism_comp": 0.1}),
        augment=NOTHING,
        windows=WindowConfig(tokens_per_batch=2048),
        loop=LoopConfig(
            steps=steps,
            learning_rate=3e-3,
            warmup_steps=50,
            average_steps=50,
            validate_every=10**6,
            save_every=10**6,
        ),
    )


def variants(steps: int) -> dict[str, tuple[str, PretrainConfig]]:
    base = plain(steps)

    def loop(**changes):
        return replace(base, loop=replace(base.loop, **changes))

    def windows(**changes):
        return replace(base, windows=replace(base.windows, **changes))

    halved = loop(steps=steps // 2)
    return {
        "plain": ("Muon at 3e-3, our inputs, no synthetic series, no augmentation", base),
        "again": ("the same with another seed: what chance does", replace(base, seed=1)),
        "paper-inputs": ("the paper's 84 lags, no flags", replace(base, model=paper_lag_llama())),
        "no-flags": (
            "our lags, no flags",
            replace(base, model=replace(lag_llama(), lag_flags=False)),
        ),
        "adamw": ("AdamW at 3e-3", loop(optimiser="adamw")),
        "adamw-low": (
            "AdamW at 1.5e-3, as the first weights",
            loop(optimiser="adamw", learning_rate=1.5e-3),
        ),
        "muon-low": ("Muon at 1.5e-3", loop(learning_rate=1.5e-3)),
        "muon-high": ("Muon at 6e-3", loop(learning_rate=6e-3)),
        "large-batch": (
            "batches twice as large, half as many",
            replace(halved, windows=replace(base.windows, tokens_per_batch=4096)),
        ),
        "synthetic": ("15 % synthetic series", replace(base, synthetic=SyntheticConfig(0.15))),
        "synthetic-40": ("40 % synthetic series", replace(base, synthetic=SyntheticConfig(0.4))),
        "augment": (
            "all augmentations, as often as by default",
            replace(base, augment=AugmentConfig()),
        ),
        "augment-paper": (
            "Freq-Mask and Freq-Mix of half of all batches each",
            replace(base, augment=published()),
        ),
        "paper-mixture": (
            "every series drawn as often",
            replace(base, mixture=paper_mixture()),
        ),
        "short": (
            "windows of 64 and 128 only",
            windows(lengths=(64, 128), length_weights=(0.5, 0.5)),
        ),
        "noise": ("ten times less noise on targets", windows(target_noise=0.001)),
    }


def train(name: str, data: Path, steps: int) -> None:
    """One run and its scores, in a process of its own."""
    torch.set_num_threads(1)
    corpus = read_corpus(data)
    folder = RUNS / f"{name}-{steps}"
    progress = pretrain(corpus, folder, variants(steps)[name][1])
    scores = score(checkpoint.load(folder / "model"), corpus, plain(steps))
    scores.append(progress.seconds / 60)
    (folder / SCORES).write_text(json.dumps(scores))


def score(model: LagLlama, corpus: Corpus, base: PretrainConfig) -> list[float]:
    """CRPS on what is held back: of all windows, of those up to hourly, of weeks and longer steps."""
    kept = corpus.train_lengths(base.hold_out)
    on_device = CorpusOnDevice(corpus, torch.device("cpu"))
    units = np.array([frequency.unit for frequency in corpus.frequencies])
    parts = (units != "", np.isin(units, ["s", "min", "h"]), np.isin(units, ["W", "M", "Q", "Y"]))
    return [
        HeldBack(
            corpus,
            on_device,
            Mixture(),
            np.where(part, kept, corpus.lengths),
            lag_llama(),
            0,
            NUM_WINDOWS,
        ).crps(make_objective(model))
        for part in parts
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--only", default="", help="these runs, with commas")
    parser.add_argument("--train", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        train(arguments.train, arguments.data, arguments.steps)
    else:
        compare(arguments.data, arguments.steps, arguments.only)


def compare(data: Path, steps: int, only: str) -> None:
    began = time.time()
    table = variants(steps)
    names = only.split(",") if only else list(table)

    def start(name: str) -> None:
        if (RUNS / f"{name}-{steps}" / SCORES).exists():
            return
        command = [sys.executable, __file__, str(data), "--steps", str(steps)]
        subprocess.run([*command, "--train", name], check=True)
        print(f"{name} done after {(time.time() - began) / 60:.1f} minutes", flush=True)

    with ThreadPool(os.cpu_count()) as pool:
        list(pool.imap_unordered(start, names))
    found = {name: json.loads((RUNS / f"{name}-{steps}" / SCORES).read_text()) for name in names}
    write(table, found, steps)


def write(table, found, steps: int) -> None:
    first = found[next(iter(found))]
    lines = [
        f"| {name} | {table[name][0]} | "
        + " | ".join(
            f"{score:.3f} ({score / of:.3f})"
            for score, of in zip(told[:-1], first[:-1], strict=True)
        )
        + f" | {told[-1]:.1f} |"
        for name, told in found.items()
    ]
    command = shlex.join(["python", *sys.argv])
    (RESULTS / "ablations.md").write_text(
        f"# What helps pretraining\n\nRuns of {steps} steps of 2,048 tokens, alike but for what is named. "
        "CRPS of 24 steps ahead on what is held back, in mean errors of seasonal naive in the history "
        f"({NUM_WINDOWS} windows each), and in brackets its ratio to the first run's.\n\n"
        "| run | what it is | all | seconds to hours | weeks to years | minutes |\n"
        "|---|---|---|---|---|---|\n"
        + "\n".join(lines)
        + f"\n\n`{command}`, {datetime.date.today()}, {platform.machine()} with {os.cpu_count()} shared "
        "cores, one thread for each run; minutes tell what else went on there, too.\n"
    )


if __name__ == "__main__":
    main()
