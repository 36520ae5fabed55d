"""`llamacast text ...`: series as digits, and a language model that goes on with them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from llamacast.interfaces.terminal import (
    Device,
    FrequencyName,
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
)

app = typer.Typer(
    name="text",
    help="Forecast with a language model that reads and writes digits (pip install 'llamacast[text]').",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

DataFile = Annotated[Path, typer.Argument(help="A CSV or parquet file, long or wide.")]
Model = Annotated[
    str,
    typer.Option(help="digits (packaged), a folder, or a name on Hugging Face's hub."),
]
GroupColumn = Annotated[
    Optional[str], typer.Option(help="Column that says which series are told together.")
]
Horizon = Annotated[int, typer.Option(help="Steps to forecast.")]
Validation = Annotated[
    Optional[Path],
    typer.Option(help="Other series to choose by. [default: the last horizon of each]"),
]
Budget = Annotated[
    Optional[float], typer.Option(help="FLOPs that may be spent, such as 1e17; more is refused.")
]
Batch = Annotated[int, typer.Option(help="Windows of a step.")]
Seed = Annotated[int, typer.Option(help="Same seed, same numbers.")]


@app.command()
def forecast(
    data: DataFile,
    horizon: Horizon,
    model: Model = "digits",
    quantiles: Annotated[
        str, typer.Option(help="Quantiles to report, between 0 and 1, with commas.")
    ] = "0.1,0.5,0.9",
    output: Annotated[
        Optional[Path], typer.Option(help="Write the forecast here (.csv or .parquet).")
    ] = None,
    plot: Annotated[
        Optional[Path], typer.Option(help="Draw a fan chart here (.png, .svg, .pdf).")
    ] = None,
    num_samples: Annotated[int, typer.Option(help="Sample paths for each series.")] = 20,
    temperature: Annotated[
        float, typer.Option(help="Below 1 narrows; 0 takes the likeliest digits.")
    ] = 1.0,
    top_p: Annotated[
        float, typer.Option(help="Draw from the likeliest digits of so much probability.")
    ] = 1.0,
    text: Annotated[
        str, typer.Option(help="What is known beside the numbers, for models that read text.")
    ] = "",
    id_column: IdColumn = None,
    time_column: TimeColumn = None,
    target_column: TargetColumn = None,
    group_column: GroupColumn = None,
    frequency: FrequencyName = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Forecast every series of a table; what is written can always be read as numbers."""
    with errors_in_one_line():
        check_model(model)
        asked = numbers(quantiles, "--quantiles", 1.0)
        check_suffix(output, (".csv", ".parquet"), "--output")
        check_suffix(plot, (".png", ".svg", ".pdf"), "--plot")
        from llamacast.text.forecaster import load_text

        result = load_text(model, device=device).forecast(
            data,
            horizon,
            num_samples=num_samples,
            seed=seed,
            temperature=temperature,
            top_p=top_p,
            text=text,
            id_column=id_column,
            time_column=time_column,
            target_column=target_column,
            group_column=group_column,
            frequency=frequency,
        )
        show_forecast(result, asked, None, output, plot)


@app.command()
def finetune(
    data: DataFile,
    horizon: Horizon,
    output: Annotated[
        Path, typer.Option(help="Folder of the run and of the model; an earlier run in it goes on.")
    ],
    model: Model = "digits",
    validation: Validation = None,
    strategy: Annotated[str, typer.Option(help="lora or full.")] = "lora",
    rank: Annotated[int, typer.Option(help="Of LoRA's matrices.")] = 8,
    learning_rate: Annotated[
        Optional[float], typer.Option(help="[default: by the model's width]")
    ] = None,
    context: Annotated[
        Optional[int], typer.Option(help="Tokens of a window. [default: all the model reads]")
    ] = None,
    batch: Batch = 16,
    steps: Annotated[int, typer.Option(help="Steps of training.")] = 600,
    flops_budget: Budget = None,
    seed: Seed = 0,
    id_column: IdColumn = None,
    time_column: TimeColumn = None,
    target_column: TargetColumn = None,
    group_column: GroupColumn = None,
    frequency: FrequencyName = None,
    device: Device = "auto",
) -> None:
    """Teach a language model your own series, within a budget of FLOPs that is told before.

    The folder receives model/ (for --model), with lora also adapter/, and what was told of it.
    """
    with errors_in_one_line("the same command goes on from the last checkpoint"):
        check_model(model)
        check_folder(output, "--output")
        from llamacast.text.forecaster import load_text

        tuned = load_text(model, device=device).finetune(
            data,
            horizon,
            validation=validation,
            strategy=strategy,  # type: ignore[arg-type]
            rank=rank,
            learning_rate=learning_rate,
            context=context,
            batch=batch,
            steps=steps,
            seed=seed,
            budget=float("inf") if flops_budget is None else flops_budget,
            directory=output,
            progress=True,
            id_column=id_column,
            time_column=time_column,
            target_column=target_column,
            group_column=group_column,
            frequency=frequency,
        )
        typer.echo(str(tuned.outcome))
        tell(f"wrote {output / 'model'}")


