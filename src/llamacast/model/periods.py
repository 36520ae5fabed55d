"""Find the periods of a series: peaks of its autocorrelation, and what the calendar suggests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from llamacast.model.config import NUM_SEASONS
from llamacast.model.frames import all_at_tokens
from llamacast.model.running import running_least

SHORTEST_PERIOD = 2
# A peak must have been seen one and a half times; what the calendar suggests, once.
LONGEST_SHARE, LONGEST_SHARE_OF_CALENDAR = 2 / 3, 0.95
NUM_PEAKS = 16
# Beginnings of so many patches are searched together, and all where they have so few steps: many small
# searches take longer than one.
LONGEST_TOGETHER, FEW_STEPS = 16, 2**15
# A correlation over few pairs of steps is chance: it counts as if so many pairs of none came along.
PAIRS_OF_NONE = 8.0
# Of two periods that fit as well the shorter is taken, and one that the calendar knows; the more so,
# the more correlations of that size are chance: theirs is about 1 / sqrt(steps).
PENALTY_PER_OCTAVE, PENALTY_PER_OCTAVE_OF_CALENDAR = 0.06, 0.045
CALENDAR_BONUS, CALENDAR_BONUS_OF_CHANCE = 0.1, 2.0
# How near, as a share, a period is to another, or to a multiple of it, to be the same. A multiple takes
# the place of some other period, so that three weeks must tell far more than one does.
NEARNESS = 0.06
MULTIPLE_MUST_GAIN = 0.15
# The share of what a day leaves unexplained that a week must leave at most, to stand before it.
HOLDS_ANOTHER = 0.8
# Residuals beyond so many usual ones are outliers, which would hide every period.
LARGEST_RESIDUAL = 4.5


@dataclass(frozen=True)
class Periods:
    """Periods of each series, or of each of its tokens, the strongest first."""

    lengths: Int[Tensor, "*batch period"]
    """In steps; 0 where there is none."""
    strengths: Float[Tensor, "*batch period"]
    """How far the autocorrelation there, after a straight line is taken off, rises above 0 and above
    its lowest point before: near 1 for a season, near 0 for what merely changes slowly."""

    def told(self, ranks: Int[Tensor, "series period"]) -> Periods:
        """Those of each series that stand at the ranks given, from 0, in that order; -1 for none."""
        ranks = ranks.view(len(ranks), *(1,) * (self.lengths.dim() - 2), -1).expand_as(self.lengths)
        chosen, hidden = ranks.clamp(min=0), ranks < 0
        lengths, strengths = self.lengths.gather(-1, chosen), self.strengths.gather(-1, chosen)
        return Periods(lengths.masked_fill(hidden, 0), strengths.masked_fill(hidden, 0.0))


def find_periods(
    values: Float[Tensor, "series time"],
    observed: Bool[Tensor, "series time"],
    seasons: Int[Tensor, "series season"],
    num_periods: int,
) -> Periods:
    """The `num_periods` strongest periods of each row; neither shift nor scale of it matters.

    Candidates are the local peaks of the autocorrelation, by fast Fourier transforms over what is
    observed, and `seasons` (0 for none), which count a little more. Of a period and its multiples
    only one is taken, unless the calendar knows both, or the multiple fits clearly better. Of the
    calendar's the longer comes first where it holds the shorter and tells far more: days off are
    foretold by the week, not by the day.
    """
    assert seasons.shape[1] == NUM_SEASONS
    values = values.masked_fill(~observed, 0.0)
    strength = _strength(_autocorrelation(values, observed))
    # Steps from the first to the last observed, since padding tells nothing.
    steps = torch.arange(values.shape[1], device=values.device)
    last = torch.where(observed, steps, -1).amax(dim=1)
    first = torch.where(observed, steps, values.shape[1]).amin(dim=1)
    span = (last - first + 1).clamp(min=0)[:, None]
    lengths, fits = _candidates(strength, seasons, span)
    from_calendar = torch.arange(lengths.shape[1], device=lengths.device) >= NUM_PEAKS
    penalty = torch.where(from_calendar, PENALTY_PER_OCTAVE_OF_CALENDAR, PENALTY_PER_OCTAVE)
    scores = fits - penalty * lengths.clamp(min=1).float().log2()
    bonus = CALENDAR_BONUS + CALENDAR_BONUS_OF_CHANCE / span.clamp(min=1).sqrt()
    scores = scores + bonus * from_calendar
    scores = scores.masked_fill(lengths == 0, -torch.inf)
    scores = _longer_first(scores, lengths, fits)
    taken_lengths, taken_fits = [], []
    for _ in range(num_periods):
        best = scores.argmax(dim=1, keepdim=True)
        found = scores.gather(1, best) > -torch.inf
        length = lengths.gather(1, best) * found
        fit = fits.gather(1, best).masked_fill(~found, 0.0)
        taken_lengths.append(length)
        taken_fits.append(fit)
        same = _is_same(lengths, fits, from_calendar, length, fit)
        scores = scores.masked_fill(same & found, -torch.inf)
    return Periods(torch.cat(taken_lengths, dim=1), torch.cat(taken_fits, dim=1))


def find_periods_along(
    values: Float[Tensor, "series time"],
    observed: Bool[Tensor, "series time"],
    seasons: Int[Tensor, "series season"],
    num_periods: int,
    patch_length: int,
) -> Periods:
    """Periods as they could be known at the end of each patch, `(series, token, period)`.

    They are looked for anew whenever the number of patches has doubled, and in all that is observed.
    Each token has those of the most patches that lie in its past.
    """
    num_tokens = values.shape[1] // patch_length
    tokens = torch.arange(1, num_tokens + 1, device=values.device)
    filled = observed.unflatten(1, (num_tokens, patch_length)).any(dim=2)
    # Patches up to the last that holds anything.
    known = torch.where(filled, tokens, 0).amax(dim=1, keepdim=True)
    beginnings = [2**power for power in range(max(0, num_tokens - 1).bit_length())]
    few = False
    if not torch.compiler.is_exporting():  # where what is to be done must not depend on the data
        most = int(known.max())
        beginnings = [one for one in beginnings if one < most]
        few = values.numel() * (len(beginnings) + 1) <= FEW_STEPS
    longest = num_tokens if few else LONGEST_TOGETHER
    sizes = [*beginnings, num_tokens]
    short = [one for one in sizes if one <= longest]
    groups = [short] * bool(short) + [[one] for one in sizes if one > longest]
    found = [
        _of_beginnings(values, observed, seasons, num_periods, patch_length, group)
        for group in groups
    ]
    doublings = [token.bit_length() - 1 for token in range(1, num_tokens + 1)]
    of_beginning = torch.tensor(doublings, device=values.device)
    search = torch.where(tokens < known, of_beginning, len(beginnings))
    lengths = torch.cat([one.lengths for one in found], dim=1)
    strengths = torch.cat([one.strengths for one in found], dim=1)
    return Periods(*all_at_tokens([lengths, strengths], search))


def _of_beginnings(
    values: Tensor,
    observed: Tensor,
    seasons: Tensor,
    num_periods: int,
    patch_length: int,
    sizes: Sequence[int],
) -> Periods:
    """Periods of the first patches of each row, `(series, size, period)`, in one search."""
    time = max(sizes) * patch_length
    ends = torch.tensor(sizes, device=values.device)[:, None] * patch_length
    within = observed[:, None, :time] & (torch.arange(time, device=values.device) < ends)
    rows = values[:, None, :time].expand_as(within).flatten(0, 1)
    suggested = seasons.repeat_interleave(len(sizes), dim=0)
    found = find_periods(rows, within.flatten(0, 1), suggested, num_periods)
    parts = (-1, len(sizes))
    return Periods(found.lengths.unflatten(0, parts), found.strengths.unflatten(0, parts))


def _autocorrelation(
    values: Float[Tensor, "series time"], observed: Bool[Tensor, "series time"]
) -> Float[Tensor, "series lag"]:
    """Of the values (0 where not observed) less a straight line; lag 0 is 1 wherever anything moves."""
    weight = observed.to(values.dtype)
    count = weight.sum(dim=1, keepdim=True).clamp(min=1.0)
    time = torch.linspace(-1.0, 1.0, values.shape[1], device=values.device, dtype=values.dtype)
    time = (time - (time * weight).sum(dim=1, keepdim=True) / count) * weight
    residual = values
    # Twice: the first line lies where outliers have drawn it.
    for _ in range(2):
        residual = _without_outliers(_without_line(residual, time, weight, count), count)
    size = 2 ** (2 * values.shape[1] - 1).bit_length()
    products = _correlate(residual, size)[:, : values.shape[1]]
    pairs = _correlate(weight, size)[:, : values.shape[1]].round()
    # No correlation counts where hardly any two steps are so far apart.
    covariance = products / (pairs + PAIRS_OF_NONE)
    variance = products[:, :1] / pairs[:, :1].clamp(min=1.0)
    tiny = torch.finfo(values.dtype).eps * values.square().amax(dim=1, keepdim=True)
    moves = variance > tiny
    return torch.where(moves, covariance / torch.where(moves, variance, 1.0), 0.0).clamp(-1.0, 1.0)


def _strength(correlation: Float[Tensor, "series lag"]) -> Float[Tensor, "series lag"]:
    """The correlation, or its rise from its lowest point before, whichever is less.

    What changes slowly correlates at all short lags; only what comes back rises again.
    """
    return correlation.minimum(correlation - running_least(correlation))


def _correlate(rows: Tensor, size: int) -> Tensor:
    spectrum = torch.fft.rfft(rows, n=size)
    return torch.fft.irfft(spectrum.real.square() + spectrum.imag.square(), n=size)


def _without_line(known: Tensor, time: Tensor, weight: Tensor, count: Tensor) -> Tensor:
    """Residuals of least squares on (centred) time, over what is observed; 0 elsewhere."""
    centred = (known - known.sum(dim=1, keepdim=True) / count) * weight
    tiny = torch.finfo(known.dtype).tiny
    size = time.square().sum(dim=1, keepdim=True).clamp(min=tiny)
    slope = (centred * time).sum(dim=1, keepdim=True) / size
    return centred - slope * time


def _without_outliers(residual: Tensor, count: Tensor) -> Tensor:
    # The mean of roots, squared: outliers hardly raise it themselves.
    usual = (residual.abs().sqrt().sum(dim=1, keepdim=True) / count).square()
    bound = LARGEST_RESIDUAL * usual
    return residual.clamp(-bound, bound)


def _candidates(
    strength: Float[Tensor, "series lag"],
    seasons: Int[Tensor, "series season"],
    span: Int[Tensor, "series 1"],
) -> tuple[Int[Tensor, "series candidate"], Float[Tensor, "series candidate"]]:
    """Peaks, then seasons; those that cannot be are 0."""
    lags = torch.arange(strength.shape[1], device=strength.device)
    before = torch.nn.functional.pad(strength, (1, 0), value=torch.inf)[:, :-1]
    after = torch.nn.functional.pad(strength, (0, 1), value=torch.inf)[:, 1:]
    peaked = (strength > before) & (strength >= after) & (strength > 0)
    peaked &= (lags >= SHORTEST_PERIOD) & (lags <= span * LONGEST_SHARE)
    ranked = strength - PENALTY_PER_OCTAVE * lags.clamp(min=1).float().log2()
    ranked = ranked.masked_fill(~peaked, -torch.inf)
    most = min(NUM_PEAKS, strength.shape[1])
    scores, peaks = ranked.topk(most, dim=1)
    peaks = torch.nn.functional.pad(peaks * (scores > -torch.inf), (0, NUM_PEAKS - most))
    fits = (seasons >= SHORTEST_PERIOD) & (seasons <= span * LONGEST_SHARE_OF_CALENDAR)
    known = torch.where(fits, seasons, 0)
    lengths = torch.cat([peaks, known], dim=1)
    return lengths, strength.gather(1, lengths).masked_fill(lengths == 0, 0.0)


def _longer_first(
    scores: Float[Tensor, "series candidate"],
    lengths: Int[Tensor, "series candidate"],
    fits: Float[Tensor, "series candidate"],
) -> Float[Tensor, "series candidate"]:
    """Scores, the higher of the calendar's two for the longer where it holds the shorter and leaves far
    less of the variance."""
    others, from_calendar = scores[:, :-NUM_SEASONS], scores[:, -NUM_SEASONS:]
    short, long = lengths[:, -NUM_SEASONS:].unbind(dim=1)
    left_by_short, left_by_long = (1 - fits[:, -NUM_SEASONS:]).unbind(dim=1)
    holds = (short > 0) & (long > short) & (long % short.clamp(min=1) == 0)
    holds &= left_by_long < HOLDS_ANOTHER * left_by_short
    rising = from_calendar.sort(dim=1).values
    return torch.cat([others, torch.where(holds[:, None], rising, from_calendar)], dim=1)


def _is_same(
    lengths: Tensor, fits: Tensor, from_calendar: Tensor, length: Tensor, fit: Tensor
) -> Bool[Tensor, "series candidate"]:
    """Which candidates say no more than the period just taken."""
    ratio = lengths / length.clamp(min=1)
    whole = ratio.round().clamp(min=1.0)
    near = (ratio - whole).abs() <= NEARNESS
    itself = whole == 1
    says_more = from_calendar | (fits > fit + MULTIPLE_MUST_GAIN)
    return near & (itself | ~says_more)
