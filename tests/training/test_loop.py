from __future__ import annotations

import csv
import json

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from llamacast.forecast import CheckpointError, DataError
from llamacast.training.log import LOG_FILE
from llamacast.training.loop import LoopConfig, train
from llamacast.training.state import CHECKPOINTS


class Layers(nn.Module):
    """Fit y = 3x + 1 with a matrix between the first and the last layer."""

    def __init__(self, width=8):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.middle, self.last = (
            nn.Linear(1, width),
            nn.Linear(width, width),
            nn.Linear(width, 1),
        )

    def forward(self, batch):
        found = self.last(self.middle(self.first(batch["x"]))).squeeze(1)
        return (found - 3 * batch["x"].squeeze(1) - 1).square().sum()


def is_matrix(name):
    return name == "middle.weight"


def batch_at(step, parts=1):
    values = torch.randn(32, 1, generator=torch.Generator().manual_seed(step))
    return [{"x": part, "count": torch.tensor(len(part))} for part in values.tensor_split(parts)]


def config(steps, **changes):
    common = {"learning_rate": 0.03, "save_every": 10, "log_every": 5, "warmup_steps": 5}
    return LoopConfig(steps=steps, **{**common, **changes})


def run(directory, plan, objective=None, batches=batch_at, **options):
    objective = objective or Layers()
    fabric = Fabric(accelerator="cpu", devices=1)
    return objective, train(objective, batches, plan, directory, fabric, is_matrix, **options)


def assert_same(one, two, **tolerance):
    for (name, a), b in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, **(tolerance or {"rtol": 0, "atol": 0}), msg=name)


@pytest.mark.parametrize("optimiser", ["muon", "adamw"])
def test_it_learns(tmp_path, optimiser):
    objective, progress = run(tmp_path, config(300, weight_decay=0.0, optimiser=optimiser))
    assert progress.step == 300
    with torch.no_grad():
        assert objective(batch_at(999)[0]) / 32 < 1e-2


@pytest.mark.parametrize("optimiser", ["muon", "adamw"])
def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(tmp_path, optimiser):
    class StopError(Exception):
        pass

    plan = config(60, optimiser=optimiser)
    kept = []
    unbroken, _ = run(
        tmp_path / "unbroken", plan, on_save=lambda mean: kept.append(mean.state_dict())
    )

    calls = 0

    def stopping(step):
        nonlocal calls
        calls += 1
        if calls > 33:
            raise StopError
        return batch_at(step)

    with pytest.raises(StopError):
        run(tmp_path / "broken", plan, batches=stopping)
    resumed, progress = run(
        tmp_path / "broken", plan, on_save=lambda mean: kept.append(mean.state_dict())
    )
    assert progress.step == 60
    assert_same(unbroken, resumed)
    for name, weight in kept[5].items():  # of the unbroken run's end
        assert torch.equal(kept[-1][name], weight)
    with (tmp_path / "broken" / LOG_FILE).open(newline="") as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == list(range(5, 61, 5))


def test_optimisers_go_on_where_the_weights_are(tmp_path, monkeypatch):
    """On a GPU they would otherwise remember on the CPU, as weights move when Fabric sets them up."""
    run(tmp_path, config(10))
    calls = []

    def noting(name, original):
        def noted(self, *arguments, **options):
            calls.append(name)
            return original(self, *arguments, **options)

        return noted

    monkeypatch.setattr(Fabric, "setup", noting("set up", Fabric.setup))
    load = torch.optim.Optimizer.load_state_dict
    monkeypatch.setattr(torch.optim.Optimizer, "load_state_dict", noting("load", load))
    run(tmp_path, config(20))
    assert calls == ["set up", "load", "load"]


def test_what_torch_draws_by_itself_goes_on_too(tmp_path):
    class Dropping(Layers):
        def forward(self, batch):
            return super().forward({"x": nn.functional.dropout(batch["x"])})

    unbroken, _ = run(tmp_path / "unbroken", config(20), objective=Dropping())
    run(tmp_path / "broken", config(20), objective=Dropping(), minutes=1e-9)
    torch.manual_seed(99)
    resumed, _ = run(tmp_path / "broken", config(20), objective=Dropping())
    assert_same(unbroken, resumed)


def test_a_sitting_ends_when_its_minutes_are_over(tmp_path):
    plan = config(10**6, log_every=10**6, save_every=10**6)
    _, first = run(tmp_path, plan, minutes=0.005)
    _, second = run(tmp_path, plan, minutes=0.005)
    assert 0 < first.step < second.step
    assert second.seconds > first.seconds


def test_an_interruption_leaves_the_last_whole_checkpoint(tmp_path):
    run(tmp_path, config(10))
    (tmp_path / CHECKPOINTS / "unfinished").mkdir()
    (tmp_path / CHECKPOINTS / "unfinished" / "weights.safetensors").write_text("half")
    _, progress = run(tmp_path, config(20))
    assert progress.step == 20
    assert [one.name for one in (tmp_path / CHECKPOINTS).iterdir()] == ["step-00000020"]


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    run(tmp_path, config(10))
    with pytest.raises(CheckpointError, match="another model"):
        run(tmp_path, config(20), objective=Layers(width=9))
    with pytest.raises(CheckpointError, match="another model or optimiser"):
        run(tmp_path, config(20, optimiser="adamw"))


def test_parts_of_a_batch_are_the_batch(tmp_path):
    whole, _ = run(tmp_path / "whole", config(20))
    parts, _ = run(tmp_path / "parts", config(20), batches=lambda step: batch_at(step, parts=5))
    assert_same(whole, parts, rtol=1e-4, atol=1e-5)


