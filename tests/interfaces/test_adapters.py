"""Other libraries' calls, by those libraries' own tools."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from gluonts.dataset.common import ListDataset
from gluonts.dataset.pandas import PandasDataset
from gluonts.dataset.split import split
from gluonts.ev.metrics import MASE, MeanWeightedSumQuantileLoss
from gluonts.evaluation import make_evaluation_predictions
from gluonts.model import evaluate_model
from utilsforecast.evaluation import evaluate
from utilsforecast.losses import mae, mqloss, scaled_crps

import llamacast
from llamacast.interfaces.chronos import predict_df
from llamacast.interfaces.gluonts import LlamaCastEstimator, LlamaCastPredictor
from llamacast.interfaces.nixtla import NixtlaForecaster

HORIZON = 7


@pytest.fixture(scope="module")
def cria():
    return llamacast.load("cria", device="cpu")


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    days = pd.date_range("2025-01-01", periods=150)
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "unique_id": name,
                    "ds": days,
                    "y": 20 + 5 * (days.dayofweek > 4) + rng.normal(0, 1, 150),
                }
            )
            for name in ("a", "b", "c")
        ],
        ignore_index=True,
    )


def gluon(frame):
    return PandasDataset.from_long_dataframe(
        frame, target="y", item_id="unique_id", timestamp="ds", freq="D"
    )


def test_gluonts_evaluates_the_predictor_and_its_forecasts_are_the_facades(cria, frame):
    predictor = LlamaCastPredictor(HORIZON, cria)
    forecasts, series = make_evaluation_predictions(gluon(frame), predictor, num_samples=50)
    found = list(forecasts)
    assert len(list(series)) == 3
    last = frame.groupby("unique_id").head(150 - HORIZON)
    own = cria.forecast(last, HORIZON, num_samples=50)
    for one, samples in zip(found, own.samples, strict=True):
        assert one.samples.shape == (50, HORIZON)
        assert np.allclose(one.samples, samples, rtol=1e-5)
        assert one.start_date == pd.Period("2025-05-24", "D")
    assert [one.item_id for one in found] == ["a", "b", "c"]


def test_gluonts_forecasts_of_large_values_are_finite(cria):
    target = 1e39 * (2 + np.arange(40.0) % 7)  # beyond float32
    entry = {"start": pd.Period("2025-01-01", "D"), "target": target}
    (found,) = LlamaCastPredictor(HORIZON, cria).predict([entry])
    assert np.isfinite(found.samples).all()


def test_gluonts_evaluate_model_scores_it(cria, frame):
    _, template = split(gluon(frame), offset=-3 * HORIZON)
    windows = template.generate_instances(HORIZON, windows=3)
    scores = evaluate_model(
        model=LlamaCastPredictor(HORIZON, cria),
        test_data=windows,
        metrics=[MASE(), MeanWeightedSumQuantileLoss([0.1, 0.5, 0.9])],
        axis=None,
        seasonality=7,
    )
    assert 0 < scores["MASE[0.5]"].iloc[0] < 1.1


def test_gluonts_estimator_tunes_and_predicts(cria, frame):
    estimator = LlamaCastEstimator(HORIZON, cria, steps=2)
    predictor = estimator.train(gluon(frame))
    assert isinstance(predictor, LlamaCastPredictor)
    assert len(list(predictor.predict(gluon(frame), num_samples=5))) == 3


@pytest.fixture(scope="module")
def promoted(frame):
    """The frame with what raises its values, and goes on for a horizon; and what only has been."""
    rng = np.random.default_rng(1)
    longer = pd.concat(
        [
            pd.DataFrame({"unique_id": name, "ds": pd.date_range("2025-01-01", periods=157)})
            for name in ("a", "b", "c")
        ]
    ).merge(frame, how="left")
    longer["promotion"] = (rng.random(len(longer)) < 0.2).astype(float)
    longer["visitors"] = rng.normal(size=len(longer))
    longer["y"] += 30 * longer.promotion
    return longer


def entries(longer, known="promotion", past="visitors"):
    for name, one in longer.groupby("unique_id"):
        history = one[one.y.notna()]
        yield {
            "item_id": name,
            "start": pd.Period(one.ds.iloc[0], "D"),
            "target": history.y.to_numpy(),
            "feat_dynamic_real": one[[known]].to_numpy().T,
            "past_feat_dynamic_real": history[[past]].to_numpy().T,
        }


def test_gluonts_features_are_covariates_where_they_are_asked_for(cria, frame, promoted):
    found = list(LlamaCastPredictor(HORIZON, cria, covariates=True).predict(entries(promoted)))
    history, ahead = promoted[promoted.y.notna()], promoted[promoted.y.isna()]
    own = cria.forecast(
        history,
        HORIZON,
        covariates=["promotion", "visitors"],
        future_frame=ahead[["unique_id", "ds", "promotion"]],
    )
    samples = np.stack([one.samples for one in found])
    assert np.allclose(samples, own.samples, rtol=1e-4, atol=1e-3)
    raised = ahead.promotion.to_numpy().reshape(3, HORIZON) > 0
    assert np.median(samples, axis=1)[raised].min() > np.median(samples, axis=1)[~raised].max()
    plain = list(LlamaCastPredictor(HORIZON, cria).predict(entries(promoted)))
    without = cria.forecast(history[["unique_id", "ds", "y"]], HORIZON)
    assert np.allclose(np.stack([one.samples for one in plain]), without.samples, rtol=1e-5)


def test_gluonts_estimator_learns_to_look_at_features(cria, promoted):
    estimator = LlamaCastEstimator(HORIZON, cria, covariates=True, steps=2)
    predictor = estimator.train(list(entries(promoted)))
    found = list(predictor.predict(entries(promoted), num_samples=5))
    assert all(np.isfinite(one.samples).all() for one in found)


def test_gluonts_features_that_do_not_suit_are_refused(cria, promoted):
    predictor = LlamaCastPredictor(HORIZON, cria, covariates=True)
    given = list(entries(promoted))
    short = {**given[1], "feat_dynamic_real": given[1]["feat_dynamic_real"][:, :153]}
    with pytest.raises(
        llamacast.DataError, match=r"'feat_dynamic_real 0' of series 'b' .* 2025-06-03"
    ):
        list(predictor.predict([given[0], short]))
    less = {**given[1], "feat_dynamic_real": given[1]["feat_dynamic_real"][:, :100]}
    with pytest.raises(llamacast.DataError, match="'b': feat_dynamic_real has 100 steps"):
        list(predictor.predict([given[0], less]))
    none = {name: part for name, part in given[2].items() if name != "past_feat_dynamic_real"}
    with pytest.raises(llamacast.DataError, match="'c': past_feat_dynamic_real has 0 rows"):
        list(predictor.predict([given[0], none]))


def test_what_gluonts_cannot_mean_is_told(cria):
    several = [{"start": pd.Period("2025-01-01", "D"), "target": np.ones((2, 9)), "item_id": "two"}]
    with pytest.raises(llamacast.DataError, match="'two' has 2 dimensions"):
        list(LlamaCastPredictor(HORIZON, cria).predict(several))
    for value in (np.inf, 1e301):
        large = {"start": pd.Period("2025-01-01", "D"), "target": [1.0, value, 2.0], "item_id": "a"}
        with pytest.raises(llamacast.DataError, match="'a': step 1 holds"):
            list(LlamaCastPredictor(HORIZON, cria).predict([large]))
    empty = ListDataset(
        [{"start": "2025-01-01", "target": [np.nan] * 9, "item_id": "none"}], freq="D"
    )
    with pytest.raises(llamacast.DataError, match="'none' has no value"):
        list(LlamaCastPredictor(HORIZON, cria).predict(empty))


def test_nixtlas_tools_take_its_frames(cria, frame):
    model = NixtlaForecaster(cria)
    found = model.forecast(frame, h=HORIZON, level=[80, 95], quantiles=[0.1])
    columns = ["cria", "cria-lo-80", "cria-hi-80", "cria-lo-95", "cria-hi-95", "cria-q-10"]
    assert list(found.columns) == ["unique_id", "ds", *columns]
    assert np.allclose(found["cria-q-10"], found["cria-lo-80"])
    crossed = model.cross_validation(frame, h=HORIZON, n_windows=2, step_size=HORIZON, level=[80])
    assert list(crossed.columns[:5]) == ["unique_id", "ds", "cutoff", "y", "cria"]
    assert len(crossed) == 3 * 2 * HORIZON
    merged = crossed.merge(frame, on=["unique_id", "ds"], suffixes=("", "_true"))
    assert np.allclose(merged.y, merged.y_true)
    assert (crossed.ds > crossed.cutoff).all()
    table = evaluate(
        crossed.drop(columns="cutoff"),
        metrics=[mae, mqloss, scaled_crps],
        level=[80],
        models=["cria"],
    )
    assert table["cria"].notna().all()


def test_nixtlas_cross_validation_knows_nothing_of_what_comes(cria, frame):
    model = NixtlaForecaster(cria)
    changed = frame.copy()
    changed.loc[changed.groupby("unique_id").tail(HORIZON).index, "y"] = 1e6
    before, after = (
        model.cross_validation(one, h=HORIZON, n_windows=2)["cria"] for one in (frame, changed)
    )
    first = np.tile(np.repeat([True, False], HORIZON), 3)
    assert (before[first] == after[first]).all()
    assert (before == after).all()


def test_nixtlas_cross_validation_takes_what_is_known_ahead(cria, frame):
    price = np.random.default_rng(0).normal(size=len(frame))
    frame = frame.assign(price=price, y=frame.y + 50 * price)
    future = frame.groupby("unique_id").tail(HORIZON)
    history = frame.drop(index=future.index)
    model = NixtlaForecaster(cria)
    crossed = model.cross_validation(frame, h=HORIZON, covariates=["price"])
    found = model.forecast(history, h=HORIZON, X_df=future.drop(columns="y"))
    # But for the draws, which go by the names of windows.
    np.testing.assert_allclose(crossed["cria"], found["cria"], atol=3.0)
    plain = model.cross_validation(frame, h=HORIZON)
    errors = [(one["cria"] - one["y"]).abs().mean() for one in (crossed, plain)]
    assert errors[0] < 0.2 * errors[1]


def test_nixtlas_own_names_of_columns(cria, frame):
    renamed = frame.rename(columns={"unique_id": "shop", "ds": "day", "y": "sold"})
    model = NixtlaForecaster(cria, alias="Llama", nonnegative=True)
    names = {"id_col": "shop", "time_col": "day", "target_col": "sold"}
    found = model.forecast(renamed, h=3, **names)
    assert list(found.columns) == ["shop", "day", "Llama"]
    assert list(model.cross_validation(renamed, h=3, **names).columns[:4]) == [
        "shop",
        "day",
        "cutoff",
        "sold",
    ]
    with pytest.raises(llamacast.DataError, match="per cent"):
        model.forecast(renamed, h=3, level=[0.0], **names)


def test_chronos_names_of_columns(cria, frame):
    renamed = frame.rename(columns={"unique_id": "item_id", "ds": "timestamp", "y": "target"})
    found = predict_df(cria, renamed, prediction_length=4, quantile_levels=[0.1, 0.5, 0.9])
    assert list(found.columns) == [
        "item_id", "timestamp", "target_name", "predictions", "0.1", "0.5", "0.9",
    ]  # fmt: skip
    assert np.allclose(found.predictions, found["0.5"])
    assert len(found) == 12
