"""The facade with the packaged weights: from a table to a forecast."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

import llamacast
from llamacast import CheckpointError, DataError
from llamacast.applied.features import FeatureHead
from llamacast.data.synthetic.linear import seasonal_autoregression
from llamacast.model import checkpoint

HORIZON = 6


@pytest.fixture(scope="module", params=["cria", "lag-llama"])
def forecaster(request):
    return llamacast.load(request.param, device="cpu")


def hourly(num_steps=200, num_series=3, start="2024-01-01"):
    rng = np.random.default_rng(0)
    stamps = pd.date_range(start, periods=num_steps, freq="h")
    day = 10 + 5 * np.sin(np.arange(num_steps) * 2 * np.pi / 24)
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "unique_id": f"s{n}",
                    "ds": stamps,
                    "y": (n + 1) * (day + rng.normal(size=num_steps)),
                }
            )
            for n in range(num_series)
        ],
        ignore_index=True,
    )


def test_a_forecast_goes_on_where_series_end(forecaster):
    frame = hourly()
    forecast = forecaster.forecast(frame, HORIZON, num_samples=20)
    assert forecast.samples.shape == (3, 20, HORIZON)
    assert np.isfinite(forecast.samples).all()
    assert list(forecast.ids) == ["s0", "s1", "s2"]
    assert forecast.index[0][0] == frame.ds.max() + pd.Timedelta("1h")
    assert forecast.model == forecaster.name
    assert forecast.history[0].iloc[-1] == frame.y[199]


def test_same_seed_same_numbers(forecaster):
    frame = hourly()
    one, two, other = (
        forecaster.forecast(frame, HORIZON, num_samples=5, seed=seed).samples for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, two)
    assert not np.allclose(one, other)


def test_a_series_does_not_depend_on_its_neighbours(forecaster):
    frame = hourly()
    together = forecaster.forecast(frame, HORIZON, num_samples=10)
    turned = forecaster.forecast(frame.iloc[::-1], HORIZON, num_samples=10)
    for row, name in enumerate(together.ids):
        alone = forecaster.forecast(frame[frame.unique_id == name], HORIZON, num_samples=10)
        np.testing.assert_allclose(alone.samples[0], together.samples[row], rtol=1e-4)
        place = list(turned.ids).index(name)
        np.testing.assert_allclose(turned.samples[place], together.samples[row], rtol=1e-4)


def test_parts_are_the_whole(forecaster):
    frame = hourly()
    whole = forecaster.forecast(frame, HORIZON, num_samples=10).samples
    for memory in (1, 2_000_000, 6_000_000):
        parts = forecaster.forecast(
            frame, HORIZON, num_samples=10, memory_bytes=memory, progress=False
        )
        np.testing.assert_allclose(parts.samples, whole, rtol=1e-4)


@pytest.mark.parametrize("factor", [1e-9, 1e9])
def test_a_change_of_unit_changes_the_unit_alone(forecaster, factor):
    frame = hourly()
    plain = forecaster.forecast(frame, HORIZON, num_samples=10).samples
    other = forecaster.forecast(frame.assign(y=frame.y * factor), HORIZON, num_samples=10).samples
    np.testing.assert_allclose(other, plain * factor, rtol=1e-3)


def test_intervals_widen_with_the_horizon(forecaster):
    walk = pd.Series(np.random.default_rng(0).normal(size=400).cumsum())
    forecast = forecaster.forecast(walk, 48, num_samples=200)
    low, high = forecast.interval(80)
    width = (high - low)[0]
    assert width[-1] > 2 * width[0]


def test_paths_are_joint(forecaster):
    """Sums of paths vary as correlated steps do, not as independent ones."""
    walk = pd.Series(np.random.default_rng(0).normal(size=400).cumsum())
    paths = forecaster.forecast(walk, 24, num_samples=200).samples[0]
    independent = paths.var(axis=0).sum()
    assert paths.sum(axis=1).var() > 3 * independent


AWKWARD = {
    "constant": np.full(100, 7.0),
    "zeros": np.zeros(100),
    "intermittent": np.where(np.arange(200) % 5 == 0, 5.0, 0.0),
    "single": np.array([42.0]),
    "two": np.array([1.0, 2.0]),
    "missing tail": np.r_[np.arange(50.0), [np.nan] * 30],
    "mostly missing": np.where(np.arange(300) % 50 == 0, 1.0 * np.arange(300), np.nan),
    "large": 1e12 + np.random.default_rng(0).normal(size=100),
    "huge": 1e30 * np.random.default_rng(0).normal(size=100),
    "tiny": 1e-12 * np.random.default_rng(0).normal(size=100),
    "outlier": np.r_[np.random.default_rng(0).normal(size=100), 1e6, np.zeros(3)],
}


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_series_have_sensible_forecasts(forecaster, name):
    values = AWKWARD[name]
    samples = forecaster.forecast(values, 12, num_samples=50).samples
    assert np.isfinite(samples).all()
    seen = values[np.isfinite(values)]
    reach = np.ptp(seen) or abs(seen).max()  # a constant is told by its size
    median = np.median(samples, axis=1)
    assert (median >= seen.min() - 3 * reach).all()
    assert (median <= seen.max() + 3 * reach).all()


def test_constants_stay_constant(forecaster):
    samples = forecaster.forecast(AWKWARD["constant"], 12, num_samples=50).samples
    np.testing.assert_allclose(samples, 7.0, atol=0.05)
    assert not forecaster.forecast(AWKWARD["zeros"], 12, num_samples=50).samples.any()


def test_intermittent_demand_keeps_a_spread(forecaster):
    """The official scale vanishes there, and every sample lies within 4e-9 of zero."""
    samples = forecaster.forecast(AWKWARD["intermittent"], 20, num_samples=100).samples
    assert samples.std() > 0.01


def test_in_bfloat16_values_come_in_and_out_as_they_are():
    values = 1000.0 + np.arange(400) + np.random.default_rng(0).normal(size=400)
    full, half = (
        llamacast.load("cria", device="cpu", dtype=dtype) for dtype in ("float32", "bfloat16")
    )
    kinds = {name: weight.dtype for name, weight in half.model.named_parameters()}
    rounded = {name for name, kind in kinds.items() if kind == torch.bfloat16}
    assert rounded == {name for name in kinds if ".blocks." in name or "transformer.norm" in name}
    full, half = (one.forecast(values, 48, joint=False).samples for one in (full, half))
    width = np.quantile(full, 0.9, axis=1) - np.quantile(full, 0.1, axis=1)
    off = np.abs(np.median(half, axis=1) - np.median(full, axis=1))
    assert 0 < (off / width).mean() < 0.005


def test_far_from_zero_nothing_is_lost(forecaster):
    noise = np.random.default_rng(0).normal(size=300)
    near = forecaster.forecast(noise + 1e4, 6, num_samples=20).samples - 1e4
    far = forecaster.forecast(noise + 1e10, 6, num_samples=20).samples - 1e10
    assert np.std(far) == pytest.approx(np.std(near), rel=0.2)


def test_options_hold_for_every_path(forecaster):
    counts = pd.Series(np.random.default_rng(0).poisson(1.0, 300))
    samples = forecaster.forecast(counts, 12, nonnegative=True, integer=True).samples
    assert (samples >= 0).all()
    assert (samples == samples.round()).all()
    plain = forecaster.forecast(counts, 12, nonnegative=False, integer=False).samples
    assert (plain < 0).any()
    assert (plain != plain.round()).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"horizon": 0}, "horizon"),
        ({"horizon": -3}, "horizon"),
        ({"horizon": 2.5}, "horizon"),
        ({"horizon": True}, "horizon"),
        ({"num_samples": 0}, "num_samples"),
        ({"context_length": 0}, "context_length"),
        ({"frequency": "never"}, "frequency"),
    ],
)
def test_bad_requests_are_refused(forecaster, arguments, message):
    with pytest.raises(DataError, match=message):
        forecaster.forecast(hourly(), **{"horizon": HORIZON} | arguments)


def test_the_context_can_be_chosen(forecaster):
    frame = hourly(num_steps=1000, num_series=1)
    short, long = (
        forecaster.forecast(frame, HORIZON, num_samples=5, context_length=length).samples
        for length in (32, 512)
    )
    assert short.shape == long.shape
    assert not np.allclose(short, long)


def test_what_is_saved_is_what_is_loaded(forecaster, tmp_path):
    forecaster.save(tmp_path / "copy")
    copy = llamacast.load(tmp_path / "copy", device="cpu")
    assert copy.name == "copy"
    frame = hourly()
    np.testing.assert_array_equal(
        copy.forecast(frame, HORIZON, num_samples=5).samples,
        forecaster.forecast(frame, HORIZON, num_samples=5).samples,
    )


def test_unknown_models_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"gpt.*cria, lag-llama"):
        llamacast.load("gpt")
    with pytest.raises(CheckpointError, match=r"convert"):
        llamacast.load("lag-llama.ckpt")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        llamacast.load(tmp_path)
    with pytest.raises(ValueError, match="dtype"):
        llamacast.load(dtype="int3")


def test_an_official_checkpoint_is_converted_and_forecasts(golden_path, tmp_path):
    llamacast.convert(golden_path / "tiny_reference.ckpt", tmp_path / "tiny")
    tiny = llamacast.load(tmp_path / "tiny", device="cpu")
    assert np.isfinite(tiny.forecast(hourly(), HORIZON, num_samples=5).samples).all()
    (tmp_path / "junk.ckpt").write_text("junk")
    with pytest.raises(CheckpointError, match=r"junk\.ckpt"):
        llamacast.convert(tmp_path / "junk.ckpt", tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_counts_can_be_forecast_with_a_count_head(tmp_path):
    config = dataclasses.replace(
        llamacast.load("lag-llama").model.config,
        head="negative_binomial",
        scaling="mean",
        num_layers=1,
    )
    checkpoint.save(checkpoint.LagLlama(config), tmp_path)
    counts = pd.Series(np.random.default_rng(0).poisson(20.0, 300))
    samples = llamacast.load(tmp_path, device="cpu").forecast(counts, 3, num_samples=20).samples
    np.testing.assert_allclose(samples, samples.round(), atol=1e-4)
    assert (samples >= 0).all()


def test_the_number_of_threads_changes_nothing(forecaster, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "set by hand: no looking at the load")
    values = np.random.default_rng(0).normal(size=(12, 60)).cumsum(axis=1)
    before = torch.get_num_threads()
    try:
        found = []
        for num_threads in (1, 2):
            torch.set_num_threads(num_threads)
            found.append(forecaster.forecast(values, 4, num_samples=100).samples)
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(*found)


def test_cria_is_what_is_loaded_unless_told_otherwise():
    assert llamacast.load(device="cpu").name == "cria"


def test_quantiles_may_be_had_without_paths():
    cria = llamacast.load("cria", device="cpu")
    joint = cria.forecast(hourly(), HORIZON, num_samples=21)
    apart = cria.forecast(hourly(), HORIZON, num_samples=21, joint=False)
    assert joint.joint
    assert not apart.joint
    np.testing.assert_allclose(np.sort(joint.samples, axis=1), apart.samples, rtol=1e-9)


def test_lag_llama_may_follow_one_path_along_the_means():
    lag_llama = llamacast.load("lag-llama", device="cpu")
    apart = lag_llama.forecast(hourly(), HORIZON, num_samples=200, joint=False)
    assert not apart.joint
    assert (np.diff(apart.samples, axis=1) >= 0).all()
    paths = lag_llama.forecast(hourly(), HORIZON, num_samples=200).samples
    # The first step is the same distribution; later ones do not know how unsure the past is.
    np.testing.assert_allclose(np.sort(paths[:, :, 0], axis=1), apart.samples[:, :, 0], rtol=1e-6)
    assert apart.samples.std(axis=1).sum() < 0.9 * paths.std(axis=1).sum()
    frame = hourly()
    first = frame[frame.unique_id == "s0"]
    alone = lag_llama.forecast(first, HORIZON, num_samples=200, joint=False)
    np.testing.assert_allclose(alone.samples[0], apart.samples[0], rtol=1e-4, atol=1e-4)


def test_the_mean_that_lag_llama_follows_is_not_rounded():
    counts = np.random.default_rng(0).poisson(0.4, 200).astype(float)
    lag_llama = llamacast.load("lag-llama", device="cpu")
    options = {"num_samples": 200, "joint": False}
    whole = lag_llama.forecast(counts, 8, integer=True, **options).samples
    between = lag_llama.forecast(counts, 8, integer=False, **options).samples
    np.testing.assert_array_equal(whole, between.round())


def test_cria_knows_a_shift_from_a_change():
    frame = hourly()
    cria = llamacast.load("cria", device="cpu")
    plain = cria.forecast(frame, HORIZON, num_samples=10).samples
    other = cria.forecast(frame.assign(y=frame.y * 100.0 - 7e5), HORIZON, num_samples=10).samples
    np.testing.assert_allclose((other + 7e5) / 100.0, plain, rtol=1e-4)


def test_cria_does_without_a_calendar():
    values = 10 + 5 * np.sin(np.arange(300) * 2 * np.pi / 24)
    samples = llamacast.load("cria", device="cpu").forecast(values, 24).samples
    np.testing.assert_allclose(np.median(samples[0], axis=0), values[-24:], atol=1.0)


def test_series_of_all_lengths_are_forecast_at_once():
    rng = np.random.default_rng(0)
    rows = [
        pd.DataFrame({"id": length, "step": np.arange(length), "y": rng.normal(size=length)})
        for length in (1, 2, 15, 16, 17, 500, 3000)
    ]
    cria = llamacast.load("cria", device="cpu")
    together = cria.forecast(pd.concat(rows), 40, num_samples=11)
    for row, frame in enumerate(rows):
        alone = cria.forecast(frame.y.to_numpy(), 40, num_samples=11, joint=False).samples[0]
        found = np.median(together.samples[row], axis=0)
        np.testing.assert_allclose(found, np.median(alone, axis=0), rtol=1e-3, atol=1e-2)


# --- Adapting --------------------------------------------------------------------------------------


def test_fine_tuning_returns_another_forecaster_that_can_be_saved(forecaster, tmp_path):
    frame = hourly(num_steps=260)
    before = checkpoint.digest(forecaster.model)
    tuned = forecaster.finetune(
        frame, 12, strategy="head", steps=8, directory=tmp_path, progress=False
    )
    assert type(tuned) is type(forecaster)
    assert checkpoint.digest(forecaster.model) == before
    assert tuned.training.until == frame.ds.max().isoformat()
    assert tuned.training.datasets == forecaster.training.datasets
    loaded = llamacast.load(tmp_path / "model", device="cpu")
    found = [one.forecast(frame, 12, num_samples=10).samples for one in (tuned, loaded)]
    np.testing.assert_array_equal(*found)
    improved = tuned.verdict.improved
    assert (checkpoint.digest(tuned.model) != before) == improved
    assert tuned.name == (f"{forecaster.name}-head" if improved else forecaster.name)


def test_a_regression_on_hidden_vectors_is_saved_with_the_network(tmp_path):
    """Where medians lie low at every noon, which a day's series shows too seldom to be told."""
    frame = hourly(num_steps=400, num_series=6)
    forecaster = llamacast.load("cria", device="cpu")
    tuned = forecaster.finetune(frame, 12, strategy="features", progress=False)
    if not tuned.verdict.improved:
        assert tuned.features is None
        rng = np.random.default_rng(0)
        width = forecaster.model.config.width
        tuned.features = FeatureHead(np.zeros(width), rng.normal(size=(width, 12)), np.ones(12))
    tuned.save(tmp_path)
    loaded = llamacast.load(tmp_path, device="cpu")
    plain = forecaster.forecast(frame, 14, num_samples=10).samples
    found = [one.forecast(frame, 14, num_samples=10).samples for one in (tuned, loaded)]
    np.testing.assert_array_equal(*found)
    assert (found[0][..., :12] != plain[..., :12]).any()
    np.testing.assert_array_equal(found[0][..., 12:], plain[..., 12:])
    assert repr(loaded) != repr(forecaster)
    with pytest.raises(DataError, match="fine-tune the one it came from"):
        loaded.finetune(frame, 12, strategy="head")
    (tmp_path / "features.safetensors").write_text("no")
    with pytest.raises(CheckpointError, match="features"):
        llamacast.load(tmp_path)


