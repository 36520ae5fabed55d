from __future__ import annotations

import dataclasses

import pytest
import torch

from llamacast.model.config import cria
from llamacast.model.cria import Cria, loss_unit
from llamacast.model.periods import Periods

SMALL = dataclasses.replace(
    cria(),
    num_layers=2,
    num_heads=2,
    head_width=8,
    feedforward_width=32,
    projection_width=24,
    patch_length=8,
    frame_patches=4,
    num_told_seasons=2,
    tells_spreads=True,
)
NO_SEASONS = torch.zeros(1, 2, dtype=torch.long)


def network(config=SMALL, seed=0):
    """Weights large enough that every input shows."""
    generator = torch.Generator().manual_seed(seed)
    model = Cria(config)
    model.initialise(generator)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.startswith("head"):
                weight.normal_(0.0, 0.15, generator=generator)
    return model.eval()


def series(num_series=3, time=80, seed=1):
    generator = torch.Generator().manual_seed(seed)
    steps = torch.arange(float(time))
    phase = torch.rand(num_series, 1, generator=generator)
    values = torch.sin(2 * torch.pi * (steps / 12 + phase)) + 0.02 * steps
    return values + 0.3 * torch.randn(num_series, time, generator=generator)


@torch.no_grad()
def answer(model, values, observed):
    """Quantiles of every next patch, in the units of the values."""
    seasons = NO_SEASONS.expand(len(values), -1)
    window = model.window(values, observed, seasons)
    return window.outlook.frames.from_frame(model.quantiles(model.hidden(window), window.outlook))


def everything(values):
    return torch.ones_like(values, dtype=torch.bool)


def test_the_packaged_size_is_at_most_five_million():
    total = sum(weight.numel() for weight in Cria(cria()).parameters())
    assert 3.0e6 < total < 3.5e6


def test_quantiles_never_cross():
    values = 10 * series()
    assert (answer(network(), values, everything(values)).diff(dim=-1) >= 0).all()


def test_no_token_sees_what_comes_after_it():
    model, values = network(), series()
    observed = everything(values)
    seasons = NO_SEASONS.expand(3, -1)
    changed, hidden = values.clone(), observed.clone()
    changed[:, 48:] += 5.0
    hidden[:, 56:] = False
    with torch.no_grad():
        plain = model.window(values, observed, seasons)
        other = model.window(changed.masked_fill(~hidden, 0.0), hidden, seasons)
        one = model.quantiles(model.hidden(plain), plain.outlook)
        two = model.quantiles(model.hidden(other), other.outlook)
    torch.testing.assert_close(one[:, :6], two[:, :6], rtol=0, atol=1e-5)
    assert (one[:, 6:] - two[:, 6:]).abs().max() > 0.01


@torch.no_grad()
def test_periods_that_are_not_told_leave_no_trace():
    model, values = network(), series()
    arguments = (everything(values), NO_SEASONS.expand(3, -1))
    told = torch.tensor([[0, 1, 2], [0, -1, -1], [-1, -1, -1]])[:, : SMALL.num_periods]
    plain = model.window(values, *arguments)
    hidden = model.window(values, *arguments, told_periods=told)
    assert (plain.periods.lengths[:, -1, 0] > 0).all()
    assert not hidden.outlook.seasons.latest_seen[2].any()
    one, other = (model.inputs(window)[0] for window in (plain, hidden))
    torch.testing.assert_close(one[0], other[0], rtol=0, atol=0)
    assert not torch.equal(one[2], other[2])
    # The loss is that of such a window.
    losses = model.loss(values, *arguments, None, told)
    torch.testing.assert_close(losses[0], model.loss(values, *arguments)[0])
    assert not torch.equal(losses[2], model.loss(values, *arguments)[2])


@torch.no_grad()
def test_periods_told_in_another_order_bring_their_seasons_along():
    model, values = network(), series()
    arguments = (everything(values), NO_SEASONS.expand(3, -1))
    order = list(reversed(range(SMALL.num_periods)))
    plain = model.window(values, *arguments)
    turned = model.window(values, *arguments, told_periods=torch.tensor([order] * 3))
    assert not torch.equal(plain.periods.lengths, turned.periods.lengths)
    for name in ("lengths", "strengths"):
        one, other = (getattr(window.periods, name) for window in (plain, turned))
        assert torch.equal(one[..., order], other)
    for name in ("latest", "latest_seen", "mean", "grown"):
        one, other = (getattr(window.outlook.seasons, name) for window in (plain, turned))
        assert torch.equal(one[..., order], other)
    # What an answer is worth does not depend on the order.
    torch.testing.assert_close(loss_unit(plain), loss_unit(turned))


def test_a_short_history_is_read_by_its_calendar():
    values = series(1, 16)

    def told(first, second, config=SMALL):
        seasons = torch.tensor([[first, second]])
        model = network(config)
        with torch.no_grad():
            none = torch.full((1, SMALL.num_periods), -1)
            shown = everything(values)
            window = model.window(values, shown, seasons, told_periods=none)
            return model.hidden(window)

    assert not torch.allclose(told(24, 168), told(1, 0))
    assert not torch.allclose(told(24, 168), told(0, 0))
    without = dataclasses.replace(SMALL, num_told_seasons=0)
    assert torch.equal(told(24, 168, without), told(0, 0, without))


def test_what_stands_where_nothing_was_observed_does_not_matter():
    model, values = network(), series()
    observed = torch.rand(values.shape, generator=torch.Generator().manual_seed(4)) > 0.3
    observed[0, 48:] = False
    observed[1] = False
    plain = answer(model, values, observed)
    poisoned = answer(model, values.masked_fill(~observed, 1e9), observed)
    assert plain.isfinite().all()
    assert torch.equal(plain, poisoned)


