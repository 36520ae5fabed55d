"""Random numbers that belong to a series: the same alone or in a batch, on any device."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from llamacast.model.heads import NUM_UNIFORMS


def uniforms(
    names: Sequence[str], seed: int, num_samples: int, horizon: int
) -> Float[Tensor, "series sample horizon 2"]:
    """Uniform numbers in (0, 1) for each series' draws, from `seed` and the series' name alone.

    Those of a shorter horizon are the first ones of a longer horizon.
    """
    shape = (horizon, num_samples, NUM_UNIFORMS)
    drawn = np.stack([_generator(name, seed).random(shape, dtype=np.float64) for name in names])
    # Zero has no logarithm; nearest to it, float32 keeps tails that float64 drew.
    positive = np.maximum(drawn.astype(np.float32), np.finfo(np.float32).tiny)
    return torch.from_numpy(positive).transpose(1, 2)


def _generator(name: str, seed: int) -> np.random.Generator:
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
