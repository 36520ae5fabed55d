"""From the levels at which values fell to how odd they are: calibrated on each series' own past."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from llamacast.anomalies import Anomalies
from llamacast.applied.hindsight import Hindsight
from llamacast.data.panel import Panel

Floats = npt.NDArray[np.float64]

# The share of a series' values by which the spread of its scores is told. What is odd is rarer than
# the tenth that is left out, and so does not count.
QUANTILE_COMPARED = 0.9
# Values that a series' own spread of scores is believed by half, against that of the network.
VALUES_ASSUMED = 50
# Of a value, so that its logarithm is a number.
SMALLEST_PROBABILITY = 1e-12
# Equal values after which another is odd.
FEWEST_KNOWN = 8
SMALLEST_STRETCH, LARGEST_STRETCH = 0.3, 3.0


def detect(
    panel: Panel, hindcast: Callable[[Panel], Hindsight], false_alarm_rate: float
) -> Anomalies:
    """Judge every value of a panel by what was told before it.

    Twice: what is flagged at first is brought to the edge of what was expected, so that it does not
    mislead what comes after it, but a change that lasts is learnt; all values are judged by what is
    then told.
    """
    first = hindcast(panel)
    probability, stretch = _probabilities(first.levels(panel.values), panel.values)
    tail = _tail(stretch, false_alarm_rate)
    low, high = first.quantile(tail), first.quantile(1 - tail)
    calmed = [
        np.where(odd < false_alarm_rate, np.clip(values, *ends), values)
        for values, odd, *ends in zip(panel.values, probability, low, high, strict=True)
    ]
    hindsight = hindcast(replace(panel, values=calmed))
    probability, stretch = _probabilities(hindsight.levels(panel.values), panel.values)
    tail = _tail(stretch, false_alarm_rate)
    lengths = [len(values) for values in panel.values]
    return Anomalies(
        ids=panel.ids,
        index=[axis.index(0, length) for axis, length in zip(panel.axes, lengths, strict=True)],
        values=panel.values,
        expected=hindsight.quantile(0.5),
        low=hindsight.quantile(tail),
        high=hindsight.quantile(1 - tail),
        probability=probability,
        false_alarm_rate=false_alarm_rate,
        id_column=panel.columns.id,
        time_column=panel.columns.time,
        target_column=panel.columns.target,
    )


def _probabilities(
    levels: Sequence[Floats], values: Sequence[Floats]
) -> tuple[list[Floats], Floats]:
    """Two-sided tail probabilities, and by how much the scores of each series are stretched.

    Levels are told as normal scores. Where nine in ten of a series' scores lie within more than 1.64,
    its forecasts have been too sure, and all of its scores are shrunk. After a stretch of one and the
    same value, of which networks say nothing, any other is as odd as can be.
    """
    found, stretches = [], []
    for one, own_values in zip(levels, values, strict=True):
        score = np.abs(_ndtri(one))
        known = score[np.isfinite(score)]
        width = np.quantile(known, QUANTILE_COMPARED) if len(known) else np.nan
        own = width / _ndtri(np.array((1 + QUANTILE_COMPARED) / 2))
        weight = len(known) / (len(known) + VALUES_ASSUMED)
        stretch = np.exp(weight * np.log(max(own, 1e-9))) if len(known) else 1.0
        stretch = float(np.clip(stretch, SMALLEST_STRETCH, LARGEST_STRETCH))
        stretches.append(stretch)
        probability = np.maximum(2 * _ndtr(-score / stretch), SMALLEST_PROBABILITY)
        still, same = _after_one_value(own_values)
        untold = np.isnan(probability) & still
        probability[untold] = np.where(same, 1.0, SMALLEST_PROBABILITY)[untold]
        found.append(probability)
    return found, np.array(stretches)


def _after_one_value(values: Floats) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Where a value is known and all before it, at least some, have been one and the same; and where it
    is that, too."""
    known = np.isfinite(values)
    if not known.any():
        return known, known
    same = values == values[known.argmax()]
    odd_before = np.cumsum(known & ~same) - (known & ~same)
    count_before = np.cumsum(known) - known
    return known & (odd_before == 0) & (count_before >= FEWEST_KNOWN), same


def _tail(stretch: Floats, false_alarm_rate: float) -> Floats:
    """The level below which a series' values are flagged."""
    return _ndtr(-stretch * _ndtri(1 - false_alarm_rate / 2))


def _ndtr(score: npt.ArrayLike) -> Floats:
    return torch.special.ndtr(torch.as_tensor(score, dtype=torch.float64)).numpy()


def _ndtri(level: npt.ArrayLike) -> Floats:
    return torch.special.ndtri(torch.as_tensor(level, dtype=torch.float64)).numpy()
