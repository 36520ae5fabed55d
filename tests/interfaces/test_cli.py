from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

import llamacast
from llamacast.applied.features import FeatureHead
from llamacast.interfaces.cli import _models, app
from llamacast.interfaces.terminal import OPTIONS, in_options, told_apart, write


@pytest.fixture
def run():
    runner = CliRunner()
    return lambda *arguments: runner.invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def table(tmp_path):
    stamps = pd.date_range("2024-01-01", periods=100, freq="D")
    frame = pd.DataFrame({"shop": "x", "day": stamps, "sold": np.arange(100.0), "staff": 3})
    frame.to_csv(tmp_path / "shops.csv", index=False)
    return tmp_path / "shops.csv"


COLUMNS = ("--id-column", "shop", "--time-column", "day", "--target-column", "sold")


def test_a_forecast_is_printed_written_and_drawn(run, table, tmp_path):
    output, plot = tmp_path / "out.csv", tmp_path / "out.png"
    result = run(
        "forecast", table, "--horizon", 14, *COLUMNS, "--quantiles", "0.2,0.8", "--levels", "90",
        "--num-samples", 20, "--output", output, "--plot", plot,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    frame = pd.read_csv(output)
    expected = ["shop", "day", "mean", "0.2", "0.8", "cria-lo-90", "cria-hi-90"]
    assert list(frame.columns) == expected
    assert frame.day.iloc[0] == "2024-04-10"
    assert len(frame) == 14
    assert plot.stat().st_size > 10_000
    assert "2024-04-10" in result.output
    assert str(output) in result.output
    assert str(plot) in result.output


def test_a_folder_is_forecast_into_a_folder(run, tmp_path):
    days = pd.date_range("2024-01-01", periods=60)
    (tmp_path / "in").mkdir()
    for shop in "abc":
        frame = pd.DataFrame({"unique_id": shop, "ds": days, "y": np.arange(60.0) % 7})
        frame.to_parquet(tmp_path / "in" / f"{shop}.parquet")
    options = ("forecast", tmp_path / "in", "--horizon", 4, "--quantiles", "0.2,0.8")
    result = run(*options, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    frame = pd.read_parquet(tmp_path / "out")
    assert list(frame.columns) == ["unique_id", "ds", "mean", "0.2", "0.8"]
    assert sorted(frame.unique_id) == sorted([*"aaaabbbbcccc"])
    for extra, message in (
        ((), "--output FOLDER"),
        (("--output", tmp_path / "out.csv"), "--output FOLDER"),
        (("--output", tmp_path / "o", "--holidays", "DE"), "--holidays"),
        (("--output", tmp_path / "o", "--num-samples", 0), "--num-samples"),
        (("--output", tmp_path / "o", "--model", "none"), "none"),
        (("--output", tmp_path / "o", "--context-length", 0), "--context-length"),
        (("--output", tmp_path / "out", "--seed", 1), "another run"),
    ):
        refused = run(*options, *extra)
        assert refused.exit_code == 2
        assert message in refused.output
    assert not (tmp_path / "o").exists()


def test_same_seed_same_file(run, table, tmp_path):
    for name in ("one", "two"):
        path = tmp_path / f"{name}.parquet"
        result = run(
            "forecast", table, "--horizon", 3, *COLUMNS, "--num-samples", 5, "--output", path
        )
        assert result.exit_code == 0, result.output
    one, two = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("one", "two"))
    pd.testing.assert_frame_equal(one, two)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--horizon", 0), "horizon"),
        (("--horizon", 3), "--target-column"),
        (("--horizon", 3, *COLUMNS, "--time-column", "week"), "'week'"),
        (("--horizon", 3, *COLUMNS, "--quantiles", "0.5,x"), "--quantiles"),
        (("--horizon", 3, *COLUMNS, "--quantiles", "1.5"), "--quantiles"),
        (("--horizon", 3, *COLUMNS, "--output", "out.xlsx"), "--output"),
        (("--horizon", 3, *COLUMNS, "--output", "/nowhere/out.csv"), "/nowhere"),
        (("--horizon", 3, *COLUMNS, "--model", "gpt"), "gpt"),
        (("--horizon", 3, *COLUMNS, "--frequency", "x"), "frequency"),
    ],
)
def test_bad_input_ends_with_one_line_and_code_2(run, table, arguments, message):
    result = run("forecast", table, *arguments)
    assert result.exit_code == 2, result.output
    lines = result.output.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]


