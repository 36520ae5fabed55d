"""Draws and recursions that several families share. Rows are series, columns are steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Rng = np.random.Generator
Rows = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.floating[Any]]
Shape = int | tuple[int, ...]


def log_uniform(rng: Rng, low: float, high: float, size: Shape) -> Rows:
    """Numbers in `[low, high)`, every ratio of which is as likely as at any other place."""
    return np.exp(rng.uniform(np.log(low), np.log(high), size))


def chance(rng: Rng, probability: float, size: Shape) -> Flags:
    return rng.random(size) < probability


def column(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """One number for each series, to go with all its steps: shape `(series, 1)`."""
    return values[:, None]


def standardise(rows: Rows, lengths: Integers | None = None) -> Rows:
    """Mean 0 and deviation 1 in each row, or in its first `lengths` steps.

    A row that does not move there becomes 0 there.
    """
    counts = np.full(len(rows), rows.shape[1]) if lengths is None else lengths
    own = np.arange(rows.shape[1]) < column(counts)
    centred = rows - column((rows * own).sum(axis=1) / counts)
    deviation = column(np.sqrt(((centred * own) ** 2).sum(axis=1) / counts))
    return centred / np.where(deviation > 1e-9, deviation, 1.0)


def persist(shocks: Rows, persistence: Rows) -> Rows:
    """Autoregression of first order: `y[t] = persistence * y[t - 1] + shocks[t]`, `y[-1] = 0`.

    `persistence` is `(series,)`.
    """
    out = np.empty_like(shocks)
    state = np.zeros(len(shocks))
    for step in range(shocks.shape[1]):
        state = persistence * state + shocks[:, step]
        out[:, step] = state
    return out


def coloured_noise(rng: Rng, shape: tuple[int, int], persistence: Rows) -> Rows:
    """Stationary autoregression of first order with variance 1."""
    shocks = rng.standard_normal(shape)
    shocks[:, 1:] *= column(np.sqrt(1 - persistence**2))
    return persist(shocks, persistence)


def heavy_noise(rng: Rng, shape: tuple[int, int]) -> Rows:
    """White noise of variance 1: normal in half of the rows, else Student's t of 3 to 10."""
    degrees = rng.uniform(3, 10, (shape[0], 1))
    stretch = np.sqrt((degrees - 2) / rng.chisquare(degrees, shape))
    return rng.standard_normal(shape) * np.where(chance(rng, 0.5, (shape[0], 1)), 1.0, stretch)


def markov_states(rng: Rng, stay: Rows, num_states: Integers, num_steps: int) -> Integers:
    """States of Markov chains, `(series, step)`: each stays with probability `stay`, else any."""
    num_series = len(stay)
    leaves = rng.random((num_series, num_steps)) >= column(stay)
    leaves[:, 0] = True
    drawn = (rng.random((num_series, num_steps)) * column(num_states)).astype(np.int64)
    last_left = np.maximum.accumulate(np.where(leaves, np.arange(num_steps), 0), axis=1)
    return np.take_along_axis(drawn, last_left, axis=1)
