"""What is known beside the values of series: columns of their tables, of the future, and holidays."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from numbers import Number
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from llamacast.data.calendar import last_days
from llamacast.data.panel import Columns, Covariates, Panel, TimeAxis, numbers_of_ids
from llamacast.forecast import CheckpointError, DataError

Floats = npt.NDArray[np.float64]

# Words of one column, beyond which it is no category but a name or a text.
MOST_WORDS = 30
# Standard deviations of covariates that networks are told: weights that begin as nothing learn what is
# larger in fewer steps.
UNIT_TOLD = 10.0
INPUTS_FILE = "covariates.json"


@dataclass(frozen=True)
class Beside:
    """Which covariates a user asks for, checked against a table by `read_covariates`."""

    columns: tuple[str, ...] = ()
    future: pd.DataFrame | None = None
    holidays: str | None = None


def read_covariates(
    panel: Panel, frame: pd.DataFrame, found: Columns, steps: npt.NDArray[Any], beside: Beside
) -> Covariates:
    """Lay covariates beside a panel that was made of `frame`.

    `steps` is the number of each row of `frame`, and then of `beside.future`, from the start of its
    series. Columns that `beside.future` has are known ahead, and so are those that never change within
    a series, and holidays.

    Raises:
        DataError: names the column, the series and the step that cannot be used.
    """
    future = beside.future
    rows = frame if future is None else pd.concat([frame, future], ignore_index=True)
    series = _numbers_of_series(rows, found, panel)
    lengths = np.array([len(values) for values in panel.values])
    is_history = np.arange(len(rows)) < len(frame)
    _refuse_twice(series[~is_history], steps[~is_history], panel)
    # What the history tells of its own steps stands.
    laid_out = is_history | (steps >= lengths[series])
    most = np.array(lengths)
    np.maximum.at(most, series, steps + 1)
    ends = np.cumsum(most)
    places = (ends - most)[series] + steps
    names: list[str] = []
    ahead: list[bool] = []
    goes_on: list[bool] = []
    parts: list[list[Floats]] = [[] for _ in lengths]
    for column in beside.columns:
        told = future is not None and column in future.columns
        for name, numbers in _as_numbers(rows[column], column, is_history):
            flat = np.full(ends[-1], np.nan)
            flat[places[laid_out]] = numbers[laid_out]
            laid = np.split(flat, ends[:-1])
            still = not told and all(len(np.unique(one[~np.isnan(one)])) <= 1 for one in laid)
            laid = [_filled(one, length, still) for one, length in zip(laid, lengths, strict=True)]
            names.append(name)
            ahead.append(told or still)
            goes_on.append(still)
            for number, one in enumerate(laid):
                parts[number].append(one)
    values = [
        np.stack(one, axis=1) if one else np.empty((length, 0))
        for one, length in zip(parts, most, strict=True)
    ]
    return Covariates(
        tuple(names), np.array(ahead, dtype=bool), np.array(goes_on, dtype=bool), values
    )


def _refuse_twice(
    series: npt.NDArray[np.int64], steps: npt.NDArray[np.int64], panel: Panel
) -> None:
    again = pd.DataFrame({"series": series, "step": steps}).duplicated()
    if again.any():
        place = int(again.to_numpy().argmax())
        number = series[place]
        label = panel.axes[number].index(int(steps[place]), 1)[0]
        raise DataError(
            f"future_frame: series {panel.ids[number]!r} has two rows at {label}; keep one"
        )


def _numbers_of_series(rows: pd.DataFrame, found: Columns, panel: Panel) -> npt.NDArray[np.int64]:
    if found.id is None:
        return np.zeros(len(rows), dtype=np.int64)
    return numbers_of_ids(rows[found.id].to_numpy(), panel)


def _as_numbers(
    column: pd.Series[Any], name: str, is_history: npt.NDArray[np.bool_]
) -> list[tuple[str, Floats]]:
    """A numeric column as it is; of words a column of ones and zeros for each. An empty cell is none of
    them, as on days without an event."""
    if column.dtype == object and _all_numbers(column.dropna()):
        column = pd.to_numeric(column)
    if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype):
        numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
        if np.isinf(numbers).any():
            raise DataError(
                f"covariate {name!r}: row {int(np.isinf(numbers).argmax())} is infinite"
            )
        return [(name, numbers)]
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        raise DataError(f"covariate {name!r} holds dates; give numbers or categories")
    words = column.astype(object)
    words = words.where(words.notna(), None)
    counts = words[is_history].value_counts()
    if len(counts) > MOST_WORDS:
        raise DataError(
            f"covariate {name!r} has {len(counts)} different values, too many for a category (at most "
            f"{MOST_WORDS}); give numbers, or join rare values"
        )
    new = sorted(set(words[~is_history].dropna()) - set(counts.index), key=str)
    if new:
        raise DataError(
            f"covariate {name!r}: the future has {new[0]!r}, which the history never had; "
            "its effect cannot be known"
        )
    return [
        (f"{name}={word}", words.eq(word).to_numpy().astype(np.float64))
        for word in sorted(counts.index, key=str)
    ]


def _all_numbers(known: pd.Series[Any]) -> bool:
    """Whether objects are numbers all, such as the decimals of a database."""
    return len(known) > 0 and all(
        isinstance(one, Number) and not isinstance(one, (bool, np.bool_)) for one in known
    )


def _filled(values: Floats, length: int, still: bool) -> Floats:
    """Gaps in the history as the last value before them, or the first one after; what never changes
    also goes on."""
    history = pd.Series(values[:length]).ffill().bfill().fillna(0.0).to_numpy()
    rest = np.full(len(values) - length, history[-1]) if still else values[length:]
    return np.concatenate([history, rest])


# --- What a network has learnt to look at --------------------------------------------------------


@dataclass(frozen=True)
class CovariateInputs:
    """Covariates that a network was fine-tuned with, and their usual values."""

    names: tuple[str, ...]
    ahead: tuple[bool, ...]
    """Which are known for steps to come; others are told a horizon late, so that all are known."""
    mean: tuple[float, ...]
    width: tuple[float, ...]
    """Standard deviations."""
    horizon: int

    def matrices(self, panel: Panel) -> list[Floats]:
        """Of each series `(step, covariate)`, from their means in tenths of deviations, as far as known.

        Raises:
            DataError: if the panel does not have one of them.
        """
        known = panel.covariates
        if known is None:
            names = ", ".join(self.names)
            raise DataError(
                f"this model was fine-tuned with covariates ({names}); give them with covariates and "
                "future_frame"
            )
        places = [self._place(name, known.names) for name in self.names]
        found = []
        for values, told in zip(panel.values, known.values, strict=True):
            columns = []
            for place, ahead, mean, width in zip(
                places, self.ahead, self.mean, self.width, strict=True
            ):
                column = np.zeros(len(told)) if place is None else told[:, place]
                if not ahead:
                    column = late(column, len(values), max(self.horizon, len(told) - len(values)))
                columns.append(UNIT_TOLD * (column[: len(told)] - mean) / width)
            found.append(np.stack(columns, axis=1))
        return found

    def _place(self, name: str, known: tuple[str, ...]) -> int | None:
        """Where a covariate stands; None for a word that a category does not have here."""
        if name in known:
            return known.index(name)
        column = name.split("=")[0]
        if "=" in name and any(other.startswith(f"{column}=") for other in known):
            return None
        raise DataError(
            f"this model was fine-tuned with the covariate {column!r}, which is not given; name it in "
            "covariates, or bring it in future_frame"
        )

    def save(self, directory: Path) -> None:
        (directory / INPUTS_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n")

    @staticmethod
    def load(directory: Path) -> CovariateInputs | None:
        """Those of a folder, if it has any.

        Raises:
            CheckpointError: if the file is damaged.
        """
        path = directory / INPUTS_FILE
        if not path.exists():
            return None
        try:
            told = json.loads(path.read_text())
            lists = {name: tuple(told[name]) for name in ("names", "ahead", "mean", "width")}
            return CovariateInputs(**lists, horizon=int(told["horizon"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path}: cannot be read ({error})") from error


def learn_inputs(panel: Panel, ends: npt.NDArray[np.int64], horizon: int) -> CovariateInputs:
    """What a network that forecasts `horizon` steps is to look at: all covariates of a panel that vary
    before `ends`.

    Raises:
        DataError: if none does.
    """
    known = panel.covariates
    assert known is not None
    past = np.concatenate([told[:end] for told, end in zip(known.values, ends, strict=True)])
    mean, width = past.mean(axis=0), past.std(axis=0)
    kept = np.flatnonzero(width > 0)
    if not len(kept):
        raise DataError("none of the covariates varies in the history; leave them out")
    return CovariateInputs(
        tuple(known.names[n] for n in kept),
        tuple(bool(known.ahead[n]) for n in kept),
        tuple(mean[kept].tolist()),
        tuple(width[kept].tolist()),
        horizon,
    )


def late(column: Floats, length: int, horizon: int) -> Floats:
    """What is known in the past only, a horizon late, so that all of it is known."""
    history = column[:length]
    return np.concatenate([np.full(horizon, history[0]), history])


def last_covariates(
    panel: Panel,
    series: npt.NDArray[np.int64],
    longest: int,
    horizon: int,
    inputs: CovariateInputs,
) -> npt.NDArray[np.float32]:
    """Of the last `longest` steps of some series and of the horizon, `(series, step, covariate)`; as
    usual (0) before a series begins."""
    chosen = panel.choose(series.tolist())
    found = np.zeros((len(series), longest + horizon, len(inputs.names)), dtype=np.float32)
    for row, (values, known) in enumerate(zip(chosen.values, inputs.matrices(chosen), strict=True)):
        shown = min(longest, len(values))
        told = known[len(values) - shown : len(values) + horizon]
        gaps = np.isnan(told)
        if len(told) < shown + horizon or gaps.any():
            step, column = np.argwhere(gaps)[0] if gaps.any() else (len(told), 0)
            label = chosen.axes[row].index(len(values) - shown + int(step), 1)[0]
            raise DataError(
                f"covariate {inputs.names[column]!r} of series {chosen.ids[row]!r} is not known at {label}, "
                "and this model was fine-tuned to know it ahead; bring it in future_frame, with a row for "
                "each series and step of the horizon"
            )
        found[row, longest - shown :] = told
    return found


def with_future(panel: Panel, horizon: int, found: Beside) -> Panel:
    """The panel with its covariates as long as a forecast of `horizon` steps needs them.

    Raises:
        DataError: if a covariate of the future is missing at a step; the message names both.
    """
    covariates = panel.covariates
    if covariates is None and found.holidays is None:
        return panel
    if covariates is None:
        empty = [np.empty((len(values), 0)) for values in panel.values]
        nothing = np.empty(0, dtype=bool)
        covariates = Covariates((), nothing, nothing, empty)
    longer = []
    for number, (values, axis) in enumerate(zip(panel.values, panel.axes, strict=True)):
        need = len(values) + horizon
        known = covariates.values[number][:need]
        room = np.full((need - len(known), len(covariates.names)), np.nan)
        room[:, covariates.still] = known[len(values) - 1, covariates.still]
        laid = np.concatenate([known, room])
        _refuse_gaps(laid[len(values) :], covariates, panel.ids[number], axis, len(values))
        longer.append(laid)
    covariates = replace(covariates, values=longer)
    if found.holidays is not None:
        covariates = _with_holidays(covariates, panel, found.holidays)
    return replace(panel, covariates=covariates)


def _refuse_gaps(
    future: Floats, covariates: Covariates, identifier: Any, axis: TimeAxis, length: int
) -> None:
    gaps = np.isnan(future) & covariates.ahead
    if gaps.any():
        step, column = np.argwhere(gaps)[0]
        label = axis.index(length + int(step), 1)[0]
        raise DataError(
            f"covariate {covariates.names[column]!r} of series {identifier!r} is not known at {label}; "
            "future_frame needs a row with a value for each series and step of the horizon"
        )


# --- Holidays ------------------------------------------------------------------------------------


def _with_holidays(covariates: Covariates, panel: Panel, country: str) -> Covariates:
    """Whether a step lies on, right before or right after a public holiday; of longer steps, how many
    days of holiday they have."""
    days = _holidays(country, panel, covariates)
    values = []
    for known, axis in zip(covariates.values, panel.axes, strict=True):
        if axis.frequency is None:
            raise DataError("holidays need dates; these series count their steps")
        # Longer steps are told by their last days, wherever they are labelled.
        stamps = pd.DatetimeIndex(axis.index(-1, len(known) + 1)).tz_localize(None)
        own = last_days(stamps.to_numpy().astype("datetime64[D]"), axis.frequency)
        on = np.diff(np.searchsorted(days, own, side="right"))
        before = after = np.zeros(len(on), dtype=bool)
        if axis.frequency.is_clock or axis.frequency.unit in ("D", "B"):
            on = np.isin(own[1:], days).astype(np.int64)
            before = np.isin(own[1:] + 1, days) & (on == 0)
            after = np.isin(own[1:] - 1, days) & (on == 0)
        told = np.stack([on, before, after], axis=1).astype(np.float64)
        values.append(np.concatenate([known, told], axis=1))
    names = ("holiday", "day before holiday", "day after holiday")
    ahead = np.concatenate([covariates.ahead, np.ones(len(names), dtype=bool)])
    still = np.concatenate([covariates.still, np.zeros(len(names), dtype=bool)])
    return Covariates((*covariates.names, *names), ahead, still, values)


def _holidays(country: str, panel: Panel, covariates: Covariates) -> npt.NDArray[np.datetime64]:
    try:
        import holidays
    except ModuleNotFoundError as error:
        raise DataError(
            "holidays need the library of that name: pip install 'llamacast[covariates]'"
        ) from error
    ends = [
        axis.index(number, 1)[0]
        for axis, known in zip(panel.axes, covariates.values, strict=True)
        for number in (0, max(0, len(known) - 1))
        if axis.frequency is not None
    ]
    if not ends:
        raise DataError("holidays need dates; these series count their steps")
    # A week may end, and the day after a step may lie, in another year.
    years = range(min(ends).year - 1, max(ends).year + 2)
    name, _, part = country.partition("-")
    try:
        found = holidays.country_holidays(name, subdiv=part or None, years=years)
    except NotImplementedError as error:
        raise DataError(
            f"holidays: no country {country!r} is known; give its code, such as 'DE' or 'US-CA'"
        ) from error
    return np.sort(np.array(list(found), dtype="datetime64[D]"))
