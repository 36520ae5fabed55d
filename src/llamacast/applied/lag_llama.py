"""Lag-Llama on panels: windows cut, the network asked, answers put together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from llamacast.applied.hindsight import Hindsight, Piece
from llamacast.applied.request import Request
from llamacast.attention import Attention
from llamacast.data.covariates import CovariateInputs, last_covariates
from llamacast.data.panel import Panel
from llamacast.data.windows import Origins, check_known, last_windows
from llamacast.model.lag_llama import LagLlama
from llamacast.sampling.engine import Part, plan, sample_paths
from llamacast.sampling.hindcast import hindcast_values
from llamacast.sampling.progress import shown
from llamacast.sampling.reading import Reading, attend_values, read_values
from llamacast.sampling.threads import considerate_threads, share_out

Floats = npt.NDArray[np.float64]

# Hindcasts of a series begin here, in ever longer stretches: each is scaled by what is before it.
FIRST_STRETCH = 8
# Windows that go through the network together.
WINDOWS_TOGETHER = 16


class AppliedLagLlama:
    """What Lag-Llama says of panels: paths sampled step by step."""

    def __init__(self, model: LagLlama, inputs: CovariateInputs | None = None) -> None:
        self.model, self.inputs = model, inputs

    def sample(self, request: Request) -> Floats:
        check_known(request.panel, self.model.config.max_lag + request.context_length)
        samples = np.empty((len(request.panel), request.num_samples, request.horizon))
        parts, most = plan(
            self.model,
            len(request.panel),
            request.num_samples,
            request.context_length,
            request.horizon,
            request.memory_bytes,
            request.joint,
        )
        with considerate_threads() as num_threads:
            # One part alone shares out its samples.
            within = num_threads if len(parts) == 1 else 1
            drawn = share_out(
                lambda part: self._draw(request, part, within), parts, min(num_threads, most)
            )
            for part, paths in shown(drawn, len(parts), request.progress):
                samples[part.series, part.samples] = paths.numpy()
        return samples

    def _draw(self, request: Request, part: Part, num_threads: int) -> Tensor:
        """Cut the last windows of some series and sample their futures."""
        context_length = request.context_length
        history_length = self.model.config.max_lag + context_length
        windows = last_windows(
            request.panel, part.series, history_length, context_length, request.horizon
        )
        return sample_paths(
            self.model,
            torch.from_numpy(windows.values),
            torch.from_numpy(windows.observed),
            self._told(windows.calendar, request, part.series),
            request.uniforms(range(len(request.panel))[part.series], part.samples),
            request.clamp,
            num_threads,
            request.joint,
        )

    def _told(
        self,
        calendar: npt.NDArray[np.float32],
        request: Request | None = None,
        series: slice = slice(None),
    ) -> Tensor:
        """The calendar and, behind it, covariates; as usual where nothing is asked of a future."""
        found = torch.from_numpy(calendar)
        if self.inputs is None:
            return found
        if request is None:
            return functional.pad(found, (0, len(self.inputs.names)))
        numbers = np.arange(len(request.panel))[series]
        sizes = request.context_length, request.horizon
        beside = last_covariates(request.panel, numbers, *sizes, self.inputs)
        return torch.cat([found, torch.from_numpy(beside)], dim=2)

    def read(self, panel: Panel, context_length: int | None = None) -> Iterator[Reading]:
        """What the network makes of each series' context, some series at a time."""
        with considerate_threads():
            for first in range(0, len(panel), WINDOWS_TOGETHER):
                ends = self._context(panel, first, WINDOWS_TOGETHER, context_length)
                yield read_values(self.model, *ends)

    def _context(
        self, panel: Panel, first: int, count: int, context_length: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        context_length = context_length or self.model.config.context_length
        history = self.model.config.max_lag + context_length
        windows = last_windows(panel, slice(first, first + count), history, context_length, 1)
        values, observed = torch.from_numpy(windows.values), torch.from_numpy(windows.observed)
        return values, observed, self._told(windows.calendar)

    def attend(self, panel: Panel) -> Attention:
        """What a forecast of the next step of each series draws on."""
        found, steps = [], np.array(self.model.config.lags) + 1
        with considerate_threads():
            for number in range(len(panel)):
                found.append(attend_values(self.model, *self._context(panel, number, 1)))
        lengths = [min(len(one), self.model.config.context_length) for one in panel.values]
        indices = [
            axis.index(len(values) - length, length)
            for axis, values, length in zip(panel.axes, panel.values, lengths, strict=True)
        ]
        return Attention(
            ids=panel.ids,
            history=[
                pd.Series(values[-length:], index)
                for values, length, index in zip(panel.values, lengths, indices, strict=True)
            ],
            tokens=indices,
            # Tokens before a series begins are not shown, whatever attention they have.
            weights=[
                one.weights[..., -length:].double().numpy()
                for one, length in zip(found, lengths, strict=True)
            ],
            importance=[pd.Series(one.importance.double().numpy(), steps) for one in found],
            parts="lags",
        )

    def hindcast(self, panel: Panel, progress: bool | None = None) -> Hindsight:
        """What would have been said of each step, from the steps before it."""
        with considerate_threads():
            work = list(_stretches(panel, self.model.config.context_length // 2))
            told = (self._hindcast(one) for one in work)
            pieces = list(shown(told, len(work), progress, "Looking back"))
        return Hindsight([len(values) for values in panel.values], pieces)

    def _hindcast(self, stretches: Origins) -> Piece:
        context_length, num_steps = self.model.config.context_length, stretches.horizon
        whole = Origins(stretches.panel, stretches.series, stretches.cuts + num_steps, 1)
        past, all_known = stretches.histories(slice(None)), whole.histories(slice(None))
        every, history = slice(0, len(past)), self.model.config.max_lag + context_length
        known = last_windows(all_known, every, history + num_steps, 1, 1)
        calendar = last_windows(past, every, history, context_length, num_steps).calendar
        found = hindcast_values(
            self.model,
            torch.from_numpy(known.values),
            torch.from_numpy(known.observed),
            self._told(calendar),
            num_steps,
        )
        return Piece(stretches.series, stretches.cuts, num_steps, found)


def _stretches(panel: Panel, longest: int) -> Iterator[Origins]:
    """All steps of each series but the first, in stretches of like length."""
    found: dict[int, list[tuple[int, int]]] = {}
    for number, values in enumerate(panel.values):
        first = FIRST_STRETCH
        while first < len(values):
            length = min(first, longest, len(values) - first)
            found.setdefault(length, []).append((number, first))
            first += length
    for length, places in found.items():
        for begin in range(0, len(places), WINDOWS_TOGETHER):
            series, cuts = np.array(places[begin : begin + WINDOWS_TOGETHER]).T
            yield Origins(panel, series, cuts, length)
