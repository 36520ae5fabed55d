"""Average the weights of networks that were trained on from the same ones, as the packaged Cria is made.

    python recipes/average.py runs/mean runs/cria/model=2 runs/before/model

Shares follow a network after `=`, and are 1 otherwise. Weights are written in half precision. Whether
the mean is better than its parts is for a benchmark to say.
"""

from __future__ import annotations

import argparse
import dataclasses
from functools import reduce
from pathlib import Path

import torch

from llamacast.forecast import TrainingRecord
from llamacast.forecaster import find_checkpoint
from llamacast.model import checkpoint
from llamacast.model.config import CriaConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, help="folder to write")
    parser.add_argument(
        "parts", nargs="+", help="packaged names or folders, each with =SHARE or not"
    )
    parser.add_argument(
        "--num-seasons",
        type=int,
        help="past seasons that the mean averages, in place of the most that a part does (Cria only)",
    )
    arguments = parser.parse_args()
    told = [part.partition("=") for part in arguments.parts]
    folders = [find_checkpoint(folder) for folder, _, _ in told]
    mean = checkpoint.average(
        [checkpoint.load(folder) for folder in folders],
        [float(share or 1) for _, _, share in told],
    )
    if arguments.num_seasons is not None:
        if not isinstance(mean.config, CriaConfig):
            parser.error("--num-seasons: only networks of Cria look back on seasons")
        config = dataclasses.replace(mean.config, num_seasons=arguments.num_seasons)
        mean = checkpoint.widened(mean, config)
    checkpoint.save(mean, arguments.output, torch.float16)
    records = map(checkpoint.load_training, folders)
    checkpoint.save_training(reduce(TrainingRecord.joined, records), arguments.output)
    written = checkpoint.load(arguments.output)
    print(f"wrote {arguments.output}, weights {checkpoint.digest(written)}")


if __name__ == "__main__":
    main()