@app.command()
def search(
    data: DataFile,
    horizon: Horizon,
    output: Annotated[
        Path, typer.Option(help="Folder of the search; an earlier one in it goes on.")
    ],
    model: Model = "digits",
    validation: Validation = None,
    learning_rates: Annotated[str, typer.Option(help="To try, with commas.")] = "1e-5,5e-5,1e-4",
    ranks: Annotated[str, typer.Option(help="To try, with commas.")] = "2,4,8",
    contexts: Annotated[
        Optional[str],
        typer.Option(
            help="Tokens of windows, with commas. [default: 128,512,768, as the model reads]"
        ),
    ] = None,
    batch: Batch = 4,
    steps: Annotated[int, typer.Option(help="Steps of each run.")] = 300,
    flops_budget: Budget = None,
    seed: Seed = 0,
    id_column: IdColumn = None,
    time_column: TimeColumn = None,
    target_column: TargetColumn = None,
    group_column: GroupColumn = None,
    frequency: FrequencyName = None,
    device: Device = "auto",
) -> None:
    """Try a grid of learning rates, ranks and contexts; a table and a heat map."""
    with errors_in_one_line("the same command goes on where it stopped"):
        check_model(model)
        check_folder(output, "--output")
        from llamacast.data.frame import read_panel
        from llamacast.text.forecaster import load_text
        from llamacast.text.search import Grid
        from llamacast.text.tuning import tune_grid

        names: dict[str, Any] = {
            "id_column": id_column,
            "time_column": time_column,
            "target_column": target_column,
            "group_column": group_column,
            "frequency": frequency,
        }
        language = load_text(model, device=device).language
        longest = language.settings.longest
        published = [one for one in Grid().contexts if one <= longest]
        grid = Grid(
            tuple(numbers(learning_rates, "--learning-rates", 10.0)),
            tuple(_whole(ranks, "--ranks")),
            tuple(_whole(contexts, "--contexts") if contexts else published),
        )
        options = {"horizon": horizon, "batch": batch, "steps": steps, "seed": seed}
        trials = tune_grid(
            language,
            read_panel(data, **names),
            None if validation is None else read_panel(validation, **names),
            options | {"budget": float("inf") if flops_budget is None else flops_budget},
            grid,
            output,
            progress=True,
        )
        typer.echo("nats a value  learning rate  rank  context")
        for trial in trials:
            typer.echo(
                f"{trial.score:12.4f}  {trial.learning_rate:13g}  {trial.rank:4d}  {trial.context:7d}"
            )
        tell(f"wrote {output}/search.{{csv,png}}")


@app.command()
def flops(
    tokens: Annotated[int, typer.Option(min=1, help="Tokens of a sequence.")] = 512,
    batch: Annotated[int, typer.Option(min=1, help="Sequences of a step.")] = 4,
    rank: Annotated[int, typer.Option(min=0, help="Of LoRA's matrices; 0 for none.")] = 8,
    budget: Annotated[float, typer.Option(help="FLOPs, for a plan of steps.")] = 1e17,
    model: Annotated[
        Optional[str],
        typer.Option(help="digits or the folder of a model. [default: Qwen2.5-0.5B's sizes]"),
    ] = None,
    measured: Annotated[
        bool, typer.Option("--measured", help="Count what torch does, too (a minute).")
    ] = False,
) -> None:
    """Tell the floating point operations of training, primitive by primitive, before they are spent."""
    with errors_in_one_line():
        if not 0 < budget < float("inf"):
            refuse(f"--budget must be positive; got {budget:g}")
        from llamacast.text import flops as account

        shape = account.QWEN2_5_05B
        if model is not None:
            from llamacast.text.language import load_language

            shape = account.shape_of(load_language(model, "cpu").model.config)
        for name, count in account.table(shape, tokens, rank, batch):
            typer.echo(f"{name:<45} {count:>26,}")
        if measured:
            found = account.measure(shape, tokens, rank or 8)
            for name, count in (
                ("torch: forward", found.forward),
                ("torch: LoRA step", found.lora_step),
                ("torch: full step", found.full_step),
            ):
                typer.echo(f"{name:<45} {count:>26,}  {count / found.forward:.2f} x forward")
        steps = account.steps_within(budget, shape, tokens, batch, rank)
        typer.echo(f"{steps:,} steps fit into {budget:g} FLOPs, nothing else counted")


@app.command()
def pretrain(
    output: Annotated[Path, typer.Option(help="Folder of the run; an earlier run in it goes on.")],
    steps: Annotated[Optional[int], typer.Option(min=1, help="Steps of the whole run.")] = None,
    minutes: Annotated[
        Optional[float], typer.Option(help="Stop this sitting after so long; call again to go on.")
    ] = None,
    seed: Seed = 0,
    threads: Annotated[
        Optional[int], typer.Option(min=1, help="CPU threads. [default: all cores]")
    ] = None,
    device: Device = "auto",
) -> None:
    """Teach a small decoder of digits, from nothing, on systems and series that are made up."""
    with errors_in_one_line("the same command goes on from the last checkpoint"):
        if minutes is not None and not minutes > 0:
            refuse(f"--minutes must be above 0; got {minutes:g}")
        from llamacast.text.pretraining import run_pretraining
        from llamacast.training.log import written

        progress = run_pretraining(
            output,
            steps=steps,
            minutes=minutes,
            seed=seed,
            threads=threads,
            device=device,
            report=lambda row: typer.echo("  ".join(f"{k} {v}" for k, v in written(row).items())),
        )
        tell(f"{output / 'model'} is at step {progress.step}")


def _whole(text: str, option: str) -> list[int]:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        refuse(f"{option} takes whole numbers with commas between; got {text!r}")
    if min(found) < 1:
        refuse(f"{option} must be at least 1; got {text!r}")
    return found
