"""What a network would have said of every step of a panel, put together series by series."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from llamacast.sampling.hindcast import Hindcast

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Piece:
    """A stretch of some series."""

    series: npt.NDArray[np.int64]
    firsts: npt.NDArray[np.int64]
    """First step of each."""
    num_steps: int
    hindcast: Hindcast


@dataclass(frozen=True)
class Hindsight:
    lengths: Sequence[int]
    """Of all series."""
    pieces: Sequence[Piece]

    def levels(self, values: Sequence[Floats]) -> list[Floats]:
        """For each series the level at which each of its values falls, in (0, 1); NaN where it is
        missing, or where too little came before it."""

        def level(piece: Piece) -> Tensor:
            ends = piece.firsts + piece.num_steps
            cut = [
                values[number][first:end]
                for number, first, end in zip(piece.series, piece.firsts, ends, strict=True)
            ]
            return piece.hindcast.level(torch.from_numpy(np.stack(cut)))

        return self._laid_out(level)

    def quantile(self, levels: npt.ArrayLike) -> list[Floats]:
        """For each series what was told to lie at a level, one for each series."""
        asked = torch.from_numpy(np.broadcast_to(levels, len(self.lengths)).astype(np.float64))
        return self._laid_out(lambda piece: piece.hindcast.quantile(asked[piece.series, None]))

    def _laid_out(self, part: Callable[[Piece], Tensor]) -> list[Floats]:
        found = [np.full(length, np.nan) for length in self.lengths]
        for piece in self.pieces:
            for number, first, row in zip(
                piece.series, piece.firsts, part(piece).numpy(), strict=True
            ):
                found[number][first : first + len(row)] = row
        return found
