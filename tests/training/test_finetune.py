from __future__ import annotations

import csv
import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning_fabric import Fabric

from llamacast.data.calendar import parse_frequency
from llamacast.data.frame import read_panel
from llamacast.forecast import CheckpointError, DataError
from llamacast.model import checkpoint
from llamacast.model.config import LagLlamaConfig
from llamacast.training import finetune as module
from llamacast.training.finetune import (
    FinetuneConfig,
    Validation,
    blend,
    finetune,
    learnable,
    split,
)
from llamacast.training.lora import merged, with_adapter
from llamacast.training.search import LEARNING_RATES, grid, search
from llamacast.training.strategies import STRATEGIES
from tests.training.small_run import SMALL, SMALL_CRIA


def waves(num_series=12, num_steps=200, seed=0, period=24):
    rng = np.random.default_rng(seed)
    day = np.sin(np.arange(num_steps) * 2 * np.pi / period)
    stamps = pd.date_range("2024-01-01", periods=num_steps, freq="h")
    return pd.concat(
        pd.DataFrame(
            {"unique_id": f"s{n}", "ds": stamps, "y": day + 0.1 * rng.normal(size=num_steps)}
        )
        for n in range(num_series)
    )


def network(config=SMALL_CRIA):
    found = checkpoint.make_network(config)
    found.initialise(torch.Generator().manual_seed(0))
    return found.eval()


@pytest.fixture(scope="module")
def fabric():
    return Fabric(devices=1, accelerator="cpu")


@pytest.fixture(scope="module")
def panel():
    return read_panel(waves())


def run(net, panel, folder, fabric, **changes):
    config = FinetuneConfig(12, **{"steps": 40, "learning_rate": 5e-3, **changes})
    return finetune(net, panel, config, folder, fabric)[:2]


def same(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("config", [SMALL_CRIA, SMALL], ids=["cria", "lag-llama"])
@pytest.mark.parametrize("strategy", list(STRATEGIES))
def test_what_is_learnt_forecasts_better_and_leaves_the_network_as_it_was(
    config, strategy, panel, fabric, tmp_path
):
    net = network(config)
    before = checkpoint.digest(net)
    told = []
    settled = FinetuneConfig(12, strategy, steps=32, learning_rate=1e-2)
    found, verdict, _ = finetune(net, panel, settled, tmp_path, fabric, announce=told.append)
    assert checkpoint.digest(net) == before
    assert verdict.improved
    assert verdict.crps_after < verdict.crps_before
    assert same(checkpoint.load(tmp_path / "model"), found)
    assert found.config == config
    assert json.loads((tmp_path / "verdict.json").read_text())["steps"] == verdict.steps
    assert "minutes" in told[0]
    assert not any("lora" in name for name in found.state_dict())
    validation = Validation(panel, split(panel, settled), 0)
    assert validation.scores(found).mean() == pytest.approx(verdict.crps_after)


def test_what_does_not_help_is_not_kept(fabric, tmp_path):
    rng = np.random.default_rng(0)
    frame = waves()
    frame["y"] = rng.normal(size=len(frame)).cumsum()  # nothing to learn
    net = network()
    found, verdict = run(net, read_panel(frame), tmp_path, fabric, learning_rate=0.5, steps=3)
    assert not verdict.improved
    assert verdict.crps_after == verdict.crps_before
    assert same(found, net)
    assert "kept" in str(verdict)


def test_a_finished_run_is_not_run_again_and_another_is_refused(panel, fabric, tmp_path):
    net = network()
    one, verdict = run(net, panel, tmp_path, fabric)
    other, again = run(net, panel, tmp_path, fabric)
    assert same(one, other)
    assert verdict == again
    with pytest.raises(CheckpointError, match="learning_rate"):
        run(net, panel, tmp_path, fabric, learning_rate=1e-3)
    axes = [dataclasses.replace(axis, frequency=parse_frequency("7h")) for axis in panel.axes]
    with pytest.raises(CheckpointError, match="differs in data"):
        run(net, dataclasses.replace(panel, axes=axes), tmp_path, fabric)


@pytest.mark.parametrize("strategy", ["full", "lora"])
def test_same_seed_same_weights(panel, fabric, tmp_path, strategy):
    asked = FinetuneConfig(12, strategy, steps=6, learning_rate=1e-2)
    for n in range(2):
        torch.manual_seed(n)  # whatever ran before
        finetune(network(), panel, asked, tmp_path / str(n), fabric)
    assert same(*(checkpoint.load(tmp_path / str(n) / "best") for n in range(2)))


def test_a_meter_that_stands_high_is_learnt_from_as_one_that_does_not(panel):
    """Beyond the steps of float32, in which values are learnt from."""
    high = dataclasses.replace(panel, values=[values + 2.0**31 for values in panel.values])
    asked = FinetuneConfig(12)
    scores = [
        Validation(learnable(network(), one), split(one, asked), 0).scores(network())
        for one in (panel, high)
    ]
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-3)


