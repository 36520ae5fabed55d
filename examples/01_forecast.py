"""Forecast a table: four pedestrian counters of Melbourne, two days ahead."""

from pathlib import Path

import pandas as pd

import llamacast

HERE = Path(__file__).parent

# Columns are found by what they hold: one of text, one of dates, one of numbers.
table = pd.read_csv(HERE / "data" / "pedestrians.csv", parse_dates=["hour"])

# Keep the last two days to compare with.
split = table.hour.max() - pd.Timedelta("48h")
past, actuals = table[table.hour <= split], table[table.hour > split]

forecaster = llamacast.load()
forecast = forecaster.forecast(past, horizon=48, frequency="h", nonnegative=True)

print(forecast.to_frame(quantiles=[0.1, 0.5, 0.9]).head(6).to_string(index=False))

# Paths are joint, so the total of two days has a distribution too.
totals = forecast.samples.sum(axis=2)
for name, paths in zip(forecast.ids, totals, strict=True):
    low, high = pd.Series(paths).quantile([0.1, 0.9])
    print(f"{name}: {low:,.0f} to {high:,.0f} people in two days, with 80 % probability")

forecast.plot("forecast.png", actuals=actuals)
print("wrote forecast.png")
