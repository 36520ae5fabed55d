"""Series of a corpus in longer steps: the days, weeks and months of what is kept by the hour."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from llamacast.data.calendar import Frequency, Stamps, parse_frequency, stamps_from
from llamacast.data.corpora import Corpus, DataSet, join

LONGER_STEPS = ("15min", "h", "D", "W-SUN", "MS")
FEWEST_PER_STEP = 3
SHORTEST_AGGREGATE = 80
"""Steps below which it is left out: few are learnt from as well from what is short in itself."""
FEWEST_VALUES = 5
"""Different ones."""
IN, GROUPS = " in ", "groups"
"""What data sets that are made of others are called: `sales in D`, `sales in groups in D`."""
MONDAY = np.datetime64("1970-01-05", "D")


def aggregate(corpus: Corpus, lengths: npt.NDArray[np.int64]) -> Corpus | None:
    """Means over each of `LONGER_STEPS` of which at least half is known, a data set for each and each. What
    begins before a series or goes on after it is left out.

    Only the first `lengths` steps of a series are looked at. Steps are those of the calendar: days
    begin at midnight, weeks on Monday, months on the first. Series without dates, or that would be too
    short or hardly move, are left out. None if nothing is left.
    """
    found = []
    for name in LONGER_STEPS:
        frequency = parse_frequency(name)
        for number, dataset in enumerate(corpus.datasets):
            members = range(*corpus.dataset_bounds[number : number + 2])
            made = [
                (corpus.ids[member], *longer)
                for member in members
                if (longer := _longer(corpus, member, int(lengths[member]), frequency)) is not None
            ]
            if made:
                ids, values, starts = zip(*made, strict=True)
                label, steps = f"{dataset}{IN}{name}", [frequency] * len(made)
                found.append(DataSet(label, ids, values, np.array(starts), steps))
    return join(found) if found else None


def origin(name: str) -> str:
    """The data set that one of longer steps, or of groups, was made from."""
    before, _, last = name.rpartition(IN)
    return origin(before) if last in (*LONGER_STEPS, GROUPS) else name


def _longer(
    corpus: Corpus, member: int, length: int, frequency: Frequency
) -> tuple[npt.NDArray[np.float32], np.datetime64] | None:
    """Values and first stamp of a series in longer steps."""
    own = corpus.frequencies[member]
    if own is None or length < FEWEST_PER_STEP * SHORTEST_AGGREGATE:
        return None
    # With the step before the first and the one after the last: whether they lie in the same longer ones.
    around = stamps_from(corpus.starts[member], own, -1, length + 2)
    begins_whole = _numbers(around[:2], frequency)[1][1] > 0
    first, numbers = _numbers(around[1:], frequency)
    ends_whole = numbers[-1] > numbers[-2]
    numbers = numbers[:-1]
    num_steps = int(numbers[-1]) + 1
    if num_steps < SHORTEST_AGGREGATE or length < FEWEST_PER_STEP * (num_steps - 1):
        return None
    values = corpus.series(member)[:length].astype(np.float64)
    known = np.isfinite(values)
    counts = np.bincount(numbers[known], minlength=num_steps)
    sums = np.bincount(numbers[known], values[known], minlength=num_steps)
    enough = counts >= max(1.0, np.bincount(numbers).max() / 2)
    enough[0] &= begins_whole
    enough[-1] &= ends_whole
    if enough.sum() < SHORTEST_AGGREGATE:
        return None
    means = np.where(enough, sums / np.maximum(counts, 1), np.nan).astype(np.float32)
    begin, last = np.flatnonzero(enough)[[0, -1]]
    means = means[begin : last + 1]
    if len(np.unique(means[~np.isnan(means)])) < FEWEST_VALUES:
        return None
    return means, stamps_from(first, frequency, int(begin), 1)[0]


def _numbers(stamps: Stamps, frequency: Frequency) -> tuple[np.datetime64, npt.NDArray[np.int64]]:
    """The stamp of the longer step that the first one lies in, and how many come before each one's."""
    if frequency.months:
        bins = stamps.astype("datetime64[M]")
        return bins[0].astype("datetime64[ns]"), (bins - bins[0]).astype(np.int64)
    origin = (MONDAY if frequency.unit == "W" else np.datetime64(0, "D")).astype("datetime64[ns]")
    width = np.timedelta64(frequency.nanoseconds, "ns")
    numbers = (stamps - origin) // width
    begin = origin + numbers[0] * width
    # A week is named by its last day.
    label = begin + np.timedelta64(6, "D") if frequency.unit == "W" else begin
    return label, (numbers - numbers[0]).astype(np.int64)
