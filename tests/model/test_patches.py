from __future__ import annotations

import dataclasses

import torch

from llamacast.model.config import cria
from llamacast.model.patches import (
    extrapolate,
    gather_seasons,
    make_frames,
    make_patch_tokens,
    num_features,
    to_patches,
)
from llamacast.model.periods import Periods

CONFIG = dataclasses.replace(cria(), patch_length=4, num_periods=2, num_seasons=3, frame_patches=4)
GENERATOR = torch.Generator().manual_seed(0)


def series(num_series=3, time=48, share_missing=0.2):
    values = torch.randn(num_series, time, generator=GENERATOR).cumsum(dim=1)
    observed = torch.rand(num_series, time, generator=GENERATOR) >= share_missing
    return values.masked_fill(~observed, 0.0), observed


def everywhere(lengths):
    """The same periods for each of 12 tokens."""
    lengths = lengths[:, None].expand(-1, 12, -1)
    return Periods(lengths, torch.zeros(lengths.shape))


def test_rows_are_moved_to_begin_in_the_first_patch_and_end_with_a_whole_one():
    values = torch.arange(1.0, 11.0).repeat(3, 1)
    observed = torch.ones(3, 10, dtype=torch.bool)
    observed[1, :5] = False
    observed[2, :9] = False
    patched, seen, num_tokens = to_patches(values, observed, 4, num_future=2)
    assert num_tokens.tolist() == [3, 2, 1]
    assert patched.shape == (3, 20)
    assert patched[0, :12].tolist() == [0, 0, *range(1, 11)]
    assert patched[1, :8].tolist() == [0, 0, 0, 6, 7, 8, 9, 10]
    assert patched[2, :4].tolist() == [0, 0, 0, 10]
    for row, tokens in enumerate(num_tokens):
        assert not seen[row, tokens * 4 :].any()
        assert seen[row].sum() == observed[row].sum()


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


def test_seasonal_lags_are_what_a_plain_loop_finds():
    values, observed = series()
    observed[:, 30:41] = False  # as a masked stretch
    values = values.masked_fill(~observed, 0.0)
    lengths = torch.tensor([[5, 9], [12, 0], [3, 20]])
    periods = everywhere(lengths)
    frames = make_frames(values, observed, CONFIG)
    found = gather_seasons(values, observed, frames, periods, CONFIG)
    for row in range(3):
        for token in range(12):
            last = int(frames.last_step[row, token])
            for step in range(4):
                target = (token + 1) * 4 + step
                for number, period in enumerate(lengths[row].tolist()):
                    back = [] if period == 0 else list(range(target, -1, -period))
                    known = [place for place in back if place <= last][:3]
                    seen = [place for place in known if observed[row, place]]
                    place = (row, token, step, number)
                    assert found.latest_seen[place] == bool(known and known[0] in seen)
                    assert found.mean_seen[place] == bool(seen)
                    framed = frames.to_frame(values[row].expand(12, -1)[None].expand(3, -1, -1))
                    told = framed[row, token]
                    if found.latest_seen[place]:
                        torch.testing.assert_close(found.latest[place], told[known[0]])
                    if seen:
                        torch.testing.assert_close(
                            found.mean[place], told[seen].mean(), rtol=1e-4, atol=1e-5
                        )


def test_tokens_are_as_wide_as_they_say_and_finite():
    values, observed = series()
    observed[1] = False
    values = values.masked_fill(~observed, 0.0)
    periods = everywhere(torch.tensor([[5, 9], [0, 0], [3, 20]]))
    frames = make_frames(values, observed, CONFIG)
    seasons = gather_seasons(values, observed, frames, periods, CONFIG)
    tokens = make_patch_tokens(values, observed, frames, seasons, periods, CONFIG)
    assert tokens.shape == (3, 12, num_features(CONFIG))
    assert tokens.isfinite().all()


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
    observed = torch.rand(1, 48, generator=GENERATOR) > 0.3
    frames = make_frames(values.masked_fill(~observed, 0.0), observed, CONFIG)
    torch.testing.assert_close(
        frames.trends[0, -1] * frames.scale[0, -1], torch.tensor([0.5, 0.5]), rtol=1e-4, atol=0
    )
    ahead = frames.from_frame(extrapolate(frames, CONFIG))[0, -1, 0]
    torch.testing.assert_close(ahead, torch.tensor([24.0, 24.0]), rtol=1e-4, atol=0)


def test_seasons_grow_as_their_means_did():
    steps = torch.arange(48.0)
    values = (torch.sin(2 * torch.pi * steps / 12) + 3.0 * (steps // 12))[None]
    observed = torch.ones(1, 48, dtype=torch.bool)
    periods = everywhere(torch.tensor([[12, 0]]))
    frames = make_frames(values, observed, CONFIG)
    found = gather_seasons(values, observed, frames, periods, CONFIG)
    told = frames.from_frame(found.grown)[0, -1, :, 0]
    expected = torch.sin(2 * torch.pi * torch.arange(48.0, 52.0) / 12) + 12.0
    torch.testing.assert_close(told, expected, rtol=1e-4, atol=1e-3)
    assert found.grown_seen[0, -1, :, 0].all()
    assert not found.grown_seen[..., 1].any()
    assert not found.grown_seen[0, :5].any()  # two whole periods are needed


def test_a_patch_of_nothing_shows_the_last_that_is_there():
    values, observed = series(1, 48, 0.0)
    observed[:, 40:] = False
    values = values.masked_fill(~observed, 0.0)
    periods = everywhere(torch.tensor([[5, 9]]))
    frames = make_frames(values, observed, CONFIG)
    seasons = gather_seasons(values, observed, frames, periods, CONFIG)
    tokens = make_patch_tokens(values, observed, frames, seasons, periods, CONFIG)
    assert torch.equal(tokens[0, 9, :12], tokens[0, 11, :12])
    assert not torch.equal(tokens[0, 9], tokens[0, 11])  # which is how long ago?
