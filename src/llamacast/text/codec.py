"""Numbers as digits: transformed, scaled by their history, rounded to whole units; and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from llamacast.forecast import DataError

Floats = npt.NDArray[np.float64]
Units = npt.NDArray[Any]
"""Whole numbers `(step, channel)`: of int64, or of Python's own where those are too small."""

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
MISSING = np.iinfo(np.int64).min
"""In units: no value."""
# Below so many units, float64 tells a value from its neighbours half a unit away with room to spare.
EXACT_BELOW = 2.0**40
# Larger values have differences that are no number.
LARGEST_DIFFERENCED = 1e300
LARGEST_LOGARITHM = 700.0
LARGEST_WRITTEN = 2**62
TAIL = 64.0
"""Units in which the density beyond the last number that can be written falls by e."""
LARGEST = float(np.finfo(np.float64).max)

Transform = Literal["none", "log", "difference", "log-difference"]


@dataclass(frozen=True)
class CodecConfig:
    """How values are written.

    A value is transformed, scaled, and rounded to a whole number of units, `base ** -precision` each;
    these are written in digits. The scaler is fitted on the history alone.
    """

    base: int = 10
    """2 to 36; digits beyond 9 are letters."""
    precision: int = 2
    """Digits after the point, which is only written with `point`."""
    width: int | None = None
    """Digits in each number, leading zeros written; None writes as many as each needs."""
    sign: Literal["none", "minus", "both", "centred"] = "minus"
    """"minus" before negative numbers, "both" a sign before all, "none" where there are no negative
    ones; "centred" adds half of what `width` digits can count to, so that none is needed."""
    point: bool = False
    value_separator: str = ","
    """After each channel of a step but the last."""
    step_separator: str = ";"
    """After each step, the last one too: it ends the number."""
    missing: str = "NaN"
    transform: Transform = "none"
    scaler: Literal["none", "basic", "offset", "middle"] = "basic"
    """"basic" divides by a quantile of absolute values; "offset" first moves the least value a little
    above zero, "middle" the median to zero."""
    alpha: float = 0.95
    """The quantile that the scaler divides by."""
    beta: float = 0.3
    """Of the offset scaler: how far below the least value zero lies, in ranges."""
    size: float = 1.0
    """What that quantile becomes."""
    most_digits: int = 9
    """Of a number that a model may write, where `width` does not say."""

    def __post_init__(self) -> None:
        if not 2 <= self.base <= len(DIGITS):
            raise ValueError(f"base must be 2 to {len(DIGITS)}; got {self.base}")
        if self.precision < 0 or not 0 < self.alpha <= 1 or self.beta < 0 or not self.size > 0:
            raise ValueError(
                "precision and beta must not be negative, alpha in (0, 1], size positive"
            )
        if self.point and not 0 < self.precision < (self.width or self.most_digits):
            raise ValueError("with a point, there must be digits before and after it")
        if self.width is not None and self.width < 1:
            raise ValueError("width must be at least 1")
        if self.width is None and self.sign == "centred":
            raise ValueError("sign 'centred' needs a width")
        if self.width is None and not (self.value_separator and self.step_separator):
            raise ValueError("without a width, separators must tell where numbers end")
        if self.most_digits < 1:
            raise ValueError("most_digits must be at least 1")
        if self.base ** (self.width or self.most_digits) > LARGEST_WRITTEN:
            raise ValueError("numbers of so many digits are beyond 64 bits; take fewer")
        own = set(DIGITS[: self.base]) | set("+-.")
        words = [self.value_separator, self.step_separator, self.missing]
        if not self.missing or any(set(word) & own for word in words):
            raise ValueError(
                "separators and the missing word must not hold digits, signs or points"
            )

    @property
    def missing_word(self) -> str:
        """What stands for a value that is not there: where nothing separates numbers, as many words as
        they have digits, so that all are equally long."""
        separated = self.value_separator and self.step_separator
        return self.missing if separated else self.missing * (self.width or 1)

    @property
    def zero(self) -> int:
        """Units that are written as nothing but zeros."""
        if self.sign != "centred":
            return 0
        assert self.width is not None
        return -(self.base**self.width // 2)

    @property
    def range(self) -> tuple[float, float]:
        """Least and most units that can be written; what lies beyond takes the nearest of them."""
        least = 0.0 if self.sign == "none" else -math.inf
        if self.width is None:
            return least, math.inf
        count = self.base**self.width
        if self.sign in ("none", "centred"):
            return self.zero, self.zero + count - 1
        return 1 - count, count - 1

    @property
    def writable(self) -> tuple[int, int]:
        """The same, of numbers that a model may write, which have an end."""
        least, most = self.range
        end = self.base**self.most_digits - 1
        return int(max(least, -end)), int(min(most, end))


@dataclass(frozen=True)
class Written:
    """A channel's values as whole numbers."""

    units: Units
    """`(step,)`; `MISSING` where a value is not there."""
    excess: Floats
    """By how many units a value lies beyond what could be written; 0 for others. Infinite for one that
    the transform has no number for."""


@dataclass(frozen=True)
class Scale:
    """How one channel's values become units."""

    config: CodecConfig
    shift: float
    """Of the transformed value, taken off."""
    unit: float
    """Of the shifted value, that counts as 1."""
    anchor: float
    """With differences: what the first of them is counted from, transformed."""

    def units(self, values: Floats) -> Units:
        """Whole numbers, `(step,)`; `MISSING` where a value is not there.

        Differences are counted from what has been written so far, not from what was meant, so that
        no error of rounding adds up. What does not fit into `width` digits takes the nearest that does.
        """
        return self.written(values, self.config.range).units

    def written(self, values: Floats, bounds: tuple[float, float]) -> Written:
        """The same within bounds, and how far beyond them values lie."""
        with np.errstate(divide="ignore", invalid="ignore"):
            shown = _forward(values, self.config.transform)
        differs = self.config.transform.endswith("difference")
        level, found, excess = self.anchor if differs else 0.0, [], np.zeros(len(shown))
        for step, value in enumerate(shown.tolist()):
            if not math.isfinite(value):
                found.append(MISSING)
                excess[step] = math.inf if math.isfinite(values[step]) else 0.0
                continue
            one = self._nearest(value - level - self.shift)
            found.append(int(min(max(one, bounds[0]), bounds[1])))
            excess[step] = abs(one - found[-1])
            if differs:
                level += self.shift + _as_float(found[-1], self.unit)
        large = any(abs(one) > EXACT_BELOW for one in found if one != MISSING)
        return Written(np.array(found, dtype=object if large else np.int64), excess)

    def _nearest(self, value: float) -> int:
        ratio = value / self.unit
        exact = abs(ratio) < EXACT_BELOW
        return round(ratio) if exact else round(Fraction(value) / Fraction(self.unit))

    def values(self, units: Units, before: float | None = None) -> Floats:
        """Values of units, `(..., step)`; `before` is the value, in data units, that differences are
        counted from; None for the beginning of the history."""
        moved = _times(units, self.unit) + self.shift
        if self.config.transform.endswith("difference"):
            level = self.anchor if before is None else _forward(before, self.config.transform)
            known = np.isfinite(moved)
            moved = np.where(known, level + np.cumsum(np.where(known, moved, 0.0), axis=-1), np.nan)
        if self.config.transform.startswith("log"):
            return np.exp(np.minimum(moved, LARGEST_LOGARITHM))
        return moved

    def log_density(self, values: Floats, written: Written | None = None) -> Floats:
        """What to add to the logarithm of a unit's probability to have that of a density in the
        units of the data: uniform within a unit, with the transform's slope.

        The first and the last number that can be written stand for all beyond them, too: their
        probability falls off exponentially from there, by e in `TAIL` units. So says `written`.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = -np.log(values) if self.config.transform.startswith("log") else 0.0
        density = slope - np.log(self.unit) + np.zeros_like(values)
        if written is None:
            return density
        least, most = self.config.writable
        units = written.units.astype(np.float64)
        ends = (units == least) & (least != 0) | (units == most)
        beyond = ends | (written.excess > 0)
        none = np.isinf(written.excess)
        tail = -np.log(TAIL) - np.where(none, 0.0, written.excess) / TAIL
        density = np.where(none, 0.0, density) + np.where(beyond, tail, 0.0)
        return np.where(none, -np.inf, density)


def fit(history: Floats, config: CodecConfig, name: str = "the series") -> Scale:
    """The scale of one channel, from its history `(step,)` alone.

    Raises:
        DataError: if a logarithm is asked of values that have none.
    """
    known = history[np.isfinite(history)]
    assert len(known)
    if config.transform.startswith("log") and not (known > 0).all():
        raise DataError(
            f"{name}: values of {known.min():g} have no logarithm; use transform='difference' or 'none'"
        )
    if config.sign == "none" and config.scaler != "offset" and (known < 0).any():
        raise DataError(f"{name}: negative values need a sign, or scaler='offset'")
    moves = config.transform == "difference" or config.scaler in ("offset", "middle")
    if moves and np.abs(known).max() > LARGEST_DIFFERENCED:
        raise DataError(
            f"{name}: values beyond {LARGEST_DIFFERENCED:g} cannot be subtracted; divide them"
        )
    shown, anchor = _forward(known, config.transform), 0.0
    if config.transform.endswith("difference"):
        anchor = float(shown[0])
        shown = np.diff(shown) if len(shown) > 1 else np.zeros(1)
    shift = 0.0
    if config.scaler == "offset":
        shift = float(shown.min() - config.beta * (shown.max() - shown.min()))
    if config.scaler == "middle":
        shift = float(np.median(shown))
    size = config.size * float(config.base) ** config.precision
    if config.scaler == "none":
        return Scale(config, 0.0, 1.0 / size, anchor)
    distance = np.abs(shown - shift)
    # What does not move at all is measured by its own size.
    itself = 1.0 if config.transform.startswith("log") else float(np.abs(known).max()) or 1.0
    reach = float(np.quantile(distance, config.alpha)) or float(distance.max()) or itself
    # A unit that underflows would count everything as infinitely many.
    return Scale(config, shift, max(reach / size, np.finfo(np.float64).tiny), anchor)


def write(units: Units, config: CodecConfig) -> str:
    """Text of whole numbers `(step, channel)`."""
    words = [
        config.value_separator.join(word(one, config) for one in step) + config.step_separator
        for step in units.tolist()
    ]
    return "".join(words)


def read(text: str, config: CodecConfig, num_channels: int) -> Units:
    """Whole numbers `(step, channel)` of a text that `write` has made.

    Raises:
        DataError: if the text is none.
    """
    flat = [_number(word, config) for word in _words(text, config)]
    if len(flat) % num_channels:
        raise DataError(f"{text[-40:]!r} ends within a step of {num_channels} channels")
    large = any(abs(one) >= 2**62 for one in flat if one != MISSING)
    found = np.array(flat, dtype=object if large else np.int64)
    return found.reshape(-1, num_channels)


def _words(text: str, config: CodecConfig) -> list[str]:
    if config.value_separator and config.step_separator:
        if text and not text.endswith(config.step_separator):
            raise DataError(f"{text[-40:]!r} does not end with {config.step_separator!r}")
        return text.replace(config.step_separator, config.value_separator).split(
            config.value_separator
        )[:-1]
    for separator in (config.value_separator, config.step_separator):
        text = text.replace(separator, "") if separator else text
    assert config.width is not None
    length = config.width + (config.sign == "both") + config.point
    found = []
    while text:
        size = len(config.missing_word) if text.startswith(config.missing) else length
        found.append(text[:size])
        text = text[size:]
    return found


def word(one: int, config: CodecConfig) -> str:
    """Text of one number of units, without a separator."""
    if one == MISSING:
        return config.missing_word
    digits = _digits(abs(one - config.zero) if config.sign == "centred" else abs(one), config.base)
    least = config.width or (config.precision + 1 if config.point else 1)
    digits = digits.rjust(least, "0")
    if config.point:
        digits = (
            f"{digits[: len(digits) - config.precision]}.{digits[len(digits) - config.precision :]}"
        )
    if config.sign == "both":
        return ("-" if one < 0 else "+") + digits
    return "-" + digits if one < 0 and config.sign == "minus" else digits


def _number(word: str, config: CodecConfig) -> int:
    if word == config.missing_word:
        return MISSING
    try:
        return int(word.replace(".", ""), config.base) + config.zero
    except ValueError:
        raise DataError(f"{word!r} is not a number in base {config.base}") from None


def _digits(count: int, base: int) -> str:
    if base == 10:
        return str(count)
    found = ""
    while count or not found:
        count, digit = divmod(count, base)
        found = DIGITS[digit] + found
    return found


def _forward(values: npt.ArrayLike, transform: Transform) -> Floats:
    shown = np.asarray(values, dtype=np.float64)
    return np.log(shown) if transform.startswith("log") else shown


def _times(units: Units, unit: float) -> Floats:
    """NaN where missing."""
    if units.dtype == object:
        flat = [np.nan if one == MISSING else _as_float(one, unit) for one in units.ravel()]
        return np.array(flat, dtype=np.float64).reshape(units.shape)
    missing = units == MISSING
    with np.errstate(over="ignore"):
        found = np.where(missing, 0, units) * unit
    # Half a unit beyond the largest number is none.
    return np.where(missing, np.nan, np.clip(found, -LARGEST, LARGEST))


def _as_float(one: int, unit: float) -> float:
    if abs(one) < EXACT_BELOW:
        return min(max(one * unit, -LARGEST), LARGEST)
    try:
        return float(one * Fraction(unit))
    except OverflowError:  # a model may write any number of digits
        return LARGEST if one > 0 else -LARGEST


def encode(values: Floats, scales: Sequence[Scale]) -> tuple[Units, Sequence[Written]]:
    """Units `(step, channel)` of values of that shape, as a model may write them; and each channel's
    own, with what lies beyond."""
    columns = [
        scale.written(values[:, number], scale.config.writable)
        for number, scale in enumerate(scales)
    ]
    return np.stack([one.units for one in columns], axis=1), columns
