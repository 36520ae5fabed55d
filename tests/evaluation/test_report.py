from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from llamacast.evaluation.backtest import backtest
from llamacast.evaluation.baselines import SeasonalNaive
from llamacast.evaluation.report import (
    markdown,
    remarks,
    score_table,
    summary_table,
    write_report,
)
from llamacast.forecast import TrainingRecord


class Seen(SeasonalNaive):
    training = TrainingRecord(datasets=("known",))


class Fails:
    def forecast(self, data, horizon):
        raise ValueError("too hot | today")


@pytest.fixture(scope="module")
def several():
    values = np.random.default_rng(0).normal(size=(12, 100)).cumsum(axis=1)
    return [
        backtest(
            values, 5, {"naive": Seen(1), "weekly": SeasonalNaive(7), "fails": Fails()}, name=name
        )
        for name in ("known", "new")
    ]


def test_the_tables_say_what_the_numbers_are(several):
    table = score_table(several[1])
    assert set(table.index[:2]) == {"naive", "seasonal-naive"}  # of random walks, best first
    raw = several[1].table()
    assert table.loc["naive", "MASE"] == f"{raw.loc['naive', 'MASE']:.4g}"
    assert table.loc["fails", "failed"] == "60 of 60"
    assert table.loc["weekly", "verdict"] == "worse"
    # Without a frequency the season is one step.
    assert table.loc["naive", "verdict"] == "not told apart"
    assert summary_table(several).loc["naive †", "CRPS ratio"] == "1.000"
    assert "naive" in summary_table(several[1:]).index


def test_leakage_and_failures_stand_beside_the_table(several):
    assert "naive †" in score_table(several[0]).index
    assert "naive" in score_table(several[1]).index
    told = remarks(several[0])
    assert any(line.startswith("† naive: its weights were pretrained on known") for line in told)
    assert any("fails failed on 60 of 60 windows: ValueError: too hot" in line for line in told)


def test_markdown_has_a_cell_for_every_column():
    table = pd.DataFrame({"a": ["1", "2"], "b": ["x", "y"]}, index=["p", "q"])
    lines = markdown(table.rename_axis("m")).splitlines()
    assert lines == ["| m | a | b |", "| --- | --- | --- |", "| p | 1 | x |", "| q | 2 | y |"]


def test_a_report_is_whole(several, tmp_path):
    write_report(several, tmp_path, "Title")
    text = (tmp_path / "report.md").read_text()
    assert text.startswith("# Title\n")
    for picture in ("skill.png", "calibration_known.png", "calibration_new.png"):
        assert f"({picture})" in text
        assert (tmp_path / picture).stat().st_size > 5_000
    scores = pd.read_csv(tmp_path / "scores.csv")
    assert set(scores["data set"]) == {"known", "new"}
    assert set(scores["model"]) == {"seasonal-naive", "naive", "weekly", "fails"}
    by_series = pd.read_csv(tmp_path / "per_series.csv")
    assert len(by_series) == 2 * 12 * 4
    assert (tmp_path / "summary.csv").exists()
