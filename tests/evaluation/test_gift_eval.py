from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from llamacast.data.arrow import StoredSeries
from llamacast.data.calendar import parse_frequency
from llamacast.data.panel import TimeAxis
from llamacast.evaluation.baselines import SeasonalNaive
from llamacast.evaluation.gift_eval import (
    CONFIGURATIONS,
    Configuration,
    Contender,
    batches,
    find_data,
    gluonts_season,
    make_task,
    run,
    score,
)
from llamacast.evaluation.gift_report import (
    by_part,
    in_words,
    overall,
    standing,
    summarise,
    write_report,
)
from llamacast.evaluation.metrics import DECILES
from llamacast.forecast import DataError
from llamacast.interfaces.cli import app

NAIVE = Contender("seasonal-naive", SeasonalNaive)
# Made by tests/golden/make_gift_eval.py with an independent scorer.
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "gift_eval.json").read_text())


def stored(series, frequency="H", start="2020-01-01"):
    axis = TimeAxis(np.datetime64(start, "ns"), parse_frequency(frequency))
    values = [np.array(values, dtype=np.float32) for values in series]
    return StoredSeries([f"T{n}" for n in range(len(values))], values, [axis] * len(values))


def noisy(length, seed=0):
    rng = np.random.default_rng(seed)
    return 10 + 3 * np.sin(np.arange(length) * 2 * np.pi / 24) + rng.normal(size=length)


def golden_tasks():
    for name, made in GOLDEN.items():
        dataset, frequency = name.split("/")
        for row in made["scores"]:
            configuration = Configuration(dataset, frequency, row["term"])
            yield make_task(configuration, stored(made["series"], frequency, made["start"])), row


@pytest.fixture
def folder(tmp_path):
    """Two data sets as parquet: an hourly one with all terms, a weekly one."""
    path = tmp_path / "data"
    path.mkdir()
    for name, freq, lengths in (("ett1_H", "H", (800, 760)), ("ett1_W", "W-SUN", (120, 90))):
        frame = pd.DataFrame(
            {
                "item_id": [f"T{n}" for n in range(len(lengths))],
                "start": pd.Timestamp("2018-01-07"),
                "freq": freq,
                "target": [noisy(n, n).astype(np.float32) for n in lengths],
            }
        )
        frame.to_parquet(path / f"{name}.parquet")
    return path


# --- Configurations and windows ------------------------------------------------------------------


def test_there_are_97_configurations_with_known_folders():
    names = {configuration.name: configuration for configuration in CONFIGURATIONS}
    assert len(names) == len(CONFIGURATIONS) == 97
    terms = [configuration.term for configuration in CONFIGURATIONS]
    assert [terms.count(term) for term in ("short", "medium", "long")] == [55, 21, 21]
    sources = {
        "kdd_cup_2018/H/long": "kdd_cup_2018_with_missing/H",
        "loop_seattle/5T/short": "LOOP_SEATTLE/5T",
        "saugeen/D/short": "saugeenday/D",
        "temperature_rain/D/short": "temperature_rain_with_missing",
        "bizitobs_application/10S/medium": "bizitobs_application",
        "m4_yearly/A/short": "m4_yearly",
        "ett1/15T/long": "ett1/15T",
    }
    assert {name: names[name].source for name in sources} == sources


def test_seasons_are_those_of_gluonts():
    seasonality = pytest.importorskip("gluonts.time_feature.seasonality")
    for name in ("10S", "5min", "15min", "h", "2h", "5h", "D", "W-SUN", "ME", "QE-DEC", "YE", "B"):
        expected = seasonality.get_seasonality(name.replace("S", "s") if name == "10S" else name)
        assert gluonts_season(parse_frequency(name)) == expected, name


