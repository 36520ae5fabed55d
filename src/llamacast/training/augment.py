"""Alter training windows: in frequency, in size, in time, and in what is seen of them.

A window here is past and future joined. `values` are 0 where `observed` is False, and come back so.
Nothing is changed in place; every random choice comes from the generator that is passed, which
must live on the windows' device.

Whatever has to do with a window's size is done in its own units, its values less their mean in
mean absolute deviations: neither the unit nor the level of a series changes what happens to it,
and float32 is enough far from zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Windows: TypeAlias = tuple[Float[Tensor, "series time"], Bool[Tensor, "series time"]]

# What makes another series of a window comes before what disturbs its values; hiding comes last,
# as the other steps would only see less.
ORDER = (
    "downsample",
    "flip_time",
    "mixup",
    "freq_mix",
    "freq_mask",
    "scale_magnitude",
    "flip_sign",
    "jitter",
    "censor",
    "drop_stretches",
)
LOSES_CALENDAR = frozenset({"downsample", "flip_time"})
LARGEST_FACTOR = 8
NUM_PROTECTED = 3


@dataclass(frozen=True)
class AugmentConfig:
    """How often windows are altered, and how.

    Raises:
        ValueError: if a number is not within 0 and 1; it names the field.
    """

    freq_mask: float = 0.1
    """Probability that some of a window's frequencies are removed."""
    freq_mask_rate: float = 0.5
    """Share of its frequencies that go."""
    freq_mix: float = 0.1
    """Probability that some of a window's frequencies are another window's."""
    freq_mix_rate: float = 0.25
    """Share of its frequencies that are exchanged, the dominant ones left out."""
    mixup: float = 0.1
    """Probability that a window is averaged with another."""
    jitter: float = 0.05
    """Probability of added noise."""
    scale_magnitude: float = 0.05
    """Probability that a window's swings grow and shrink slowly over time."""
    flip_sign: float = 0.05
    """Probability that values change their sign."""
    flip_time: float = 0.02
    """Probability that a window runs backwards."""
    downsample: float = 0.1
    """Probability that steps are averaged in blocks."""
    censor: float = 0.05
    """Probability that values are clipped at a quantile."""
    drop_stretches: float = 0.1
    """Probability that stretches of the past go missing."""
    whole_batch: bool = False
    """Whether one draw decides for all windows of a batch; else each has its own."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value <= 1:
                raise ValueError(f"{field.name} must lie between 0 and 1, not {value}")


def nothing() -> AugmentConfig:
    """Windows as they are."""
    return AugmentConfig(**dict.fromkeys(ORDER, 0.0))  # type: ignore[arg-type]


def published() -> AugmentConfig:
    """What Lag-Llama was trained with (arXiv 2310.08278): whole batches, frequencies only.

    How often and at which rates is the paper's; what is done to a chosen window is `freq_mask` and
    `freq_mix`, not their published slips.
    """
    return replace(nothing(), freq_mask=0.5, freq_mix=0.5, whole_batch=True)


def augment(
    values: Float[Tensor, "series time"],
    observed: Bool[Tensor, "series time"],
    config: AugmentConfig,
    generator: torch.Generator,
    history_length: int,
) -> tuple[Float[Tensor, "series time"], Bool[Tensor, "series time"], Bool[Tensor, "series"]]:
    """Alter each window by each augmentation with its probability, in the order of `ORDER`.

    The first `history_length` steps (at least one) are the past. Windows whose past is constant or
    missing, or would become so, come back as they were.

    Returns:
        values, observed, and which windows' calendar still holds. Where it does not, the window
        runs at another pace or backwards, and no calendar can be told of it: use zeros, as for
        series without one. A mixed window keeps its own calendar, being for the most part itself.
    """
    assert 1 <= history_length <= values.shape[1], "the past is some of the window"
    new_values, new_observed = values.clone(), observed.clone()
    keeps_calendar = torch.ones_like(observed[:, 0])
    alterable = past_moves(values, observed, history_length)
    for name in ORDER:
        rows = _choose(alterable, name, config, generator)
        if len(rows) == 0:
            continue
        batch = _Batch(new_values, new_observed, rows, history_length)
        new_values[rows], new_observed[rows] = _alter(name, batch, config, generator)
        if name in LOSES_CALENDAR:
            keeps_calendar[rows] = False
    ruined = ~past_moves(new_values, new_observed, history_length)
    return (
        torch.where(ruined[:, None], values, new_values),
        torch.where(ruined[:, None], observed, new_observed),
        keeps_calendar | ruined,
    )


class _Batch(NamedTuple):
    """All windows, and which of them are to be altered."""

    values: Tensor
    observed: Tensor
    rows: Tensor
    history_length: int


def _choose(
    alterable: Bool[Tensor, "series"], name: str, config: AugmentConfig, generator: torch.Generator
) -> Int[Tensor, "chosen"]:
    num_draws = 1 if config.whole_batch else len(alterable)
    draws = torch.rand(num_draws, generator=generator, device=alterable.device)
    return (alterable & (draws < getattr(config, name))).nonzero().squeeze(1)


def _alter(
    name: str, batch: _Batch, config: AugmentConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The chosen rows of `batch`, altered by the augmentation called `name`."""
    values, observed = batch.values[batch.rows], batch.observed[batch.rows]
    match name:
        case "downsample":
            return _downsample_each(values, observed, generator, batch.history_length)
        case "flip_time":
            return flip_time(values, observed)
        case "drop_stretches":
            return drop_stretches(values, observed, generator, batch.history_length)
        case "mixup":
            partners = _draw_partners(batch.values, batch.observed, generator, batch.rows)
            return mixup(values, observed, generator, partners), observed
        case "freq_mix":
            partners = _draw_partners(batch.values, batch.observed, generator, batch.rows)
            rate = config.freq_mix_rate
            return freq_mix(values, observed, rate, generator, partners=partners), observed
        case "freq_mask":
            return freq_mask(values, observed, config.freq_mask_rate, generator), observed
        case "scale_magnitude":
            return scale_magnitude(values, observed, generator), observed
        case "flip_sign":
            return flip_sign(values, observed), observed
        case "jitter":
            return jitter(values, observed, generator), observed
        case "censor":
            return censor(values, observed, generator), observed
    raise AssertionError(name)


