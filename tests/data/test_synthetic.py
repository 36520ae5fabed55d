from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from llamacast.data.calendar import parse_frequency, stamps_from, step_numbers
from llamacast.data.synthetic import FAMILIES, MADE_UP, synthesise
from llamacast.data.synthetic import mixture as mixing
from llamacast.data.synthetic.axes import SHARES, Axes, draw_axes
from llamacast.data.synthetic.causal import delay
from llamacast.data.synthetic.chaotic import SYSTEMS, integrate
from llamacast.data.synthetic.contamination import (
    CHANGES,
    LOSSES,
    censor,
    level_shifts,
    outliers,
    round_coarsely,
)
from llamacast.data.synthetic.demand import negative_binomial
from llamacast.data.synthetic.draws import markov_states, persist
from llamacast.data.synthetic.gaussian import (
    fourier_paths,
    periodic_frequencies,
    smooth_frequencies,
)
from llamacast.data.synthetic.linear import (
    autoregression,
    from_partial,
    moving_average,
    seasonal_autoregression,
)
from llamacast.data.synthetic.mixup import mixup, usable
from llamacast.data.synthetic.seasonal import calendar_season, look_up, profiles
from llamacast.data.synthetic.steady import _seasons as seasons_of_steady
from llamacast.data.synthetic.stochastic import mean_reversion
from llamacast.data.synthetic.working_week import _kinds_of_days as kinds_of_days
from llamacast.data.synthetic.yearly_events import _of_the_year as of_the_year
from llamacast.data.synthetic.yearly_events import _over_steps as over_steps
from llamacast.forecast import DataError

REAL = [np.sin(np.arange(400) / 5) + 2, np.arange(900.0), np.r_[np.full(30, np.nan), np.ones(9)]]


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture(scope="module")
def many():
    return synthesise(1600, seed=3, longest=700, real=REAL)


def axes_of(frequency, num_series, length, start="2024-01-01"):
    parsed = parse_frequency(frequency)
    starts = np.full(num_series, np.datetime64(start, "ns"))
    return Axes(starts, [parsed] * num_series, np.full(num_series, length))