def test_a_missing_file_is_named(run, tmp_path):
    result = run("forecast", tmp_path / "none.csv", "--horizon", 3)
    assert result.exit_code == 2
    assert "none.csv" in result.output


def test_convert(run, golden_path, tmp_path):
    result = run("convert", golden_path / "tiny_reference.ckpt", tmp_path / "tiny")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "tiny" / "model.safetensors").exists()
    (tmp_path / "bad.ckpt").write_text("junk")
    result = run("convert", tmp_path / "bad.ckpt", tmp_path / "bad")
    assert result.exit_code == 2
    assert "bad.ckpt" in result.output
    assert not (tmp_path / "bad").exists()


def test_pretrain_trains_stops_and_goes_on(run, table, tmp_path):
    rng = np.random.default_rng(0)
    pd.DataFrame(
        {
            "item_id": [str(n) for n in range(20)],
            "start": pd.Timestamp("2024-01-01"),
            "freq": "D",
            "target": [rng.normal(size=120).astype(np.float32) for _ in range(20)],
        }
    ).to_parquet(tmp_path / "corpus.parquet")
    (tmp_path / "recipe.toml").write_text(
        """
        data = "corpus.parquet"
        windows = {tokens_per_batch = 64, lengths = [32], length_weights = [1]}
        loop = {steps = 2, log_every = 1}
        model = {num_layers = 1, num_heads = 1, head_width = 4, feedforward_width = 8}
        """
    )
    common = ("pretrain", tmp_path / "recipe.toml", "--output", tmp_path / "run", "--device", "cpu")
    result = run(*common)
    assert result.exit_code == 0, result.output
    assert "begins with weights that are drawn" in result.output
    result = run(*common, "--steps", 3)
    assert result.exit_code == 0, result.output
    assert "goes on from its checkpoint" in result.output
    assert "step 3" in result.output
    assert "step 2 " not in result.output
    assert (tmp_path / "run" / "loss.png").exists()
    assert "is at step 3 of 1" in run(*common, "--steps", 1).output
    forecast = run(
        "forecast", table, "--horizon", 2, *COLUMNS, "--model", tmp_path / "run" / "model"
    )
    assert forecast.exit_code == 0, forecast.output


def test_a_recipe_serves_other_data_too(run, tmp_path):
    recipe = """
        windows = {tokens_per_batch = 64, lengths = [32], length_weights = [1]}
        loop = {steps = 1}
        model = {num_layers = 1, num_heads = 1, head_width = 4, feedforward_width = 8}
        mixture = {weights = {m3 = 2.0}}
        hold_out = {shares = {m3 = 0.1}}
        """
    values = np.random.default_rng(0).normal(size=(20, 120)).astype(np.float32)
    frame = pd.DataFrame({"item_id": [str(n) for n in range(20)], "target": [*values]})
    frame.assign(start=pd.Timestamp("2024-01-01"), freq="D").to_parquet(tmp_path / "mine.parquet")
    (tmp_path / "recipe.toml").write_text(recipe)
    (tmp_path / "own.toml").write_text('data = "mine.parquet"' + recipe)
    common = ("--output", tmp_path / "run", "--device", "cpu")
    refused = run("pretrain", tmp_path / "own.toml", *common)
    assert refused.exit_code == 2
    assert "'m3'" in refused.output
    result = run("pretrain", tmp_path / "recipe.toml", "--data", tmp_path / "mine.parquet", *common)
    assert result.exit_code == 0, result.output


