import dataclasses

import pytest
import torch
from lightning_fabric import Fabric

from llamacast.text.language import Language, load_language, make_decoder
from llamacast.text.pretraining import PretrainConfig, Windows, pretrain
from llamacast.training.loop import LoopConfig

SMALL = PretrainConfig(
    tokens_per_batch=512,
    lengths=(64, 128),
    length_weights=(0.5, 0.5),
    pool=48,
    pool_steps=2,
    loop=LoopConfig(steps=4, save_every=2, log_every=1, warmup_steps=1, average_steps=2),
)


def small():
    return make_decoder(width=16, num_layers=1, num_heads=1, num_key_value_heads=1)


@pytest.fixture(scope="module")
def fabric():
    found = Fabric(accelerator="cpu", devices=1)
    found.launch()
    return found


def test_batches_are_told_by_their_number(decoder):
    one, other = (Windows(SMALL, decoder.writing) for _ in range(2))
    other.at(3)
    for step in (0, 1, 5):
        (first,), (second,) = one.at(step), other.at(step)
        assert torch.equal(first["ids"], second["ids"])
        assert torch.equal(first["columns"], second["columns"])
    assert not torch.equal(one.at(0)[0]["ids"], one.at(1)[0]["ids"])


def test_windows_are_full_of_what_may_be_written(decoder):
    windows = Windows(SMALL, decoder.writing)
    size = decoder.model.config.vocab_size
    for step in range(12):
        (batch,) = windows.at(step)
        assert batch["ids"].shape == batch["columns"].shape
        assert batch["ids"].max() < size
        assert batch["count"] == (batch["columns"] >= 0).sum()
        assert batch["count"] > 0.6 * batch["ids"].numel()


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(fabric, tmp_path):
    pretrain(tmp_path / "whole", SMALL, fabric, small)
    half = dataclasses.replace(SMALL, loop=dataclasses.replace(SMALL.loop, decay_share=0.0))
    pretrain(tmp_path / "straight", half, fabric, small)
    shorter = dataclasses.replace(half, loop=dataclasses.replace(half.loop, steps=2))
    pretrain(tmp_path / "broken", shorter, fabric, small)
    pretrain(tmp_path / "broken", half, fabric, small)
    one, other = (load_language(str(tmp_path / name / "model")) for name in ("straight", "broken"))
    assert one.digest() == other.digest()
    assert isinstance(one, Language)
    assert one.settings.record.datasets == ("synthetic",)


def test_learning_lowers_the_loss(fabric, tmp_path):
    rows = []
    longer = dataclasses.replace(
        SMALL, loop=dataclasses.replace(SMALL.loop, steps=40, log_every=10, learning_rate=1e-2)
    )
    pretrain(tmp_path, longer, fabric, small, report=rows.append)
    losses = [row["loss"] for row in rows]
    assert losses[-1] < losses[0] - 0.3
