"""Every baseline by its name."""

from __future__ import annotations

from llamacast.evaluation.baselines import SeasonalNaive
from llamacast.forecast import DataError, Forecaster, needs

STATISTICAL = (
    "naive",
    "drift",
    "auto-ets",
    "auto-arima",
    "theta",
    "optimized-theta",
    "dynamic-theta",
    "dynamic-optimized-theta",
    "auto-theta",
    "croston-sba",
    "mstl",
)
NEURAL = ("deepar", "tft", "n-beats", "patchtst")
BASELINES = ("seasonal-naive", *STATISTICAL, *NEURAL)


def baseline(
    name: str, season: int | None = None, *, minutes: float = 10.0, seed: int = 0
) -> Forecaster:
    """The forecaster of that name. `minutes` and `seed` are for the training of neural ones.

    Neural ones have `fit(data, horizon)` too, which returns a trained forecaster; their own
    `forecast` trains anew each time.

    Raises:
        DataError: there is no such baseline, or its library is not installed; the message lists
            those there are, or says what to install.
    """
    if name == "seasonal-naive":
        return SeasonalNaive(season)
    if name not in BASELINES:
        raise DataError(f"no baseline {name!r}; there are {', '.join(BASELINES)}")
    extra = "baselines" if name in STATISTICAL else "deep"
    try:
        if name in STATISTICAL:
            from llamacast.evaluation.statistical import StatisticalForecaster

            return StatisticalForecaster(name, season)
        from llamacast.evaluation.neural import NeuralForecaster

        return NeuralForecaster(name, minutes, seed, season=season)
    except ModuleNotFoundError as error:
        raise needs(name, extra, error) from error
