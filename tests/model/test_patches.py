from __future__ import annotations

import torch

from llamacast.model.frames import make_frames
from llamacast.model.patches import feature_widths, make_patch_tokens, to_patches
from llamacast.model.seasons import gather_seasons
from tests.model.test_frames import CONFIG, series
from tests.model.test_seasons import everywhere

NO_SEASONS = torch.zeros(3, 2, dtype=torch.long)


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
    tokens = make_patch_tokens(values, observed, frames, seasons, periods, NO_SEASONS, CONFIG)
    assert tokens.shape == (3, 12, sum(feature_widths(CONFIG)))
    assert tokens.isfinite().all()


def test_a_patch_of_nothing_shows_the_last_that_is_there():
    values, observed = series(1, 48, 0.0)
    observed[:, 40:] = False
    values = values.masked_fill(~observed, 0.0)
    periods = everywhere(torch.tensor([[5, 9]]))
    frames = make_frames(values, observed, CONFIG)
    seasons = gather_seasons(values, observed, frames, periods, CONFIG)
    tokens = make_patch_tokens(values, observed, frames, seasons, periods, NO_SEASONS[:1], CONFIG)
    assert torch.equal(tokens[0, 9, :12], tokens[0, 11, :12])
    assert not torch.equal(tokens[0, 9], tokens[0, 11])  # which is how long ago?


def test_seasons_of_the_calendar_are_told_with_how_much_of_them_was_seen():
    values, observed = series(3, 48, 0.0)
    periods = everywhere(torch.tensor([[5, 9], [0, 0], [3, 20]]))
    frames = make_frames(values, observed, CONFIG)
    lags = gather_seasons(values, observed, frames, periods, CONFIG)
    told = torch.tensor([[24, 168], [1, 0], [0, 0]])
    tokens, plain = (
        make_patch_tokens(values, observed, frames, lags, periods, seasons, CONFIG).split(
            feature_widths(CONFIG), dim=2
        )
        for seasons in (told, NO_SEASONS)
    )
    assert all(torch.equal(tokens[part], plain[part]) for part in (0, 2, 3))
    assert not plain[1].any()
    assert not tokens[1][2].any()  # nothing is known
    known, length, held = tokens[1].unflatten(2, (2, 3)).unbind(dim=3)
    assert known[:, 0].tolist() == [[1, 1], [1, 0], [0, 0]]
    assert (length[0, :, 0] > length[1, :, 0]).all()
    assert (length[:2, :, 0] > 0).all()
    # Of a longer season less has been seen, and more as time goes by.
    assert (held[0, :, 0] > held[0, :, 1]).all()
    assert (held[:2, 1:, 0] > held[:2, :-1, 0]).all()
