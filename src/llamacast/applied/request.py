"""What is asked of a network, and parts of it shown as they are done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from llamacast.applied.hindsight import Hindsight
from llamacast.attention import Attention
from llamacast.data.panel import Panel
from llamacast.sampling.engine import Clamp
from llamacast.sampling.reading import Reading
from llamacast.sampling.streams import uniforms

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Request:
    """What is asked of a forecast, checked."""

    panel: Panel
    horizon: int
    num_samples: int
    context_length: int
    seed: int
    clamp: Clamp | None
    joint: bool
    memory_bytes: int
    progress: bool | None
    used: list[str] | None = None
    """Where it is told which regression on covariates each series' forecast has in it."""
    strays: dict[Any, int] | None = None
    """Where it is told how many values of a series, by its name, were taken as missing."""

    def uniforms(self, series: Iterable[int], samples: slice) -> Tensor:
        """The random numbers of some series' paths."""
        names = [str(self.panel.ids[one]) for one in series]
        return uniforms(names, self.seed, self.num_samples, self.horizon)[:, samples]


class Applied(Protocol):
    """A network, ready for panels."""

    def sample(self, request: Request) -> Floats:
        """Samples of each series, `(series, sample, horizon)`."""
        ...

    def read(self, panel: Panel, context_length: int | None = None) -> Iterator[Reading]:
        """What the network makes of each series' context (None: as long as its own), some series at a
        time."""
        ...

    def attend(self, panel: Panel) -> Attention:
        """What a forecast of what comes next draws on."""
        ...

    def hindcast(self, panel: Panel, progress: bool | None = None) -> Hindsight:
        """What would have been said of each step, from the steps before it."""
        ...


@dataclass(frozen=True)
class Wrapped:
    """A network with something beside it that alters its samples, and nothing else."""

    network: Applied

    def read(self, panel: Panel, context_length: int | None = None) -> Iterator[Reading]:
        return self.network.read(panel, context_length)

    def attend(self, panel: Panel) -> Attention:
        return self.network.attend(panel)

    def hindcast(self, panel: Panel, progress: bool | None = None) -> Hindsight:
        return self.network.hindcast(panel, progress)