def test_data_are_found_in_either_layout(tmp_path):
    for name in ("ett1/H", "m4_yearly", "LOOP_SEATTLE/5T"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "data-00000-of-00001.arrow").touch()
    (tmp_path / "saugeen_W.parquet").touch()
    found = find_data(tmp_path)
    assert {path.relative_to(tmp_path).as_posix(): len(c) for path, c in found.items()} == {
        "m4_yearly": 1, "saugeen_W.parquet": 1, "LOOP_SEATTLE/5T": 3, "ett1/H": 3,
    }  # fmt: skip
    chosen = find_data(tmp_path, "H/long, yearly")
    names = [configuration.name for part in chosen.values() for configuration in part]
    assert names == ["m4_yearly/A/short", "ett1/H/long"]
    with pytest.raises(DataError, match="named like 'ett2'"):
        find_data(tmp_path, "ett2")
    with pytest.raises(DataError, match="no GIFT-Eval configuration;"):
        find_data(tmp_path / "nowhere")


def test_windows_are_the_last_steps_and_named_apart():
    series = stored([np.arange(1000.0), np.arange(900.0)])
    task = make_task(Configuration("ett1", "H", "short"), series)
    assert (task.horizon, task.num_windows, task.season_length) == (48, 2, 24)
    (windows,) = batches(task, 100)
    assert windows.actuals[:, 0].tolist() == [904.0, 952.0, 804.0, 852.0]
    assert [len(values) for values in windows.histories.values] == [904, 952, 804, 852]
    assert windows.histories.ids[0] == "T0 2020-02-07 16:00:00"
    assert len(set(windows.histories.ids)) == 4


def test_the_shortest_series_counts_even_without_values():
    long, empty = noisy(2000), np.full(600, np.nan)
    task = make_task(Configuration("ett1", "H", "short"), stored([long, empty]))
    assert task.num_windows == 2
    alone = make_task(Configuration("ett1", "H", "short"), stored([long]))
    assert alone.num_windows == 5


def test_histories_are_cut_but_not_their_seasonal_errors():
    task = make_task(Configuration("ett1", "H", "short"), stored([noisy(500)]))
    (whole,), (cut,) = batches(task, 9), batches(task, 9, longest_history=30)
    np.testing.assert_array_equal(cut.seasonal_errors, whole.seasonal_errors)
    np.testing.assert_array_equal(cut.histories.values[0], whole.histories.values[0][-30:])
    ends = [
        panel.axes[0].index(len(panel.values[0]), 1) for panel in (whole.histories, cut.histories)
    ]
    assert ends[0].equals(ends[1])


def test_too_short_or_of_unknown_frequency():
    with pytest.raises(DataError, match=r"ett1/H/short.*'T0' has 48 steps"):
        make_task(Configuration("ett1", "H", "short"), stored([noisy(48)]))
    with pytest.raises(DataError, match="no horizon"):
        make_task(Configuration("solar", "W", "short"), stored([noisy(90)], "Q"))


# --- Scores --------------------------------------------------------------------------------------


def test_scores_are_those_of_an_independent_scorer():
    for task, expected in golden_tasks():
        assert (task.horizon, task.num_windows) == (expected["horizon"], expected["windows"])
        found = score(task, SeasonalNaive(task.season_length))
        name = task.configuration.name
        assert found.mase == pytest.approx(expected["MASE"], rel=1e-6), name
        assert found.crps == pytest.approx(expected["CRPS"], rel=1e-6), name


def test_batches_do_not_change_scores():
    task, _ = next(golden_tasks())
    whole = score(task, SeasonalNaive(24))
    seen = []
    for size in (1, 3):
        parts = score(task, SeasonalNaive(24), windows_at_a_time=size, advance=seen.append)
        assert (parts.mase, parts.crps) == pytest.approx((whole.mase, whole.crps), rel=1e-12)
    assert sum(seen) == 2 * len(task.series) * task.num_windows


