"""Native decoding is torch's, where it can be had; where it cannot, nothing else changes."""

from __future__ import annotations

import copy
import dataclasses
import gc
import shutil
import stat
import weakref

import pytest
import torch

from llamacast.model.config import lag_llama
from llamacast.model.lag_llama import LagLlama
from llamacast.model.transformer import rotation
from llamacast.sampling import decoder, native
from llamacast.sampling.cache import PrefixCache, bytes_per_sample, bytes_per_series
from llamacast.sampling.decoder import TorchDecoder, run_context
from llamacast.sampling.engine import groups, sample_paths
from llamacast.sampling.native import NativeDecoder, native_weights
from llamacast.sampling.streams import uniforms

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, native.COMPILERS)), reason="no C compiler on this machine"
)


def transformer(num_heads=3, head_width=16, feedforward_width=48, rotary="default"):
    config = dataclasses.replace(
        lag_llama(),
        num_layers=2,
        num_heads=num_heads,
        head_width=head_width,
        feedforward_width=feedforward_width,
        rotary=rotary,
    )
    model = LagLlama(config).eval()
    generator = torch.Generator().manual_seed(0)
    model.initialise(generator)
    with torch.no_grad():
        for name, weight in model.transformer.named_parameters():
            if "norm" in name:
                weight.uniform_(0.5, 2.0, generator=generator)
    return model.transformer


