from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from llamacast.forecast import CheckpointError, TrainingRecord
from llamacast.model import checkpoint
from llamacast.model.config import LagLlamaConfig
from llamacast.model.lag_llama import LagLlama
from tests.model.test_cria import SMALL as SMALL_CRIA
from tests.model.test_cria import network, series

SMALL = LagLlamaConfig(num_layers=1, num_heads=2, head_width=4, feedforward_width=8)

OLDER_CRIA = dataclasses.replace(SMALL_CRIA, num_told_seasons=0, tells_spreads=False)


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    model = LagLlama(SMALL)
    checkpoint.save(model, tmp_path)
    return model, tmp_path


def test_what_weights_have_seen_is_kept_with_them(saved):
    _, folder = saved
    assert checkpoint.load_training(folder) == TrainingRecord()
    record = TrainingRecord(("m3", "gefcom"), "2024-01-01T00:00:00")
    checkpoint.save_training(record, folder)
    assert checkpoint.load_training(folder) == record


def test_a_mean_lies_between_its_parts_in_their_shares(saved):
    first, _ = saved
    second = LagLlama(SMALL)
    mean = checkpoint.average([first, second], [3, 1])
    for name, weight in mean.state_dict().items():
        one, two = first.state_dict()[name], second.state_dict()[name]
        torch.testing.assert_close(weight, 0.75 * one + 0.25 * two)
    same = checkpoint.average([first, first], [1, 2])
    assert all(map(torch.equal, same.state_dict().values(), first.state_dict().values()))


@pytest.mark.parametrize(
    "before",
    [
        {"num_told_seasons": 0, "tells_spreads": False},
        {"num_told_seasons": 1, "tells_spreads": False},
        {"num_told_seasons": 0, "num_covariates": 2},
    ],
)
def test_inputs_that_are_added_weigh_nothing_yet(before):
    before = network(dataclasses.replace(SMALL_CRIA, **before))
    wider = dataclasses.replace(SMALL_CRIA, num_covariates=before.config.num_covariates)
    after = checkpoint.widened(before, wider)
    assert after.config == wider
    values = series(2, 64)
    beside = torch.randn(2, 72, 2) if wider.num_covariates else None
    seasons = torch.tensor([[12, 0], [0, 0]])
    with torch.no_grad():
        one, other = (
            model.hidden(model.window(values, torch.ones_like(values) > 0, seasons, beside))
            for model in (before, after)
        )
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_layers_that_are_added_say_nothing_yet_and_can_learn():
    before = network(SMALL_CRIA)
    after = checkpoint.deepened(before, SMALL_CRIA.num_layers + 2)
    assert after.config == dataclasses.replace(SMALL_CRIA, num_layers=SMALL_CRIA.num_layers + 2)
    values = series(2, 64)
    asked = (values, torch.ones_like(values) > 0, torch.zeros(2, 2).long())
    with torch.no_grad():
        assert torch.equal(before.loss(*asked), after.loss(*asked))
    after.loss(*asked).sum().backward()
    last = after.transformer.blocks[-1]
    assert last.attention.output.weight.grad.abs().min() > 0
    assert last.feedforward.down.weight.grad.abs().min() > 0


def test_a_shrunk_network_lies_between_itself_and_a_drawn_one():
    before = network(SMALL_CRIA)
    drawn = checkpoint.make_network(SMALL_CRIA)
    drawn.initialise(torch.Generator().manual_seed(3))
    ends = {
        share: checkpoint.shrunk(before, share, torch.Generator().manual_seed(3)).state_dict()
        for share in (0.0, 0.6, 1.0)
    }
    for name, own in before.state_dict().items():
        other = drawn.state_dict()[name] if own.dim() > 1 else own
        assert torch.equal(ends[1.0][name], own)
        assert torch.equal(ends[0.0][name], other)
        torch.testing.assert_close(ends[0.6][name], 0.6 * own + 0.4 * other)
    with pytest.raises(CheckpointError, match=r"within 0 and 1; got 1\.5"):
        checkpoint.shrunk(before, 1.5)