def past_moves(
    values: Float[Tensor, "series time"],
    observed: Bool[Tensor, "series time"],
    history_length: int,
) -> Bool[Tensor, "series"]:
    """Whether two observed values of the past differ."""
    past, seen = values[:, :history_length], observed[:, :history_length]
    highest = past.masked_fill(~seen, -torch.inf).amax(dim=1)
    return past.masked_fill(~seen, torch.inf).amin(dim=1) < highest


# ------------------------------------------------------------------ a window's own units


def _to_own_units(
    values: Float[Tensor, "series time"], observed: Bool[Tensor, "series time"]
) -> tuple[Float[Tensor, "series time"], Float[Tensor, "series 1"], Float[Tensor, "series 1"]]:
    """Values in own units (0 where missing), the mean, and the mean absolute deviation.

    The spread is exactly 0 for constant and for missing windows. It is not the standard deviation,
    since squares leave float32's range long before the values do.
    """
    count = observed.sum(dim=1, keepdim=True).clamp(min=1)
    # Averaging distances from one of the values: a sum of the values themselves would round to
    # the level's last places, and a constant would not be its own mean.
    anchor = values.gather(1, _first(observed))
    location = (
        anchor + (values - anchor).masked_fill(~observed, 0.0).sum(dim=1, keepdim=True) / count
    )
    centred = (values - location).masked_fill(~observed, 0.0)
    spread = centred.abs().sum(dim=1, keepdim=True) / count
    return centred / torch.where(spread > 0, spread, 1.0), location, spread


def _from_own_units(
    scaled: Float[Tensor, "series time"],
    observed: Bool[Tensor, "series time"],
    location: Float[Tensor, "series 1"],
    spread: Float[Tensor, "series 1"],
) -> Float[Tensor, "series time"]:
    return (location + spread * scaled).masked_fill(~observed, 0.0)


def _first(observed: Bool[Tensor, "series time"]) -> Int[Tensor, "series 1"]:
    """The first observed step; 0 where there is none."""
    return observed.to(torch.uint8).argmax(dim=1, keepdim=True)


def _bridge_gaps(
    values: Float[Tensor, "series time"], observed: Bool[Tensor, "series time"]
) -> Float[Tensor, "series time"]:
    """Draw a straight line across each gap, and from the window's end around to its beginning.

    To a Fourier transform the window is a ring. Zeros in a gap, or the mean, would be two jumps,
    which every frequency takes part in; a line joins the values on both sides. Padding is a gap of
    the ring like any other.
    """
    length = values.shape[1]
    steps = torch.arange(length, device=values.device)
    before = torch.where(observed, steps, -1).cummax(dim=1).values
    before = torch.where(before < 0, before[:, -1:] - length, before)
    after = torch.where(observed, steps, 2 * length).flip(1).cummin(dim=1).values.flip(1)
    after = torch.where(after >= length, after[:, :1] + length, after)
    left, right = values.gather(1, before % length), values.gather(1, after % length)
    return left + (right - left) * ((steps - before) / (after - before).clamp(min=1))


