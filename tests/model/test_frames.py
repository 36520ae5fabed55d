from __future__ import annotations

import dataclasses

import torch

from llamacast.model.config import cria
from llamacast.model.frames import extrapolate, make_frames

CONFIG = dataclasses.replace(
    cria(), patch_length=4, num_periods=2, num_seasons=5, frame_patches=4, num_told_seasons=2
)


def series(num_series=3, time=48, share_missing=0.2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(num_series, time, generator=generator).cumsum(dim=1)
    observed = torch.rand(num_series, time, generator=generator) >= share_missing
    return values.masked_fill(~observed, 0.0), observed


def test_frames_are_weighted_means_and_deviations_of_the_past():
    values, observed = series()
    frames = make_frames(values, observed, CONFIG)
    age = torch.arange(11, -1, -1).repeat_interleave(4)[None].double()
    weight = 0.5 ** (age / 4) * observed
    mean = (weight * values).sum(dim=1) / weight.sum(dim=1)
    variance = (weight * (values - mean[:, None]).square()).sum(dim=1) / weight.sum(dim=1)
    torch.testing.assert_close(frames.location[:, -1].double(), mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(frames.scale[:, -1].double(), variance.sqrt(), rtol=1e-5, atol=0)
    assert torch.equal(frames.count[:, -1], observed.sum(dim=1).float())


def test_frames_know_nothing_of_what_comes_later():
    values, observed = series()
    changed, seen = values.clone(), observed.clone()
    changed[:, 24:] = 100.0
    seen[:, 24:] = True
    early = make_frames(values, observed, CONFIG)
    late = make_frames(changed, seen, CONFIG)
    for field in dataclasses.fields(early):
        one, two = getattr(early, field.name), getattr(late, field.name)
        assert torch.equal(one[:, :6], two[:, :6]), field.name


def test_a_constant_does_not_move():
    frames = make_frames(torch.full((1, 16), 3.0), torch.ones(1, 16, dtype=torch.bool), CONFIG)
    assert not frames.moves.any()
    assert frames.scale.eq(1).all()


def test_the_last_value_is_the_last_that_was_observed():
    values, observed = series()
    observed[:, 20:] = False
    frames = make_frames(values, observed, CONFIG)
    for row in range(len(values)):
        known = observed[row].nonzero()[-1].item()
        assert frames.last_step[row, -1] == known
        told = frames.from_frame(frames.last[..., None])[row, -1, 0]
        torch.testing.assert_close(told, values[row, known], rtol=1e-4, atol=1e-5)


def test_the_frames_of_some_tokens_are_theirs():
    values, observed = series()
    frames = make_frames(values, observed, CONFIG)
    chosen = torch.tensor([[0, 3], [5, 11], [2, 2]])
    some = frames.choose(chosen)
    assert torch.equal(some.scale, frames.scale.gather(1, chosen))
    assert some.last_step.shape == (3, 2)


def test_frames_do_not_fade_far_from_the_last_value():
    values, observed = series(1, 48, 0.0)
    far = 40_000
    longer = torch.nn.functional.pad(values, (0, far))
    seen = torch.nn.functional.pad(observed, (0, far))
    near, afar = make_frames(values, observed, CONFIG), make_frames(longer, seen, CONFIG)
    for field in dataclasses.fields(near):
        one, two = getattr(near, field.name)[:, -1], getattr(afar, field.name)[:, -1]
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-6)


def test_outliers_hardly_change_what_movement_is_usual():
    config = dataclasses.replace(CONFIG, frame_patches=64)
    values, observed = series(1, 320, 0.0)
    spiked = values.clone()
    spiked[0, 200] = 1000.0
    usual, told = (
        frames.movement[0, -1] * frames.scale[0, -1]
        for frames in (make_frames(one, observed, config) for one in (values, spiked))
    )
    assert told < 4 * usual  # of the mean it would be 11 times


def test_trends_are_the_mean_change_of_a_step():
    values = 0.5 * torch.arange(48.0)[None]
    observed = torch.rand(1, 48, generator=torch.Generator().manual_seed(0)) > 0.3
    frames = make_frames(values.masked_fill(~observed, 0.0), observed, CONFIG)
    torch.testing.assert_close(
        frames.trends[0, -1] * frames.scale[0, -1], torch.tensor([0.5, 0.5]), rtol=1e-4, atol=0
    )
    ahead = frames.from_frame(extrapolate(frames, CONFIG))[0, -1, 0]
    torch.testing.assert_close(ahead, torch.tensor([24.0, 24.0]), rtol=1e-4, atol=0)
