from __future__ import annotations

import dataclasses
import math
import time

import numpy as np
import pytest
import torch

from llamacast.training import augment as module
from llamacast.training.augment import (
    ORDER,
    AugmentConfig,
    augment,
    censor,
    downsample,
    drop_stretches,
    flip_sign,
    flip_time,
    freq_mask,
    freq_mix,
    jitter,
    mixup,
    published,
    published_freq_mask,
    published_freq_mix,
    scale_magnitude,
)

HISTORY = 80
NEVER = AugmentConfig(**dict.fromkeys(ORDER, 0.0))
ALWAYS = AugmentConfig(**dict.fromkeys(ORDER, 1.0))
ALL_ALIKE = pytest.mark.parametrize("name", ORDER)


def only(name: str) -> AugmentConfig:
    return dataclasses.replace(NEVER, **{name: 1.0})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def waves(num_series=6, length=97, dtype=torch.float64):
    """Seasonal series with noise, each of its own period and unit."""
    steps = torch.arange(length, dtype=dtype)
    periods = torch.arange(5, 5 + num_series, dtype=dtype)[:, None]
    noise = torch.randn(num_series, length, generator=seeded(9), dtype=dtype)
    return 3.0 + periods * ((2 * math.pi * steps / periods).sin() + 0.3 * noise)


def with_gaps(values):
    """Left padding in the first rows, holes in the others."""
    observed = torch.rand(values.shape, generator=seeded(7)) > 0.1
    for row in range(3):
        observed[row, : 10 * (row + 1)] = False
    return values.masked_fill(~observed, 0.0), observed


def seen(values):
    return torch.ones_like(values, dtype=torch.bool)


def each(values, observed, seed=0):
    """Every augmentation that leaves `observed` alone, by name."""
    return {
        "freq_mask": freq_mask(values, observed, 0.5, seeded(seed)),
        "freq_mix": freq_mix(values, observed, 0.25, seeded(seed)),
        "mixup": mixup(values, observed, seeded(seed)),
        "jitter": jitter(values, observed, seeded(seed)),
        "scale_magnitude": scale_magnitude(values, observed, seeded(seed)),
        "flip_sign": flip_sign(values, observed),
        "censor": censor(values, observed, seeded(seed)),
    }


def joined(fixture, parity, past, future):
    """A window of the fixture, past and future."""
    return torch.cat([fixture[f"{parity}.{past}"], fixture[f"{parity}.{future}"]], dim=1)


class TestPublished:
    @pytest.mark.parametrize("parity", ["even", "odd"])
    def test_freq_mask_is_the_official_one(self, golden, parity):
        fixture = golden("augmentations")
        values = joined(fixture, parity, "past", "future")
        expected = joined(fixture, parity, "freq_mask.past_out", "freq_mask.future_out")
        found = published_freq_mask(values, fixture[f"{parity}.freq_mask.uniform"])
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("parity", ["even", "odd"])
    def test_freq_mix_is_the_official_one(self, golden, parity):
        fixture = golden("augmentations")
        values = joined(fixture, parity, "past", "future")
        expected = joined(fixture, parity, "freq_mix.past_out", "freq_mix.future_out")
        found = published_freq_mix(
            values,
            fixture[f"{parity}.freq_mix.uniform"],
            fixture[f"{parity}.freq_mix.permutation"],
        )
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)

    def test_odd_lengths_are_shifted(self):
        values = waves(length=97)
        found = published_freq_mask(values, torch.ones(6, 49))
        assert torch.equal(found[:, 0], values[:, 0])
        assert (found - values).abs().max() > 0.5

    def test_the_preset_decides_for_the_whole_batch(self):
        values = waves()
        for seed in range(20):
            found, _, _ = augment(values, seen(values), published(), seeded(seed), HISTORY)
            changed = (found != values).any(dim=1)
            assert changed.all() or not changed.any()


