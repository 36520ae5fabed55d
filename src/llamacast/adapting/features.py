"""Learn the regression of `applied/features.py`: from a frozen network's hidden vectors to its errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import RidgeCV

from llamacast.applied.features import LARGEST_ERROR, FeatureHead, moves, newest
from llamacast.applied.request import Applied, Request
from llamacast.applied.scores import crps, surely, usual_step
from llamacast.data.panel import Panel
from llamacast.data.windows import SHORTEST_HISTORY, Origins, evenly
from llamacast.forecast import Verdict
from llamacast.training.finetune import Split

Floats = npt.NDArray[np.float64]

# Origins to learn from, of all series together.
MOST_ORIGINS = 600
ALPHAS = np.logspace(1, 6, 11)
SHARES = (0.25, 0.5, 0.75, 1.0)
NUM_SAMPLES = 49
MEMORY_BYTES = 256 * 2**20


def fit_head(
    network: Applied, panel: Panel, parts: Split, context_length: int, seed: int
) -> tuple[FeatureHead, Verdict]:
    """Learn a head from what the network says before the validation windows, and judge it by these.

    Of the whole effect and shares of it the one is taken that surely gains most; none if none does.
    """
    learnt = _origins(panel, parts)
    learnt = learnt.choose(learnt.known_within(context_length))
    told = _ask(network, learnt, context_length, seed)
    known = np.isfinite(told.errors).mean(axis=1) >= 0.5
    errors = np.nan_to_num(told.errors[known]).clip(-LARGEST_ERROR, LARGEST_ERROR)
    hidden = told.hidden[known]
    mean = hidden.mean(axis=0)
    ridge = RidgeCV(alphas=ALPHAS).fit(hidden - mean, errors)
    head = FeatureHead(
        mean,
        np.ascontiguousarray(np.atleast_2d(ridge.coef_).T),
        np.atleast_1d(ridge.intercept_),
    )
    ends = parts.ends[parts.series] + parts.places * parts.horizon
    checked = Origins(panel, parts.series, ends, parts.horizon)
    seen = checked.known_within(context_length)
    judged, places = _ask(network, checked.choose(seen), context_length, seed), parts.places[seen]
    before = judged.crps(None, places)
    found = [(0.0, 0.0, float(before.mean()))]
    for share in SHARES:
        scores = judged.crps(head.scaled(share), places)
        found.append((surely(np.log(scores / before)), share, float(scores.mean())))
    _, share, after = min(found)
    verdict = Verdict("features", float(before.mean()), after, share, 0, len(parts.series))
    return head.scaled(share), verdict


@dataclass(frozen=True)
class _Told:
    """What a network said at some origins, and what came."""

    samples: Floats
    hidden: Floats
    actuals: Floats
    scales: Floats
    """Mean absolute step of each history, `(window,)`."""

    @property
    def errors(self) -> Floats:
        """Of medians, in widths of the 80 % interval."""
        low, middle, high = np.quantile(self.samples, (0.1, 0.5, 0.9), axis=1)
        return (self.actuals - middle) / np.maximum(high - low, np.finfo(float).tiny)

    def crps(self, head: FeatureHead | None, places: npt.NDArray[np.int64]) -> Floats:
        """Of each origin's windows, in usual steps of their histories."""
        samples = self.samples
        if head is not None:
            samples = samples + moves(samples, head, self.hidden)
        found = crps(samples, self.actuals, self.scales)
        return np.array([np.nanmean(found[places == one]) for one in np.unique(places)])


def _origins(panel: Panel, parts: Split) -> Origins:
    """Evenly over what may be learnt from, as many for each series."""
    room = parts.ends - parts.horizon
    lowest = np.maximum(parts.firsts, np.minimum(room // 4, 2 * parts.horizon))
    lowest = np.maximum(lowest, SHORTEST_HISTORY)
    usable = np.flatnonzero(room > lowest)
    each = max(2, MOST_ORIGINS // max(1, len(usable)))
    series, cuts = [], []
    for number in usable[evenly(len(usable), MOST_ORIGINS // 2)]:
        found = np.unique(np.linspace(lowest[number], room[number], each).astype(np.int64))
        observed = np.isfinite(panel.values[number])
        found = found[[observed[:cut].sum() >= SHORTEST_HISTORY for cut in found]]
        series += [number] * len(found)
        cuts += found.tolist()
    return Origins(panel, np.array(series), np.array(cuts), parts.horizon)


def _ask(network: Applied, origins: Origins, context_length: int, seed: int) -> _Told:
    histories = origins.histories(slice(None))
    request = Request(
        histories,
        origins.horizon,
        NUM_SAMPLES,
        context_length,
        seed,
        None,
        True,
        MEMORY_BYTES,
        False,
    )
    scales = np.array([usual_step(one) for one in histories.values])
    samples = network.sample(request)
    hidden = newest(network, histories, context_length)
    return _Told(samples, hidden, origins.actuals(), scales)
