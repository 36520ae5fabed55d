from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from llamacast.model.config import LagLlamaConfig, lag_llama, official_lag_llama
from llamacast.model.lag_llama import LagLlama, ScaledWindow
from llamacast.sampling import decoder
from llamacast.sampling.cache import bytes_per_sample, bytes_per_series
from llamacast.sampling.engine import plan_parts, sample_paths
from llamacast.sampling.streams import uniforms

SIZE = {"num_layers": 2, "num_heads": 2, "head_width": 8, "feedforward_width": 32}
CONFIGS = {
    "ours": lag_llama(),
    "official": official_lag_llama(),
    "linear": dataclasses.replace(lag_llama(), rotary="linear", rotary_factor=2.0),
    "dynamic": dataclasses.replace(
        lag_llama(), rotary="dynamic", rotary_factor=2.0, max_context_length=16
    ),
    "no rotation": dataclasses.replace(lag_llama(), rotary="absent"),
    "no calendar": dataclasses.replace(lag_llama(), calendar="none"),
    "normal": dataclasses.replace(lag_llama(), head="normal"),
    "counts": dataclasses.replace(lag_llama(), head="negative_binomial", scaling="mean"),
    "quantiles": dataclasses.replace(lag_llama(), head="quantile_network"),
}
NAMES = ("a", "b", "c")
CONTEXT, HORIZON, SAMPLES = 12, 7, 5


@pytest.fixture(params=["native", "torch"], autouse=True)
def decoding(request, monkeypatch):
    """Everything holds with native code (where there is a compiler) and without."""
    if request.param == "torch":
        monkeypatch.setattr(decoder, "native_weights", lambda transformer: None)


def small_model(config: LagLlamaConfig) -> LagLlama:
    model = LagLlama(dataclasses.replace(config, **SIZE)).eval()
    model.initialise(torch.Generator().manual_seed(0))
    if model.anchor is not None:
        # Attend to all lags, so that a wrong one shows.
        torch.nn.init.zeros_(model.anchor.bias)
    return model


@pytest.fixture(scope="module")
def window():
    """Values, observed, calendar of three series."""
    generator = torch.Generator().manual_seed(1)
    shape = (3, lag_llama().max_lag + CONTEXT)
    values = torch.rand(shape, generator=generator, dtype=torch.float64).mul(9).round() + 1
    observed = torch.rand(shape, generator=generator) > 0.1
    observed[2, :1000] = False
    calendar = torch.rand(3, CONTEXT + HORIZON, 6, generator=generator) - 0.5
    return values, observed, calendar


def naive_paths(model, values, observed, calendar, draws):
    """Every path on its own, everything computed again at every step; the scale frozen."""
    num_series, num_samples, horizon, _ = draws.shape
    history = model.scale_window(values, observed)
    parts = vars(history.to(torch.device("cpu"))).values()
    rows = ScaledWindow(*(part.repeat_interleave(num_samples, dim=0) for part in parts))
    calendar = calendar.repeat_interleave(num_samples, dim=0)
    context_length = calendar.shape[1] - horizon
    draws = draws.flatten(0, 1)
    for step in range(horizon):
        seen = calendar[:, : context_length + step + 1]
        distribution = model(rows, seen, sequence_length=context_length + horizon - 1)
        every_position = draws[:, None, step].expand(-1, context_length + step, -1)
        drawn = distribution.sample(every_position)[:, -1:]
        rows = dataclasses.replace(
            rows,
            scaled=torch.cat([rows.scaled, drawn], dim=1),
            observed=functional.pad(rows.observed, (0, 1), value=True),
        )
    paths = rows.scaled[:, -horizon:].unflatten(0, (num_series, num_samples)).double()
    return paths * history.scale[:, None] + history.location[:, None]