def test_pretrain_refuses_in_one_line(run, tmp_path):
    (tmp_path / "recipe.toml").write_text("seed = 1")
    for arguments, told in (
        ((tmp_path / "recipe.toml",), "names no data"),
        ((tmp_path / "nothing",), "nothing"),
        ((tmp_path / "nothing.toml",), "nothing.toml"),
        ((tmp_path / "recipe.toml", "--minutes", 0), "--minutes"),
    ):
        result = run("pretrain", *arguments, "--output", tmp_path / "run")
        assert result.exit_code == 2
        assert told in result.output
    assert not (tmp_path / "run").exists()


def test_a_backtest_prints_scores_and_leaves_a_report_and_goes_on(run, table, tmp_path):
    output = tmp_path / "scores"
    arguments = (
        "backtest", table, "--horizon", 7, "--windows", 2, *COLUMNS, "--num-samples", 5,
        "--models", "lag-llama,naive", "--output", output,
    )  # fmt: skip
    first = run(*arguments)
    assert first.exit_code == 0, first.output
    for told in ("lag-llama", "naive", "seasonal-naive", "CRPS", "coverage 80 %", "2 windows"):
        assert told in first.output
    assert "too few windows to tell skill from luck" in first.output
    written = {path.name for path in output.iterdir()}
    assert written >= {"report.md", "scores.csv", "per_series.csv", "skill.png"}
    again = run(*arguments)
    assert again.output == first.output  # seconds too: nothing was forecast again
    other = run(*arguments[:2], "--horizon", 5, *arguments[4:])
    assert other.exit_code == 2
    assert "another folder" in other.output


def test_a_backtest_of_a_folder_scores_each_data_set(run, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("rain", "sun"):
        frame = pd.DataFrame(
            {
                "item_id": ["a", "b"],
                "start": pd.Timestamp("2020-01-01"),
                "freq": "D",
                "target": [rng.normal(size=60), rng.normal(size=40)],
            }
        )
        frame.to_parquet(tmp_path / f"{name}.parquet")
    result = run("backtest", tmp_path, "--horizon", 7, "--models", "naive")
    assert result.exit_code == 0, result.output
    assert "rain\n" in result.output
    assert "sun\n" in result.output
    assert "all data sets" in result.output
    for option in ("--holidays", "--frequency", "--covariates"):
        refused = run("backtest", tmp_path, "--horizon", 7, option, "D")
        assert refused.exit_code == 2
        assert f"{option} is for a table" in refused.output
    # A data set that is too short is named before anything is forecast.
    frame.assign(target=[[1.0, 2.0], [3.0]]).to_parquet(tmp_path / "wind.parquet")
    short = run("backtest", tmp_path, "--horizon", 7, "--models", "naive")
    assert short.exit_code == 2
    assert short.output.startswith("error: wind: horizon 7 leaves no history")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--horizon", 0), "horizon must be 1 or more"),
        (("--horizon", 200), "shorten the horizon"),
        (("--horizon", 7, "--windows", 0), "--windows must be 1 or more"),
        (
            ("--horizon", 7, "--models", "nonsense"),
            "no model 'nonsense'; there are cria, lag-llama",
        ),
    ],
)
def test_a_backtest_that_cannot_be_is_refused_in_one_line(run, table, arguments, message):
    result = run("backtest", table, *COLUMNS, *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_help_is_for_newcomers(run):
    text = run("forecast", "--help").output
    for word in ("--horizon", "--quantiles", "--output", "--plot", "CSV", "unique_id"):
        assert word in text
    assert "llamacast[baselines]" in "".join(run("backtest", "--help").output.split())
    assert "llamacast[text]" in "".join(run("text", "--help").output.split())


# --- finetune, detect ------------------------------------------------------------------------------


def test_fine_tuning_tells_its_cost_and_its_verdict_and_leaves_a_model(run, table, tmp_path):
    folder = tmp_path / "tuned"
    result = run(
        "finetune", table, "--horizon", 7, *COLUMNS, "--strategy", "head", "--steps", 4,
        "--output", folder,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "at most 4 steps, about" in result.output
    assert "windows held back" in result.output
    assert (folder / "loss.png").exists()
    result = run("forecast", table, "--horizon", 7, *COLUMNS, "--model", folder / "model")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--strategy", "everything"), "--strategy must be one of full"),
        (("--steps", 0), "steps must be"),
        (("--head", "cauchy"), "head must be one of"),
        (("--history-share", 2), "--history-share"),
        (("--horizon", 90), "too short to fine-tune"),
    ],
)
def test_a_fine_tuning_that_cannot_be_leaves_nothing(run, table, tmp_path, options, message):
    folder = tmp_path / "tuned"
    result = run("finetune", table, "--horizon", 7, *COLUMNS, "--output", folder, *options)
    assert result.exit_code == 2
    assert message in result.output
    assert not folder.exists()


