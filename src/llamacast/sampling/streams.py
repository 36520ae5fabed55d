"""Random numbers that belong to a series: the same alone or in a batch, on any device."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from llamacast.model.distributions import NUM_UNIFORMS

GOLDEN_RATIO = (5**0.5 - 1) / 2
"""Its multiples, less their whole parts, spread more evenly than those of any other number."""


def uniforms(
    names: Sequence[str], seed: int, num_samples: int, horizon: int
) -> Float[Tensor, "series sample horizon 2"]:
    """Uniform numbers in (0, 1) for each series' draws, from `seed` and the series' name alone.

    Those of a shorter horizon are the first ones of a longer horizon. Each sample's own numbers are
    independent and uniform, so each path is an exact draw. The samples of one step are spread
    evenly over the unit square (a rank-1 lattice, shifted and dealt out at random: L'Ecuyer and
    Lemieux 2000), so that quantiles are those of about twice as many independent samples.
    """
    drawn = np.stack([_lattices(generator(name, seed), num_samples, horizon) for name in names])
    # Zero has no logarithm, and one is no probability; in float32 either may be rounded to.
    bounds = np.finfo(np.float32).tiny, 1 - np.finfo(np.float32).epsneg
    return torch.from_numpy(drawn.astype(np.float32).clip(*bounds)).transpose(1, 2)


def _lattices(rng: np.random.Generator, num_samples: int, horizon: int) -> npt.NDArray[np.float64]:
    """For each step a lattice shifted and dealt out anew, shape `(horizon, sample, 2)`."""
    # Step by step from the stream, so that a longer horizon begins with a shorter one.
    random = rng.random((horizon, num_samples + NUM_UNIFORMS))
    shifts, keys = random[:, :NUM_UNIFORMS], random[:, NUM_UNIFORMS:]
    places = keys.argsort(axis=1)[..., None]
    points = places * [1 / num_samples, GOLDEN_RATIO] + shifts[:, None]
    points -= np.floor(points)
    return points


def generator(name: str, seed: int) -> np.random.Generator:
    """Random numbers that belong to a name and a seed, on any machine."""
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
