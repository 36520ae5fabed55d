"""Paths of several series made joint: sampled each for itself, then dealt out so that they move together.

How series move together is read off past forecasts: the levels at which values fell, as normal scores,
and their correlation between series at the same step. Samples of each series and step stay what they
are; only which of them make up a path changes, so that their ranks follow a Gaussian copula.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from llamacast.applied.request import Applied
from llamacast.data.panel import Panel
from llamacast.forecast import DataError

Floats = npt.NDArray[np.float64]

# Steps of the past that tell how series move together, and those that these are told from.
STEPS_COMPARED, STEPS_BEFORE = 256, 512
# Common steps by which a correlation is believed by half, against none.
STEPS_ASSUMED = 10
LARGEST_SCORE = 3.0


def tie(network: Applied, panel: Panel, samples: Floats) -> Floats:
    """Joint samples over the series of each group of a panel, `(series, sample, horizon)`."""
    found = samples.copy()
    for members in _members(panel):
        own = panel.choose(members)
        found[members] = reorder(samples[members], correlation(past_scores(network, own)))
    return found


def check_ends(panel: Panel) -> None:
    """Refuse groups that cannot be tied.

    Raises:
        DataError: if series of a group do not end at the same time.
    """
    for members in _members(panel):
        _refuse_other_ends(panel.choose(members))


def _members(panel: Panel) -> list[list[int]]:
    """Numbers of the series of each group that has several; without groups all are one."""
    found: dict[Any, list[int]] = {}
    for number, group in enumerate(panel.groups or [0] * len(panel)):
        found.setdefault(group, []).append(number)
    return [members for members in found.values() if len(members) > 1]


def past_scores(network: Applied, panel: Panel) -> pd.DataFrame:
    """Normal scores of the levels at which the last values of each series fell; a column for each
    series, a row for each time."""
    lengths = np.array([len(values) for values in panel.values])
    firsts = np.maximum(lengths - STEPS_COMPARED - STEPS_BEFORE, 0)
    recent = replace(panel, covariates=None, groups=None).stretch(firsts.tolist(), lengths.tolist())
    levels = network.hindcast(recent, False).levels(recent.values)
    columns = {}
    for number, (level, axis) in enumerate(zip(levels, recent.axes, strict=True)):
        score = torch.special.ndtri(torch.from_numpy(level)).numpy()
        kept = score[-STEPS_COMPARED:].clip(-LARGEST_SCORE, LARGEST_SCORE)
        index = axis.index(len(level) - len(kept), len(kept))
        columns[number] = pd.Series(kept, index)
    return pd.DataFrame(columns)


def correlation(scores: pd.DataFrame) -> Floats:
    """Between columns, shrunk towards none where few rows have both; positive definite."""
    known = scores.notna().to_numpy().astype(np.float64)
    common = known.T @ known
    found = scores.corr(min_periods=3).fillna(0.0).to_numpy(copy=True)
    found *= common / (common + STEPS_ASSUMED)
    np.fill_diagonal(found, 1.0)
    values, vectors = np.linalg.eigh(found)
    found = (vectors * values.clip(min=1e-6)) @ vectors.T
    width = np.sqrt(np.diag(found))
    mended: Floats = found / np.outer(width, width)
    return mended


def reorder(samples: Floats, between: Floats) -> Floats:
    """Deal out each series' samples of each step anew, so that series correlate as asked.

    Each path's normal scores are mixed over series by the symmetric root of the correlation, which
    keeps most of a series' own way through time; ranks of the mixtures say which sample is whose.
    """
    count = samples.shape[1]
    ranks = samples.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    scores = torch.special.ndtri(torch.from_numpy((ranks + 0.5) / count)).numpy()
    values, vectors = np.linalg.eigh(between)
    root = (vectors * np.sqrt(values.clip(min=0.0))) @ vectors.T
    mixed = np.einsum("ij,jsh->ish", root, scores)
    places = mixed.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    return np.take_along_axis(np.sort(samples, axis=1), places, axis=1)


def _refuse_other_ends(panel: Panel) -> None:
    ends = [axis.index(len(v) - 1, 1)[0] for axis, v in zip(panel.axes, panel.values, strict=True)]
    for number, end in enumerate(ends):
        if end != ends[0]:
            raise DataError(
                f"series {panel.ids[0]!r} ends at {ends[0]} and {panel.ids[number]!r} at {end}; joint "
                "paths need series of a group to end at the same time"
            )
