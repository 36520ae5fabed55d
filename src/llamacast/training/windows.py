"""Windows of a corpus, cut on the device that trains: the corpus lies there as a few tensors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from llamacast.data.calendar import (
    NUM_FEATURES,
    Frequency,
    clock_floor,
    day_features,
    last_days,
    season_candidates,
    stamps_from,
)
from llamacast.data.corpora import Corpus
from llamacast.data.windows import Draws, WindowShape

SECONDS_A_DAY = 86400
NANOSECONDS_A_SECOND = 10**9
# Days that 64-bit nanoseconds can tell.
FIRST_DAY, LAST_DAY = np.datetime64("1677-01-01"), np.datetime64("2263-01-01")


@dataclass(frozen=True)
class CutWindows:
    """Windows to learn from, on a device."""

    values: Float[Tensor, "window time"]
    """History and horizon; 0 where not observed."""
    observed: Bool[Tensor, "window time"]
    calendar: Float[Tensor, "window step 6"]
    """Of the last steps; 0 before a series begins, after it ends, and where it is withheld."""
    seasons: Int[Tensor, "window season"]
    """Periods that the calendar suggests, in steps; 0 for none, and where it is withheld."""
    covariates: Float[Tensor, "window time covariate"] | None = None
    """As usual (0) before a series begins and after it ends."""

    @property
    def told_of_steps(self) -> Float[Tensor, "window step feature"]:
        """The calendar of the last steps and, behind it, their covariates: what Lag-Llama is told."""
        if self.covariates is None:
            return self.calendar
        return torch.cat([self.calendar, self.covariates[:, -self.calendar.shape[1] :]], dim=2)

    def to(self, device: torch.device) -> CutWindows:
        return CutWindows(
            self.values.to(device),
            self.observed.to(device),
            self.calendar.to(device),
            self.seasons.to(device),
            None if self.covariates is None else self.covariates.to(device),
        )


class CorpusOnDevice:
    """A corpus as tensors: flat values, and for each series what its time stamps follow from.

    Steps of even length (seconds to weeks) are reckoned; for business days, months, quarters and
    years the day of every point is kept.
    """

    def __init__(self, corpus: Corpus, device: torch.device) -> None:
        self.values = torch.from_numpy(corpus.values).to(device)
        known = corpus.covariates
        self.covariates = None if known is None else torch.from_numpy(known).to(device)
        self.begins = torch.from_numpy(corpus.bounds[:-1].copy()).to(device)
        self.lengths = torch.from_numpy(corpus.lengths).to(device)
        # Corpora hold few frequencies, so what follows from one is told by its number.
        numbers = {frequency: n for n, frequency in enumerate(dict.fromkeys(corpus.frequencies))}
        frequency_of = np.array([numbers[frequency] for frequency in corpus.frequencies])
        self.frequency_of = torch.from_numpy(frequency_of).to(device)
        self.traits = torch.tensor([_traits(frequency) for frequency in numbers], device=device)
        dated = [frequency is not None for frequency in numbers]
        self.dated = torch.tensor(dated, device=device)
        seasons = [season_candidates(frequency) for frequency in numbers]
        self.seasons = torch.tensor(seasons, device=device)
        starts = corpus.starts.astype("datetime64[ns]").astype(np.int64)
        self.starts = torch.from_numpy(starts).to(device)
        days, first_of = _days_of_uneven(corpus)
        self.uneven_days = torch.from_numpy(days).to(device)
        self.uneven_begins = torch.from_numpy(first_of).to(device)
        every_day = np.arange(FIRST_DAY, LAST_DAY)
        self.day_features = torch.from_numpy(day_features(every_day)).to(device)
        self.first_day = int(FIRST_DAY.astype(np.int64))

    @property
    def device(self) -> torch.device:
        return self.values.device

    def cut(
        self, draws: Draws, shape: WindowShape, ends: Int[Tensor, " series"] | None = None
    ) -> CutWindows:
        """Cut windows out; steps of a series from `ends` on are not shown (by default all are)."""
        series, origins, firsts = (
            torch.from_numpy(part).to(self.device)[:, None]
            for part in (draws.series, draws.origins, draws.firsts)
        )
        last = (self.lengths if ends is None else ends)[series]
        steps = origins + torch.arange(-shape.history, shape.horizon, device=self.device)
        within = (steps >= firsts) & (steps < last)
        places = self.begins[series] + steps.clamp(min=0).minimum(last - 1)
        values = self.values[places]
        observed = within & ~values.isnan()
        told = steps[:, -shape.num_steps :]
        calendar = self._calendar(series, told.clamp(min=0).minimum(last - 1))
        with_calendar = torch.from_numpy(draws.with_calendar).to(self.device)[:, None]
        with_calendar = with_calendar & self.dated[self.frequency_of[series]]
        shown = within[:, -shape.num_steps :] & with_calendar
        return CutWindows(
            values.masked_fill(~observed, 0.0),
            observed,
            calendar.masked_fill(~shown.unsqueeze(-1), 0.0),
            self.seasons[self.frequency_of[series[:, 0]]] * with_calendar,
            None if self.covariates is None else self.covariates[places] * within.unsqueeze(2),
        )

    def _calendar(
        self, series: Int[Tensor, "window 1"], steps: Int[Tensor, "window step"]
    ) -> Float[Tensor, "window step 6"]:
        """The six features of `calendar_features`."""
        nanoseconds, floor, anchor = self.traits[self.frequency_of[series]].unbind(dim=-1)
        # Whole seconds suffice: frequencies below one tell the second at most.
        stamps = (self.starts[series] + steps * nanoseconds).div(
            NANOSECONDS_A_SECOND, rounding_mode="floor"
        )
        days = stamps.div(SECONDS_A_DAY, rounding_mode="floor")
        seconds = stamps - days * SECONDS_A_DAY
        uneven = self.uneven_begins[series]
        if len(self.uneven_days):
            kept = self.uneven_days[(uneven + steps).clamp(0, len(self.uneven_days) - 1)].long()
            days = torch.where(uneven >= 0, kept, days)
            seconds = seconds.masked_fill(uneven >= 0, 0)
        # A week tells its last day.
        days = torch.where(anchor >= 0, days + (anchor - (days + 3)) % 7, days)
        seconds = seconds.div(floor, rounding_mode="floor") * floor
        features = torch.empty(*steps.shape, NUM_FEATURES, device=self.device)
        features[..., 0] = seconds % 60 / 59 - 0.5
        features[..., 1] = seconds // 60 % 60 / 59 - 0.5
        features[..., 2] = seconds // 3600 / 23 - 0.5
        features[..., 3:] = self.day_features[days - self.first_day]
        return features


def _traits(frequency: Frequency | None) -> tuple[int, int, int]:
    """Length of a step (0 if uneven), seconds that the clock is rounded to, last weekday or -1."""
    if frequency is None:
        return 0, 1, -1
    weekly = frequency.anchor if frequency.unit == "W" else -1
    return frequency.nanoseconds, clock_floor(frequency), weekly


def _days_of_uneven(
    corpus: Corpus,
) -> tuple[Shaped[np.ndarray, " point"], Shaped[np.ndarray, " series"]]:
    """Days, since 1970, that points of uneven steps tell, and where each series' begin (else -1)."""
    days, begins, total = [], np.full(corpus.num_series, -1, dtype=np.int64), 0
    for number, frequency in enumerate(corpus.frequencies):
        if frequency is None or frequency.nanoseconds:
            continue
        length = int(corpus.lengths[number])
        stamps = stamps_from(corpus.starts[number], frequency, 0, length)
        told = last_days(stamps.astype("datetime64[D]"), frequency)
        days.append(told.astype(np.int64).astype(np.int32))
        begins[number], total = total, total + length
    return np.concatenate([*days, np.empty(0, np.int32)]), begins