def test_rows_do_not_depend_on_each_other():
    model, values = network(), series(5)
    observed = everything(values)
    observed[2, 30:] = False
    together = answer(model, values, observed)
    for row in range(5):
        one = slice(row, row + 1)
        alone = answer(model, values[one], observed[one])
        torch.testing.assert_close(alone, together[one], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("more", [8, 64])
def test_what_is_appended_does_not_change_what_is_before(more):
    model, values = network(), series()
    longer = torch.nn.functional.pad(values, (0, more))
    seen = torch.nn.functional.pad(everything(values), (0, more))
    short = answer(model, values, everything(values))
    torch.testing.assert_close(
        answer(model, longer, seen)[:, : short.shape[1]],
        short,
        rtol=1e-4,
        atol=1e-5,
    )


def test_shift_and_scale_go_through():
    model, values = network(), series().double()
    plain = answer(model, values.float(), everything(values))
    moved = answer(model, (8.0 * values - 3.0).float(), everything(values))
    torch.testing.assert_close(moved, 8.0 * plain - 3.0, rtol=1e-4, atol=1e-3)


def test_every_anchor_can_be_copied():
    """With all weight on one anchor and no spread, the answer is that anchor."""
    model, values = network(), series()
    with torch.no_grad():
        for weight in model.head.parameters():
            weight.zero_()
        bias = model.head.direct.bias.view(SMALL.patch_length, -1)
        bias[:, 3] = 50.0  # the latest value a period before, of the first period
        bias[:, -21] = -20.0  # the spread's logarithm
    seasons = torch.tensor([[12, 0]]).expand(3, -1)
    window = model.window(values, everything(values), seasons)
    with torch.no_grad():
        found = model.quantiles(model.hidden(window), window.outlook)[..., 10]
    assert window.periods.lengths[:, 2:, 0].eq(12).all()
    seen = window.outlook.seasons.latest_seen[..., 0]
    torch.testing.assert_close(
        found[seen], window.outlook.seasons.latest[..., 0][seen], rtol=1e-3, atol=1e-3
    )


def test_the_loss_is_that_of_what_is_predicted():
    """The network is asked for steps that it was not shown, at the distance that was hidden."""
    model, values = network(), series()
    shown = everything(values)
    shown[:, 40:] = False
    seasons = NO_SEASONS.expand(3, -1)
    with torch.no_grad():
        losses = model.loss(values, shown, seasons)
        other = model.loss(values + 5.0 * ~shown, shown, seasons)
    assert losses.shape == (3, 72)
    assert torch.equal(losses[:, :32], other[:, :32])
    assert (other[:, 32:] > losses[:, 32:]).float().mean() > 0.9


def test_the_loss_does_not_depend_on_the_unit():
    model, values = network(), series()
    arguments = everything(values), NO_SEASONS.expand(3, -1)
    with torch.no_grad():
        plain = model.loss(values, *arguments)
        moved = model.loss(100.0 * values + 7.0, *arguments)
    torch.testing.assert_close(plain, moved, rtol=1e-3, atol=1e-3)


def test_what_repeats_counts_for_more_and_what_does_not_counts_as_it_moves():
    generator = torch.Generator().manual_seed(0)
    steps, noise = torch.arange(96), torch.randn(3, 96, generator=generator)
    season = torch.sin(2 * torch.pi * steps / 12)
    values = torch.stack([season, season + 0.2 * noise[1], noise[2].cumsum(0)])
    arguments = everything(values), torch.tensor([[12, 0]]).expand(3, -1)
    model = network()
    told = model.window(values, *arguments)
    hidden = model.window(values, *arguments, told_periods=torch.full((3, 3), -1))
    units, plain = loss_unit(told)[:, -1], loss_unit(hidden)[:, -1]
    torch.testing.assert_close(plain, hidden.outlook.frames.movement[:, -1].sqrt())
    exact, noisy, wandering = (units / plain).tolist()
    assert exact < 0.5 < noisy < 0.9 < wandering <= 1.0
    # Seasons that repeat exactly count as if they were a tenth of a movement apart; half as strong,
    # in the logarithm half as much.
    for strength in (0.0, 0.5, 1.0):
        strengths = torch.zeros_like(told.periods.strengths)
        strengths[0, :, 0] = strength
        as_strong = dataclasses.replace(told, periods=Periods(told.periods.lengths, strengths))
        torch.testing.assert_close(loss_unit(as_strong)[0, -1], plain[0] * 0.1 ** (strength / 2))


def test_learning_lowers_the_loss():
    model, values = network(), series(8)
    seen, seasons = everything(values), NO_SEASONS.expand(8, -1)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        loss = model.loss(values, seen, seasons)[:, 16:].mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_mixed_precision_is_near_full():
    model, values = network(), 1000.0 + 0.01 * series(time=160)
    arguments = values, everything(values), NO_SEASONS.expand(len(values), -1)
    with torch.no_grad():
        full = model.loss(*arguments)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model.loss(*arguments)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed.mean(), full.mean(), rtol=0.01, atol=0)
    assert (mixed - full).abs().max() > 0


def test_weights_in_bfloat16_answer_nearly_the_same():
    model, values = network(), series()
    full = answer(model, values, everything(values))
    half = answer(model.to(torch.bfloat16), values, everything(values)).float()
    assert (half - full).abs().mean() < 0.05 * full.std()