def test_odd_values_are_printed_written_and_drawn(run, tmp_path):
    values = np.sin(np.arange(300) / 4) + np.random.default_rng(0).normal(0, 0.1, 300)
    values[250] = 9.0
    stamps = pd.date_range("2024-01-01", periods=300, freq="h")
    pd.DataFrame({"ds": stamps, "y": values}).to_csv(tmp_path / "in.csv", index=False)
    output, plot = tmp_path / "odd.csv", tmp_path / "odd.png"
    result = run("detect", tmp_path / "in.csv", "--output", output, "--plot", plot)
    assert result.exit_code == 0, result.output
    assert str(stamps[250]) in result.output
    frame = pd.read_csv(output)
    assert len(frame) == 300
    assert frame.anomaly[250]
    assert frame.anomaly.mean() < 0.05
    assert plot.stat().st_size > 10_000
    result = run("detect", tmp_path / "in.csv", "--false-alarm-rate", 0.9)
    assert result.exit_code == 2
    assert "--false-alarm-rate" in result.output


def test_a_backtest_takes_fine_tuned_models(run, table, tmp_path):
    command = ("backtest", table, "--horizon", 5, *COLUMNS, "--windows", 2, "--models")
    result = run(*command, "cria+everything")
    assert result.exit_code == 2
    assert "after the + stands one of full" in result.output
    result = run(*command, "cria+features")
    assert result.exit_code == 0, result.output
    assert "cria+features" in result.output


def test_covariates_are_told_of(run, table, tmp_path):
    future = tmp_path / "future.csv"
    stamps = pd.date_range("2024-04-10", periods=7, freq="D")
    pd.DataFrame({"shop": "x", "day": stamps, "staff": 3}).to_csv(future, index=False)
    command = ("forecast", table, "--horizon", 7, *COLUMNS, "--num-samples", 5)
    result = run(*command, "--future", future, "--covariates", "staff", "--holidays", "DE")
    assert result.exit_code == 0, result.output
    assert "covariates: " in result.output
    result = run(*command, "--future", future, "--covariates", "weather")
    assert result.exit_code == 2
    assert "no covariate 'weather'" in result.output


# --- Folders of models ------------------------------------------------------------------------------


@pytest.fixture
def tuned(tmp_path):
    """Folders as fine-tuning leaves them."""
    for name in ("north", "south"):
        llamacast.load("cria", device="cpu").save(tmp_path / name / "model")
    return tmp_path


def test_served_models_are_named_by_their_folders_or_as_one_says(tuned, monkeypatch):
    named = _models(f"cria,{tuned}/north/model,{tuned}/south/model,mine={tuned}/south/model", "cpu")
    assert list(named) == ["cria", "north", "south", "mine"]
    assert named["south"].source == str(tuned / "south" / "model")
    monkeypatch.chdir(tuned / "north" / "model")
    assert list(_models(".", "cpu")) == ["north"]


def test_two_models_of_one_name_are_refused(run, tuned):
    (tuned / "other").mkdir()
    (tuned / "north").rename(tuned / "other" / "south")
    both = (tuned / "south" / "model", tuned / "other" / "south" / "model")
    for command in ("serve", "mcp"):
        refused = run(command, "--model", ",".join(map(str, both)))
        assert refused.exit_code == 2
        assert all(str(one) in refused.output for one in both)
        assert "'south'" in refused.output
    assert "NAME=FOLDER" in run("serve", "--model", "=x").output


