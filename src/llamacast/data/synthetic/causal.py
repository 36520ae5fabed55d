"""Structural causal mixtures: Gaussian processes pushed through random graphs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from llamacast.data.synthetic.axes import Axes
from llamacast.data.synthetic.draws import (
    Integers,
    Rng,
    Rows,
    chance,
    column,
    log_uniform,
    standardise,
)
from llamacast.data.synthetic.gaussian import gaussian_process

NUM_ROOTS = 3
NUM_NODES = 7
LONGEST_LAG = 12
_EDGE_CHANCE = 0.5
_LEAD_IN = LONGEST_LAG * (NUM_NODES - NUM_ROOTS)
"""Steps before a series' start, so that no lag reaches beyond what was made."""

ACTIVATIONS: tuple[Callable[[Rows], Rows], ...] = (
    lambda x: x,
    np.tanh,
    np.sin,
    lambda x: np.maximum(x, 0.1 * x),
    lambda x: np.maximum(x, 0.0),
    np.abs,
    lambda x: np.clip(x, -3, 3) ** 2,
    lambda x: np.exp(-(x**2)),
    lambda x: np.floor(2 * x) / 2,
)


def causal(rng: Rng, axes: Axes) -> Rows:
    """Nodes of random causal graphs: activations of weighted, lagged sums of their parents.

    CauKer (Xie et al., 2025, arXiv 2508.02879): roots are Gaussian processes with composed kernels;
    one of the later nodes is shown, with a little noise.
    """
    longer = axes.longer(_LEAD_IN)
    rows = np.arange(axes.num_series)
    nodes = [standardise(gaussian_process(rng, longer), longer.lengths) for _ in range(NUM_ROOTS)]
    while len(nodes) < NUM_NODES:
        nodes.append(_next_node(rng, nodes, longer.lengths))
    shown = rng.integers(NUM_ROOTS, NUM_NODES, size=axes.num_series)
    values = np.stack(nodes)[shown, rows, _LEAD_IN:]
    size = log_uniform(rng, 0.005, 0.3, axes.num_series) * chance(rng, 0.7, axes.num_series)
    return values + column(size) * rng.standard_normal(values.shape)


def _next_node(rng: Rng, parents: list[Rows], lengths: Integers) -> Rows:
    num_series = len(parents[0])
    total = np.zeros_like(parents[0])
    # The latest node is always a parent, so that graphs are deep and no node is left without.
    for parent in parents:
        weight = rng.standard_normal(num_series) + np.where(rng.random(num_series) < 0.5, -0.5, 0.5)
        weight *= chance(rng, _EDGE_CHANCE, num_series) | (parent is parents[-1])
        lags = rng.integers(LONGEST_LAG + 1, size=num_series) * chance(rng, 0.5, num_series)
        total += column(weight) * delay(parent, lags)
    total += 0.5 * rng.standard_normal((num_series, 1))
    return standardise(_activate(rng, total), lengths)


def delay(rows: Rows, lags: Integers) -> Rows:
    """Each row later by its lag; its first value is held until then."""
    places = np.maximum(np.arange(rows.shape[1]) - column(lags), 0)
    return np.take_along_axis(rows, places, axis=1)


def _activate(rng: Rng, rows: Rows) -> Rows:
    kinds = rng.integers(len(ACTIVATIONS), size=len(rows))
    out = np.empty_like(rows)
    for number, activation in enumerate(ACTIVATIONS):
        chosen = kinds == number
        out[chosen] = activation(rows[chosen])
    return out