def test_an_adapter_is_loaded_by_its_folder(tmp_path):
    # Seventeen hours later what was comes back with its sign turned: there is something to learn.
    shocks = np.random.default_rng(0).normal(size=(3, 260))
    shocks[:, 17:] *= 0.1
    values = seasonal_autoregression(shocks, np.full(3, 17), np.full(3, -0.95))
    frame = hourly(num_steps=260).assign(y=values.ravel())
    forecaster = llamacast.load("cria", device="cpu")
    tuned = forecaster.finetune(
        frame, 12, strategy="lora", steps=8, directory=tmp_path, progress=False
    )
    assert tuned.verdict.improved
    size = (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size
    assert size < 400_000
    loaded = llamacast.load(tmp_path / "adapter", device="cpu")
    found = [one.forecast(frame, 12, num_samples=10).samples for one in (tuned, loaded)]
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-4)


def test_bad_options_of_fine_tuning_are_named(forecaster):
    for options, told in (
        ({"strategy": "everything"}, "strategy"),
        ({"steps": 0}, "steps"),
        ({"head": "cauchy"}, "head"),
        ({"strategy": "features", "context_length": 32}, "context_length does not go with"),
        ({"strategy": "features", "search": True}, "search does not go with"),
    ):
        with pytest.raises(DataError, match=told):
            forecaster.finetune(hourly(), 6, **options)
    with pytest.raises(DataError, match="too short"):
        forecaster.finetune(hourly(num_steps=20), 12)
    with pytest.raises(DataError, match="weights in float32"):
        llamacast.load("cria", device="cpu", dtype="bfloat16").finetune(hourly(), 6)


