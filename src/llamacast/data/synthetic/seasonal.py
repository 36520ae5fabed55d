"""Seasons that keep to the calendar, trends, and series made of both."""

from __future__ import annotations

import numpy as np

from llamacast.data.synthetic.axes import Axes, Span
from llamacast.data.synthetic.draws import (
    Flags,
    Integers,
    Rng,
    Rows,
    chance,
    coloured_noise,
    column,
    heavy_noise,
    log_uniform,
    standardise,
)

GRID = 1008
"""Points at which the profile of a span is tabled; days, weeks and years divide it evenly."""

LONGEST_WHOLE_SEASON = 400

# How often a span that a series is long enough for has a profile of its own.
_PRESENCE: dict[Span, float] = {"minute": 0.1, "hour": 0.2, "day": 0.9, "week": 0.75, "year": 0.6}
_MAIN_FIRST: tuple[Span, ...] = ("day", "week", "year", "hour", "minute")


def seasonal_trend(rng: Rng, axes: Axes) -> Rows:
    """Trend, calendar-true seasons and noise, added or multiplied.

    Structural decomposition as in Harvey, Forecasting, Structural Time Series Models and the Kalman
    Filter, 1989. Multiplied rows are positive.
    """
    season = calendar_season(rng, axes)
    trend = trends(rng, axes) * column(log_uniform(rng, 0.1, 5, axes.num_series))
    noise = uneven_noise(rng, season) * column(log_uniform(rng, 0.02, 1, axes.num_series))
    multiplied = chance(rng, 0.4, axes.num_series)
    strength = column(log_uniform(rng, 0.1, 0.8, axes.num_series))
    product = np.exp(0.4 * np.clip(trend, -6, 6) + strength * np.clip(season + noise, -6, 6))
    return np.where(column(multiplied), product, trend + season + noise)


def calendar_season(rng: Rng, axes: Axes) -> Rows:
    """Season without noise, deviation 1: a sum of profiles of the hour, day, week and year.

    Its main span (a day; else a week, a year) is always there if the series is long enough; others
    by chance. The daily profile may be weaker, or another one, on weekends.
    """
    season = np.zeros(axes.shape)
    main_is_found = np.zeros(axes.num_series, dtype=bool)
    for span in _MAIN_FIRST:
        shown = axes.shows(span)
        present = shown & (~main_is_found | chance(rng, _PRESENCE[span], axes.num_series))
        size = np.where(main_is_found, log_uniform(rng, 0.1, 1, axes.num_series), 1.0)
        rows = np.flatnonzero(present)
        if len(rows):
            part = axes.take(rows)
            made = _season_of(rng, part, span) * column(size[rows])
            season[rows, : part.num_steps] += made
            season[rows, part.num_steps :] += made[:, -1:]
        main_is_found |= shown
    return standardise(season, axes.lengths)


def _season_of(rng: Rng, axes: Axes, span: Span) -> Rows:
    if span == "week":
        levels = _levels_of_weekdays(rng, axes.num_series)
        return np.take_along_axis(levels, axes.weekdays, axis=1)
    phases = axes.phases(span)
    season = look_up(profiles(rng, axes.num_series), phases)
    if span != "day":
        return season
    # Of every three series: one with the same day all week, one with weak and one with other weekends.
    kind = column(rng.integers(3, size=axes.num_series))
    other = look_up(profiles(rng, axes.num_series), phases)
    other = np.where(kind == 0, season, np.where(kind == 1, 0.3 * season, other))
    return np.where(axes.weekdays >= 5, other, season)


def _levels_of_weekdays(rng: Rng, num_series: int) -> Rows:
    """Seven levels of each series, `(series, 7)`: of all days, or of workdays against weekends."""
    levels = rng.standard_normal((num_series, 7))
    weekend = rng.choice([-2.0, 2.0], size=num_series, p=[0.7, 0.3])
    flat = 0.2 * levels + np.where(np.arange(7) >= 5, column(weekend), 0.0)
    return standardise(np.where(column(chance(rng, 0.5, num_series)), levels, flat))


def profiles(rng: Rng, num_series: int) -> Rows:
    """Random periodic shapes, `(series, GRID)`, deviation 1: harmonics, peaks, plateaus, or steps."""
    kinds = (_harmonics, _peaks, _plateaus, _random_points)
    drawn = rng.choice(len(kinds), size=num_series, p=[0.4, 0.3, 0.15, 0.15])
    out = np.empty((num_series, GRID))
    for number, make in enumerate(kinds):
        rows = np.flatnonzero(drawn == number)
        out[rows] = make(rng, len(rows))
    return standardise(out)


def look_up(tables: Rows, phases: Rows) -> Rows:
    """Values of periodic profiles at `phases` in `[0, 1)`, linear between tabled points."""
    place = phases * tables.shape[1]
    left = place.astype(np.int64)
    share = place - left
    first = column(np.arange(len(tables))) * tables.shape[1]
    flat = tables.ravel()
    before = flat[first + left % tables.shape[1]]
    return before + share * (flat[first + (left + 1) % tables.shape[1]] - before)


