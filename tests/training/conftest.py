from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from llamacast.data.corpora import read_corpus


@pytest.fixture
def corpus(tmp_path):
    rng = np.random.default_rng(0)
    wave = np.sin(np.arange(400) * 2 * np.pi / 24)
    frame = pd.DataFrame(
        {
            "item_id": [str(n) for n in range(40)],
            "start": pd.Timestamp("2020-01-01"),
            "freq": "h",
            "target": [(wave + rng.normal(0, 0.1, 400)).astype(np.float32) for _ in range(40)],
        }
    )
    frame.to_parquet(tmp_path / "waves.parquet")
    return read_corpus(tmp_path / "waves.parquet")