def test_nothing_is_learnt_where_nothing_can_be_judged(fabric, tmp_path):
    values = np.r_[np.arange(300.0) % 7, np.full(150, np.nan)]
    with pytest.raises(DataError, match="no series that has a history"):
        run(network(), read_panel([values]), tmp_path, fabric)
    assert not list(tmp_path.iterdir())


@given(
    lengths=st.lists(st.integers(8, 400), min_size=1, max_size=8),
    horizon=st.integers(1, 20),
    share=st.floats(0.05, 1.0),
)
def test_windows_to_validate_on_come_after_what_is_learnt_from(lengths, horizon, share):
    panel = read_panel([np.arange(length, dtype=float) for length in lengths])
    config = FinetuneConfig(horizon, history_share=share)
    if 3 * horizon > 0.5 * np.median(lengths):
        with pytest.raises(DataError, match="too short"):
            split(panel, config)
        return
    parts = split(panel, config)
    origins = parts.draws(100).origins
    assert (origins >= parts.ends[parts.series]).all()
    assert (origins + horizon <= np.array(lengths)[parts.series]).all()
    assert (parts.firsts <= parts.ends).all()
    learnt = module._corpus(panel, parts)
    assert learnt.lengths.sum() == (parts.ends - parts.firsts).sum()
    numbers = [learnt.series(n).max() for n in range(learnt.num_series)]
    ends = parts.ends[parts.ends > parts.firsts]
    assert numbers == [end - 1 for end in ends]


def test_a_share_of_history_is_the_latest_and_keeps_its_dates(panel):
    parts = split(panel, FinetuneConfig(12, history_share=0.25))
    learnt = module._corpus(panel, parts)
    assert parts.ends[0] - parts.firsts[0] == pytest.approx(0.25 * parts.ends[0], abs=1)
    expected = pd.Timestamp("2024-01-01") + pd.Timedelta(hours=int(parts.firsts[0]))
    assert pd.Timestamp(learnt.starts[0]) == expected


def test_short_series_are_refused_with_what_is_needed(fabric, tmp_path):
    short = read_panel([np.arange(30.0), np.arange(28.0)])
    with pytest.raises(DataError, match="at least 72 steps"):
        run(network(), short, tmp_path / "run", fabric)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("horizon", 0),
        ("steps", 0),
        ("rank", 0),
        ("strategy", "everything"),
        ("head", "cauchy"),
        ("learning_rate", -1.0),
        ("history_share", 0.0),
        ("context_length", 0),
        ("seed", -1),
    ],
)
def test_bad_numbers_are_named(field, value):
    with pytest.raises(ValueError, match=field):
        FinetuneConfig(**{"horizon": 12, field: value})


@pytest.mark.parametrize("config", [SMALL_CRIA, SMALL], ids=["cria", "lag-llama"])
def test_only_the_chosen_weights_learn(config):
    learn = {}
    for name, choose in STRATEGIES.items():
        net = network(config)
        choose(net, 2)
        learn[name] = {key for key, w in net.named_parameters() if w.requires_grad}
    assert all(key.startswith(("head.", "anchor.")) for key in learn["head"])
    assert learn["head"] < learn["last-layers"] <= learn["full"]
    assert all(".lora_" in key for key in learn["lora"])
    assert len(learn["full"]) == len(list(network(config).parameters()))


def adapted(config=SMALL_CRIA):
    """A network whose adapters do something."""
    net = network(config)
    STRATEGIES["lora"](net, 4)
    torch.manual_seed(1)
    for name, weight in net.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    return net.eval()


