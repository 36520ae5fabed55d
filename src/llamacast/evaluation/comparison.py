"""Which differences are more than luck; several data sets taken together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from llamacast.evaluation.scores import REFERENCE, Scores
from llamacast.forecast import DataError

Floats = npt.NDArray[np.float64]

NUM_DRAWS = 2000
DRAWS_AT_A_TIME = 100
LEAST_UNITS = 10
"""Fewer series or windows than this say nothing about luck."""
INTERVAL = (0.025, 0.975)


@dataclass(frozen=True)
class Skill:
    """Share of seasonal naive's CRPS that a forecaster takes away: 0 is as good, 1 perfect."""

    value: float
    low: float
    """Ends of the 95 % bootstrap interval; NaN where there is too little to tell."""
    high: float

    @property
    def verdict(self) -> str:
        """`better`, `worse`, `not told apart`, or `too few windows`."""
        if np.isnan(self.low):
            return "too few windows"
        return "better" if self.low > 0 else "worse" if self.high < 0 else "not told apart"


def skill(scores: Scores, forecaster: str, seed: int = 0) -> Skill:
    """Skill on one data set.

    The interval is that of a paired bootstrap: series are drawn with replacement (windows, where
    there are fewer than ten series), and with them the losses of both. Windows of one series that
    follow each other are not independent, so with few series the interval is rather too narrow.
    """
    return _skill([_log_ratios(scores, forecaster, seed)])


def overall_skill(several: Sequence[Scores], forecaster: str, seed: int = 0) -> Skill:
    """One minus the geometric mean, over data sets, of the ratio of CRPS to seasonal naive's.

    Each data set is drawn anew from its own units; those of too few count at their value.
    """
    return _skill([_log_ratios(scores, forecaster, seed + n) for n, scores in enumerate(several)])


@dataclass(frozen=True)
class _LogRatios:
    value: float
    draws: Floats | None
    """Shape `(draw,)`; None where there are too few units. NaN where nothing can be compared."""


def _skill(ratios: Sequence[_LogRatios]) -> Skill:
    value = float(np.mean([ratio.value for ratio in ratios]))
    if all(ratio.draws is None for ratio in ratios):
        return Skill(1 - np.exp(value), float("nan"), float("nan"))
    draws = np.zeros(NUM_DRAWS)
    for ratio in ratios:
        draws += ratio.value if ratio.draws is None else ratio.draws
    draws = np.exp(draws[~np.isnan(draws)] / len(ratios))
    if not len(draws):
        return Skill(1 - np.exp(value), float("nan"), float("nan"))
    low, high = 1 - np.quantile(draws, INTERVAL)[::-1]
    return Skill(1 - np.exp(value), float(low), float(high))


def _log_ratios(scores: Scores, forecaster: str, seed: int) -> _LogRatios:
    """Logarithms of the ratio of losses, on the windows that both answered."""
    losses, reference = scores.losses(forecaster), scores.losses(REFERENCE)
    paired = np.isfinite(losses) & np.isfinite(reference)
    if not paired.any():
        return _LogRatios(float("nan"), None)
    _, units = np.unique(scores.series_numbers()[paired], return_inverse=True)
    if units.max() + 1 < LEAST_UNITS:
        units = np.arange(len(units))
    num_units = int(units.max()) + 1
    own, other = (
        np.bincount(units, part[paired], num_units).astype(np.float64)
        for part in (losses, reference)
    )
    value = float(_log_ratio(own.sum(), other.sum()))
    if num_units < LEAST_UNITS:
        return _LogRatios(value, None)
    return _LogRatios(value, np.concatenate(list(_draws(own, other, seed))))


def _draws(own: Floats, other: Floats, seed: int) -> Iterator[Floats]:
    """Log ratios of redrawn units, some draws at a time: there may be a great many units."""
    rng, num_units = np.random.default_rng(seed), len(own)
    for _ in range(NUM_DRAWS // DRAWS_AT_A_TIME):
        drawn = rng.multinomial(num_units, np.full(num_units, 1 / num_units), size=DRAWS_AT_A_TIME)
        counts = drawn.astype(np.float64)
        yield _log_ratio(counts @ own, counts @ other)


def _log_ratio(own: Floats, other: Floats) -> Floats:
    """Minus infinity for a perfect forecast, NaN where there is nothing to compare with."""
    ratio = np.divide(own, other, out=np.full_like(other, np.nan), where=other > 0)
    with np.errstate(divide="ignore"):
        return np.log(ratio)


def compare(scores: Scores) -> pd.DataFrame:
    """The table of one data set, with each forecaster's skill, its interval and verdict."""
    table = scores.table()
    found = {name: skill(scores, name) for name in table.index}
    place = list(table.columns).index("CRPS") + 1
    table.insert(place, "skill", [found[name].value for name in table.index])
    table.insert(place + 1, "skill low", [found[name].low for name in table.index])
    table.insert(place + 2, "skill high", [found[name].high for name in table.index])
    verdicts = ["" if name == REFERENCE else found[name].verdict for name in table.index]
    table.insert(place + 3, "verdict", verdicts)
    return table


def check_names(several: Sequence[Scores]) -> None:
    """Refuse scores that could not be told apart.

    Raises:
        DataError: if two have one name.
    """
    counted = Counter(scores.name for scores in several)
    name, number = counted.most_common(1)[0] if counted else ("", 0)
    if number > 1:
        raise DataError(
            f"{number} scores are called {name!r}; name them by backtest(..., name=...)"
        )


def summarise(several: Sequence[Scores]) -> pd.DataFrame:
    """A row for each forecaster over all data sets that it was asked on, best first.

    Geometric means of its ratios to seasonal naive, their skill with its interval, its rank by CRPS
    among the forecasters averaged over data sets, and on how many it is better or worse than
    seasonal naive by more than luck.
    """
    check_names(several)
    tables = {scores.name: compare(scores) for scores in several}
    # By ratios: a forecaster that failed on some windows has a CRPS of other windows.
    ratios = {name: table["CRPS ratio"] for name, table in tables.items()}
    ranks = pd.DataFrame({name: part.rank(na_option="bottom") for name, part in ratios.items()})
    rows = {}
    for forecaster in dict.fromkeys(name for table in tables.values() for name in table.index):
        asked = [scores for scores in several if forecaster in scores.answers]
        own = pd.DataFrame([tables[scores.name].loc[forecaster] for scores in asked])
        overall = overall_skill(asked, forecaster)
        verdicts = own["verdict"]
        rows[forecaster] = {
            "data sets": len(asked),
            "CRPS ratio": _geometric_mean(own["CRPS ratio"]),
            "skill": overall.value,
            "skill low": overall.low,
            "skill high": overall.high,
            "MASE ratio": _geometric_mean(own["MASE ratio"]),
            "rank": ranks.loc[forecaster].mean(),
            "better on": int((verdicts == "better").sum()),
            "worse on": int((verdicts == "worse").sum()),
            "failed": int(own["failed"].sum()),
            "seconds": own["seconds"].sum(),
        }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")
    return table.sort_values("CRPS ratio", kind="stable")


def _geometric_mean(ratios: pd.Series[float]) -> float:
    """NaN as soon as one is: a mean over fewer data sets is another mean."""
    return float(np.exp(np.log(ratios.to_numpy(dtype=np.float64)).mean()))
