"""The boards that weights are chosen by, for some weights side by side, in about two minutes each.

    python benchmarks/boards.py cria runs/cria/model runs/mean

CRPS and MASE over seasonal naive's, geometric means over sets: GIFT-Eval's open configurations (days and
weeks alone, too), the six sets of `accuracy.py` with at most 60 series each, and the last window of each
series that the recipe holds back, of M1, M3 and the tourism competition and of all data sets. The CRPS of a
set counts series by their size, so that one may decide it; MASE counts each alike. What is shipped is
measured in full by scripts of their own.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from accuracy import choose, protocol
from held_out import SETS, held_out

import llamacast
from llamacast.data.arrow import read_panels
from llamacast.data.panel import Panel
from llamacast.evaluation.backtest import Settled
from llamacast.evaluation.gift_eval import Contender, run
from llamacast.evaluation.gift_report import METRICS, summarise

SHARED = Path("../shared/data")
MOST_SERIES = 60
PARTS = {"all": "GIFT-Eval", "D": "its days", "W": "its weeks"}
COMPETITIONS = tuple(SETS.split(","))


def gift_eval(name: str, forecaster: Settled, data: Path) -> pd.DataFrame:
    contender = Contender(name, lambda season: forecaster)
    with TemporaryDirectory() as folder:
        scores = run(data / "gift", [contender], Path(folder))
    summary = summarise(scores, data / "published" / "gift_eval.csv")
    ours = summary[summary.model == name].set_index("part")
    return ours.loc[list(PARTS), list(METRICS)].rename(index=PARTS)


def ratios(
    name: str,
    forecaster: Settled,
    panels: dict[str, Panel],
    num_windows: int,
    most_series: int,
) -> pd.DataFrame:
    """Scores over seasonal naive's; a row for each set, a column for each metric."""
    found = {}
    for label, panel in panels.items():
        horizon, season = protocol(label, panel)
        scores = llamacast.backtest(
            choose(panel, most_series),
            horizon,
            {name: forecaster},
            num_windows=num_windows,
            season=season,
            progress=False,
        )
        table = scores.table()
        found[label] = {metric: table.loc[name, f"{metric} ratio"] for metric in METRICS}
    return pd.DataFrame.from_dict(found, orient="index", dtype=float)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help="packaged names or folders")
    parser.add_argument(
        "--data", type=Path, default=SHARED, help="folder of gift/, published/, eval/, pretrain/"
    )
    parser.add_argument("--recipe", type=Path, default=Path("recipes/cria.toml"))
    arguments = parser.parse_args()
    six = read_panels(arguments.data / "eval")
    with TemporaryDirectory() as folder:
        for name, (frame, _) in held_out(arguments.recipe, arguments.data / "pretrain", "").items():
            frame.to_parquet(Path(folder) / f"{name}.parquet")
        held = read_panels(Path(folder))
    for name in arguments.models:
        settled = Settled(llamacast.load(name, device="cpu"), {"seed": 0, "progress": False})
        of_six = ratios(name, settled, six, 5, MOST_SERIES)
        of_held = ratios(name, settled, held, 1, 0)
        means = {
            "six sets": of_six,
            "competitions": of_held[of_held.index.str.startswith(COMPETITIONS)],
            "held back": of_held,
        }
        table = pd.concat(
            [
                gift_eval(name, settled, arguments.data),
                pd.DataFrame({label: np.exp(np.log(one).mean()) for label, one in means.items()}).T,
                of_six,
                of_held,
            ]
        )
        print(f"\n{name}\n{table.round(4).to_string()}", flush=True)


if __name__ == "__main__":
    main()
