"""A comparison on paper: tables for the terminal, Markdown, CSV, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from llamacast.evaluation.answers import file_name
from llamacast.evaluation.comparison import check_names, compare, summarise
from llamacast.evaluation.pictures import draw_calibration, draw_skill
from llamacast.evaluation.scores import Scores

LEAKED = "†"
_SHOWN = ("CRPS", "skill", "MASE", "coverage 80", "coverage 95", "rank")
_PER_CENT = ("skill", "coverage 80", "coverage 95")


def score_table(scores: Scores) -> pd.DataFrame:
    """What a reader wants of one data set, as text; `compare` has all scores.

    Skill, its interval and the verdict are against seasonal naive.
    """
    table = compare(scores)
    text = pd.DataFrame(index=[_marked(name, scores) for name in table.index])
    for column in _SHOWN:
        text[_headed(column)] = [_number(value, column) for value in table[column]]
        if column == "skill":
            text["95 % interval"] = _intervals(table)
            text["verdict"] = table["verdict"].to_numpy()
    if table["failed"].any():
        text["failed"] = [f"{bad} of {of}" for bad, of in table[["failed", "windows"]].to_numpy()]
    text["seconds"] = [f"{value:.0f}" for value in table["seconds"]]
    return text.rename_axis("model")


def summary_table(several: Sequence[Scores]) -> pd.DataFrame:
    """The same over several data sets, by geometric means; † has learnt from one of them."""
    table = summarise(several)
    leaked = {name for scores in several for name in scores.leaks}
    names = [f"{name} {LEAKED}" if name in leaked else name for name in table.index]
    text = pd.DataFrame(index=pd.Index(names, name=table.index.name))
    text["CRPS ratio"] = [f"{value:.3f}" for value in table["CRPS ratio"]]
    text["skill %"] = [_number(value, "skill") for value in table["skill"]]
    text["95 % interval"] = _intervals(table)
    text["MASE ratio"] = [f"{value:.3f}" for value in table["MASE ratio"]]
    text["average rank"] = [f"{value:.2f}" for value in table["rank"]]
    for column in ("better on", "worse on", "data sets"):
        text[column] = table[column].astype(str).to_numpy()
    if table["failed"].any():
        text["failed windows"] = table["failed"].astype(str).to_numpy()
    text["seconds"] = [f"{value:.0f}" for value in table["seconds"]]
    return text


def remarks(scores: Scores) -> list[str]:
    """What a reader must know beside the numbers: leakage, failures, the windows' limits."""
    windows, horizon = scores.actuals.shape
    lines = [f"{windows} windows of {len(set(scores.series))} series, horizon {horizon}"]
    lines += [f"{LEAKED} {line}" for line in scores.told_of_leaks()]
    lines += scores.told_of_failures()
    verdicts = compare(scores)["verdict"]
    if (verdicts == "too few windows").any():
        lines.append("too few windows to tell skill from luck")
    return [*lines, *scores.notes]


def markdown(table: pd.DataFrame) -> str:
    """A table of text as Markdown."""
    header = [table.index.name or "", *table.columns]
    rows = [[name, *cells] for name, cells in zip(table.index, table.to_numpy(), strict=True)]
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def write_report(several: Sequence[Scores], directory: Path, heading: str = "Backtest") -> None:
    """Write `report.md` and its pictures, `scores.csv`, `per_series.csv` and `summary.csv`."""
    check_names(several)
    directory.mkdir(parents=True, exist_ok=True)
    labelled = {scores.name: compare(scores).reset_index() for scores in several}
    _together(labelled).to_csv(directory / "scores.csv", index=False, float_format="%.6g")
    by_series = {scores.name: scores.per_series() for scores in several}
    _together(by_series).to_csv(directory / "per_series.csv", index=False, float_format="%.6g")
    draw_skill(several, directory / "skill.png")
    parts = [f"# {heading}"]
    if len(several) > 1:
        summarise(several).to_csv(directory / "summary.csv", float_format="%.6g")
        parts.append(markdown(summary_table(several)))
    parts.append("![Skill against seasonal naive](skill.png)")
    for scores in several:
        picture = f"calibration_{file_name(scores.name)}.png"
        draw_calibration(scores, directory / picture)
        parts += [
            f"## {scores.name}",
            markdown(score_table(scores)),
            "\n".join(f"- {line}" for line in remarks(scores)),
            f"![Calibration on {scores.name}]({picture})",
        ]
    (directory / "report.md").write_text("\n\n".join(parts) + "\n")


def _together(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    for name, table in tables.items():
        table.insert(0, "data set", name)
    return pd.concat(list(tables.values()), ignore_index=True)


def _marked(name: str, scores: Scores) -> str:
    return f"{name} {LEAKED}" if name in scores.leaks else name


def _headed(column: str) -> str:
    return f"{column} %" if column in _PER_CENT else column


def _number(value: float, column: str) -> str:
    if np.isnan(value):
        return ""
    if column in _PER_CENT:
        return f"{100 * value:.1f}"
    return f"{value:.2f}" if column == "rank" else f"{value:.4g}"


def _intervals(table: pd.DataFrame) -> list[str]:
    ends = zip(table["skill low"], table["skill high"], strict=True)
    return ["" if pd.isna(low) else f"{100 * low:.1f} to {100 * high:.1f}" for low, high in ends]
