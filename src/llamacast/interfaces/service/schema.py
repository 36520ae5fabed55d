"""Requests and answers: KServe's time series forecast, and what goes beside it."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from llamacast.data.calendar import Frequency, parse_frequency, placed_like
from llamacast.data.frame import LARGEST_VALUE
from llamacast.data.panel import Columns, Panel, TimeAxis
from llamacast.forecast import DataError, Forecast, level_name
from llamacast.forecaster import LagLlamaForecaster, PretrainedForecaster
from llamacast.interfaces.service.limits import Limits, ServiceError

# KServe's words for frequencies; any of pandas' spellings is understood, too.
WORDS = {
    "second": "s",
    "minute": "min",
    "hour": "h",
    "day": "D",
    "week": "W",
    "month": "M",
    "quarter": "Q",
    "year": "Y",
}
EARLIEST, LATEST = pd.Timestamp("1700-01-01"), pd.Timestamp("2200-01-01")
STAMP = re.compile(
    r"\d{4}(?:[-/]\d{1,2})?"
    r"|(?:\d{8}|\d{4}[-/]\d{1,2}[-/]\d{1,2})"
    r"(?:[T ]\d{1,2}(?::?\d{2}(?::?\d{2}(?:[.,]\d+)?)?)? ?(?:Z|[+-]\d{2}(?::?\d{2})?)?)?",
    re.ASCII | re.IGNORECASE,
)
"""ISO 8601, from a year to fractions of a second with an offset; a time of the day has its date."""
DEEPEST = 20
"""Objects and lists within each other in what comes back as it is."""
# Lists end at their first bad element: of a million of these one is told.
Value = Annotated[float, Field(allow_inf_nan=False)]
Steps = Annotated[
    list[Value | None], Field(fail_fast=True, min_length=1, max_length=Limits.points), Tag("values")
]
Rows = Annotated[
    list[
        Annotated[list[Value | None], Field(fail_fast=True, min_length=1, max_length=Limits.series)]
    ],
    Field(fail_fast=True, min_length=1, max_length=Limits.points),
    Tag("rows of values"),
]
SHAPES = ("values", "rows of values")
"""Pydantic's names of these in the place of an error; no field has such a name."""
Kind = Literal["univariate_time_series", "multivariate_time_series"]


def _shape(series: Any) -> str:
    rows = isinstance(series, list) and bool(series) and isinstance(series[0], list)
    return SHAPES[rows]


