"""Teach Cria four pedestrian counters, and see which hours were odd."""

from pathlib import Path

import pandas as pd

import llamacast

table = pd.read_csv(Path(__file__).parent / "data" / "pedestrians.csv", parse_dates=["hour"])
forecaster = llamacast.load()

# A few steps of the head only, so that it takes seconds; leave these two options out for more.
tuned = forecaster.finetune(table, horizon=24, strategy="head", steps=16)
print(tuned.verdict)
tuned.save("tuned")  # llamacast.load("tuned"), or --model tuned

odd = forecaster.detect(table).to_frame()
odd = odd[odd.anomaly].sort_values("probability", kind="stable")
print(odd.head(5)[["sensor", "hour", "count", "expected"]].to_string(index=False))
