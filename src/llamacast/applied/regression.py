"""Ridge regressions of series on what lies beside them, with how uncertain the effects are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import BayesianRidge
from sklearn.preprocessing import SplineTransformer

from llamacast.applied.scores import usual_step
from llamacast.data.covariates import late

Floats = npt.NDArray[np.float64]

# A numeric covariate of more distinct values may bend: a cubic spline between so many knots.
FEW_VALUES, NUM_KNOTS = 8, 5
# Values, and covariates' values, that a regression is worth trying on.
FEWEST_VALUES = 12
# Waves of the season, and bends of the trend, that stand beside covariates in a regression of levels.
NUM_WAVES, NUM_BENDS = 4, 4


@dataclass(frozen=True)
class Design:
    """A series and what lies beside it."""

    values: Floats
    """Shape `(step,)`; NaN where missing."""
    covariates: Floats
    """Shape `(step, column)`: as many steps, and those of the horizon."""
    ahead: npt.NDArray[np.bool_]
    """Which columns are known for the horizon; others are used as they were a horizon before."""
    season: int
    """Steps of a season, 0 for none."""

    @property
    def length(self) -> int:
        return len(self.values)

    @cached_property
    def features(self) -> Floats:
        """Shape `(step, feature)`: covariates as numbers that a line may be fitted to, bent ones as
        splines; what never changes is left out."""
        horizon = len(self.covariates) - self.length
        found = []
        for column, ahead in zip(self.covariates.T, self.ahead, strict=True):
            known = column if ahead else late(column, self.length, horizon)
            history = known[: self.length]
            if np.ptp(history) == 0:
                continue
            if len(np.unique(history)) <= FEW_VALUES:
                found.append(known[:, None])
                continue
            # Quantiles that coincide leave fewer knots.
            knots = np.unique(np.quantile(history, np.linspace(0, 1, NUM_KNOTS)))
            splines = SplineTransformer(
                degree=min(3, len(knots) - 1), knots=knots[:, None], extrapolation="linear"
            )
            splines.fit(history[:, None])
            found.append(splines.transform(known[:, None])[:, 1:])
        if not found:
            return np.empty((len(self.covariates), 0))
        return np.concatenate(found, axis=1)


@dataclass(frozen=True)
class Effects:
    """What covariates add to a series, over its history and its horizon."""

    mean: Floats
    """Shape `(step,)`."""
    future: Floats
    """Features of the horizon's steps, as far from their usual values, `(horizon, feature)`."""
    spread: Floats
    """A root of the covariance of the coefficients, `(feature, any)`."""

    @staticmethod
    def none(length: int, horizon: int) -> Effects:
        return Effects(np.zeros(length + horizon), np.empty((horizon, 0)), np.empty((0, 0)))

    def draw(self, num_samples: int, rng: np.random.Generator, spread: bool) -> Floats:
        """Effects on the horizon, `(sample, horizon)`, by coefficients drawn from what is known of
        them; without `spread` the mean."""
        horizon = len(self.future)
        middle = np.broadcast_to(self.mean[len(self.mean) - horizon :], (num_samples, horizon))
        if not spread or not self.spread.size:
            return middle
        draws = rng.normal(size=(num_samples, self.spread.shape[1])) @ self.spread.T
        return middle + draws @ self.future.T


def fit_alone(design: Design, kind: str) -> Effects:
    """Of one series: "levels" beside season and trend, or "changes" from step to step or "seasons"."""
    features = design.features
    horizon = len(features) - design.length
    lag = {"levels": 0, "changes": 1, "seasons": design.season}[kind]
    rows = _rows(design, features, lag)
    if (kind == "seasons" and lag < 2) or rows is None:
        return Effects.none(design.length, horizon)
    inputs, targets = rows
    beside = _season_and_trend(design) if kind == "levels" else np.empty((design.length, 0))
    if kind == "levels":
        known = np.isfinite(design.values)
        inputs = np.concatenate([inputs, beside[known]], axis=1)
    mean, root = _ridge(inputs, targets)
    count = features.shape[1]
    return _effects(design, features, mean[:count], root[:count])


