from __future__ import annotations

import torch

from llamacast.model.config import cria
from llamacast.model.frames import make_frames
from llamacast.model.patches import make_patch_tokens
from llamacast.model.periods import find_periods_along
from llamacast.model.seasons import gather_seasons
from llamacast.training.config import WindowConfig
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


def masked(end_share=0.45, scattered_share=0.45, cut=None, horizon=None, **others):
    generator = torch.Generator().manual_seed(1)
    shares = {"masked_end_share": end_share, "masked_within_share": scattered_share}
    config = WindowConfig(horizon=horizon, **shares, **others)
    return as_patch_batch(cut or windows(), LENGTH, config, generator, num_periods=3)


def test_periods_are_hidden_in_their_share_of_windows():
    assert torch.equal(masked()["told_periods"], torch.arange(3).expand(400, -1))
    told = masked(cut=windows(4_000), hidden_periods_share=0.2)["told_periods"] >= 0
    # By chance of its own, or with all but the first.
    assert torch.allclose(told.float().mean(dim=0), torch.tensor([0.84, 0.64, 0.64]), atol=0.03)
    only_first = told[:, 0] & ~told[:, 1:].any(dim=1)
    assert abs(only_first.float().mean() - (0.2 + 0.8 * 0.8 * 0.04)) < 0.03


def test_periods_are_shuffled_in_their_share_of_windows():
    cut, hidden = windows(6_000), {"hidden_periods_share": 0.2}
    ranked = masked(cut=cut, **hidden)["told_periods"]
    shuffled = masked(cut=cut, **hidden, shuffled_periods_share=0.6)["told_periods"]
    # The same are hidden, and the others are told in some order.
    assert torch.equal(ranked.sort(dim=1).values, shuffled.sort(dim=1).values)
    always = masked(cut=cut, shuffled_periods_share=1.0)["told_periods"]
    orders, counts = always.unique(dim=0, return_counts=True)
    assert len(orders) == 6
    assert torch.allclose(counts / 6_000, torch.tensor(1 / 6), atol=0.02)
    # One order in six is the ranks' own.
    sometimes = masked(cut=cut, shuffled_periods_share=0.6)["told_periods"]
    ranks = torch.arange(3)
    assert abs((sometimes == ranks).all(dim=1).float().mean() - (0.4 + 0.6 / 6)) < 0.02


def test_no_more_is_masked_than_a_horizon_needs():
    batch = masked(1.0, 0.0, horizon=2 * LENGTH + 1)
    hidden = batch["observed"] & ~batch["shown"]
    patches = hidden.unflatten(1, (-1, LENGTH)).any(dim=2).sum(dim=1)
    assert patches.max() <= 3
    assert len(patches.unique()) > 1


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


def test_ends_and_stretches_are_hidden_in_their_shares():
    batch = masked(0.5, 0.3)
    hidden = batch["observed"] & ~batch["shown"]
    whole = batch["observed"].all(dim=1)  # windows of 12 patches
    patches = hidden[whole].view(-1, 12, LENGTH).any(dim=2)
    some = patches.any(dim=1)
    # An end is one run, and the last one; stretches may happen to be that, too.
    runs = (patches[:, 1:] & ~patches[:, :-1]).sum(dim=1)
    at_end = patches[:, -1] & (runs == 1)
    assert 0.7 < some.float().mean() < 0.9
    assert 0.45 < at_end.float().mean() < 0.65
    nothing = masked(0.0, 0.0)
    assert torch.equal(nothing["shown"], nothing["observed"])


def test_short_ends_are_hidden_as_often_as_long_ones():
    batch = masked(1.0, 0.0)
    whole = batch["observed"].all(dim=1)
    count = (batch["observed"] & ~batch["shown"])[whole].sum(dim=1) // LENGTH
    assert count.min() == 1
    assert count.max() >= 9
    assert (count <= 3).float().mean() > 0.35


def test_stretches_are_one_to_eight_patches_and_about_half_of_all():
    batch = masked(0.0, 1.0)
    whole = batch["observed"].all(dim=1)
    hidden = (batch["observed"] & ~batch["shown"])[whole].view(-1, 12, LENGTH).any(dim=2)
    assert 0.3 < hidden.float().mean() < 0.55
    lengths = [
        len(run)
        for row in hidden.int().tolist()
        for run in "".join(map(str, row)).split("0")
        if run
    ]
    assert min(lengths) == 1
    assert max(lengths) == 8


def test_steps_count_once_the_past_says_something():
    cut = windows(8)
    values, observed = cut.values.clone(), cut.observed.clone()
    values[0], observed[0] = 3.0, True  # a constant
    observed[1, 3:80] = False  # three values, then nothing for long
    values = values.masked_fill(~observed, 0.0)
    batch = masked(0.0, 0.0, CutWindows(values, observed, cut.calendar, cut.seasons))
    assert batch["counts"].shape == (8, 88)
    assert not batch["counts"][0].any()
    assert not batch["counts"][1, : 88 - 8].any()
    assert batch["counts"].sum() == batch["count"]
    assert not (batch["counts"] & ~batch["observed"][:, LENGTH:]).any()


def test_what_is_hidden_shows_nowhere_in_the_tokens_of_what_is_shown():
    """Windows are standardised with what is hidden; frames must take that out again."""
    values = torch.randn(6, 96, generator=torch.Generator().manual_seed(3)).cumsum(dim=1)
    values[0, :20] = 1.0  # does not move at first
    observed = torch.ones(6, 96, dtype=torch.bool)
    observed[1, :15] = False  # a single value in the first patch of 16
    batches = []
    for shift in (0.0, 40.0):
        changed = values.clone()
        changed[:, 64:] += shift
        cut = CutWindows(
            changed.masked_fill(~observed, 0.0),
            observed,
            torch.zeros(6, 1, 6),
            torch.tensor([[12, 0]]).expand(6, -1),
        )
        plain = WindowConfig(masked_end_share=0.0, masked_within_share=0.0)
        batch = as_patch_batch(cut, 16, plain, torch.Generator().manual_seed(0), 3)
        shown = batch["shown"].clone()
        # The first row of patches starts at the first observed one in either case.
        shown[:, 64:] = False
        batches.append((batch["values"], shown, batch["seasons"]))
    config = cria()
    tokens = []
    for moved, shown, seasons in batches:
        moved = moved.masked_fill(~shown, 0.0)
        periods = find_periods_along(moved, shown, seasons, 3, 16)
        frames = make_frames(moved, shown, config)
        lags = gather_seasons(moved, shown, frames, periods, config)
        tokens.append(make_patch_tokens(moved, shown, frames, lags, periods, seasons, config))
    torch.testing.assert_close(tokens[0], tokens[1], rtol=1e-3, atol=2e-3)
