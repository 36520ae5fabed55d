"""Draws from Gaussian processes with composed kernels, in time linear in their length."""

from __future__ import annotations

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
from llamacast.data.synthetic.seasonal import draw_periods

MOST_KERNELS = 5
NUM_FEATURES = 128
_HARMONICS = 32
CONSTANT, WHITE, LINEAR, SMOOTH, RATIONAL, PERIODIC = range(6)
_SHARES = (0.05, 0.1, 0.15, 0.2, 0.2, 0.3)


def gaussian_process(rng: Rng, axes: Axes) -> Rows:
    """Gaussian processes whose kernels are sums and products of one to five kernels.

    KernelSynth (Ansari et al., Chronos, 2024, arXiv 2403.07815, appendix A). Kernels are constant,
    white noise, linear, squared exponential, rational quadratic and periodic; periods are the
    calendar's.

    Drawn from random Fourier features (Rahimi and Recht, 2007) in place of a Cholesky factor: the
    spectrum of a product of stationary kernels is that of a sum of frequencies, white noise takes
    whatever it is multiplied with as its size, and a linear kernel multiplies the path by a line.
    """
    num_kernels = rng.integers(1, MOST_KERNELS + 1, size=axes.num_series)
    out = np.zeros(axes.shape)
    term = _Term(axes)
    for number in range(MOST_KERNELS):
        used = number < num_kernels
        # Multiplication joins the product at hand; addition ends it and begins another.
        ends = used & chance(rng, 0.5, axes.num_series) if number else np.zeros_like(used)
        out[ends] += term.paths(rng, np.flatnonzero(ends))
        term.begin(np.flatnonzero(ends))
        kinds = rng.choice(len(_SHARES), size=axes.num_series, p=_SHARES)
        for kind in range(len(_SHARES)):
            term.multiply(rng, kind, np.flatnonzero(used & (kinds == kind)))
    return out + term.paths(rng, np.arange(axes.num_series))


class _Term:
    """A product of kernels for each series, built factor by factor."""

    def __init__(self, axes: Axes) -> None:
        self.axes = axes
        self.frequencies = np.zeros((axes.num_series, NUM_FEATURES))
        self.lines = np.ones(axes.shape)
        self.is_white = np.zeros(axes.num_series, dtype=bool)

    def begin(self, rows: Integers) -> None:
        """Forget the factors of some rows."""
        self.frequencies[rows], self.lines[rows], self.is_white[rows] = 0.0, 1.0, False

    def multiply(self, rng: Rng, kind: int, rows: Integers) -> None:
        """Multiply the kernels of some rows by one of a kind."""
        axes = self.axes.take(rows)
        if kind == WHITE:
            self.is_white[rows] = True
        elif kind == LINEAR:
            crossing = rng.uniform(-0.5, 1.5, (len(rows), 1))
            self.lines[rows] *= 2 * (self.axes.progress[rows] - crossing)
        elif kind == PERIODIC:
            self.frequencies[rows] += periodic_frequencies(rng, draw_periods(rng, axes))
        elif kind in (SMOOTH, RATIONAL):
            lengths = axes.lengths * log_uniform(rng, 0.01, 0.7, len(rows))
            tails = log_uniform(rng, 0.1, 10, len(rows)) if kind == RATIONAL else None
            self.frequencies[rows] += smooth_frequencies(rng, lengths, tails)

    def paths(self, rng: Rng, rows: Integers) -> Rows:
        """A draw of the products of some rows, with a random size."""
        num_steps = self.axes.num_steps
        stationary = fourier_paths(rng, self.frequencies[rows], num_steps)
        white = rng.standard_normal((len(rows), num_steps))
        size = column(log_uniform(rng, 0.2, 2, len(rows)))
        drawn = np.where(column(self.is_white[rows]), white, stationary)
        return size * drawn * self.lines[rows]


def smooth_frequencies(rng: Rng, lengths: Rows, tails: Rows | None = None) -> Rows:
    """Angular frequencies of squared exponential kernels of given length scales, in steps.

    With `tails`, of rational quadratic kernels: mixtures of the former whose inverse squared scales
    are Gamma distributed with that shape. Shape `(series, feature)`.
    """
    drawn = rng.standard_normal((len(lengths), NUM_FEATURES))
    if tails is not None:
        drawn *= np.sqrt(rng.gamma(column(tails), size=drawn.shape) / column(tails))
    return drawn / column(lengths)


def periodic_frequencies(rng: Rng, periods: Rows) -> Rows:
    """Angular frequencies of periodic kernels `exp(-2 sin^2(pi t / period) / scale^2)`.

    The kernel is a Fourier series, whose coefficients are the chances of its harmonics.
    """
    scale = column(log_uniform(rng, 0.3, 3, len(periods)))
    time = np.arange(2 * _HARMONICS) / (2 * _HARMONICS)
    kernel = np.exp(-2 * np.sin(np.pi * time) ** 2 / scale**2)
    chances = np.maximum(np.fft.rfft(kernel, axis=1).real, 0) * np.r_[1, np.full(_HARMONICS, 2.0)]
    reached = np.cumsum(chances, axis=1) / chances.sum(axis=1, keepdims=True)
    # The constant part would only be a level.
    drawn = rng.uniform(reached[:, :1], 1, (len(periods), NUM_FEATURES))
    harmonics = (
        np.stack([np.searchsorted(row, few) for row, few in zip(reached, drawn, strict=True)])
        if len(periods)
        else np.zeros((0, NUM_FEATURES))
    )
    signs = rng.choice([-1.0, 1.0], size=harmonics.shape)
    return 2 * np.pi * signs * harmonics / column(periods)


def fourier_paths(rng: Rng, frequencies: Rows, num_steps: int) -> Rows:
    """Sums of random waves of given angular frequencies `(series, feature)`; variance 1.

    `exp(i w (s q + r)) = exp(i w s q) exp(i w r)`: a product of matrices does what would take a
    cosine for each feature at each step.
    """
    num_series, num_features = frequencies.shape
    stride = int(np.ceil(np.sqrt(num_steps)))
    sizes = rng.standard_normal((2, num_series, num_features))
    weights = (sizes[0] + 1j * sizes[1]) / np.sqrt(num_features)
    within = np.exp(1j * frequencies[:, :, None] * np.arange(stride))
    jumps = np.exp(1j * frequencies[:, :, None] * np.arange(0, stride**2, stride))
    waves = np.swapaxes(jumps * weights[:, :, None], 1, 2) @ within
    return waves.real.reshape(num_series, stride**2)[:, :num_steps]


def smooth_paths(rng: Rng, axes: Axes, roughest: float = 0.02, smoothest: float = 0.5) -> Rows:
    """Smooth random curves, deviation 1, with length scales as shares of each series' length."""
    lengths = axes.lengths * log_uniform(rng, roughest, smoothest, axes.num_series)
    return standardise(
        fourier_paths(rng, smooth_frequencies(rng, lengths), axes.num_steps), axes.lengths
    )
