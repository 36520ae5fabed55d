"""GIFT-Eval results beside published ones: geometric means, ranks, a table and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llamacast.evaluation.gift_eval import KEYS, TERMS
from llamacast.evaluation.report import markdown
from llamacast.forecast import DataError

METRICS = ("CRPS", "MASE")
BASELINES = {"published": "seasonal_naive", "ours": "seasonal-naive"}

TABLE = "gift_eval.md"
PICTURE = "gift_eval.png"


def summarise(results: pd.DataFrame, published: Path | None = None) -> pd.DataFrame:
    """Geometric means of ratios to seasonal naive, and mean ranks, of ours and published models.

    All are taken over the same configurations: those on which every model of `results` has scores.
    Seasonal naive is the published one; without `published` (a CSV with `dataset,freq,term` and
    columns such as "TiRex|CRPS"), our own. Ranks are among all models listed.

    Returns a row for each part ("all", each term, each frequency) and model: `part`, `origin` ("ours"
    or "published"), `model`, `configurations`, `CRPS`, `MASE`, `CRPS rank`, `MASE rank`. A published
    model without a score on one of them has none at all.

    Raises:
        DataError: if there is no seasonal naive, or no configuration that all models share.
    """
    scores = {metric: _side_by_side(results, metric, published) for metric in METRICS}
    origin = "published" if published is not None else "ours"
    baseline = (origin, BASELINES[origin])
    if baseline not in scores["CRPS"].columns:
        raise DataError(
            f"no {baseline[1]!r} to compare with; score it too, or give published results"
        )
    usable = [_usable(frame, baseline) for frame in scores.values()]
    shared = usable[0].intersection(usable[1], sort=False)
    if shared.empty:
        raise DataError("there is no configuration on which all models have scores")
    rows = [
        row
        for part, members in _parts(shared).items()
        for row in _means(part, {m: s.loc[members] for m, s in scores.items()}, baseline)
    ]
    return pd.DataFrame(rows)


def _side_by_side(results: pd.DataFrame, metric: str, published: Path | None) -> pd.DataFrame:
    """Scores `(configuration, model)`; columns are (origin, model)."""
    ours = results.pivot(index=KEYS, columns="model", values=metric)
    ours = ours[list(dict.fromkeys(results.model))].astype(np.float64)
    if published is None:
        return pd.concat({"ours": ours}, axis=1)
    theirs = _read_published(published, metric).reindex(ours.index)
    return pd.concat({"ours": ours, "published": theirs}, axis=1)


def _read_published(path: Path, metric: str) -> pd.DataFrame:
    try:
        frame = pd.read_csv(path, index_col=KEYS)
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: holds no published results ({error})") from error
    ending = f"|{metric}"
    chosen = frame[[column for column in frame.columns if column.endswith(ending)]]
    if chosen.columns.empty:
        raise DataError(f"{path}: has no column that ends in {ending!r}")
    return chosen.rename(columns=lambda column: column.removesuffix(ending)).astype(np.float64)


def _usable(scores: pd.DataFrame, baseline: tuple[str, str]) -> pd.Index[Any]:
    """Configurations on which all of ours have scores, and there is something to divide by."""
    complete = np.isfinite(scores["ours"].to_numpy(np.float64).reshape(len(scores), -1)).all(axis=1)
    return scores.index[complete & (scores[baseline].to_numpy(np.float64) > 0)]


def _parts(shared: pd.Index[Any]) -> dict[str, pd.Index[Any]]:
    frequencies = shared.get_level_values("freq")
    terms = shared.get_level_values("term")
    parts = {"all": shared}
    parts |= {term: shared[terms == term] for term in TERMS if (terms == term).any()}
    return parts | {name: shared[frequencies == name] for name in dict.fromkeys(frequencies)}


def _means(
    part: str, scores: dict[str, pd.DataFrame], baseline: tuple[str, str]
) -> list[dict[str, Any]]:
    rows: dict[Any, dict[str, Any]] = {}
    for metric, frame in scores.items():
        ratios: pd.DataFrame = frame.div(frame[baseline], axis=0)
        means = np.exp(ratios.apply(np.log).mean(skipna=False))
        ranks = frame.rank(axis=1).mean(skipna=False)
        columns: Any = frame.columns
        for origin, model in columns:
            row = {"part": part, "origin": origin, "model": model, "configurations": len(frame)}
            rows.setdefault((origin, model), row)[metric] = means[origin, model]
            rows[origin, model][f"{metric} rank"] = ranks[origin, model]
    order = ["part", "origin", "model", "configurations", *METRICS, *(f"{m} rank" for m in METRICS)]
    return [{key: row[key] for key in order} for row in rows.values()]


def standing(results: pd.DataFrame, published: Path | None = None) -> pd.DataFrame:
    """Where each of our models stands on each configuration that has all of our scores.

    A row for each model and configuration: `dataset`, `freq`, `term`, and for each metric the ratio to
    seasonal naive, the place among all that have a score there, how many these are, who is best, and
    the ratio to it.
    """
    found: list[pd.DataFrame] = []
    scores = {metric: _side_by_side(results, metric, published) for metric in METRICS}
    baseline = ("published", BASELINES["published"]) if published else ("ours", BASELINES["ours"])
    shared = _usable(scores["CRPS"], baseline).intersection(_usable(scores["MASE"], baseline))
    for model in scores["CRPS"]["ours"].columns.drop(BASELINES["ours"], errors="ignore"):
        row = pd.DataFrame(index=shared)
        row.insert(0, "model", model)
        for metric, whole in scores.items():
            frame = whole.loc[shared]
            own: pd.Series[float] = frame["ours", model]
            best: pd.Series[float] = frame.min(axis=1)
            row[metric] = own / frame[baseline]
            row[f"{metric} place"] = frame.lt(own, axis=0).sum(axis=1) + 1
            row[f"{metric} models"] = frame.notna().sum(axis=1)
            names = frame.columns.get_level_values(1)
            row[f"{metric} best"] = names[np.nanargmin(frame.to_numpy(np.float64), axis=1)]
            row[f"{metric} to best"] = own / best
        found.append(row.reset_index())
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def in_words(summary: pd.DataFrame, places: pd.DataFrame) -> str:
    """For each of our models: who is ahead of it over all, where it is farthest behind, and where it
    is worse than seasonal naive."""
    lines = []
    table = overall(summary)
    for model, rows in places.groupby("model", sort=False):
        for metric in METRICS:
            ranked = table.sort_values(metric)
            own = ranked[(ranked.origin == "ours") & (ranked.model == model)][metric].iloc[0]
            ahead = [
                f"{other.model} ({other[metric]:.3f})"
                for _, other in ranked[ranked[metric] < own].iterrows()
            ]
            first = f"first of {len(ranked)}" if not ahead else f"behind {', '.join(ahead)}"
            lines.append(f"- **{model}, {metric}** {own:.3f} of seasonal naive: {first}.")
            behind = rows.sort_values(f"{metric} to best", ascending=False).head(3)
            told = [
                f"{row.dataset} {row.freq} {row.term} ({row[f'{metric} to best']:.2f} of "
                f"{row[f'{metric} best']}'s)"
                for _, row in behind.iterrows()
                if row[f"{metric} to best"] > 1
            ]
            if told:
                lines.append(f"  Farthest behind the best: {', '.join(told)}.")
            worse = rows[rows[metric] > 1]
            if len(worse):
                names = [
                    f"{row.dataset} {row.freq} {row.term} ({row[metric]:.2f})"
                    for _, row in worse.iterrows()
                ]
                lines.append(f"  Worse than seasonal naive: {', '.join(names)}.")
    return "\n".join(lines)


def write_report(
    results: pd.DataFrame,
    summary: pd.DataFrame,
    output: Path,
    command: str,
    published: Path | None = None,
) -> None:
    """Write gift_eval.md and gift_eval.png beside the scores."""
    places = standing(results, published)
    pieces = ["# GIFT-Eval", _what_it_is(results, summary, command), f"![means]({PICTURE})"]
    for metric in METRICS:
        pieces += [
            f"## {metric} relative to seasonal naive",
            _as_markdown(by_part(summary, metric)),
        ]
    if len(places):
        pieces += [
            "## Where ours stand",
            in_words(summary, places),
            _as_markdown(_places(places)),
        ]
    pieces += [
        "## Scores by configuration",
        _as_markdown(results.drop(columns=["data", "settings"])),
    ]
    (output / TABLE).write_text("\n\n".join(pieces) + "\n")
    draw(summary, output / PICTURE)


def _what_it_is(results: pd.DataFrame, summary: pd.DataFrame, command: str) -> str:
    count = int(summary[summary.part == "all"].configurations.iloc[0])
    total = len(results[KEYS].drop_duplicates())
    settings = results[["model", "settings"]].drop_duplicates()
    words = "; ".join(f"{m}: {s or 'as it is'}" for m, s in settings.itertuples(index=False))
    rest = "" if count == total else f" ({total - count} more lack a score of ours)"
    return (
        f"Geometric means of the ratios to seasonal naive over {count} of the benchmark's 97 "
        f"configurations{rest}; published models on the same ones; lower is better. MASE is that of "
        "the median, CRPS the mean weighted sum quantile loss over nine deciles; ranks are means over "
        f"configurations among the models listed. Ours are in bold. Settings: {words}. "
        f"Command: `{command}`."
    )


def _places(places: pd.DataFrame) -> pd.DataFrame:
    """The table of `standing`, in fewer columns."""
    table = places[["model", *KEYS]].copy()
    for metric in METRICS:
        table[metric] = places[metric]
        place, count = places[f"{metric} place"], places[f"{metric} models"]
        table[f"{metric} place"] = [f"{p} of {n}" for p, n in zip(place, count, strict=True)]
        best, ratio = places[f"{metric} best"], places[f"{metric} to best"]
        table[f"{metric} of the best"] = [
            f"{r:.2f} ({b})" for r, b in zip(ratio, best, strict=True)
        ]
    return table


def by_part(summary: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Models, best first, and their means over all, by term and by frequency; ours in bold."""
    wide = summary.pivot(index=["origin", "model"], columns="part", values=metric)
    wide = wide[list(dict.fromkeys(summary.part))]
    whole = summary[summary.part == "all"].set_index(["origin", "model"])
    wide.insert(1, "rank", whole[f"{metric} rank"])
    wide = wide.sort_values("all")
    names = [f"**{model}**" if origin == "ours" else model for origin, model in wide.index]
    wide.insert(0, "model", names)
    return wide


