"""What commands share: columns' options, errors in one line, tables written and told of."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, Optional

import typer

if TYPE_CHECKING:
    import pandas as pd

    from llamacast.forecast import Forecast

EXIT_BAD_INPUT = 2
NUM_ROWS_SHOWN = 10
# Libraries that come with an extra only.
EXTRAS = {
    "lightning_fabric": "train",
    "transformers": "text",
    "peft": "text",
    "fastapi": "serve",
    "uvicorn": "serve",
    "mcp": "mcp",
}


# What several commands ask for.
IdColumn = Annotated[Optional[str], typer.Option(help="Column that names the series.")]
TimeColumn = Annotated[Optional[str], typer.Option(help="Column of dates, or of whole numbers.")]
TargetColumn = Annotated[Optional[str], typer.Option(help="Column of values to forecast.")]
FutureFrame = Annotated[
    Optional[Path],
    typer.Option(help="Table of the horizon's series, times and covariates that are known ahead."),
]
CovariateNames = Annotated[
    Optional[str],
    typer.Option(help="Columns that may explain the values, with commas. [default: --future's]"),
]
Holidays = Annotated[
    Optional[str], typer.Option(help="Country whose holidays may explain them: DE, US-CA, ...")
]
FrequencyName = Annotated[
    Optional[str],
    typer.Option(help="Step of the data: h, D, W-SUN, MS, 15min, ... [default: inferred]"),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]


@contextmanager
def errors_in_one_line(interrupted: str = "nothing was written") -> Iterator[None]:
    """Bad input ends with one line and exit code 2; anything else is our fault and shows itself."""
    try:
        yield
    except Exception as error:
        from llamacast.forecast import CheckpointError, DataError

        if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
            refuse(f"{error.name} is missing; pip install 'llamacast[{EXTRAS[error.name]}]'")
        if not isinstance(error, (DataError, CheckpointError, OSError)):
            raise
        refuse(str(error))
    except KeyboardInterrupt:
        typer.echo(f"interrupted; {interrupted}", err=True)
        sys.exit(130)


def refuse(message: str) -> NoReturn:
    tell(f"error: {message}")
    sys.exit(EXIT_BAD_INPUT)


def tell(message: str) -> None:
    """One line beside the results; of the processes that torchrun starts, the first speaks."""
    if os.environ.get("RANK", "0") == "0":
        typer.echo(message, err=True)


def show_forecast(
    result: Forecast,
    quantiles: list[float],
    levels: list[float] | None,
    output: Path | None,
    plot: Path | None,
) -> None:
    """The head of a forecast, all of it in a file, and a picture, as far as they are asked for."""
    for note in result.notes:
        tell(note)
    frame = result.to_frame(quantiles=quantiles, levels=levels)
    typer.echo(frame.head(NUM_ROWS_SHOWN).to_string(index=False, float_format="%.6g"))
    if len(frame) > NUM_ROWS_SHOWN:
        typer.echo(f"... {len(frame)} rows" + ("" if output else "; --output FILE writes them all"))
    write(frame, output)
    if plot is not None:
        result.plot(plot)
    tell_written(output, plot)


def write(frame: pd.DataFrame, output: Path | None) -> None:
    if output is not None and output.suffix == ".csv":
        frame.to_csv(output, index=False)
    elif output is not None:
        frame.to_parquet(output)


def tell_written(*paths: Path | None) -> None:
    for path in filter(None, paths):
        tell(f"wrote {path}")


def numbers(text: str, option: str, largest: float) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        refuse(f"{option} takes numbers with commas between; got {text!r}")
    if not all(0 < number < largest for number in numbers):
        refuse(f"{option} must lie between 0 and {largest:g}; got {text!r}")
    return numbers


def check_suffix(path: Path | None, allowed: tuple[str, ...], option: str) -> None:
    if path is not None and path.suffix not in allowed:
        refuse(f"{option} must end in {', '.join(allowed)}; got {path}")
    if path is not None and (path.is_dir() or not os.access(path.parent, os.W_OK)):
        refuse(f"{option}: {path} cannot be written")