class Strict(BaseModel):
    """A misspelt field is an error, not a default."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _one_misspelt(cls, given: Any) -> Any:
        """Of a million fields that there are not, one is told."""
        if not isinstance(given, dict) or len(given) <= len(cls.model_fields):
            return given
        known = {name: given[name] for name in cls.model_fields if name in given}
        other = next(name for name in given if name not in cls.model_fields)
        return {**known, other: given[other]}


class SeriesInput(Strict):
    """A series, or several of equal steps."""

    type: Kind = "univariate_time_series"
    name: str = Field(min_length=1, max_length=200, description="Same name and seed, same paths.")
    series: Annotated[Steps | Rows, Discriminator(_shape)] = Field(
        description="Values in order of time, null where missing; multivariate: a list for each step."
    )
    frequency: str = Field(
        max_length=30, description="hour, H, D, W-SUN, MS, 15min, ...: any spelling of pandas'."
    )
    start_timestamp: str | None = Field(
        None, max_length=40, description="Of the first value, ISO 8601."
    )

    @property
    def several(self) -> bool:
        return self.type == "multivariate_time_series"

    @property
    def num_variates(self) -> int:
        return len(_listed(self.series[0]))

    @field_validator("frequency")
    @classmethod
    def _known_frequency(cls, given: str) -> str:
        try:
            _frequency(given)
        except DataError as error:
            raise ValueError(str(error)) from error
        return given

    @field_validator("start_timestamp")
    @classmethod
    def _readable_stamp(cls, given: str | None) -> str | None:
        if given is not None:
            _stamp(given)
        return given

    @model_validator(mode="after")
    def _shaped_as_said(self) -> SeriesInput:
        rows = isinstance(self.series[0], list)
        if rows != self.several:
            shape = "a list of lists" if self.several else "a plain list"
            raise ValueError(f"the series of a {self.type} is {shape}")
        widths = {len(one) if isinstance(one, list) else 1 for one in self.series}
        if len(widths) > 1:
            raise ValueError("all steps of a series must have as many values")
        if not any(value is not None for value in _flat(self.series)):
            raise ValueError("a series needs at least one value that is not null")
        for number in range(widths.pop()):
            if rows and all(one[number] is None for one in self.series):  # type: ignore[index]
                raise ValueError(f"variate {number + 1} has no value that is not null")
        return self


Inputs = Annotated[list[SeriesInput], Field(fail_fast=True, min_length=1, max_length=Limits.series)]


Levels = Annotated[
    list[Annotated[float, Field(gt=0, lt=1)]], Field(fail_fast=True, max_length=Limits.quantiles)
]


ModelName = Annotated[
    str | None,
    Field(
        min_length=1, max_length=100, description="By default the first that the service was given."
    ),
]


class ForecastOptions(Strict):
    """What is asked."""

    horizon: int = Field(ge=1, description="Steps to forecast.")
    quantiles: Levels | None = Field(None, description="Between 0 and 1; by default 0.1, 0.5, 0.9.")
    seed: int = Field(0, ge=0, lt=2**31)
    nonnegative: bool | None = Field(
        None,
        description="Nothing below 0, or some; by default where 0 was met often and never passed.",
    )
    integer: bool | None = Field(
        None, description="Whole numbers, or not; by default where a series counts something."
    )


EXAMPLE: dict[str, Any] = {
    "model": "cria",
    "inputs": [
        {
            "type": "univariate_time_series",
            "name": "shop 1",
            "series": [12, 15, 14, 18, 25, 31, 28, 13, 14, None, 17, 26, 33, 27],
            "frequency": "D",
            "start_timestamp": "2026-11-01",
        }
    ],
    "options": {"horizon": 7, "quantiles": [0.1, 0.5, 0.9]},
}


class ForecastRequest(Strict):
    """KServe's `POST /v1/timeseries/forecast`."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [EXAMPLE]})
    model: ModelName = None
    inputs: Inputs
    options: ForecastOptions
    metadata: dict[str, Any] | None = Field(None, description="Comes back as it is.")

    @field_validator("metadata")
    @classmethod
    def _comes_back(cls, given: dict[str, Any] | None) -> dict[str, Any] | None:
        _check_sendable(given, DEEPEST)
        return given


class SeriesForecast(Strict):
    """The forecast of a series."""

    type: Kind
    name: str
    mean_forecast: list[float] | list[list[float]]
    frequency: str
    start_timestamp: str = Field(
        description="Of the first forecast value; empty where the series had none."
    )
    quantiles: dict[str, list[float] | list[list[float]]]


class ForecastOutput(Strict):
    """Forecasts of all inputs, in their order."""

    type: Literal["time_series_forecast"] = "time_series_forecast"
    id: str
    status: Literal["completed"] = "completed"
    content: list[SeriesForecast]
    error: None = None


