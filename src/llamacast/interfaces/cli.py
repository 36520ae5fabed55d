"""The command line: `llamacast forecast`, `backtest`, `finetune`, `detect`, `pretrain`, `text` and others."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from llamacast.interfaces import text_cli
from llamacast.interfaces.terminal import (
    NUM_ROWS_SHOWN,
    CovariateNames,
    Device,
    FrequencyName,
    FutureFrame,
    GroupColumn,
    Holidays,
    IdColumn,
    TargetColumn,
    TimeColumn,
    check_folder,
    check_model,
    check_suffix,
    errors_in_one_line,
    numbers,
    refuse,
    show_forecast,
    tell,
    tell_written,
    told_apart,
    write,
)

if TYPE_CHECKING:
    from llamacast.evaluation.gift_eval import Contender
    from llamacast.forecaster import PretrainedForecaster

app = typer.Typer(
    name="llamacast",
    help="Forecast time series, and say how sure the forecast is.",
    no_args_is_help=True,
    add_completion=False,
    # Rich takes the extra in llamacast[text] for markup.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(text_cli.app, name="text")

TEXT_MODELS = ("digits",)
NOTES_SHOWN = 10
STRATEGIES = ("full", "last-layers", "head", "lora", "features")


@app.command()
def forecast(
    data: Annotated[
        Path,
        typer.Argument(help="A CSV or parquet file, long or wide; or a folder of parquet files."),
    ],
    horizon: Annotated[int, typer.Option(help="Steps to forecast.")],
    model: Annotated[str, typer.Option(help="A packaged model, or the folder of one.")] = "cria",
    quantiles: Annotated[
        str, typer.Option(help="Quantiles to report, between 0 and 1, with commas.")
    ] = "0.1,0.5,0.9",
    levels: Annotated[
        Optional[str], typer.Option(help="Central intervals to report, in per cent, with commas.")
    ] = None,
    output: Annotated[
        Optional[Path],
        typer.Option(
            help="Write the forecast here (.csv, .parquet; a folder for a table of any size)."
        ),
    ] = None,
    plot: Annotated[
        Optional[Path], typer.Option(help="Draw a fan chart here (.png, .svg, .pdf).")
    ] = None,
    id_column: IdColumn = None,
    time_column: TimeColumn = None,
    target_column: TargetColumn = None,
    frequency: FrequencyName = None,
    num_samples: Annotated[int, typer.Option(help="Sample paths for each series.")] = 100,
    context_length: Annotated[
        Optional[int], typer.Option(help="Past steps to attend to. [default: the model's own]")
    ] = None,
    nonnegative: Annotated[
        Optional[bool],
        typer.Option(
            help="Nothing falls below 0, or some may. [default: nothing if 0 was met often, none below]"
        ),
    ] = None,
    integer: Annotated[
        Optional[bool],
        typer.Option(
            help="All values are whole numbers, or need not be. [default: those of counts]"
        ),
    ] = None,
    group_column: GroupColumn = None,
    future: FutureFrame = None,
    covariates: CovariateNames = None,
    holidays: Holidays = None,
    seed: Annotated[int, typer.Option(help="Same seed, same forecast.")] = 0,
    device: Device = "auto",
) -> None:
    """Forecast every series of a table: print the head, write all of it to a file, draw it.

    Columns are found by their usual names (unique_id, ds, y; item_id, timestamp, target) or by
    what they hold, or named by options. One series needs no id column, a wide table no target.

    A folder of parquet files, or a file with a folder for --output, may be larger than memory: it is
    forecast in parts, and the same command goes on after a stop.
    """
    parquet = data.suffix in (".parquet", ".pq")
    in_parts = data.is_dir() or (parquet and output is not None and _is_folder(output))
    with errors_in_one_line(
        "the same command goes on from the parts that are done"
        if in_parts
        else "nothing was written"
    ):
        check_model(model)
        asked = numbers(quantiles, "--quantiles", 1.0)
        intervals = numbers(levels, "--levels", 100.0) if levels else None
        if in_parts:
            _check_parts(
                {"--levels": levels, "--plot": plot, "--future": future, "--covariates": covariates}
                | {"--holidays": holidays, "--group-column": group_column},
                output,
            )
            from llamacast.scaleout import FrameForecaster, forecast_dataset

            run = forecast_dataset(
                data,
                output or "",
                FrameForecaster(
                    horizon,
                    model=model,
                    quantiles=tuple(asked),
                    num_samples=num_samples,
                    seed=seed,
                    context_length=context_length,
                    nonnegative=nonnegative,
                    integer=integer,
                    id_column=id_column,
                    time_column=time_column,
                    target_column=target_column,
                    frequency=frequency,
                    device=device,
                ),
            )
            for note in (notes := run.notes())[:NOTES_SHOWN]:
                tell(note)
            if len(notes) > NOTES_SHOWN:
                tell(f"... {len(notes)} notes; {output}/_notes-*.txt have them all")
            tell(f"wrote {run.num_shards} parts in {output}")
            return
        check_suffix(output, (".csv", ".parquet"), "--output")
        check_suffix(plot, (".png", ".svg", ".pdf"), "--plot")
        from llamacast.forecaster import load

        result = load(model, device=device).forecast(
            data,
            horizon,
            num_samples=num_samples,
            seed=seed,
            context_length=context_length,
            nonnegative=nonnegative,
            integer=integer,
            id_column=id_column,
            time_column=time_column,
            target_column=target_column,
            frequency=frequency,
            group_column=group_column,
            covariates=_listed(covariates) if covariates else None,
            future_frame=future,
            holidays=holidays,
        )
        show_forecast(result, asked, intervals, output, plot)


@app.command()
def backtest(
    data: Annotated[
        Path,
        typer.Argument(
            help="A table as for forecast; or a parquet file (or a folder of such) with a series in each row."
        ),
    ],
    horizon: Annotated[int, typer.Option(help="Steps of each window.")],
    windows: Annotated[int, typer.Option(help="Windows of each series, from its end.")] = 5,
    step: Annotated[
        Optional[int], typer.Option(help="Steps between windows. [default: the horizon]")
    ] = None,
    models: Annotated[
        str, typer.Option(help="With commas: packaged models, folders, baselines (see below).")
    ] = "cria,seasonal-naive",
    season: Annotated[
        Optional[int],
        typer.Option(help="Steps in a season. [default: the frequency's own]"),
    ] = None,
    output: Annotated[
        Optional[Path],
        typer.Option(help="Folder for report, tables, pictures; an earlier run in it goes on."),
    ] = None,
    id_column: IdColumn = None,
    time_column: TimeColumn = None,
    target_column: TargetColumn = None,
    frequency: FrequencyName = None,
    group_column: GroupColumn = None,
    future: FutureFrame = None,
    covariates: CovariateNames = None,
    holidays: Holidays = None,
    num_samples: Annotated[int, typer.Option(min=1, help="Sample paths for each window.")] = 100,
    seed: Annotated[int, typer.Option(help="Same seed, same scores.")] = 0,
    device: Device = "auto",
) -> None:
    """Score models on the past: forecast the last windows of each series from what came before.

    Prints each model's scores, its skill against seasonal naive and whether that is more than luck.

    A model may be fine-tuned on what comes before the windows: cria+full, cria+lora, lag-llama+head,
    ... (pip install 'llamacast[finetune]').

    Language models (pip install 'llamacast[text]'): digits, and folders of such.

    Baselines: naive, seasonal-naive, drift, auto-ets, auto-arima, theta, optimized-theta,
    dynamic-theta, dynamic-optimized-theta, auto-theta, croston-sba, mstl (pip install
    'llamacast[baselines]'); deepar, tft, n-beats, patchtst, trained on the data before the first
    window (pip install 'llamacast[deep]').
    """
    with errors_in_one_line("the same command with --output goes on from where it was"):
        check_folder(output, "--output")
        from llamacast.data.arrow import holds_series, read_panels
        from llamacast.data.frame import read_known_ahead
        from llamacast.data.windows import rolling_origins
        from llamacast.evaluation.backtest import backtest as run_backtest
        from llamacast.evaluation.report import remarks, score_table, summary_table, write_report

        options = {"num_samples": num_samples, "seed": seed, "progress": False}
        names = _listed(models)
        if not names:
            refuse("--models names none")
        entrants = {name: _entrant(name, season, device, options) for name in names}
        if holds_series(data):
            told = {
                "--id-column": id_column,
                "--time-column": time_column,
                "--target-column": target_column,
                "--frequency": frequency,
                "--group-column": group_column,
                "--future": future,
                "--covariates": covariates,
                "--holidays": holidays,
            }
            _refuse_given(told, f"is for a table; {data} holds a series in each row: leave it out")
            panels = read_panels(data)
        else:
            table = read_known_ahead(
                data,
                id_column=id_column,
                time_column=time_column,
                target_column=target_column,
                frequency=frequency,
                group_column=group_column,
                covariates=_listed(covariates) if covariates else None,
                future_frame=future,
                holidays=holidays,
            )
            panels = {data.name.split(".")[0]: table}
        if min(horizon, windows, step or 1) >= 1:  # else the first backtest says so
            for name, panel in panels.items():
                with _named(name, several=len(panels) > 1):
                    rolling_origins(panel, horizon, windows, step or horizon)
        several = []
        for name, panel in panels.items():
            scores = run_backtest(
                panel,
                horizon,
                entrants,
                num_windows=windows,
                step=step,
                season=season,
                name=name,
                directory=output and output / name,
            )
            several.append(scores)
            typer.echo(f"\n{name}\n{score_table(scores).to_string()}")
            typer.echo("\n".join(remarks(scores)))
        if len(several) > 1:
            typer.echo(f"\nall data sets\n{summary_table(several).to_string()}")
        if output is not None:
            write_report(several, output)
            typer.echo(f"wrote {output / 'report.md'}", err=True)


@app.command()
def finetune(
    data: Annotated[Path, typer.Argument(help="A CSV or parquet file, long or wide.")],
    horizon: Annotated[int, typer.Option(help="Steps that will be forecast.")],
    output: Annotated[
        Path, typer.Option(help="Folder of the run and of the model; an earlier run in it goes on.")
    ],
    model: Annotated[str, typer.Option(help="A packaged model, or the folder of one.")] = "cria",
    strategy: Annotated[
        str, typer.Option(help=f"What may learn: {', '.join(STRATEGIES)}.")
    ] = "full",
    steps: Annotated[int, typer.Option(help="At most; it ends when nothing improves.")] = 600,
    learning_rate: Annotated[
        Optional[float], typer.Option(help="[default: the strategy's own]")
    ] = None,
    context_length: Annotated[
        Optional[int], typer.Option(help="Past steps to look at from now on. [default: as it was]")
    ] = None,
    history_share: Annotated[
        float, typer.Option(help="Share of each series' history, the latest, to learn from.")
    ] = 1.0,
    head: Annotated[
        Optional[str],
        typer.Option(
            help="Of lag-llama another distribution: normal, negative_binomial, quantiles, flow, ..."
        ),
    ] = None,
    future: FutureFrame = None,
    covariates: CovariateNames = None,
    holidays: Holidays = None,
    search: Annotated[
        bool, typer.Option("--search", help="Try contexts and learning rates first.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Same seed, same weights.")] = 0,
    id_column: IdColumn = None,
    time_column: TimeColumn = None,
    target_column: TargetColumn = None,
    frequency: FrequencyName = None,
    device: Device = "auto",
) -> None:
    """Teach a model your own series; the result is kept only where it surely forecasts better.

    The last windows of each series are held back, and tell. The folder receives model/ (for --model),
    with lora, where it is kept, also adapter/, and the curve of what was learnt (log.csv, loss.png).
    """
    with errors_in_one_line("the same command goes on from the last checkpoint"):
        if strategy not in STRATEGIES:
            refuse(f"--strategy must be one of {', '.join(STRATEGIES)}; got {strategy!r}")
        check_model(model)
        check_folder(output, "--output")
        from llamacast.forecaster import load

        tuned = load(model, device=device).finetune(
            data,
            horizon,
            strategy=strategy,  # type: ignore[arg-type]
            steps=steps,
            learning_rate=learning_rate,
            context_length=context_length,
            history_share=history_share,
            head=head,  # type: ignore[arg-type]
            search=search,
            seed=seed,
            directory=output,
            progress=True,
            id_column=id_column,
            time_column=time_column,
            target_column=target_column,
            frequency=frequency,
            covariates=_listed(covariates) if covariates else None,
            future_frame=future,
            holidays=holidays,
        )
        typer.echo(str(tuned.verdict))
        typer.echo(f"wrote {output / 'model'}", err=True)


@app.command()
def detect(
    data: Annotated[Path, typer.Argument(help="A CSV or parquet file, long or wide.")],
    model: Annotated[str, typer.Option(help="A packaged model, or the folder of one.")] = "cria",
    false_alarm_rate: Annotated[
        float, typer.Option(help="Share of ordinary values that may be flagged.")
    ] = 0.01,
    output: Annotated[
        Optional[Path], typer.Option(help="Write a row for each value here (.csv or .parquet).")
    ] = None,
    plot: Annotated[
        Optional[Path], typer.Option(help="Draw the series and what is odd (.png, .svg, .pdf).")
    ] = None,
    id_column: IdColumn = None,
    time_column: TimeColumn = None,
    target_column: TargetColumn = None,
    frequency: FrequencyName = None,
    device: Device = "auto",
) -> None:
    """Tell which values of every series are odd, each judged by what came before it."""
    with errors_in_one_line():
        check_suffix(output, (".csv", ".parquet"), "--output")
        check_suffix(plot, (".png", ".svg", ".pdf"), "--plot")
        check_model(model)
        from llamacast.forecaster import load

        result = load(model, device=device).detect(
            data,
            false_alarm_rate=false_alarm_rate,
            id_column=id_column,
            time_column=time_column,
            target_column=target_column,
            frequency=frequency,
        )
        frame = result.to_frame()
        oddest = frame[frame.anomaly].sort_values("probability", kind="stable")
        if len(oddest):
            shown = oddest.head(NUM_ROWS_SHOWN).drop(columns="anomaly")
            typer.echo(told_apart(shown, [result.target_column, "expected", "low", "high"]))
        typer.echo(f"{len(oddest)} of {frame.probability.notna().sum()} values are odd")
        write(frame, output)
        if plot is not None:
            result.plot(plot)
        tell_written(output, plot)


@app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="An official lag-llama.ckpt.")],
    directory: Annotated[Path, typer.Argument(help="Folder to write.")],
) -> None:
    """Turn an official Lag-Llama checkpoint into a folder that --model takes.

    The file is a pickle; it is read as data and nothing in it is executed.
    """
    with errors_in_one_line():
        check_folder(directory, "DIRECTORY")
        from llamacast.forecaster import convert as convert_checkpoint

        convert_checkpoint(checkpoint, directory)
        typer.echo(f"wrote {directory}", err=True)


@app.command()
def pretrain(
    recipe: Annotated[
        Path, typer.Argument(help="A recipe (.toml), or just a folder or file of series.")
    ],
    output: Annotated[Path, typer.Option(help="Folder of the run; an earlier run in it goes on.")],
    data: Annotated[
        Optional[Path], typer.Option(help="Series to train on, in place of the recipe's.")
    ] = None,
    steps: Annotated[
        Optional[int], typer.Option(min=1, help="Steps of the whole run. [default: the recipe's]")
    ] = None,
    minutes: Annotated[
        Optional[float], typer.Option(help="Stop this sitting after so long; call again to go on.")
    ] = None,
    start_from: Annotated[
        Optional[str],
        typer.Option(help="A packaged model, or the folder of one, to train further."),
    ] = None,
    device: Device = "auto",
    threads: Annotated[
        Optional[int], typer.Option(min=1, help="CPU threads. [default: all cores]")
    ] = None,
) -> None:
    """Train a network on your own series, from nothing or from weights that are there.

    Series: parquet or Arrow with one in each row (item_id, start, freq, target), or CSV as for
    forecast; each file of a folder is a data set. The folder of the run receives model/ (for
    --model), log.csv, loss.png, and checkpoints/, from which a run that was stopped goes on. Under
    torchrun, the processes it starts share each batch.
    """
    with errors_in_one_line("the same command goes on from the last checkpoint"):
        check_folder(output, "--output")
        if minutes is not None and not minutes > 0:
            refuse(f"--minutes must be above 0; got {minutes:g}")
        from llamacast.forecaster import find_checkpoint
        from llamacast.training.log import written
        from llamacast.training.pretrain import run_pretraining
        from llamacast.training.recipe import Recipe, read_recipe
        from llamacast.training.state import has_checkpoint

        plan = read_recipe(recipe) if recipe.suffix == ".toml" else Recipe(data=recipe)
        series = data or plan.data
        if series is None:
            refuse(f'{recipe} names no data; add data = "FOLDER", or give --data')
        training = plan.lengthened(steps).training
        # A run that was stopped before its first checkpoint would begin with others unnoticed.
        weights = start_from or "weights that are drawn (--start-from takes others)"
        goes_on = has_checkpoint(output)
        tell(f"{output} goes on from its checkpoint" if goes_on else f"begins with {weights}")
        progress = run_pretraining(
            series,
            output,
            training,
            minutes=minutes,
            without=plan.without,
            left_out_days=plan.left_out_days,
            start_from=find_checkpoint(start_from) if start_from else None,
            device=device,
            precision=plan.precision,
            threads=threads,
            licences=plan.licences,
            other_data=data is not None,
            report=lambda row: typer.echo("  ".join(f"{k} {v}" for k, v in written(row).items())),
        )
        told = f"{output / 'model'} is at step {progress.step} of {training.loop.steps}"
        tell(told + (", stopped early" if progress.stopped_early else ""))


@app.command()
def serve(
    model: Annotated[
        str,
        typer.Option(help="With commas: packaged models, folders of models, NAME=FOLDER."),
    ] = "cria,lag-llama",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8000,
    api_key_file: Annotated[
        Optional[Path],
        typer.Option(help="A key on each line, or OWNER:KEY. [default: everybody is let in]"),
    ] = None,
    batching: Annotated[
        bool, typer.Option(help="Answer requests that arrive together by one call.")
    ] = True,
    fine_tunes: Annotated[
        Optional[Path],
        typer.Option(help="Folder for fine-tuning jobs and their models. [default: not offered]"),
    ] = None,
    device: Device = "auto",
) -> None:
    """Answer forecasts over HTTP, with a page at / and documentation at /docs."""
    with errors_in_one_line("all that was accepted has been answered"):
        from llamacast.interfaces.service.run import read_keys, run_service

        keys = {} if api_key_file is None else read_keys(api_key_file)
        models = _models(model, device)
        if not keys and host not in ("127.0.0.1", "localhost", "::1"):
            tell("note: everybody who reaches this address is let in; see --api-key-file")
        run_service(models, host, port, keys, batching, fine_tunes, tell)


@app.command()
def mcp(
    folder: Annotated[
        Path, typer.Option(help="Tables in it may be read; no file outside of it is.")
    ] = Path("."),
    model: Annotated[
        str,
        typer.Option(help="With commas: packaged models, folders of models, NAME=FOLDER."),
    ] = "cria,lag-llama",
    device: Device = "auto",
) -> None:
    """Let an assistant forecast: a server of the Model Context Protocol on standard input and output."""
    with errors_in_one_line():
        from llamacast.interfaces.mcp import make_server

        if not folder.is_dir():
            refuse(f"--folder: there is no folder {folder}")
        make_server(_models(model, device), folder).run()


@app.command()
def export(
    output: Annotated[Path, typer.Argument(help="Folder to write.")],
    horizon: Annotated[int, typer.Option(min=1, help="Steps that will be forecast.")],
    model: Annotated[str, typer.Option(help="A packaged model, or the folder of one.")] = "cria",
    format_: Annotated[
        str, typer.Option("--format", help="onnx, or torch (torch.export's .pt2).")
    ] = "onnx",
    context_length: Annotated[
        int, typer.Option(min=16, help="Past steps that will be looked at.")
    ] = 512,
) -> None:
    """Write a network for a runtime without torch: inputs and outputs as docs/export.md tells.

    Takes minutes. Each file is run, and kept only if it answers as torch does.
    """
    with errors_in_one_line():
        from llamacast.exporting.export import SUFFIXES, export
        from llamacast.forecaster import load

        check_model(model)
        check_folder(output, "OUTPUT")
        if format_ not in SUFFIXES:
            refuse(f"--format must be one of {', '.join(SUFFIXES)}; got {format_!r}")
        forecaster = load(model, device="cpu")
        if forecaster.features is not None:
            refuse(
                f"{model} has a regression beside its network (--strategy features), which cannot be "
                "exported; fine-tune with another strategy"
            )
        written = export(forecaster.model, output, format_, horizon, context_length)  # type: ignore[arg-type]
        for name, apart in written.items():
            tell(f"wrote {output / name}, which differs from torch by {apart:.1e} at most")


@app.command()
def doctor() -> None:
    """Tell versions, devices, weights, and whether they forecast; exit code 1 if they do not."""
    from llamacast.interfaces.doctor import examine

    well = True
    for name, told, good in examine():
        typer.echo(f"{'ok ' if good else 'BAD'} {name:<14} {told}")
        well = well and good
    if not well:
        sys.exit(1)


@app.command("gift-eval")
def gift_eval(
    folder: Annotated[
        Path,
        typer.Argument(help="GIFT-Eval's download, or parquet files such as ett1_15T.parquet."),
    ],
    models: Annotated[
        str,
        typer.Option(help="With commas: packaged models, folders, classical baselines."),
    ] = "cria,seasonal-naive",
    published: Annotated[
        Optional[Path], typer.Option(help="Published scores (CSV) to set beside.")
    ] = None,
    configs: Annotated[
        str, typer.Option(help="Only configurations with one of these in their name: ett1,/H/short")
    ] = "",
    output: Annotated[
        Path, typer.Option(help="Folder for scores, table and picture; a run in it goes on.")
    ] = Path("gift-eval"),
    num_samples: Annotated[int, typer.Option(min=1, help="Sample paths for each window.")] = 100,
    longest_history: Annotated[
        Optional[int], typer.Option(help="Steps handed over before each window. [default: all]")
    ] = None,
    device: Device = "auto",
) -> None:
    """Score models on GIFT-Eval as the benchmark does, beside published ones.

    The folder receives gift_eval.csv (each configuration as it is scored), .md and .png. The same
    command goes on where it was stopped.
    """
    with errors_in_one_line("the same command goes on from the last configuration"):
        from llamacast.evaluation.gift_eval import run
        from llamacast.evaluation.gift_report import overall, summarise, write_report

        if published is not None and not published.exists():
            refuse(f"--published: there is no file {published}")
        if longest_history is not None and longest_history < 1:
            refuse(f"--longest-history must be at least 1; got {longest_history}")
        names = _listed(models)
        if not names:
            refuse("--models names none")
        options = {"num_samples": num_samples, "progress": False}
        contenders = [_contender(name, device, options) for name in names]
        results = run(
            folder,
            contenders,
            output,
            chosen=configs,
            longest_history=longest_history,
            progress=sys.stderr.isatty(),
        )
        typer.echo(
            results.drop(columns=["data", "settings"]).to_string(index=False, float_format="%.4f")
        )
        summary = summarise(results, published)
        typer.echo("\n" + overall(summary).to_string(index=False, float_format="%.4f"))
        write_report(results, summary, output, " ".join(["llamacast", *sys.argv[1:]]), published)
        typer.echo(f"wrote {output}/gift_eval.{{csv,md,png}}", err=True)


def _check_parts(others: dict[str, Any], output: Path | None) -> None:
    """What a table in parts cannot have: options that look at all of it, or no place for the parts."""
    _refuse_given(
        others, "is not offered for a table in parts: leave it out, or forecast a single file"
    )
    check_folder(output, "--output")
    if output is None or not _is_folder(output):
        refuse("a folder is forecast into a folder: give --output FOLDER")


def _refuse_given(options: dict[str, Any], why: str) -> None:
    """Refuse the first of some options that is given."""
    for option, value in options.items():
        if value is not None:
            refuse(f"{option} {why}")


def _is_folder(path: Path) -> bool:
    """Whether a path that may not be there yet is meant as a folder's."""
    return path.is_dir() or not path.suffix[1:].isalpha()