def test_the_folder_of_a_run_is_told_from_its_model(run, table, tuned):
    for command in (
        ("forecast", table, "--horizon", 3, "--model", tuned / "north"),
        ("detect", table, "--model", tuned / "north"),
        ("finetune", table, "--horizon", 3, "--output", tuned / "o", "--model", tuned / "north"),
        ("backtest", table, "--horizon", 3, "--models", tuned / "north"),
        ("serve", "--model", tuned / "north"),
        ("export", tuned / "o", "--horizon", 3, "--model", tuned / "north"),
        ("text", "forecast", table, "--horizon", 3, "--model", tuned / "north"),
    ):
        refused = run(*command)
        assert refused.exit_code == 2
        assert str(tuned / "north" / "model") in refused.output
    assert not (tuned / "o").exists()


def test_a_regression_beside_the_network_is_not_exported_without_it(run, tuned):
    FeatureHead(np.zeros(4), np.zeros((4, 3)), np.zeros(3)).save(tuned / "north" / "model")
    refused = run("export", tuned / "o", "--horizon", 3, "--model", tuned / "north" / "model")
    assert refused.exit_code == 2
    assert "--strategy features" in refused.output
    assert not (tuned / "o").exists()


@pytest.mark.parametrize(
    "command",
    [("finetune", "--horizon", 3), ("backtest", "--horizon", 3), ("pretrain",)],
)
def test_a_file_in_place_of_a_folder_is_refused_in_words(run, table, command):
    before = table.read_bytes()
    refused = run(command[0], table, *command[1:], "--output", table)
    assert refused.exit_code == 2
    assert refused.output == f"error: --output: {table} is a file; give a folder\n"
    assert table.read_bytes() == before


# --- Words and numbers ------------------------------------------------------------------------------


def test_arguments_are_spelt_as_options_and_names_of_the_data_are_left_alone():
    told = "name it with target_column, or id_column; got future_frame."
    assert in_options(told) == "name it with --target-column, or --id-column; got --future."
    for kept in ("no column 'id_column'", "my_id_column", "id_columns", "in/id_column.csv: none"):
        assert in_options(kept) == kept
    forecast = {
        option
        for command in typer.main.get_command(app).commands.values()
        for parameter in getattr(command, "params", [])
        for option in parameter.opts
    }
    assert set(OPTIONS.values()) - {"--group-column"} <= forecast


@pytest.mark.parametrize("offset", [0.0, 1234567.0, -9.87654321e11])
def test_as_many_digits_are_printed_as_tell_quantiles_apart(offset):
    frame = pd.DataFrame({"ds": [0, 1], "low": [-3.0, np.nan], "high": [3.0, 2.0]})
    frame[["low", "high"]] += offset
    _, first, second = told_apart(frame, ["low", "high"]).splitlines()
    _, low, high = map(float, first.split())
    assert high - low == pytest.approx(6.0, rel=0.1)
    assert second.split()[1] == "NaN"


def test_what_rounding_makes_has_no_digits_of_its_own():
    frame = pd.DataFrame({"low": [0.1 + 0.2], "high": [0.3]})
    assert told_apart(frame, ["low", "high"]).split() == ["low", "high", "0.3", "0.3"]


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path, monkeypatch, name):
    frame, output = pd.DataFrame({"x": [1.0, 2.0]}), tmp_path / name
    write(frame, output)
    before = output.read_bytes()

    def stops(frame, path, **options):
        path.write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(pd.DataFrame, "to_csv", stops)
    monkeypatch.setattr(pd.DataFrame, "to_parquet", stops)
    with pytest.raises(KeyboardInterrupt):
        write(frame.assign(x=3.0), output)
    assert output.read_bytes() == before
    assert list(tmp_path.iterdir()) == [output]