class Usage(Strict):
    """Points read and forecast."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ForecastResponse(Strict):
    """The answer."""

    id: str
    created_at: int
    status: Literal["completed"] = "completed"
    error: None = None
    model: str
    outputs: list[ForecastOutput]
    usage: Usage
    metadata: dict[str, Any] | None = None


class PanelRequest(Strict):
    """Series that something else is asked of."""

    model: ModelName = None
    inputs: Inputs


class AnomaliesRequest(PanelRequest):
    """Which values are odd."""

    false_alarm_rate: float = Field(0.01, gt=0, le=0.2)


class SeriesAnomalies(Strict):
    """Of each value how odd it is, null where that cannot be told."""

    name: str
    probability: list[float | None]
    anomaly: list[bool]


class AnomaliesResponse(Strict):
    """The answer."""

    model: str
    outputs: list[SeriesAnomalies]


class SeriesEmbedding(Strict):
    """A vector for a series."""

    name: str
    vector: list[float]


class EmbeddingsResponse(Strict):
    """The answer."""

    model: str
    outputs: list[SeriesEmbedding]


class ModelInfo(Strict):
    """A model that requests can name."""

    name: str
    trained_on: list[str] = Field(description="Data sets; scores on them say nothing.")


class ModelsResponse(Strict):
    """All of them."""

    models: list[ModelInfo]


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] | None = None


def check_size(
    inputs: list[SeriesInput],
    horizon: int,
    quantiles: int,
    limits: Limits,
    horizon_field: str = "options.horizon",
) -> None:
    """Refuse what is beyond the limits, by field."""
    num_series = sum(one.num_variates for one in inputs)
    points = sum(len(_flat(one.series)) for one in inputs)
    for field, found, most in (
        ("inputs", num_series, limits.series),
        ("inputs.series", points, limits.points),
        (horizon_field, horizon, limits.horizon),
        ("options.quantiles", quantiles, limits.quantiles),
    ):
        if found > most:
            raise ServiceError(422, f"{field} has {found}, and may have {most} at most", field)


def check_steps(
    model: PretrainedForecaster,
    num_series: int,
    horizon: int,
    limits: Limits,
    field: str = "options.horizon",
    what: str = "series",
) -> None:
    """Refuse what a model would forecast for minutes, though neither series nor horizon are too large.

    Raises:
        ServiceError: 422, with the field.
    """
    slow = isinstance(model, LagLlamaForecaster)
    most = limits.steps_of_paths if slow else limits.steps
    if num_series * horizon > most:
        raise ServiceError(
            422,
            f"{field}: {horizon} steps of {num_series} {what} are too many for {model.name} at a time; "
            f"ask for {most // num_series} at most, or for fewer series",
            field,
        )


def check_judged(model: PretrainedForecaster, inputs: list[SeriesInput], limits: Limits) -> None:
    """Refuse more points than a model would judge in time.

    Raises:
        ServiceError: 422, with the field.
    """
    slow = isinstance(model, LagLlamaForecaster)
    most = limits.judged_of_paths if slow else limits.judged
    points = sum(len(_flat(one.series)) for one in inputs)
    if points > most:
        raise ServiceError(
            422,
            f"inputs.series: {model.name} judges {most} points at a time, and there are {points}; send "
            "fewer series, or their last steps only",
            "inputs.series",
        )


def check_numbers(num_series: int, horizon: int, quantiles: int, limits: Limits) -> None:
    """Refuse an answer that would be too large to send.

    Raises:
        ServiceError: 422, with the field.
    """
    found = num_series * horizon * quantiles
    if found > limits.numbers:
        raise ServiceError(
            422,
            f"options.quantiles: {quantiles} of {horizon} steps of {num_series} series are {found} "
            f"numbers, and there may be {limits.numbers} at most; ask for fewer quantiles, or for fewer "
            "series at a time",
            "options.quantiles",
        )


def panel_of(inputs: list[SeriesInput]) -> Panel:
    """Series as a panel, variates one after the other.

    Raises:
        ServiceError: 422, if a series would end beyond the calendar, or a value is too large.
    """
    names, values, axes = [], [], []
    for number, one in enumerate(inputs):
        rows = np.array(
            [
                [math.nan if value is None else value for value in _listed(step)]
                for step in one.series
            ],
            dtype=np.float64,
        )
        large = np.abs(rows) > LARGEST_VALUE  # missing values are not
        if large.any():
            step, variate = np.argwhere(large)[0].tolist()
            raise ServiceError(
                422,
                f"series {one.name!r}: step {step} holds {rows[step, variate]:g}; values may be up to "
                f"{LARGEST_VALUE:g}; use a larger unit",
                f"inputs.{number}.series.{step}",
            )
        axis = _axis(one, number, len(rows))
        for variate in range(rows.shape[1]):
            names.append(f"{one.name}/{variate}" if one.several else one.name)
            values.append(rows[:, variate])
            axes.append(axis)
    return Panel(names, values, axes, Columns("unique_id", "ds", "y"))


def _axis(one: SeriesInput, number: int, length: int) -> TimeAxis:
    frequency = _frequency(one.frequency)
    # Without a stamp steps are as long, and their place in the calendar is unknown.
    start = _stamp(one.start_timestamp or "2000-01-01")
    if start.tzinfo is not None and frequency.is_clock:
        plain = start.tz_convert("UTC").tz_localize(None)
    else:
        plain = start.tz_localize(None)
    stamps = np.array([plain.to_datetime64()]).astype("datetime64[ns]")
    axis = TimeAxis(stamps[0], placed_like(stamps, frequency), zone=start.tzinfo)
    try:
        last = axis.index(length - 1, 1)[0].tz_localize(None)
    except (DataError, OverflowError, pd.errors.OutOfBoundsDatetime) as error:
        raise ServiceError(422, str(error), f"inputs.{number}.start_timestamp") from error
    if not EARLIEST <= last <= LATEST:
        raise ServiceError(
            422,
            f"the series ends beyond the year {LATEST.year}; give another start_timestamp or frequency",
            f"inputs.{number}.start_timestamp",
        )
    return axis


def answer(
    inputs: list[SeriesInput], forecast: Forecast, quantiles: list[float]
) -> list[SeriesForecast]:
    """The forecast of a panel as contents, one for each input."""
    mean, levels = forecast.mean, forecast.quantile(quantiles)
    found, first = [], 0
    for one in inputs:
        own = slice(first, first + one.num_variates)
        stamp = forecast.index[first][0].isoformat() if one.start_timestamp else ""

        def shaped(values: np.ndarray, several: bool = one.several) -> Any:
            return values.T.tolist() if several else values[0].tolist()

        found.append(
            SeriesForecast.model_construct(
                type=one.type,
                name=one.name,
                mean_forecast=shaped(mean[own]),
                frequency=one.frequency,
                start_timestamp=stamp,
                quantiles={
                    level_name(q): shaped(levels[own, :, place])
                    for place, q in enumerate(quantiles)
                },
            )
        )
        first = own.stop
    return found


def _frequency(given: str) -> Frequency:
    return parse_frequency(WORDS.get(given.lower(), given))


def _stamp(given: str) -> pd.Timestamp:
    try:
        # Pandas reads "10:00" as today's.
        stamp = pd.Timestamp(given) if STAMP.fullmatch(given.strip()) else None
    except (ValueError, TypeError, OverflowError):
        stamp = None
    if stamp is None:
        raise ValueError(
            f"{given!r} is not a time stamp; write 2026-11-22 or 2026-11-22T10:00 (+01:00 behind it, if "
            "you will)"
        )
    if pd.isna(stamp) or not EARLIEST <= stamp.tz_localize(None) <= LATEST:
        raise ValueError(f"time stamps lie between {EARLIEST.date()} and {LATEST.date()}")
    return stamp


def _check_sendable(value: Any, deepest: int) -> None:
    """That JSON can be made of a value again.

    Raises:
        ValueError: where it holds half a character, a number that is none, or itself too deeply.
    """
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError("a text holds half a character (a lone surrogate)") from error
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("numbers must be finite")
    elif isinstance(value, (list, dict)):
        if not deepest:
            raise ValueError(f"objects and lists may be {DEEPEST} deep at most")
        members = [*value, *value.values()] if isinstance(value, dict) else value
        for member in members:
            _check_sendable(member, deepest - 1)


def _listed(step: Any) -> list[Any]:
    return step if isinstance(step, list) else [step]


def _flat(series: list[Any]) -> list[Any]:
    return [value for step in series for value in _listed(step)]
