"""Batches by number: which windows, how they are altered, and what of them counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from llamacast.data.aggregates import aggregate, origin
from llamacast.data.corpora import Corpus, DataSet, Mixture, join
from llamacast.data.groups import sum_groups
from llamacast.data.synthetic import synthesise
from llamacast.data.windows import WindowShape, draw_stretches, draw_windows
from llamacast.model.config import CriaConfig
from llamacast.model.frames import FEWEST_OBSERVED
from llamacast.training.augment import AugmentConfig, augment, past_moves
from llamacast.training.config import PretrainConfig, SyntheticConfig
from llamacast.training.loop import Batch
from llamacast.training.masking import as_patch_batch
from llamacast.training.windows import CorpusOnDevice, CutWindows

# Before the names of data sets that are made up.
_FAMILY = "synthetic "


class Batches:
    """Batches by number, cut on the device: each process makes all of a batch and takes its rows.

    So a batch is the same however many processes share it.
    """

    def __init__(self, corpus: Corpus, config: PretrainConfig, device: torch.device) -> None:
        self.config = config
        self.train_lengths = corpus.train_lengths(config.hold_out)
        self.real = corpus
        self.made = []
        # Of the real ones only what may be trained on.
        longer = aggregate(corpus, self.train_lengths) if config.aggregates.share else None
        groups = self._in_groups(corpus) if config.groups.share else None
        for made, share in ((longer, config.aggregates.share), (groups, config.groups.share)):
            if made is not None:
                self.made.append((made, share, _like_their_origins(config.mixture, made)))
        if config.synthetic.share:
            synthetic = _synthesise(config.synthetic, config.seed)
            weights = {_FAMILY + name: weight for name, weight in config.synthetic.weights.items()}
            mixture = Mixture(points_exponent=0.0, weights=weights)
            self.made.append((synthetic, config.synthetic.share, mixture))
        whole = corpus
        for one, _, _ in self.made:
            whole = whole.join(one)
        added = whole.lengths[corpus.num_series :]
        self.ends = np.concatenate([self.train_lengths, added])
        self.device = device
        self.on_device = CorpusOnDevice(whole, device)
        self.device_ends = torch.from_numpy(self.ends).to(device)
        self._chances = {length: self._mixed(length) for length in config.windows.lengths}

    def _in_groups(self, corpus: Corpus) -> Corpus | None:
        """Sums over groups of series, and these in longer steps."""
        groups = sum_groups(corpus, self.train_lengths, self.config.groups.most, self.config.seed)
        longer = None if groups is None else aggregate(groups, groups.lengths)
        return groups if groups is None or longer is None else groups.join(longer)

    def _mixed(self, num_tokens: int) -> np.ndarray:
        """Probability of each series in a batch of windows of `num_tokens`."""
        length = num_tokens * self.config.model.steps_per_token
        chances = self.real.probabilities(self.config.mixture, self.train_lengths, length)
        parts = [chances * (1 - sum(share for _, share, _ in self.made))]
        for one, share, mixture in self.made:
            parts.append(share * one.probabilities(mixture, one.lengths, length))
        return np.concatenate(parts)

    def at(self, step: int) -> Batch:
        """The whole batch of a step."""
        windows = self.config.windows
        rng = np.random.default_rng((self.config.seed, step))
        weights = np.asarray(windows.length_weights) / np.sum(windows.length_weights)
        num_tokens = int(rng.choice(windows.lengths, p=weights))
        if isinstance(self.config.model, CriaConfig):
            return self._next_patches(rng, num_tokens, self.config.model.patch_length)
        return self._next_values(rng, num_tokens, self.config.model.max_lag)

    def _next_values(self, rng: np.random.Generator, num_tokens: int, max_lag: int) -> Batch:
        windows = self.config.windows
        drawn = rng.integers(1, max(2, int(num_tokens * windows.largest_horizon_share)))
        horizon = windows.horizon or int(drawn)
        history = max_lag + num_tokens + 1 - horizon
        shape = WindowShape(history, horizon, num_steps=num_tokens + 1)
        draws = draw_windows(
            rng,
            self._chances[num_tokens],
            np.zeros_like(self.ends),
            self.ends,
            windows.tokens_per_batch // num_tokens,
            shape,
        )
        cut = self.on_device.cut(draws, shape, self.device_ends)
        generator = torch.Generator(self.device).manual_seed(int(rng.integers(2**62)))
        cut = altered(cut, self.config.augment, generator, history)
        noise = torch.randn((len(draws), num_tokens), generator=generator, device=self.device)
        return as_batch(cut, history, noise * windows.target_noise)

    def _next_patches(self, rng: np.random.Generator, num_tokens: int, patch_length: int) -> Batch:
        length = num_tokens * patch_length
        draws = draw_stretches(
            rng,
            self._chances[num_tokens],
            self.ends,
            self.config.windows.tokens_per_batch // num_tokens,
            length,
            patch_length,
        )
        shape = WindowShape(history=0, horizon=length, num_steps=1)
        cut = self.on_device.cut(draws, shape, self.device_ends)
        generator = torch.Generator(self.device).manual_seed(int(rng.integers(2**62)))
        cut = altered(cut, self.config.augment, generator, length)
        model, windows = self.config.model, self.config.windows
        assert isinstance(model, CriaConfig)
        return as_patch_batch(cut, patch_length, windows, generator, model.num_periods)

    def shared(self, step: int, rank: int, num_processes: int, num_parts: int) -> list[Batch]:
        """One process' rows of the batch of a step, in parts."""
        batch = self.at(step)
        rows = torch.arange(rank, len(batch["values"]), num_processes)
        return [take(batch, part) for part in rows.tensor_split(min(num_parts, max(1, len(rows))))]


