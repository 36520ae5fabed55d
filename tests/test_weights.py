"""The weights in the box: there, small, and better than repeating the last season."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import llamacast
from llamacast.data.calendar import parse_frequency, stamps_from
from llamacast.data.corpora import read_corpus
from llamacast.evaluation.baselines import SeasonalNaive
from llamacast.evaluation.metrics import DECILES, mean_weighted_quantile_loss
from tests.conftest import GOLDEN

UNSEEN = GOLDEN.parent / "data" / "real" / "unseen.parquet"
HORIZONS = {"pedestrian_counts": 24, "weather": 30, "beijing_pm25": 24}
NUM_WINDOWS = 3


NAMES = ("cria", "lag-llama")


@pytest.mark.parametrize("name", NAMES)
def test_they_are_half_precision_and_under_the_limit(name):
    weights = llamacast.load(name).model
    folder = UNSEEN.parents[3] / "src" / "llamacast" / "weights"
    assert sum(path.stat().st_size for path in folder.rglob("*.safetensors")) < 25e6
    for part, weight in weights.state_dict().items():
        assert weight.isfinite().all(), part
        assert torch.equal(weight, weight.half().float()), part


@pytest.mark.parametrize("name", NAMES)
def test_their_card_says_what_they_are(name):
    card = (UNSEEN.parents[3] / "src" / "llamacast" / "weights" / name / "README.md").read_text()
    for heading in ("Data", "Recipe", "Compute", "Scores", "Limits"):
        assert f"## {heading}" in card


@pytest.fixture(scope="module", params=NAMES)
def scores(request):
    """CRPS of the packaged weights and of seasonal naive on each unseen set."""
    corpus = read_corpus(UNSEEN)
    found = {}
    for number, dataset in enumerate(corpus.datasets):
        horizon = HORIZONS[dataset]
        first, end = corpus.dataset_bounds[number : number + 2]
        past, actuals = [], []
        for series in range(first, end):
            values = corpus.series(series).astype(float)
            stamps = stamps_from(corpus.starts[series], corpus.frequencies[series], 0, len(values))
            for window in range(NUM_WINDOWS):
                cut = len(values) - horizon * (window + 1)
                name = f"{series:02d}/{window}"
                past.append(
                    pd.DataFrame({"unique_id": name, "ds": stamps[:cut], "y": values[:cut]})
                )
                actuals.append(values[cut : cut + horizon])
        table = pd.concat(past)
        frequency = corpus.frequencies[first].name
        assert parse_frequency(frequency).name == frequency
        ours = llamacast.load(request.param, device="cpu").forecast(
            table, horizon, frequency=frequency
        )
        naive = SeasonalNaive().forecast(table, horizon, frequency=frequency)
        found[dataset] = [
            mean_weighted_quantile_loss(np.stack(actuals), forecast.quantile(DECILES))
            for forecast in (ours, naive)
        ]
    return found


def test_they_forecast_better_than_seasonal_naive(scores):
    ratios = {dataset: ours / naive for dataset, (ours, naive) in scores.items()}
    assert np.exp(np.mean(np.log(list(ratios.values())))) < 0.9, ratios
