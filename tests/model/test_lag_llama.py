"""The network against the official one (fixtures in `tests/golden`), and identities of ours."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llamacast.model.config import LagLlamaConfig, lag_llama, official_lag_llama
from llamacast.model.lag_llama import LagLlama
from llamacast.model.official import translate_official_weights
from llamacast.model.tokens import Lags, look_back, make_tokens, token_calendar
from llamacast.model.transformer import rotation
from tests.model.reference import TINY, naive_decode, official_model

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
ROTARY = {
    "tf": {},
    "linear": {"rotary": "linear", "rotary_factor": 2.0},
    "dynamic": {"rotary": "dynamic", "rotary_factor": 2.0},
    "nope": {"rotary": "absent"},
}


def whole_window(fixture, max_lag=1092):
    """Values, observed and the calendar of the tokens' steps, past and future joined."""
    values = torch.cat([fixture["in.past_target"], fixture["in.future_target"]], dim=1)
    observed = torch.cat(
        [fixture["in.past_observed_values"], fixture["in.future_observed_values"]], dim=1
    )
    calendar = torch.cat([fixture["in.past_time_feat"], fixture["in.future_time_feat"]], dim=1)
    return values, observed.bool(), calendar[:, max_lag:]


def check_teacher_forced(model, fixture, expected, values, observed, calendar, horizon):
    """Parameters, location, scale and loss of every position."""
    history_length = values.shape[1] - horizon
    window = model.scale_window(values[:, :history_length], observed[:, :history_length])
    distribution = model(model.extend_window(window, values[:, :-1], observed[:, :-1]), calendar)
    for ours, theirs in (("df", "df"), ("loc", "dist_loc"), ("scale", "dist_scale")):
        torch.testing.assert_close(
            getattr(distribution, ours), fixture[expected + theirs], **TOLERANCE
        )
    torch.testing.assert_close(window.location, fixture[expected + "loc"], **TOLERANCE)
    torch.testing.assert_close(window.scale, fixture[expected + "scale"], **TOLERANCE)
    losses, counted = model.loss(values, observed, calendar, history_length)
    in_data_units = losses + window.scale.log()
    mean = in_data_units[counted].mean()
    torch.testing.assert_close(mean, fixture[expected + "loss"].squeeze(), **TOLERANCE)
    return in_data_units * counted, mean


@pytest.mark.parametrize("rotary", ROTARY)
def test_teacher_forced_pass_is_the_official_one(golden, rotary):
    fixture = golden("tiny_model")
    model = official_model(fixture.under("w."), **ROTARY[rotary])
    values, observed, calendar = whole_window(fixture)
    losses, _ = check_teacher_forced(
        model, fixture, f"{rotary}.", values, observed, calendar, horizon=5
    )
    torch.testing.assert_close(losses, fixture[f"{rotary}.loss_per_position"], **TOLERANCE)


def test_gradients_are_the_official_ones(golden):
    fixture = golden("tiny_model")
    model = official_model(fixture.under("w."))
    values, observed, calendar = whole_window(fixture)
    _, loss = check_teacher_forced(model, fixture, "tf.", values, observed, calendar, horizon=5)
    loss.backward()
    expected = translate_official_weights(fixture.under("grad."), "fixture")
    ours = {name: weight.grad for name, weight in model.named_parameters()}
    assert ours.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(ours[name], gradient, **TOLERANCE, msg=name)


def test_tokens_are_the_official_ones(golden):
    fixture = golden("tiny_model")
    model = official_model(fixture.under("w."))
    values, observed, calendar = whole_window(fixture)
    window = model.scale_window(values[:, :-5], observed[:, :-5])
    scaled = (values.masked_fill(~observed, 0.0) - window.location) / window.scale
    lags = look_back(scaled[:, :-1], observed[:, :-1], TINY, 20)
    tokens = make_tokens(lags, window.statistics, token_calendar(calendar, TINY), TINY)
    torch.testing.assert_close(tokens, fixture["tf.transformer_input"], **TOLERANCE)


def test_first_inference_step_is_the_official_one(golden):
    fixture = golden("tiny_model")
    model = official_model(fixture.under("w."))
    values, observed, calendar = whole_window(fixture)
    step = naive_decode(model, values[:, :-5], observed[:, :-5], calendar[:, :17], horizon=1)
    for key, expected in fixture.under("one.").items():
        if key in step:
            last = expected.reshape(3, -1)[:, -1:]
            torch.testing.assert_close(step[key], last, **TOLERANCE)


@pytest.mark.parametrize("rotary", ["none", "linear"])
def test_decode_that_grows_and_rescales_is_the_official_one(golden, rotary):
    fixture = golden("tiny_model")
    model = official_model(fixture.under("w."), **ROTARY.get(rotary, {}))
    values, observed, calendar = whole_window(fixture)
    steps = naive_decode(model, values[:, :-5], observed[:, :-5], calendar, horizon=5)
    expected = golden("tiny_kv_decode").under(f"{rotary}.kv_false.")
    assert steps.keys() == expected.keys()
    for key in expected:
        torch.testing.assert_close(steps[key], expected[key], **TOLERANCE)


