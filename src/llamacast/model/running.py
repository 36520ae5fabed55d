"""The largest and the least so far, along rows; also in formats that have no such operation."""

from __future__ import annotations

import torch
from jaxtyping import Shaped
from torch import Tensor


def running_most(rows: Shaped[Tensor, "series time"]) -> Shaped[Tensor, "series time"]:
    """At each step the largest up to it."""
    if not torch.compiler.is_exporting():
        return rows.cummax(dim=1).values
    shift = 1
    while shift < rows.shape[1]:
        # What stands before the first step is the row's first value, which is below none so far.
        before = torch.cat([rows[:, :1].expand(-1, shift), rows[:, :-shift]], dim=1)
        rows, shift = rows.maximum(before), 2 * shift
    return rows


def running_least(rows: Shaped[Tensor, "series time"]) -> Shaped[Tensor, "series time"]:
    """At each step the least up to it."""
    return rows.cummin(dim=1).values if not torch.compiler.is_exporting() else -running_most(-rows)
