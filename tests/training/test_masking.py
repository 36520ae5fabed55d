from __future__ import annotations

import torch

from llamacast.training.masking import as_patch_batch
from llamacast.training.windows import CutWindows

LENGTH = 8


def windows(count=400, time=96):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(count, time, generator=generator) * 3 + 50
    observed = torch.ones(count, time, dtype=torch.bool)
    observed[::4, :29] = False  # begins late, not with a patch
    observed[1::4, 40:] = False  # ends early
    values = values.masked_fill(~observed, 0.0)
    return CutWindows(
        values, observed, torch.zeros(count, 1, 6), torch.full((count, 2), 7, dtype=torch.long)
    )


def masked(share=0.5, cut=None):
    generator = torch.Generator().manual_seed(1)
    return as_patch_batch(cut or windows(), LENGTH, share, generator)


def test_windows_begin_in_the_first_patch_and_lose_nothing():
    cut, batch = windows(), masked()
    assert torch.equal(batch["observed"].sum(dim=1), cut.observed.sum(dim=1))
    assert batch["observed"][:, :LENGTH].any(dim=1).all()
    # 29 steps are three patches and five steps.
    assert not batch["observed"][0, :5].any()
    assert batch["observed"][0, 5 : 96 - 24].all()


def test_values_are_standardised():
    batch = masked()
    for row in range(8):
        told = batch["values"][row][batch["observed"][row]]
        assert abs(told.mean()) < 1e-5
        assert abs(told.std(unbiased=False) - 1) < 1e-5


def test_whole_patches_are_hidden_and_never_the_first():
    batch = masked()
    hidden = batch["observed"] & ~batch["shown"]
    assert not (batch["shown"] & ~batch["observed"]).any()
    assert not hidden[:, :LENGTH].any()
    patches = hidden.view(len(hidden), -1, LENGTH)
    seen = batch["observed"].view(patches.shape)
    assert ((patches.any(dim=2)) == (patches == seen).all(dim=2) & seen.any(dim=2)).all()


def test_ends_are_hidden_in_their_share_and_stretches_within_in_half_of_the_rest():
    batch = masked(share=0.6)
    last = torch.arange(96).expand(400, -1).masked_fill(~batch["observed"], -1).amax(dim=1)
    hidden = batch["observed"] & ~batch["shown"]
    at_end = hidden[torch.arange(400), last]
    within = hidden.any(dim=1) & ~at_end
    # Some stretches within end where the window does.
    assert 0.55 < at_end.float().mean() < 0.75
    assert 0.08 < within.float().mean() < 0.25


def test_short_ends_are_hidden_as_often_as_long_ones():
    batch = masked(share=1.0)
    long = batch["observed"].all(dim=1)
    count = (batch["observed"] & ~batch["shown"])[long].sum(dim=1) // LENGTH
    assert count.min() == 1
    assert count.max() >= 9
    assert (count <= 3).float().mean() > 0.35


def test_periods_are_looked_for_in_what_is_shown():
    batch = masked(share=1.0)
    for row in range(50):
        known = int(batch["num_known"][row])
        assert not batch["shown"][row, known:].any()
        assert batch["shown"][row, known - 1] or known <= LENGTH


def test_steps_count_once_the_past_says_something():
    cut = windows(8)
    values, observed = cut.values.clone(), cut.observed.clone()
    values[0], observed[0] = 3.0, True  # a constant
    observed[1, 3:80] = False  # three values, then nothing for long
    values = values.masked_fill(~observed, 0.0)
    batch = masked(0.0, CutWindows(values, observed, cut.calendar, cut.seasons))
    assert batch["counts"].shape == (8, 88)
    assert not batch["counts"][0].any()
    assert not batch["counts"][1, : 88 - 8].any()
    assert batch["counts"].sum() == batch["count"]
    assert not (batch["counts"] & ~batch["observed"][:, LENGTH:]).any()
