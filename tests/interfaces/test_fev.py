from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import llamacast

fev = pytest.importorskip("fev")
datasets = pytest.importorskip("datasets")

from llamacast.interfaces.fev import LlamaCastModel  # noqa: E402


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    rng = np.random.default_rng(0)
    rows = []
    for name in ("b", "a", "c"):
        price = rng.uniform(1, 3, 100)
        sold = 20 + 5 * (np.arange(100) % 7 > 4) - 4 * price + rng.normal(0, 0.3, 100)
        days = pd.date_range("2025-01-01", periods=100).to_numpy()
        rows.append({"id": name, "timestamp": days, "sold": sold, "left": -sold, "price": price})
    path = tmp_path_factory.mktemp("fev") / "table.parquet"
    datasets.Dataset.from_list(rows).to_parquet(path)
    return str(path)


@pytest.fixture(scope="module")
def cria():
    return llamacast.load("cria", device="cpu")


def test_fev_scores_it_on_several_targets_and_windows(table, cria):
    task = fev.Task(
        dataset_path=table, horizon=7, num_windows=3, target=["sold", "left"], seasonality=7,
        eval_metric="SQL", extra_metrics=["MASE", "WQL"], quantile_levels=[0.1, 0.5, 0.9],
    )  # fmt: skip
    model = LlamaCastModel(cria)
    predictions = model.fit_predict(task)
    assert len(predictions) == 3
    summary = task.evaluation_summary(predictions, model_name="cria")
    assert 0 < summary["MASE"] < 1.5
    assert np.isfinite([summary[name] for name in ("SQL", "WQL")]).all()
    assert model.inference_time > 0
    assert fev.ForecastingModel.get_model_cls("llamacast") is LlamaCastModel


def test_its_forecasts_are_the_facades_in_fevs_order(table, cria):
    task = fev.Task(dataset_path=table, horizon=7, target="sold", quantile_levels=[0.2])
    (found,) = LlamaCastModel(cria).fit_predict(task)
    past, _, _ = fev.convert_input_data(task.get_window(0), adapter="pandas")
    columns = {"id_column": "id", "time_column": "timestamp", "target_column": "sold"}
    own = cria.forecast(past[["id", "timestamp", "sold"]], 7, **columns)
    order = [own.ids.index(name) for name in past["id"].drop_duplicates()]
    assert np.allclose(found["sold"]["predictions"], own.median[order])
    assert np.allclose(found["sold"]["0.2"], own.quantile(0.2)[order])


def test_covariates_that_are_known_ahead_help_where_they_explain(table, cria):
    task = fev.Task(
        dataset_path=table, horizon=7, num_windows=3, target="sold", eval_metric="MASE",
        seasonality=7, known_dynamic_columns=["price"],
    )  # fmt: skip
    plain, told = (
        task.evaluation_summary(
            LlamaCastModel(cria, covariates=covariates).fit_predict(task), model_name="cria"
        )["MASE"]
        for covariates in (False, True)
    )
    assert told < 0.7 * plain
