"""Fine-tuning as users ask for it: which device and precision, a search first, what is told of it."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from llamacast.applied.features import FeatureHead
from llamacast.applied.request import Applied
from llamacast.data.covariates import CovariateInputs
from llamacast.data.panel import Panel
from llamacast.forecast import CheckpointError, DataError, Verdict, needs
from llamacast.model.checkpoint import Network
from llamacast.sampling.threads import considerate_threads
from llamacast.training.finetune import (
    ADAPTER_DIRECTORY,
    FinetuneConfig,
    claim,
    finetune,
    split,
    told_of,
)
from llamacast.training.pretrain import multiplies_bfloat16, plot_losses
from llamacast.training.report import Report
from llamacast.training.search import search

SEARCH_DIRECTORY = "search"


@dataclass(frozen=True)
class Adapted:
    """What fine-tuning gives."""

    model: Network
    features: FeatureHead | None
    inputs: CovariateInputs | None
    """What the network looks at beside the values."""
    verdict: Verdict


def adapt(
    model: Network,
    name: str | None,
    applied: Applied,
    panel: Panel,
    options: dict[str, Any],
    searches: bool,
    directory: Path | None,
    report: Report,
) -> Adapted:
    """Fine-tune a network on a panel; `options` are the fields of `FinetuneConfig`.

    `name` is what `load` makes the network from, if it can.

    Raises:
        DataError: if an option or the data cannot be used, or a library is missing.
        CheckpointError: if `directory` holds another run.
    """
    strategy = options.pop("strategy")
    try:
        if strategy == "features":
            _refuse_unused(options, searches)
            return _by_features(model, applied, panel, options, directory)
        config = FinetuneConfig(**options, strategy=strategy)
        with _folder(directory) as folder, considerate_threads():
            fabric = _fabric(next(model.parameters()).device)
            if searches:
                config = search(
                    model, panel, config, folder / SEARCH_DIRECTORY, fabric, report.line
                )
            found, verdict, inputs = finetune(
                model, panel, config, folder, fabric, report.row, report.line
            )
            plot_losses(folder)
            adapter = folder / ADAPTER_DIRECTORY
            if adapter.exists() and name is None:
                shutil.rmtree(adapter)
                report.line("no adapter is written: the model it would belong to was not loaded")
            elif adapter.exists() and name is not None:
                from llamacast.training.lora import name_base

                name_base(adapter, name)
        return Adapted(found, None, inputs, verdict)
    except (CheckpointError, DataError):
        raise
    except ValueError as error:
        raise DataError(str(error)) from error
    except ModuleNotFoundError as error:
        raise needs(f"strategy {strategy!r}", "finetune", error) from error


def _refuse_unused(options: dict[str, Any], searches: bool) -> None:
    """What strategies ask for that train a network."""
    asked = {name: options[name] for name in ("learning_rate", "context_length", "head")}
    unused = next((name for name, value in asked.items() if value is not None), None)
    if unused or searches:
        raise DataError(
            f"{unused or 'search'} does not go with strategy 'features', which leaves the network as it is; "
            "leave it out"
        )


def _by_features(
    model: Network,
    applied: Applied,
    panel: Panel,
    options: dict[str, Any],
    directory: Path | None,
) -> Adapted:
    from llamacast.adapting.features import fit_head  # needs scikit-learn, which others do not

    if panel.covariates is not None:
        raise DataError(
            "strategy 'features' learns from the series alone; use the strategy 'full', or leave covariates "
            "out here and give them to forecast"
        )
    config = FinetuneConfig(**options)
    parts = split(panel, config)
    if directory is not None:
        claim(directory, {**told_of(model, panel, config), "strategy": "features"})
    head, verdict = fit_head(applied, panel, parts, model.config.context_length, config.seed)
    return Adapted(model, head if verdict.improved else None, None, verdict)


@contextmanager
def _folder(directory: Path | None) -> Iterator[Path]:
    """That of the run; one that goes away where none is given."""
    if directory is not None:
        yield directory
        return
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def _fabric(device: torch.device) -> Fabric:
    """Where the network is; blocks in bfloat16 where the hardware multiplies that faster."""
    precision: Any = "bf16-mixed" if multiplies_bfloat16(device) else "32-true"
    # Lightning tells of each Fabric which precision it has.
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    accelerator = device.type if device.type in ("cpu", "cuda", "mps") else "auto"
    return Fabric(accelerator=accelerator, devices=1, precision=precision)
