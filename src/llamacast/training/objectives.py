"""What networks are trained to do: from a batch to the sum of its losses, and forecasts to validate."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from llamacast.model.cria import Cria
from llamacast.model.lag_llama import LagLlama
from llamacast.sampling.engine import sample_paths
from llamacast.sampling.one_pass import forecast_quantiles
from llamacast.sampling.streams import uniforms
from llamacast.training.loop import Batch
from llamacast.training.windows import CutWindows

NUM_SAMPLES = 24


class NextValue(nn.Module):
    """Sum of the losses of the next value over the steps of a batch that count."""

    def __init__(self, network: LagLlama) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Batch) -> Tensor:
        losses, _ = self.network.loss(
            batch["values"],
            batch["observed"],
            batch["calendar"],
            int(batch["history_length"]),
            batch["noise"],
        )
        return losses[batch["counts"]].sum()

    def forecast(
        self, windows: CutWindows, horizon: int, seed: int
    ) -> Float[Tensor, "window sample horizon"]:
        """Sample paths of the last `horizon` steps of some windows, from what is before them."""
        names = [str(number) for number in range(len(windows.values))]
        return sample_paths(
            self.network,
            windows.values[:, :-horizon].double(),
            windows.observed[:, :-horizon],
            windows.told_of_steps if self.network.config.num_covariates else windows.calendar,
            uniforms(names, seed, NUM_SAMPLES, horizon),
        )


class NextPatch(nn.Module):
    """Sum of the losses of the steps of next patches that count."""

    def __init__(self, network: Cria) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Batch) -> Tensor:
        losses = self.network.loss(
            batch["values"],
            batch["shown"],
            batch["seasons"],
            batch.get("covariates"),
            batch["told_periods"],
        )
        return losses[batch["counts"]].sum()

    def forecast(
        self, windows: CutWindows, horizon: int, seed: int
    ) -> Float[Tensor, "window sample horizon"]:
        """Evenly spaced quantiles of the last `horizon` steps of some windows, in place of samples."""
        answer = forecast_quantiles(
            self.network,
            windows.values[:, :-horizon].double(),
            windows.observed[:, :-horizon],
            windows.seasons,
            horizon,
            windows.covariates if self.network.config.num_covariates else None,
        )
        levels = (torch.arange(NUM_SAMPLES) + 0.5) / NUM_SAMPLES
        return answer.quantiles.at(levels.double()).transpose(1, 2)


Objective = NextValue | NextPatch


def make_objective(network: LagLlama | Cria) -> Objective:
    return NextPatch(network) if isinstance(network, Cria) else NextValue(network)
