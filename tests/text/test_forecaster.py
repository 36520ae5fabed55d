import numpy as np
import pandas as pd
import pytest

import llamacast
from llamacast.forecast import DataError, Forecaster
from llamacast.text.codec import fit
from llamacast.text.forecaster import TextForecaster, load_text
from llamacast.text.language import Language, Settings
from tests.text.test_finetune import waves

HORIZON = 5


@pytest.fixture(scope="module")
def small(decoder):
    return TextForecaster(decoder)


def table(systems, names=None):
    frames = []
    for number, system in enumerate(systems):
        name = names[number] if names else f"s{number}"
        for channel in range(system.shape[1]):
            values = system[:, channel]
            stamps = pd.date_range("2024-01-01", periods=len(values), freq="D")
            frames.append(
                pd.DataFrame(
                    {"unique_id": f"{name}/{channel}", "ds": stamps, "y": values, "group": name}
                )
            )
    return pd.concat(frames, ignore_index=True)


def alone(systems):
    return table(systems).drop(columns="group")


def test_it_is_a_forecaster_and_answers_with_a_forecast(small):
    assert isinstance(small, Forecaster)
    found = small.forecast(alone(waves(3)), HORIZON)
    assert found.samples.shape == (6, 20, HORIZON)
    assert np.isfinite(found.samples).all()
    assert found.model == "small"
    frame = found.to_frame(quantiles=[0.5])
    assert list(frame.columns) == ["unique_id", "ds", "mean", "0.5"]
    assert frame.ds.min() == pd.Timestamp("2024-01-25")


@pytest.mark.parametrize("groups", [False, True])
def test_neighbours_parts_and_order_do_not_matter(small, groups):
    systems = [*waves(3), *waves(2, steps=17, seed=5)]
    names = [f"n{number}" for number in range(5)]
    columns = {"group_column": "group"} if groups else {}

    def ask(chosen, **options):
        frame = table([systems[one] for one in chosen], [names[one] for one in chosen])
        frame = frame if groups else frame.drop(columns="group")
        found = small.forecast(frame, HORIZON, num_samples=6, **options, **columns)
        return dict(zip(found.ids, found.samples, strict=True))

    whole = ask(range(5))
    for other in (ask([4, 2, 0, 3, 1]), ask(range(5), memory_bytes=1)):
        assert all((whole[name] == other[name]).all() for name in whole)
    for one in range(5):
        for name, samples in ask([one]).items():
            assert (samples == whole[name]).all()


def test_channels_of_a_group_are_told_together(small):
    frame = table(waves(2))
    together = small.forecast(frame, HORIZON, group_column="group")
    apart = small.forecast(frame.drop(columns="group"), HORIZON)
    assert together.samples.shape == apart.samples.shape
    assert (together.samples != apart.samples).any()


def test_scaling_a_series_scales_its_forecast(decoder):
    """Ways of writing see a series in units of its own."""
    for codec in decoder.settings.codecs:
        one = TextForecaster(Language(decoder.model, Settings((codec,), 200), name="one"))
        system = waves(1, channels=1)
        plain = one.forecast(alone(system), HORIZON).samples
        scaled = one.forecast(alone([4.0 * system[0]]), HORIZON).samples
        assert np.allclose(scaled, 4.0 * plain, rtol=1e-9)


def test_a_forecast_goes_on_where_the_series_ends(small):
    """Differences are counted from the last value that was written."""
    found = small.forecast(alone([100.0 + 0.01 * one for one in waves(2)]), 1)
    assert (np.abs(found.samples - 100.02) < 0.2).all()


def test_history_beyond_what_can_be_read_is_left_out(small):
    rng = np.random.default_rng(0)
    long = np.exp(0.1 * rng.standard_normal((400, 1)))
    cut = small._prompt(_system(long), HORIZON, "")
    assert len(cut.ids) <= 200 - 2 * HORIZON
    assert len(cut.units) == (200 - 2 * HORIZON) // 2
    with pytest.raises(DataError, match="do not fit"):
        small.forecast(alone([long]), 98)


def _system(values):
    from llamacast.text.systems import NamedSystem

    return NamedSystem("long", [0], values)


