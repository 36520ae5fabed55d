"""Panels as systems: series of one group are channels that are told together, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from llamacast.data.panel import Panel
from llamacast.forecast import DataError
from llamacast.text.windows import System


@dataclass(frozen=True)
class NamedSystem:
    """Some series of a panel side by side."""

    name: str
    series: Sequence[int]
    """Which of the panel's, in the order of channels."""
    values: System
    """`(step, channel)`, up to their common end; NaN before a series begins and where it is missing."""


def systems_of(panel: Panel) -> list[NamedSystem]:
    """Each group as a system, in order; without groups, each series alone.

    Raises:
        DataError: if series of a group do not end together, step for step.
    """
    if panel.groups is None:
        return [
            NamedSystem(str(name), [number], np.asarray(values, dtype=np.float64)[:, None])
            for number, (name, values) in enumerate(zip(panel.ids, panel.values, strict=True))
        ]
    members: dict[Any, list[int]] = {}
    for number, group in enumerate(panel.groups):
        members.setdefault(group, []).append(number)
    return [NamedSystem(str(group), own, _aligned(panel, own)) for group, own in members.items()]


def _aligned(panel: Panel, series: Sequence[int]) -> System:
    length = max(len(panel.values[one]) for one in series)
    found = np.full((length, len(series)), np.nan)
    first = series[0]
    for channel, one in enumerate(series):
        values = panel.values[one]
        found[length - len(values) :, channel] = values
        if not _ends_with(panel, one, first):
            raise DataError(
                f"series {panel.ids[one]!r} and {panel.ids[first]!r} of one group do not end at the same "
                "step; cut or extend one of them, or leave group_column out"
            )
    return found


def _ends_with(panel: Panel, one: int, other: int) -> bool:
    """Whether two series have the same last steps."""
    ends: list[npt.NDArray[Any]] = []
    for number in (one, other):
        length = len(panel.values[number])
        ends.append(np.asarray(panel.axes[number].index(length - 1, 2)))
    return bool((ends[0] == ends[1]).all())