class TestFrequencies:
    @pytest.mark.parametrize("length", [96, 97])
    def test_a_rate_of_zero_changes_nothing(self, length):
        for values, observed in [(w := waves(length=length), seen(w)), with_gaps(w)]:
            torch.testing.assert_close(freq_mask(values, observed, 0.0, seeded()), values)
            torch.testing.assert_close(freq_mix(values, observed, 0.0, seeded()), values)

    def test_a_mask_of_everything_leaves_the_mean(self):
        values = waves()
        found = freq_mask(values, seen(values), 1.0, seeded())
        torch.testing.assert_close(found, values.mean(dim=1, keepdim=True).expand_as(values))

    def test_the_level_stays_where_gaps_make_it_differ_from_the_mean(self):
        values, observed = with_gaps(waves().cumsum(dim=1))
        level = module._bridge_gaps(values, observed).mean(dim=1, keepdim=True)
        assert (level[:, 0] - values.sum(dim=1) / observed.sum(dim=1)).abs().min() > 0.05
        expected = level.expand_as(values).masked_fill(~observed, 0.0)
        torch.testing.assert_close(freq_mask(values, observed, 1.0, seeded()), expected)
        partners = waves().roll(1, 0), seen(values)
        mixed = freq_mix(values, observed, 1.0, seeded(), num_protected=97, partners=partners)
        torch.testing.assert_close(mixed, values)
        mixed = freq_mix(values, observed, 1.0, seeded(), num_protected=0, partners=partners)
        own = module._to_own_units(*partners)[0]
        scale = module._to_own_units(values, observed)[2]
        expected = (level + scale * own).masked_fill(~observed, 0.0)
        torch.testing.assert_close(mixed, expected)

    @pytest.mark.parametrize("length", [96, 97])
    def test_a_masked_frequency_is_gone_and_others_stay(self, length):
        values = waves(length=length)
        before = torch.fft.rfft(values)
        after = torch.fft.rfft(freq_mask(values, seen(values), 0.5, seeded()))
        gone = after.abs() < 1e-9
        assert 0.4 < gone.double().mean() < 0.6
        torch.testing.assert_close(after[~gone], before[~gone])

    @pytest.mark.parametrize("length", [96, 97])
    def test_dominant_frequencies_are_protected(self, length):
        values = waves(length=length, dtype=torch.float32)
        found = freq_mix(values, seen(values), 1.0, seeded(), num_protected=5)
        before, after = torch.fft.rfft(values), torch.fft.rfft(found)
        amplitudes = before.abs()
        amplitudes[:, 0] = 0.0
        dominant = amplitudes.topk(5, dim=1).indices
        torch.testing.assert_close(
            after.gather(1, dominant), before.gather(1, dominant), rtol=1e-4, atol=1e-3
        )
        torch.testing.assert_close(after[:, 0], before[:, 0], rtol=1e-4, atol=1e-3)
        same = (after - before).abs() < 1e-4 * before.abs() + 1e-3
        assert same.sum(dim=1).max() <= 5 + 1 + 1

    def test_all_but_the_protected_come_from_the_partner_in_own_spreads(self):
        """A partner in other units gives the same window."""
        values, observed = with_gaps(waves())
        partners = values.roll(1, 0), observed.roll(1, 0)
        rescaled = (1000 * partners[0] - 77).masked_fill(~partners[1], 0.0), partners[1]
        one, two = (
            freq_mix(values, observed, 1.0, seeded(), partners=p) for p in (partners, rescaled)
        )
        torch.testing.assert_close(one, two)
        assert (one - values).abs().max() > 0.5

    def test_nothing_is_taken_from_a_flat_or_missing_partner(self):
        values = waves(2)
        for other in (torch.full_like(values, 5.0), torch.zeros_like(values)):
            partners = other, other != 0
            found = freq_mix(values, seen(values), 1.0, seeded(), partners=partners)
            torch.testing.assert_close(found, values)
            torch.testing.assert_close(mixup(values, seen(values), seeded(), partners), values)

    def test_a_gap_does_not_jump_into_the_spectrum(self):
        """Filled by zeros or by the mean, a hole at a wave's crest would disturb far more."""
        values = (2 * math.pi * torch.arange(96, dtype=torch.float64) / 96).sin()[None] + 50.0
        observed = seen(values)
        observed[:, 20:28] = False
        holed = values.masked_fill(~observed, 0.0)
        bridged = module._bridge_gaps(holed, observed)
        assert torch.equal(bridged[observed], values[observed])
        assert torch.fft.rfft(bridged).abs()[:, 2:].max() < 0.5
        assert torch.fft.rfft(torch.where(observed, values, 50.0)).abs()[:, 2:].max() > 5

    def test_what_is_missing_stays_missing(self):
        values, observed = with_gaps(waves())
        for name, found in each(values, observed).items():
            assert (found[~observed] == 0).all(), name
            assert found.isfinite().all(), name

    def test_padding_is_bridged_around_the_ring(self):
        values = torch.tensor([[0.0, 0.0, 4.0, 0.0, 8.0, 0.0], [0.0] * 6])
        bridged = module._bridge_gaps(values, values > 0)
        expected = torch.tensor([[6.0, 5.0, 4.0, 6.0, 8.0, 7.0], [0.0] * 6])
        torch.testing.assert_close(bridged, expected)


