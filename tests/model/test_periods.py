from __future__ import annotations

import pytest
import torch

from llamacast.model.periods import find_periods, find_periods_along

NONE = torch.zeros(1, 2, dtype=torch.long)


def wave(*periods, length=1024, noise=0.1, seed=0):
    steps = torch.arange(float(length))
    generator = torch.Generator().manual_seed(seed)
    values = sum(torch.sin(2 * torch.pi * steps / period) for period in periods)
    return (values + noise * torch.randn(length, generator=generator))[None]


def lengths(values, observed=None, seasons=NONE, count=3):
    observed = torch.ones_like(values, dtype=torch.bool) if observed is None else observed
    return find_periods(values, observed, seasons, count).lengths[0].tolist()


@pytest.mark.parametrize("period", [4, 7, 12, 24, 52, 96, 168, 365])
def test_the_period_of_a_wave_is_found(period):
    found = lengths(wave(period))[0]
    assert abs(found - period) <= max(1, 0.02 * period)


def test_two_seasons_are_found():
    assert set(lengths(wave(24, 168), count=2)) == {24, 168}


def test_multiples_of_a_period_say_nothing_new():
    assert lengths(wave(12))[0] == 12
    assert not any(found % 12 == 0 and found > 12 for found in lengths(wave(12, noise=0.02)))


def test_weeks_of_which_one_is_odd_are_still_weeks():
    steps = torch.arange(3 * 504)
    free = (steps // 24 % 7 >= 5).float()
    odd = (steps // 24 % 21 == 4).float()  # a day off every third week
    values = (torch.sin(2 * torch.pi * steps / 24) + 1.5) * (1 - torch.maximum(free, odd))
    values = values[None] + 0.05 * wave(1e9, length=len(steps))
    found = lengths(values, seasons=torch.tensor([[24, 168]]))
    assert {24, 168} <= set(found)
    assert not {336, 504} & set(found)


@pytest.mark.parametrize(("share_free", "first"), [(1.0, 168), (0.0, 24)])
def test_a_week_stands_before_a_day_where_it_tells_far_more(share_free, first):
    steps = torch.arange(1500)
    free = (steps // 24 % 7 >= 5) * share_free
    values = (torch.sin(2 * torch.pi * steps / 24) + 1.5) * (1 - free) + wave(1e9, length=1500)[0]
    calendar = torch.tensor([[24, 168]])
    found = lengths(values[None], seasons=calendar)
    assert found[0] == first
    assert set(found[:2]) == {24, 168}


def test_the_calendar_speaks_where_the_series_hardly_does():
    noise = wave(1e9, noise=1.0, length=300, seed=3)
    assert lengths(noise, seasons=torch.tensor([[52, 0]]))[0] == 52
    # But a strong period is believed more.
    assert lengths(wave(9), seasons=torch.tensor([[52, 0]]))[0] == 9


def test_peaks_must_be_seen_one_and_a_half_times_and_seasons_once():
    assert max(lengths(wave(52, length=70, noise=0.0))) < 40
    assert abs(lengths(wave(52, length=100, noise=0.0))[0] - 52) < 3
    yearly = torch.tensor([[52, 0]])
    assert 52 not in lengths(wave(52, length=52), seasons=yearly)
    assert 52 in lengths(wave(52, length=60), seasons=yearly)


def test_outliers_hide_no_period():
    values = wave(12, length=320)
    values[0, [20, 200, 300]] = 1000.0
    assert lengths(values)[0] == 12
    found = find_periods(values, torch.ones_like(values, dtype=torch.bool), NONE, 1)
    assert found.strengths[0, 0] > 0.5


def test_along_a_series_periods_are_those_of_its_past():
    values = torch.cat([wave(7, length=256), wave(12, length=256)], dim=1)
    seen = torch.ones_like(values, dtype=torch.bool)
    seen[:, 20 * 16 :] = False  # patches of nothing have what all that is known tells
    found = find_periods_along(values * seen, seen, NONE, 2, 16)
    assert found.lengths.shape == (1, 32, 2)
    for token, prefix in ((0, 1), (1, 2), (2, 2), (3, 4), (14, 8), (15, 16), (18, 16), (19, 20)):
        part = slice(0, 16 * prefix)
        alone = find_periods(values[:, part], seen[:, part], NONE, 2)
        assert torch.equal(found.lengths[:, token], alone.lengths), token
        torch.testing.assert_close(found.strengths[:, token], alone.strengths, atol=1e-5, rtol=0)
    assert torch.equal(found.lengths[:, 31], found.lengths[:, 19])


def test_a_trend_hides_no_period():
    values = wave(24) + torch.linspace(0, 60, 1024)
    assert lengths(values)[0] == 24


def test_missing_values_hide_no_period():
    values = wave(24)
    observed = torch.rand(values.shape, generator=torch.Generator().manual_seed(0)) > 0.4
    poisoned = values.masked_fill(~observed, 1e6)
    assert lengths(poisoned, observed)[0] == 24


def test_neither_shift_nor_scale_matters():
    values = wave(24, 168).double()
    plain, moved = (
        find_periods(one, torch.ones_like(one, dtype=torch.bool), NONE, 3)
        for one in (values, 1e4 + 1e-3 * values)
    )
    assert torch.equal(plain.lengths, moved.lengths)
    torch.testing.assert_close(plain.strengths, moved.strengths, atol=1e-6, rtol=0)


def test_padding_on_either_side_does_not_matter():
    values = wave(24, length=512)
    padded = torch.nn.functional.pad(values, (100, 300))
    observed = torch.nn.functional.pad(torch.ones(1, 512, dtype=torch.bool), (100, 300))
    whole = find_periods(values, torch.ones(1, 512, dtype=torch.bool), NONE, 3)
    part = find_periods(padded, observed, NONE, 3)
    assert torch.equal(whole.lengths, part.lengths)
    torch.testing.assert_close(whole.strengths, part.strengths, atol=1e-5, rtol=0)


@pytest.mark.parametrize("values", [torch.zeros(1, 64), torch.full((1, 64), 7.0)])
def test_a_constant_has_no_periods(values):
    found = find_periods(values, torch.ones_like(values, dtype=torch.bool), NONE, 3)
    assert found.lengths.sum() == 0
    assert found.strengths.sum() == 0


def test_nothing_observed_has_no_periods():
    found = find_periods(torch.zeros(1, 64), torch.zeros(1, 64, dtype=torch.bool), NONE + 7, 3)
    assert found.lengths.sum() == 0


def test_windows_of_one_patch_are_long_enough_to_ask():
    assert lengths(wave(5, length=8, noise=0.0)) is not None


def test_rows_do_not_depend_on_each_other():
    rows = torch.cat([wave(24), wave(7, seed=1), wave(1e9, noise=1.0, seed=2)])
    seen = torch.ones_like(rows, dtype=torch.bool)
    seasons = torch.tensor([[24, 168], [7, 0], [0, 0]])
    together = find_periods(rows, seen, seasons, 3)
    for row in range(3):
        one = slice(row, row + 1)
        alone = find_periods(rows[one], seen[one], seasons[one], 3)
        assert torch.equal(alone.lengths, together.lengths[one])
