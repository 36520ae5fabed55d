"""Bring a window to unit size: location and scale from its observed values alone."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from llamacast.model.config import LagLlamaConfig

OFFICIAL_SCALE_FLOOR = 1e-10
# A spread within so many of the location's last places is rounding, not movement.
LAST_PLACES = 4
# A stray is so many times farther from the median than this share of what differs from it, of which
# there must be enough to tell; and of so many values, no more than one is.
STRAY_TIMES, NEARLY_ALL, FEWEST_TO_TELL, VALUES_PER_STRAY = 30.0, 0.99, 20, 500


def location_and_scale(
    values: Float[Tensor, "series time"],
    observed: Bool[Tensor, "series time"],
    config: LagLlamaConfig,
) -> tuple[Float[Tensor, "series 1"], Float[Tensor, "series 1"]]:
    """Location and scale (positive) of each row, by `config.scaling`.

    Only observed values count, and no row depends on another. A row with nothing observed has
    location 0 and scale 1.
    """
    known = torch.where(observed, values, torch.nan)
    if config.scaling == "robust":
        location, scale = _robust(known, config)
    elif config.scaling == "mean":
        location, scale = _mean(known)
    elif config.scaling == "std":
        location, scale = _std(known)
    else:
        location, scale = known.new_zeros(len(known), 1), known.new_ones(len(known), 1)
    empty = ~observed.any(dim=1, keepdim=True)
    return location.masked_fill(empty, 0.0), scale.masked_fill(empty, 1.0)


def _robust(known: Tensor, config: LagLlamaConfig) -> tuple[Tensor, Tensor]:
    """Lower median and interquartile range (linear interpolation)."""
    last = (~known.isnan()).sum(dim=1, keepdim=True).sub(1).clamp(min=0)
    ordered = known.masked_fill(known.isnan(), torch.inf).sort(dim=1).values  # what is missing last
    location = ordered.gather(1, last.div(2, rounding_mode="floor"))
    # Quartiles of the centred values: exact also far from zero, and one sort for both.
    ordered = ordered - location
    scale = _quantile_of_sorted(ordered, last, 0.75) - _quantile_of_sorted(ordered, last, 0.25)
    if config.scale_floor == "epsilon":
        return location, scale.clamp(min=OFFICIAL_SCALE_FLOOR)
    # Quartiles coincide on intermittent series; the mean absolute deviation does not vanish
    # before the series is constant, and is the smaller of the two where tails are light.
    deviation = (known - location).abs().nanmean(dim=1, keepdim=True)
    spread = torch.maximum(scale, deviation)
    rounding = LAST_PLACES * torch.finfo(location.dtype).eps * location.abs()
    return location, torch.where(spread > rounding, spread, _unmoved(location, last + 1))


def _quantile_of_sorted(ordered: Tensor, last: Tensor, level: float) -> Tensor:
    position = last * level
    low = position.floor().long()
    below, above = ordered.gather(1, low), ordered.gather(1, torch.minimum(low + 1, last))
    return below + (above - below) * (position - low)


def _mean(known: Tensor) -> tuple[Tensor, Tensor]:
    """Location 0 and the mean absolute value, as GluonTS' MeanScaler."""
    scale = known.abs().nanmean(dim=1, keepdim=True)
    return torch.zeros_like(scale), scale.clamp(min=OFFICIAL_SCALE_FLOOR)


def _std(known: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation, with the 1e-5 that GluonTS' StdScaler adds."""
    location = known.nanmean(dim=1, keepdim=True)
    variance = (known - location).square().nanmean(dim=1, keepdim=True)
    return location, (variance + 1e-5).sqrt()


def _unmoved(location: Tensor, num_observed: Tensor) -> Tensor:
    """Scale of a constant: a single point says nothing of its spread, a long constant says none.

    Zero has no size to measure by, so a row of zeros keeps to zero at once.
    """
    return (location.abs() / num_observed.square()).clamp(min=torch.finfo(location.dtype).tiny)


def find_strays(
    values: Float[Tensor, "series time"], observed: Bool[Tensor, "series time"]
) -> Bool[Tensor, "series time"]:
    """Single values so far from all others that they are no measurements: the -9999 of a sensor.

    What comes again (a pulse of each week) or lasts (a new level at the end) is the series' own:
    strays are few, and values that are none come after them. Neither shift nor scale matters.
    """
    steps = torch.arange(values.shape[1], device=values.device)
    count = observed.sum(dim=1, keepdim=True)
    ordered = values.masked_fill(~observed, torch.inf).sort(dim=1).values
    middle = ordered.gather(1, (count - 1).clamp(min=0).div(2, rounding_mode="floor"))
    distance = (values - middle).abs().masked_fill(~observed, 0.0)
    differs = distance > 0
    num_different = differs.sum(dim=1, keepdim=True)
    ordered = distance.masked_fill(~differs, torch.inf).sort(dim=1).values
    usual = ordered.gather(1, ((num_different - 1).clamp(min=0) * NEARLY_ALL).long())
    far = distance > STRAY_TIMES * usual
    far &= steps < torch.where(observed & ~far, steps, -1).amax(dim=1, keepdim=True)
    few = far.sum(dim=1, keepdim=True) <= (count // VALUES_PER_STRAY).clamp(min=1)
    return far & few & (num_different >= FEWEST_TO_TELL)


def standardise(
    values: Float[Tensor, "series time"], observed: Bool[Tensor, "series time"]
) -> tuple[Float[Tensor, "series time"], Float[Tensor, "series 1"], Float[Tensor, "series 1"]]:
    """Values in float32 with mean 0 and deviation 1 over what is observed (0 elsewhere), the mean
    and the deviation.

    A constant row has the deviation 0, and so whatever is told in its units; one with nothing
    observed has also the mean 0.
    """
    # In a power of two of the largest: sums and squares of what is near the ends of the range of
    # floats would leave it.
    largest = values.masked_fill(~observed, 0.0).abs().amax(dim=1, keepdim=True)
    unit = torch.where(largest > 0, _power_of_two(largest), 1.0)
    known = (values / unit).masked_fill(~observed, 0.0)
    count = observed.sum(dim=1, keepdim=True).clamp(min=1)
    # From one of the values, so that a constant is its own mean, to the last place.
    first = known.gather(1, observed.to(torch.uint8).argmax(dim=1, keepdim=True))
    offset = (known - first).masked_fill(~observed, 0.0)
    mean = offset.sum(dim=1, keepdim=True) / count
    centred = (offset - mean).masked_fill(~observed, 0.0)
    location = first + mean
    scale = (centred.square().sum(dim=1, keepdim=True) / count).sqrt()
    moves = scale > LAST_PLACES * torch.finfo(values.dtype).eps * location.abs()
    scale = torch.where(moves, scale, 0.0)
    standardised = centred / torch.where(moves, scale, 1.0) * moves
    return standardised.float(), location * unit, scale * unit


def _power_of_two(largest: Tensor) -> Tensor:
    """The one below each; which of them it is does not matter."""
    if torch.compiler.is_exporting():  # other formats take no floats apart
        return torch.pow(2.0, largest.log2().floor())
    return torch.ldexp(torch.ones_like(largest), torch.frexp(largest).exponent - 1)
