"""The process of one fine-tuning job: `python -m llamacast.interfaces.service.job FOLDER SOURCE DEVICE`."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import threading
import traceback
import warnings
from pathlib import Path

from llamacast.forecast import CheckpointError, DataError
from llamacast.forecaster import load
from llamacast.interfaces.service.jobs import OUTCOME, REQUEST, RUN, FinetuneRequest
from llamacast.interfaces.service.limits import ServiceError
from llamacast.interfaces.service.schema import panel_of

TRACE = "trace.txt"
NICENESS = 10
"""Forecasts that somebody waits for go first."""


def main(place: Path, source: str, device: str) -> int:
    """Fine-tune as the folder's request asks, or go on; the exit status is 0 if it came to an end."""
    # Told to stop together with the service (Ctrl-C, systemd), it ends when that does, and goes on later.
    for sent in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sent, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    warnings.simplefilter("ignore")  # what is written on standard error is the caller's log
    try:
        if hasattr(os, "nice"):
            os.nice(NICENESS)
        asked = FinetuneRequest.model_validate_json((place / REQUEST).read_text())
        tuned = load(source, device=device).finetune(
            panel_of(asked.inputs),
            asked.horizon,
            strategy=asked.strategy,
            steps=asked.steps,
            learning_rate=asked.learning_rate,
            seed=asked.seed,
            directory=place / RUN,
            progress=True,
        )
    except DataError as error:
        return _tell(place, {"error": str(error)}, 2)
    except CheckpointError:
        (place / TRACE).write_text(traceback.format_exc())
        return _tell(place, {"error": "the model that it was to begin with cannot be read"}, 2)
    except ServiceError as error:
        return _tell(place, {"error": error.detail}, 2)
    except Exception:
        # For who runs the service; the caller's log has no inside.
        (place / TRACE).write_text(traceback.format_exc())
        return 1
    assert tuned.verdict is not None
    told = {**dataclasses.asdict(tuned.verdict), "sentence": str(tuned.verdict)}
    return _tell(place, {"verdict": {**told, "improved": tuned.verdict.improved}}, 0)


def _tell(place: Path, outcome: dict[str, object], code: int) -> int:
    (place / OUTCOME).write_text(json.dumps(outcome))
    return code


def _end_with_parent() -> None:
    # Not by `sys.stdin`, whose lock the interpreter wants at its end.
    while os.read(0, 1):
        pass
    os._exit(3)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