def fit_together(designs: Sequence[Design]) -> list[Effects]:
    """Of the changes of all series together, each in its own usual changes.

    Covariates that differ between series but never change within one alter what the others do: their
    products stand beside them.
    """
    tables = _common_features(designs)
    units = [usual_step(design.values) for design in designs]
    found = [_rows(design, features, 1) for design, features in zip(designs, tables, strict=True)]
    kept = [(rows, unit) for rows, unit in zip(found, units, strict=True) if rows is not None]
    if not kept or not tables[0].shape[1]:
        return [
            Effects.none(design.length, len(design.covariates) - design.length)
            for design in designs
        ]
    inputs = np.concatenate([rows[0] for rows, _ in kept])
    targets = np.concatenate([rows[1] / unit for rows, unit in kept])
    mean, root = _ridge(inputs, targets)
    return [
        _effects(design, features, mean * unit, root * unit)
        for design, features, unit in zip(designs, tables, units, strict=True)
    ]


def _common_features(designs: Sequence[Design]) -> list[Floats]:
    """The same features of every series: columns as they are, and times what tells series apart."""
    stacked = np.concatenate([design.covariates[: design.length] for design in designs])
    usual, width = np.nanmean(stacked, axis=0), np.nanstd(stacked, axis=0)
    varies = np.zeros(len(usual), dtype=bool)
    for design in designs:
        varies |= np.ptp(design.covariates[: design.length], axis=0) > 0
    still = ~varies & (width > 0)
    tables = []
    for design in designs:
        horizon = len(design.covariates) - design.length
        known = [
            column if ahead else late(column, design.length, horizon)
            for column, ahead in zip(design.covariates.T, design.ahead, strict=True)
        ]
        scaled = (np.stack(known, axis=1) - usual) / np.where(width > 0, width, 1.0)
        moving, apart = scaled[:, varies], scaled[0, still]
        products = [moving * one for one in apart]
        tables.append(np.concatenate([moving, *products], axis=1))
    return tables


def _rows(design: Design, features: Floats, lag: int) -> tuple[Floats, Floats] | None:
    """Inputs and targets of what is observed, or of its changes over a lag; None if they are few."""
    values, history = design.values, features[: design.length]
    if lag:
        values, history = values[lag:] - values[:-lag], history[lag:] - history[:-lag]
    known = np.isfinite(values)
    if known.sum() < FEWEST_VALUES or not features.shape[1]:
        return None
    inputs = history[known]
    return (inputs, values[known]) if np.ptp(inputs, axis=0).any() else None


def _ridge(inputs: Floats, targets: Floats) -> tuple[Floats, Floats]:
    """Coefficients, and a root of their covariance, by evidence (MacKay 1992).

    Inputs and targets are brought to unit spread, so that one prior suits them all.
    """
    width = inputs.std(axis=0)
    width = np.where(width > 0, width, 1.0)
    unit = targets.std() or 1.0
    ridge = BayesianRidge().fit(inputs / width, targets / unit)
    values, vectors = np.linalg.eigh(ridge.sigma_)
    root = vectors * np.sqrt(values.clip(min=0.0))
    return ridge.coef_ * unit / width, root * unit / width[:, None]


def _effects(design: Design, features: Floats, mean: Floats, root: Floats) -> Effects:
    """Counted from the mean over the history, so that the level stays the network's."""
    centred = features - features[: design.length].mean(axis=0)
    return Effects(centred @ mean, centred[design.length :], root)


def _season_and_trend(design: Design) -> Floats:
    """Waves of the season and a slowly bending trend, which the network tells better."""
    time = np.arange(design.length)
    found = []
    if design.season > 1:
        waves = min(NUM_WAVES, design.season // 2)
        angles = 2 * np.pi * np.outer(time, np.arange(1, waves + 1)) / design.season
        found += [np.sin(angles), np.cos(angles)]
    bends = np.cos(np.pi * np.outer(time + 0.5, np.arange(1, NUM_BENDS + 1)) / design.length)
    return np.concatenate([*found, bends], axis=1)
