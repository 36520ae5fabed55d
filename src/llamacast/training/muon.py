"""Muon: momentum, orthogonalised, for the matrices between the first and the last layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn

# Jordan et al. 2024 (kellerjordan.github.io/posts/muon): a quintic whose steep start brings singular
# values near 1 in five steps; they end between 0.7 and 1.2, which serves as well as 1.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NUM_ITERATIONS = 5
# Root mean square of an update, in learning rates: that of AdamW's, so that one rate serves both
# (Liu et al. 2025, arXiv 2502.16982).
UPDATE_SIZE = 0.2


class Muon(torch.optim.Optimizer):
    """Nesterov momentum whose update is the nearest orthogonal matrix; decoupled weight decay.

    torch's own class takes matrices one by one and rounds to bfloat16; here all matrices of one
    shape go through together, in their own precision, which on a CPU is several times faster.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            list(parameters), {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None if closure is None else closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            weights.sort(key=_wide_shape)
            for _, alike in groupby(weights, key=_wide_shape):
                self._step_together(list(alike), group)
        return loss

    def _step_together(self, weights: list[nn.Parameter], group: dict[str, Any]) -> None:
        updates = []
        for weight in weights:
            assert weight.grad is not None
            state = self.state[weight]
            if not state:
                state["momentum"] = torch.zeros_like(weight)
            state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
            ahead = weight.grad.lerp(state["momentum"], group["momentum"])
            updates.append(ahead.mT if len(weight) > weight.shape[1] else ahead)
        found = _orthogonalise_shared(torch.stack(updates))
        size = UPDATE_SIZE * max(weights[0].shape) ** 0.5
        for weight, update in zip(weights, found, strict=True):
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            update = update.mT if len(weight) > weight.shape[1] else update
            weight.add_(update, alpha=-group["lr"] * size)


def _wide_shape(weight: Tensor) -> tuple[int, int]:
    return min(weight.shape), max(weight.shape)


def _orthogonalise_shared(matrices: Float[Tensor, "matrix row column"]) -> Tensor:
    """`orthogonalise`, each of the processes that train together doing some of the matrices."""
    if not distributed.is_available() or not distributed.is_initialized():
        return orthogonalise(matrices)
    own = slice(distributed.get_rank(), None, distributed.get_world_size())
    found = torch.zeros_like(matrices)
    if len(matrices[own]):
        found[own] = orthogonalise(matrices[own])
    distributed.all_reduce(found)
    return found


def orthogonalise(matrices: Float[Tensor, "matrix row column"]) -> Tensor:
    """Roughly the nearest matrices with orthonormal rows; there must be no more rows than columns."""
    a, b, c = COEFFICIENTS
    found = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(NUM_ITERATIONS):
        gram = found @ found.mT
        found = a * found + torch.baddbmm(gram, gram, gram, beta=b, alpha=c) @ found
    return found