def test_same_seed_same_numbers():
    first, again, other = (synthesise(48, seed, 128, REAL) for seed in (1, 1, 2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.values, b.values)
        assert (a.start, a.frequency, a.family) == (b.start, b.frequency, b.family)
    assert not any(np.array_equal(a.values, b.values) for a, b in zip(first, other, strict=True))


def test_families_share_evenly(many):
    assert set(Counter(one.family for one in many).values()) == {1600 // len(FAMILIES)}
    assert list(dict.fromkeys(one.family for one in many)) == list(FAMILIES)
    counts = Counter(one.family for one in synthesise(25, 0, 100))
    assert set(counts) == set(MADE_UP)
    assert sum(counts.values()) == 25
    assert max(counts.values()) - min(counts.values()) == 1
    assert synthesise(0, 0) == []


def test_every_series_can_be_learnt_from(many):
    for one in many:
        known = one.values[~np.isnan(one.values)]
        assert one.values.dtype == np.float32
        assert np.isfinite(known).all()
        assert len(known) >= 12
        assert known.min() < known.max()
        assert len(one.values) <= 700


def test_stamps_are_proper_and_within_reach(many):
    for one in many:
        assert one.start.dtype == np.dtype("datetime64[ns]")
        stamps = stamps_from(one.start, one.frequency, 0, len(one.values))
        assert stamps[0] == one.start
        numbers, falls = step_numbers(stamps, np.full(len(stamps), one.start), one.frequency)
        assert falls.all()
        np.testing.assert_array_equal(numbers, np.arange(len(stamps)))
        if one.frequency.unit == "W":
            assert (one.start.astype("datetime64[D]").astype(int) + 3) % 7 == one.frequency.anchor


def test_frequencies_scales_and_signs_are_as_in_real_data(many):
    clocks = np.mean([one.frequency.is_clock for one in many])
    slow = np.mean([one.frequency.months > 0 for one in many])
    positive = np.mean([np.nanmin(one.values) >= 0 for one in many])
    scales = [np.nanmax(np.abs(one.values)) for one in many if one.family != "intermittent"]
    assert 0.4 < clocks < 0.55
    assert 0.12 < slow < 0.25
    assert 0.6 < positive < 0.95
    assert np.quantile(scales, 0.05) < 0.05
    assert np.quantile(scales, 0.95) > 1e4


def test_too_short_and_too_dull_are_refused():
    with pytest.raises(DataError, match="at least"):
        synthesise(10, 0, longest=8)
    with pytest.raises(DataError, match="mixup"):
        synthesise(40, 0, real=[np.r_[np.zeros(10**6), 1.0]])
    assert usable([np.zeros(50), np.full(50, np.nan), np.arange(5.0)]) == []


@pytest.mark.parametrize("family", MADE_UP)
@pytest.mark.parametrize("frequency", SHARES)
def test_every_family_moves_at_every_frequency(family, frequency):
    rng = np.random.default_rng(0)
    axes = draw_axes(rng, 8, 200, {frequency: 1.0})
    for values, length in zip(mixing.draw_sound(family, rng, axes), axes.lengths, strict=True):
        assert len(values) == length
        assert mixing.is_sound(values)


@pytest.mark.parametrize(
    ("frequency", "length", "group"),
    [
        ("h", 1500, lambda s: (s - s.astype("datetime64[W]")).astype("timedelta64[h]").astype(int)),
        ("D", 300, lambda s: s.astype("datetime64[D]").astype(int) % 7),
        ("MS", 240, lambda s: s.astype("datetime64[M]").astype(int) % 12),
        ("QS", 80, lambda s: s.astype("datetime64[M]").astype(int) % 12),
    ],
)
def test_seasons_keep_to_the_calendar(rng, frequency, length, group):
    """Averages by hour of the week, day of the week, month tell a season without noise entirely."""
    axes = axes_of(frequency, 20, length, "2023-03-01")
    for values, stamps in zip(calendar_season(rng, axes), axes.stamps, strict=True):
        groups = group(stamps)
        means = np.bincount(groups, values) / np.maximum(np.bincount(groups), 1)
        assert np.var(values - means[groups]) < 1e-12
        assert np.var(values) == pytest.approx(1)


def test_seasons_follow_time_stamps_not_steps():
    """The same drawn season, begun eleven hours later, is the same season eleven hours on."""
    first, later = axes_of("h", 6, 900), axes_of("h", 6, 900, "2024-01-01T11")
    one, other = (calendar_season(np.random.default_rng(5), axes) for axes in (first, later))
    for a, b in zip(one, other, strict=True):
        assert np.corrcoef(a[11:], b[:-11])[0, 1] > 0.9999


def test_seasons_of_short_series_are_as_large_as_those_of_long_ones(rng):
    long, short = axes_of("h", 1, 2000), axes_of("MS", 1, 36)
    starts = np.r_[long.starts, short.starts]
    axes = Axes(starts, [*long.frequencies, *short.frequencies], np.array([2000, 36]))
    season = calendar_season(rng, axes)
    assert season[0].std() == pytest.approx(1)
    assert season[1, :36].std() == pytest.approx(1)


def test_phases_and_periods():
    axes = axes_of("15min", 1, 2000)
    assert axes.periods("day") == 96
    assert axes.phases("day")[0, 96 + 24] == 0.25
    assert axes.weekdays[0, [0, 96, 480]].tolist() == [0, 1, 5]
    assert axes_of("B", 1, 300).periods("week") == 5
    assert axes_of("B", 1, 300).periods("year") == pytest.approx(260.9, abs=0.1)
    assert axes_of("W", 1, 300).periods("year") == pytest.approx(52.18, abs=0.01)
    assert axes_of("MS", 1, 36).periods("year") == 12
    assert not axes_of("YS", 1, 36).shows("year")


def test_profiles_are_periodic(rng):
    tables = profiles(rng, 10)
    at_points = look_up(tables, np.broadcast_to(np.arange(1008) / 1008, tables.shape))
    np.testing.assert_allclose(at_points, tables, atol=1e-9)
    ends = look_up(tables, np.full((10, 1), 1 - 1e-9))
    np.testing.assert_allclose(ends[:, 0], tables[:, 0], atol=1e-5)


def test_covariance_of_fourier_paths_is_the_kernels(rng):
    scale, num = 9.0, 4000
    paths = fourier_paths(rng, smooth_frequencies(rng, np.full(num, scale)), 40)
    expected = np.exp(-(np.arange(40) ** 2) / (2 * scale**2))
    np.testing.assert_allclose((paths * paths[:, :1]).mean(axis=0), expected, atol=0.08)
    shifted = (paths[:, 10:] * paths[:, 10:11]).mean(axis=0)
    np.testing.assert_allclose(shifted, expected[:30], atol=0.08)


def test_waves_by_matrices_are_waves(rng):
    frequencies = rng.normal(size=(2, 5))
    fast = fourier_paths(np.random.default_rng(1), frequencies, 50)
    real, imaginary = np.random.default_rng(1).standard_normal((2, 2, 5)) / np.sqrt(5)
    angles = frequencies[:, :, None] * np.arange(50)
    slow = real[:, :, None] * np.cos(angles) - imaginary[:, :, None] * np.sin(angles)
    np.testing.assert_allclose(fast, slow.sum(axis=1), atol=1e-9)


def test_periodic_kernels_have_their_period(rng):
    paths = fourier_paths(rng, periodic_frequencies(rng, np.array([24.0, 7.0])), 480)
    np.testing.assert_allclose(paths[0, 24:], paths[0, :-24], atol=1e-8)
    np.testing.assert_allclose(paths[1, 7:], paths[1, :-7], atol=1e-8)


def test_autocorrelation_of_a_known_autoregression(rng):
    values = autoregression(rng.standard_normal((400, 1100)), np.full((400, 1), 0.7))[:, 100:]
    assert np.var(values) == pytest.approx(1 / (1 - 0.7**2), rel=0.05)
    for lag in (1, 2, 5):
        found = (values[:, lag:] * values[:, :-lag]).mean() / np.var(values)
        assert found == pytest.approx(0.7**lag, abs=0.02)
    np.testing.assert_allclose(
        persist(values, np.full(400, 0.7)), autoregression(values, np.full((400, 1), 0.7))
    )


def test_partial_autocorrelations_give_stationary_processes(rng):
    for coefficients in from_partial(rng.uniform(-0.99, 0.99, (200, 4))):
        assert np.abs(np.roots(np.r_[1, -coefficients])).max() < 1
    np.testing.assert_allclose(from_partial(np.array([[0.5, 0.3]])), [[0.5 * 0.7, 0.3]])


def test_moving_averages_and_seasonal_lags_by_hand():
    impulse = np.zeros((1, 9))
    impulse[0, 1] = 1
    moved = moving_average(impulse, np.array([[0.5, 0.2]]))
    assert moved[0].tolist() == [0, 1, 0.5, 0.2, 0, 0, 0, 0, 0]
    repeated = seasonal_autoregression(impulse, np.array([3]), np.array([0.5]))
    assert repeated[0].tolist() == [0, 1, 0, 0, 0.5, 0, 0, 0.25, 0]


def test_stationary_variance_of_mean_reversion(rng):
    regimes = np.zeros((500, 400), dtype=np.int64)
    ones = np.ones((500, 1))
    values = mean_reversion(rng, regimes, 3 * ones, 0.1 * ones, 2 * ones)
    assert values.mean() == pytest.approx(3, abs=0.1)
    assert values[:, 0].var() == pytest.approx(4, rel=0.25)
    assert values.var() == pytest.approx(4, rel=0.07)
    lagged = ((values[:, 5:] - 3) * (values[:, :-5] - 3)).mean() / 4
    assert lagged == pytest.approx(np.exp(-0.5), abs=0.05)


def test_markov_chains_stay_as_long_as_they_should(rng):
    states = markov_states(rng, np.full(300, 0.9), np.full(300, 2), 400)
    assert set(np.unique(states)) == {0, 1}
    # Half of those that leave come back to where they were.
    assert (states[:, 1:] == states[:, :-1]).mean() == pytest.approx(0.95, abs=0.01)


def test_of_steady_series_the_mean_of_seasons_tells_more_than_the_last(rng):
    better = []
    for values in FAMILIES["steady"](rng, axes_of("QS", 200, 200)):
        centred = values - values.mean()
        period = 2 + max(range(59), key=lambda n: centred[n + 2 :] @ centred[: -n - 2])
        num_seasons = min(4, len(values) // period - 1)
        first = num_seasons * period
        seasons = [values[first - n * period : -n * period] for n in range(1, num_seasons + 1)]
        errors = [np.abs(values[first:] - one).mean() for one in (seasons[0], np.mean(seasons, 0))]
        better.append(errors[1] < errors[0])
    assert np.mean(better) > 0.85


def test_seasons_of_steady_series_are_all_of_one_size_or_none(rng):
    axes = draw_axes(rng, 100, 400)
    rows = zip(seasons_of_steady(rng, axes), axes.lengths, strict=True)
    sizes = np.array([row[:length].std() for row, length in rows])
    np.testing.assert_allclose(sizes[sizes > 0], 1.0)
    assert 0.7 < (sizes > 0).mean() < 1


def test_of_working_weeks_the_week_before_tells_more_than_the_day_before(rng):
    values = FAMILIES["working_week"](rng, axes_of("h", 300, 8 * 168))
    assert values.min() >= 0
    errors = {lag: np.abs(values[:, lag:] - values[:, :-lag]).mean(axis=1) for lag in (24, 168)}
    assert (errors[168] < errors[24]).mean() > 0.75
    # Days off are at times next to nothing beside days worked, and at times hardly different.
    days = values.reshape(300, -1, 24).sum(axis=2)
    least = np.quantile(days, 0.1, axis=1) / np.median(days, axis=1)
    assert (least < 0.15).mean() > 0.1
    assert (least > 0.6).mean() > 0.1


def test_days_of_a_week_are_of_their_kind_but_for_holidays_which_are_as_sundays(rng):
    axes = axes_of("h", 400, 20 * 168, start="2024-01-01")  # a Monday
    days = np.arange(axes.shape[1]) // 24
    kinds = kinds_of_days(rng, axes, np.broadcast_to(days, axes.shape)).reshape(400, 20, 7, 24)
    assert set(np.unique(kinds)) == {0, 1, 2}
    assert (kinds == kinds[..., :1]).all()
    weeks = kinds[..., 0]
    usual = np.median(weeks, axis=1, keepdims=True)
    others = weeks != usual
    assert (weeks == usual[..., 6:])[others].all()
    assert 0.2 < others.any(axis=(1, 2)).mean() < 0.6


def test_a_years_events_come_again_on_their_dates_larger_or_smaller(rng):
    factors = np.log(of_the_year(rng, axes_of("D", 200, 2 * 365, start="2022-01-01")))
    assert (np.abs(factors).max(axis=1) > 0.1).mean() > 0.8
    first, second = factors[:, :365], factors[:, 365:]
    ratio = (first * second).sum(axis=1) / (first**2).sum(axis=1)
    np.testing.assert_allclose(second, first * ratio[:, None], atol=1e-9)
    assert 0.05 < np.std(ratio) < 0.5


def test_a_step_of_a_week_has_the_mean_of_the_days_that_end_with_its_date():
    daily = np.ones((1, 366))
    daily[0, 100] = 8.0
    weekly = over_steps(axes_of("W", 1, 60), daily)
    np.testing.assert_allclose(weekly[0, 100:107], 2.0)
    np.testing.assert_allclose(np.delete(weekly[0], np.arange(100, 107)), 1.0)
    np.testing.assert_array_equal(over_steps(axes_of("D", 1, 60), daily), daily)


def test_years_of_events_are_not_negative_and_weeks_repeat(rng):
    values = FAMILIES["yearly_events"](rng, axes_of("D", 200, 728))
    assert values.min() >= 0
    errors = {lag: np.abs(values[:, lag:] - values[:, :-lag]).mean(axis=1) for lag in (3, 7)}
    assert (errors[7] < errors[3]).mean() > 0.8


def test_seasons_swell_or_shrink(rng):
    values = FAMILIES["swelling"](rng, axes_of("h", 300, 20 * 24))
    assert np.isfinite(values).all()
    days = values.reshape(300, 20, 24)
    sizes = np.median(
        (days - days.mean(axis=2, keepdims=True)).std(axis=2).reshape(300, 4, 5), axis=2
    )
    change = sizes[:, 3] / sizes[:, 0]
    assert (change > 1.3).mean() > 0.2
    assert (change < 1 / 1.3).mean() > 0.1


def test_counts_are_whole_and_many_are_zero(many):
    counts = [one.values for one in many if one.family == "intermittent"]
    for values in counts:
        known = values[~np.isnan(values)]
        assert (known >= 0).all()
        assert (known == np.round(known)).all()
    zeros = np.array([np.mean(values[~np.isnan(values)] == 0) for values in counts])
    assert 0.15 < (zeros > 0.7).mean() < 0.9


def test_variance_of_negative_binomial_counts(rng):
    counts = negative_binomial(rng, np.full((1, 200_000), 4.0), np.array([2.0]))
    assert counts.mean() == pytest.approx(4, rel=0.03)
    assert counts.var() == pytest.approx(4 + 16 / 2, rel=0.05)


@pytest.mark.parametrize("system", SYSTEMS)
def test_chaotic_systems_stay_bounded(system, rng):
    axes = axes_of("h", 40, 1000)
    values = SYSTEMS[system](rng, axes)
    assert values.shape == axes.shape
    assert np.abs(values).max() < 100
    assert (values[:, 500:].std(axis=1) > 0).mean() > 0.9


def test_runge_kutta_solves_an_oscillator():
    state, step = np.array([[1.0], [0.0]]), np.array([0.2])
    solved = integrate(lambda s: np.stack([s[1], -s[0]]), state, step, 50)
    time = 0.2 * np.arange(101, 151)
    np.testing.assert_allclose(solved[0, 0], np.cos(time), atol=1e-4)


def test_growth_and_utilisation_keep_their_bounds(rng):
    axes = draw_axes(rng, 60, 400)
    assert FAMILIES["growth"](rng, axes).min() > 0
    assert FAMILIES["operations"](rng, axes).max() <= 100


def test_delays_by_hand():
    rows = np.array([[1, 2, 3, 4], [1, 2, 3, 4]])
    assert delay(rows, np.array([0, 2])).tolist() == [[1, 2, 3, 4], [1, 1, 1, 2]]


def test_mixtures_are_convex(rng):
    """Series in their mean absolute value all have 1, and so has their mixture."""
    real = usable(REAL)
    rows = mixup(rng, axes_of("D", 30, 300), [values + 1 for values in real])
    assert (rows >= 0).all()
    np.testing.assert_allclose(rows.mean(axis=1), 1)
    short = mixup(rng, axes_of("D", 4, 800), real[:1])
    assert np.isnan(short[:, 400:]).all()
    assert not np.isnan(short[:, :400]).any()


@pytest.mark.parametrize("name", LOSSES)
def test_losses_only_lose(name, rng):
    values = rng.standard_normal(500)
    for _ in range(20):
        after = LOSSES[name](rng, values)
        lost = np.isnan(after)
        assert 0 < lost.sum() <= 0.4 * len(values)
        np.testing.assert_array_equal(after[~lost], values[~lost])


@pytest.mark.parametrize("name", CHANGES)
def test_changes_lose_nothing_and_leave_their_argument(name, rng):
    values = np.where(rng.random(300) < 0.1, np.nan, rng.standard_normal(300))
    before = values.copy()
    after = CHANGES[name](rng, values)
    np.testing.assert_array_equal(values, before)
    np.testing.assert_array_equal(np.isnan(after), np.isnan(values))
    assert (after != values)[~np.isnan(values)].any()


def test_contaminations_touch_what_they_say(rng):
    values = rng.standard_normal(500)
    for _ in range(20):
        assert 1 <= (outliers(rng, values) != values).sum() <= 10
        shifts = np.round(level_shifts(rng, values) - values, 9)
        assert 1 <= np.count_nonzero(np.diff(shifts)) <= 2
        assert shifts[0] == 0
        held = censor(rng, values)
        changed = held != values
        assert changed.mean() <= 0.151
        assert len(set(held[changed])) == 1
        rounded = round_coarsely(rng, values)
        assert len(np.unique(rounded)) < 0.8 * len(values)
        assert np.abs(rounded - values).max() <= 0.51
