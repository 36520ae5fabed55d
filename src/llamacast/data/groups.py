"""Series of a corpus summed over groups: what a region is to its shops."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from llamacast.data.aggregates import GROUPS, IN
from llamacast.data.corpora import SHORTEST_SERIES, Corpus, DataSet, join

FEWEST_BESIDE = 4
"""Series that begin together, below which no groups are made of them."""
SMALLEST_GROUP, LARGEST_GROUP = 2, 64
OF_EQUAL_WEIGHT = 0.5
"""Share of groups whose series count alike, however large they are."""


def sum_groups(
    corpus: Corpus, lengths: npt.NDArray[np.int64], most: int, seed: int
) -> Corpus | None:
    """Up to `most` groups of each data set: random series of it that begin together, summed.

    Of a group of some size there are never more than there are series to make them of. Only the first
    `lengths` steps of a series are looked at; a group is as long as the shortest of its series, and
    a step of it is known where at least half of them are. None if no series begin together.
    """
    rng = np.random.default_rng((seed, 1))
    found = []
    for number, name in enumerate(corpus.datasets):
        members = np.arange(*corpus.dataset_bounds[number : number + 2])
        together = [
            alike
            for alike in _begin_together(corpus, members, lengths)
            if len(alike) >= FEWEST_BESIDE
        ]
        total = sum(map(len, together))
        made = []
        for alike in together:
            for _ in range(int(np.ceil(most * len(alike) / max(most, total)))):
                summed = _sum(corpus, lengths, _draw(rng, alike), rng.random() < OF_EQUAL_WEIGHT)
                if summed is not None:
                    made.append((summed, corpus.starts[alike[0]], corpus.frequencies[alike[0]]))
        if made:
            values, starts, frequencies = zip(*made, strict=True)
            ids = [str(place) for place in range(len(made))]
            label = f"{name}{IN}{GROUPS}"
            found.append(DataSet(label, ids, values, np.array(starts), frequencies))
    return join(found) if found else None


def _begin_together(
    corpus: Corpus, members: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> list[npt.NDArray[np.int64]]:
    """Series that may be learnt from, by frequency and first stamp."""
    found: dict[tuple[str, np.datetime64], list[int]] = {}
    for member in members:
        frequency = corpus.frequencies[member]
        if frequency is not None and lengths[member] >= SHORTEST_SERIES and corpus.moves[member]:
            found.setdefault((frequency.name, corpus.starts[member]), []).append(int(member))
    return [np.array(alike) for alike in found.values()]


def _draw(rng: np.random.Generator, alike: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Some of them; small groups are as frequent as large ones, by the logarithm of their size."""
    largest = min(LARGEST_GROUP, len(alike) - 1)
    size = np.exp(rng.uniform(np.log(SMALLEST_GROUP), np.log(largest + 1)))
    return rng.choice(alike, int(size), replace=False)


def _sum(
    corpus: Corpus,
    lengths: npt.NDArray[np.int64],
    group: npt.NDArray[np.int64],
    of_equal_weight: bool,
) -> npt.NDArray[np.float32] | None:
    """None where the sum does not move, or cannot be told."""
    length = int(lengths[group].min())
    rows = np.stack([corpus.series(member)[:length] for member in group]).astype(np.float64)
    known = np.isfinite(rows)
    counts = known.sum(axis=1, keepdims=True)
    rows = np.where(known, rows, 0.0)
    means = rows.sum(axis=1, keepdims=True) / np.maximum(counts, 1)
    away = np.abs(rows - means).sum(axis=1, keepdims=True, where=known) / np.maximum(counts, 1)
    if of_equal_weight:
        rows, means = (part / np.where(away > 0, away, 1.0) for part in (rows, means))
    # What is missing is as it usually is, so that no step is lower for it.
    total = np.where(known, rows, means).sum(axis=0)
    total = np.where(2 * known.sum(axis=0) >= len(group), total, np.nan)
    largest = np.nanmax(np.abs(total), initial=0.0)
    if not 0 < largest < np.finfo(np.float32).max or np.nanmax(total) <= np.nanmin(total):
        return None
    return total.astype(np.float32)