def test_scores_are_those_of_gluonts():
    """With missing values, constant and empty histories, and a history as long as the season."""
    pytest.importorskip("gluonts")
    gappy, late, constant, edge = noisy(200, 1), noisy(180, 2), np.full(150, 3.0), noisy(72, 3)
    gappy[[5, 90, 170, 199]] = np.nan
    late[:-20] = np.nan
    series = stored([gappy, late, constant, np.full(100, np.nan), edge])
    task = make_task(Configuration("ett1", "H", "short"), series)
    (windows,) = batches(task, 100)
    deciles = np.zeros((*windows.actuals.shape, len(DECILES)))
    forecast = SeasonalNaive(24).forecast(windows.histories, task.horizon)
    deciles[windows.known] = forecast.quantile(DECILES)
    assert windows.known.tolist() == [True, False, True, False, True]
    found = score(task, SeasonalNaive(24))
    expected = evaluated_by_gluonts(task, deciles)
    assert found.mase == pytest.approx(expected["MASE[0.5]"], rel=1e-6)
    assert found.crps == pytest.approx(expected["mean_weighted_sum_quantile_loss"], rel=1e-6)


def evaluated_by_gluonts(task, deciles):
    from gluonts.dataset.split import split
    from gluonts.ev.metrics import MASE, MeanWeightedSumQuantileLoss
    from gluonts.model.evaluation import evaluate_forecasts
    from gluonts.model.forecast import QuantileForecast

    start = pd.Period("2020-01-01", "h")
    entries = [
        {"item_id": name, "start": start, "target": values}
        for name, values in zip(task.series.ids, task.series.values, strict=True)
    ]
    _, template = split(entries, offset=-task.horizon * task.num_windows)
    data = template.generate_instances(
        task.horizon, windows=task.num_windows, distance=task.horizon
    )
    keys = [f"{level:g}" for level in DECILES]
    forecasts = [
        QuantileForecast(found.T, start + len(entry["target"]), keys, entry["item_id"])
        for entry, found in zip(data.input, deciles, strict=True)
    ]
    metrics = [MASE("0.5"), MeanWeightedSumQuantileLoss(list(DECILES))]
    frame = evaluate_forecasts(
        forecasts, test_data=data, metrics=metrics, axis=None, seasonality=task.season_length
    )
    return frame.iloc[0]


def test_nothing_to_measure_is_nan():
    task = make_task(Configuration("ett1", "H", "short"), stored([np.full(300, np.nan)]))
    found = score(task, SeasonalNaive(24))
    assert np.isnan(found.mase)
    assert np.isnan(found.crps)


# --- A run ---------------------------------------------------------------------------------------


class Failing:
    """Fails on long horizons; counts how often it is asked."""

    def __init__(self, longest=48):
        self.longest, self.asked = longest, 0

    def forecast(self, data, horizon):
        self.asked += 1
        if horizon > self.longest:
            raise RuntimeError("out of\nmemory")
        return SeasonalNaive(1).forecast(data, horizon)


def test_failures_are_reported_and_tried_again(folder, tmp_path):
    failing, output = Failing(), tmp_path / "out"
    contenders = [Contender("failing", lambda season: failing), NAIVE]
    results = run(folder, contenders, output)
    assert len(results) == 4 * 2
    errors = results[results.model == "failing"].set_index("term").error
    assert errors["medium"] == errors["long"] == "RuntimeError: out of"
    assert (errors["short"] == "").all()
    assert results[results.error == ""][["MASE", "CRPS"]].notna().all(axis=None)
    assert list(results.model[:2]) == ["failing", "seasonal-naive"]

    asked = failing.asked
    failing.longest = 480
    again = run(folder, contenders, output)
    assert failing.asked == asked + 2  # the two that had failed
    assert list(again.error[again.error != ""]) == ["RuntimeError: out of"]
    assert sorted(path.name for path in output.iterdir()) == ["gift_eval.csv"]


def test_wrong_forecasts_are_failures(folder, tmp_path):
    class Wrong:
        def __init__(self, change):
            self.change = change

        def forecast(self, data, horizon):
            found = SeasonalNaive(1).forecast(data, horizon)
            return type(found)(self.change(found.samples), found.ids, found.index)

    wrong = {"nan": lambda samples: samples * np.nan, "short": lambda samples: samples[:, :, :-1]}
    for name, change in wrong.items():
        contender = Contender(name, lambda season, change=change: Wrong(change))
        results = run(folder, [contender], tmp_path / name, chosen="/W/")
        assert results.error[0].startswith("ValueError: the forecast h")