@torch.no_grad()
def after(net, num_series, length, seed=1):
    """A prefix of so many series and steps."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(num_series, length, net.config.num_features, generator=generator)
    prefix = PrefixCache()
    net(tokens, rotation(torch.arange(length), length, net.config), prefix)
    return prefix


@torch.no_grad()
def steps_of(decode, net, num_series, num_samples, first, num_steps, rows=slice(None)):
    generator = torch.Generator().manual_seed(2)
    shape = (num_steps, num_series, num_samples, net.config.num_features)
    tokens = torch.randn(shape, generator=generator)
    found = []
    for step in range(num_steps):
        turn = rotation(torch.tensor([first + step]), first + num_steps, net.config)
        found.append(decode(tokens[step][:, rows], turn).clone())
    return torch.stack(found)


def native_steps(net, prefix, num_series, num_samples, num_steps, rows=slice(None)):
    weights = native_weights(net)
    assert weights is not None
    decode = NativeDecoder(weights, prefix, len(range(num_samples)[rows]), num_steps)
    length = prefix.keys[0].shape[2]
    return steps_of(decode, net, num_series, num_samples, length, num_steps, rows)


@pytest.mark.parametrize(
    ("num_series", "num_samples", "length", "num_steps"),
    [(1, 1, 1, 1), (1, 5, 15, 17), (3, 4, 16, 16), (2, 9, 17, 33), (1, 50, 40, 70)],
)
def test_native_is_torch(num_series, num_samples, length, num_steps):
    net = transformer()
    prefix = after(net, num_series, length)
    plain = TorchDecoder(net, prefix, num_samples, num_steps)
    expected = steps_of(plain, net, num_series, num_samples, length, num_steps)
    found = native_steps(net, prefix, num_series, num_samples, num_steps)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("num_heads", "head_width", "feedforward_width", "rotary"),
    [(4, 4, 16, "default"), (2, 8, 32, "linear"), (1, 32, 80, "default"), (3, 16, 64, "absent")],
)
def test_native_is_torch_in_other_shapes(num_heads, head_width, feedforward_width, rotary):
    net = transformer(num_heads, head_width, feedforward_width, rotary)
    prefix = after(net, 2, 11)
    plain = TorchDecoder(net, prefix, 3, 20)
    expected = steps_of(plain, net, 2, 3, 11, 20)
    torch.testing.assert_close(native_steps(net, prefix, 2, 3, 20), expected, rtol=1e-4, atol=2e-5)


def test_extreme_scores_stay_finite():
    """One key takes all the weight: the rest must vanish, not turn into something else."""
    net = transformer()
    with torch.no_grad():
        for block in net.blocks:
            block.attention.query.weight.mul_(30.0)
            block.attention.key.weight.mul_(30.0)
            block.feedforward.gate.weight.mul_(100.0)
    prefix = after(net, 1, 20)
    plain = TorchDecoder(net, prefix, 4, 20)
    expected = steps_of(plain, net, 1, 4, 20, 20)
    torch.testing.assert_close(native_steps(net, prefix, 1, 4, 20), expected, rtol=0.02, atol=0.02)


def test_a_path_does_not_depend_on_those_beside_it():
    """To the bit: each result is the same sum in the same order, however many rows there are."""
    net = transformer()
    prefix = after(net, 1, 21)
    embed, weights = net.embed, native_weights(net)
    assert weights is not None
    # torch's own products, with which tokens are embedded, round by the number of rows.
    weights.embed = lambda x: (x.double() @ embed.weight.double().mT + embed.bias).float()
    together = native_steps(net, prefix, 1, 13, 19)
    for rows in (slice(0, 1), slice(3, 8), slice(12, 13)):
        alone = native_steps(net, prefix, 1, 13, 19, rows)
        assert torch.equal(alone, together[:, :, rows])


def by_data(net):
    net.blocks[0].attention.value.weight.data.mul_(2.0)


def by_numpy(net):
    net.blocks[1].feedforward.gate.weight.detach().numpy()[:] *= 2.0


def by_a_fused_optimiser(net):
    for weight in net.parameters():
        weight.grad = torch.ones_like(weight)
    torch.optim.AdamW(net.parameters(), fused=True).step()


def by_another_parameter(net):
    for _ in range(2):
        value = net.blocks[0].attention.value
        value.weight = torch.nn.Parameter(2.0 * value.weight.detach())


def by_another_module(net):
    other = copy.deepcopy(net.blocks[0].feedforward.down)
    other.weight.data.mul_(2.0)
    net.blocks[0].feedforward.down = other


def in_place(net):
    with torch.no_grad():
        net.norm.weight.mul_(2.0)


@pytest.mark.parametrize(
    "change",
    [in_place, by_data, by_numpy, by_a_fused_optimiser, by_another_parameter, by_another_module],
)
def test_weights_that_changed_are_read_again(change):
    net = transformer()
    before = native_weights(net)
    assert native_weights(net) is before
    change(net)
    tokens = torch.randn(2, 9, net.config.num_features)
    turn = rotation(torch.arange(9), 9, net.config)
    with torch.no_grad():
        expected = net(tokens, turn, PrefixCache())
        torch.testing.assert_close(run_context(net, tokens, turn), expected, rtol=1e-4, atol=2e-5)
    assert native_weights(net) is not before


def test_what_stands_beside_matrices_is_not_passed_over():
    net = transformer()
    assert native_weights(net) is not None
    net.blocks[0].attention.adapter = torch.nn.Linear(4, 4)
    assert native_weights(net) is None


def test_what_is_known_of_weights_goes_with_them():
    net = transformer()
    native_weights(net)
    gone = weakref.ref(net), weakref.ref(net.norm.weight)
    del net
    gc.collect()
    assert [one() for one in gone] == [None, None]


def test_torchs_defaults_change_nothing():
    model, *window = model_and_window()
    draws = uniforms(["a", "b"], 0, 8, 40)
    expected = sample_paths(model, *window, draws)
    torch.set_default_dtype(torch.float64)
    try:
        found = sample_paths(model, *window, draws)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_weights_made_in_inference_mode_serve():
    with torch.inference_mode():
        net = transformer()
        before = native_weights(net)
        assert before is not None
        assert native_weights(net) is before
        net.blocks[0].attention.value.weight.mul_(2.0)
        assert native_weights(net) is not before


def test_where_gradients_are_wanted_torch_serves():
    net = transformer()
    tokens = torch.randn(1, 5, net.config.num_features)
    run_context(net, tokens, rotation(torch.arange(5), 5, net.config)).sum().backward()
    assert net.blocks[0].attention.value.weight.grad is not None


def test_only_float32_on_a_cpu_is_native():
    assert native_weights(transformer()) is not None
    assert native_weights(transformer().to(torch.bfloat16)) is None
    assert native_weights(transformer(num_heads=8, head_width=6)) is None
    assert native_weights(transformer(feedforward_width=36)) is None


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Nothing compiled yet, and nothing remembered."""
    monkeypatch.setenv("LLAMACAST_CACHE", str(tmp_path / "cache"))
    native._library.cache_clear()
    yield tmp_path / "cache"
    native._library.cache_clear()