def _listed(text: str) -> list[str]:
    """Names with commas between them, each once."""
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _models(text: str, device: str) -> dict[str, PretrainedForecaster]:
    """Models by name, of a list with commas."""
    from llamacast.forecaster import load

    asked = _listed(text)
    if not asked:
        refuse("--model names none")
    folders: dict[str, str] = {}
    for one in asked:
        name, folder = _named_model(one)
        if name in folders:
            refuse(
                f"--model: {folders[name]} and {folder} would both be called {name!r}; "
                f"name one otherwise, as in other={folder}"
            )
        check_model(folder)
        folders[name] = folder
    found = {name: load(folder, device=device) for name, folder in folders.items()}
    for name, forecaster in found.items():
        if forecaster.inputs is not None:
            refuse(
                f"--model: {name} was fine-tuned with covariates, which requests have no place for; serve "
                "a model without"
            )
    return found


def _named_model(text: str) -> tuple[str, str]:
    """Name and folder of NAME=FOLDER, or of a folder, which is called as it is, or, if that is `model`,
    as fine-tuning writes it, as the folder that it lies in."""
    name, given, folder = text.partition("=")
    if given and not Path(text).is_dir():
        if not (name.strip() and folder.strip()):
            refuse(f"--model: {text!r} is not NAME=FOLDER")
        return name.strip(), folder.strip()
    path = Path(text).resolve()
    return (path.parent if path.name == "model" else path).name, text


