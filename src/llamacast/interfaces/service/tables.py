"""A CSV as people have it: forecast by one or two models, with where these stood before."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field

from llamacast.data.calendar import parse_frequency
from llamacast.data.frame import read_panel
from llamacast.data.panel import Largest, Panel
from llamacast.data.tables import read_csv_text
from llamacast.data.windows import SHORTEST_HISTORY
from llamacast.evaluation.backtest import Settled, backtest
from llamacast.evaluation.baselines import SeasonalNaive
from llamacast.forecast import DataError, Forecast, history_shown, level_name
from llamacast.forecaster import PretrainedForecaster
from llamacast.interfaces.service.limits import Limits, ServiceError
from llamacast.interfaces.service.schema import Strict, check_steps

QUANTILES = (0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975)
MOST_SERIES_SHOWN = 20
MOST_SERIES_SCORED = 50
NUM_WINDOWS = 3
MOST_SHOWN = 2_000
NUM_SAMPLES = 100
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|\Z)")


class TableRequest(Strict):
    """A CSV, and what is asked of it."""

    csv: str = Field(min_length=1, description="Text of a CSV with a header, long or wide.")
    horizon: int = Field(ge=1)
    models: list[str] | None = Field(
        None,
        min_length=1,
        max_length=2,
        fail_fast=True,
        description="By default the first that the service was given.",
    )
    id_column: str | None = None
    time_column: str | None = None
    target_column: str | None = None
    frequency: str | None = Field(default=None, max_length=30)
    nonnegative: bool | None = None
    scores: bool = Field(True, description="Tell where the models stood on the last windows.")


class TableForecast(Strict):
    """Of one series by one model."""

    mean: list[float]
    quantiles: dict[str, list[float]]


class TableSeries(Strict):
    """A series with its forecasts."""

    name: str
    history_times: list[str]
    history: list[float | None]
    times: list[str]
    forecasts: dict[str, TableForecast]


class TableScore(Strict):
    """A model on windows before the end of the series, relative to seasonal naive; lower is better."""

    model: str
    crps: float | None
    mase: float | None
    coverage_80: float | None = Field(description="Per cent of actuals within the 80 % interval.")


class TableResponse(Strict):
    """The answer."""

    columns: dict[str, str | None] = Field(description="Which column is what.")
    num_series: int
    series: list[TableSeries] = Field(description=f"The first {MOST_SERIES_SHOWN}.")
    csv: str = Field(description="All forecasts, a row for each series, step and model.")
    scores: list[TableScore]
    notes: list[str]


@contextmanager
def _told_of(field: str) -> Iterator[None]:
    """What is wrong with the data, by the field of the request that brought them."""
    try:
        yield
    except DataError as error:
        raise ServiceError(422, str(error), field) from error


def read_table(asked: TableRequest, limits: Limits) -> Panel:
    """The panel of a CSV, whose size is told from its text before any of it is read.

    Raises:
        ServiceError: 422, if it is beyond the limits; or says what is wrong with the table and how to
            mend it.
    """
    _check_text(asked, limits)
    with _told_of("frequency"):
        if asked.frequency:
            parse_frequency(asked.frequency)
    with _told_of("csv"):
        frame = read_csv_text(asked.csv, asked.id_column or None)
        return read_panel(
            frame,
            horizon=asked.horizon,
            id_column=asked.id_column or None,
            time_column=asked.time_column or None,
            target_column=asked.target_column or None,
            frequency=asked.frequency or None,
            largest=Largest(limits.series, limits.points),
        )


def _check_text(asked: TableRequest, limits: Limits) -> None:
    _check("horizon", asked.horizon, limits.horizon, "steps")
    lines = max(asked.csv.count("\n"), asked.csv.count("\r"))
    _check("csv", lines, limits.points, "lines")
    columns = _num_columns(asked.csv)
    # In a wide table each series has its own; beside them stand a time and a name.
    _check("csv", columns, limits.series + 2, "columns")
    _check("csv", lines * columns, limits.cells, "cells")


def _check(field: str, found: int, most: int, what: str) -> None:
    if found > most:
        raise ServiceError(422, f"{field}: {found} {what}, and there may be {most}", field)


def _num_columns(text: str) -> int:
    """Of the header, by whichever separator cuts it into most; pandas' own reader takes time that
    grows with the square of the columns."""
    found = 0
    for separator in ",;\t|":
        lines = (line.group() for line in _LINE.finditer(text))
        rows = csv.reader(lines, delimiter=separator, skipinitialspace=True)
        try:
            for row in rows:
                found = max(found, len(row))
                if any(cell.strip() for cell in row):
                    break
        except csv.Error as error:  # a name of a hundred thousand letters
            if separator != ",":
                continue  # there are others of this mark, if it is one
            raise ServiceError(422, f"the header cannot be read ({error})", "csv") from error
    return found


def check_table(
    asked: TableRequest, panel: Panel, models: Mapping[str, PretrainedForecaster], limits: Limits
) -> None:
    """Refuse what would take too long, or too large an answer.

    Raises:
        ServiceError: 422, with the field.
    """
    # A forecast and up to three windows before it.
    scored = NUM_WINDOWS * min(len(panel), MOST_SERIES_SCORED) if asked.scores else 0
    numbers = len(models) * (len(QUANTILES) + 1)
    for model in models.values():
        what = "series, and windows to be scored," if scored else "series"
        check_steps(model, len(panel) + scored, asked.horizon, limits, "horizon", what)
    if len(panel) * asked.horizon * numbers > limits.numbers:
        raise ServiceError(
            422,
            f"horizon: {asked.horizon} steps of {len(panel)} series by {len(models)} models are too many "
            f"to write down; ask for {limits.numbers // (numbers * len(panel))} at most, or for fewer series",
            "horizon",
        )


@_told_of("csv")
def forecast_table(
    asked: TableRequest, panel: Panel, models: Mapping[str, PretrainedForecaster]
) -> TableResponse:
    """All of it; takes seconds where scores are asked for.

    Raises:
        ServiceError: 422, if the table cannot be answered.
    """
    found = {
        name: model.forecast(
            panel,
            asked.horizon,
            num_samples=NUM_SAMPLES,
            nonnegative=asked.nonnegative,
            progress=False,
        )
        for name, model in models.items()
    }
    scores, notes = (
        standing(panel, asked.horizon, models, asked.nonnegative)
        if asked.scores
        else (list[TableScore](), list[str]())
    )
    shown = [_series(panel, number, found) for number in range(min(len(panel), MOST_SERIES_SHOWN))]
    names = panel.columns
    taken = (names.id, names.time)
    by = next(name for name in ("model", "forecast_by", "llamacast_model") if name not in taken)
    frames = [one.to_frame(quantiles=QUANTILES).assign(**{by: name}) for name, one in found.items()]
    return TableResponse(
        columns={"id": names.id, "time": names.time, "target": names.target},
        num_series=len(panel),
        series=shown,
        csv=pd.concat(frames).to_csv(index=False),
        scores=scores,
        notes=[*dict.fromkeys(note for one in found.values() for note in one.notes), *notes],
    )


def _series(panel: Panel, number: int, found: Mapping[str, Forecast]) -> TableSeries:
    values, axis = panel.values[number], panel.axes[number]
    first = next(iter(found.values()))
    count = min(len(values), max(history_shown(first.horizon), 3 * first.horizon), MOST_SHOWN)
    stamps = axis.index(len(values) - count, count)
    return TableSeries(
        name=str(panel.ids[number]),
        history_times=[_written(one) for one in stamps],
        history=[None if math.isnan(one) else float(one) for one in values[-count:]],
        times=[_written(one) for one in first.index[number]],
        forecasts={
            name: TableForecast(
                mean=one.mean[number].tolist(),
                quantiles={
                    level_name(q): values.tolist()
                    for q, values in zip(QUANTILES, one.quantile(QUANTILES)[number].T, strict=True)
                },
            )
            for name, one in found.items()
        },
    )


def standing(
    panel: Panel,
    horizon: int,
    models: Mapping[str, PretrainedForecaster],
    nonnegative: bool | None = None,
) -> tuple[list[TableScore], list[str]]:
    """Where models stood on up to three windows of up to fifty series, as far as histories are long
    enough; and what a user should know of that, in sentences."""
    some = panel.choose(list(range(min(len(panel), MOST_SERIES_SCORED))))
    longest = max(len(values) for values in some.values)
    windows = min(NUM_WINDOWS, (longest - SHORTEST_HISTORY) // horizon)
    if windows < 1:
        return [], [
            "The history is too short to tell how good such a forecast would have been before."
        ]
    options = {"num_samples": NUM_SAMPLES, "nonnegative": nonnegative, "progress": False}
    entrants: dict[str, Any] = {name: Settled(model, options) for name, model in models.items()}
    entrants["seasonal-naive"] = SeasonalNaive()
    try:
        judged = backtest(some, horizon, entrants, num_windows=windows)
    except DataError as error:
        return [], [f"How good such a forecast would have been before cannot be told: {error}"]
    scores = [
        TableScore(
            model=str(name),
            crps=_number(row["CRPS ratio"]),
            mase=_number(row["MASE ratio"]),
            coverage_80=_number(100 * row["coverage 80"]),
        )
        for name, row in judged.table().loc[list(entrants)].iterrows()
    ]
    notes = [*(f"{line}." for line in judged.told_of_leaks()), *judged.told_of_failures()]
    notes += [
        f"{one.model} was no better than repeating the last season on the last {windows} windows: "
        "do not rely on it here."
        for one in scores
        if one.model in models and one.crps is not None and one.crps >= 1
    ]
    if windows < NUM_WINDOWS:
        notes.append(f"Only {windows} window(s) could be judged: the history is short.")
    return scores, notes


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(float(value)) else None


def _written(stamp: Any) -> str:
    return stamp.isoformat() if hasattr(stamp, "isoformat") else str(stamp)
