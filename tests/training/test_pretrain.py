from __future__ import annotations

import csv
import dataclasses
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from llamacast.data.calendar import parse_frequency
from llamacast.data.corpora import DataSet, HoldOut, Mixture, join
from llamacast.forecast import CheckpointError, DataError, TrainingRecord
from llamacast.model import checkpoint
from llamacast.training import pretrain as module
from llamacast.training.batches import Batches, take
from llamacast.training.loop import LoopConfig
from llamacast.training.objectives import NextValue, make_objective
from llamacast.training.pretrain import plot_losses, pretrain
from tests.training.small_run import CPU, SMALL, SMALL_CRIA, config


def test_pretraining_lowers_the_loss_and_leaves_a_loadable_model(corpus, tmp_path):
    rows = []
    plan = config(60)
    plan = dataclasses.replace(plan, loop=dataclasses.replace(plan.loop, validate_every=30))
    progress = pretrain(corpus, tmp_path / "run", plan, report=rows.append)
    assert progress.step == 60
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.2
    scores = [row["validation_crps"] for row in rows if "validation_crps" in row]
    assert len(scores) == 2
    assert scores[1] < scores[0]
    assert rows[-1]["tokens_per_second"] > 0
    assert rows[-1]["minutes_left"] == 0
    loaded = checkpoint.load(tmp_path / "run" / "model")
    assert loaded.config == SMALL
    plot_losses(tmp_path / "run")
    assert (tmp_path / "run" / "loss.png").stat().st_size > 5000


def test_pretraining_lowers_the_loss_of_patches(corpus, tmp_path):
    rows = []
    plan = config(60, model=SMALL_CRIA)
    plan = dataclasses.replace(plan, loop=dataclasses.replace(plan.loop, validate_every=30))
    pretrain(corpus, tmp_path / "run", plan, report=rows.append)
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    scores = [row["validation_crps"] for row in rows if "validation_crps" in row]
    assert scores[1] < scores[0]
    assert checkpoint.load(tmp_path / "run" / "model").config == SMALL_CRIA


def test_a_run_of_patches_goes_on_as_if_unbroken(corpus, tmp_path):
    plan = config(40, model=SMALL_CRIA)
    pretrain(corpus, tmp_path / "whole", plan)
    pretrain(corpus, tmp_path / "broken", plan, minutes=0.0)
    pretrain(corpus, tmp_path / "broken", plan)
    one, two = (checkpoint.load(tmp_path / name / "model") for name in ("whole", "broken"))
    for name, weight in one.state_dict().items():
        assert torch.equal(two.state_dict()[name], weight), name


def test_the_loss_of_a_batch_of_patches_is_the_sum_over_its_windows(corpus):
    plan = config(model=SMALL_CRIA)
    batch = Batches(corpus, plan, CPU).at(1)
    network = make_objective(checkpoint.make_network(SMALL_CRIA)).eval()
    with torch.no_grad():
        alone = [network(take(batch, torch.tensor([n]))) for n in range(len(batch["values"]))]
        torch.testing.assert_close(torch.stack(alone).sum(), network(batch), rtol=1e-4, atol=1e-3)


def test_missing_steps_do_not_count(corpus):
    """The loss of a window is the same whatever stands where nothing was observed."""
    batch = Batches(corpus, config(), CPU).at(1)
    network = NextValue(checkpoint.LagLlama(SMALL)).eval()
    gone = torch.rand(batch["observed"].shape) < 0.2
    batch["observed"] = batch["observed"] & ~gone
    batch["counts"] = batch["counts"] & batch["observed"][:, -batch["counts"].shape[1] :]
    poisoned = dict(batch, values=batch["values"].masked_fill(~batch["observed"], 1e6))
    with torch.no_grad():
        assert network(batch) == network(poisoned)


def test_the_loss_of_a_batch_is_the_sum_over_its_windows(corpus):
    batch = Batches(corpus, config(), CPU).at(1)
    network = NextValue(checkpoint.LagLlama(SMALL)).eval()
    with torch.no_grad():
        alone = [network(take(batch, torch.tensor([n]))) for n in range(len(batch["values"]))]
        torch.testing.assert_close(torch.stack(alone).sum(), network(batch), rtol=1e-4, atol=1e-3)


