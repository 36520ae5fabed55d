import csv
import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM

from llamacast.forecast import DataError
from llamacast.text.finetune import (
    FinetuneConfig,
    check_budget,
    cost,
    finetune,
    judge,
    lesson_of,
)
from llamacast.text.flops import QWEN2_5_05B, config_of
from llamacast.text.language import LORA_TARGETS, Language, load_language
from llamacast.text.likelihood import log_probabilities
from llamacast.text.objective import NextSymbol
from llamacast.text.search import Grid, lessons_of, search
from llamacast.text.windows import batch_of
from llamacast.training.lora import inject, merge

HORIZON = 4


@pytest.fixture(scope="module")
def fabric():
    found = Fabric(accelerator="cpu", devices=1)
    found.launch()
    return found


def waves(count=6, steps=24, channels=2, seed=0):
    rng = np.random.default_rng(seed)
    turns = rng.uniform(0.5, 0.8, count)
    clock = np.arange(steps)
    return [
        np.stack([2 + np.sin(turn * clock + channel) for channel in range(channels)], axis=1)
        for turn in turns
    ]


CONFIG = FinetuneConfig(HORIZON, steps=16, batch=4, context=100, learning_rate=1e-2)


@pytest.mark.parametrize("which", ["decoder", "reader"])
@pytest.mark.parametrize("strategy", ["lora", "full"])
def test_what_is_learnt_is_better_on_what_was_held_back(which, strategy, request, fabric, tmp_path):
    language = request.getfixturevalue(which)
    before = language.digest()
    config = FinetuneConfig(
        HORIZON, strategy=strategy, steps=24, batch=4, context=160, learning_rate=2e-2
    )
    found, outcome = finetune(
        language, lesson_of(language, waves(), None, config), config, tmp_path, fabric
    )
    assert outcome.improved
    assert outcome.after < outcome.before - 0.2
    assert language.digest() == before
    assert found.digest() != before
    lesson = lesson_of(found, waves(), None, config)
    assert float(np.mean(judge(found, lesson))) == pytest.approx(outcome.after, abs=0.02)
    found.save(tmp_path / "kept")
    assert load_language(str(tmp_path / "kept")).digest() == found.digest()
    assert (tmp_path / "adapter").exists() == (strategy == "lora")


def test_frozen_weights_stay_and_merging_changes_nothing(decoder):
    from copy import deepcopy

    model = deepcopy(decoder.model)
    frozen = {name: weight.clone() for name, weight in model.named_parameters()}
    inject(model, 4, LORA_TARGETS)
    objective = NextSymbol(model, decoder.writing(2).ids)
    optimiser = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], lr=0.05)
    lesson = lesson_of(decoder, waves(), None, CONFIG)
    for step in range(3):
        optimiser.zero_grad()
        objective(lesson.batch(np.random.default_rng(step), 4)).backward()
        optimiser.step()
    for name, weight in model.named_parameters():
        plain = name.replace(".base_layer", "")
        if plain in frozen:
            assert torch.equal(weight, frozen[plain]), name
    assert sum(isinstance(one, LoraLayer) for one in model.modules()) == 4
    ids = lesson.batch(np.random.default_rng(9), 2)["ids"]
    with torch.inference_mode():
        apart = model(ids).logits
        merge(model)
        together = model(ids).logits
        assert not torch.allclose(together, decoder.model(ids).logits, atol=1e-3)
    assert torch.allclose(apart, together, atol=2e-4)
    assert not any(isinstance(one, LoraLayer) for one in model.modules())


def test_lora_of_the_true_shape_has_540672_weights():
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config_of(QWEN2_5_05B))
        assert sum(one.numel() for one in model.parameters()) == 494_032_768
        inject(model, 8, LORA_TARGETS)
    assert sum(one.numel() for one in model.parameters() if one.requires_grad) == 540_672


def test_fills_count_for_nothing(decoder):
    """A window beside a longer one has the loss that it has alone."""
    lesson = lesson_of(decoder, waves(), None, CONFIG)
    short, long = (lesson.window(lesson.judged[0], end, 100) for end in (12, 20))
    objective = NextSymbol(decoder.model, decoder.writing(2).ids)
    with torch.inference_mode():
        alone = [objective(batch_of([one])) for one in (short, long)]
        together = objective(batch_of([short, long]))
    assert together.item() == pytest.approx(sum(one.item() for one in alone), rel=1e-5)
    counts = [batch_of([one])["count"] for one in (short, long)]
    assert batch_of([short, long])["count"] == sum(counts) == len(short.ids) + len(long.ids) - 2