def _harmonics(rng: Rng, num_series: int, most: int = 8) -> Rows:
    number = np.arange(1, most + 1)
    weights = rng.standard_normal((num_series, 2, most))
    weights /= number ** rng.uniform(0.5, 2.5, (num_series, 1, 1))
    weights *= number <= rng.integers(1, most + 1, (num_series, 1, 1))
    angles = 2 * np.pi * number[:, None] * np.arange(GRID) / GRID
    return weights[:, 0] @ np.cos(angles) + weights[:, 1] @ np.sin(angles)


def _peaks(rng: Rng, num_series: int) -> Rows:
    """One to three peaks, as sharp as rush hours or as broad as an afternoon."""
    centres, sharpness = (
        rng.random((num_series, 3, 1)),
        log_uniform(rng, 3, 300, (num_series, 3, 1)),
    )
    heights = rng.uniform(0.3, 1, (num_series, 3, 1)) * chance(rng, 0.6, (num_series, 3, 1))
    heights[:, 0] = 1.0
    away = np.cos(2 * np.pi * (np.arange(GRID) / GRID - centres)) - 1
    return np.asarray((heights * np.exp(sharpness * away)).sum(axis=1))


def _plateaus(rng: Rng, num_series: int) -> Rows:
    """On for part of the span, as in opening hours, with slopes of random steepness."""
    centre, share = rng.random((num_series, 1)), rng.uniform(0.1, 0.6, (num_series, 1))
    closeness = np.cos(2 * np.pi * (np.arange(GRID) / GRID - centre)) - np.cos(np.pi * share)
    return np.tanh(np.clip(closeness * log_uniform(rng, 2, 60, (num_series, 1)), -20, 20))


def _random_points(rng: Rng, num_series: int) -> Rows:
    """A level for each of 24 parts of the span, gliding from one to the next."""
    points = rng.standard_normal((num_series, 24))
    return look_up(points, np.broadcast_to(np.arange(GRID) / GRID, (num_series, GRID)))


def trends(rng: Rng, axes: Axes) -> Rows:
    """None, straight, of several straight pieces, or damped; of the order of 1 over a series."""
    time = axes.progress
    slope = rng.standard_normal((axes.num_series, 1))
    bends = rng.standard_normal((axes.num_series, 4)) * chance(rng, 0.6, (axes.num_series, 4))
    knots = rng.random((axes.num_series, 4))
    pieces = slope * time
    for bend, knot in zip(bends.T, knots.T, strict=True):
        pieces = pieces + 2 * column(bend) * np.maximum(time - column(knot), 0)
    damping = column(log_uniform(rng, 1, 20, axes.num_series))
    damped = slope * (1 - np.exp(-damping * time))
    kind = column(rng.integers(4, size=axes.num_series))
    return np.select([kind == 0, kind == 1, kind == 2], [0 * time, slope * time, pieces], damped)


def uneven_noise(rng: Rng, season: Rows) -> Rows:
    """Noise of the order of 1: white or persistent, and louder at times in half of the rows.

    It is loud where the season is high, or in spells of its own.
    """
    num_series, num_steps = season.shape
    persistence = np.where(chance(rng, 0.5, num_series), 0.0, rng.uniform(0.2, 0.98, num_series))
    noise = coloured_noise(rng, season.shape, persistence)
    white = heavy_noise(rng, (num_series, num_steps))
    noise = np.where(column(persistence == 0), white, noise)
    spells = coloured_noise(rng, season.shape, np.full(num_series, 0.99))
    loudness = np.where(column(chance(rng, 0.5, num_series)), season, spells)
    strength = column(rng.uniform(0.2, 0.8, num_series) * chance(rng, 0.5, num_series))
    return noise * np.exp(strength * np.clip(loudness, -3, 3))


def _visible_periods(axes: Axes) -> tuple[Rows, Flags]:
    """Steps of each span that a series shows, `(series, span)`, and which it shows."""
    spans = _MAIN_FIRST
    periods = np.stack([axes.periods(span) for span in spans], axis=1)
    return periods, np.stack([axes.shows(span) for span in spans], axis=1)


def draw_periods(rng: Rng, axes: Axes) -> Rows:
    """A period for each series, in steps: one of its calendar if it shows any, else any."""
    periods, shown = _visible_periods(axes)
    score = rng.random(periods.shape) * shown
    chosen = periods[np.arange(axes.num_series), score.argmax(axis=1)]
    anything = np.exp(rng.uniform(np.log(4), np.log(np.maximum(axes.lengths / 2, 5))))
    return np.where(shown.any(axis=1), chosen, anything)


def whole_seasons(rng: Rng, axes: Axes) -> Integers:
    """A whole number of steps for each series; 1, which is none, where the season is too long."""
    periods = np.rint(draw_periods(rng, axes)).astype(np.int64)
    return np.where(periods > np.minimum(LONGEST_WHOLE_SEASON, axes.lengths), 1, periods)
