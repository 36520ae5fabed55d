"""What a model is shown: the end of each system's history as tokens, by the likeliest way of writing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llamacast.forecast import DataError
from llamacast.text.codec import CodecConfig, Scale, Units, encode, fit
from llamacast.text.vocabulary import Writing
from llamacast.text.windows import System

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Prompt:
    """One system's history, written."""

    scales: Sequence[Scale]
    """Of each channel, fitted on the whole history."""
    units: Units
    """Of the steps that are shown, `(step, channel)`."""
    levels: npt.NDArray[np.float64]
    """What the written history says each channel's last value is, `(channel,)`: differences are counted
    from it."""
    ids: Integers
    """Tokens: the text before, if any, and the numbers."""

    def values(self, units: Units) -> npt.NDArray[np.float64]:
        """In data units, of the steps after it: `(..., step, channel)` of units of that shape."""
        columns = [
            scale.values(units[..., one], level)
            for one, (scale, level) in enumerate(zip(self.scales, self.levels, strict=True))
        ]
        return np.stack(columns, axis=-1)


def write_prompt(
    history: System,
    codec: CodecConfig,
    writing: Writing,
    room: int,
    before: Sequence[int],
    name: str,
) -> Prompt:
    """The last steps of a history that fit into `room` tokens, the text before among them.

    Raises:
        DataError: if not even four steps fit, or a channel has no logarithms, or no value in them.
    """
    channels = range(history.shape[1])
    scales = [fit(history[:, one], codec, f"{name}, channel {one + 1}") for one in channels]
    units, _ = encode(history, scales)
    tokens = writing.encode(units)
    first, shown = tokens.last_steps(history.shape[1], room - len(before))
    fits = len(shown.ids) <= room - len(before)
    if not fits or 0 < first > len(units) - FEWEST_STEPS:
        raise DataError(
            f"{name}: the horizon, the text before and {FEWEST_STEPS} steps of history do not fit "
            "into what the model can read at once; ask for a shorter horizon"
        )
    told = np.isfinite(history[first:]).any(axis=0)
    if not told.all():
        raise DataError(
            f"{name}, channel {int(told.argmin()) + 1}: none of the last {len(history) - first} steps, which "
            "are all that the model reads, has a value; end it at its last value or leave it out"
        )
    levels = [_last(scale.values(units[:, one])) for one, scale in enumerate(scales)]
    return Prompt(
        scales,
        units[first:],
        np.array(levels),
        np.concatenate([np.asarray(before, dtype=np.int64), shown.ids]),
    )


FEWEST_STEPS = 4


def _last(values: npt.NDArray[np.float64]) -> float:
    return float(values[np.flatnonzero(np.isfinite(values))[-1]])