def test_the_loss_of_digits_is_the_likelihood_where_all_places_are_told_apart(reader):
    """Cross entropy over all symbols is never below that over legal ones."""
    lesson = lesson_of(reader, waves(), None, CONFIG)
    window = lesson.window(lesson.judged[0], 12, 100)
    objective = NextSymbol(reader.model, reader.writing(2).ids)
    with torch.inference_mode():
        loss = objective(batch_of([window])).item()
    (told,) = log_probabilities(reader, [window], 2)
    assert loss >= -np.nansum(told)


def test_windows_begin_where_a_step_does_and_fit(reader):
    config = FinetuneConfig(HORIZON, context=90)
    lesson = lesson_of(reader, waves(steps=60), None, config)
    for end in (30, 45, 56):
        window = lesson.window(lesson.train[0], end, 90)
        assert len(window.ids) <= 90
        assert window.states[0] == 0
        assert window.values[0] % 2 == 0
        assert window.values[-1] == 2 * end - 1


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(decoder, fabric, tmp_path):
    class StopError(Exception):
        pass

    def stop(row):
        if row["step"] >= 9:
            raise StopError

    lesson = lesson_of(decoder, waves(), None, CONFIG)
    whole, outcome = finetune(decoder, lesson, CONFIG, tmp_path / "whole", fabric)
    with pytest.raises(StopError):
        finetune(decoder, lesson, CONFIG, tmp_path / "broken", fabric, report=stop)
    again, second = finetune(decoder, lesson, CONFIG, tmp_path / "broken", fabric)
    records = [(tmp_path / name / "gradients.csv").read_text() for name in ("whole", "broken")]
    assert [line.split(",")[0] for line in records[0].splitlines()] == [
        line.split(",")[0] for line in records[1].splitlines()
    ]
    assert second == outcome
    for one, other in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_gradients_of_both_matrices_are_on_record(decoder, fabric, tmp_path):
    finetune(decoder, lesson_of(decoder, waves(), None, CONFIG), CONFIG, tmp_path, fabric)
    with (tmp_path / "gradients.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, 17))
    assert all(float(row["lora_B"]) > 0 for row in rows)
    assert float(rows[0]["lora_A"]) == 0  # B begins at nothing
    assert float(rows[-1]["lora_A"]) > 0


def test_a_run_beyond_the_budget_is_refused_with_what_fits(decoder, fabric, tmp_path):
    lesson = lesson_of(decoder, waves(), None, CONFIG)
    enough = cost(decoder, lesson, CONFIG)
    assert check_budget(decoder, lesson, CONFIG) == enough
    tight = FinetuneConfig(
        HORIZON, steps=16, batch=4, context=100, learning_rate=1e-2, budget=0.8 * enough
    )
    with pytest.raises(DataError, match=r"more than the budget.*; (\d+) steps fit") as told:
        finetune(decoder, lesson, tight, tmp_path / "run", fabric)
    assert not (tmp_path / "run").exists()
    fitting = int(str(told.value).split("; ")[1].split()[0])
    assert 0 < fitting < 16
    for steps, fits in ((fitting, True), (fitting + 3, False)):
        asked = FinetuneConfig(HORIZON, steps=steps, batch=4, context=100)
        assert (cost(decoder, lesson, asked) <= 0.8 * enough) == fits


def test_a_model_that_learns_nothing_good_is_kept_as_it_was(decoder, fabric, tmp_path):
    wild = FinetuneConfig(HORIZON, steps=4, batch=2, context=100, learning_rate=50.0)
    lesson = lesson_of(decoder, waves(), None, wild)
    found, outcome = finetune(decoder, lesson, wild, tmp_path, fabric)
    assert found is decoder
    assert not outcome.improved
    assert "kept" in str(outcome)


def test_series_by_which_weights_are_chosen_may_be_others(decoder):
    others = waves(count=3, seed=9)
    lesson = lesson_of(decoder, waves(), others, CONFIG)
    assert len(lesson.judged) == 3
    assert len(lesson.train[0]) == 24
    own = lesson_of(decoder, waves(), None, CONFIG)
    assert len(own.train[0]) == 24 - HORIZON


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"horizon": 0}, "horizon must be a whole number of at least 1"),
        ({"horizon": "5"}, "horizon must be a whole number"),
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
        ({"strategy": "half"}, "lora or full"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"budget": 0.0}, "budget"),
        ({"rank": 0}, "rank"),
    ],
)
def test_bad_requests_are_named(changes, message):
    with pytest.raises(DataError, match=message):
        FinetuneConfig(**{"horizon": 4, **changes})