def altered(
    cut: CutWindows, config: AugmentConfig, generator: torch.Generator, history_length: int
) -> CutWindows:
    """Augmented windows; those that run at another pace now have no calendar."""
    values, observed, keeps = augment(cut.values, cut.observed, config, generator, history_length)
    beside = cut.covariates if cut.covariates is None else cut.covariates * keeps[:, None, None]
    return CutWindows(
        values, observed, cut.calendar * keeps[:, None, None], cut.seasons * keeps[:, None], beside
    )


def as_batch(cut: CutWindows, history_length: int, noise: Tensor) -> Batch:
    """What the objective takes. Windows whose history hardly moves count for nothing."""
    values, observed = cut.values, cut.observed
    enough = observed[:, :history_length].sum(dim=1) >= FEWEST_OBSERVED
    tells = enough & past_moves(values, observed, history_length)
    counts = observed[:, -noise.shape[1] :] & tells[:, None]
    return {
        "values": values,
        "observed": observed,
        "calendar": cut.told_of_steps,
        "noise": noise,
        "counts": counts,
        "history_length": torch.tensor(history_length),
        "count": counts.sum(),
    }


def take(batch: Batch, rows: Tensor) -> Batch:
    """Some windows of a batch."""
    part = {name: value[rows] if value.dim() else value for name, value in batch.items()}
    return {**part, "count": part["counts"].sum()}


def _like_their_origins(mixture: Mixture, aggregates: Corpus) -> Mixture:
    """A data set that is left out, or drawn twice as often, is so in longer steps and groups, too."""
    weights = {name: mixture.weights.get(origin(name), 1.0) for name in aggregates.datasets}
    return replace(mixture, weights=weights)


def _synthesise(config: SyntheticConfig, seed: int) -> Corpus:
    """Series made for this run, a data set for each family.

    Real ones are mixed where batches are augmented, as windows, which keep their calendar.
    """
    made = synthesise(config.num_series, seed)
    families = dict.fromkeys(series.family for series in made)
    return join(
        DataSet(
            _FAMILY + family,
            [str(n) for n, series in enumerate(made) if series.family == family],
            [series.values for series in made if series.family == family],
            np.array([series.start for series in made if series.family == family]),
            [series.frequency for series in made if series.family == family],
        )
        for family in families
    )
