"""Follow one series through all eight steps, from a table to a forecast, with the shapes."""

from pathlib import Path

import numpy as np
import torch

import llamacast
from llamacast.applied.support import Support, find_support
from llamacast.data.frame import read_panel
from llamacast.data.windows import last_windows
from llamacast.forecast import Forecast
from llamacast.model.tokens import look_back, make_tokens, token_calendar
from llamacast.model.transformer import CausalAttention, rotation
from llamacast.sampling.engine import sample_paths
from llamacast.sampling.streams import uniforms

DATA = Path(__file__).parent / "data" / "pedestrians.csv"
HORIZON, CONTEXT, SAMPLES = 24, 64, 100


def show(step, what, **shapes):
    print(f"{step}. {what}")
    for name, value in shapes.items():
        print(f"     {name:<14} {tuple(value.shape) if hasattr(value, 'shape') else value}")


model = llamacast.load("lag-llama", device="cpu").model
config = model.config

panel = read_panel(DATA)
axis = panel.axes[0]
show(
    1,
    "check, group, sort",
    series=list(panel.ids)[:1],
    values=panel.values[0],
    frequency=axis.frequency.name,
)

first = slice(0, 1)
windows = last_windows(panel, first, config.max_lag + CONTEXT, CONTEXT, HORIZON)
show(
    2,
    "cut the last window",
    values=windows.values,
    observed=windows.observed,
    calendar=windows.calendar,
)

values, observed, calendar = (
    torch.from_numpy(part) for part in (windows.values, windows.observed, windows.calendar)
)
with torch.no_grad():
    window = model.scale_window(values, observed)
    show(3, "scale", scaled=window.scaled, location=window.location, scale=window.scale)

    seen = token_calendar(calendar[:, : CONTEXT + 1], config)
    lags = look_back(window.scaled, window.observed, config, CONTEXT)
    tokens = make_tokens(lags, window.statistics, seen, config)
    show(4, "tokenise by lags", lags=lags.values, tokens=tokens)

    turn = rotation(torch.arange(CONTEXT), CONTEXT, config)
    hidden = model.transformer(tokens, turn, CausalAttention())
    show(5, "transform", hidden=hidden)

    distribution = model.distribution(hidden, lags, window.scale.float())
    show(
        6, "emit a distribution", df=distribution.df, loc=distribution.loc, scale=distribution.scale
    )

# Steps 3 to 6 again, once for the past and then for each future step of each sample.
draws = uniforms([str(panel.ids[0])], seed=0, num_samples=SAMPLES, horizon=HORIZON)
paths = sample_paths(model, values, observed, calendar, draws)
show(7, "sample futures", uniforms=draws, paths=paths)

# Pedestrians are counted: what lies between whole numbers never comes, and nothing below 0.
found = find_support(panel, nonnegative=None, integer=None)
support = Support(found.whole[first], found.nonnegative[first])
samples = paths.numpy()
support.project(samples)
forecast = Forecast(
    samples=samples,
    ids=panel.ids[first],
    index=[axis.index(len(panel.values[0]), HORIZON)],
    id_column=panel.columns.id,
    time_column=panel.columns.time,
    whole=support.whole,
)
frame = forecast.to_frame(quantiles=[0.1, 0.5, 0.9])
show(8, "answer", frame=frame)
print(frame.head(3).to_string(index=False))

# The facade does the same in one call.
whole = llamacast.load("lag-llama", device="cpu").forecast(
    DATA, HORIZON, context_length=CONTEXT, num_samples=SAMPLES
)
assert np.allclose(whole.samples[0], forecast.samples[0], rtol=1e-4, atol=1e-2)
print("the facade's forecast of this series is the same")
