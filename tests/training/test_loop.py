from __future__ import annotations

import csv

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from llamacast.training.loop import LOG_FILE, LoopConfig, train


class LineObjective(nn.Module):
    """Fit y = 3x + 1."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.line = nn.Linear(1, 1)

    def forward(self, batch):
        return (self.line(batch["x"]) - 3 * batch["x"] - 1).square().mean()


def batch_at(step):
    return {"x": torch.randn(32, 1, generator=torch.Generator().manual_seed(step))}


def run(directory, steps, objective=None, **changes):
    objective = objective or LineObjective()
    config = LoopConfig(steps=steps, learning_rate=0.1, save_every=10, log_every=5, **changes)
    fabric = Fabric(accelerator="cpu", devices=1)
    return objective, train(objective, batch_at, config, directory, fabric)


def test_it_learns(tmp_path):
    objective, progress = run(tmp_path, 200, weight_decay=0.0)
    assert progress.step == 200
    assert objective(batch_at(999)) < 1e-3


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(tmp_path):
    class StopError(Exception):
        pass

    unbroken, _ = run(tmp_path / "unbroken", 60)

    calls = 0

    def stopping(step):
        nonlocal calls
        calls += 1
        if calls > 33:
            raise StopError
        return batch_at(step)

    config = LoopConfig(steps=60, learning_rate=0.1, save_every=10, log_every=5)
    fabric = Fabric(accelerator="cpu", devices=1)
    with pytest.raises(StopError):
        train(LineObjective(), stopping, config, tmp_path / "broken", fabric)
    resumed, progress = run(tmp_path / "broken", 60)
    assert progress.step == 60
    for one, two in zip(unbroken.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two)
    steps = []
    for name in ("unbroken", "broken"):
        with (tmp_path / name / LOG_FILE).open() as file:
            steps.append([(row["step"], row["loss"]) for row in csv.DictReader(file)])
    assert steps[0] == steps[1]


def test_a_finished_run_does_nothing_more(tmp_path):
    first, _ = run(tmp_path, 20)
    again, progress = run(tmp_path, 20)
    assert progress.step == 20
    assert torch.equal(first.line.weight, again.line.weight)


def test_a_bad_batch_does_not_poison_the_weights(tmp_path):
    def bad_at_five(step):
        return {"x": torch.full((4, 1), torch.inf)} if step == 5 else batch_at(step)

    config = LoopConfig(steps=10, log_every=5)
    objective = LineObjective()
    train(objective, bad_at_five, config, tmp_path, Fabric(accelerator="cpu", devices=1))
    assert all(weight.isfinite().all() for weight in objective.parameters())


def test_learning_rate_rises_stays_and_falls():
    config = LoopConfig(steps=100, learning_rate=1.0, warmup_share=0.1, decay_share=0.4)
    rates = [config.learning_rate_at(config.progress(step, 0.0)) for step in range(101)]
    assert rates[0] < rates[5] < rates[10] == 1.0
    assert rates[60] == 1.0
    assert rates[80] == pytest.approx(0.5)
    assert rates[100] == 0.0


def test_one_budget():
    with pytest.raises(ValueError, match="minutes and steps"):
        LoopConfig()
    with pytest.raises(ValueError, match="minutes and steps"):
        LoopConfig(minutes=1.0, steps=1)
    for budget in ({"steps": 0}, {"steps": -1}, {"minutes": 0.0}, {"minutes": -3.0}):
        with pytest.raises(ValueError, match="positive"):
            LoopConfig(**budget)