def test_official_cache_is_a_sliding_window(golden):
    """What the official cache computes, from the same network with a banded mask."""
    fixture = golden("tiny_kv_decode")
    model = official_model(golden("tiny_model").under("w."))
    tokens = fixture["banded.token_features"]
    steps = torch.arange(20)
    band = (steps[:, None] - steps >= 0) & (steps[:, None] - steps < 16)

    def banded(layer, query, key, value):
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=band)

    hidden = model.transformer(tokens, rotation(steps, 20, model.config), banded)
    seen = Lags(tokens[..., :84], torch.ones(3, 20, 84, dtype=torch.bool))
    distribution = model.distribution(hidden, seen, torch.ones(3, 1))
    for ours, theirs in (("df", "df"), ("loc", "dist_loc"), ("scale", "dist_scale")):
        found = getattr(distribution, ours)[:, 15:]
        torch.testing.assert_close(found, fixture[f"banded.{theirs}"], **TOLERANCE)


@pytest.mark.parametrize("rotary", ["none", "linear", "dynamic"])
def test_contexts_beyond_the_maximum(golden, rotary):
    fixture = golden("tiny_rope_long")
    model = official_model(
        golden("tiny_model").under("w."), max_context_length=32, **ROTARY.get(rotary, {})
    )
    values, observed, calendar = whole_window(fixture)
    check_teacher_forced(model, fixture, f"{rotary}.", values, observed, calendar, horizon=5)


def test_a_long_sequence_leaves_no_trace(golden):
    """The official dynamic rotary positions keep the stretched base; ours do not."""
    short, long = golden("tiny_model"), golden("tiny_rope_long")
    model = official_model(short.under("w."), max_context_length=32, **ROTARY["dynamic"])

    def short_losses():
        values, observed, calendar = whole_window(short)
        return model.loss(values, observed, calendar, values.shape[1] - 5)[0]

    before = short_losses()
    values, observed, calendar = whole_window(long)
    model.loss(values, observed, calendar, values.shape[1] - 5)
    assert torch.equal(short_losses(), before)


def test_degenerate_series_are_as_in_the_official_code(golden):
    fixture = golden("degenerate")
    model = official_model(golden("tiny_model").under("w."))
    past, seen = fixture["in.past_target"], fixture["in.past_observed_values"].bool()
    calendar = fixture["in.past_time_feat_full_row"].repeat(10, 1, 1)
    # The fixture zeroes the features of padding, but not in the row that is missing throughout.
    for row in (2, 3, 7, 8):
        first = int(seen[row].int().argmax()) if seen[row].any() else 1108
        calendar[row, :first] = 0.0
    calendar = torch.cat([calendar, fixture["in.future_time_feat"]], dim=1)[:, 1092:]
    steps = naive_decode(model, past, seen, calendar, horizon=5)
    for key, expected in fixture.under("decode.").items():
        torch.testing.assert_close(steps[key], expected, **TOLERANCE, msg=key)
    values = torch.cat([past, fixture["in.future_target"]], dim=1)
    observed = torch.cat([seen, fixture["in.future_observed_values"].bool()], dim=1)
    losses, counted = model.loss(values, observed, calendar, 1108)
    window = model.scale_window(past, seen)
    in_data_units = (losses + window.scale.log()) * counted
    torch.testing.assert_close(in_data_units, fixture["tf.loss_per_position"], rtol=2e-5, atol=2e-5)


def test_padded_series_with_missing_values_decode_as_in_the_official_code(golden):
    fixture = golden("pipeline")
    model = official_model(golden("tiny_model").under("w."))
    values, observed, past, future = (
        torch.stack([fixture[f"s{number}.{name}"] for number in (0, 1)])
        for name in ("past_target", "past_observed_values", "past_time_feat", "future_time_feat")
    )
    calendar = torch.cat([past, future], dim=1)[:, 1092:]
    window = model.scale_window(values, observed.bool())
    lags = look_back(window.scaled, window.observed, TINY, 16)
    tokens = make_tokens(lags, window.statistics, calendar[:, :16], TINY)
    torch.testing.assert_close(tokens, fixture["decode.transformer_input_step0"], **TOLERANCE)
    steps = naive_decode(model, values, observed.bool(), calendar, horizon=5)
    for key in steps:
        torch.testing.assert_close(steps[key], fixture[f"decode.{key}"], **TOLERANCE)


# --- The full-size network, with weights given by a formula ---------------------------------------


def splitmix64(parameter: int, count: int) -> np.ndarray:
    """Uniform numbers in [-0.5, 0.5) of one parameter, as `full_size_formula.json` defines."""
    with np.errstate(over="ignore"):
        x = np.uint64(parameter << 32) + np.arange(count, dtype=np.uint64)
        z = x + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) / 2**24 - 0.5


