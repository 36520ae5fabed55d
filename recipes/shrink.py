"""Shrink a network's weights and mix drawn ones in: what to begin with where more steps no longer help.

    python recipes/shrink.py runs/shrunk cria --share 0.6
    llamacast pretrain recipes/cria.toml --output runs/cria --start-from runs/shrunk   # some hundred steps
    python recipes/average.py runs/mean runs/cria/model cria

A network that is trained on from where it is stays near there. Shrunk and perturbed (Ash and Adams, 2020,
arXiv 1910.08475) it is soon about as good again, in other ways; its mean with what it came from was better
than either once, and three times not. `benchmarks/boards.py` says whether it is.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from llamacast.forecaster import find_checkpoint
from llamacast.model import checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, help="folder to write")
    parser.add_argument("network", help="a packaged model, or the folder of one")
    parser.add_argument("--share", type=float, default=0.6, help="of its matrices that stays")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    source = find_checkpoint(arguments.network)
    drawn = torch.Generator().manual_seed(arguments.seed)
    found = checkpoint.shrunk(checkpoint.load(source), arguments.share, drawn)
    checkpoint.save(found, arguments.output)
    checkpoint.save_training(checkpoint.load_training(source), arguments.output)
    print(f"wrote {arguments.output}, weights {checkpoint.digest(found)}")


if __name__ == "__main__":
    main()
