"""Chaotic maps and ordinary differential equations, many series at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from llamacast.data.synthetic.axes import Axes, by_kind
from llamacast.data.synthetic.draws import (
    Integers,
    Rng,
    Rows,
    chance,
    column,
    log_uniform,
    standardise,
)

Field = Callable[[Rows], Rows]
"""Rate of change of states `(dimension, series)`."""

SUBSTEPS = 4
"""Runge-Kutta steps between two samples."""
TRANSIENT = 100
"""Samples dropped, so that series begin on their attractor."""
_DELAY_STEPS = 24
_MOST_STRIDE = 4


def chaotic(rng: Rng, axes: Axes) -> Rows:
    """One coordinate of chaotic or oscillating systems, sampled at a random step; some with noise.

    Lorenz, 1963; Roessler, 1976; Mackey and Glass, 1977; the logistic map of May, 1976; driven
    pendulum; Lotka and Volterra, 1920s; van der Pol, 1926. Parameters are drawn around those known.
    """
    values = standardise(by_kind(rng, axes, SYSTEMS), axes.lengths)
    size = log_uniform(rng, 0.005, 0.2, axes.num_series) * chance(rng, 0.5, axes.num_series)
    return values + column(size) * rng.standard_normal(axes.shape)


def integrate(
    field: Field, state: Rows, step: Rows, num_samples: int, transient: int = TRANSIENT
) -> Rows:
    """Classical Runge-Kutta of fourth order.

    Args:
        field: the differential equations.
        state: where each series starts, `(dimension, series)`.
        step: time between two samples of each series, `(series,)`.
        num_samples: samples to take.
        transient: samples before these, which are dropped.

    Returns:
        Shape `(dimension, series, sample)`.
    """
    out = np.empty((*state.shape, num_samples))
    size = step / SUBSTEPS
    for sample in range(-transient, num_samples):
        for _ in range(SUBSTEPS):
            first = field(state)
            second = field(state + size / 2 * first)
            third = field(state + size / 2 * second)
            fourth = field(state + size * third)
            state = state + size / 6 * (first + 2 * second + 2 * third + fourth)
        if sample >= 0:
            out[:, :, sample] = state
    return out


def _pick(rng: Rng, coordinates: Rows, choices: int) -> Rows:
    """One of the first coordinates of each series."""
    num_series = coordinates.shape[1]
    return coordinates[rng.integers(choices, size=num_series), np.arange(num_series)]


def _lorenz(rng: Rng, axes: Axes) -> Rows:
    sigma, rho, beta = np.array([[10], [28], [8 / 3]]) * rng.uniform(0.9, 1.2, (3, axes.num_series))

    def field(state: Rows) -> Rows:
        x, y, z = state
        return np.stack([sigma * (y - x), x * (rho - z) - y, x * y - beta * z])

    start = rng.standard_normal((3, axes.num_series)) + np.array([[1], [1], [25]])
    step = log_uniform(rng, 0.01, 0.1, axes.num_series)
    return _pick(rng, integrate(field, start, step, axes.num_steps), 3)


def _roessler(rng: Rng, axes: Axes) -> Rows:
    # Beyond these, states run off to infinity.
    a, b, c = np.array([[0.2], [0.2], [5.7]]) * rng.uniform(0.85, 1.1, (3, axes.num_series))

    def field(state: Rows) -> Rows:
        x, y, z = state
        return np.stack([-y - z, x + a * y, b + z * (x - c)])

    start = rng.standard_normal((3, axes.num_series)) * np.array([[3], [3], [0]])
    step = log_uniform(rng, 0.06, 0.4, axes.num_series)
    return _pick(rng, integrate(field, start, step, axes.num_steps), 3)


def _pendulum(rng: Rng, axes: Axes) -> Rows:
    """Driven and damped, chaotic for strong drives; or undriven without friction."""
    driven = chance(rng, 0.7, axes.num_series)
    friction = rng.uniform(0.2, 0.6, axes.num_series) * driven
    drive = rng.uniform(0.6, 1.6, axes.num_series) * driven
    speed = rng.uniform(0.5, 0.8, axes.num_series)

    def field(state: Rows) -> Rows:
        angle, velocity, phase = state
        force = drive * np.cos(phase) - friction * velocity - np.sin(angle)
        return np.stack([velocity, force, speed])

    start = rng.uniform(-2, 2, (3, axes.num_series))
    step = log_uniform(rng, 0.06, 0.6, axes.num_series)
    angle, velocity, _ = integrate(field, start, step, axes.num_steps)
    # The angle itself may turn over and over.
    return np.where(column(chance(rng, 0.5, axes.num_series)), np.sin(angle), velocity)


def _lotka_volterra(rng: Rng, axes: Axes) -> Rows:
    """Hunters and prey, in logarithms, so that neither dies out."""
    birth, hunger = log_uniform(rng, 0.5, 2, (2, axes.num_series))

    def field(state: Rows) -> Rows:
        hunters = np.exp(np.minimum(state, 20))
        return np.stack([birth * (1 - hunters[1]), hunger * (hunters[0] - 1)])

    start = rng.uniform(0.2, 1.2, (2, axes.num_series))
    step = log_uniform(rng, 0.06, 0.5, axes.num_series)
    return np.exp(_pick(rng, integrate(field, start, step, axes.num_steps), 2))


def _van_der_pol(rng: Rng, axes: Axes) -> Rows:
    stiffness = log_uniform(rng, 0.1, 5, axes.num_series)

    def field(state: Rows) -> Rows:
        x, velocity = state
        return np.stack([velocity, stiffness * (1 - x**2) * velocity - x])

    start = rng.uniform(-2, 2, (2, axes.num_series))
    step = log_uniform(rng, 0.06, 0.4, axes.num_series)
    return _pick(rng, integrate(field, start, step, axes.num_steps), 2)


def _logistic_map(rng: Rng, axes: Axes) -> Rows:
    """`x <- r x (1 - x)`, from periods of four steps to full chaos."""
    rate = rng.uniform(3.5, 4.0, axes.num_series)
    state = rng.uniform(0.1, 0.9, axes.num_series)
    out = np.empty(axes.shape)
    for sample in range(-TRANSIENT, axes.num_steps):
        # At r = 4 rounding can end in 0 or 1, from which there is no return.
        state = np.clip(rate * state * (1 - state), 1e-9, 1 - 1e-9)
        if sample >= 0:
            out[:, sample] = state
    return out


def _mackey_glass(rng: Rng, axes: Axes) -> Rows:
    """Blood cells with delayed production; exact decay between points of a grid over the delay."""
    num_points = _DELAY_STEPS + (axes.num_steps + TRANSIENT) * _MOST_STRIDE
    power = rng.uniform(8, 12, axes.num_series)
    kept = np.exp(-0.1 * rng.uniform(14, 40, axes.num_series) / _DELAY_STEPS)
    grid = np.empty((num_points, axes.num_series))
    grid[:_DELAY_STEPS] = rng.uniform(0.5, 1.3, axes.num_series)
    for point in range(_DELAY_STEPS, num_points):
        delayed = grid[point - _DELAY_STEPS]
        produced = 2 * delayed / (1 + delayed**power)
        grid[point] = kept * grid[point - 1] + (1 - kept) * produced
    return _stride(grid.T, rng.integers(1, _MOST_STRIDE + 1, size=axes.num_series), axes.num_steps)


def _stride(grid: Rows, strides: Integers, num_steps: int) -> Rows:
    """The last steps of each row that are `strides` apart."""
    back = np.arange(num_steps - 1, -1, -1)
    return np.take_along_axis(grid, grid.shape[1] - 1 - column(strides) * back, axis=1)


SYSTEMS: dict[str, Callable[[Rng, Axes], Rows]] = {
    "Lorenz": _lorenz,
    "Roessler": _roessler,
    "pendulum": _pendulum,
    "Lotka-Volterra": _lotka_volterra,
    "van der Pol": _van_der_pol,
    "logistic map": _logistic_map,
    "Mackey-Glass": _mackey_glass,
}
