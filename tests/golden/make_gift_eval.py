"""Make gift_eval.json: scores of seasonal naive on small series by an independent scorer.

    python tests/golden/make_gift_eval.py ../shared/tools/gift_eval.py

The scorer computes in numpy what GluonTS' `evaluate_model` does, equal to 6e-8.
"""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

spec = importlib.util.spec_from_file_location("scorer", sys.argv[1])
scorer = importlib.util.module_from_spec(spec)
spec.loader.exec_module(scorer)

rng = np.random.default_rng(7)


def wave(n, p, noise=1.0):
    """A season of `p` steps with noise."""
    return np.round(10 + 5 * np.sin(2 * np.pi * np.arange(n) / p) + noise * rng.normal(size=n), 2)


sets = {
    "solar/H": (
        "2020-01-01 05:00",
        [wave(560, 24), wave(500, 24, 3), wave(530, 24), np.full(500, 4.0)],
    ),
    "bizitobs_service/10S": ("2020-01-01", [wave(1300, 360), wave(1250, 60)]),
    "us_births/W": ("2020-01-05", [wave(130, 52), wave(100, 52)]),
    "hospital/M": ("2000-01-01", [wave(84, 12), wave(90, 12), wave(84, 12)]),
    "m4_yearly/A": ("1950-01-01", [wave(19, 9), wave(40, 9)]),
}
# Missing here and there, at the beginning, in the last window, everywhere, in all of a history.
sets["solar/H"][1][0][[3, 100, 101, 540]] = np.nan
sets["solar/H"][1][2][:] = np.nan
sets["solar/H"][1][1][:30] = np.nan
sets["hospital/M"][1][1][-1] = np.nan
sets["hospital/M"][1][2][:75] = np.nan


def scores(name, start, series):
    dataset, frequency = name.split("/")
    rows = []
    for term in scorer.TERM:
        if term != "short" and f"{name}/{term}" not in LONGER:
            continue
        horizon = scorer.prediction_length(dataset, frequency, term)
        windows = scorer.n_windows(dataset, min(map(len, series)), horizon)
        data = [
            (str(n), pd.Timestamp(start), frequency, np.float32(y)) for n, y in enumerate(series)
        ]
        season = scorer.season_length(frequency)
        found = scorer.score(data, scorer.seasonal_naive, horizon, windows, season)
        row = {"term": term, "horizon": horizon, "windows": windows}
        rows.append(row | {metric: float(found[metric]) for metric in ("MASE", "CRPS")})
    return rows


LONGER = {"solar/H/medium", "bizitobs_service/10S/medium"}
made = {
    name: {
        "start": start,
        "series": [[None if np.isnan(v) else float(v) for v in y] for y in series],
        "scores": scores(name, start, series),
    }
    for name, (start, series) in sets.items()
}
path = Path(__file__).with_name("gift_eval.json")
path.write_text(json.dumps(made, separators=(",", ":")) + "\n")
