"""A regression on a frozen network's hidden vectors that mends its medians: the cheapest fine-tuning."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from llamacast.applied.request import Applied, Request, Wrapped
from llamacast.data.panel import Panel
from llamacast.forecast import CheckpointError

Floats = npt.NDArray[np.float64]

FILE = "features.safetensors"
# Errors beyond so many widths of the 80 % interval count as that many.
LARGEST_ERROR = 3.0
# Samples without which no width is told; where fewer are wanted, so many are asked for beside them.
FEWEST_FOR_WIDTH = 20


@dataclass(frozen=True)
class FeatureHead:
    """Predicted errors of the medians, in widths of the 80 % interval: linear in hidden vectors."""

    mean: Floats
    """Of hidden vectors, `(width,)`."""
    coefficients: Floats
    """Shape `(width, horizon)`."""
    intercept: Floats
    """Shape `(horizon,)`."""

    @property
    def horizon(self) -> int:
        return len(self.intercept)

    def errors(self, hidden: Floats, horizon: int) -> Floats:
        """Shape `(series, horizon)`; 0 beyond the horizon that was learnt."""
        told = (hidden - self.mean) @ self.coefficients + self.intercept
        found = np.zeros((len(hidden), horizon))
        found[:, : self.horizon] = told[:, :horizon].clip(-LARGEST_ERROR, LARGEST_ERROR)
        return found

    def scaled(self, share: float) -> FeatureHead:
        return FeatureHead(self.mean, self.coefficients * share, self.intercept * share)

    @property
    def digest(self) -> str:
        """A short text that tells it from any other."""
        parts = (self.mean, self.coefficients, self.intercept)
        told = b"".join(np.ascontiguousarray(part).tobytes() for part in parts)
        return hashlib.blake2b(told, digest_size=4).hexdigest()

    def save(self, directory: Path) -> None:
        parts = {"mean": self.mean, "coefficients": self.coefficients, "intercept": self.intercept}
        save_file(parts, directory / FILE)

    @staticmethod
    def load(directory: Path) -> FeatureHead | None:
        """That of a folder, if it has one.

        Raises:
            CheckpointError: if the file is damaged.
        """
        path = directory / FILE
        if not path.exists():
            return None
        try:
            return FeatureHead(**load_file(path))
        except (OSError, SafetensorError, TypeError) as error:
            raise CheckpointError(f"{path}: cannot be read ({error})") from error


@dataclass(frozen=True)
class Mended(Wrapped):
    """A network whose samples are moved by a head's errors."""

    head: FeatureHead

    def sample(self, request: Request) -> Floats:
        samples = self.network.sample(request)
        hidden = newest(self.network, request.panel, request.context_length)
        wide = samples
        if request.num_samples < FEWEST_FOR_WIDTH:
            wide = self.network.sample(replace(request, num_samples=FEWEST_FOR_WIDTH, joint=False))
        moved = torch.from_numpy(samples + moves(wide, self.head, hidden))
        return (request.clamp(moved) if request.clamp else moved).numpy()


def moves(samples: Floats, head: FeatureHead, hidden: Floats) -> Floats:
    """By how much samples move, `(series, 1, horizon)`."""
    low, high = np.quantile(samples, (0.1, 0.9), axis=1)
    return ((high - low) * head.errors(hidden, samples.shape[2]))[:, None]


def newest(network: Applied, panel: Panel, context_length: int) -> Floats:
    """The newest hidden vector of each series, from so many of its last steps."""
    told = network.read(panel, context_length)
    return np.concatenate([one.newest.double().numpy() for one in told])