def test_the_learning_rate_rises_stays_and_falls():
    plan = LoopConfig(steps=1000, learning_rate=1.0, warmup_steps=100, decay_share=0.4)
    assert plan.learning_rate_at(0) == 0.01
    assert plan.learning_rate_at(49) == 0.5
    assert plan.learning_rate_at(99) == plan.learning_rate_at(600) == 1.0
    assert plan.learning_rate_at(800) == 0.5
    assert plan.learning_rate_at(999) == pytest.approx(1 / 400)


def test_the_plateau_does_not_depend_on_where_the_run_will_end():
    rates = {LoopConfig(steps=steps).learning_rate_at(3000) for steps in (8000, 80_000)}
    assert len(rates) == 1


def test_weights_are_averaged(tmp_path):
    kept = {}

    def keep(averaged):
        kept.update(averaged.state_dict())

    last, _ = run(tmp_path / "one", config(50, average_steps=0), on_save=keep)
    assert all(torch.equal(kept[name], weight) for name, weight in last.state_dict().items())
    last, _ = run(tmp_path / "two", config(50, average_steps=20), on_save=keep)
    assert not any(torch.equal(kept[name], weight) for name, weight in last.state_dict().items())
    averaged = Layers()
    averaged.load_state_dict(kept)
    with torch.no_grad():
        assert averaged(batch_at(999)[0]) < Layers()(batch_at(999)[0])


def test_it_stops_when_validation_does_not_get_better(tmp_path):
    scores = iter([3.0, 2.0, 2.5, 2.4, 1.0])
    saved = []
    plan = config(1000, validate_every=10, patience=2)
    _, progress = run(
        tmp_path,
        plan,
        validate=lambda averaged: {"validation_crps": next(scores)},
        on_save=lambda averaged: saved.append(averaged.first.weight.clone()),
    )
    assert (progress.step, progress.best, progress.stopped_early) == (40, 2.0, True)
    assert len(saved) == 2  # the best stays
    state = json.loads((tmp_path / CHECKPOINTS / "step-00000040" / "progress.json").read_text())
    assert state["stopped_early"]
    # It goes on when it is told to wait longer.
    longer = config(50, validate_every=10, patience=3)
    _, progress = run(tmp_path, longer, validate=lambda averaged: {"validation_crps": next(scores)})
    assert (progress.step, progress.best) == (50, 1.0)


@pytest.mark.parametrize("save_every", [4, 1000])
def test_the_model_that_stays_is_the_one_that_validated_best(tmp_path, save_every):
    scores, seen, kept = iter([3.0, 2.0, 2.5, 2.4]), [], []

    def validate(averaged):
        seen.append(averaged.first.weight.clone())
        return {"validation_crps": next(scores)}

    plan = config(1000, validate_every=10, patience=2, save_every=save_every)
    run(
        tmp_path,
        plan,
        validate=validate,
        on_save=lambda averaged: kept.append(averaged.first.weight.clone()),
    )
    assert torch.equal(kept[-1], seen[1])


def test_an_interruption_at_the_end_does_not_lose_the_model(tmp_path):
    kept = []

    def interrupted(averaged):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, config(5), on_save=interrupted)
    run(tmp_path, config(5), on_save=kept.append)
    assert len(kept) == 1


@pytest.mark.parametrize("name", ["weights.safetensors", "optimisers.pt", "progress.json"])
def test_a_damaged_checkpoint_is_named(tmp_path, name):
    run(tmp_path, config(10))
    damaged = tmp_path / CHECKPOINTS / "step-00000010" / name
    damaged.write_bytes(damaged.read_bytes()[:-20])
    with pytest.raises(CheckpointError, match="step-00000010 is damaged"):
        run(tmp_path, config(20))
    damaged.unlink()
    with pytest.raises(CheckpointError, match="step-00000010 is damaged"):
        run(tmp_path, config(20))


def test_a_missing_tensorboard_is_told_before_anything_is_written(tmp_path, monkeypatch):
    logger = "lightning_fabric.loggers.tensorboard"
    monkeypatch.setattr(f"{logger}._TENSORBOARD_AVAILABLE", False)
    monkeypatch.setattr(f"{logger}._TENSORBOARDX_AVAILABLE", False)
    with pytest.raises(DataError, match="pip install tensorboardX"):
        run(tmp_path / "run", config(2, tensorboard=True))
    assert not (tmp_path / "run").exists()


def test_a_step_without_finite_gradients_changes_nothing(tmp_path):
    def broken(step):
        batch = batch_at(step)
        return [dict(part, x=part["x"] * torch.nan) for part in batch]

    before = Layers()
    after, progress = run(tmp_path, config(3), batches=broken)
    assert progress.step == 3
    assert_same(before, after)


def test_a_run_without_finite_gradients_is_given_up(tmp_path):
    def broken(step):
        return [dict(part, x=part["x"] * torch.nan) for part in batch_at(step)]

    with pytest.raises(DataError, match=r"50 steps in a row.*lower \[loop\] learning_rate"):
        run(tmp_path, config(100), batches=broken)


def test_tensorboard_gets_the_same_lines(tmp_path):
    pytest.importorskip("tensorboardX")
    run(tmp_path, config(10, tensorboard=True))
    assert list((tmp_path / "tensorboard").glob("events.*"))


@pytest.mark.parametrize(
    ("field", "value"),
    [("steps", 0), ("decay_share", 1.5), ("learning_rate", 0.0), ("patience", -1)],
)
def test_a_field_out_of_range_is_named(field, value):
    with pytest.raises(ValueError, match=field):
        LoopConfig(**{field: value})
