from __future__ import annotations

import dataclasses

import torch

from llamacast.model.config import cria
from llamacast.model.patches import (
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
