from __future__ import annotations

import itertools
import warnings

import numpy as np
import torch

from llamacast.model.frames import make_frames
from llamacast.model.periods import Periods
from llamacast.model.seasons import FEWEST_FREE, gather_seasons
from tests.model.test_frames import CONFIG, series


def everywhere(lengths):
    """The same periods for each of 12 tokens."""
    lengths = lengths[:, None].expand(-1, 12, -1)
    return Periods(lengths, torch.zeros(lengths.shape))


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
                    known = [place for place in back if place <= last][: CONFIG.num_seasons]
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


def test_spreads_are_those_of_a_plain_analysis_of_variance():
    values, observed = series()
    observed[:, 30:41] = False
    values = values.masked_fill(~observed, 0.0)
    lengths = torch.tensor([[5, 9], [12, 0], [3, 20]])
    frames = make_frames(values, observed, CONFIG)
    found = gather_seasons(values, observed, frames, everywhere(lengths), CONFIG)
    num_told = 0
    for row, token in itertools.product(range(3), range(12)):
        last = int(frames.last_step[row, token])
        for number, period in enumerate(lengths[row].tolist()):
            table = np.full((4, CONFIG.num_seasons), np.nan)
            for step in range(4 if period else 0):
                target = (token + 1) * 4 + step
                back = [place for place in range(target, -1, -period) if place <= last]
                for season, place in enumerate(back[: CONFIG.num_seasons]):
                    if observed[row, place]:
                        table[step, season] = values[row, place] / frames.scale[row, token]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # means of nothing
                apart = table - np.nanmean(table, axis=1, keepdims=True)
                levelled = apart - np.nanmean(apart, axis=0, keepdims=True)
            count = (~np.isnan(table)).sum(axis=1)
            free = np.maximum(count - 1, 0).sum()
            left = free - max((~np.isnan(table)).any(axis=0).sum() - 1, 0)
            known = bool(left >= FEWEST_FREE)
            num_told += known
            assert found.spread_seen[row, token, number] == known
            expected = [np.nansum(apart**2) / max(free, 1), np.nansum(levelled**2) / max(left, 1)]
            torch.testing.assert_close(
                found.spread[row, token, number].double(),
                torch.tensor(np.sqrt(expected) * known),
                rtol=1e-4,
                atol=1e-5,
            )
    assert num_told > 10


def test_seasons_that_repeat_lie_together_and_noise_sets_them_apart():
    generator = torch.Generator().manual_seed(0)
    steps = torch.arange(48)
    noise = torch.tensor([[0.0], [0.1], [0.4]]) * torch.randn(3, 48, generator=generator)
    values = torch.sin(2 * torch.pi * steps / 8) + noise
    observed = torch.ones(3, 48, dtype=torch.bool)
    frames, lengths = make_frames(values, observed, CONFIG), torch.tensor([[8, 0]] * 3)
    found = gather_seasons(values, observed, frames, everywhere(lengths), CONFIG)
    spread = (found.spread[..., 0, 0] * frames.scale)[:, -4:].mean(dim=1)
    torch.testing.assert_close(spread, torch.tensor([0.0, 0.1, 0.4]), rtol=0.35, atol=1e-5)
    assert not found.spread[:, :2].any()  # one season, as yet
    assert not found.spread_seen[..., 1].any()
