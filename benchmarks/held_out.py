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
SETS = "m1,m3,tourism_comp"


def to_frame(corpus: Corpus, rows: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "item_id": [corpus.ids[row] for row in rows],
            "start": corpus.starts[rows],
            "freq": [corpus.frequencies[row].name for row in rows],
            "target": [corpus.series(row) for row in rows],
        }
    )


def held_out(recipe: Path, data: Path | None, sets: str) -> dict[str, tuple[pd.DataFrame, int]]:
    """Series that are held back whole, and of how many, by data set and frequency; of all data sets where
    `sets` names none."""
    plan = read_recipe(recipe)
    corpus = read_corpus(data or plan.data)
    held_back = corpus.train_lengths(plan.training.hold_out) == 0
    units = np.array([frequency.unit for frequency in corpus.frequencies])
    found = {}
    for name in sets.split(",") if sets else corpus.datasets:
        own = corpus.dataset_of == list(corpus.datasets).index(name)
        for unit in np.unique(units[own]):
            rows = np.flatnonzero(own & held_back & (units == unit))
            if len(rows) >= FEWEST_SERIES:
                found[f"{name}_{unit}"] = to_frame(corpus, rows), int(np.sum(own & (units == unit)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("output", type=Path, help="folder to write")
    parser.add_argument("--data", type=Path, help="in place of the recipe's")
    parser.add_argument("--sets", default=SETS, help="data sets, with commas")
    arguments = parser.parse_args()

    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, (frame, num_all) in held_out(
        arguments.recipe, arguments.data, arguments.sets
    ).items():
        path = arguments.output / f"{name}.parquet"
        frame.to_parquet(path)
        print(f"{path}: {len(frame)} of {num_all} series")


if __name__ == "__main__":
    main()
