from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from llamacast.data.calendar import parse_frequency
from llamacast.data.synthetic import MADE_UP
from llamacast.training.batches import Batches
from llamacast.training.config import AggregateConfig, GroupConfig, SyntheticConfig
from tests.training.small_run import CPU, NOTHING, SMALL, SMALL_CRIA, config


def test_a_batch_is_told_by_its_step(corpus):
    one, two = (Batches(corpus, config(), CPU).at(3) for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = Batches(corpus, config(), CPU).at(4)
    assert other["values"].shape != one["values"].shape or not torch.equal(
        other["values"], one["values"]
    )


def test_a_batch_fits_the_network(corpus):
    batch = Batches(corpus, config(), CPU).at(0)
    num_tokens = batch["calendar"].shape[1] - 1
    assert batch["values"].shape[1] == SMALL.max_lag + num_tokens + 1
    assert batch["values"].shape[0] * num_tokens == 256
    assert 1 <= batch["values"].shape[1] - int(batch["history_length"]) <= num_tokens // 2
    assert 0 < batch["count"] == batch["counts"].sum() <= 256


def test_processes_and_parts_share_a_batch(corpus):
    batches = Batches(corpus, config(), CPU)
    whole = batches.at(5)
    parts = [part for rank in range(3) for part in batches.shared(5, rank, 3, 2)]
    assert sum(part["count"] for part in parts) == whole["count"]
    shared = torch.cat([part["values"] for part in parts])
    assert sorted(map(tuple, shared.tolist())) == sorted(map(tuple, whole["values"].tolist()))


def test_what_is_held_back_is_never_trained_on(corpus):
    marked = dataclasses.replace(corpus, values=corpus.values.copy())
    plan = config()
    held = np.flatnonzero(marked.train_lengths(plan.hold_out) == 0)
    assert len(held) > 0
    for number in held:
        marked.series(number)[:] = np.arange(400) * 1e6
    batches = Batches(marked, plan, CPU)
    assert max(float(batches.at(step)["values"].max()) for step in range(50)) < 100


def test_aggregates_join_in_their_share_and_tell_nothing_that_is_held_back(corpus):
    lengthened = dataclasses.replace(
        corpus, frequencies=[parse_frequency("5min")] * len(corpus.ids)
    )
    marked = dataclasses.replace(lengthened, values=corpus.values.copy())
    plan = config(aggregates=AggregateConfig(share=0.4), synthetic=SyntheticConfig(0.1, 60))
    for number in np.flatnonzero(marked.train_lengths(plan.hold_out) == 0):
        marked.series(number)[:] = np.arange(400) * 1e6
    batches = Batches(marked, plan, CPU)
    made, share, _ = batches.made[0]
    assert share == 0.4
    assert all(name.endswith(" in 15min") for name in made.datasets)
    chances = batches._chances[16]
    assert chances[: corpus.num_series].sum() == pytest.approx(0.5)
    joined = slice(corpus.num_series, corpus.num_series + made.num_series)
    assert chances[joined].sum() == pytest.approx(0.4)
    assert np.nanmax(np.abs(made.values)) < 100


def test_a_data_set_that_is_left_out_is_so_in_longer_steps(corpus):
    two = dataclasses.replace(
        corpus,
        frequencies=[parse_frequency("5min")] * corpus.num_series,
        datasets=["left out", "kept"],
        dataset_bounds=np.array([0, 20, 40]),
    )
    mixture = dataclasses.replace(config().mixture, weights={"left out": 0.0})
    plan = config(aggregates=AggregateConfig(share=0.4), mixture=mixture)
    batches = Batches(two, plan, CPU)
    made, _, _ = batches.made[0]
    assert list(made.datasets) == ["left out in 15min", "kept in 15min"]
    chances = batches._chances[16][corpus.num_series :]
    assert chances[made.dataset_of == 0].sum() == 0
    assert chances.sum() == pytest.approx(0.4)


def test_groups_join_in_their_share_also_in_longer_steps_and_tell_nothing_that_is_held_back(corpus):
    lengthened = dataclasses.replace(
        corpus,
        frequencies=[parse_frequency("5min")] * corpus.num_series,
        values=corpus.values.copy(),
        starts=np.full_like(corpus.starts, corpus.starts[0]),
    )
    plan = config(groups=GroupConfig(share=0.3, most=25))
    for number in np.flatnonzero(lengthened.train_lengths(plan.hold_out) == 0):
        lengthened.series(number)[:] = np.arange(400) * 1e6
    batches = Batches(lengthened, plan, CPU)
    made, share, _ = batches.made[0]
    assert share == 0.3
    assert {name.split(" in ", 1)[1] for name in made.datasets} == {"groups", "groups in 15min"}
    assert batches._chances[16][corpus.num_series :].sum() == pytest.approx(0.3)
    assert np.nanmax(np.abs(made.values)) < 64 * 100


def test_shares_of_what_is_made_must_leave_room():
    with pytest.raises(ValueError, match=r"aggregates\.share, groups\.share and synthetic\.share"):
        config(
            aggregates=AggregateConfig(0.4),
            groups=GroupConfig(0.2),
            synthetic=SyntheticConfig(0.4),
        )


def test_synthetic_series_join_in_their_share(corpus):
    plan = config(synthetic=SyntheticConfig(share=0.3, num_series=60))
    batches = Batches(corpus, plan, CPU)
    made = batches._chances[16][corpus.num_series :]
    assert made.sum() == pytest.approx(0.3)
    again = Batches(corpus, plan, CPU)
    assert all(torch.equal(batches.at(7)[name], part) for name, part in again.at(7).items())


def test_families_of_synthetic_series_are_drawn_by_their_weights(corpus):
    weights = {"steady": 3.0, "growth": 0.0}
    plan = config(
        synthetic=SyntheticConfig(share=0.3, num_series=10 * len(MADE_UP), weights=weights)
    )
    batches = Batches(corpus, plan, CPU)
    made = np.split(batches._chances[16][corpus.num_series :], len(MADE_UP))  # as many of each
    shares = dict(zip(MADE_UP, made, strict=True))
    assert shares["growth"].sum() == 0
    # One family less, and two more of another.
    assert shares["steady"].sum() == pytest.approx(0.3 * 3 / (len(MADE_UP) + 1), rel=0.01)
    with pytest.raises(ValueError, match="there is no family 'mixup'; there are gaussian_process"):
        SyntheticConfig(weights={"mixup": 1.0})
    with pytest.raises(ValueError, match="negative"):
        SyntheticConfig(weights={"steady": -1.0})


def test_a_batch_of_patches_is_told_by_its_step_and_shared(corpus):
    batches = Batches(corpus, config(model=SMALL_CRIA), CPU)
    whole = batches.at(5)
    again = Batches(corpus, config(model=SMALL_CRIA), CPU).at(5)
    assert all(torch.equal(whole[name], part) for name, part in again.items())
    parts = [part for rank in range(3) for part in batches.shared(5, rank, 3, 2)]
    assert sum(part["count"] for part in parts) == whole["count"]


def test_batches_of_patches_hold_as_many_tokens(corpus):
    batches = Batches(corpus, config(model=SMALL_CRIA), CPU)
    shapes = {tuple(batches.at(step)["values"].shape) for step in range(20)}
    assert shapes == {(16, 32), (8, 64)}


def test_what_is_held_back_is_never_trained_on_in_patches(corpus):
    """Values are standardised, so a marked series is told by its line that goes up and up."""
    marked = dataclasses.replace(corpus, values=corpus.values.copy())
    plan = config(model=SMALL_CRIA, augment=NOTHING)
    held = np.flatnonzero(marked.train_lengths(plan.hold_out) == 0)
    for number in range(marked.num_series):
        marked.series(number)[:] = np.arange(400) % 2
    for number in held:
        marked.series(number)[:] = np.arange(400)
    batches = Batches(marked, plan, CPU)
    for step in range(50):
        batch = batches.at(step)
        values = batch["values"].masked_fill(~batch["observed"], torch.nan)
        rise = values.diff(dim=1)
        assert (rise > 0).sum() <= 0.6 * (~rise.isnan()).sum()
