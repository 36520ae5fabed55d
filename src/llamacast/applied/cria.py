"""Cria on panels: ends of series cut, the network asked, answers put together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from llamacast.applied.hindsight import Hindsight, Piece
from llamacast.applied.request import Request
from llamacast.attention import Attention
from llamacast.data.covariates import CovariateInputs, last_covariates
from llamacast.data.panel import Panel
from llamacast.data.windows import Origins, check_known, last_values
from llamacast.model.cria import Cria
from llamacast.sampling.hindcast import hindcast_patches
from llamacast.sampling.one_pass import (
    Rows,
    evenly_spaced,
    forecast_quantiles,
    paths_through,
    plan_rows,
)
from llamacast.sampling.progress import shown
from llamacast.sampling.reading import Reading, attend_patches, read_patches
from llamacast.sampling.threads import considerate_threads, share_out

Floats = npt.NDArray[np.float64]

# Windows that are looked back on together.
WINDOWS_TOGETHER = 8


class AppliedCria:
    """What Cria says of panels: all quantiles in one pass, and paths that run through them."""

    def __init__(self, model: Cria, inputs: CovariateInputs | None = None) -> None:
        self.model, self.inputs = model, inputs

    def sample(self, request: Request) -> Floats:
        check_known(request.panel, request.context_length)
        lengths = [min(len(one), request.context_length) for one in request.panel.values]
        device = self.model.levels.device
        parts, most = plan_rows(
            lengths,
            request.horizon,
            request.num_samples,
            self.model.config,
            device.type == "cpu",
            request.memory_bytes,
        )
        samples = np.empty((len(lengths), request.num_samples, request.horizon))
        with considerate_threads(min(len(parts), most)) as num_threads:
            # Also where there is one part only, or rounding would tell how busy the machine was.
            torch.set_num_threads(1)
            told = share_out(lambda rows: self._tell(request, rows), parts, num_threads)
            for rows, paths in shown(told, len(parts), request.progress):
                samples[rows.series] = paths.numpy()
        return samples

    def _tell(self, request: Request, rows: Rows) -> Tensor:
        """Samples of some series."""
        values, observed, seasons = last_values(request.panel, rows.series, request.context_length)
        beside = None
        if self.inputs is not None:
            sizes = values.shape[1], request.horizon
            told = last_covariates(request.panel, rows.series, *sizes, self.inputs)
            beside = torch.from_numpy(told)
        answer = forecast_quantiles(
            self.model,
            torch.from_numpy(values),
            torch.from_numpy(observed),
            torch.from_numpy(seasons),
            request.horizon,
            beside,
        )
        if request.strays is not None:
            for one, number in zip(rows.series, answer.num_strays.tolist(), strict=True):
                if number:
                    request.strays[request.panel.ids[one]] = number
        if request.joint:
            uniforms = request.uniforms(rows.series, slice(None))
            paths = paths_through(answer, uniforms)
        else:
            paths = evenly_spaced(answer, request.num_samples)
        return request.clamp(paths) if request.clamp else paths

    def read(self, panel: Panel, context_length: int | None = None) -> Iterator[Reading]:
        """What the network makes of each series' context, some series at a time."""
        with considerate_threads():
            for first in range(0, len(panel), WINDOWS_TOGETHER):
                last = min(first + WINDOWS_TOGETHER, len(panel))
                ends = self._context(panel, np.arange(first, last), context_length)
                yield read_patches(self.model, *ends)

    def _context(
        self, panel: Panel, series: npt.NDArray[np.int64], context_length: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        ends = last_values(panel, series, context_length or self.model.config.context_length)
        values, observed, seasons = (torch.from_numpy(part) for part in ends)
        return values, observed, seasons

    def attend(self, panel: Panel) -> Attention:
        """What a forecast of the next patch of each series draws on."""
        history, tokens, weights, importance = [], [], [], []
        with considerate_threads():
            for number, (values, axis) in enumerate(zip(panel.values, panel.axes, strict=True)):
                found = attend_patches(self.model, *self._context(panel, np.array([number])))
                patch, count = self.model.config.patch_length, found.weights.shape[2]
                shown = min(len(values), count * patch)
                index = axis.index(len(values) - shown, shown)
                ends = index[::-1][::patch][::-1]
                history.append(pd.Series(values[-shown:], index))
                tokens.append(ends)
                weights.append(found.weights.double().numpy())
                importance.append(pd.Series(found.importance.double().numpy(), ends))
        return Attention(panel.ids, history, tokens, weights, importance, "patches")

    def hindcast(self, panel: Panel, progress: bool | None = None) -> Hindsight:
        """What would have been said of each step, from the steps before it."""
        with considerate_threads():
            work = list(_stretches(panel, self.model.config.context_length))
            told = (self._hindcast(*one) for one in work)
            pieces = list(shown(told, len(work), progress, "Looking back"))
        return Hindsight([len(values) for values in panel.values], pieces)

    def _hindcast(self, ends: Origins, num_steps: int) -> Piece:
        """Of the last steps of some windows."""
        known, longest = ends.histories(slice(None)), self.model.config.context_length
        values, observed, seasons = last_values(known, np.arange(len(known)), longest)
        found = hindcast_patches(
            self.model,
            torch.from_numpy(values),
            torch.from_numpy(observed),
            torch.from_numpy(seasons),
            num_steps,
        )
        return Piece(ends.series, ends.cuts - num_steps, num_steps, found)


def _stretches(panel: Panel, longest: int) -> Iterator[tuple[Origins, int]]:
    """Windows that cover each series, with how many of their last steps: a whole window first, then
    those whose second half is new."""
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for number, values in enumerate(panel.values):
        done = 0
        while done < len(values):
            end = min(len(values), longest if done == 0 else done + longest // 2)
            found.setdefault((min(end, longest), end - done), []).append((number, end))
            done = end
    for (_, num_steps), places in found.items():
        for begin in range(0, len(places), WINDOWS_TOGETHER):
            series, cuts = np.array(places[begin : begin + WINDOWS_TOGETHER]).T
            yield Origins(panel, series, cuts, 1), num_steps
