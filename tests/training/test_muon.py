from __future__ import annotations

import pytest
import torch
from torch import nn

from llamacast.training.muon import Muon, orthogonalise


def test_singular_values_come_close_to_one():
    generator = torch.Generator().manual_seed(0)
    matrices = (
        torch.randn(3, 20, 50, generator=generator) * torch.tensor([1e-4, 1.0, 1e4])[:, None, None]
    )
    found = torch.linalg.svdvals(orthogonalise(matrices))
    assert found.min() > 0.6
    assert found.max() < 1.3


def test_directions_are_kept():
    matrix = torch.randn(1, 20, 50, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    found = left.mT @ orthogonalise(matrix) @ right.mT
    off_diagonal = found - torch.diag_embed(found.diagonal(dim1=1, dim2=2))
    assert off_diagonal.abs().max() < 1e-3


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (6, 6)])
def test_matrices_do_not_depend_on_each_other(shape):
    generator = torch.Generator().manual_seed(0)
    starts = [torch.randn(shape, generator=generator) for _ in range(2)]
    slopes = [torch.randn(shape, generator=generator) for _ in range(2)]

    def stepped(chosen):
        weights = [nn.Parameter(starts[n].clone()) for n in chosen]
        optimiser = Muon(weights, lr=0.1, weight_decay=0.1)
        for _ in range(3):
            for weight, number in zip(weights, chosen, strict=True):
                weight.grad = slopes[number].clone()
            optimiser.step()
        return weights

    together = stepped([0, 1])
    for number in (0, 1):
        torch.testing.assert_close(together[number], stepped([number])[0])


def test_it_agrees_with_torchs():
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(24, 40, generator=generator)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    one = Muon([ours], lr=0.05, momentum=0.95, weight_decay=0.1)
    two = torch.optim.Muon(
        [theirs], lr=0.05, momentum=0.95, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(5):
        slope = torch.randn(24, 40, generator=generator)
        ours.grad, theirs.grad = slope.clone(), slope.clone()
        one.step()
        two.step()
    moved = (theirs - start).norm()
    # Theirs is rounded to bfloat16 on the way.
    assert (ours - theirs).norm() < 0.02 * moved


def test_it_minimises():
    weight = nn.Parameter(torch.zeros(4, 6))
    goal = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    optimiser = Muon([weight], lr=0.05)
    for step in range(200):
        optimiser.param_groups[0]["lr"] = 0.2 * (1 - step / 200)
        optimiser.zero_grad()
        (weight - goal).square().sum().backward()
        optimiser.step()
    assert (weight - goal).abs().max() < 0.05
