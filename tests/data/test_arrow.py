from __future__ import annotations

import datetime
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from llamacast.data.arrow import holds_series, read_panels, read_series
from llamacast.forecast import DataError


def write_folder(folder, rows, num_shards=1, nested=False, **columns):
    """A folder as `datasets.save_to_disk` writes it: streams, state.json, dataset_info.json."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = pa.list_(pa.float32())
    schema = pa.schema(
        [
            ("item_id", pa.string()),
            ("start", pa.timestamp("s")),
            ("freq", pa.string()),
            ("target", pa.list_(numbers) if nested else numbers),
            ("past_feat_dynamic_real", pa.list_(numbers)),
        ]
    )
    names = [f"data-{n:05d}-of-{num_shards:05d}.arrow" for n in range(num_shards)]
    for number, name in enumerate(names):
        kept = [
            {"start": datetime.datetime(2020, 1, 1), "freq": "H", **row, **columns}
            for row in rows[number::num_shards]
        ]
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            # A batch for each row: columns come in several chunks.
            for row in kept:
                writer.write_batch(pa.RecordBatch.from_pylist([row], schema=schema))
    state = {"_data_files": [{"filename": name} for name in names], "_split": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def test_shards_are_read_in_order(tmp_path):
    rows = [{"item_id": name, "target": [1.0 * n, None, 3.0]} for n, name in enumerate("abc")]
    panel = read_panels(write_folder(tmp_path / "x", rows, num_shards=2))["x"]
    assert list(panel.ids) == ["a", "c", "b"]
    np.testing.assert_array_equal(panel.values[1], [2.0, np.nan, 3.0])
    assert panel.values[0].dtype == np.float64
    assert [axis.frequency.name for axis in panel.axes] == ["h"] * 3
    assert str(panel.axes[0].index(3, 1)[0]) == "2020-01-01 03:00:00"


def test_variates_become_series(tmp_path):
    rows = [
        {"item_id": "a", "target": [[1.0, 2.0], [3.0, float("nan")]]},
        {"item_id": "b", "target": [[5.0, 6.0, 7.0], [8.0, 9.0, 10.0]]},
    ]
    series = read_series(write_folder(tmp_path / "x", rows, nested=True, freq="10S"))
    assert list(series.ids) == ["a_dim0", "a_dim1", "b_dim0", "b_dim1"]
    np.testing.assert_array_equal(series.values[1], [3.0, np.nan])
    np.testing.assert_array_equal(series.values[3], [8.0, 9.0, 10.0])
    assert series.axes[2].frequency.name == "10s"


def test_a_single_variate_keeps_its_name(tmp_path):
    rows = [{"item_id": "a", "target": [[1.0, 2.0]]}]
    assert list(read_series(write_folder(tmp_path / "x", rows, nested=True)).ids) == ["a"]


def test_series_without_values_are_kept_apart(tmp_path):
    rows = [{"item_id": "a", "target": [None, None]}, {"item_id": "b", "target": [1.0]}]
    folder = write_folder(tmp_path / "x", rows)
    assert list(read_series(folder).ids) == ["a", "b"]
    assert list(read_panels(folder)["x"].ids) == ["b"]
    with pytest.raises(DataError, match="no series of y holds a value"):
        read_panels(write_folder(tmp_path / "y", rows[:1]))


def test_a_folder_of_parquet_files_is_a_data_set_for_each(tmp_path):
    frame = pd.DataFrame(
        {
            "item_id": ["a", "b"],
            "start": pd.Timestamp("2020-01-01"),
            "freq": "D",
            "target": [[1.0, np.nan], [2.0, 3.0, 4.0]],
        }
    )
    for name in ("rain", "sun"):
        frame.to_parquet(tmp_path / f"{name}.parquet")
    panels = read_panels(tmp_path)
    assert list(panels) == ["rain", "sun"]
    np.testing.assert_array_equal(panels["sun"].values[1], [2.0, 3.0, 4.0])
    assert list(read_panels(tmp_path / "rain.parquet")) == ["rain"]
    assert holds_series(tmp_path)
    assert holds_series(tmp_path / "rain.parquet")
    frame.drop(columns="target").to_parquet(tmp_path / "table.parquet")
    assert not holds_series(tmp_path / "table.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="neither parquet nor Arrow"):
        read_panels(tmp_path / "empty")


def test_old_names_of_spans_begin_where_the_series_does(tmp_path):
    for name in ("M", "A-DEC", "Q-DEC"):
        rows = [{"item_id": "a", "target": [1.0, 2.0]}]
        (axis,) = read_series(write_folder(tmp_path / name, rows, freq=name)).axes
        assert str(axis.index(0, 1)[0].date()) == "2020-01-01"


def test_the_file_format_and_missing_state(tmp_path):
    table = pa.table(
        {"item_id": [7], "start": [datetime.datetime(2020, 1, 1)], "target": [[1, None]]}
    )
    table = table.replace_schema_metadata({"freq": "15T"})
    with pa.ipc.new_file(tmp_path / "data.arrow", table.schema) as writer:
        writer.write_table(table)
    for path in (tmp_path, tmp_path / "data.arrow"):
        series = read_series(path)
        assert list(series.ids) == ["7"]
        assert series.axes[0].frequency.name == "15min"
        np.testing.assert_array_equal(series.values[0], [1.0, np.nan])


def test_files_of_gluonts(tmp_path):
    arrow = pytest.importorskip("gluonts.dataset.arrow")
    import pandas as pd

    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    entry = {"item_id": "a", "start": pd.Period("2020-01-01", "D"), "target": values}
    for stream in (False, True):
        folder = tmp_path / str(stream)
        folder.mkdir()
        arrow.ArrowWriter(stream=stream, metadata={"freq": "D"}).write_to_folder([entry], folder)
        series = read_series(folder)
        assert list(series.ids) == ["a_dim0", "a_dim1"]
        np.testing.assert_array_equal(np.stack(series.values), values)


def test_folders_of_hugging_face(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = [{"item_id": n, "freq": "H", "target": [[1.0, 2.0], [3.0, 4.0]]} for n in "abc"]
    for row in rows:
        row["start"] = datetime.datetime(2020, 1, 1)
    datasets.disable_progress_bars()
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "x", num_shards=2)
    series = read_series(tmp_path / "x")
    assert list(series.ids) == [f"{n}_dim{d}" for n in "abc" for d in (0, 1)]
    np.testing.assert_array_equal(series.values[5], [3.0, 4.0])


ROWS = ({"item_id": "a", "target": [1.0, 2.0]}, {"item_id": "b", "target": [3.0]})


def test_damaged_files_are_named(tmp_path):
    folder = write_folder(tmp_path / "x", ROWS, num_shards=2)
    shard = folder / "data-00001-of-00002.arrow"
    whole = shard.read_bytes()
    # The last eight bytes mark the end of a stream, which readers do without.
    for content in (b"", b"junk" * 9, whole[: len(whole) // 2], whole[:-40], b"ARROW1" + whole):
        shard.write_bytes(content)
        with pytest.raises(DataError, match=r"data-00001-of-00002\.arrow"):
            read_series(folder)
    shard.unlink()
    with pytest.raises(DataError, match=r"data-00001-of-00002\.arrow.*no such file"):
        read_series(folder)
    for text in ("{", "{}", '{"_data_files": [3]}'):
        (folder / "state.json").write_text(text)
        with pytest.raises(DataError, match=r"state\.json"):
            read_series(folder)
    with pytest.raises(DataError, match="nowhere"):
        read_series(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty.*no Arrow file"):
        read_series(tmp_path / "empty")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"freq": "fortnight"}, r"\.arrow.*'fortnight'"),
        ({"freq": None}, r"\.arrow.*'freq' is empty"),
        ({"start": None}, r"\.arrow.*'start' is empty"),
        ({"target": None}, r"\.arrow.*'target' is empty"),
        ({"target": [1.0, float("inf")]}, "'a' holds an infinite"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        read_series(write_folder(tmp_path, ROWS[:1], **change))


def test_columns_must_be_there_and_of_their_kind(tmp_path):
    good = {
        "item_id": ["a"],
        "start": [datetime.datetime(2020, 1, 1)],
        "freq": ["H"],
        "target": [[1.0]],
    }
    changes = [{name: None} for name in good] + [{"start": ["soon"]}, {"target": [1.0]}]
    for change in [*changes, {"target": [["x"]]}]:
        columns = {name: value for name, value in (good | change).items() if value is not None}
        table = pa.table(columns)
        with pa.ipc.new_stream(tmp_path / "a.arrow", table.schema) as writer:
            writer.write_table(table)
        with pytest.raises(DataError, match=rf"a\.arrow.*'{next(iter(change))}'"):
            read_series(tmp_path)
