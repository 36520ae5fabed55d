from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from llamacast.data.corpora import read_corpus
from llamacast.forecast import TrainingRecord
from llamacast.model import checkpoint
from llamacast.model.config import lag_llama
from llamacast.training.loop import LoopConfig
from llamacast.training.pretrain import NextValue, PretrainConfig, make_batch, plot_losses, pretrain

SMALL = dataclasses.replace(
    lag_llama(), num_layers=1, num_heads=2, head_width=8, feedforward_width=32
)
BATCHES = PretrainConfig(
    tokens_per_batch=256, lengths=(16, 32), length_weights=(1.0, 1.0), num_validation_batches=1
)


@pytest.fixture
def corpus(tmp_path):
    rng = np.random.default_rng(0)
    wave = np.sin(np.arange(400) * 2 * np.pi / 24)
    frame = pd.DataFrame(
        {
            "item_id": [str(n) for n in range(40)],
            "start": pd.Timestamp("2020-01-01"),
            "freq": "h",
            "target": [(wave + rng.normal(0, 0.1, 400)).astype(np.float32) for _ in range(40)],
        }
    )
    frame.to_parquet(tmp_path / "waves.parquet")
    return read_corpus(tmp_path / "waves.parquet")


def test_a_batch_is_named_by_its_key(corpus):
    one, two = (make_batch(corpus, SMALL, BATCHES, (0, 3)) for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = make_batch(corpus, SMALL, BATCHES, (0, 4))
    assert other["values"].shape != one["values"].shape or not torch.equal(
        other["values"], one["values"]
    )


def test_a_batch_fits_the_network(corpus):
    batch = make_batch(corpus, SMALL, BATCHES, (0, 0))
    num_tokens = batch["calendar"].shape[1] - 1
    assert batch["values"].shape[1] == SMALL.max_lag + num_tokens + 1
    assert batch["values"].shape[0] * num_tokens == 256
    assert 1 <= batch["values"].shape[1] - int(batch["history_length"]) <= num_tokens // 2


def test_pretraining_lowers_the_loss_and_leaves_a_loadable_model(corpus, tmp_path):
    rows = []
    loop = LoopConfig(steps=60, learning_rate=3e-3, log_every=10, save_every=30)
    progress = pretrain(corpus, tmp_path / "run", loop, BATCHES, SMALL, report=rows.append)
    assert progress.step == 60
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.2
    loaded = checkpoint.load(tmp_path / "run" / "model")
    assert loaded.config == SMALL
    with torch.no_grad():
        held_out = make_batch(corpus, SMALL, BATCHES, (0, 0, 2**31), held_out=True)
        assert NextValue(loaded)(held_out) == pytest.approx(rows[-1]["validation_loss"], abs=1e-3)
    plot_losses(tmp_path / "run")
    assert (tmp_path / "run" / "loss.png").stat().st_size > 5000


def test_missing_steps_do_not_count(corpus):
    """The loss of a window is the same whatever stands where nothing was observed."""
    batch = make_batch(corpus, SMALL, BATCHES, (0, 1))
    network = NextValue(checkpoint.LagLlama(SMALL)).eval()
    batch["observed"] = batch["observed"] & (torch.rand(batch["observed"].shape) > 0.2)
    poisoned = dict(batch, values=batch["values"].masked_fill(~batch["observed"], 1e6))
    with torch.no_grad():
        assert network(batch) == network(poisoned)


def test_a_run_may_start_from_weights_that_are_there(corpus, tmp_path):
    loop = LoopConfig(steps=30, learning_rate=3e-3, save_every=30)
    pretrain(corpus, tmp_path / "first", loop, BATCHES, SMALL)
    first = tmp_path / "first" / "model"
    checkpoint.save_training(TrainingRecord(("older",)), first)
    still = LoopConfig(steps=1, learning_rate=1e-12, save_every=1)
    pretrain(corpus, tmp_path / "second", still, BATCHES, start_from=first)
    second = tmp_path / "second" / "model"
    for name, weight in checkpoint.load(first).state_dict().items():
        torch.testing.assert_close(checkpoint.load(second).state_dict()[name], weight)
    # What the first had seen, the second has seen too.
    assert checkpoint.load_training(second).datasets == ("older", "waves")