def overall(summary: pd.DataFrame) -> pd.DataFrame:
    """The rows of the part "all", best CRPS first."""
    return summary[summary.part == "all"].drop(columns="part").sort_values("CRPS")


def _as_markdown(table: pd.DataFrame) -> str:
    """The first column names the rows."""
    return markdown(table.map(_shown).set_index(table.columns[0]))


def _shown(cell: object) -> str:
    if isinstance(cell, float):
        return "" if np.isnan(cell) else f"{cell:.4g}" if abs(cell) >= 1000 else f"{cell:.3f}"
    return str(cell).replace("|", "\\|")


def draw(summary: pd.DataFrame, path: Path) -> None:
    """Bars of both means over all configurations, best first; ours dark."""
    from matplotlib.figure import Figure

    whole = summary[summary.part == "all"].dropna(subset=list(METRICS))
    figure = Figure(figsize=(10, 1.2 + 0.2 * len(whole)), layout="constrained")
    for axes, metric in zip(figure.subplots(1, 2), METRICS, strict=True):
        _draw_bars(axes, whole.sort_values(metric, ascending=False), metric)
    figure.savefig(path, dpi=120)


def _draw_bars(axes: Any, ranked: pd.DataFrame, metric: str) -> None:
    ours = ranked.origin == "ours"
    values = ranked[metric].to_numpy()
    # A failure by orders of magnitude must not squeeze the others; its number tells.
    shown = np.minimum(values, 3.0)
    places = np.arange(len(ranked))
    axes.barh(places, shown, color=["#1d3f73" if own else "#a9c1e4" for own in ours], height=0.75)
    for place, value, own in zip(places, values, ours, strict=True):
        colour = "white" if own else "black"
        axes.text(0.02, place, f"{value:.3g}", va="center", fontsize="x-small", color=colour)
    axes.axvline(1.0, color="#c2452d", linewidth=0.8)
    axes.set_yticks(places, ranked.model, fontsize="x-small")
    for label, bold in zip(axes.get_yticklabels(), ours, strict=True):
        label.set_fontweight("bold" if bold else "normal")
    axes.set_ylim(-0.6, len(ranked) - 0.4)
    axes.set_title(f"{metric}, relative to seasonal naive", fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)
