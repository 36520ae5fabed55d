"""Forecasts that covariates explain a part of: a regression beside a network that knows none.

A ridge regression, fitted on each series' history (or on all series together), tells what covariates
do; the network forecasts what is left; both are added up, with the uncertainty of both. Whether that
is better, and with which regression, is found on the last windows of the history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from llamacast.applied.regression import Design, Effects, fit_alone, fit_together
from llamacast.applied.request import Applied, Request, Wrapped
from llamacast.applied.scores import crps, surely, usual_step
from llamacast.data.calendar import season_candidates
from llamacast.data.panel import Panel
from llamacast.data.windows import Origins, evenly
from llamacast.sampling.streams import generator

Floats = npt.NDArray[np.float64]

# Windows of each series, one horizon apart, that a choice is made by; and of all series.
MOST_ORIGINS, MOST_WINDOWS = 4, 400
# Of a column that is mostly 0, such as a holiday's, the largest share of other values.
RARE_SHARE = 0.1
# No window begins in the first part of a series, or after next to nothing.
FIRST_SHARE, FEWEST_KNOWN = 0.4, 4
NUM_SAMPLES = 49
# Windows that a series' own gain is believed by half, against that of all series.
WINDOWS_ASSUMED = 6
# Gains in CRPS below this share are not worth a regression.
SMALLEST_GAIN = 0.01
# In usual steps: never nothing, so that it has a logarithm.
SMALLEST_SCORE = 1e-3


@dataclass(frozen=True)
class WithCovariates(Wrapped):
    """A network, and a regression on what lies beside the values of a panel."""

    def sample(self, request: Request) -> Floats:
        """Samples of each series; `used` of the request is told which regressions are in them."""
        panel = request.panel
        if panel.covariates is None or not panel.covariates.names:
            return self.network.sample(request)
        chosen = choose(self.network, request)
        if request.used is not None:
            request.used.extend(chosen)
        if not any(chosen):
            return self.network.sample(request)
        designs = _designs(panel, request.horizon)
        effects = {name: _effects(designs, name) for name in dict.fromkeys(chosen) if name}
        own = [
            effects[name][number] if name else Effects.none(len(values), request.horizon)
            for number, (name, values) in enumerate(zip(chosen, panel.values, strict=True))
        ]
        rest = _without(panel, own)
        samples = self.network.sample(replace(request, panel=rest, clamp=None))
        for number, one in enumerate(own):
            rng = generator(f"covariates of {panel.ids[number]}", request.seed)
            drawn = one.draw(request.num_samples if request.joint else 1, rng, request.joint)
            samples[number] += drawn[:, : request.horizon]
        if request.clamp is None:
            return samples
        return request.clamp(torch.from_numpy(samples)).numpy()


CANDIDATES = ("levels", "changes", "seasons", "together")
"""Regressions of each series' values beside its season and trend, of its changes from step to step, of
those from season to season, and of changes of all series together."""


def choose(network: Applied, request: Request) -> list[str]:
    """For each series the regression that has helped on the last windows, or "" for none."""
    panel, horizon = request.panel, request.horizon
    origins = _origins(panel, horizon)
    origins = origins.choose(origins.known_within(request.context_length))
    if not len(origins):
        return [""] * len(panel)
    histories, actuals = origins.histories(slice(None)), origins.actuals()
    ask = partial(
        replace,
        request,
        num_samples=NUM_SAMPLES,
        clamp=None,
        joint=False,
        progress=False,
        used=None,
        strays=None,
    )
    scales = np.array([usual_step(values) for values in histories.values])
    plain = np.maximum(crps(network.sample(ask(panel=histories)), actuals, scales), SMALLEST_SCORE)
    designs, gains = _designs(histories, horizon), {}
    for name in CANDIDATES:
        effects = _effects_of_windows(designs, name, origins)
        samples = network.sample(ask(panel=_without(histories, effects)))
        told = np.stack([one.mean[-horizon:] for one in effects])
        scores = np.maximum(crps(samples + told[:, None], actuals, scales), SMALLEST_SCORE)
        gains[name] = np.log(scores / plain)
    return [_best(gains, origins.series == number) for number in range(len(panel))]


def _effects_of_windows(designs: Sequence[Design], name: str, origins: Origins) -> list[Effects]:
    """Of each window, from the windows of all series that end as far back: those that end later hold what
    it is judged by."""
    ends = np.array([len(origins.panel.values[number]) for number in origins.series])
    backs = ends - origins.cuts
    found: dict[int, Effects] = {}
    for back in np.unique(backs):
        rows = np.flatnonzero(backs == back).tolist()
        found |= zip(rows, _effects([designs[row] for row in rows], name), strict=True)
    return [found[row] for row in range(len(designs))]


def _best(gains: dict[str, Floats], own: npt.NDArray[np.bool_]) -> str:
    """By a series' own windows and, the fewer these are, by those of all series."""
    weight = own.sum() / (own.sum() + WINDOWS_ASSUMED)
    found = {
        name: weight * (np.nanmean(gain[own]) if own.any() else 0.0) + (1 - weight) * surely(gain)
        for name, gain in gains.items()
    }
    name = min(found, key=lambda one: found[one])
    return name if found[name] < -SMALLEST_GAIN else ""