def test_merged_is_unmerged():
    net = adapted()
    plain = merged(net)
    assert type(plain.transformer.blocks[0].attention.query) is torch.nn.Linear
    assert [*plain.state_dict()] == [*network().state_dict()]
    rng = torch.Generator().manual_seed(0)
    values = torch.randn(3, 64, generator=rng)
    observed, seasons = torch.ones_like(values, dtype=torch.bool), torch.zeros(3, 2).long()
    with torch.no_grad():
        found = [one.hidden(one.window(values, observed, seasons)) for one in (net, plain)]
        other = network().hidden(network().window(values, observed, seasons))
    torch.testing.assert_close(*found, rtol=0, atol=1e-5)
    assert (found[0] - other).abs().max() > 0.01


def test_native_code_does_not_run_what_it_does_not_know():
    from llamacast.sampling.native import native_weights

    assert native_weights(adapted().transformer) is None


def test_an_adapter_loads_onto_its_own_weights_only(panel, fabric, tmp_path):
    net = network()
    found, verdict = run(net, panel, tmp_path, fabric, strategy="lora", rank=4)
    assert verdict.improved
    adapter = tmp_path / "adapter"
    loaded = with_adapter(net, adapter)
    pairs = zip(found.state_dict().items(), loaded.state_dict().values(), strict=True)
    for (name, one), other in pairs:
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5, msg=name)
    other = blend(net, found, 0.5)
    with pytest.raises(CheckpointError, match="other weights"):
        with_adapter(other, adapter)
    (adapter / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="adapter"):
        with_adapter(net, adapter)


@pytest.mark.parametrize("head", ["normal", "negative_binomial", "quantiles", "flow"])
def test_another_head_is_learnt_on_the_same_trunk(head, fabric, tmp_path):
    frame = waves(num_series=4)
    frame["y"] = np.random.default_rng(0).poisson(5 + 4 * frame["y"].clip(-1, 1)).astype(float)
    net = network(SMALL)
    found, verdict = run(
        net, read_panel(frame), tmp_path, fabric, head=head, steps=3, learning_rate=1e-3
    )
    assert isinstance(found.config, LagLlamaConfig)
    assert found.config.head == head
    assert verdict.share == 1.0
    assert np.isfinite(verdict.crps_after)
    loaded = checkpoint.load(tmp_path / "model")
    assert loaded.config.head == head


def test_crias_head_stays(panel, fabric, tmp_path):
    with pytest.raises(DataError, match="Lag-Llama"):
        run(network(), panel, tmp_path, fabric, head="normal")


def test_a_context_that_was_asked_for_is_kept(panel, fabric, tmp_path):
    found, _ = run(network(), panel, tmp_path, fabric, context_length=32)
    assert found.config == dataclasses.replace(SMALL_CRIA, context_length=32)


def test_a_search_halves_its_grid_and_goes_on(panel, fabric, tmp_path, monkeypatch):
    monkeypatch.setattr("llamacast.training.search.PATCHES_PER_CONTEXT", (4, 8))
    monkeypatch.setattr("llamacast.training.search.LEARNING_RATES", (1e-2, 1e-6))
    net, config, told = network(), FinetuneConfig(12, steps=16), []
    found = search(net, panel, config, tmp_path, fabric, told.append)
    assert found.learning_rate == 1e-2
    assert found.context_length in (32, 64)
    with (tmp_path / "search.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sorted({int(row["steps"]) for row in rows}) == [2, 4]
    assert (tmp_path / "search.png").stat().st_size > 5000
    assert search(net, panel, config, tmp_path, fabric) == found


def test_the_grid_has_no_context_beyond_the_series():
    asked = FinetuneConfig(8)
    assert {context for context, _ in grid(network(SMALL), 100, asked)} == {32, 64}
    assert {rate for _, rate in grid(network(SMALL), 100, asked)} == set(LEARNING_RATES)
    assert {context for context, _ in grid(network(), 10, asked)} == {64}
    # What is asked for is not searched.
    some = FinetuneConfig(8, context_length=48, learning_rate=5e-5)
    assert grid(network(SMALL), 100, some) == [(48, 5e-5)]