class TestSize:
    def test_units_and_levels_do_not_matter(self):
        values, observed = with_gaps(waves())
        factor = torch.tensor([1e-8, 1.0, 3.0, 1e8, 0.5, 20.0], dtype=values.dtype)[:, None]
        shift = torch.tensor([0.0, 5.0, -50.0, 1e3, 2.0, 1e5], dtype=values.dtype)[:, None]
        moved = (factor * values + shift).masked_fill(~observed, 0.0)
        plain, scaled = each(values, observed), each(moved, observed)
        del plain["flip_sign"]
        for name, found in plain.items():
            expected = (factor * found + shift).masked_fill(~observed, 0.0)
            torch.testing.assert_close(
                (scaled[name] - shift) / factor,
                (expected - shift) / factor,
                rtol=1e-5,
                atol=1e-5,
                msg=name,
            )

    @pytest.mark.parametrize("level", [1e8, -1e8, 1e-8])
    def test_float32_far_from_one(self, level):
        """The outcome is that of float64, up to the level's last places."""
        values = (level * (1 + 0.01 * waves())).float()
        step = abs(level) * 0.01
        found = each(values, seen(values))
        # float32 again, so that the draws are the same; near zero nothing is lost.
        near_zero = each((values.double() - level).div(step).float(), seen(values))
        del found["flip_sign"]
        for name, result in found.items():
            assert result.dtype == torch.float32
            error = (result.double() - (level + step * near_zero[name].double())).abs().max()
            assert error < 1e-6 * abs(level), name

    def test_noise_is_measured_in_spreads(self):
        values = torch.cat([waves(1, 4000), 1e6 * waves(1, 4000)])
        noise = jitter(values, seen(values), seeded(), largest=0.2) - values
        spread = (values - values.mean(dim=1, keepdim=True)).abs().mean(dim=1)
        relative = noise.std(dim=1) / spread
        assert (relative > 0).all()
        assert (relative < 0.21).all()

    def test_the_magnitude_curve_is_smooth_and_positive(self):
        values = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(8, 250)
        curve = scale_magnitude(values, seen(values), seeded()) * values
        assert (curve > 0).all()
        assert curve.diff(dim=1).abs().max() < 0.03
        assert curve.std(dim=1).min() > 0.05

    def test_twice_flipped_is_itself(self):
        values, observed = with_gaps(waves())
        assert torch.equal(flip_sign(flip_sign(values, observed), observed), values)

    def test_mixtures_lie_between_a_window_and_its_partner(self):
        values, observed = waves(2), seen(waves(2))
        partners = values.flip(0), observed
        own, mean, spread = module._to_own_units(values, observed)
        other = own.flip(0)
        mixed = mixup(values, observed, seeded(), partners)
        weight = ((mixed - mean) / spread - other) / (own - other)
        torch.testing.assert_close(weight, weight[:, :1].expand_as(weight))
        assert ((weight > 0.5) & (weight < 1)).all()

    def test_censoring_clips_one_side_at_one_of_the_values(self):
        values, observed = with_gaps(waves(200))
        found = censor(values, observed, seeded(), largest_share=0.4)
        clipped = (found != values).double().sum(dim=1) / observed.sum(dim=1)
        assert clipped.max() < 0.4
        assert 0.15 < clipped.mean() < 0.25
        raised, lowered = (found > values).any(dim=1), (found < values).any(dim=1)
        assert not (raised & lowered).any()
        assert 60 < raised.sum() < 140
        assert torch.isin(found[observed], values[observed]).all()


