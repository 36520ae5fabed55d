"""A table of short series, whose rows lie anywhere, in files of a folder."""

from __future__ import annotations

import numpy as np
import pandas as pd

from llamacast.scaleout import FrameForecaster

ASKED = FrameForecaster(horizon=5, quantiles=(0.1, 0.5, 0.9), num_samples=20, device="cpu")


def table(count=40, length=30, seed=0):
    rng = np.random.default_rng(seed)
    frames = []
    for number in range(count):
        size = length + int(rng.integers(0, 10))
        values = 20 + 5 * np.sin(np.arange(size) / 3 + number) + rng.standard_normal(size)
        days = pd.date_range("2026-01-01", periods=size, unit="ns")
        frames.append(pd.DataFrame({"unique_id": f"shop {number:03d}", "ds": days, "y": values}))
    whole = pd.concat(frames, ignore_index=True)
    return whole.iloc[rng.permutation(len(whole))].reset_index(drop=True)


def write(folder, frame, num_files=3):
    folder.mkdir()
    for number in range(num_files):
        part = frame.iloc[number::num_files]
        part.to_parquet(
            folder / f"{number}.parquet", index=False, row_group_size=100, coerce_timestamps="us"
        )
    return folder


def in_one_process(frame, asked=ASKED):
    keys = ["unique_id", "ds"]
    return asked(frame).sort_values(keys, ignore_index=True)


def assert_same(found, expected):
    found = found.assign(ds=found["ds"].astype("datetime64[ns]"))
    # Products of other numbers of rows are rounded in float32 otherwise.
    pd.testing.assert_frame_equal(found, expected, rtol=1e-4, atol=1e-4)