def test_a_run_goes_on_and_keeps_what_it_has(folder, tmp_path):
    output = tmp_path / "out"
    first = run(folder, [NAIVE], output, chosen="/short")
    assert list(first.freq) == ["H", "W"]
    (output / "gift_eval.csv").write_text(
        (output / "gift_eval.csv").read_text().replace(str(first.MASE[0]), "9.5")
    )
    counting = Failing(1000)
    results = run(folder, [NAIVE, Contender("other", lambda season: counting)], output)
    assert results.MASE[0] == 9.5
    assert len(results) == 8
    assert len(run(folder, [NAIVE], output, chosen="/W/")) == 1


def test_scores_of_other_data_are_refused(folder, tmp_path):
    run(folder, [NAIVE], tmp_path / "out", chosen="/W/")
    file = folder / "ett1_W.parquet"
    table = pq.read_table(file).to_pandas()
    table["target"] = [values + 1 for values in table["target"]]
    table.to_parquet(file)
    with pytest.raises(DataError, match="scores of other data named ett1/W/short"):
        run(folder, [NAIVE], tmp_path / "out", chosen="/W/")


def test_other_settings_are_refused(folder, tmp_path):
    run(folder, [Contender("m", SeasonalNaive, "paths=3")], tmp_path / "out", chosen="/W/")
    with pytest.raises(DataError, match=r"gift_eval\.csv.*'m' with other settings.*paths=3"):
        run(folder, [Contender("m", SeasonalNaive, "paths=4")], tmp_path / "out")
    same = Contender("m", SeasonalNaive, "paths=3")
    with pytest.raises(DataError, match="longest_history=50"):
        run(folder, [same], tmp_path / "out", longest_history=50)
    (tmp_path / "out" / "gift_eval.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"gift_eval\.csv.*no results"):
        run(folder, [same], tmp_path / "out")


# --- Beside published ones -----------------------------------------------------------------------


@pytest.fixture
def results():
    rows = [
        ("ett1", "H", "short", 1.0, 2.0),
        ("ett1", "H", "long", 2.0, 0.5),
        ("ett1", "W", "short", np.nan, 1.0),
    ]
    frame = pd.DataFrame(
        [
            {"dataset": d, "freq": f, "term": t, "model": m, "MASE": v, "CRPS": v / 2}
            for d, f, t, *values in rows
            for m, v in zip(("mine", "seasonal-naive"), values, strict=True)
        ]
    )
    return frame.assign(error="", data="", settings="")


@pytest.fixture
def published(tmp_path):
    frame = pd.DataFrame(
        {
            "dataset": "ett1",
            "freq": ["W", "H", "H", "H"],
            "term": ["short", "short", "long", "medium"],
        }
    )
    for metric in ("MASE", "CRPS"):
        frame[f"seasonal_naive|{metric}"] = [1.0, 4.0, 4.0, 1.0]
        frame[f"Other|{metric}"] = [9.0, 1.0, 16.0, 9.0]
        frame[f"Patchy|{metric}"] = [9.0, 1.0, np.nan, 9.0]
    frame.to_csv(tmp_path / "published.csv", index=False)
    return tmp_path / "published.csv"


def test_means_and_ranks_over_the_same_configurations(results, published):
    found = overall(summarise(results, published)).set_index("model")
    assert set(found.configurations) == {2}
    assert found.MASE["mine"] == pytest.approx(np.sqrt(1 / 4 * 2 / 4))
    assert found.CRPS["mine"] == pytest.approx(np.sqrt(0.5 / 4 * 1 / 4))
    assert found.MASE["Other"] == pytest.approx(1.0)
    assert np.isnan(found.MASE["Patchy"])
    # 1, 2, 4, 1, 1 and 2, 0.5, 4, 16: ties share their places.
    assert found["MASE rank"]["mine"] == pytest.approx((2 + 2) / 2)
    assert found["MASE rank"]["Other"] == pytest.approx((2 + 4) / 2)


def test_without_published_scores_our_own_naive_is_the_measure(results):
    summary = summarise(results)
    found = overall(summary).set_index("model")
    assert found.MASE["seasonal-naive"] == 1.0
    assert found.MASE["mine"] == pytest.approx(np.sqrt(0.5 * 4))
    assert list(dict.fromkeys(summary.part)) == ["all", "short", "long", "H"]
    assert by_part(summary, "MASE").loc[("ours", "mine"), "long"] == pytest.approx(4.0)


def test_what_cannot_be_compared_is_said(results, published, tmp_path):
    with pytest.raises(DataError, match="'seasonal-naive'"):
        summarise(results[results.model == "mine"])
    with pytest.raises(DataError, match="no configuration"):
        summarise(results[results.freq == "W"])
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"bad\.csv"):
        summarise(results, tmp_path / "bad.csv")
    with pytest.raises(DataError, match=r"none\.csv"):
        summarise(results, tmp_path / "none.csv")


