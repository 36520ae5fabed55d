"""What helps pretraining: short runs that differ from one plain run in one thing each.

    python benchmarks/ablations.py ../shared/data/pretrain_small.parquet --steps 300
    python benchmarks/ablations.py ../shared/data/pretrain_small.parquet --network cria \
        --steps 160 --gift ../shared/data/gift

All runs see the same number of tokens of the same windows, wherever the difference allows it, and are
scored alike on what is held back (CRPS of 24 steps ahead, in mean errors of seasonal naive). Finished
runs are kept under runs/ablations. Two runs go side by side, one thread each. With `--gift`, on the
configurations of GIFT-Eval in that folder, too. Writes benchmarks/results/ablations.md (Lag-Llama's)
or ablations_cria.md.
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

import llamacast
from llamacast.data.corpora import Corpus, HoldOut, Mixture, paper_mixture, read_corpus
from llamacast.evaluation.gift_eval import Contender, run
from llamacast.evaluation.gift_report import overall, summarise
from llamacast.model import checkpoint
from llamacast.model.config import cria, lag_llama, paper_lag_llama
from llamacast.training.augment import AugmentConfig, published
from llamacast.training.config import PretrainConfig, SyntheticConfig, WindowConfig
from llamacast.training.loop import LoopConfig
from llamacast.training.objectives import make_objective
from llamacast.training.pretrain import pretrain
from llamacast.training.recipe import read_recipe
from llamacast.training.validation import HeldBack
from llamacast.training.windows import CorpusOnDevice

RESULTS = Path(__file__).parent / "results"
RECIPES = Path(__file__).parents[1] / "recipes"
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
NUM_WINDOWS = 400
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


def variants(network: str, steps: int) -> dict[str, tuple[str, PretrainConfig]]:
    return cria_variants(steps) if network == "cria" else lag_llama_variants(steps)


def plain_cria(steps: int) -> PretrainConfig:
    recipe = read_recipe(RECIPES / "cria.toml").training
    loop = replace(
        recipe.loop,
        steps=steps,
        warmup_steps=40,
        average_steps=40,
        validate_every=10**6,
        save_every=10**6,
    )
    return replace(recipe, loop=loop, synthetic=replace(recipe.synthetic, num_series=2000))


def cria_variants(steps: int) -> dict[str, tuple[str, PretrainConfig]]:
    base = plain_cria(steps)

    def model(**changes):
        return replace(base, model=replace(base.model, **changes))

    def loop(**changes):
        return replace(base, loop=replace(base.loop, **changes))

    def windows(**changes):
        return replace(base, windows=replace(base.windows, **changes))

    def patches(length):
        """Other patches, as many steps in a window."""
        factor = cria().patch_length / length
        lengths = tuple(max(2, round(one * factor)) for one in base.windows.lengths)
        changed = model(patch_length=length, max_context_length=lengths[-1])
        return replace(changed, windows=replace(base.windows, lengths=lengths))

    def for_as_long(factor, **changes):
        """A smaller network, for as many more steps as take the same time."""
        longer = plain_cria(round(steps * factor))
        return replace(longer, model=replace(base.model, **changes))

    smaller = {"num_layers": 4, "num_heads": 4, "feedforward_width": 352, "projection_width": 256}
    return {
        "plain": ("the recipe: 3.3 M parameters, patches of 16, three periods", base),
        "again": ("the same with another seed: what chance does", replace(base, seed=9)),
        "one-period": ("one period in place of three", model(num_periods=1)),
        "no-means": ("no mean of past seasons", model(num_seasons=1)),
        "small": ("1.0 M parameters, 2.2 times the steps", for_as_long(2.2, **smaller)),
        "patches-8": ("patches of 8: twice the tokens for a step", patches(8)),
        "patches-32": ("patches of 32", patches(32)),
        "frames-8": ("scale forgets half in 8 patches, not 32", model(frame_patches=8)),
        "frames-256": ("scale forgets half in 256 patches", model(frame_patches=256)),
        "muon-high": ("learning rate 6e-3", loop(learning_rate=6e-3)),
        "muon-low": ("learning rate 1.5e-3", loop(learning_rate=1.5e-3)),
        "adamw": ("AdamW", loop(optimiser="adamw")),
        "large-batch": (
            "batches twice as large, half as many",
            replace(plain_cria(steps // 2), windows=replace(base.windows, tokens_per_batch=8192)),
        ),
        "synthetic-40": (
            "40 % synthetic series",
            replace(base, synthetic=replace(base.synthetic, share=0.4)),
        ),
        "no-synthetic": (
            "no synthetic series",
            replace(base, synthetic=replace(base.synthetic, share=0.0)),
        ),
        "no-augment": ("no augmentation", replace(base, augment=NOTHING)),
        "masked-ends": (
            "ends of 90 % of windows are masked, nothing within",
            windows(masked_end_share=0.9, masked_within_share=0.0),
        ),
        "masked-less": (
            "half as much is masked",
            windows(masked_end_share=0.25, masked_within_share=0.2),
        ),
        "nine-deciles": (
            "nine deciles in place of 21 quantiles",
            model(levels=tuple(step / 10 for step in range(1, 10))),
        ),
    }


def lag_llama_variants(steps: int) -> dict[str, tuple[str, PretrainConfig]]:
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


def train(name: str, arguments: argparse.Namespace) -> None:
    """One run and its scores, in a process of its own."""
    torch.set_num_threads(1)
    corpus = read_corpus(arguments.data)
    folder = run_folder(name, arguments)
    plan = variants(arguments.network, arguments.steps)[name][1]
    progress = pretrain(corpus, folder, plan)
    scores = score(checkpoint.load(folder / "model"), corpus, plan)
    if arguments.gift is not None:
        scores |= gift(folder, arguments.gift)
    scores["minutes"] = progress.seconds / 60
    (folder / SCORES).write_text(json.dumps(scores))


def run_folder(name: str, arguments: argparse.Namespace) -> Path:
    return RUNS / arguments.network / f"{name}-{arguments.steps}"


def score(model: checkpoint.Network, corpus: Corpus, plan: PretrainConfig) -> dict[str, float]:
    """CRPS on what is held back, by how long the steps are."""
    kept = corpus.train_lengths(plan.hold_out)
    on_device = CorpusOnDevice(corpus, torch.device("cpu"))
    units = np.array([frequency.unit for frequency in corpus.frequencies])
    parts = {
        "seconds to hours": ("s", "min", "h"),
        "days": ("D", "B"),
        "weeks to years": ("W", "M", "Q", "Y"),
    }
    return {
        name: HeldBack(
            corpus,
            on_device,
            Mixture(),
            np.where(np.isin(units, part), kept, corpus.lengths),
            model.config,
            0,
            NUM_WINDOWS,
        ).crps(make_objective(model))
        for name, part in parts.items()
    }


def gift(folder: Path, data: Path) -> dict[str, float]:
    """CRPS and MASE of seasonal naive, over the configurations at hand."""
    forecaster = llamacast.load(folder / "model", device="cpu")
    contenders = [
        Contender("seasonal-naive", lambda season: llamacast.baseline("seasonal-naive", season)),
        Contender("ours", lambda season: forecaster, repr(forecaster)),
    ]
    table = overall(summarise(run(data, contenders, folder / "gift")))
    row = table[table["model"] == "ours"].iloc[0]
    return {"GIFT-Eval CRPS": float(row["CRPS"]), "GIFT-Eval MASE": float(row["MASE"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--network", choices=["lag-llama", "cria"], default="lag-llama")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--gift", type=Path, help="folder of GIFT-Eval configurations")
    parser.add_argument("--only", default="", help="these runs, with commas")
    parser.add_argument("--train", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        train(arguments.train, arguments)
    else:
        compare(arguments)


def compare(arguments: argparse.Namespace) -> None:
    began = time.time()
    table = variants(arguments.network, arguments.steps)
    names = arguments.only.split(",") if arguments.only else list(table)

    def start(name: str) -> None:
        if (run_folder(name, arguments) / SCORES).exists():
            return
        subprocess.run([sys.executable, *sys.argv, "--train", name], check=True)
        print(f"{name} done after {(time.time() - began) / 60:.1f} minutes", flush=True)

    with ThreadPool(os.cpu_count()) as pool:
        list(pool.imap_unordered(start, names))
    found = {name: json.loads((run_folder(name, arguments) / SCORES).read_text()) for name in names}
    write(table, found, arguments)


def write(table, found, arguments: argparse.Namespace) -> None:
    first = found[next(iter(found))]
    columns = [name for name in first if name != "minutes"]
    lines = [
        f"| run | what it is | {' | '.join(columns)} | minutes |",
        "|---" * (len(columns) + 3) + "|",
    ]
    for name, scores in found.items():
        told = " | ".join(
            f"{scores[column]:.3f} ({scores[column] / first[column]:.3f})" for column in columns
        )
        lines.append(f"| {name} | {table[name][0]} | {told} | {scores['minutes']:.1f} |")
    plan = table[next(iter(found))][1]
    command = shlex.join(["python", *sys.argv])
    suffix = "" if arguments.network == "lag-llama" else f"_{arguments.network}"
    (RESULTS / f"ablations{suffix}.md").write_text(
        f"# What helps pretraining {arguments.network}\n\nRuns of {arguments.steps} steps of "
        f"{plan.windows.tokens_per_batch:,} tokens, alike but for what is named. CRPS of 24 steps ahead "
        "on what is held back, in mean errors of seasonal naive in the history "
        f"({NUM_WINDOWS} windows each); scores on GIFT-Eval are relative to seasonal naive. In brackets "
        "the ratio to the first run's.\n\n"
        + "\n".join(lines)
        + f"\n\n`{command}`, {datetime.date.today()}, {platform.machine()} with {os.cpu_count()} shared "
        "cores, one thread for each run; minutes tell what else went on there, too.\n"
    )


if __name__ == "__main__":
    main()
