"""LlamaCast: forecasts of time series by decoder-only transformers, with how sure they are.

>>> import llamacast
>>> forecast = llamacast.load().forecast(frame, horizon=24)  # doctest: +SKIP
>>> forecast.to_frame(quantiles=[0.1, 0.5, 0.9])  # doctest: +SKIP

Names are imported when they are first used: `import llamacast` does not load torch.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# Threads that wait by spinning take cores from other work, and slow each other down where cores
# are shared. OpenMP reads this once, when torch is first loaded; a user's own setting stands.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from llamacast.evaluation.backtest import backtest
    from llamacast.evaluation.named import baseline
    from llamacast.forecast import CheckpointError, DataError, Forecast, Forecaster
    from llamacast.forecaster import CriaForecaster, LagLlamaForecaster, convert, load
    from llamacast.text.forecaster import TextForecaster, load_text

__version__ = "0.1.0"

_HOMES = {
    "CheckpointError": "llamacast.forecast",
    "CriaForecaster": "llamacast.forecaster",
    "DataError": "llamacast.forecast",
    "Forecast": "llamacast.forecast",
    "Forecaster": "llamacast.forecast",
    "LagLlamaForecaster": "llamacast.forecaster",
    "TextForecaster": "llamacast.text.forecaster",
    "backtest": "llamacast.evaluation.backtest",
    "baseline": "llamacast.evaluation.named",
    "convert": "llamacast.forecaster",
    "load": "llamacast.forecaster",
    "load_text": "llamacast.text.forecaster",
}

_EXTRAS = {"llamacast.text.forecaster": "text"}

__all__ = [
    "CheckpointError",
    "CriaForecaster",
    "DataError",
    "Forecast",
    "Forecaster",
    "LagLlamaForecaster",
    "TextForecaster",
    "backtest",
    "baseline",
    "convert",
    "load",
    "load_text",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'llamacast' has no attribute {name!r}")
    try:
        return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(_HOMES[name])
        if extra is None:
            raise
        message = f"{name} needs {error.name}: pip install 'llamacast[{extra}]'"
        raise ModuleNotFoundError(message, name=error.name) from error


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