def test_where_ours_stand_on_each_configuration(results, published):
    places = standing(results, published).set_index(["freq", "term"])
    assert list(dict.fromkeys(places.model)) == ["mine"]
    assert set(places.index) == {("H", "short"), ("H", "long")}
    mine = results[(results.model == "mine")].set_index(["freq", "term"]).MASE
    for place, row in places.iterrows():
        assert pytest.approx(mine[place] / 4.0) == row.MASE
        assert row["MASE to best"] >= 1
    # Patchy has no score on the long one.
    assert places["MASE models"].to_dict() == {("H", "short"): 5, ("H", "long"): 4}
    assert places.loc[("H", "short"), "MASE best"] in ("mine", "Other", "Patchy", "seasonal-naive")


def test_words_name_who_is_ahead_and_what_is_lost(results, published):
    summary = summarise(results, published)
    told = in_words(summary, standing(results, published))
    assert "**mine, CRPS** 0.177 of seasonal naive: behind seasonal-naive (0.125)." in told
    assert "Farthest behind the best: ett1 H long (4.00 of seasonal-naive's)" in told
    assert "**mine, MASE** 0.354" in told
    # Beside our own naive alone, a configuration is lost to it.
    alone = in_words(summarise(results), standing(results))
    assert "Worse than seasonal naive: ett1 H long (4.00)" in alone


def test_the_report(results, published, tmp_path):
    summary = summarise(results, published)
    write_report(results, summary, tmp_path, "llamacast gift-eval somewhere", published)
    text = (tmp_path / "gift_eval.md").read_text()
    assert "## Where ours stand" in text
    assert "over 2 of the benchmark's 97 configurations (1 more lack a score" in text
    assert "`llamacast gift-eval somewhere`" in text
    assert "| **mine** | 0.177 |" in text
    assert (tmp_path / "gift_eval.png").stat().st_size > 5_000


def test_the_command_line(folder, tmp_path):
    run_cli = CliRunner().invoke
    arguments = ["gift-eval", str(folder), "--output", str(tmp_path / "out"), "--configs", "/W/"]
    result = run_cli(
        app, [*arguments, "--models", "seasonal-naive, lag-llama", "--num-samples", "5"]
    )
    assert result.exit_code == 0, result.output
    assert "lag-llama" in result.output
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["gift_eval.csv", "gift_eval.md", "gift_eval.png"]
    result = run_cli(app, [*arguments, "--models", "lag-llama", "--num-samples", "6"])
    assert result.exit_code == 2
    assert "other settings" in result.output
    for wrong in (["--longest-history", "0"], ["--models", "llama"], ["--models", ","]):
        assert run_cli(app, [*arguments, *wrong]).exit_code == 2