def test_embeddings_are_a_frame_for_other_libraries(forecaster):
    frame = hourly()
    found = forecaster.embed(frame)
    assert list(found.index) == ["s0", "s1", "s2"]
    assert found.shape == (3, forecaster.model.config.width)
    alone = forecaster.embed(frame[frame.unique_id == "s1"])
    np.testing.assert_allclose(alone.loc["s1"], found.loc["s1"], rtol=1e-3, atol=1e-4)


def test_embeddings_tell_kinds_of_series_apart():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    time = np.arange(200)
    waves = [
        np.sin(time * 2 * np.pi / rng.uniform(20, 30)) + rng.normal(0, 0.3, 200) for _ in range(40)
    ]
    walks = [rng.normal(size=200).cumsum() for _ in range(40)]
    vectors = llamacast.load("cria", device="cpu").embed(waves + walks)
    kinds = np.repeat([0, 1], 40)
    fit = LogisticRegression(max_iter=1000).fit(vectors[::2], kinds[::2])
    assert fit.score(vectors[1::2], kinds[1::2]) > 0.9


def test_attention_tells_the_last_season(forecaster, tmp_path):
    rng = np.random.default_rng(0)
    y = np.sin(np.arange(400) * 2 * np.pi / 24) + 0.05 * rng.normal(size=400)
    found = forecaster.attention(y)
    importance, past = found.importance[0], found.mean_weights[0]
    assert past.min() >= 0
    assert len(past) == len(found.tokens[0])
    if found.parts == "lags":
        assert set(importance.nlargest(5).index) & {1, 23, 24, 25, 48}
        assert past.sum() == pytest.approx(1.0, abs=1e-4)
    else:
        assert importance.idxmax() >= 399 - 24
    found.plot(tmp_path / "attention.png")
    assert (tmp_path / "attention.png").stat().st_size > 10_000


