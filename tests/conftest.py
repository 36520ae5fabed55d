"""Shapes are checked while tests run; golden fixtures are read once."""

from __future__ import annotations

from jaxtyping import install_import_hook

# Where tensors have shapes; the border is given wrong types on purpose, and refuses them itself.
CHECKED = [
    *(
        f"llamacast.model.{name}"
        for name in (
            "scaling",
            "tokens",
            "transformer",
            "distributions",
            "splines",
            "heads",
            "lag_llama",
            "periods",
            "frames",
            "seasons",
            "patches",
            "quantiles",
            "cria",
        )
    ),
    "llamacast.sampling",
    "llamacast.training",
]
hook = install_import_hook(CHECKED, "beartype.beartype")

from pathlib import Path  # noqa: E402

import matplotlib  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

matplotlib.use("agg")
torch.set_num_threads(1)
settings.register_profile("llamacast", deadline=None, derandomize=True)
settings.load_profile("llamacast")

GOLDEN = Path(__file__).parent / "golden"


class Golden:
    """Arrays of one fixture, as tensors."""

    def __init__(self, name: str) -> None:
        with np.load(GOLDEN / f"{name}.npz") as archive:
            self.arrays = {key: archive[key] for key in archive.files}

    def __getitem__(self, key: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[key])

    def under(self, prefix: str) -> dict[str, torch.Tensor]:
        """The arrays whose names begin with `prefix`, without it."""
        return {
            key.removeprefix(prefix): self[key] for key in self.arrays if key.startswith(prefix)
        }


@pytest.fixture(scope="session")
def golden():
    """`golden("tiny_model")` reads that fixture."""
    cache: dict[str, Golden] = {}

    def read(name: str) -> Golden:
        return cache.setdefault(name, Golden(name))

    return read


@pytest.fixture(scope="session")
def golden_path() -> Path:
    return GOLDEN
