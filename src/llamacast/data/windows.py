"""Cut windows: the last one of each series to forecast from, random ones to learn from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llamacast.data.calendar import NUM_FEATURES, Frequency, calendar_features, stamps_from
from llamacast.data.corpora import Corpus
from llamacast.data.panel import Panel

SHORTEST_HISTORY = 2
# Shares of training windows that are altered, so that the network meets what users bring.
SHARE_CUT_SHORT = 0.15
SHARE_WITHOUT_CALENDAR = 0.1
SHARE_FLIPPED = 0.1


@dataclass(frozen=True)
class Windows:
    """Equally long windows of several series, ready for a network."""

    values: npt.NDArray[np.floating]
    """Shape `(series, time)`; 0 where not observed."""
    observed: npt.NDArray[np.bool_]
    """Shape `(series, time)`; False before a series begins and where it is missing."""
    calendar: npt.NDArray[np.float32]
    """Shape `(series, step, 6)`: features of the window's last steps and of any that follow; 0
    before a series begins and for series without a calendar."""


def pad_left(
    values: npt.NDArray[np.floating], length: int
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.bool_]]:
    """The last `length` values, filled up on the left; NaN becomes 0, not observed."""
    tail = values[-length:]
    padded = np.zeros(length, dtype=values.dtype)
    observed = np.zeros(length, dtype=bool)
    if len(tail):
        known = ~np.isnan(tail)
        observed[-len(tail) :] = known
        padded[-len(tail) :][known] = tail[known]
    return padded, observed


def last_windows(
    panel: Panel, series: slice, history_length: int, context_length: int, horizon: int
) -> Windows:
    """The end of each series, with the calendar of the context and of the horizon after it.

    Values are `(series, history_length)` in float64, the calendar is
    `(series, context_length + horizon, 6)`.
    """
    padded = [pad_left(values, history_length) for values in panel.values[series]]
    calendar = np.zeros((len(padded), context_length + horizon, NUM_FEATURES), dtype=np.float32)
    for row, (values, axis) in enumerate(
        zip(panel.values[series], panel.axes[series], strict=True)
    ):
        num_known = min(context_length, len(values))
        first = context_length - num_known
        calendar[row, first:] = axis.features(len(values) - num_known, num_known + horizon)
    return Windows(
        np.stack([values for values, _ in padded]),
        np.stack([observed for _, observed in padded]),
        calendar,
    )


def calendar_window(
    start: np.datetime64, frequency: Frequency, first: int, count: int
) -> npt.NDArray[np.float32]:
    """Calendar features of steps `first ... first + count - 1` of a series; 0 before its start."""
    features = np.zeros((count, NUM_FEATURES), dtype=np.float32)
    begin = max(first, 0)
    num_real = first + count - begin
    if num_real > 0:
        features[begin - first :] = calendar_features(
            stamps_from(start, frequency, begin, num_real), frequency
        )
    return features


Window = tuple[npt.NDArray[np.floating], npt.NDArray[np.bool_], npt.NDArray[np.float32]]
"""Values, observed and calendar of one series."""


@dataclass(frozen=True)
class WindowShape:
    """Lengths, in steps, of the windows that a network learns from."""

    history: int
    """Values that a window is scaled by."""
    horizon: int
    """Values after them."""
    num_steps: int
    """Last steps of the whole for which the calendar is told."""

    @property
    def length(self) -> int:
        return self.history + self.horizon


def random_windows(
    corpus: Corpus,
    rng: np.random.Generator,
    num_windows: int,
    shape: WindowShape,
    held_out: bool = False,
) -> Windows:
    """Draw windows whose last value is observed and whose history moves.

    Series are drawn as `Corpus.draw_series` says.
    """
    drawn: list[Window] = []
    while len(drawn) < num_windows:
        window = _random_window(corpus, rng, shape, held_out)
        if window is not None:
            drawn.append(window)
    values, observed, calendar = (np.stack(part) for part in zip(*drawn, strict=True))
    return Windows(values, observed, calendar)


def _random_window(
    corpus: Corpus, rng: np.random.Generator, shape: WindowShape, held_out: bool
) -> Window | None:
    index = corpus.draw_series(rng, held_out)
    series = corpus.series(index)
    stop = int(rng.integers(SHORTEST_HISTORY + 1, len(series) + 1))
    first = max(0, stop - shape.length)
    if rng.random() < SHARE_CUT_SHORT:
        latest = max(first, stop - shape.horizon - SHORTEST_HISTORY)
        first = int(rng.integers(first, latest + 1))
    values, observed = pad_left(series[first:stop], shape.length)
    history = values[: shape.history][observed[: shape.history]]
    if not observed[-1] or len(history) < SHORTEST_HISTORY or history.min() == history.max():
        return None
    if rng.random() < SHARE_FLIPPED:
        values = -values
    calendar = np.zeros((shape.num_steps, NUM_FEATURES), dtype=np.float32)
    if rng.random() >= SHARE_WITHOUT_CALENDAR:
        start, frequency = corpus.starts[index], corpus.frequencies[index]
        num_known = min(shape.num_steps, stop - first)
        calendar[-num_known:] = calendar_window(start, frequency, stop - num_known, num_known)
    return values, observed, calendar