def compiler(tmp_path, monkeypatch, script):
    path = tmp_path / "fake-cc"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("CC", str(path))


def test_it_is_compiled_once(fresh, monkeypatch, tmp_path):
    assert native_weights(transformer()) is not None
    (made,) = fresh.iterdir()
    native._library.cache_clear()
    before = made.stat().st_mtime_ns
    assert native_weights(transformer()) is not None
    assert made.stat().st_mtime_ns == before


def test_a_compiler_that_does_not_know_the_machine_serves(fresh, monkeypatch, tmp_path):
    real = next(filter(None, map(shutil.which, native.COMPILERS)))
    script = f'case "$*" in *native\\ *) exit 1;; esac\nexec {real} "$@"'
    compiler(tmp_path, monkeypatch, script)
    assert native_weights(transformer()) is not None


@pytest.mark.parametrize(
    "script", ["exit 1", "sleep 5", 'for last; do :; done; echo nonsense > "$last"']
)
def test_without_a_working_compiler_torch_serves(fresh, monkeypatch, tmp_path, script):
    monkeypatch.setattr(native, "LONGEST_COMPILATION", 0.5)
    compiler(tmp_path, monkeypatch, script)
    assert native_weights(transformer()) is None


def test_a_compiler_that_is_not_there_is_passed_over(fresh, monkeypatch):
    monkeypatch.setenv("CC", "/nowhere/cc -O0")
    assert native_weights(transformer()) is not None


def test_a_stored_file_that_does_not_load_is_made_anew(fresh):
    assert native_weights(transformer()) is not None
    (made,) = fresh.iterdir()
    native._library.cache_clear()
    made.unlink()  # not written over: it is mapped
    made.write_text("nonsense")
    assert native_weights(transformer()) is not None
    assert made.stat().st_size > 1000


