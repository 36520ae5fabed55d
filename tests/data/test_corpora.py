from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from llamacast.data.corpora import HoldOut, Mixture, paper_mixture, read_corpus
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


def names(count):
    return [f"s{n}" for n in range(count)]


# --- Reading -------------------------------------------------------------------------------------


def test_each_file_is_a_data_set(tmp_path):
    table(["x", "y"]).to_parquet(tmp_path / "b.parquet")
    table(["z"], 50).to_parquet(tmp_path / "a.parquet")
    corpus = read_corpus(tmp_path)
    assert list(corpus.datasets) == ["a", "b"]
    assert list(corpus.ids) == ["z", "x", "y"]
    assert corpus.lengths.tolist() == [50, 20, 20]
    np.testing.assert_array_equal(corpus.series(2), np.arange(20.0) + 1)
    assert corpus.dataset_bounds.tolist() == [0, 1, 3]
    assert corpus.dataset_of.tolist() == [0, 1, 1]


def test_a_column_parts_one_file_into_data_sets(tmp_path):
    table(["x", "y", "z"], dataset=["two", "one", "two"]).to_parquet(tmp_path / "all.parquet")
    corpus = read_corpus(tmp_path / "all.parquet")
    assert list(corpus.datasets) == ["one", "two"]
    np.testing.assert_array_equal(corpus.series(0), np.arange(20.0) + 1)


def test_csv_and_arrow_stand_beside_parquet(tmp_path):
    table(["x"]).to_parquet(tmp_path / "first.parquet")
    stamps = pd.date_range("2024-01-01", periods=30, freq="D")
    frame = pd.DataFrame({"unique_id": "a", "ds": stamps, "y": np.arange(30.0)})
    frame.drop(index=4).to_csv(tmp_path / "second.csv", index=False)
    table(["y"]).to_feather(tmp_path / "third.arrow", compression="uncompressed")
    corpus = read_corpus(tmp_path)
    assert list(corpus.datasets) == ["first", "second", "third"]
    assert [frequency.name for frequency in corpus.frequencies] == ["h", "D", "h"]
    expected = np.arange(30.0)
    expected[4] = np.nan
    np.testing.assert_array_equal(corpus.series(1), expected)
    assert corpus.starts[1] == np.datetime64("2024-01-01")


def test_days_that_a_source_leaves_out_are_missing(tmp_path):
    days = pd.date_range("2023-12-20", "2026-03-01")
    shut = days.strftime("%m-%d").isin(["12-25", "02-29"])
    values = np.arange(len(days), dtype=float)
    frame = pd.DataFrame(
        {"item_id": ["a"], "start": days[:1], "freq": ["D"], "target": [values[~shut]]}
    )
    frame.to_parquet(tmp_path / "shops.parquet")
    table(["x"]).to_parquet(tmp_path / "hours.parquet")
    corpus = read_corpus(tmp_path, left_out_days={"shops": ["12-25", "02-29"]})
    number = corpus.ids.index("a")
    assert corpus.starts[number] == days[0].to_datetime64()
    np.testing.assert_array_equal(corpus.series(number), np.where(shut, np.nan, values))
    with pytest.raises(DataError, match="'25-12'"):
        read_corpus(tmp_path, left_out_days={"shops": ["25-12"]})
    with pytest.raises(DataError, match="hours: its series have steps other than days"):
        read_corpus(tmp_path, left_out_days={"hours": ["12-25"]})


def test_data_sets_may_be_left_out(tmp_path):
    for name in ("a", "b"):
        table(["x"]).to_parquet(tmp_path / f"{name}.parquet")
    assert read_corpus(tmp_path, without=["a"]).datasets == ["b"]
    with pytest.raises(DataError, match="'c' to leave out"):
        read_corpus(tmp_path, without=["c"])
    with pytest.raises(DataError, match="no data set is left"):
        read_corpus(tmp_path, without=["a", "b"])


def test_two_data_sets_of_one_name_are_refused(tmp_path):
    table(["x"]).to_parquet(tmp_path / "a.parquet")
    table(["x"], dataset="a").to_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError, match="two data sets are called 'a'"):
        read_corpus(tmp_path)


