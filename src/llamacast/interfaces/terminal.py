"""What commands share: columns' options, errors in one line, tables written and told of."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, Optional

import typer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from llamacast.forecast import Forecast

EXIT_BAD_INPUT = 2
MODEL_FILES = ("config.json", "adapter_config.json")
NUM_ROWS_SHOWN = 10
FEWEST_DIGITS = 6
# Of a number's size; what lies nearer together is rounding.
SMALLEST_SPREAD = 1e-12
# Libraries that come with an extra only.
EXTRAS = {
    "lightning_fabric": "train",
    "transformers": "text",
    "peft": "text",
    "fastapi": "serve",
    "uvicorn": "serve",
    "mcp": "mcp",
}


# What Python calls arguments, where the command line spells them otherwise.
OPTIONS = {
    "id_column": "--id-column",
    "time_column": "--time-column",
    "target_column": "--target-column",
    "group_column": "--group-column",
    "future_frame": "--future",
    "num_samples": "--num-samples",
    "num_windows": "--windows",
    "context_length": "--context-length",
    "history_share": "--history-share",
    "learning_rate": "--learning-rate",
    "false_alarm_rate": "--false-alarm-rate",
}
ARGUMENT = re.compile(rf"(?<![\w'\"/.])({'|'.join(OPTIONS)})(?![\w'\"/.]*[\w'\"/])")

# What several commands ask for.
IdColumn = Annotated[Optional[str], typer.Option(help="Column that names the series.")]
TimeColumn = Annotated[Optional[str], typer.Option(help="Column of dates, or of whole numbers.")]
TargetColumn = Annotated[Optional[str], typer.Option(help="Column of values to forecast.")]
GroupColumn = Annotated[
    Optional[str],
    typer.Option(help="Column that says which series move together: paths are joint over them."),
]
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

        missing = isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0]
        if missing in EXTRAS:
            refuse(f"{missing} is missing; pip install 'llamacast[{EXTRAS[missing]}]'")
        if not isinstance(error, (DataError, CheckpointError, OSError)):
            raise
        message = str(error)
        refuse(message if isinstance(error, OSError) else in_options(message))
    except KeyboardInterrupt:
        typer.echo(f"interrupted; {interrupted}", err=True)
        sys.exit(130)


def in_options(message: str) -> str:
    """A message with arguments as the command line spells them; names in quotes or paths are others'."""
    return ARGUMENT.sub(lambda found: OPTIONS[found[1]], message)


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
    numbers_told = list(frame.columns)[list(frame.columns).index("mean") :]
    typer.echo(told_apart(frame.head(NUM_ROWS_SHOWN), numbers_told))
    if len(frame) > NUM_ROWS_SHOWN:
        typer.echo(f"... {len(frame)} rows" + ("" if output else "; --output FILE writes them all"))
    write(frame, output)
    if plot is not None:
        result.plot(plot)
    tell_written(output, plot)


def told_apart(frame: pd.DataFrame, columns: list[str]) -> str:
    """A frame as text, the numbers of some columns with as many digits as tell those of a row apart."""
    digits = _digits(frame[columns].to_numpy(dtype=float))

    def told(value: float) -> str:
        return "NaN" if math.isnan(value) else f"{value:.{digits}g}"

    return frame.to_string(
        index=False, float_format="%.6g", formatters=dict.fromkeys(columns, told)
    )


def _digits(rows: npt.NDArray[np.float64]) -> int:
    """That show two figures of the least spread of a row, beyond what rounding makes."""
    needed = [FEWEST_DIGITS]
    for row in rows:
        known = [float(value) for value in row if math.isfinite(value)]
        largest = max(map(abs, known), default=0.0)
        spread = max(known) / 2 - min(known) / 2 if known else 0.0
        if spread > SMALLEST_SPREAD * largest:
            needed.append(math.ceil(math.log10(largest / spread)) + 2)
    return max(needed)


def write(frame: pd.DataFrame, output: Path | None) -> None:
    """All of it or nothing: what was there before stays until then."""
    if output is None:
        return
    made = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        if output.suffix == ".csv":
            frame.to_csv(made, index=False)
        else:
            frame.to_parquet(made)
        os.replace(made, output)
    finally:
        made.unlink(missing_ok=True)


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


def check_folder(path: Path | None, option: str) -> None:
    if path is not None and path.exists() and not path.is_dir():
        refuse(f"{option}: {path} is a file; give a folder")


def check_model(name: str) -> None:
    """Refuse the folder of a run in place of the model in it."""
    path = Path(name)
    own = any((path / file).exists() for file in MODEL_FILES)
    if not own and any((path / "model" / file).exists() for file in MODEL_FILES):
        refuse(f"{name} is the folder of a run, whose model is {path / 'model'}; give that one")
