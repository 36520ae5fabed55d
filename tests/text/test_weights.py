"""The packaged decoder: small, half precision, and of use on systems that it never saw."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import llamacast
from llamacast.data.synthetic.coupled import FAMILIES, _sound
from llamacast.evaluation.metrics import interval_coverage

FOLDER = Path(str(files("llamacast") / "weights" / "digits"))
KNOWN, HORIZON = 80, 12


@pytest.fixture(scope="module")
def digits():
    return llamacast.load_text()


def test_it_is_small_and_in_half_precision(digits):
    model = digits.language.model
    assert sum(one.numel() for one in model.parameters()) < 2_000_000
    assert (FOLDER / "model.safetensors").stat().st_size < 4e6
    for name, weight in model.state_dict().items():
        assert weight.isfinite().all(), name
        assert torch.equal(weight, weight.half().float()), name
    assert digits.training.datasets == ("synthetic",)


def test_its_card_says_what_it_is():
    card = (FOLDER / "README.md").read_text()
    for heading in ("Data", "Recipe", "Compute", "Scores", "Limits"):
        assert f"## {heading}" in card


def test_predators_and_prey_are_forecast_better_than_by_repeating_the_last(digits):
    systems = _sound(np.random.default_rng(2026), FAMILIES[0][1], 8, KNOWN + HORIZON, 2)
    table = pd.concat(
        [
            pd.DataFrame(
                {
                    "unique_id": f"{number}/{channel}",
                    "ds": np.arange(KNOWN),
                    "y": system[:KNOWN, channel],
                    "system": number,
                }
            )
            for number, system in enumerate(systems)
            for channel in range(2)
        ]
    )
    found = digits.forecast(table, HORIZON, group_column="system")
    actuals = np.concatenate([system[KNOWN:].T for system in systems])
    last = np.concatenate([system[KNOWN - 1] for system in systems])[:, None]
    size = np.abs(actuals).mean(axis=1, keepdims=True)
    error = np.abs(found.median - actuals) / size
    naive = np.abs(last - actuals) / size
    assert error.mean() < 0.4 * naive.mean()
    low, high = found.interval(80)
    assert 0.6 < interval_coverage(actuals, low, high) <= 1.0
