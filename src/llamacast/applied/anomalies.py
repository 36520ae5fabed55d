"""From the levels at which values fell to how odd they are: calibrated on each series' own past."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

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
# Equal values, before which nothing is said of another.
FEWEST_KNOWN = 8
SMALLEST_STRETCH, LARGEST_STRETCH = 0.3, 3.0


@dataclass(frozen=True)
class _Told:
    """Of each value of each series: how odd it is, and what was expected in its place."""

    probability: list[Floats]
    expected: list[Floats]
    low: list[Floats]
    high: list[Floats]


def detect(
    panel: Panel, hindcast: Callable[[Panel], Hindsight], false_alarm_rate: float
) -> Anomalies:
    """Judge every value of a panel by what was told before it.

    Three times, as an odd value misleads what is said after it: a season later, where it is looked for
    again, ordinary values look odd. So all that is flagged at first is hidden, and judged anew without
    each other. What is still odd is brought to the edge of what was then expected, so that a change that
    lasts is learnt, and the rest stays as it is; by what is then told all values are judged.
    """
    seen = _judged(panel, panel.values, hindcast, false_alarm_rate)
    odd = [one < false_alarm_rate for one in seen.probability]
    hidden = [
        np.where(flags, np.nan, values) for flags, values in zip(odd, panel.values, strict=True)
    ]
    seen = _judged(panel, hidden, hindcast, false_alarm_rate)
    calmed = [
        np.where(flags & (again < false_alarm_rate), np.clip(values, *ends), values)
        for values, flags, again, *ends in zip(
            panel.values, odd, seen.probability, seen.low, seen.high, strict=True
        )
    ]
    seen = _judged(panel, calmed, hindcast, false_alarm_rate)
    lengths = [len(values) for values in panel.values]
    return Anomalies(
        ids=panel.ids,
        index=[axis.index(0, length) for axis, length in zip(panel.axes, lengths, strict=True)],
        values=panel.values,
        expected=seen.expected,
        low=seen.low,
        high=seen.high,
        probability=seen.probability,
        false_alarm_rate=false_alarm_rate,
        id_column=panel.columns.id,
        time_column=panel.columns.time,
        target_column=panel.columns.target,
    )


def _judged(
    panel: Panel,
    given: Sequence[Floats],
    hindcast: Callable[[Panel], Hindsight],
    false_alarm_rate: float,
) -> _Told:
    """The panel's values, by what is told of each from those `given` before it."""
    hindsight = hindcast(replace(panel, values=list(given)))
    probability, stretch = _probabilities(hindsight.levels(panel.values))
    tail = _tail(stretch, false_alarm_rate)
    told = _Told(
        probability, hindsight.quantile(0.5), hindsight.quantile(tail), hindsight.quantile(1 - tail)
    )
    for number, (before, values) in enumerate(zip(given, panel.values, strict=True)):
        _judge_after_one_value(told, number, before, values, false_alarm_rate)
    return told


def _probabilities(levels: Sequence[Floats]) -> tuple[list[Floats], Floats]:
    """Two-sided tail probabilities, and by how much the scores of each series are stretched.

    Levels are told as normal scores. Where nine in ten of a series' scores lie within more than 1.64,
    its forecasts have been too sure, and all of its scores are shrunk.
    """
    found, stretches = [], []
    for one in levels:
        score = np.abs(_ndtri(one))
        known = score[np.isfinite(score)]
        width = np.quantile(known, QUANTILE_COMPARED) if len(known) else np.nan
        own = width / _ndtri(np.array((1 + QUANTILE_COMPARED) / 2))
        weight = len(known) / (len(known) + VALUES_ASSUMED)
        stretch = np.exp(weight * np.log(max(own, 1e-9))) if len(known) else 1.0
        stretch = float(np.clip(stretch, SMALLEST_STRETCH, LARGEST_STRETCH))
        stretches.append(stretch)
        found.append(np.maximum(2 * _ndtr(-score / stretch), SMALLEST_PROBABILITY))
    return found, np.array(stretches)


def _judge_after_one_value(
    told: _Told, number: int, given: Floats, values: Floats, false_alarm_rate: float
) -> None:
    """Judge, in place, where one and the same value has been given so far: of its spread networks say
    nothing, or what rounding made.

    There the probability of another is told by how many there were: Krichevsky and Trofimov's estimate,
    by which it takes fifty values without one until one in a hundred is odd.
    """
    known = np.isfinite(given)
    if not known.any():
        return
    usual = given[known.argmax()]
    there, other = np.isfinite(values), np.isfinite(values) & (values != usual)
    still = (_before(known & (given != usual)) == 0) & (_before(known) >= FEWEST_KNOWN)
    of_other = (_before(other) + 0.5) / (_before(there) + 1.0)
    probability = np.where(there, np.where(other, of_other, 1.0), np.nan)
    told.probability[number][still] = probability[still]
    told.expected[number][still] = usual
    for end in (told.low[number], told.high[number]):
        end[still] = np.where(of_other < false_alarm_rate, usual, np.nan)[still]


def _before(flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """How many there are before each place."""
    return np.cumsum(flags) - flags


def _tail(stretch: Floats, false_alarm_rate: float) -> Floats:
    """The level below which a series' values are flagged."""
    return _ndtr(-stretch * _ndtri(1 - false_alarm_rate / 2))


def _ndtr(score: npt.ArrayLike) -> Floats:
    return torch.special.ndtr(torch.as_tensor(score, dtype=torch.float64)).numpy()


def _ndtri(level: npt.ArrayLike) -> Floats:
    return torch.special.ndtri(torch.as_tensor(level, dtype=torch.float64)).numpy()