def test_missing_values_are_read_and_never_written(small):
    system = waves(1)[0].copy()
    system[[3, 4, 11], 0] = np.nan
    found = small.forecast(alone([system]), HORIZON)
    assert np.isfinite(found.samples).all()
    prompt = small._prompt(_system(system), HORIZON, "")
    missing = small.language.writing(2)._missing_tokens
    assert np.isin(prompt.ids, missing).sum() == 3 * 2


def test_zeros_and_negatives_take_ways_of_writing_without_logarithms(small):
    for shift in (-2.0, -5.0):
        found = small.forecast(alone([one + shift for one in waves(1)]), HORIZON)
        assert np.isfinite(found.samples).all()


def test_likelihood_is_that_of_the_codec_and_ranks_what_fits(small):
    frame = alone(waves(2, channels=1))
    told = small.log_likelihood(frame, HORIZON)
    assert list(told.columns) == ["unique_id", "ds", "log_density"]
    assert len(told) == 2 * HORIZON
    assert told.log_density.notna().all()
    # In other units, the density is that much thinner.
    tenfold = small.log_likelihood(frame.assign(y=10 * frame.y), HORIZON)
    assert np.allclose(tenfold.log_density, told.log_density - np.log(10), atol=1e-6)
    assert fit(np.array([1.0, 2.0]), small.language.settings.codecs[1]).unit > 0


def test_exact_quantiles_are_near_those_of_samples(small):
    frame = alone(waves(2, channels=1))
    exact = small.next_quantiles(frame, [0.25, 0.5, 0.75])
    sampled = small.forecast(frame, 1, num_samples=2000).quantile([0.25, 0.5, 0.75])[:, 0]
    spread = np.ptp(sampled, axis=1, keepdims=True)
    assert (np.abs(exact.to_numpy() - sampled) < 0.1 * spread + 1e-9).all()
    assert list(exact.columns) == ["0.25", "0.5", "0.75"]


def test_text_before_a_series_is_read(reader, small):
    spoken = TextForecaster(reader)
    frame = alone(waves(2, channels=1))
    plain = spoken.forecast(frame, 2)
    told = spoken.forecast(frame, 2, text={"s0/0": "3:"})
    assert (plain.samples[0] != told.samples[0]).any()
    assert (plain.samples[1] == told.samples[1]).all()
    with pytest.raises(DataError, match="reads digits only"):
        small.forecast(frame, 2, text="a holiday")


def test_saved_is_loaded_and_says_what_it_learnt_from(small, tmp_path):
    tuned = small.finetune(
        table(waves()),
        4,
        group_column="group",
        steps=16,
        batch=4,
        learning_rate=1e-2,
        directory=tmp_path / "run",
    )
    assert tuned.outcome.improved
    back = load_text(tmp_path / "run" / "model")
    frame = table(waves(2, seed=3))
    one = tuned.forecast(frame, 3, group_column="group")
    other = back.forecast(frame, 3, group_column="group")
    assert (one.samples == other.samples).all()
    assert back.training.until == "2024-01-24T00:00:00"
    assert tuned.outcome is not None
    assert repr(back).split("weights=")[1] == repr(tuned).split("weights=")[1]


def test_a_run_that_was_refused_leaves_its_folder_free(small, tmp_path):
    options = {"group_column": "group", "batch": 2, "directory": tmp_path / "run"}
    with pytest.raises(DataError, match="steps fit"):
        small.finetune(table(waves()), 4, steps=600, budget=1e9, **options)
    assert not (tmp_path / "run").exists()
    small.finetune(table(waves()), 4, steps=1, **options)


def test_a_run_that_does_not_help_changes_nothing(small):
    before = repr(small), small.training
    tuned = small.finetune(
        table(waves()), 4, group_column="group", steps=2, batch=2, learning_rate=50.0
    )
    assert not tuned.outcome.improved
    assert (repr(small), small.training) == before
    assert repr(tuned) == before[0]


def test_a_tuned_model_writes_what_it_could_before(small):
    tuned = small.finetune(table(waves()), 4, group_column="group", steps=2, batch=2)
    assert len(tuned.language.settings.codecs) == 3
    assert np.isfinite(tuned.forecast(alone([one - 2 for one in waves(1)]), 3).samples).all()