@pytest.fixture(scope="module")
def formula_weights(golden_path):
    order = json.loads((golden_path / "full_size_formula.json").read_text())["parameter_order"]
    described = json.loads((golden_path / "full_size_state_dict.json").read_text())
    shapes = described["studentT"]["state_dict"]
    weights = {}
    for number, name in enumerate(order):
        shape = shapes[f"model.{name}"]["shape"]
        u = splitmix64(number, int(np.prod(shape))).reshape(shape)
        if len(shape) == 2:
            u = u * np.sqrt(12 / shape[1])
        else:
            u = 1 + 0.2 * u if name.endswith("scale") else 0.2 * u
        weights[name] = torch.from_numpy(u.astype(np.float32))
    return weights


@pytest.mark.parametrize(
    ("case", "changes", "horizon"),
    [
        ("c32", {"context_length": 32}, 24),
        ("c256_linear", {"context_length": 256, "rotary": "linear", "rotary_factor": 8.25}, 8),
    ],
)
def test_full_size_network(golden, formula_weights, case, changes, horizon):
    fixture = golden("full_size_formula")
    model = official_model(formula_weights, official_lag_llama(), **changes)
    past, seen = (
        fixture[f"{case}.in.past_target"],
        fixture[f"{case}.in.past_observed_values"].bool(),
    )
    calendar = fixture[f"{case}.in.time_feat"].repeat(len(past), 1, 1)[:, 1092:]
    values = torch.cat([past, fixture[f"{case}.in.future_target"]], dim=1)
    observed = torch.cat([seen, fixture[f"{case}.in.future_observed_values"].bool()], dim=1)
    with torch.no_grad():
        check_teacher_forced(model, fixture, f"{case}.", values, observed, calendar, horizon)
        steps = naive_decode(model, past, seen, calendar, horizon)
    for key, expected in fixture.under(f"{case}.decode_kv_false.").items():
        torch.testing.assert_close(steps[key], expected, **TOLERANCE)


def test_number_of_parameters_and_names(golden_path):
    described = json.loads((golden_path / "full_size_state_dict.json").read_text())

    def count(config):
        return sum(weight.numel() for weight in LagLlama(config).parameters())

    official = official_lag_llama()
    assert count(official) == 2_449_299
    assert count(dataclasses.replace(official, calendar="none")) == 2_448_435
    for key, changes in {
        "studentT": {},
        "neg_bin": {"head": "negative_binomial", "scaling": "mean"},
        "iqn": {"head": "quantile_network"},
    }.items():
        config = dataclasses.replace(official, **changes)
        named = {
            name: torch.empty(entry["shape"])
            for name, entry in described[key]["state_dict"].items()
        }
        ours = translate_official_weights(named, "fixture")
        expected = {name: weight.shape for name, weight in LagLlama(config).state_dict().items()}
        assert {name: weight.shape for name, weight in ours.items()} == expected
        assert count(config) == described[key]["parameters"]


# --- Identities of our own conventions ------------------------------------------------------------

SMALL = dataclasses.replace(
    lag_llama(), num_layers=2, num_heads=2, head_width=8, feedforward_width=32
)


def small_model(config: LagLlamaConfig = SMALL) -> LagLlama:
    model = LagLlama(config).eval()
    model.initialise(torch.Generator().manual_seed(0))
    return model


def window_of(num_series=3, context_length=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(
        num_series, SMALL.max_lag + context_length, generator=generator, dtype=torch.float64
    )
    observed = torch.rand(values.shape, generator=generator) > 0.1
    calendar = torch.rand(num_series, context_length + 1, 6, generator=generator) - 0.5
    return values.cumsum(dim=1), observed, calendar


@settings(max_examples=20, deadline=None)
@given(factor=st.floats(1e-8, 1e8))
def test_a_change_of_unit_changes_nothing(factor):
    model = small_model()
    values, observed, calendar = window_of()
    with torch.no_grad():
        plain = model.scale_window(values, observed)
        other = model.scale_window(values * factor, observed)
        first, second = model(plain, calendar), model(other, calendar)
    torch.testing.assert_close(second.loc, first.loc, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(second.scale, first.scale, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(other.scale, plain.scale * factor)


def test_values_under_the_mask_are_never_seen():
    model = small_model()
    values, observed, _ = window_of()
    poisoned = values.masked_fill(~observed, torch.nan)
    clean, other = model.scale_window(values, observed), model.scale_window(poisoned, observed)
    for name, part in vars(clean).items():
        assert torch.equal(part, getattr(other, name)), name


def test_a_position_does_not_see_later_ones():
    model = small_model()
    values, observed, calendar = window_of()
    window = model.scale_window(values, observed)
    scaled = window.scaled.clone()
    scaled[:, -3:] += 10.0
    changed = dataclasses.replace(window, scaled=scaled)
    with torch.no_grad():
        one, two = model(window, calendar), model(changed, calendar)
    assert torch.equal(one.loc[:, :-3], two.loc[:, :-3])
    assert not torch.allclose(one.loc[:, -3:], two.loc[:, -3:])


def test_dropout_is_for_training_only():
    model = small_model(dataclasses.replace(SMALL, dropout=0.5))
    values, observed, calendar = window_of()
    window = model.scale_window(values, observed)
    with torch.no_grad():
        assert torch.equal(model(window, calendar).loc, model(window, calendar).loc)
        model.train()
        assert not torch.equal(model(window, calendar).loc, model(window, calendar).loc)