@pytest.mark.parametrize("name", CONFIGS)
def test_cached_is_uncached(window, name):
    model = small_model(CONFIGS[name])
    draws = uniforms(NAMES, 0, SAMPLES, HORIZON)
    with torch.no_grad():
        expected = naive_paths(model, *window, draws)
    found = sample_paths(model, *window, draws)
    assert found.shape == (3, SAMPLES, HORIZON)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_one_by_one_is_batched_in_any_order(window, name):
    model = small_model(CONFIGS[name])
    together = sample_paths(model, *window, uniforms(NAMES, 0, SAMPLES, HORIZON))
    for order in itertools.permutations(range(3)):
        rows = list(order)
        moved = [part[rows] for part in window]
        draws = uniforms([NAMES[row] for row in rows], 0, SAMPLES, HORIZON)
        torch.testing.assert_close(
            sample_paths(model, *moved, draws), together[rows], rtol=1e-5, atol=1e-5
        )
    for row in range(3):
        alone = [part[[row]] for part in window]
        draws = uniforms([NAMES[row]], 0, SAMPLES, HORIZON)
        torch.testing.assert_close(
            sample_paths(model, *alone, draws), together[[row]], rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("name", CONFIGS)
def test_one_path_along_the_means_is_each_step_given_the_means_before_it(window, name):
    model = small_model(CONFIGS[name])
    draws = uniforms(NAMES, 0, SAMPLES, HORIZON)
    found = sample_paths(model, *window, draws, joint=False)
    assert found.shape == (3, SAMPLES, HORIZON)
    values, observed, calendar = window
    history = model.scale_window(values, observed)
    scaled, seen = history.to(torch.device("cpu")).scaled, observed
    for step in range(HORIZON):
        rows = dataclasses.replace(history.to(torch.device("cpu")), scaled=scaled, observed=seen)
        with torch.no_grad():
            told = model(rows, calendar[:, : CONTEXT + step + 1], CONTEXT + HORIZON - 1)
            last = draws[:, :, step].unsqueeze(2).expand(-1, -1, CONTEXT + step, -1)
            drawn = torch.stack([told.sample(last[:, n]) for n in range(SAMPLES)], dim=1)[..., -1]
            mean = told.mean[:, -1:]
        expected = history.to_values(drawn.double()).sort(dim=1).values
        torch.testing.assert_close(found[:, :, step], expected, rtol=1e-4, atol=1e-4)
        scaled = torch.cat([scaled, mean], dim=1)
        seen = functional.pad(seen, (0, 1), value=True)


def test_samples_in_parts_are_samples_together(window):
    model = small_model(CONFIGS["ours"])
    draws = uniforms(NAMES, 0, SAMPLES, HORIZON)
    together = sample_paths(model, *window, draws)
    parts = [sample_paths(model, *window, draws[:, part]) for part in (slice(0, 2), slice(2, 5))]
    torch.testing.assert_close(torch.cat(parts, dim=1), together, rtol=1e-5, atol=1e-5)


def test_a_shorter_horizon_is_the_beginning_of_a_longer_one(window):
    values, observed, calendar = window
    model = small_model(CONFIGS["ours"])
    long = sample_paths(model, values, observed, calendar, uniforms(NAMES, 0, SAMPLES, HORIZON))
    for horizon in (1, 3):
        short = sample_paths(
            model,
            values,
            observed,
            calendar[:, : CONTEXT + horizon],
            uniforms(NAMES, 0, SAMPLES, horizon),
        )
        torch.testing.assert_close(short, long[:, :, :horizon], rtol=1e-5, atol=1e-5)


def test_a_change_of_unit_changes_the_unit_alone(window):
    values, observed, calendar = window
    model = small_model(CONFIGS["ours"])
    draws = uniforms(NAMES, 0, SAMPLES, HORIZON)
    plain = sample_paths(model, values, observed, calendar, draws)
    other = sample_paths(model, values * 1e6, observed, calendar, draws)
    torch.testing.assert_close(other, plain * 1e6, rtol=1e-4, atol=1.0)


def test_what_is_clamped_is_what_is_fed_back(window):
    """With every draw settled at the same value, later draws cannot tell paths apart."""
    model = small_model(CONFIGS["ours"])
    seen = []

    def clamp(drawn):
        seen.append(drawn)
        return torch.full_like(drawn, 4.0)

    draws = uniforms(NAMES, 0, SAMPLES, HORIZON)
    same = draws[:, :1].expand_as(draws).contiguous()
    paths = sample_paths(model, *window, same, clamp)
    assert (paths - 4.0).abs().max() < 1e-5
    for drawn in seen:
        torch.testing.assert_close(drawn, drawn[:, :1].expand_as(drawn))


def test_an_interrupted_request_leaves_nothing_behind(window):
    model = small_model(CONFIGS["ours"])
    draws = uniforms(NAMES, 0, SAMPLES, HORIZON)
    before = sample_paths(model, *window, draws)

    def interrupt(drawn):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample_paths(model, *window, draws, interrupt)
    assert torch.equal(sample_paths(model, *window, draws), before)


def test_bfloat16_is_near_float32(window):
    model = small_model(CONFIGS["ours"])
    draws = uniforms(NAMES, 0, 64, 2)
    calendar = window[2][:, : CONTEXT + 2]
    full = sample_paths(model, window[0], window[1], calendar, draws)
    model.transformer.to(torch.bfloat16)
    half = sample_paths(model, window[0], window[1], calendar, draws)
    spread = full.std()
    assert (full - half).abs().median() < 0.1 * spread


@given(
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(1, 100),
    st.integers(1, 100),
    st.integers(1, 2000),
)
def test_parts_cover_everything_once_within_the_budget(series, samples, one, each, budget):
    drawn = np.zeros((series, samples), dtype=int)
    for part in plan_parts(series, samples, one, each, budget):
        drawn[part.series, part.samples] += 1
        rows, columns = drawn[part.series, part.samples].shape
        needs = rows * (one + columns * each)
        assert needs <= budget or (rows == 1 and columns == 1)
    assert (drawn == 1).all()


def test_the_memory_that_is_planned_is_what_caches_take():
    config = lag_llama()
    tail = 2 * config.num_layers * config.width * 24 * 4
    assert tail < bytes_per_sample(config, 256, 24, 4) < 2 * tail
    prefix = 2 * config.num_layers * config.width * 256 * 4
    assert prefix < bytes_per_series(config, 256, 4) < 3 * prefix