def test_a_run_may_start_from_weights_that_are_there(corpus, tmp_path):
    pretrain(corpus, tmp_path / "first", config(30))
    first = tmp_path / "first" / "model"
    older = TrainingRecord(("older",), "2024-01-01", {"older": "CC-BY"})
    checkpoint.save_training(older, first)
    still = config(1)
    still = dataclasses.replace(still, loop=LoopConfig(steps=1, learning_rate=1e-12))
    notes = {"waves": "CC0", "elsewhere": "MIT"}
    pretrain(corpus, tmp_path / "second", still, start_from=first, licences=notes)
    second = tmp_path / "second" / "model"
    for name, weight in checkpoint.load(first).state_dict().items():
        torch.testing.assert_close(checkpoint.load(second).state_dict()[name], weight)
    # What the first had seen, the second has seen too, also where it goes on by itself.
    both = TrainingRecord(("older", "waves"), "2024-01-01", {"older": "CC-BY", "waves": "CC0"})
    assert checkpoint.load_training(second) == both
    longer = dataclasses.replace(still, loop=dataclasses.replace(still.loop, steps=2))
    assert pretrain(corpus, tmp_path / "second", longer).step == 2
    assert checkpoint.load_training(second) == both


def test_weights_that_are_there_get_inputs_that_they_do_not_know(corpus, tmp_path):
    told = SMALL_CRIA
    before = dataclasses.replace(told, num_told_seasons=0, tells_spreads=False, num_seasons=2)
    pretrain(corpus, tmp_path / "first", config(1, before))
    first = tmp_path / "first" / "model"
    pretrain(corpus, tmp_path / "second", config(3, told), start_from=first)
    assert checkpoint.load(first).config == before
    assert checkpoint.load(tmp_path / "second" / "model").config == told
    # What weights know already stays, whatever the recipe says.
    pretrain(corpus, tmp_path / "third", config(1, before), start_from=tmp_path / "second/model")
    assert checkpoint.load(tmp_path / "third" / "model").config == told


def test_weights_that_are_there_get_more_layers(corpus, tmp_path):
    pretrain(corpus, tmp_path / "first", config(1, SMALL_CRIA))
    deeper = dataclasses.replace(SMALL_CRIA, num_layers=SMALL_CRIA.num_layers + 1)
    pretrain(corpus, tmp_path / "second", config(2, deeper), start_from=tmp_path / "first/model")
    assert checkpoint.load(tmp_path / "second" / "model").config == deeper


def test_weights_that_are_there_get_windows_as_long_as_they_want(corpus, tmp_path):
    farther = dataclasses.replace(SMALL, lags=(0, 1, 60))
    pretrain(corpus, tmp_path / "first", dataclasses.replace(config(1), model=farther))
    pretrain(corpus, tmp_path / "second", config(1), start_from=tmp_path / "first" / "model")
    assert checkpoint.load(tmp_path / "second" / "model").config == farther


def few_series(length):
    """Fewer than are held back whole: of each, its last tenth is."""
    values = [np.sin(np.arange(length)).astype(np.float32)] * 3
    days = np.full(3, np.datetime64("2020-01-01", "ns"))
    return join([DataSet("few", ["a", "b", "c"], values, days, [parse_frequency("D")] * 3)])


def test_what_is_held_back_may_be_too_short_to_validate(tmp_path):
    rows = []
    pretrain(few_series(200), tmp_path / "run", config(2), report=rows.append)
    assert "validation_crps" not in rows[-1]
    pretrain(few_series(400), tmp_path / "longer", config(2), report=rows.append)
    assert rows[-1]["validation_crps"] > 0


def test_patience_wants_something_to_validate(tmp_path):
    plan = config(2)
    plan = dataclasses.replace(plan, loop=dataclasses.replace(plan.loop, patience=1))
    with pytest.raises(DataError, match="patience"):
        pretrain(few_series(200), tmp_path / "run", plan)
    assert not (tmp_path / "run").exists()


def test_every_process_needs_a_window(corpus, tmp_path):
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric._strategy = SimpleNamespace(world_size=9)
    with pytest.raises(DataError, match="raise tokens_per_batch to 288"):
        pretrain(corpus, tmp_path / "run", config(2), fabric=fabric)


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="seed"):
        config(seed=-1)


