from __future__ import annotations

import sys

import pytest

from llamacast.evaluation.backtest import Trainable
from llamacast.evaluation.baselines import SeasonalNaive
from llamacast.evaluation.named import BASELINES, NEURAL, STATISTICAL, baseline
from llamacast.forecast import DataError, Forecaster


@pytest.mark.parametrize("name", BASELINES)
def test_every_name_is_a_forecaster(name):
    found = baseline(name, season=7)
    assert isinstance(found, Forecaster)
    assert isinstance(found, Trainable) == (name in NEURAL)


def test_the_season_is_handed_on():
    assert baseline("seasonal-naive", season=3) == SeasonalNaive(3)
    assert baseline("auto-ets", season=3).season == 3


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(DataError, match="no baseline 'prophet'; there are seasonal-naive, naive"):
        baseline("prophet")


@pytest.mark.parametrize(
    ("name", "module", "library", "extra"),
    [
        (STATISTICAL[0], "statistical", "statsforecast", "baselines"),
        (NEURAL[0], "neural", "neuralforecast", "deep"),
    ],
)
def test_a_missing_library_is_named_with_its_extra(monkeypatch, name, module, library, extra):
    monkeypatch.delitem(sys.modules, f"llamacast.evaluation.{module}", raising=False)
    for inner in [key for key in sys.modules if key.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, inner)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(DataError, match=rf"needs {library}.*llamacast\[{extra}\]"):
        baseline(name)
