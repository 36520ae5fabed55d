from __future__ import annotations

import numpy as np
import pytest
import scoringrules
import torch

from llamacast.data.corpora import Mixture, read_corpus
from llamacast.model.checkpoint import make_network
from llamacast.model.config import cria, lag_llama
from llamacast.training.objectives import make_objective
from llamacast.training.validation import (
    HeldBack,
    draw_held_back,
    forecast_shape,
    mean_seasonal_error,
    sample_crps,
)
from llamacast.training.windows import CorpusOnDevice


def test_crps_is_scoringrules():
    rng = np.random.default_rng(0)
    samples, actual = rng.normal(size=(4, 24, 7)), rng.normal(size=(4, 7))
    expected = scoringrules.crps_ensemble(actual, np.moveaxis(samples, 1, -1), estimator="nrg")
    found = sample_crps(torch.from_numpy(samples), torch.from_numpy(actual))
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_seasonal_error_counts_what_is_observed():
    values = torch.tensor([[1.0, 2.0, 4.0, 7.0], [1.0, 2.0, 4.0, 7.0]])
    observed = torch.tensor([[True] * 4, [True, True, False, True]])
    assert mean_seasonal_error(values, observed, torch.tensor([1, 2])).tolist() == [2.0, 5.0]
    assert mean_seasonal_error(values, observed, torch.tensor([9, 2]))[0].isnan()


@pytest.mark.parametrize("config", [lag_llama(), cria()])
def test_windows_are_of_what_is_held_back(tmp_path, config):
    import pandas as pd

    pd.DataFrame(
        {
            "item_id": ["a", "b"],
            "start": pd.Timestamp("2020-01-01"),
            "freq": "D",
            "target": [np.arange(300.0) % 7, 1000 + np.arange(300.0) % 5],
        }
    ).to_parquet(tmp_path / "x.parquet")
    corpus = read_corpus(tmp_path)
    on_device = CorpusOnDevice(corpus, torch.device("cpu"))
    begins = np.array([250, 300])  # of the first its tail, of the second nothing
    shape = forecast_shape(config, 24)
    draws = draw_held_back(corpus, Mixture(), begins, shape, seed=0, num_windows=5)
    held_back = HeldBack(corpus, on_device, draws, shape, seed=0)
    assert held_back.windows.values.max() <= 6.0
    network = make_network(config)
    network.initialise(torch.Generator().manual_seed(0))
    objective = make_objective(network)
    score = held_back.crps(objective)
    assert 0.0 < score < 10.0
    assert held_back.crps(objective) == pytest.approx(score, rel=1e-5)
