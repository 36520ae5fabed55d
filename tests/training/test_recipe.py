from __future__ import annotations

import pytest

from llamacast.forecast import DataError
from llamacast.model.config import lag_llama
from llamacast.training.config import PretrainConfig
from llamacast.training.recipe import Note, Recipe, read_recipe


def read(tmp_path, text):
    (tmp_path / "recipe.toml").write_text(text)
    return read_recipe(tmp_path / "recipe.toml")


def test_an_empty_recipe_is_the_default(tmp_path):
    assert read(tmp_path, "") == Recipe()
    assert Recipe().training == PretrainConfig()
    assert Recipe().training.model == lag_llama()


def test_every_kind_of_value(tmp_path):
    recipe = read(
        tmp_path,
        """
        data = "series"
        without = ["m4"]
        left_out_days = {shops = ["12-25", "01-01"]}
        seed = 3
        precision = "bf16-mixed"
        [mixture]
        points_exponent = 1
        weights = {m3 = 2.0}
        [hold_out.shares]
        m1 = 0.1
        [windows]
        lengths = [32, 64]
        length_weights = [1, 2]
        [loop]
        optimiser = "adamw"
        [model]
        rotary = "linear"
        rotary_factor = 2
        input_limit = 3.0
        [notes.m1]
        licence = "GPL-3"
        leakage = "M competition"
        [notes.m3]
        leakage = "M competition"
        """,
    )
    assert recipe.data == tmp_path / "series"
    assert (recipe.without, recipe.precision, recipe.training.seed) == (("m4",), "bf16-mixed", 3)
    assert recipe.left_out_days == {"shops": ("12-25", "01-01")}
    training = recipe.training
    assert training.mixture.points_exponent == 1.0
    assert training.mixture.weights == {"m3": 2.0}
    assert training.hold_out.of("m1") == 0.1
    assert training.windows.lengths == (32, 64)
    assert (training.loop.optimiser, training.model.rotary_factor) == ("adamw", 2.0)
    assert training.model.input_limit == 3.0
    assert recipe.notes["m1"] == Note("GPL-3", "M competition")
    assert recipe.licences == {"m1": "GPL-3"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("speed = 3", "'speed'"),
        ("[loop]\nspeed = 3", "'loop.speed'"),
        ("[loop]\nsteps = 0", r"\[loop\] steps"),
        ("[loop]\nsteps = 1.5", "loop.steps must be of type int"),
        ("[loop]\noptimiser = 'sgd'", "loop.optimiser must be one of 'muon', 'adamw'"),
        ("[loop]\nlearning_rate = '1'", "loop.learning_rate must be a number"),
        ("[loop]\nweight_decay = nan", "loop.weight_decay must be a number"),
        ("seed = -1", r"recipe\.toml: seed must not be negative"),
        ("[windows]\nlengths = 3", "windows.lengths must be a list"),
        ("[windows]\nlengths = [1, 2]", "lengths"),
        ("[mixture]\nweights = {m3 = 'x'}", "mixture.weights.m3 must be a number"),
        ("[model]\nhead = 'cauchy'", "model.head"),
        ("loop = 3", "loop must be a table"),
        ("[training]\nseed = 1", "'training'"),
        ("data = 3", "data must be a path"),
        ("not toml", "TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, told):
    with pytest.raises(DataError, match=told):
        read(tmp_path, text)


def test_a_missing_recipe_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.toml"):
        read_recipe(tmp_path / "nothing.toml")


def test_steps_may_be_changed_from_outside():
    assert Recipe().lengthened(None) == Recipe()
    assert Recipe().lengthened(7).training.loop.steps == 7