def test_numbers_of_numpy_are_numbers():
    config = FinetuneConfig(horizon=np.int64(4), seed=np.int32(3))
    assert json.loads(json.dumps(dataclasses.asdict(config)))["seed"] == 3


def test_series_that_are_too_short_and_contexts_too_small_are_told(decoder):
    with pytest.raises(DataError, match="no series has the 16 steps"):
        lesson_of(decoder, waves(steps=10), None, CONFIG)
    with pytest.raises(DataError, match=r"context of 6 tokens does not hold two steps"):
        lesson_of(decoder, waves(), None, FinetuneConfig(HORIZON, context=6))
    with pytest.raises(DataError, match=r"200 tokens.*do not hold a horizon of 48"):
        lesson_of(decoder, waves(steps=150), None, FinetuneConfig(48))


def test_a_grid_is_tried_told_and_gone_on_with(decoder, fabric, tmp_path):
    grid = Grid((1e-3, 1e-2), (2,), (60, 100))
    config = FinetuneConfig(HORIZON, steps=4, batch=2)
    lessons = lessons_of(decoder, waves(), None, config, grid)
    trials = search(decoder, lessons, config, grid, tmp_path, fabric)
    assert len(trials) == 4
    assert [one.score for one in trials] == sorted(one.score for one in trials)
    assert all(math.isfinite(one.score) for one in trials)
    assert (tmp_path / "search.png").stat().st_size > 5000
    told = (tmp_path / "search.csv").read_text()
    assert search(decoder, lessons, config, grid, tmp_path, fabric) == trials
    assert (tmp_path / "search.csv").read_text() == told
    total = sum(one.flops for one in trials)
    tight = FinetuneConfig(HORIZON, steps=4, batch=2, budget=total / 2)
    with pytest.raises(DataError, match=r"4 runs of the grid.*steps fit"):
        lessons_of(decoder, waves(), None, tight, grid)
    with pytest.raises(DataError, match="a context of 512 is too long"):
        lessons_of(decoder, waves(), None, config, Grid())


def test_copies_share_what_does_not_learn(decoder):
    from copy import deepcopy

    model = deepcopy(decoder.model)
    inject(model, 2, LORA_TARGETS)
    objective = NextSymbol(model, decoder.writing(2).ids)
    copy = deepcopy(objective)
    assert set(copy.state_dict()) == set(objective.state_dict()) == set(objective.learnt)
    for (name, one), (_, other) in zip(
        objective.named_parameters(), copy.named_parameters(), strict=True
    ):
        assert (one is other) == (name not in objective.learnt)
    with pytest.raises(RuntimeError, match="other weights"):
        objective.load_state_dict({"model.nothing": torch.zeros(1)})
    assert isinstance(decoder, Language)


def test_what_has_no_values_to_judge_by_does_not_judge(decoder, fabric, tmp_path):
    systems = waves(4)
    systems[1][-HORIZON:] = np.nan
    systems[2][:, 0] = np.nan
    lesson = lesson_of(decoder, systems, None, CONFIG)
    assert len(lesson.judged) == 2
    assert np.isfinite(judge(decoder, lesson)).all()
    for one in systems:
        one[-HORIZON:] = np.nan
    with pytest.raises(DataError, match="with values among the last"):
        lesson_of(decoder, systems, None, CONFIG)


def test_a_zero_to_be_judged_rules_logarithms_out(decoder):
    systems = waves()
    systems[0][-1] = 0.0
    lesson = lesson_of(decoder, systems, None, CONFIG)
    assert len(lesson.judged) == len(systems)
    assert not lesson.codec.transform.startswith("log")


@pytest.mark.parametrize("steps", [15, 16, 17, 100])
def test_every_validation_is_in_the_cost(decoder, fabric, tmp_path, monkeypatch, steps):
    from llamacast.text import finetune as module

    seen = []

    def count(language, lesson):
        seen.append(1)
        return [float(-len(seen))]

    config = FinetuneConfig(HORIZON, steps=steps, batch=1, context=60)
    lesson = lesson_of(decoder, waves(2), None, config)
    monkeypatch.setattr(module, "judge", count)
    finetune(decoder, lesson, config, tmp_path, fabric)
    once = sum(
        module.forward(module.shape_of(decoder.model.config), len(w.ids), 8) for w in lesson.windows
    )
    told = module._validation_cost(decoder, lesson, config)
    tried = sum(module.forward(module.shape_of(decoder.model.config), n) for n in lesson.tried)
    assert told - tried == len(seen) * once
    assert lesson.tried