def _uniform(
    values: Float[Tensor, "series time"],
    generator: torch.Generator,
    low: float,
    high: float,
    num_columns: int = 1,
) -> Float[Tensor, "series column"]:
    shape = (len(values), num_columns)
    draws = torch.rand(shape, generator=generator, device=values.device, dtype=values.dtype)
    return low + (high - low) * draws


def _draw_partners(
    values: Float[Tensor, "series time"],
    observed: Bool[Tensor, "series time"],
    generator: torch.Generator,
    rows: Int[Tensor, "chosen"] | None = None,
) -> tuple[Float[Tensor, "chosen time"], Bool[Tensor, "chosen time"]]:
    """Another window for each of `rows` (all of them by default); itself where it is alone."""
    size = len(values)
    if rows is None:
        rows = torch.arange(size, device=values.device)
    ahead = torch.randint(1, max(size, 2), rows.shape, generator=generator, device=values.device)
    partners = (rows + ahead) % size
    return values[partners], observed[partners]


# ------------------------------------------------------------------ frequencies


def freq_mask(
    values: Float[Tensor, "series time"],
    observed: Bool[Tensor, "series time"],
    rate: float,
    generator: torch.Generator,
) -> Float[Tensor, "series time"]:
    """Remove each frequency but zero with probability `rate` (Freq-Mask, arXiv 2302.09292).

    The level stays: at rate 1 a flat line is left, at the mean of the window with its gaps bridged.
    """
    scaled, location, spread = _to_own_units(values, observed)
    spectrum = torch.fft.rfft(_bridge_gaps(scaled, observed))
    drop = _uniform(values, generator, 0.0, 1.0, spectrum.shape[1]) < rate
    drop[:, 0] = False
    # Told the length: an odd one cannot be guessed from the spectrum.
    masked = torch.fft.irfft(spectrum.masked_fill(drop, 0.0), n=values.shape[1])
    return _from_own_units(masked, observed, location, spread)


def freq_mix(
    values: Float[Tensor, "series time"],
    observed: Bool[Tensor, "series time"],
    rate: float,
    generator: torch.Generator,
    num_protected: int = NUM_PROTECTED,
    partners: Windows | None = None,
) -> Float[Tensor, "series time"]:
    """Exchange frequencies for a partner's with probability `rate` (Freq-Mix, arXiv 2302.09292).

    Zero and the `num_protected` frequencies of largest amplitude stay the window's own. The partner
    is brought to the window's location and spread first. It is row for row from `partners`, or
    another window of these, drawn at random. Nothing is taken from a constant or missing partner.
    """
    others = partners or _draw_partners(values, observed, generator)
    scaled, location, spread = _to_own_units(values, observed)
    other, _, other_spread = _to_own_units(*others)
    spectrum = torch.fft.rfft(_bridge_gaps(scaled, observed))
    swap = _uniform(values, generator, 0.0, 1.0, spectrum.shape[1]) < rate
    swap &= (other_spread > 0) & ~_dominant(spectrum, num_protected)
    mixed = torch.where(swap, torch.fft.rfft(_bridge_gaps(other, others[1])), spectrum)
    return _from_own_units(torch.fft.irfft(mixed, n=values.shape[1]), observed, location, spread)


def _dominant(spectrum: Tensor, num_protected: int) -> Bool[Tensor, "series frequency"]:
    """Frequency zero and the `num_protected` others of largest amplitude, by rank."""
    swings = spectrum[:, 1:].abs()
    largest = swings.topk(min(num_protected, swings.shape[1]), dim=1).indices + 1
    protected = torch.zeros_like(spectrum, dtype=torch.bool)
    protected[:, 0] = True
    return protected.scatter(1, largest, True)


def published_freq_mask(
    values: Float[Tensor, "series time"],
    uniforms: Float[Tensor, "series frequency"],
    rate: float = 0.5,
) -> Float[Tensor, "series time"]:
    """Freq-Mask as the official Lag-Llama computes it (commit 013ff0c), to compare with.

    A frequency goes, zero too, where its uniform number is below `rate`. Missing values count as
    zeros. A window of odd length is shifted by one step (see `_published_inverse`).
    """
    masked = torch.fft.rfft(values).masked_fill(uniforms < rate, 0.0)
    return _published_inverse(masked, values)


