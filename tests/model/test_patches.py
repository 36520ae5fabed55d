from __future__ import annotations

import torch

from llamacast.model.frames import make_frames
from llamacast.model.patches import make_patch_tokens, num_features, to_patches
from llamacast.model.seasons import gather_seasons
from tests.model.test_frames import CONFIG, series
from tests.model.test_seasons import everywhere


def test_rows_are_moved_to_begin_in_the_first_patch_and_end_with_a_whole_one():
    values = torch.arange(1.0, 11.0).repeat(3, 1)
    observed = torch.ones(3, 10, dtype=torch.bool)
    observed[1, :5] = False
    observed[2, :9] = False
    patched, seen, num_tokens = to_patches(values, observed, 4, num_future=2)
    assert num_tokens.tolist() == [3, 2, 1]
    assert patched.shape == (3, 20)
    assert patched[0, :12].tolist() == [0, 0, *range(1, 11)]
    assert patched[1, :8].tolist() == [0, 0, 0, 6, 7, 8, 9, 10]
    assert patched[2, :4].tolist() == [0, 0, 0, 10]
    for row, tokens in enumerate(num_tokens):
        assert not seen[row, tokens * 4 :].any()
        assert seen[row].sum() == observed[row].sum()


def test_tokens_are_as_wide_as_they_say_and_finite():
    values, observed = series()
    observed[1] = False
    values = values.masked_fill(~observed, 0.0)
    periods = everywhere(torch.tensor([[5, 9], [0, 0], [3, 20]]))
    frames = make_frames(values, observed, CONFIG)
    seasons = gather_seasons(values, observed, frames, periods, CONFIG)
    tokens = make_patch_tokens(values, observed, frames, seasons, periods, CONFIG)
    assert tokens.shape == (3, 12, num_features(CONFIG))
    assert tokens.isfinite().all()


def test_a_patch_of_nothing_shows_the_last_that_is_there():
    values, observed = series(1, 48, 0.0)
    observed[:, 40:] = False
    values = values.masked_fill(~observed, 0.0)
    periods = everywhere(torch.tensor([[5, 9]]))
    frames = make_frames(values, observed, CONFIG)
    seasons = gather_seasons(values, observed, frames, periods, CONFIG)
    tokens = make_patch_tokens(values, observed, frames, seasons, periods, CONFIG)
    assert torch.equal(tokens[0, 9, :12], tokens[0, 11, :12])
    assert not torch.equal(tokens[0, 9], tokens[0, 11])  # which is how long ago?
