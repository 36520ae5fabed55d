"""Fine-tuning as users ask for it: which device and folder, a run told apart from others, its reports."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from llamacast.data.panel import Panel
from llamacast.forecast import DataError, TrainingRecord
from llamacast.text.finetune import (
    MODEL_DIRECTORY,
    FinetuneConfig,
    Outcome,
    check_budget,
    finetune,
    lesson_of,
)
from llamacast.text.language import Language
from llamacast.text.search import Grid, Trial, lessons_of, search
from llamacast.text.systems import systems_of
from llamacast.text.windows import System
from llamacast.training.finetune import claim
from llamacast.training.pretrain import multiplies_bfloat16, open_fabric
from llamacast.training.report import Report


def tune(
    language: Language,
    panel: Panel,
    validation: Panel | None,
    options: dict[str, Any],
    directory: str | os.PathLike[str] | None,
    progress: bool | None,
) -> tuple[Language, Outcome]:
    """`finetune` of a panel, in a folder of its own, or in one that is gone when it is done."""
    config = FinetuneConfig(**options)
    _check_precision(language)
    systems, judged = _systems(panel), _systems(validation)
    assert systems is not None
    lesson = lesson_of(language, systems, judged, config)
    check_budget(language, lesson, config)
    report = Report(progress)
    folder = Path(directory) if directory is not None else Path(tempfile.mkdtemp())
    try:
        claim(folder, _told(language, config, systems, judged))
        found, outcome = finetune(
            language,
            lesson,
            config,
            folder,
            make_fabric(language),
            report=report.row,
            told=report.line,
        )
        report.line(str(outcome))
        if outcome.improved:
            record = found.settings.record.joined(TrainingRecord(until=panel.last_stamp()))
            found.settings = replace(found.settings, record=record)
        if directory is not None:
            found.save(folder / MODEL_DIRECTORY)
    finally:
        if directory is None:
            shutil.rmtree(folder)
    return found, outcome


def tune_grid(
    language: Language,
    panel: Panel,
    validation: Panel | None,
    options: dict[str, Any],
    grid: Grid,
    directory: Path,
    progress: bool | None,
) -> list[Trial]:
    """`search` of a panel."""
    config = FinetuneConfig(**options)
    _check_precision(language)
    systems, judged = _systems(panel), _systems(validation)
    assert systems is not None
    lessons = lessons_of(language, systems, judged, config, grid)
    told = _told(language, config, systems, judged) | {"grid": asdict(grid)}
    claim(directory, told)
    fabric, report = make_fabric(language), Report(progress)
    return search(language, lessons, config, grid, directory, fabric, report.line)


def make_fabric(language: Language) -> Fabric:
    """The device that the model is on, in the precision that it is in."""
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    quick = "bf16-mixed" if multiplies_bfloat16(language.device) else "32-true"
    half = language.model.dtype.itemsize == 2
    return open_fabric(language.device.type, "bf16-true" if half else quick)


def _systems(panel: Panel | None) -> list[System] | None:
    return None if panel is None else [one.values for one in systems_of(panel)]


def _told(
    language: Language,
    config: FinetuneConfig,
    systems: list[System],
    judged: list[System] | None,
) -> dict[str, Any]:
    """What a run follows from."""
    fields = asdict(config)
    del fields["budget"]
    digest = hashlib.blake2b(digest_size=8)
    for system in [*systems, *(judged or [])]:
        digest.update(np.ascontiguousarray(system).tobytes() + str(system.shape).encode())
    return fields | {"data": digest.hexdigest(), "model": language.digest()}


def _check_precision(language: Language) -> None:
    if language.model.dtype == torch.float16:
        raise DataError(
            "weights in float16 cannot be trained; load them with dtype='float32' or 'bfloat16'"
        )
