"""How well a network forecasts what it does not learn from, told while it learns."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from llamacast.data.calendar import season_length
from llamacast.data.corpora import Corpus, Mixture
from llamacast.data.windows import Draws, WindowShape, draw_windows
from llamacast.model.config import LagLlamaConfig, NetworkConfig
from llamacast.model.scaling import location_and_scale
from llamacast.training.objectives import Objective
from llamacast.training.windows import CorpusOnDevice

HORIZON = 24
NUM_WINDOWS = 128
# No window says more than that, whatever its seasonal naive.
SMALLEST_SCORE, LARGEST_SCORE = 0.01, 10.0


def num_origins(
    corpus: Corpus, begins: Shaped[np.ndarray, " series"]
) -> Shaped[np.ndarray, " series"]:
    """From how many steps of each series that are not trained on a whole horizon can be forecast."""
    left = np.maximum(corpus.lengths - HORIZON + 1 - begins, 0)
    return np.where(corpus.moves, left, 0)


def forecast_shape(model: NetworkConfig, horizon: int) -> WindowShape:
    """Windows in which a network forecasts from its usual context."""
    return WindowShape(model.history_length, horizon, model.context_length + horizon)


def draw_held_back(
    corpus: Corpus,
    mixture: Mixture,
    begins: np.ndarray,
    shape: WindowShape,
    seed: int,
    num_windows: int = NUM_WINDOWS,
) -> Draws:
    """Random origins from `begins`, the first step of each series that is not trained on.

    Raises:
        DataError: if no series has 8 origins (see `num_origins`).
    """
    ends = np.maximum(corpus.lengths - HORIZON + 1, 0)
    chances = corpus.probabilities(mixture, num_origins(corpus, begins), 1)
    rng = np.random.default_rng((seed, 2**32 - 1))
    return draw_windows(rng, chances, begins, ends, num_windows, shape)


class HeldBack:
    """The same windows of what was held back, forecast each time one asks.

    They lie on the CPU, where their scores are taken in float64, which not every device has.
    """

    def __init__(
        self,
        corpus: Corpus,
        on_device: CorpusOnDevice,
        draws: Draws,
        shape: WindowShape,
        seed: int,
    ) -> None:
        self.horizon, self.seed = shape.horizon, seed
        self.windows = on_device.cut(draws, shape).to(torch.device("cpu"))
        past = self.windows.values[:, : -self.horizon]
        seen = self.windows.observed[:, : -self.horizon]
        known = [corpus.frequencies[number] for number in draws.series]
        seasons = torch.tensor([season_length(one) if one else 1 for one in known])
        errors = mean_seasonal_error(past, seen, seasons)
        # Where seasonal naive has been perfect, or a history is shorter than a season.
        scale = location_and_scale(past.double(), seen, LagLlamaConfig())[1].squeeze(1)
        self.error_before = torch.where(errors > 0, errors, scale)

    def scores(self, objective: Objective) -> Float[Tensor, " window"]:
        """CRPS of each window over the mean error of seasonal naive in its history, in 0.01 to 10; NaN
        where nothing was observed after its origin."""
        windows = self.windows
        objective.eval()
        paths = objective.forecast(windows, self.horizon, self.seed)
        actual = windows.values[:, -self.horizon :].double()
        seen = windows.observed[:, -self.horizon :]
        found = sample_crps(paths, actual)
        scaled = (found * seen).sum(dim=1) / seen.sum(dim=1).clamp(min=1) / self.error_before
        scaled = scaled.clamp(SMALLEST_SCORE, LARGEST_SCORE)
        return scaled.masked_fill(~seen.any(dim=1), torch.nan)

    def crps(self, objective: Objective) -> float:
        """Geometric mean of the scores of windows: a few on which seasonal naive happens to be nearly
        perfect must not be all that counts."""
        return float(self.scores(objective).log().nanmean().exp())


def sample_crps(
    samples: Float[Tensor, "window sample step"], actual: Float[Tensor, "window step"]
) -> Float[Tensor, "window step"]:
    """CRPS of an empirical distribution: E|X - y| - E|X - X'| / 2, from sorted samples."""
    ordered = samples.sort(dim=1).values
    count = samples.shape[1]
    ranks = torch.arange(1, count + 1, device=samples.device, dtype=samples.dtype)
    weights = (2 * ranks - count - 1) / count**2
    spread = (ordered * weights[None, :, None]).sum(dim=1)
    return (samples - actual[:, None]).abs().mean(dim=1) - spread


def mean_seasonal_error(
    values: Float[Tensor, "window time"],
    observed: Bool[Tensor, "window time"],
    seasons: Int[Tensor, " window"],
) -> Float[Tensor, " window"]:
    """Mean absolute difference from one season before, over what is observed; NaN if nothing is."""
    steps = torch.arange(values.shape[1], device=values.device) - seasons[:, None]
    back = steps.clamp(min=0)
    both = observed & observed.gather(1, back) & (steps >= 0)
    errors = (values - values.gather(1, back)).abs().double()
    return (errors * both).sum(dim=1) / both.sum(dim=1)