def test_without_a_home_torch_serves(fresh, monkeypatch):
    def nobody(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("LLAMACAST_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(native.Path, "expanduser", nobody)
    assert native_weights(transformer()) is None


def test_it_can_be_switched_off(fresh, monkeypatch):
    monkeypatch.setenv("LLAMACAST_NATIVE", "0")
    assert native_weights(transformer()) is None
    assert not fresh.exists()


def test_a_cache_that_cannot_be_written_is_no_error(fresh, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LLAMACAST_CACHE", str(tmp_path / "file" / "cache"))
    assert native_weights(transformer()) is None


def model_and_window():
    config = dataclasses.replace(
        lag_llama(), num_layers=2, num_heads=2, head_width=8, feedforward_width=32
    )
    model = LagLlama(config).eval()
    model.initialise(torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    values = torch.rand(2, config.max_lag + 20, generator=generator, dtype=torch.float64)
    calendar = torch.rand(2, 20 + 40, 6, generator=generator) - 0.5
    return model, values, torch.ones_like(values, dtype=torch.bool), calendar


def test_paths_are_those_of_torch(monkeypatch):
    model, *window = model_and_window()
    draws = uniforms(["a", "b"], 0, 30, 40)
    found = sample_paths(model, *window, draws)
    monkeypatch.setattr(decoder, "native_weights", lambda net: None)
    expected = sample_paths(model, *window, draws)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_threads_change_nothing():
    model, *window = model_and_window()
    draws = uniforms(["a", "b"], 0, 30, 40)
    one = sample_paths(model, *window, draws, num_threads=1)
    assert torch.equal(sample_paths(model, *window, draws, num_threads=3), one)


@pytest.mark.parametrize(
    ("num_series", "num_samples"),
    [(1, 1), (1, 3), (1, 100), (4, 100), (7, 9), (500, 100), (1, 101), (2, 1), (3, 1000)],
)
def test_groups_cover_all_paths_once(num_series, num_samples):
    for together in (100, None):
        seen = torch.zeros(num_series, num_samples)
        for part in groups(num_series, num_samples, together):
            seen[part.series, part.samples] += 1
        assert (seen == 1).all()
    assert len(groups(1, 100, 100)) == 2
    assert len(groups(2, 10, 100)) == 2


@pytest.mark.parametrize(
    ("num_heads", "head_width", "rotary", "num_series", "length"),
    [
        (3, 16, "default", 1, 1),
        (2, 32, "default", 3, 17),
        (4, 4, "absent", 2, 40),
        (1, 16, "linear", 5, 300),
    ],
)
def test_whole_contexts_are_those_of_torch(num_heads, head_width, rotary, num_series, length):
    net = transformer(num_heads, head_width, 48, rotary)
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randn(num_series, length, net.config.num_features, generator=generator)
    turn = rotation(torch.arange(length), length, net.config)
    expected_prefix, prefix = PrefixCache(), PrefixCache()
    with torch.no_grad():
        expected = net(tokens, turn, expected_prefix)
        found = run_context(net, tokens, turn, prefix)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)
        torch.testing.assert_close(run_context(net, tokens, turn), found, rtol=0, atol=0)
    for one, other in (
        (prefix.keys, expected_prefix.keys),
        (prefix.values, expected_prefix.values),
    ):
        torch.testing.assert_close(torch.stack(one), torch.stack(other), rtol=1e-4, atol=2e-5)


def test_what_comes_later_changes_nothing():
    """Not even where it is no number; 18 is within a group of queries."""
    net = transformer()
    tokens = torch.randn(1, 30, net.config.num_features)
    turn = rotation(torch.arange(30), 30, net.config)
    changed = tokens.clone()
    changed[:, 18:] = torch.nan
    weights = native_weights(net)
    assert weights is not None
    weights.embed = lambda x: (x.double() @ net.embed.weight.double().mT).float()
    with torch.no_grad():
        before, after_change = (run_context(net, one, turn) for one in (tokens, changed))
    assert torch.equal(before[:, :18], after_change[:, :18])


def test_what_is_kept_of_another_forecast_is_not_read():
    net = transformer()
    prefix = after(net, 1, 9)
    expected = native_steps(net, prefix, 1, 6, 20)
    native._KEPT.give(torch.full((1_000_000,), torch.nan))
    assert torch.equal(native_steps(net, prefix, 1, 6, 20), expected)


@pytest.mark.parametrize(("num_samples", "horizon"), [(1, 2), (4, 20), (50, 97), (100, 24)])
def test_memory_is_what_is_planned(num_samples, horizon):
    net = transformer()
    prefix, length = after(net, 2, 40), 40
    weights = native_weights(net)
    assert weights is not None
    native._KEPT.give(torch.empty(0))
    decode = NativeDecoder(weights, prefix, num_samples, horizon - 1)
    taken = 4 * len(decode.tails) + 4 * (decode.prefix_keys.numel() + decode.prefix_values.numel())
    paths = -(-num_samples // native.GROUP) * native.GROUP
    each = bytes_per_sample(net.config, length, horizon, 4)
    assert taken <= 2 * (paths * each + bytes_per_series(net.config, length, 4))