def _origins(panel: Panel, horizon: int) -> Origins:
    assert panel.covariates is not None
    series, cuts = [], []
    each = max(1, min(MOST_ORIGINS, MOST_WINDOWS // len(panel)))
    for number, (values, beside) in enumerate(
        zip(panel.values, panel.covariates.values, strict=True)
    ):
        known = np.isfinite(values)
        for back in _backs(beside, len(values), horizon, each):
            cut = len(values) - back * horizon
            if known[:cut].sum() > FEWEST_KNOWN and known[cut : cut + horizon].any():
                series.append(number)
                cuts.append(cut)
    kept = evenly(len(series), MOST_WINDOWS)
    numbers, places = (np.array(part, dtype=np.int64)[kept] for part in (series, cuts))
    return Origins(panel, numbers, places, horizon)


def _backs(beside: Floats, length: int, horizon: int, each: int) -> list[int]:
    """How many horizons before the end of a series the windows begin that judge its covariates.

    The last ones; but where something rare is to come that none of these has seen, a holiday, half of
    them are the last that have.
    """
    room = int((length - max(horizon, FIRST_SHARE * length)) // horizon)
    chosen = list(range(1, min(each, room) + 1))
    there = np.nan_to_num(beside) != 0
    to_come = there[length : length + horizon].any(axis=0)
    to_come &= there[:length].mean(axis=0) <= RARE_SHARE
    has = [
        bool(there[length - back * horizon :][:horizon, to_come].any())
        for back in range(1, room + 1)
    ]
    if not any(has[: len(chosen)]):
        alike = [back for back, one in enumerate(has, start=1) if one][: max(1, each // 2)]
        chosen = [*chosen[: each - len(alike)], *alike]
    return sorted(chosen, reverse=True)


def _effects(designs: Sequence[Design], name: str) -> list[Effects]:
    """What covariates do to each series, by the regression of that name."""
    if name == "together":
        return fit_together(designs)
    return [fit_alone(design, name) for design in designs]


def _designs(panel: Panel, horizon: int) -> list[Design]:
    assert panel.covariates is not None
    ahead = panel.covariates.ahead
    return [
        Design(values, known[: len(values) + horizon], ahead, season_candidates(axis.frequency)[0])
        for values, axis, known in zip(
            panel.values, panel.axes, panel.covariates.values, strict=True
        )
    ]


def _without(panel: Panel, effects: Sequence[Effects]) -> Panel:
    values = [own - one.mean[: len(own)] for own, one in zip(panel.values, effects, strict=True)]
    return replace(panel, values=values, covariates=None)
