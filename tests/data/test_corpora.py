from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from llamacast.data.corpora import read_corpus
from llamacast.forecast import DataError


def table(names, length=20, **columns):
    return pd.DataFrame(
        {
            "item_id": names,
            "start": pd.Timestamp("2020-01-01"),
            "freq": "h",
            "target": [np.arange(length, dtype=np.float32) + n for n in range(len(names))],
        }
    ).assign(**columns)


def test_each_file_is_a_data_set(tmp_path):
    table(["x", "y"]).to_parquet(tmp_path / "b.parquet")
    table(["z"], 50).to_parquet(tmp_path / "a.parquet")
    corpus = read_corpus(tmp_path)
    assert list(corpus.datasets) == ["a", "b"]
    assert corpus.num_series == 3
    assert [len(corpus.series(n)) for n in range(3)] == [50, 20, 20]
    np.testing.assert_array_equal(corpus.series(2), np.arange(20.0) + 1)
    assert corpus.dataset_bounds.tolist() == [0, 1, 3]


def test_a_column_parts_one_file_into_data_sets(tmp_path):
    table(["x", "y", "z"], dataset=["two", "one", "two"]).to_parquet(tmp_path / "all.parquet")
    corpus = read_corpus(tmp_path / "all.parquet")
    assert list(corpus.datasets) == ["one", "two"]
    np.testing.assert_array_equal(corpus.series(0), np.arange(20.0) + 1)


def test_small_data_sets_are_drawn_more_often_than_their_size(tmp_path):
    table(["x"], 10_000).to_parquet(tmp_path / "large.parquet")
    table(["y"], 100).to_parquet(tmp_path / "small.parquet")
    weights = read_corpus(tmp_path).dataset_weights
    assert weights.sum() == pytest.approx(1.0)
    assert 0.01 < weights[1] < weights[0]


def test_bad_corpora_are_refused_by_name(tmp_path):
    with pytest.raises(DataError, match="no parquet file"):
        read_corpus(tmp_path)
    table(["x"]).drop(columns="freq").to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet.*'freq'"):
        read_corpus(tmp_path)
    for column, wrong in (("target", 3.0), ("freq", None), ("start", "soon")):
        table(["x"]).assign(**{column: wrong}).to_parquet(tmp_path / "a.parquet")
        with pytest.raises(DataError, match=rf"a\.parquet.*'{column}'"):
            read_corpus(tmp_path)
    table(["x"]).iloc[:0].to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet.*no rows"):
        read_corpus(tmp_path)
    (tmp_path / "a.parquet").write_text("junk")
    with pytest.raises(DataError, match=r"a\.parquet"):
        read_corpus(tmp_path)