def test_weights_of_before_and_after_are_averaged():
    fewer_seasons = dataclasses.replace(OLDER_CRIA, num_seasons=2)
    before, after = network(fewer_seasons, seed=1), network(seed=2)
    mean = checkpoint.average([before, after], [1, 1])
    same = checkpoint.average([checkpoint.widened(before, SMALL_CRIA), after], [1, 1])
    assert mean.config == SMALL_CRIA
    assert checkpoint.digest(mean) == checkpoint.digest(same)


def test_configurations_from_before_these_inputs_are_read(tmp_path):
    before = network(OLDER_CRIA)
    checkpoint.save(before, tmp_path)
    edit_config(tmp_path, **dict.fromkeys(checkpoint.LATER_FIELDS, "gone"))
    found = checkpoint.load(tmp_path)
    assert found.config == before.config
    assert checkpoint.digest(found) == checkpoint.digest(before)


def test_only_what_is_alike_is_averaged(saved):
    first, _ = saved
    other = LagLlama(dataclasses.replace(SMALL, num_layers=2))
    with pytest.raises(CheckpointError, match="of one configuration"):
        checkpoint.average([first, other], [1, 1])
    with pytest.raises(CheckpointError, match="above 0"):
        checkpoint.average([first, first], [1, 0])


@pytest.mark.parametrize("text", ["[", "[]", "{}", '{"datasets": "m3", "until": ""}'])
def test_a_damaged_training_record_is_named(saved, text):
    _, folder = saved
    (folder / checkpoint.TRAINING_FILE).write_text(text)
    with pytest.raises(CheckpointError, match=r"training\.json"):
        checkpoint.load_training(folder)


def edit_config(folder, **changes):
    path = folder / checkpoint.CONFIG_FILE
    fields = json.loads(path.read_text()) | changes
    kept = {key: value for key, value in fields.items() if value != "gone"}
    path.write_text(json.dumps(kept))


def test_what_is_saved_is_what_is_loaded(saved):
    model, folder = saved
    loaded = checkpoint.load(folder)
    assert loaded.config == model.config
    assert not loaded.training
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight)


@pytest.mark.parametrize(
    "config",
    [
        dataclasses.replace(SMALL, head="negative_binomial", scaling="mean"),
        dataclasses.replace(SMALL, head="quantile_network", input_limit=None),
        dataclasses.replace(
            SMALL, rotary="dynamic", rotary_factor=2.0, calendar="none", lags=(0, 3)
        ),
    ],
)
def test_every_kind_of_config_comes_back(tmp_path, config):
    checkpoint.save(LagLlama(config), tmp_path)
    assert checkpoint.load(tmp_path).config == config


def test_half_precision_is_read_as_single(saved, tmp_path):
    model, _ = saved
    checkpoint.save(model, tmp_path / "half", torch.float16)
    loaded = checkpoint.load(tmp_path / "half")
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight.half().float())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"num_layers": 2}, "blocks.1"),
        ({"num_layers": "2"}, "num_layers"),
        ({"head": "os.system"}, "head"),
        ({"architecture": "module.Class"}, "architecture"),
        ({"surprise": 1}, "surprise"),
        ({"dropout": "gone"}, "dropout"),
        ({"lags": "all"}, "lags"),
        ({"feedforward_width": 16}, "feedforward"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_by_name(saved, changes, named):
    _, folder = saved
    edit_config(folder, **changes)
    with pytest.raises(CheckpointError, match=named):
        checkpoint.load(folder)


@pytest.mark.parametrize("content", ["", "[1]", "{", "[" * 100_000])
def test_a_damaged_config_is_refused(saved, content):
    _, folder = saved
    (folder / checkpoint.CONFIG_FILE).write_text(content)
    with pytest.raises(CheckpointError, match=checkpoint.CONFIG_FILE):
        checkpoint.load(folder)


def test_damaged_or_incomplete_weights_are_refused(saved):
    _, folder = saved
    path = folder / checkpoint.WEIGHTS_FILE
    weights = load_file(path)
    weights.pop("head.df.weight")
    save_file(weights, path)
    with pytest.raises(CheckpointError, match=r"head\.df\.weight"):
        checkpoint.load(folder)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=checkpoint.WEIGHTS_FILE):
        checkpoint.load(folder)
    path.unlink()
    with pytest.raises(CheckpointError, match=checkpoint.WEIGHTS_FILE):
        checkpoint.load(folder)
