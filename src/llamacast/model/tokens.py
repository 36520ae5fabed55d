"""Make tokens: lags of the scaled series, two statistics of its window, the calendar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from llamacast.model.config import NUM_CALENDAR_FEATURES, LagLlamaConfig
from llamacast.model.running import running_most

# A location this many scales from zero is as far as a token says.
LARGEST_RELATIVE_LOCATION = 1e4


def fill_missing(
    values: Float[Tensor, "series time"],
    observed: Bool[Tensor, "series time"],
    location: Float[Tensor, "series 1"],
    config: LagLlamaConfig,
) -> Float[Tensor, "series time"]:
    """Give each missing value the number that the network sees in its place."""
    if config.missing == "zero":
        return values.masked_fill(~observed, 0.0)
    steps = torch.arange(values.shape[1], device=values.device)
    last_seen = running_most(torch.where(observed, steps, -1))
    carried = values.gather(1, last_seen.clamp(min=0))
    return torch.where(last_seen >= 0, carried, location)


def limit(scaled: Float[Tensor, "..."], config: LagLlamaConfig) -> Float[Tensor, "..."]:
    """Leave values up to `config.input_limit` alone; let larger ones grow as their logarithm."""
    bound = config.input_limit
    if bound is None:
        return scaled
    excess = (scaled.abs() - bound).clamp(min=0.0)
    return scaled.clamp(-bound, bound) + scaled.sign() * excess.log1p()


@dataclass(frozen=True)
class Lags:
    """What tokens see of the past, in scaled units, and which of it was observed."""

    values: Float[Tensor, "*batch lag"]
    observed: Bool[Tensor, "*batch lag"]

    def last(self, count: int) -> Lags:
        """Those of the last tokens of each row."""
        return Lags(self.values[:, -count:], self.observed[:, -count:])


def gather_lags(
    values: Shaped[Tensor, "series history"],
    lags: Sequence[int],
    context_length: int,
) -> Shaped[Tensor, "series context lag"]:
    """Look `lags` steps back from each of the last `context_length` steps.

    The history must begin at least `max(lags)` steps before the context does.
    """
    history_length = values.shape[1]
    assert history_length >= context_length + lags[-1], "history too short for the lags"
    steps = torch.arange(history_length - context_length, history_length, device=values.device)
    back = torch.tensor(lags, device=values.device)
    return values[:, steps[:, None] - back]


def window_statistics(
    observed: Bool[Tensor, "series time"],
    location: Float[Tensor, "series 1"],
    scale: Float[Tensor, "series 1"],
    config: LagLlamaConfig,
) -> Float[Tensor, "series 2"]:
    """Two features that every token of a window carries (see `LagLlamaConfig.statistics`)."""
    if config.statistics == "absolute":
        return torch.cat([location.abs().log1p(), scale.log()], dim=1)
    largest = LARGEST_RELATIVE_LOCATION
    relative_location = (location / scale).clamp(-largest, largest).float().asinh()
    # The largest lag's span, whatever the context, so that a longer context changes nothing.
    share_observed = observed[:, -(config.max_lag + 1) :].to(scale.dtype).mean(dim=1, keepdim=True)
    return torch.cat([relative_location, share_observed.float()], dim=1)


def token_calendar(
    calendar: Float[Tensor, "series step feature"], config: LagLlamaConfig
) -> Float[Tensor, "series token calendar"]:
    """Give each token its calendar features, and covariates; one token fewer than steps.

    `calendar` describes the tokens' own steps and the one after the last of them, by six features and
    then by covariates, if there are any; these are always those of the step to be predicted.
    """
    dates, covariates = calendar.split([NUM_CALENDAR_FEATURES, config.num_covariates], dim=2)
    if config.calendar == "none":
        return covariates[:, 1:]
    aligned = dates[:, 1:] if config.calendar == "next" else dates[:, :-1]
    return torch.cat([aligned, covariates[:, 1:]], dim=2) if config.num_covariates else aligned


def look_back(
    scaled: Float[Tensor, "series history"],
    observed: Bool[Tensor, "series history"],
    config: LagLlamaConfig,
    context_length: int,
) -> Lags:
    """The lags of each of the last `context_length` steps, `(series, context, lag)`."""
    return Lags(
        gather_lags(scaled, config.lags, context_length),
        gather_lags(observed, config.lags, context_length),
    )


def make_tokens(
    lags: Lags,
    statistics: Float[Tensor, "series 2"],
    calendar: Float[Tensor, "series context calendar"],
    config: LagLlamaConfig,
) -> Float[Tensor, "series context feature"]:
    """Join what a token holds: lags ascending, their flags if any, two statistics, the calendar.

    The order is that of arXiv 2310.08278, section 4.1, which has no flags.
    """
    repeated = statistics[:, None].expand(-1, calendar.shape[1], -1)
    flags = [lags.observed.to(calendar.dtype)] if config.lag_flags else []
    return torch.cat([limit(lags.values, config), *flags, repeated, calendar], dim=2)
