"""What a forecaster said of the windows of a backtest, and the folder that keeps it."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from llamacast.data.arrow import StoredSeries
from llamacast.data.panel import Panel
from llamacast.data.windows import Origins
from llamacast.evaluation.metrics import DECILES
from llamacast.forecast import DataError

Floats = npt.NDArray[np.float64]

LEVELS = (0.025, 0.05, *DECILES, 0.95, 0.975)
"""Quantiles that are kept of each forecast."""
LONGEST_ERROR = 200
"""Letters kept of a message."""
SETTINGS_FILE = "backtest.json"


@dataclass(frozen=True)
class Answers:
    """What is kept of forecasts, in place of their samples. All is NaN where a forecaster failed."""

    quantiles: Floats
    """At `LEVELS`, shape `(window, horizon, level)`."""
    mean: Floats
    """Shape `(window, horizon)`, as are the next two."""
    crps: Floats
    """From samples, in data units."""
    transform: Floats
    """Probability integral transform of the actual."""
    energy: Floats
    """Energy score of the path, shape `(window,)`; NaN where samples are not joint paths."""
    errors: npt.NDArray[np.str_]
    """Why a window was not answered; empty if it was. Shape `(window,)`."""
    seconds: float
    """Time it took, training included."""

    def __len__(self) -> int:
        return len(self.errors)

    @property
    def answered(self) -> npt.NDArray[np.bool_]:
        """Which windows were."""
        return self.errors == ""

    @classmethod
    def failed(cls, num_windows: int, horizon: int, error: str) -> Answers:
        nothing = np.full((num_windows, horizon), np.nan)
        return cls(
            quantiles=np.full((num_windows, horizon, len(LEVELS)), np.nan),
            mean=nothing,
            crps=nothing,
            transform=nothing,
            energy=nothing[:, 0],
            errors=np.full(num_windows, error, dtype=f"<U{LONGEST_ERROR}"),
            seconds=0.0,
        )

    @classmethod
    def join(cls, parts: Sequence[Answers]) -> Answers:
        arrays = [field.name for field in fields(cls) if field.name != "seconds"]
        joined = {name: np.concatenate([getattr(p, name) for p in parts]) for name in arrays}
        return cls(**joined, seconds=float(sum(part.seconds for part in parts)))


class Shelf:
    """A folder that keeps answers, chunk by chunk, each written beside and then renamed.

    `backtest.json` tells the data and the windows they belong to. The answers of each forecaster
    lie in a folder of its own, named by what it is: changed weights or options start anew.
    """

    def __init__(self, directory: Path, origins: Origins, season: int | None) -> None:
        self.directory = directory
        settings = {
            "data": fingerprint(origins.panel),
            "horizon": origins.horizon,
            "windows": len(origins),
            "first_cuts": _digest(origins.cuts.tobytes()),
            "season": season,
        }
        path = directory / SETTINGS_FILE
        if path.exists():
            if _read_settings(path) != settings:
                raise DataError(
                    f"{directory} holds a backtest of other data or windows; name another folder"
                )
            return
        directory.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(settings, indent=2) + "\n")
        os.replace(unfinished, path)

    def find(self, name: str, what: str, part: slice) -> Answers | None:
        path = self._path(name, what, part)
        if not path.exists():
            return None
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
                parts = {field.name: kept[field.name] for field in fields(Answers)}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return None  # damaged: whoever is asked again writes it anew
        return Answers(**(parts | {"seconds": float(parts["seconds"])}))

    def keep(self, name: str, what: str, part: slice, answers: Answers) -> None:
        """Only if all windows were answered: what failed is tried again."""
        if not answers.answered.all():
            return
        path = self._path(name, what, part)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        with unfinished.open("wb") as file:
            np.savez_compressed(file, **asdict(answers))
        os.replace(unfinished, path)

    def _path(self, name: str, what: str, part: slice) -> Path:
        folder = f"{file_name(name)}-{_digest(f'{name} {what}'.encode())}"
        return self.directory / "answers" / folder / f"{part.start}-{part.stop}.npz"


def file_name(name: str) -> str:
    """A name with nothing in it that paths or Markdown take for more than a letter."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)


def _read_settings(path: Path) -> object:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise DataError(
            f"{path}: is damaged ({error}); delete it, or name another folder"
        ) from error


def fingerprint(series: Panel | StoredSeries) -> str:
    """A short text that tells these series from any others."""
    axes = [(str(name), repr(axis)) for name, axis in zip(series.ids, series.axes, strict=True)]
    parts = [repr(axes).encode(), *(values.tobytes() for values in series.values)]
    if isinstance(series, Panel):
        beside, groups = series.covariates, series.groups
        if beside is not None:
            parts.append(repr((beside.names, beside.ahead.tolist())).encode())
            parts += [values.tobytes() for values in beside.values]
        if groups is not None:
            parts.append(repr([*map(str, groups)]).encode())
    return _digest(*parts)


def _digest(*parts: bytes) -> str:
    found = hashlib.blake2b(digest_size=8)
    for part in parts:
        found.update(part)
    return found.hexdigest()
