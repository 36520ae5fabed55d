"""Tools for assistants, by the Model Context Protocol: forecast, backtest, detect, explain."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from mcp.server.mcpserver import Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field, ValidationError

from llamacast import __version__
from llamacast.data.calendar import season_length
from llamacast.data.panel import Panel
from llamacast.forecast import DataError, Forecast
from llamacast.forecaster import PretrainedForecaster
from llamacast.interfaces.service.limits import Limits, ServiceError
from llamacast.interfaces.service.tables import TableRequest, TableScore, read_table, standing

INSTRUCTIONS = """Forecasts of time series, and how sure they are. Give a table as CSV text, or the name of
a CSV file in the folder of the server. Tell the user the numbers with their intervals, and every caveat."""
MOST_SERIES_TOLD, MOST_STEPS_TOLD, MOST_ODD_TOLD = 5, 60, 20
SEASONS_WANTED = 2
SUFFIXES = (".csv", ".tsv", ".txt")
LONGEST_NAME_TOLD = 80

Table = Annotated[
    str,
    Field(description="CSV text with a header, or the name of a CSV file in the server's folder."),
]
Horizon = Annotated[int, Field(description="Steps ahead, in the table's own steps.", ge=1)]
ModelName = Annotated[str, Field(description="By default the first that the server was given.")]
Column = Annotated[str | None, Field(description="Leave out to have it found.")]


def make_server(models: Mapping[str, PretrainedForecaster], folder: Path) -> MCPServer:
    """A server with its tools; `run()` it. Files outside of `folder` are not read."""
    server = MCPServer("llamacast", instructions=INSTRUCTIONS, version=__version__)
    default = next(iter(models))

    def chosen(name: str) -> PretrainedForecaster:
        if name not in models:
            raise ToolError(f"there is no model {name!r}; there are {', '.join(models)}")
        return models[name]

    @server.tool(structured_output=False)
    def forecast(
        table: Table,
        horizon: Horizon,
        model: ModelName = default,
        target_column: Column = None,
        time_column: Column = None,
        id_column: Column = None,
        nonnegative: Annotated[
            bool | None,
            Field(
                description="Nothing falls below 0; left out: if 0 was met often and never passed."
            ),
        ] = None,
    ) -> list[Any]:
        """Forecast each series of a table: medians and 80 % intervals of each step and of their sum,
        caveats, and a picture."""
        panel = _panel(table, folder, horizon, target_column, time_column, id_column)
        with _in_words():
            found = chosen(model).forecast(
                panel, horizon, nonnegative=nonnegative, num_samples=200, progress=False
            )
        scores, notes = standing(panel, horizon, {model: chosen(model)}, nonnegative)
        caveats = [*_short(panel), *notes, *found.notes]
        text = _joined(_numbers(found), _standing(scores), _caveats(caveats))
        return [text, _picture(found.plot())]

    @server.tool(structured_output=False)
    def backtest(
        table: Table,
        horizon: Horizon,
        target_column: Column = None,
        time_column: Column = None,
        id_column: Column = None,
    ) -> str:
        """How good forecasts of this table would have been before: all models and seasonal naive on the
        last windows."""
        panel = _panel(table, folder, horizon, target_column, time_column, id_column)
        scores, notes = standing(panel, horizon, models)
        return _joined(_standing(scores), _caveats([*_short(panel), *notes]))

    @server.tool(structured_output=False)
    def detect(
        table: Table,
        false_alarm_rate: Annotated[
            float, Field(description="Share of ordinary values that may be flagged.", gt=0, le=0.2)
        ] = 0.01,
        target_column: Column = None,
        time_column: Column = None,
        id_column: Column = None,
    ) -> list[Any]:
        """Which values of a table are odd, each judged by what came before it; with a picture."""
        panel = _panel(table, folder, 0, target_column, time_column, id_column)
        with _in_words():
            found = chosen(default).detect(panel, false_alarm_rate=false_alarm_rate, progress=False)
        frame = found.to_frame()
        odd = frame[frame.anomaly].sort_values("probability", kind="stable")
        head = f"{len(odd)} of {frame.probability.notna().sum()} values are odd."
        shown = odd.head(MOST_ODD_TOLD).drop(columns="anomaly")
        rows = shown.to_string(index=False, float_format="%.5g") if len(odd) else ""
        return ["\n".join([head, rows, _caveats(_short(panel))]), _picture(found.plot())]

    @server.tool(structured_output=False)
    def explain(
        table: Table,
        target_column: Column = None,
        time_column: Column = None,
        id_column: Column = None,
    ) -> list[Any]:
        """What a forecast of each series draws on: the parts of the past that change it most when they
        are hidden; with a picture."""
        panel = _panel(table, folder, 0, target_column, time_column, id_column)
        some = panel.choose(list(range(min(len(panel), MOST_SERIES_TOLD))))
        with _in_words():
            found = chosen(default).attention(some)
        lines = []
        for name, importance in zip(found.ids, found.importance, strict=True):
            most = importance.sort_values(ascending=False).head(3)
            total = float(importance.abs().sum()) or 1.0
            parts = ", ".join(f"{stamp} ({value / total:.0%})" for stamp, value in most.items())
            lines.append(f"{name}: what mattered most ends at {parts}")
        return ["\n".join(lines), _picture(found.plot())]

    return server


def _panel(
    table: str,
    folder: Path,
    horizon: int,
    target_column: str | None,
    time_column: str | None,
    id_column: str | None,
) -> Panel:
    """The panel of a table that an assistant hands over.

    Raises:
        ToolError: says what is wrong, for the assistant to mend or to tell.
    """
    with _in_words():
        asked = TableRequest(
            csv=table if len(table.splitlines()) > 1 else _file(table.strip(), folder),
            horizon=max(1, horizon),
            id_column=id_column,
            time_column=time_column,
            target_column=target_column,
            models=None,
            scores=False,
        )
        return read_table(asked, Limits())


def _file(name: str, folder: Path) -> str:
    """The text of a table in the folder: of no other file, whose first line an error would tell.

    Raises:
        ToolError: says what is wrong, for the assistant to mend or to tell.
    """
    root = folder.resolve()
    try:
        path = (root / name).resolve()
        there = path.is_relative_to(root) and path.is_file()
    except (OSError, ValueError):  # too long, or no name of a file at all
        there = False
    if not there:
        shown = name if len(name) <= LONGEST_NAME_TOLD else f"{name[:LONGEST_NAME_TOLD]}..."
        raise ToolError(
            f"there is no file {shown!r} in the server's folder; give one, or the CSV text"
        )
    hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    if hidden or path.suffix.lower() not in SUFFIXES:
        raise ToolError(
            f"{name!r} is not read; give a file that is not hidden and ends in {', '.join(SUFFIXES)}"
        )
    try:
        if path.stat().st_size > Limits().body_bytes:
            raise ToolError(f"{name} has more than {Limits().body_bytes} bytes")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ToolError(f"{name} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ToolError(f"{name} is not in UTF-8; save it so, or give the CSV text") from error
    if not text.strip():
        raise ToolError(f"{name} is empty; give a file with a header and rows")
    return text


@contextmanager
def _in_words() -> Iterator[None]:
    """What is wrong with the data, for the assistant to mend or to tell."""
    try:
        yield
    except (DataError, ServiceError) as error:
        raise ToolError(str(error)) from error
    except ValidationError as error:
        told = error.errors()[0]
        raise ToolError(f"{'.'.join(map(str, told['loc']))}: {told['msg']}") from error


def _numbers(found: Forecast) -> str:
    """Each step and the sum, of the first series."""
    levels = found.quantile([0.1, 0.5, 0.9])
    blocks = []
    for number, name in enumerate(found.ids[:MOST_SERIES_TOLD]):
        sums = np.quantile(found.samples[number].sum(axis=1), [0.1, 0.5, 0.9])
        rows = [f"{name} (median; 80 % interval)"]
        for step in range(min(found.horizon, MOST_STEPS_TOLD)):
            low, middle, high = levels[number, step]
            rows.append(f"  {found.index[number][step]}: {middle:.5g} ({low:.5g} to {high:.5g})")
        rows.append(
            f"  sum of all {found.horizon} steps: {sums[1]:.5g} ({sums[0]:.5g} to {sums[2]:.5g})"
        )
        blocks.append("\n".join(rows))
    if len(found.ids) > MOST_SERIES_TOLD:
        blocks.append(f"... and {len(found.ids) - MOST_SERIES_TOLD} more series")
    return "\n".join(blocks)


def _joined(*parts: str) -> str:
    """Paragraphs, as far as there is something in them."""
    return "\n\n".join(filter(None, parts))


def _standing(scores: list[TableScore]) -> str:
    def told(value: float | None, form: str) -> str:
        return "unknown" if value is None else form.format(value)

    if not scores:
        return ""
    lines = [
        f"  {one.model}: CRPS {told(one.crps, '{:.2f}')}, MASE {told(one.mase, '{:.2f}')}, "
        f"{told(one.coverage_80, '{:.0f}')} % of values within 80 % intervals"
        for one in scores
    ]
    return "\n".join(["On the last windows, relative to repeating the last season:", *lines])


def _short(panel: Panel) -> list[str]:
    """What is too short to show a season twice."""
    found = []
    for name, values, axis in zip(panel.ids, panel.values, panel.axes, strict=True):
        season = season_length(axis.frequency) if axis.frequency else 1
        if len(values) < max(SEASONS_WANTED * season, 10):
            found.append(
                f"{name}: a history of {len(values)} steps is short; intervals may mislead."
            )
    return found[:MOST_SERIES_TOLD]


def _caveats(caveats: list[str]) -> str:
    lines = caveats or ["none beyond those of any forecast: nothing is known of what has no past."]
    return "\n".join(["Caveats:", *(f"  - {one}" for one in lines)])


def _picture(figure: Any) -> Image:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=90)
    return Image(data=drawn.getvalue(), format="png")
