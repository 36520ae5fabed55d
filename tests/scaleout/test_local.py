from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

import llamacast
from llamacast.forecast import CheckpointError, DataError
from llamacast.scaleout import FrameForecaster, forecast_dataset
from llamacast.scaleout.partition import shards_of
from llamacast.scaleout.run import Run, open_run
from tests.scaleout.tables import ASKED, assert_same, in_one_process, table, write


def test_a_frame_is_forecast_as_the_facade_does():
    frame = table(count=6)
    own = llamacast.load("cria", device="cpu").forecast(frame, 5, num_samples=20)
    assert_same(ASKED(frame), own.to_frame(quantiles=[0.1, 0.5, 0.9]))


@pytest.mark.parametrize("num_shards", [1, 4, 60])
def test_any_partition_gives_what_one_process_gives(tmp_path, num_shards):
    frame = table()
    run = forecast_dataset(
        write(tmp_path / "in", frame), tmp_path / "out", ASKED, num_shards=num_shards
    )
    assert_same(run.read(), in_one_process(frame))
    assert not (tmp_path / "out" / "_shards").exists()
    # A folder of parquet, for whoever reads such.
    assert len(pd.read_parquet(tmp_path / "out")) == 40 * 5


def test_the_frequency_is_told_by_whole_series_wherever_their_rows_lie(tmp_path, monkeypatch):
    monkeypatch.setattr("llamacast.scaleout.run.ROWS_OF_HEAD", 5)
    frame = table()
    frame = frame[frame["ds"].dt.day % 9 > 0].reset_index(drop=True)
    run = forecast_dataset(write(tmp_path / "in", frame), tmp_path / "out", ASKED, num_shards=3)
    assert run.asked.frequency == "D"
    assert_same(run.read(), in_one_process(frame))


def test_series_go_to_the_same_shard_in_every_process():
    names = pd.Series(["a", "b", "c", "a", "shop 7", "ü"])
    assert shards_of(names, 7).tolist() == [3, 0, 1, 3, 3, 3]
    counts = np.bincount(shards_of(pd.Series([str(n) for n in range(10_000)]), 10))
    assert counts.min() > 800


def test_a_run_that_is_stopped_goes_on_and_does_nothing_twice(tmp_path, monkeypatch):
    frame = table()
    source, output = write(tmp_path / "in", frame), tmp_path / "out"
    do, done = Run.do, []

    def until(self, number, threads=None):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(number)
        return do(self, number, threads)

    monkeypatch.setattr(Run, "do", until)
    with pytest.raises(KeyboardInterrupt):
        forecast_dataset(source, output, ASKED, num_shards=6)
    stamps = {path: path.stat().st_mtime_ns for path in output.glob("part-*")}
    assert len(stamps) == 3
    monkeypatch.setattr(Run, "do", do)
    run = forecast_dataset(source, output, ASKED, num_shards=6)
    assert_same(run.read(), in_one_process(frame))
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_a_run_whose_model_has_changed_is_another(tmp_path):
    forecaster = llamacast.load("cria", device="cpu")
    forecaster.save(tmp_path / "model")
    asked = dataclasses.replace(ASKED, model=str(tmp_path / "model"))
    source = write(tmp_path / "in", table(count=4))
    before = forecast_dataset(source, tmp_path / "out", asked, num_shards=2).read()
    with torch.no_grad():
        forecaster.model.transformer.norm.weight.mul_(1.5)
    forecaster.save(tmp_path / "model")
    with pytest.raises(CheckpointError, match="its weights differs"):
        forecast_dataset(source, tmp_path / "out", asked, num_shards=2)
    after = forecast_dataset(source, tmp_path / "new", asked, num_shards=2).read()
    assert not np.allclose(before["mean"], after["mean"])


