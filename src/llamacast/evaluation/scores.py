"""The scores of a backtest on one data set: by forecaster, and by forecaster and series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from llamacast.evaluation.answers import LEVELS, Answers
from llamacast.evaluation.metrics import (
    DECILES,
    interval_coverage,
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_absolute_scaled_error,
    mean_scaled_interval_score,
    mean_squared_error,
    mean_weighted_quantile_loss,
    normalised_deviation,
    observed_mean,
    quantile_loss,
    root_mean_squared_error,
    root_mean_squared_scaled_error,
    symmetric_mean_absolute_percentage_error,
)

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

REFERENCE = "seasonal-naive"
"""Whom skill is measured against."""

_DECILES = [LEVELS.index(level) for level in DECILES]
_MEDIAN = LEVELS.index(0.5)


@dataclass(frozen=True, repr=False)
class Scores:
    """Windows of one data set, what came, and what each forecaster had said.

    `table` and `per_series` make scores of it; `llamacast.evaluation.comparison` says which
    differences are more than luck.
    """

    name: str
    """Of the data set."""
    series: Sequence[Any]
    """Which series each window is of."""
    cutoffs: Sequence[Any]
    """Last known step of each window."""
    actuals: Floats
    """Shape `(window, horizon)`; NaN is missing."""
    seasonal_errors: Floats
    """Mean absolute seasonal step of each window's history, shape `(window,)`."""
    squared_seasonal_errors: Floats
    answers: Mapping[str, Answers]
    """By forecaster; the reference is always among them."""
    leaks: Mapping[str, str]
    """Forecasters whose weights have seen these data, and how."""
    notes: Sequence[str]
    """What a reader of the scores should know of the windows."""

    def __repr__(self) -> str:
        return f"Scores of {', '.join(self.answers)} on {len(self.series)} windows of {self.name!r}"

    def losses(self, forecaster: str) -> Floats:
        """Sum of quantile losses over the deciles and steps of each window; NaN where it failed."""
        answers = self.answers[forecaster]
        points = quantile_loss(self.actuals, answers.quantiles[..., _DECILES], DECILES)
        return np.where(answers.answered, np.nansum(points, axis=(1, 2)), np.nan)

    def score(self, forecaster: str, windows: Mask | None = None) -> dict[str, float]:
        """All scores of one forecaster, on the windows it answered (and that `windows` names)."""
        answers = self.answers[forecaster]
        chosen = answers.answered if windows is None else answers.answered & windows
        actuals, quantiles = self.actuals[chosen], answers.quantiles[chosen]
        median, mean = quantiles[..., _MEDIAN], answers.mean[chosen]
        errors = self.seasonal_errors[chosen]
        at = {level: quantiles[..., number] for number, level in enumerate(LEVELS)}
        return {
            "CRPS": mean_weighted_quantile_loss(actuals, quantiles[..., _DECILES]),
            "MASE": mean_absolute_scaled_error(actuals, median, errors),
            "RMSSE": root_mean_squared_scaled_error(
                actuals, mean, self.squared_seasonal_errors[chosen]
            ),
            "ND": normalised_deviation(actuals, median),
            "sMAPE": symmetric_mean_absolute_percentage_error(actuals, median),
            "MAPE": mean_absolute_percentage_error(actuals, median),
            "MAE": mean_absolute_error(actuals, median),
            "MSE": mean_squared_error(actuals, mean),
            "RMSE": root_mean_squared_error(actuals, mean),
            "MSIS": mean_scaled_interval_score(actuals, at[0.025], at[0.975], errors),
            "coverage 80": interval_coverage(actuals, at[0.1], at[0.9]),
            "coverage 95": interval_coverage(actuals, at[0.025], at[0.975]),
            "sample CRPS": observed_mean(answers.crps[chosen]),
            "energy score": observed_mean(answers.energy[chosen]),
        }

    def table(self) -> pd.DataFrame:
        """A row for each forecaster, best CRPS first: scores, ratios, windows, failures, seconds.

        CRPS is the mean weighted quantile loss over nine deciles, as GluonTS and GIFT-Eval have it.
        Ratios are to seasonal naive on the windows that both answered. Its rank is that of
        its CRPS among the forecasters, averaged over series; where it failed it ranks last.
        """
        ranks = self.ranks()
        rows = {}
        for name, answers in self.answers.items():
            own = self.score(name, self.answers[REFERENCE].answered)
            reference = self.score(REFERENCE, answers.answered)
            rows[name] = {
                **self.score(name),
                "CRPS ratio": _over(own["CRPS"], reference["CRPS"]),
                "MASE ratio": _over(own["MASE"], reference["MASE"]),
                "rank": ranks[name],
                "windows": len(answers),
                "failed": int((~answers.answered).sum()),
                "seconds": answers.seconds,
            }
        table = pd.DataFrame.from_dict(rows, orient="index").sort_values("CRPS", kind="stable")
        return table.rename_axis("model")

    def ranks(self) -> pd.Series[float]:
        """Average over series of each forecaster's rank (1 is best) by its CRPS there."""
        losses = pd.DataFrame({name: self.losses(name) for name in self.answers})
        by_series = losses.fillna(np.inf).groupby(self.series_numbers()).sum()
        return by_series.rank(axis=1).mean()

    def series_numbers(self) -> npt.NDArray[np.int64]:
        """Number of each window's series, in their order."""
        return np.asarray(pd.factorize(pd.Series(self.series, dtype=object))[0], dtype=np.int64)

    def per_series(self) -> pd.DataFrame:
        """A row for each series and forecaster: windows, and the scores that single series bear."""
        numbers = self.series_numbers()
        names = list(dict.fromkeys(self.series))
        kept = ("CRPS", "MASE", "RMSSE", "ND", "sMAPE", "MAE", "RMSE", "coverage 80")
        rows = []
        for number, name in enumerate(names):
            here = numbers == number
            for forecaster, answers in self.answers.items():
                scores = self.score(forecaster, here)
                rows.append(
                    {
                        "series": name,
                        "model": forecaster,
                        "windows": int((answers.answered & here).sum()),
                        **{key: scores[key] for key in kept},
                    }
                )
        return pd.DataFrame(rows)

    def told_of_leaks(self) -> list[str]:
        """In words, whose weights have seen these data."""
        return [f"{name}: {how}; its score is no forecast's" for name, how in self.leaks.items()]

    def told_of_failures(self) -> list[str]:
        """In words, who failed on how many windows, and why."""
        return [
            f"{name} failed on {count} of {len(self.series)} windows: {message}"
            for name, messages in self.errors().items()
            for message, count in messages.items()
        ]

    def errors(self) -> dict[str, dict[str, int]]:
        """For each forecaster that failed: its messages, and on how many windows."""
        found = {name: answers.errors[~answers.answered] for name, answers in self.answers.items()}
        return {
            name: dict(zip(*(part.tolist() for part in _counted(errors)), strict=True))
            for name, errors in found.items()
            if len(errors)
        }


def _counted(errors: npt.NDArray[np.str_]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    return np.unique(errors, return_counts=True)


def _over(score: float, reference: float) -> float:
    return score / reference if reference > 0 else float("nan")