def test_a_stray_is_told_of():
    table = hourly(300)
    name = table.unique_id.iloc[0]
    table.loc[table.unique_id.eq(name).idxmax() + 150, "y"] = -9999.0
    cria = llamacast.load("cria", device="cpu")
    (note,) = cria.forecast(table, 5, num_samples=10).notes
    assert repr(name) in note
    assert "a value lies far from all others" in note
    assert not cria.forecast(hourly(300), 5, num_samples=10).notes


def test_a_series_of_which_nothing_that_is_seen_is_known_is_refused(forecaster):
    values = np.r_[np.arange(50.0), [np.nan] * 1600]
    with pytest.raises(DataError, match=r"no value in its last .* is at 49: end it there"):
        forecaster.forecast(values, 5, context_length=40)


@pytest.mark.parametrize("values", [[3.0], [3.0, 3.0], [np.nan, 2.0, np.nan]])
def test_certainty_from_next_to_nothing_has_a_note(values):
    found = llamacast.load("cria", device="cpu").forecast([values, [1.0, 2.0, 4.0], [5.0] * 40], 3)
    note, *others = found.notes
    assert note.startswith("series 0: nothing is known of how values vary")
    assert "series 0 and 1 more: fewer than 8 values are known" in others[0]
    assert not np.ptp(found.samples[0])


