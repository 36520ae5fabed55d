"""Promotions that are planned, and holidays: forecasts that know of them."""

import numpy as np
import pandas as pd

import llamacast

rng = np.random.default_rng(0)
days = pd.date_range("2023-01-02", periods=400 + 28)
promotion = rng.random(len(days)) < 0.12
week = 1 + 0.3 * np.sin(2 * np.pi * np.arange(len(days)) / 7)
sold = (
    100 * week + 60 * promotion + rng.normal(0, 5, len(days)) + rng.normal(0, 1, len(days)).cumsum()
)
table = pd.DataFrame({"day": days, "sold": sold, "promotion": promotion})

past, future = table[:400], table[400:].drop(columns="sold")
forecaster = llamacast.load()
plain = forecaster.forecast(past[["day", "sold"]], horizon=28)
told = forecaster.forecast(past, horizon=28, future_frame=future)
print(told.notes[0])

actual = table.sold[400:].to_numpy()
for name, forecast in (("without", plain), ("with", told)):
    print(
        f"{name:>8} promotions: mean error {np.abs(forecast.median[0] - actual).mean():.1f} a day"
    )
told.plot("covariates.png", actuals=table[400:][["day", "sold"]])
print("wrote covariates.png")
