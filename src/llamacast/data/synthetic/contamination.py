"""What happens to series between the world and a table. Each takes and gives one series."""

from __future__ import annotations

import numpy as np

from llamacast.data.synthetic.draws import Rng, Rows


def level_shifts(rng: Rng, values: Rows) -> Rows:
    """From one or two steps on, all values are higher or lower by some deviations."""
    out = values.copy()
    for _ in range(rng.integers(1, 3)):
        first = int(rng.integers(1, len(values)))
        out[first:] += rng.uniform(0.5, 4) * rng.choice([-1, 1]) * np.nanstd(values)
    return out


def outliers(rng: Rng, values: Rows) -> Rows:
    """Up to 2 % of the values (at least one) are some deviations off, each on its own."""
    out = values.copy()
    number = int(rng.integers(1, max(2, len(values) // 50 + 1)))
    places = rng.choice(len(values), size=number, replace=False)
    sizes = rng.uniform(3, 12, number) * rng.choice([-1, 1], size=number)
    out[places] += sizes * np.nanstd(values)
    return out


def missing_stretches(rng: Rng, values: Rows) -> Rows:
    """One to three stretches, each up to a tenth of the series, are missing."""
    out = values.copy()
    for _ in range(rng.integers(1, 4)):
        length = int(rng.integers(1, max(2, len(values) // 10 + 1)))
        first = int(rng.integers(len(values) - length + 1))
        out[first : first + length] = np.nan
    return out


def missing_points(rng: Rng, values: Rows) -> Rows:
    """Up to 30 % of the values, at random, are missing."""
    return np.where(rng.random(len(values)) < rng.uniform(0.01, 0.3), np.nan, values)


def censor(rng: Rng, values: Rows) -> Rows:
    """A floor or a ceiling, at which up to 15 % of the values are held."""
    if rng.random() < 0.5:
        return np.maximum(values, np.nanquantile(values, rng.uniform(0.01, 0.15)))
    return np.minimum(values, np.nanquantile(values, rng.uniform(0.85, 0.99)))


def round_coarsely(rng: Rng, values: Rows) -> Rows:
    """To multiples of a power of ten, so that a deviation has some 2 to 50 of them."""
    if not np.nanstd(values) > 0:
        return values
    step = 10.0 ** np.round(np.log10(np.nanstd(values) / rng.uniform(2, 50)))
    return np.round(values / step) * step


CHANGES = {
    "level shifts": level_shifts,
    "outliers": outliers,
    "censoring": censor,
    "rounding": round_coarsely,
}
"""Those that change values."""
LOSSES = {"missing stretches": missing_stretches, "missing points": missing_points}
"""Those that only lose values."""