def test_a_run_that_differs_is_refused(corpus, tmp_path):
    plan = config(1)
    pretrain(corpus, tmp_path / "run", plan)
    other = dataclasses.replace(SMALL, lags=(0, 1, 12))
    changes = {
        r"model\.lags": {"model": other},
        "seed": {"seed": 1},
        r"hold_out\.share": {"hold_out": HoldOut(0.2)},
        r"mixture\.weights\.waves": {"mixture": Mixture(weights={"waves": 2.0})},
    }
    for told, change in changes.items():
        with pytest.raises(CheckpointError, match=f"differs in {told}; train in another"):
            pretrain(corpus, tmp_path / "run", dataclasses.replace(plan, **change))
    more = corpus.join(dataclasses.replace(corpus, datasets=["more"]))
    with pytest.raises(CheckpointError, match=r"data\.more"):
        pretrain(more, tmp_path / "run", plan)
    longer = dataclasses.replace(plan, loop=dataclasses.replace(plan.loop, steps=2))
    whole = (tmp_path / "run" / "run.json").read_text()
    (tmp_path / "run" / "run.json").write_text("")
    with pytest.raises(CheckpointError, match=r"run\.json cannot be read"):
        pretrain(corpus, tmp_path / "run", longer)
    (tmp_path / "run" / "run.json").write_text(whole)
    # A version that did not know an option has used its default.
    written = tmp_path / "run" / "run.json"
    told = json.loads(written.read_text())
    del told["windows"]["target_noise"]
    written.write_text(json.dumps(told))
    noisy = dataclasses.replace(plan.windows, target_noise=0.3)
    with pytest.raises(CheckpointError, match=r"windows\.target_noise"):
        pretrain(corpus, tmp_path / "run", dataclasses.replace(longer, windows=noisy))
    assert pretrain(corpus, tmp_path / "run", longer).step == 2


def test_calm_windows_are_told_apart_in_mixed_precision(corpus):
    network = checkpoint.LagLlama(SMALL)
    network.initialise(torch.Generator().manual_seed(0))
    with torch.no_grad():
        network.head.scale.bias.fill_(-8.0)
        batch = Batches(corpus, config(), CPU).at(1)
        full = NextValue(network)(batch)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = NextValue(network)(batch)
    torch.testing.assert_close(mixed, full, rtol=0.05, atol=0)


RECIPE = """
data = "waves.parquet"
[windows]
tokens_per_batch = 512
lengths = [32]
length_weights = [1]
[loop]
steps = 4
log_every = 1
accumulate = {accumulate}
[model]
num_layers = 2
num_heads = 2
head_width = 8
feedforward_width = 32
lags = [0, 1, 23]
"""


def run_processes(tmp_path, name, num_processes, accumulate=1):
    """`llamacast pretrain` as a user would start it; the losses it tells."""
    recipe = tmp_path / f"{name}.toml"
    recipe.write_text(RECIPE.format(accumulate=accumulate))
    starter = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={num_processes}"]
    starter += ["--master-port=0", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    ours = ["llamacast", "pretrain", recipe, "--output", tmp_path / name]
    found = subprocess.run(
        [*starter, "-m", *map(str, ours), "--device", "cpu"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert found.returncode == 0, found.stderr
    with (tmp_path / name / "log.csv").open(newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    return losses, checkpoint.load(tmp_path / name / "model")


def test_two_processes_are_one_on_the_same_batch(corpus, tmp_path):
    losses, alone = run_processes(tmp_path, "alone", 1)
    shared_losses, shared = run_processes(tmp_path, "shared", 2, accumulate=3)
    assert len(losses) == 4
    assert shared_losses == pytest.approx(losses, abs=2e-4)
    for name, weight in alone.state_dict().items():
        torch.testing.assert_close(shared.state_dict()[name], weight, rtol=1e-3, atol=1e-4)


def test_too_little_memory_is_told_with_what_to_do(corpus, tmp_path, monkeypatch):
    def full(*arguments):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(module, "pretrain", full)
    with pytest.raises(DataError, match="raise \\[loop\\] accumulate"):
        module.run_pretraining(tmp_path / "waves.parquet", tmp_path / "run", config(1))


def test_the_network_may_be_compiled(corpus, tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: compiled.append(self))
    plan = config(1)
    plan = dataclasses.replace(plan, loop=dataclasses.replace(plan.loop, compile=True))
    pretrain(corpus, tmp_path, plan, fabric=Fabric(accelerator="cpu", devices=1))
    assert len(compiled) == 1


def test_blocks_run_in_bfloat16_where_the_processor_multiplies_it(monkeypatch, tmp_path):
    flags = tmp_path / "cpuinfo"
    monkeypatch.setattr(module, "CPU_FLAGS", flags)
    cpu = torch.device("cpu")
    assert not module.multiplies_bfloat16(cpu)
    flags.write_text("flags : sse avx2 avx512f")
    assert not module.multiplies_bfloat16(cpu)
    flags.write_text("flags : sse avx512_bf16 avx2")
    assert module.multiplies_bfloat16(cpu)