def published_freq_mix(
    values: Float[Tensor, "series time"],
    uniforms: Float[Tensor, "series frequency"],
    partners: Int[Tensor, "series"],
    rate: float = 0.25,
) -> Float[Tensor, "series time"]:
    """Freq-Mix as the official Lag-Llama computes it (commit 013ff0c), to compare with.

    A frequency is the one of window `partners[row]`, unscaled, where its uniform number is below
    `rate`. The official code means to leave out the three largest amplitudes, but tests which
    frequency the p-th largest is, not which rank frequency p has: p is left out where the p-th
    largest amplitude is one of frequencies 0, 1, 2.
    """
    spectrum = torch.fft.rfft(values)
    ordered = spectrum.abs().argsort(dim=1, descending=True)
    swap = (uniforms < rate) & (ordered > 2)
    return _published_inverse(torch.where(swap, spectrum[partners], spectrum), values)


def _published_inverse(
    spectrum: Tensor, values: Float[Tensor, "series time"]
) -> Float[Tensor, "series time"]:
    """Back to steps without being told how many: one too few where the length is odd.

    The missing one is made up for by the original first value, in front of the others.
    """
    back = torch.fft.irfft(spectrum)
    num_lost = values.shape[1] - back.shape[1]
    return torch.cat([values[:, :num_lost], back], dim=1)


# ------------------------------------------------------------------ size


def mixup(
    values: Float[Tensor, "series time"],
    observed: Bool[Tensor, "series time"],
    generator: torch.Generator,
    partners: Windows | None = None,
) -> Float[Tensor, "series time"]:
    """Average each window with a partner brought to its own location and spread.

    The window's own weight is between a half and one. Partners are those of `freq_mix`; across
    their gaps goes a straight line.
    """
    others = partners or _draw_partners(values, observed, generator)
    scaled, location, spread = _to_own_units(values, observed)
    other, _, other_spread = _to_own_units(*others)
    weight = torch.where(other_spread > 0, _uniform(values, generator, 0.5, 1.0), 1.0)
    mixed = torch.lerp(_bridge_gaps(other, others[1]), scaled, weight)
    return _from_own_units(mixed, observed, location, spread)


def jitter(
    values: Float[Tensor, "series time"],
    observed: Bool[Tensor, "series time"],
    generator: torch.Generator,
    largest: float = 0.2,
) -> Float[Tensor, "series time"]:
    """Add normal noise, its deviation up to `largest` of each window's spread."""
    scaled, location, spread = _to_own_units(values, observed)
    noise = torch.empty_like(scaled).normal_(generator=generator)
    strength = _uniform(values, generator, 0.0, largest)
    return _from_own_units(scaled + strength * noise, observed, location, spread)


def scale_magnitude(
    values: Float[Tensor, "series time"],
    observed: Bool[Tensor, "series time"],
    generator: torch.Generator,
    strength: float = 0.3,
    num_waves: int = 4,
) -> Float[Tensor, "series time"]:
    """Multiply distances from each window's mean by a smooth positive curve around 1.

    Its logarithm is a sum of `num_waves` half and whole waves over the window with normal weights,
    of deviation `strength` altogether.
    """
    scaled, location, spread = _to_own_units(values, observed)
    time = torch.linspace(0.0, math.pi, values.shape[1], device=values.device, dtype=values.dtype)
    waves = torch.cos(torch.arange(1, num_waves + 1, device=values.device)[:, None] * time)
    weights = values.new_empty(len(values), num_waves).normal_(generator=generator)
    curve = (strength * math.sqrt(2 / num_waves) * (weights @ waves)).exp()
    return _from_own_units(scaled * curve, observed, location, spread)


def flip_sign(
    values: Float[Tensor, "series time"], observed: Bool[Tensor, "series time"]
) -> Float[Tensor, "series time"]:
    """Minus the values. About zero, not about the mean: a debt is a credit counted the other way."""
    return (-values).masked_fill(~observed, 0.0)


