from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from llamacast.model.config import lag_llama, official_lag_llama
from llamacast.model.scaling import find_strays, location_and_scale


@pytest.mark.parametrize("scaling", ["robust", "mean", "std"])
def test_scalers_are_the_official_ones(golden, scaling):
    fixture = golden("scalers")
    config = dataclasses.replace(official_lag_llama(), scaling=scaling)
    location, scale = location_and_scale(fixture["data"], fixture["observed"].bool(), config)
    # A row with nothing observed has location 0 and scale 1; the official mean and std scalers
    # give it the mean of the other rows, and the root of 1e-5.
    rows = [row for row in range(12) if row != 4 or scaling == "robust"]
    torch.testing.assert_close(
        location[rows], fixture[f"{scaling}_loc"][rows], rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(
        scale[rows], fixture[f"{scaling}_scale"][rows], rtol=1e-5, atol=1e-12
    )
    assert (location[4].item(), scale[4].item()) == (0.0, 1.0)


def scaled_spread(values):
    """Scale of one fully observed row."""
    row = torch.tensor([values], dtype=torch.float64)
    return location_and_scale(row, torch.ones_like(row, dtype=torch.bool), lag_llama())[1].item()


def test_intermittent_series_keep_a_spread():
    assert scaled_spread([0.0] * 80 + [5.0] * 20) == pytest.approx(1.0)


def test_far_from_zero_the_spread_is_still_seen():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(500, generator=generator, dtype=torch.float64)
    near, far = scaled_spread(noise.tolist()), scaled_spread((noise + 1e9).tolist())
    assert far == pytest.approx(near, rel=1e-6)


def test_a_constant_says_more_the_longer_it_is():
    assert scaled_spread([7.0]) == 7.0
    assert scaled_spread([7.0] * 100) == pytest.approx(7e-4)
    assert 0 < scaled_spread([0.0] * 100) < 1e-300


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=60),
    st.floats(1e-6, 1e6),
    st.floats(-1e3, 1e3),
)
def test_robust_scale_follows_a_change_of_unit_and_origin(values, factor, shift):
    row = torch.tensor([values], dtype=torch.float64)
    seen = torch.ones_like(row, dtype=torch.bool)
    location, scale = location_and_scale(row, seen, lag_llama())
    assume(
        row.min() < row.max() and scale > 1e-3 * row.abs().max()
    )  # neither constant nor rounding
    shift = shift * factor * row.abs().max().item()
    moved, stretched = location_and_scale(row * factor + shift, seen, lag_llama())
    slack = 1e-9 * (abs(shift) + factor * row.abs().max().item())
    assert moved.item() == pytest.approx(location.item() * factor + shift, abs=slack)
    assert stretched.item() == pytest.approx(scale.item() * factor, abs=slack)


def test_rows_do_not_depend_on_each_other(golden):
    fixture = golden("scalers")
    data, observed = fixture["data"], fixture["observed"].bool()
    for scaling in ("robust", "mean", "std", "none"):
        config = dataclasses.replace(lag_llama(), scaling=scaling)
        together = location_and_scale(data, observed, config)
        alone = [location_and_scale(data[[row]], observed[[row]], config) for row in range(12)]
        for part in (0, 1):
            assert torch.equal(together[part], torch.cat([one[part] for one in alone]))


def strays(values, observed=None):
    values = torch.as_tensor(values, dtype=torch.float64)
    observed = ~values.isnan() if observed is None else observed
    return find_strays(values.nan_to_num(), observed).nonzero().tolist()


def daily(steps=480):
    noise = torch.randn(steps, generator=torch.Generator().manual_seed(0))
    return 15 + 8 * torch.sin(torch.arange(steps) * 2 * torch.pi / 24).double() + 0.5 * noise


@pytest.mark.parametrize(("factor", "shift"), [(1.0, 0.0), (1e-6, 1e3), (-1e200, 0.0)])
def test_the_error_code_of_a_sensor_is_a_stray_in_any_unit(factor, shift):
    values = daily()
    values[240] = -9999.0
    assert strays((factor * values + shift)[None]) == [[0, 240]]


def test_what_comes_again_or_lasts_or_is_seen_but_now_is_no_stray():
    weekly, level, newest = daily(), daily(), daily()
    weekly[50::168] = 1e5  # three in 480 hours
    level[-20:] = 1e5
    newest[-1] = 1e5
    assert strays(torch.stack([daily(), weekly, level, newest])) == []


def test_long_series_may_have_several_strays_and_rare_values_are_none():
    values = daily(2000)
    values[[300, 900, 1500]] = torch.tensor([-9999.0, 1e9, -9999.0]).double()
    assert strays(values[None]) == [[0, 300], [0, 900], [0, 1500]]
    rare = torch.zeros(1, 500)
    rare[0, 7::40] = torch.tensor([1.0, 2.0, 500.0]).repeat(5)[:13]
    constant = torch.full((1, 100), 3.0)
    constant[0, 50] = 1e6
    assert strays(rare) == []
    assert strays(constant) == []


def test_what_is_missing_tells_of_no_stray():
    values = daily()
    values[::3] = torch.nan
    assert strays(values[None]) == []
    values[241] = 1e6
    assert strays(values[None]) == [[0, 241]]
    nothing = torch.zeros(1, 8, dtype=torch.bool)
    assert strays(torch.zeros(1, 8), nothing) == []