def test_half_precision_is_refused_where_it_cannot_learn(small, tmp_path):
    small.save(tmp_path)
    half = load_text(tmp_path, dtype="float16")
    with pytest.raises(DataError, match="float16 cannot be trained"):
        half.finetune(table(waves()), 4, group_column="group", steps=2)


def test_series_that_begin_late_or_end_with_zero_are_forecast_and_judged_or_refused(small):
    frame = table(waves(1))
    late = frame.drop(index=frame[frame.unique_id == "s0/1"].index[:-4])
    late.loc[late.index[-1], "y"] = 0.0
    assert np.isfinite(small.forecast(late, 2, group_column="group").samples).all()
    with pytest.raises(DataError, match="no values before the last 5"):
        small.log_likelihood(late, 5, group_column="group")
    dropped = alone(waves(1, channels=1))
    dropped.loc[dropped.index[-1], "y"] = 0.0
    small_log = TextForecaster(
        Language(
            small.language.model, Settings(small.language.settings.codecs[:1], 200), name="log"
        )
    )
    assert small_log.log_likelihood(dropped, 3).log_density.iloc[-1] == -np.inf
    with pytest.raises(DataError, match="cannot read 120 steps"):
        small.log_likelihood(alone(waves(1, steps=150, channels=1)), 120)


def test_an_outlier_is_odder_the_farther_out(small):
    frame = alone(waves(1, channels=1))
    told = []
    for size in (10.0, 1e3, 1e6):
        far = frame.copy()
        far.loc[far.index[-1], "y"] = size
        told.append(small.log_likelihood(far, 1).log_density.iloc[0])
    assert told[0] > told[1] + 1 > told[2] + 2


def test_many_channels_are_refused_in_words(small):
    wide = waves(1, channels=120)
    with pytest.raises(DataError, match="do not fit"):
        small.forecast(table(wide), 2, group_column="group")


def test_text_for_nobody_and_covariates_are_refused(reader, small):
    frame = alone(waves(1, channels=1))
    with pytest.raises(DataError, match="'nobody', and there is no such series"):
        TextForecaster(reader).forecast(frame, 2, text={"nobody": "x"})
    priced = frame.assign(price=1.0 + np.arange(len(frame)))
    for ask in (small.log_likelihood, small.next_quantiles, small.finetune):
        arguments = [priced] if ask == small.next_quantiles else [priced, 3]
        with pytest.raises(DataError, match="takes no covariates"):
            ask(*arguments, covariates=["price"], target_column="y")


def test_it_can_be_sent_to_another_process(small):
    import pickle

    back = pickle.loads(pickle.dumps(small))
    frame = alone(waves(1))
    assert (back.forecast(frame, 2).samples == small.forecast(frame, 2).samples).all()


def test_another_run_in_the_folder_is_refused(small, tmp_path):
    options = {"group_column": "group", "steps": 2, "batch": 2, "directory": tmp_path}
    small.finetune(table(waves()), 4, **options)
    with pytest.raises(llamacast.CheckpointError, match="differs in batch"):
        small.finetune(table(waves()), 4, **{**options, "batch": 3})


def test_backtests_take_it_beside_others(small):
    frame = alone(waves(3))
    scores = llamacast.backtest(
        frame,
        4,
        {"text": small, "seasonal-naive": llamacast.baseline("seasonal-naive")},
        num_windows=2,
    )
    assert set(scores.table().index) == {"text", "seasonal-naive"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizon": 0}, "horizon must be a whole number"),
        ({"num_samples": 2.5}, "num_samples must be a whole number"),
        ({"temperature": -1}, "temperature lies in"),
        ({"top_p": 0}, "top_p in"),
        ({"group_column": "nothing"}, "nothing"),
    ],
)
def test_bad_requests_are_named(small, options, message):
    with pytest.raises(DataError, match=message):
        small.forecast(**{"data": table(waves(1)), "horizon": 2, "group_column": "group"} | options)


def test_groups_that_do_not_end_together_are_named(small):
    frame = table(waves(1))
    shorter = frame.drop(index=frame.index[-1])
    with pytest.raises(DataError, match=r"'s0/1' and 's0/0' of one group do not end"):
        small.forecast(shorter, 2, group_column="group")
    late = frame.drop(index=frame[frame.unique_id == "s0/1"].index[:6])
    assert np.isfinite(small.forecast(late, 2, group_column="group").samples).all()
