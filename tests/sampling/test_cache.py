from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn import functional

from llamacast.model.config import lag_llama
from llamacast.sampling import cache
from llamacast.sampling.cache import PrefixCache, SampleCache, bytes_per_sample

SERIES, SAMPLES, HEADS, WIDTH, PREFIX, LAYERS = 2, 3, 2, 16, 20, 2


def normal(*shape, seed, size=2.0):
    return size * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def filled_prefix(dtype=torch.float32) -> PrefixCache:
    prefix = PrefixCache()
    for layer in range(LAYERS):
        parts = normal(3, SERIES, HEADS, PREFIX, WIDTH, seed=layer).to(dtype)
        prefix(layer, *parts)
    return prefix


def attend_by_steps(prefix, parts, tail_length):
    """What each step of the last layer finds; `parts`: (3, step, series, sample, head, 1, width)."""
    samples = SampleCache(prefix, SAMPLES, tail_length)
    found = []
    for step in range(parts.shape[1]):
        samples.advance()
        for layer in range(LAYERS):
            query, key, value = parts[:, step]
            answer = samples(layer, query, key + layer, value - layer)
        found.append(answer)
    return torch.stack(found)


def plainly(prefix, parts, step):
    """Attention of one step of the last layer over prefix and tail, joined."""
    last = LAYERS - 1
    query = parts[0, step]
    tails = parts[1, : step + 1] + last, parts[2, : step + 1] - last
    whole = []
    for shared, tail in zip((prefix.keys[last], prefix.values[last]), tails, strict=True):
        own = tail.squeeze(-2).permute(1, 2, 3, 0, 4)
        common = shared[:, None].expand(-1, SAMPLES, -1, -1, -1)
        whole.append(torch.cat([common.to(own.dtype), own], dim=-2))
    return functional.scaled_dot_product_attention(query, *whole)


@pytest.mark.parametrize("flash", [True, False])
@pytest.mark.parametrize("tail_length", [1, 2, 24, 25, 29, 49, 50, 51, 100])
def test_every_step_of_a_tail_of_any_length_is_plain_attention(monkeypatch, tail_length, flash):
    if not flash:
        monkeypatch.setattr(cache, "FLASH_ATTENTION", None)
    prefix = filled_prefix()
    parts = normal(3, tail_length, SERIES, SAMPLES, HEADS, 1, WIDTH, seed=5)
    found = attend_by_steps(prefix, parts, tail_length)
    for step in range(tail_length):
        expected = plainly(prefix, parts, step)
        torch.testing.assert_close(found[step], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(cache.FLASH_ATTENTION is None, reason="this torch has no such operator")
@pytest.mark.parametrize("size", [0.0, 1.0, 30.0])
def test_both_ways_to_attend_to_a_prefix_agree(size):
    query = normal(SERIES, HEADS, 37, WIDTH, seed=1, size=size)
    keys, values = normal(2, SERIES, HEADS, PREFIX, WIDTH, seed=2)
    for one, other in zip(
        cache.attend_prefix(query, keys, values),
        cache.attend_prefix_in_tiles(query, keys, values),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_scores_far_apart_stay_finite():
    """A tail that outweighs the prefix by more than float32 can say, and the other way round."""
    prefix = filled_prefix()
    parts = normal(3, 2, SERIES, SAMPLES, HEADS, 1, WIDTH, seed=6, size=1.0)
    for sign in (1.0, -1.0):
        parts[1] = sign * 1000.0 * parts[0] - 1.0
        found = attend_by_steps(prefix, parts, 2)
        for step in range(2):
            torch.testing.assert_close(
                found[step], plainly(prefix, parts, step), rtol=1e-4, atol=1e-4
            )


def test_bfloat16_does_without_flash_attention(monkeypatch):
    def refuse(*_):
        raise AssertionError("only float32 goes this way")

    parts = normal(3, 3, SERIES, SAMPLES, HEADS, 1, WIDTH, seed=7, size=1.0)
    expected = attend_by_steps(filled_prefix(), parts, 3)
    monkeypatch.setattr(cache, "FLASH_ATTENTION", refuse)
    found = attend_by_steps(filled_prefix(torch.bfloat16), parts.bfloat16(), 3)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("horizon", [2, 10, 25, 30, 51, 52, 97, 500])
def test_blocks_stay_within_the_memory_that_is_planned(horizon):
    config = dataclasses.replace(lag_llama(), num_layers=LAYERS, num_heads=HEADS, head_width=WIDTH)
    samples = SampleCache(filled_prefix(), SAMPLES, horizon - 1)
    for _ in range(horizon - 1):
        samples.advance()
    taken = sum(4 * block.numel() for block in samples.keys + samples.values)
    assert taken <= SERIES * SAMPLES * bytes_per_sample(config, PREFIX, horizon, 4)
