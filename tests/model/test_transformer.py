from __future__ import annotations

import dataclasses

import torch

from llamacast.model.config import lag_llama
from llamacast.model.transformer import CausalAttention, Transformer, rotate, rotation

CONFIG = dataclasses.replace(lag_llama(), num_layers=2, num_heads=2, head_width=8)


def test_rotary_tables_are_the_official_ones(golden):
    fixture = golden("tiny_rope_long")
    for name, factor in (("none", 1.0), ("linear", 2.0), ("dynamic", 2.0)):
        config = dataclasses.replace(
            CONFIG,
            rotary={"none": "default"}.get(name, name),
            rotary_factor=factor,
            max_context_length=32,
        )
        cosine, sine = rotation(torch.arange(52), 52, config)
        torch.testing.assert_close(cosine, fixture[f"{name}.cos_after"], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(sine, fixture[f"{name}.sin_after"], rtol=1e-5, atol=1e-5)


def test_scores_depend_on_distance_alone():
    query, key = torch.randn(2, 1, 8).unbind(0)
    scores = []
    for shift in (0, 5, 40):
        positions = torch.tensor([3, 9]) + shift
        cosine, sine = rotation(positions, 64, CONFIG)
        turned_query = rotate(query, (cosine[1:], sine[1:]))
        turned_key = rotate(key, (cosine[:1], sine[:1]))
        scores.append((turned_query * turned_key).sum())
    torch.testing.assert_close(scores[1], scores[0])
    torch.testing.assert_close(scores[2], scores[0])


def test_no_rotation_is_none():
    config = dataclasses.replace(CONFIG, rotary="absent")
    assert rotation(torch.arange(4), 4, config) is None


def test_the_transformer_is_causal():
    torch.manual_seed(0)
    transformer = Transformer(CONFIG, torch.nn.Linear(CONFIG.num_features, CONFIG.width))
    tokens = torch.randn(2, 10, CONFIG.num_features)
    turn = rotation(torch.arange(10), 10, CONFIG)
    with torch.no_grad():
        whole = transformer(tokens, turn, CausalAttention())
        part = transformer(tokens[:, :6], (turn[0][:6], turn[1][:6]), CausalAttention())
    torch.testing.assert_close(whole[:, :6], part)
