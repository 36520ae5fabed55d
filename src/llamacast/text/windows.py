"""Windows of systems as tokens: what a decoder learns from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from llamacast.text.codec import CodecConfig, encode, fit
from llamacast.text.vocabulary import Tokens, Writing
from llamacast.training.loop import Batch

System = npt.NDArray[np.float64]
"""Series that are told together, `(step, channel)`; NaN where missing."""

NOT_LEARNT = -1


def batch_of(windows: Sequence[Tokens]) -> Batch:
    """Windows side by side, shorter ones filled up behind, where nothing is learnt from it.

    Returns:
        `ids` and `columns`, `(window, token)`, and `count`, the tokens that are learnt from: each but
        a window's first, as far as they are numbers.
    """
    length = max(len(one.ids) for one in windows)
    ids = np.zeros((len(windows), length), dtype=np.int64)
    columns = np.full((len(windows), length), NOT_LEARNT, dtype=np.int64)
    for row, one in enumerate(windows):
        ids[row, : len(one.ids)] = one.ids
        columns[row, : len(one.ids)] = one.columns
    columns[:, 0] = NOT_LEARNT
    return {
        "ids": torch.from_numpy(ids),
        "columns": torch.from_numpy(columns),
        "count": torch.tensor(float((columns >= 0).sum())),
    }


def usable(system: System, num_known: int, codec: CodecConfig) -> bool:
    """Whether each channel has something to scale by, and logarithms where these are asked for."""
    known = system[:num_known]
    if not np.isfinite(known).any(axis=0).all():
        return False
    if codec.transform.startswith("log"):
        return not (system <= 0).any()
    return True


def tokens_of(system: System, num_known: int, codec: CodecConfig, writing: Writing) -> Tokens:
    """A system by the scale of its first `num_known` steps alone."""
    scales = [fit(system[:num_known, one], codec) for one in range(system.shape[1])]
    return writing.encode(encode(system, scales)[0])