def test_a_run_that_is_stopped_while_it_cuts_cuts_again(tmp_path, monkeypatch):
    frame = table()
    source, output = write(tmp_path / "in", frame), tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr("llamacast.scaleout.run.shards_of", lambda *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            open_run(source, output, ASKED, 4)
    assert not (output / "_shards").exists()
    assert_same(forecast_dataset(source, output, ASKED, num_shards=4).read(), in_one_process(frame))


def test_another_run_is_not_written_over(tmp_path):
    frame = table(count=4)
    source, output = write(tmp_path / "in", frame), tmp_path / "out"
    forecast_dataset(source, output, ASKED)
    forecast_dataset(source, output, ASKED)  # the same: nothing to do
    with pytest.raises(CheckpointError, match="asked differs"):
        forecast_dataset(source, output, dataclasses.replace(ASKED, horizon=6))
    frame.assign(unique_id="new " + frame["unique_id"]).to_parquet(source / "more.parquet")
    with pytest.raises(CheckpointError, match="table differs"):
        forecast_dataset(source, output, ASKED)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    with pytest.raises(CheckpointError, match="other files"):
        forecast_dataset(source, tmp_path / "full", ASKED)


def test_forecasts_are_not_written_where_the_table_is_read(tmp_path):
    source = write(tmp_path / "in", table(count=2))
    for output in (source, source / "out"):
        with pytest.raises(DataError, match="lies within"):
            forecast_dataset(source, output, ASKED)
    assert not (source / "out").exists()


def test_what_a_user_should_know_of_some_series_is_told_by_the_run(tmp_path):
    frame = table(count=6)
    odd = frame.index[frame.unique_id == "shop 003"][4]
    frame.loc[odd, "y"] = -9999.0
    own = llamacast.load("cria", device="cpu").forecast(frame, 5, num_samples=20)
    run = forecast_dataset(write(tmp_path / "in", frame), tmp_path / "out", ASKED, num_shards=3)
    assert "shop 003" in own.notes[0]
    assert own.notes[0] in run.notes()


def test_times_that_parts_would_read_differently_are_refused(tmp_path):
    """Months written as numbers are dates only where a year ends among them."""
    whole = [202311, 202312, *range(202401, 202413)]
    frame = pd.concat(
        pd.DataFrame({"unique_id": name, "ds": months, "y": np.arange(len(months)) % 5.0})
        for name, months in (
            ("a", whole), *((f"b{n}", list(range(202501, 202513))) for n in range(20))
        )
    )  # fmt: skip
    asked = FrameForecaster(horizon=2, num_samples=5)
    with pytest.raises(DataError, match=r"MS|other times"):
        forecast_dataset(write(tmp_path / "in", frame, 1), tmp_path / "out", asked, num_shards=300)


def test_a_table_with_an_index_is_read_as_the_facade_reads_it(tmp_path):
    frame = table(count=5)
    (tmp_path / "in").mkdir()
    frame.set_index("unique_id").to_parquet(tmp_path / "in" / "x.parquet")
    run = forecast_dataset(tmp_path / "in", tmp_path / "out", ASKED)
    assert_same(run.read(), in_one_process(frame))
    shuffled = frame.sample(frac=1.0, random_state=0)  # its row numbers are written as a column
    named = shuffled.rename(columns={"unique_id": "shop", "ds": "day", "y": "sold"})
    (tmp_path / "numbered").mkdir()
    named.to_parquet(tmp_path / "numbered" / "x.parquet")
    run = forecast_dataset(tmp_path / "numbered", tmp_path / "of-numbered", ASKED)
    found = run.read().rename(columns={"shop": "unique_id", "day": "ds"})
    assert_same(found, in_one_process(frame))
    (tmp_path / "in" / "notes.txt").write_text("no parquet")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        forecast_dataset(tmp_path / "in", tmp_path / "other", ASKED)


def test_names_of_any_kind_are_found_once_for_all_parts(tmp_path):
    frame = table(count=9).rename(columns={"unique_id": "shop", "ds": "day", "y": "sold"})
    frame["shop"] = frame["shop"].str[-3:].astype(int)
    frame["price"] = 3.0
    run = forecast_dataset(
        write(tmp_path / "in", frame),
        tmp_path / "out",
        dataclasses.replace(ASKED, id_column="shop", target_column="sold"),
        num_shards=3,
    )
    found = run.read()
    assert list(found.columns) == ["shop", "day", "mean", "0.1", "0.5", "0.9"]
    assert sorted(set(found["shop"])) == list(range(9))
    assert run.asked.frequency == "D"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop(columns="unique_id"), "long one"),
        (lambda frame: frame.drop(columns="ds"), "column of times"),
        (lambda frame: frame.iloc[:0], "no rows|holds no"),
        (lambda frame: frame.assign(y="many"), "not a number"),
        (lambda frame: frame.assign(y=np.nan), "no values"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_by_name(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        forecast_dataset(write(tmp_path / "in", change(table(count=3)), 1), tmp_path / "out", ASKED)


def test_a_series_that_counts_otherwise_is_refused(tmp_path):
    frame = table(count=8)
    frame["ds"] = (frame["ds"] - frame["ds"].min()).dt.days
    last = frame["unique_id"] == "shop 007"
    frame.loc[last, "ds"] *= 2
    source = write(tmp_path / "in", pd.concat([frame[~last], frame[last]]), 1)
    asked = FrameForecaster(horizon=2, num_samples=5)
    with pytest.raises(DataError, match="steps of 2"):
        forecast_dataset(source, tmp_path / "out", asked, num_shards=500)


def test_files_that_are_not_there_or_not_parquet_are_told_of(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        forecast_dataset(tmp_path / "none", tmp_path / "out", ASKED)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no parquet"):
        forecast_dataset(tmp_path / "empty", tmp_path / "out", ASKED)
    (tmp_path / "x.parquet").write_text("none")
    with pytest.raises(DataError, match="cannot be read"):
        forecast_dataset(tmp_path / "x.parquet", tmp_path / "out", ASKED)
    with pytest.raises(DataError, match="num_shards"):
        forecast_dataset(write(tmp_path / "in", table(3)), tmp_path / "o", ASKED, num_shards=0)
    assert not (tmp_path / "out").exists()


def test_whole_numbers_in_the_first_file_and_fractions_in_another(tmp_path):
    frame = table(count=6)
    frame["y"] = np.where(frame["unique_id"] < "shop 003", frame["y"].round(), frame["y"])
    (tmp_path / "in").mkdir()
    first = frame["unique_id"] < "shop 003"
    frame[first].astype({"y": int}).to_parquet(tmp_path / "in" / "0.parquet", index=False)
    frame[~first].to_parquet(tmp_path / "in" / "1.parquet", index=False)
    run = forecast_dataset(tmp_path / "in", tmp_path / "out", ASKED, num_shards=2)
    assert_same(run.read(), in_one_process(frame))


def test_times_that_parts_cannot_hold_are_refused_by_name(tmp_path):
    frame = table(count=2)
    frame["ds"] += pd.Timedelta(1, "ns")
    frame.to_parquet(tmp_path / "in.parquet", index=False)
    with pytest.raises(DataError, match=r"'ds': .* has nanoseconds"):
        forecast_dataset(tmp_path / "in.parquet", tmp_path / "out", ASKED)