def test_bad_corpora_are_refused_by_name(tmp_path):
    with pytest.raises(DataError, match="holds no parquet"):
        read_corpus(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        read_corpus(tmp_path / "nothing")
    for column, wrong in (("target", 3.0), ("freq", None), ("start", "soon")):
        table(["x"]).assign(**{column: wrong}).to_parquet(tmp_path / "a.parquet")
        with pytest.raises(DataError, match=r"a\.parquet"):
            read_corpus(tmp_path)
    table(["x"]).iloc[:0].to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet.*no rows"):
        read_corpus(tmp_path)
    (tmp_path / "a.parquet").write_text("junk")
    with pytest.raises(DataError, match=r"a\.parquet"):
        read_corpus(tmp_path)


def series_table(path, values=None, frequency="D", zone=None):
    values = np.arange(40.0) if values is None else values
    stamps = pd.date_range("2024-01-01", periods=len(values), freq=frequency, tz=zone)
    pd.DataFrame({"unique_id": "a", "ds": stamps, "y": values}).to_csv(path, index=False)


def test_files_are_called_by_all_of_their_name_but_the_last_suffix(tmp_path):
    for name in ("m4.daily.csv", "m4.hourly.CSV", "taxi.csv.gz"):
        series_table(tmp_path / name)
    assert read_corpus(tmp_path).datasets == ["m4.daily", "m4.hourly", "taxi"]


@pytest.mark.parametrize("frequency", ["h", "D"])
def test_a_clock_with_a_zone_tells_its_own_time(tmp_path, frequency):
    """By UTC a day of Berlin would begin on the day before it."""
    series_table(tmp_path / "table.csv", frequency=frequency, zone="Europe/Berlin")
    start = pd.Timestamp("2024-01-01", tz="Europe/Berlin")
    table(["x"], start=start, freq=frequency).to_parquet(tmp_path / "stored.parquet")
    assert (read_corpus(tmp_path).starts == np.datetime64("2024-01-01")).all()


def test_dates_out_of_reach_are_named(tmp_path):
    for frequency, length in (("D", 100_000), ("YS", 300)):
        table(["x"], length, freq=frequency).to_parquet(tmp_path / "a.parquet")
        with pytest.raises(DataError, match=r"a\.parquet: series 'x' leaves the years"):
            read_corpus(tmp_path)


def test_tables_that_cannot_be_kept_are_refused(tmp_path):
    series_table(tmp_path / "a.csv", np.arange(40.0) * 1e200)
    with pytest.raises(DataError, match=r"a\.csv: series 'a' has values beyond"):
        read_corpus(tmp_path)
    frame = pd.DataFrame({"year": np.arange(1950, 1990), "y": np.arange(40.0)})
    frame.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(DataError, match=r"a\.csv.*column of dates"):
        read_corpus(tmp_path)


# --- Parts and joins -----------------------------------------------------------------------------


def test_a_corpus_is_its_parts_joined(tmp_path):
    for name, length in (("a", 9), ("b", 11)):
        table(names(2), length).to_parquet(tmp_path / f"{name}.parquet")
    first, second = (read_corpus(tmp_path / f"{name}.parquet") for name in ("a", "b"))
    joined = first.join(second)
    for name, part in vars(read_corpus(tmp_path)).items():
        np.testing.assert_array_equal(part, getattr(joined, name))


# --- What is held back ---------------------------------------------------------------------------


@pytest.fixture
def two_sets(tmp_path):
    table(names(400)).to_parquet(tmp_path / "many.parquet")
    table(["x"], 1000).to_parquet(tmp_path / "one.parquet")
    return read_corpus(tmp_path)


def test_series_are_held_back_whole_or_by_their_tails(two_sets):
    kept = two_sets.train_lengths(HoldOut(share=0.25))
    assert set(kept[:400]) == {0, 20}
    assert (kept[:400] == 0).mean() == pytest.approx(0.25, abs=0.07)
    assert kept[400] == 900


def test_a_series_name_decides_not_its_place(two_sets, tmp_path):
    kept = two_sets.train_lengths(HoldOut(share=0.25))[:400]
    held = {name for name, length in zip(two_sets.ids, kept, strict=False) if length == 0}
    table(names(400)[::-1][:300]).to_parquet(tmp_path / "many.parquet")
    again = read_corpus(tmp_path / "many.parquet")
    kept = again.train_lengths(HoldOut(share=0.25))
    assert {n for n, length in zip(again.ids, kept, strict=True) if not length} == held & {
        *again.ids
    }


def test_a_larger_share_holds_back_the_same_series_and_more(two_sets):
    small, large = (two_sets.train_lengths(HoldOut(share=share)) for share in (0.1, 0.3))
    assert (large <= small).all()
    assert (large[:400] == 0).sum() > (small[:400] == 0).sum()
    with pytest.raises(DataError, match=r"hold_out\.shares.*'mony'"):
        two_sets.train_lengths(HoldOut(shares={"mony": 0.1}))
    nothing = two_sets.train_lengths(HoldOut(share=0.3, shares={"many": 0.0, "one": 0.0}))
    np.testing.assert_array_equal(nothing, two_sets.lengths)


# --- How often each is drawn ---------------------------------------------------------------------


def shares(corpus, mixture, window_length=1):
    chances = corpus.probabilities(mixture, corpus.lengths, window_length)
    assert chances.sum() == pytest.approx(1.0)
    return np.add.reduceat(chances, corpus.dataset_bounds[:-1])


def test_exponents_lie_between_even_and_proportional(two_sets):
    # 400 series of 20 points beside one of 1,000.
    assert shares(two_sets, Mixture(0.0)).tolist() == pytest.approx([0.5, 0.5])
    assert shares(two_sets, Mixture(1.0))[0] == pytest.approx(8 / 9)
    assert 0.5 < shares(two_sets, Mixture())[0] < 8 / 9
    assert shares(two_sets, paper_mixture())[0] == pytest.approx(400 / 401)


def test_weights_favour_and_leave_out(two_sets):
    assert shares(two_sets, Mixture(0.0, weights={"one": 3.0}))[1] == pytest.approx(0.75)
    assert shares(two_sets, Mixture(weights={"one": 0.0}))[1] == 0.0
    with pytest.raises(DataError, match="'none'"):
        shares(two_sets, Mixture(weights={"none": 1.0}))
    with pytest.raises(ValueError, match="'one'"):
        Mixture(weights={"one": -1.0})


def test_short_series_are_left_to_short_windows(two_sets):
    short, long = (shares(two_sets, Mixture(0.0), length)[0] for length in (20, 200))
    assert short == pytest.approx(0.5)
    assert long == pytest.approx(0.1 / 1.1)


def test_constants_and_scraps_are_never_drawn(tmp_path):
    frame = table(names(3), 50)
    frame["target"] = [np.arange(50.0), np.full(50, 3.0), np.arange(5.0)]
    frame.to_parquet(tmp_path / "a.parquet")
    corpus = read_corpus(tmp_path)
    assert corpus.probabilities(Mixture(), corpus.lengths, 10).tolist() == [1.0, 0.0, 0.0]
    frame.iloc[1:].to_parquet(tmp_path / "a.parquet")
    corpus = read_corpus(tmp_path)
    with pytest.raises(DataError, match="no series of 8 steps or more that moves"):
        corpus.probabilities(Mixture(), corpus.lengths, 10)


def test_missing_values_neither_move_nor_hide_movement(tmp_path):
    frame = table(names(3), 10)
    gap = np.full(10, np.nan)
    frame["target"] = [gap, np.r_[gap[:8], 1.0, 2.0], np.r_[gap[:8], 1.0, 1.0]]
    frame.to_parquet(tmp_path / "a.parquet")
    assert read_corpus(tmp_path).moves.tolist() == [False, True, False]


def test_an_empty_series_takes_no_value_from_its_neighbours(tmp_path):
    frame = table(names(3), 10)
    frame["target"] = [np.array([]), np.r_[np.ones(9), 2.0], np.array([])]
    frame.to_parquet(tmp_path / "a.parquet")
    assert read_corpus(tmp_path).moves.tolist() == [False, True, False]
    frame.iloc[:1].to_parquet(tmp_path / "a.parquet")
    assert read_corpus(tmp_path).moves.tolist() == [False]