def test_history_is_shown_from_before_what_is_missing_at_the_end():
    values = np.r_[np.arange(60.0), np.full(200, np.nan)]
    found = llamacast.load("cria", device="cpu").forecast(values, 3)
    assert found.history[0].notna().sum() == 48


def test_histories_with_holes_or_over_before_others_have_a_note():
    cria = llamacast.load("cria", device="cpu")
    days = pd.date_range("2024-01-01", periods=60, freq="D")
    whole = pd.DataFrame({"unique_id": "a", "ds": days, "y": np.arange(60.0)})
    holes = whole[::3].assign(unique_id="b")
    over = whole[:40].assign(unique_id="c")
    assert not cria.forecast(whole, 3, num_samples=5).notes
    (note,) = cria.forecast(pd.concat([whole, holes]), 3, num_samples=5, frequency="D").notes
    assert note.startswith("series 'b': most steps have no value")
    (note,) = cria.forecast(pd.concat([whole, over]), 3, num_samples=5).notes
    assert note.startswith("series 'c': ends long before others do")


def test_whole_numbers_have_whole_quantiles_and_no_negative_zero():
    values = np.random.default_rng(0).poisson(0.3, 120).astype(float)
    found = llamacast.load("cria", device="cpu").forecast(
        values, 12, nonnegative=True, integer=True
    )
    levels = found.quantile([0.1, 0.33, 0.5, 0.9])
    np.testing.assert_array_equal(levels, levels.round())
    assert not np.signbit(found.samples).any()


@pytest.mark.parametrize("name", ["covariates", "future_frame", "holidays"])
def test_what_explains_forecasts_is_refused_elsewhere(forecaster, name):
    for method in (forecaster.detect, forecaster.embed, forecaster.attention):
        with pytest.raises(DataError, match=f"{name} explains forecasts and nothing else"):
            method(hourly(100), **{name: "DE"})