def _entrant(name: str, season: int | None, device: str, options: dict[str, Any]) -> Any:
    """A forecaster by name: a baseline, or a model with its options settled; "cria+lora" is the model
    "cria", fine-tuned so on what comes before the windows."""
    from llamacast.evaluation.backtest import Finetuned, Settled
    from llamacast.evaluation.named import BASELINES, baseline
    from llamacast.forecaster import PACKAGED, load

    if name in BASELINES:
        return baseline(name, season)
    if name in TEXT_MODELS or (Path(name) / "codec.json").exists():
        from llamacast.text.forecaster import load_text

        return Settled(load_text(name, device=device), options)
    model, plus, strategy = name.partition("+") if not Path(name).is_dir() else (name, "", "")
    if model not in PACKAGED and not Path(model).is_dir():
        known = ", ".join([*PACKAGED, *TEXT_MODELS, *BASELINES])
        refuse(f"no model {name!r}; there are {known}, and the folders of saved models")
    if plus and strategy not in STRATEGIES:
        refuse(f"{name!r}: after the + stands one of {', '.join(STRATEGIES)}")
    check_model(model)
    forecaster = load(model, device=device)
    if plus:
        return Finetuned(forecaster, {"strategy": strategy}, options)
    return Settled(forecaster, options)


@contextmanager
def _named(data_set: str, several: bool) -> Iterator[None]:
    """Bad data are told of with the name of the data set, where there is more than one."""
    from llamacast.forecast import DataError

    try:
        yield
    except DataError as error:
        raise DataError(f"{data_set}: {error}" if several else str(error)) from error


def _contender(name: str, device: str, options: dict[str, Any]) -> Contender:
    """The same for GIFT-Eval, whose configurations bring their own seasons."""
    from llamacast.evaluation.gift_eval import Contender
    from llamacast.evaluation.named import NEURAL, STATISTICAL, baseline

    if name in NEURAL:
        refuse(f"{name} must be trained on each data set; use llamacast backtest")
    if name in ("seasonal-naive", *STATISTICAL):
        return Contender(name, lambda season: baseline(name, season))
    if "+" in name and not Path(name).is_dir():
        refuse(f"{name} must be trained on each data set; use llamacast backtest")
    entrant = _entrant(name, None, device, options)
    return Contender(name, lambda season: entrant, repr(entrant))