def censor(
    values: Float[Tensor, "series time"],
    observed: Bool[Tensor, "series time"],
    generator: torch.Generator,
    largest_share: float = 0.4,
) -> Float[Tensor, "series time"]:
    """Clip each window from below or from above, as a sold-out shop or a sensor's limit does.

    The bound is one of the window's values; less than `largest_share` of them lie beyond it.
    """
    ordered = values.masked_fill(~observed, torch.inf).sort(dim=1).values
    last = observed.sum(dim=1, keepdim=True).sub(1).clamp(min=0)
    beyond = (last * _uniform(values, generator, 0.0, largest_share)).long()
    from_below = _uniform(values, generator, 0.0, 1.0) < 0.5
    bound = ordered.gather(1, torch.where(from_below, beyond, last - beyond))
    clipped = torch.where(from_below, values.maximum(bound), values.minimum(bound))
    return clipped.masked_fill(~observed, 0.0)


# ------------------------------------------------------------------ time


def flip_time(
    values: Float[Tensor, "series time"], observed: Bool[Tensor, "series time"]
) -> Windows:
    """Let each window run backwards from its last observed step to its first.

    What lies before or after stays missing where it is, so that padding remains on its side. The
    calendar no longer holds: weekdays would run backwards. Drop it.
    """
    length = values.shape[1]
    steps = torch.arange(length, device=values.device)
    first, last = _first(observed), length - 1 - _first(observed.flip(1))
    mirrored = first + last - steps
    source = torch.where((steps >= first) & (steps <= last), mirrored, steps)
    return values.gather(1, source), observed.gather(1, source)


def downsample(
    values: Float[Tensor, "series time"], observed: Bool[Tensor, "series time"], factor: int
) -> Windows:
    """Average blocks of `factor` steps, counted back from the window's end.

    A block's mean is that of its observed values, and missing if there are none. The blocks stand
    at the end of a window as long as before; ahead of them it is padding. First steps that fill no
    block are left out.

    The calendar no longer holds: each step now is `factor` steps long. It would have to be asked
    anew for the block's stamps, in a frequency that may have no name (a day of 24 hours by 7);
    otherwise drop it.

    Raises:
        ValueError: if `factor` is below 1 or exceeds the window.
    """
    num_series, length = values.shape
    if not 1 <= factor <= length:
        raise ValueError(f"factor must lie between 1 and {length}, not {factor}")
    blocks = (num_series, length // factor, factor)
    rest = length % factor
    scaled, location, spread = _to_own_units(values, observed)
    counts = observed[:, rest:].reshape(blocks).sum(dim=2)
    means = scaled[:, rest:].reshape(blocks).sum(dim=2) / counts.clamp(min=1)
    padding = (length - blocks[1], 0)
    seen = torch.nn.functional.pad(counts > 0, padding)
    padded = torch.nn.functional.pad(means, padding)
    return _from_own_units(padded, seen, location, spread), seen


def _downsample_each(
    values: Float[Tensor, "series time"],
    observed: Bool[Tensor, "series time"],
    generator: torch.Generator,
    history_length: int,
) -> Windows:
    """Downsample each window by a factor of its own, up to `LARGEST_FACTOR`.

    A smaller bound holds where the future, which stays as many steps, would otherwise be longer
    than the past that is left; where even 2 is too much, nothing happens.
    """
    length = values.shape[1]
    largest = min(LARGEST_FACTOR, length // (2 * max(1, length - history_length)))
    if largest < 2:
        return values, observed
    drawn = torch.randint(2, largest + 1, (len(values),), generator=generator, device=values.device)
    new_values, new_observed = values.clone(), observed.clone()
    for factor in drawn.unique().tolist():
        rows = drawn == factor
        new_values[rows], new_observed[rows] = downsample(values[rows], observed[rows], factor)
    return new_values, new_observed


def drop_stretches(
    values: Float[Tensor, "series time"],
    observed: Bool[Tensor, "series time"],
    generator: torch.Generator,
    history_length: int,
    num_stretches: int = 3,
    largest_share: float = 0.15,
) -> Windows:
    """Hide stretches of the past, each up to `largest_share` of it; they may overlap.

    The past begins at the first observed step, so that short series lose no larger share, and ends
    with step `history_length`. What follows is asked for, and stays.
    """
    steps = torch.arange(values.shape[1], device=values.device)
    begin = _first(observed[:, :history_length])
    span = history_length - begin
    lengths = span * _uniform(values, generator, 0.0, largest_share, num_stretches)
    starts = begin + (span - lengths) * _uniform(values, generator, 0.0, 1.0, num_stretches)
    ends = starts + lengths
    hidden = (steps >= starts[..., None]) & (steps < ends[..., None])
    # Rounded, the last stretch may end a little after the past does.
    kept = observed & ~(hidden.any(dim=1) & (steps < history_length))
    return values.masked_fill(~kept, 0.0), kept
