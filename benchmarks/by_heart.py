"""Whether a corpus was learnt by heart: are series that were trained on forecast better than others?

    python benchmarks/by_heart.py recipes/cria.toml

Windows of series that the recipe holds back are set beside windows of the same data sets' series that it
trains on whole: CRPS over the mean error of seasonal naive in each window's history, as a run validates.
Writes by_heart.md to benchmarks/results.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from machine import publish

import llamacast
from llamacast.data.corpora import Corpus, Mixture, read_corpus
from llamacast.data.windows import Draws, WindowShape, draw_windows
from llamacast.evaluation.report import markdown
from llamacast.training.objectives import make_objective
from llamacast.training.recipe import read_recipe
from llamacast.training.validation import (
    HORIZON,
    HeldBack,
    draw_held_back,
    forecast_shape,
    num_origins,
)
from llamacast.training.windows import CorpusOnDevice

RESULTS = Path(__file__).parent / "results"
FEWEST = 16
"""Windows of a data set, of either kind, without which nothing is said of it."""


def draw_trained(
    corpus: Corpus, mixture: Mixture, lengths: np.ndarray, shape: WindowShape, count: int
) -> Draws:
    """Windows anywhere in the series that are trained on whole."""
    begins = np.zeros_like(lengths)
    ends = np.where(lengths == corpus.lengths, num_origins(corpus, begins), 0)
    chances = corpus.probabilities(mixture, ends, 1)
    rng = np.random.default_rng(1)
    return draw_windows(rng, chances, begins, ends, count, shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--model", default="cria", help="a packaged model, or the folder of one")
    parser.add_argument("--windows", type=int, default=3000, help="of either kind")
    asked = parser.parse_args()
    recipe = read_recipe(asked.recipe)
    assert recipe.data is not None, "the recipe names its data"
    config, corpus = recipe.training, read_corpus(recipe.data, recipe.without)
    objective = make_objective(llamacast.load(asked.model, device="cpu").model)
    shape = forecast_shape(objective.network.config, HORIZON)
    lengths = corpus.train_lengths(config.hold_out)
    draws = {
        "held back": draw_held_back(corpus, config.mixture, lengths, shape, 0, asked.windows),
        "trained on": draw_trained(corpus, config.mixture, lengths, shape, asked.windows),
    }
    on_device = CorpusOnDevice(corpus, torch.device("cpu"))
    rows = []
    for kind, drawn in draws.items():
        with torch.no_grad():
            scores = HeldBack(corpus, on_device, drawn, shape, 0).scores(objective).log()
        names = np.asarray(corpus.datasets)[corpus.dataset_of[drawn.series]]
        rows.append(pd.DataFrame({"set": names, "kind": kind, "score": scores.numpy()}))
    scores = pd.concat(rows).dropna().groupby(["set", "kind"])["score"]
    found = scores.agg(["mean", "var", "count"]).unstack()
    found = found[(found["count"] >= FEWEST).all(axis=1)]
    means = found["mean"]
    gap = means["held back"] - means["trained on"]
    variance = (found["var"] / found["count"]).sum(axis=1)
    weight = 1 / variance
    overall, luck = (gap * weight).sum() / weight.sum(), weight.sum() ** -0.5
    table = pd.DataFrame(
        {
            "held back": np.exp(means["held back"]).map("{:.3f}".format),
            "trained on": np.exp(means["trained on"]).map("{:.3f}".format),
            "more, %": (100 * gap).map("{:.0f}".format),
            "luck, %": (100 * np.sqrt(variance)).map("{:.0f}".format),
        }
    )
    publish(
        [
            "# By heart?\n",
            f"Series that were held back have {100 * overall:+.1f} % more error than series that were",
            f"trained on (standard error {100 * luck:.1f} %), over {len(table)} data sets with {FEWEST}",
            "windows or more of either kind. Geometric means of CRPS over the mean error of seasonal",
            "naive in each window's history; luck is the standard error of the difference.\n",
            markdown(table),
        ],
        RESULTS / "by_heart.md",
    )


if __name__ == "__main__":
    main()
