"""Write what a recipe holds back as parquet files, one for each data set and frequency, to score on.

    python benchmarks/held_out.py recipes/lag_llama.toml runs/held-out
    python benchmarks/accuracy.py runs/held-out --windows 1 --name held_out

Only series that are held back whole are written, so nothing of them has been trained on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from llamacast.data.corpora import Corpus, read_corpus
from llamacast.training.recipe import read_recipe

FEWEST_SERIES = 5


def to_frame(corpus: Corpus, rows: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "item_id": [corpus.ids[row] for row in rows],
            "start": corpus.starts[rows],
            "freq": [corpus.frequencies[row].name for row in rows],
            "target": [corpus.series(row) for row in rows],
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("output", type=Path, help="folder to write")
    parser.add_argument("--data", type=Path, help="in place of the recipe's")
    parser.add_argument("--sets", default="m1,m3,tourism_comp", help="data sets, with commas")
    arguments = parser.parse_args()

    recipe = read_recipe(arguments.recipe)
    corpus = read_corpus(arguments.data or recipe.data)
    held_back = corpus.train_lengths(recipe.training.hold_out) == 0
    units = np.array([frequency.unit for frequency in corpus.frequencies])
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name in arguments.sets.split(","):
        own = corpus.dataset_of == list(corpus.datasets).index(name)
        for unit in np.unique(units[own]):
            rows = np.flatnonzero(own & held_back & (units == unit))
            if len(rows) < FEWEST_SERIES:
                continue
            path = arguments.output / f"{name}_{unit}.parquet"
            to_frame(corpus, rows).to_parquet(path)
            print(f"{path}: {len(rows)} of {np.count_nonzero(own & (units == unit))} series")


if __name__ == "__main__":
    main()