class TestTime:
    def test_time_runs_backwards_between_the_ends(self):
        values = torch.tensor([[0.0, 0.0, 1.0, 0.0, 2.0, 3.0, 0.0]])
        found, observed = flip_time(values, values > 0)
        assert found.tolist() == [[0.0, 0.0, 3.0, 2.0, 0.0, 1.0, 0.0]]
        assert torch.equal(observed, found > 0)

    def test_a_full_window_is_reversed(self):
        values = waves()
        assert torch.equal(flip_time(values, seen(values))[0], values.flip(1))

    def test_twice_backwards_is_forwards(self):
        values, observed = with_gaps(waves())
        again, seen_again = flip_time(*flip_time(values, observed))
        assert torch.equal(again, values)
        assert torch.equal(seen_again, observed)

    def test_downsampling_by_one_changes_nothing(self):
        values, observed = with_gaps(waves())
        found, still = downsample(values, observed, 1)
        torch.testing.assert_close(found, values)
        assert torch.equal(still, observed)

    @pytest.mark.parametrize("factor", [2, 3, 4])
    def test_downsampling_shortens_the_period(self, factor):
        steps = torch.arange(25, 145, dtype=torch.float64)
        values = (2 * math.pi * steps / 12).sin()[None]
        found, observed = downsample(values, seen(values), factor)
        assert observed.sum() == 120 // factor
        assert not observed[:, : 120 - 120 // factor].any()
        series = found[observed]
        period = 12 // factor
        torch.testing.assert_close(series[period:], series[:-period])
        assert (series[1:] - series[:-1]).abs().max() > 0.1

    def test_blocks_end_with_the_window_and_average_what_is_observed(self):
        values = torch.tensor([[9.0, 1.0, 3.0, 5.0, 0.0, 0.0, 0.0]])
        observed = torch.tensor([[1, 1, 1, 1, 0, 0, 0]], dtype=torch.bool)
        found, still = downsample(values, observed, 2)
        torch.testing.assert_close(found, torch.tensor([[0.0, 0.0, 0.0, 0.0, 2.0, 5.0, 0.0]]))
        assert still.tolist() == [[False, False, False, False, True, True, False]]

    @pytest.mark.parametrize("factor", [0, -1, 98])
    def test_a_factor_that_leaves_no_block_is_refused(self, factor):
        values = waves()
        with pytest.raises(ValueError, match="factor"):
            downsample(values, seen(values), factor)

    def test_stretches_are_dropped_from_the_past_alone(self):
        values, observed = with_gaps(waves(100, 400))
        observed[0, :300] = False
        found, kept = drop_stretches(values, observed, seeded(), 350)
        assert torch.equal(kept[:, 350:], observed[:, 350:])
        assert not (kept & ~observed).any()
        assert torch.equal(found, values.masked_fill(~kept, 0.0))
        share = kept[:, :350].sum(dim=1) / observed[:, :350].sum(dim=1)
        assert share.min() > 0.4
        assert 0.7 < share.mean() < 0.9
        changes = (kept != observed).int().diff(dim=1).abs().sum(dim=1)
        assert changes.max() < 100  # stretches, not single steps


class TestAugment:
    def test_every_augmentation_has_a_probability(self):
        names = {field.name for field in dataclasses.fields(AugmentConfig)}
        assert names == {*ORDER, "freq_mask_rate", "freq_mix_rate", "whole_batch"}

    @pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
    @pytest.mark.parametrize("name", [*ORDER, "freq_mask_rate", "freq_mix_rate"])
    def test_what_is_no_probability_is_refused_by_name(self, name, value):
        with pytest.raises(ValueError, match=f"{name} must"):
            AugmentConfig(**{name: value})

    def test_probabilities_of_zero_change_nothing(self):
        values, observed = with_gaps(waves())
        found, still, keeps = augment(values, observed, NEVER, seeded(), HISTORY)
        assert torch.equal(found, values)
        assert torch.equal(still, observed)
        assert keeps.all()

    @ALL_ALIKE
    def test_each_is_applied_and_leaves_its_input_alone(self, name):
        values, observed = with_gaps(waves())
        before = values.clone(), observed.clone()
        found, still, keeps = augment(values, observed, only(name), seeded(), HISTORY)
        assert torch.equal(values, before[0])
        assert torch.equal(observed, before[1])
        assert (found != values).any(dim=1).all()
        assert keeps.tolist() == [name not in ("downsample", "flip_time")] * 6
        assert (found[~still] == 0).all()
        assert found.isfinite().all()

    @ALL_ALIKE
    def test_constant_and_missing_windows_come_back(self, name):
        values = waves(6, dtype=torch.float32)
        values[1], values[2], values[3] = 1e8 / 3, 0.0, 0.0
        values[4, :HISTORY] = 0.1
        values[5] = -7.0
        values[5, 20:30] = 0.0
        observed = seen(values)
        observed[2] = False
        observed[5, 20:30] = False
        found, still, keeps = augment(values, observed, only(name), seeded(), HISTORY)
        for row in (1, 2, 3, 4, 5):
            assert torch.equal(found[row], values[row])
            assert torch.equal(still[row], observed[row])
            assert keeps[row]
        assert found.isfinite().all()

    def test_alone_constants_and_missing_windows_stay_too(self):
        values = torch.full((3, 97), 1e8 / 3)
        values[1] = 1e-8
        values[2] = 0.0
        observed = values != 0
        for name, found in each(values, observed).items():
            expected = -values if name == "flip_sign" else values
            assert torch.equal(found, expected), name
        found, still = downsample(values, observed, 7)
        assert torch.equal(found, values.masked_fill(~still, 0.0))

    def test_a_past_that_would_be_lost_comes_back(self):
        """Ten values before the future, averaged by blocks, would all lie in the future."""
        values = waves(4, 100)
        observed = seen(values)
        observed[:, :88] = False
        values = values.masked_fill(~observed, 0.0)
        found, still, keeps = augment(values, observed, only("downsample"), seeded(), 90)
        assert torch.equal(found, values)
        assert torch.equal(still, observed)
        assert keeps.all()

    def test_downsampling_leaves_a_past_as_long_as_the_future(self):
        values = waves(50, 100)
        _, still, keeps = augment(values, seen(values), only("downsample"), seeded(), 80)
        assert still.sum(dim=1).unique().tolist() == [50]
        assert not keeps.any()
        _, still, _ = augment(values, seen(values), only("downsample"), seeded(), 99)
        assert still.sum(dim=1).unique().tolist() == [100 // k for k in range(8, 1, -1)]
        _, still, _ = augment(values, seen(values), only("downsample"), seeded(), 70)
        assert still.all()

    def test_windows_are_chosen_one_by_one(self):
        values = waves(2000, 20)
        config = dataclasses.replace(NEVER, flip_sign=0.3, flip_time=0.2)
        found, _, keeps = augment(values, seen(values), config, seeded(), 18)
        assert 0.16 < (~keeps).double().mean() < 0.24
        flipped = (found == -values).all(dim=1) | (found == -values.flip(1)).all(dim=1)
        assert 0.26 < flipped.double().mean() < 0.34
        assert 0.03 < (flipped & ~keeps).double().mean() < 0.09

    def test_partners_come_from_the_whole_batch(self):
        """A lone chosen window finds others; a lone window of a batch has only itself."""
        values = waves(1)
        found, _, _ = augment(values, seen(values), only("mixup"), seeded(), HISTORY)
        torch.testing.assert_close(found, values)
        others = module._draw_partners(
            torch.arange(5.0)[:, None].expand(-1, 300), seen(torch.zeros(5, 300)), seeded()
        )[0]
        assert (others[:, 0] != torch.arange(5.0)).all()

    def test_the_generator_decides(self):
        values, observed = with_gaps(waves())
        one, two, other = (augment(values, observed, ALWAYS, seeded(s), HISTORY) for s in (3, 3, 4))
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
        assert not torch.equal(one[0], other[0])

    def test_units_do_not_matter_altogether(self):
        values, observed = with_gaps(waves())
        config = dataclasses.replace(ALWAYS, flip_sign=0.0)
        moved = (20 * values + 500).masked_fill(~observed, 0.0)
        plain, still, _ = augment(values, observed, config, seeded(), HISTORY)
        scaled, scaled_still, _ = augment(moved, observed, config, seeded(), HISTORY)
        assert torch.equal(still, scaled_still)
        torch.testing.assert_close(scaled, (20 * plain + 500).masked_fill(~still, 0.0))

    def test_it_is_quick(self):
        values, observed = (t[:32] for t in with_gaps(waves(32, 2000, torch.float32)))
        seconds = []
        for seed in range(20):
            begin = time.perf_counter()
            augment(values, observed, AugmentConfig(), seeded(seed), 1700)
            seconds.append(time.perf_counter() - begin)
        assert np.median(seconds) < 0.05  # some 4 ms where nothing else runs
