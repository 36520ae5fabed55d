"""What a pretraining run follows from, beside its corpus."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from llamacast.data.corpora import HoldOut, Mixture
from llamacast.data.synthetic import MADE_UP
from llamacast.model.config import NetworkConfig, lag_llama
from llamacast.training.augment import AugmentConfig
from llamacast.training.loop import LoopConfig


@dataclass(frozen=True)
class WindowConfig:
    """What a batch looks like."""

    tokens_per_batch: int = 4096
    """Tokens of a step, over all processes."""
    lengths: tuple[int, ...] = (64, 128, 256, 512)
    """Tokens in a window, context and horizon together; all windows of a batch share one. Lag-Llama's
    tokens are steps, Cria's patches."""
    length_weights: tuple[float, ...] = (0.25, 0.3, 0.35, 0.1)
    """How often each of the lengths is drawn."""
    largest_horizon_share: float = 0.5
    """Lag-Llama: up to this share of a window comes after the steps that it is scaled by."""
    target_noise: float = 0.01
    """Lag-Llama: deviation, in scales, of noise on targets: values that repeat exactly would otherwise be
    worth ever narrower distributions."""
    horizon: int | None = None
    """Steps that windows end in and that are asked for from what is before them, for a network that is
    to forecast so many; None draws how many for each batch (Lag-Llama) or window (Cria)."""
    masked_end_share: float = 0.45
    """Cria: share of windows whose end is asked for from afar."""
    masked_within_share: float = 0.45
    """Cria: share of windows of which stretches all over are."""
    hidden_periods_share: float = 0.0
    """Cria: how often each period of a window is not told, and how often all but the strongest are not,
    so that the network does not rely on periods that are chance."""
    shuffled_periods_share: float = 0.0
    """Cria: how often periods are told in an order that is drawn, so that the network weighs them by their
    strengths and does not take the first of them at its word."""

    def __post_init__(self) -> None:
        if len(self.lengths) != len(self.length_weights) or not self.lengths:
            raise ValueError("lengths and length_weights must be equally many")
        if min(self.lengths) < 2 or min(self.length_weights) < 0 or sum(self.length_weights) <= 0:
            raise ValueError("lengths must be at least 2, length_weights positive")
        if self.tokens_per_batch < max(self.lengths):
            raise ValueError("tokens_per_batch must be at least the longest of lengths")
        if self.horizon is not None and not self.horizon >= 1:
            raise ValueError("horizon must be at least 1")
        masked = self.masked_end_share, self.masked_within_share
        if min(masked) < 0 or sum(masked) > 1:
            raise ValueError("masked_end_share and masked_within_share must be in [0, 1] together")
        if not 0 <= self.hidden_periods_share < 1:
            raise ValueError("hidden_periods_share must be in [0, 1)")
        if not 0 <= self.shuffled_periods_share <= 1:
            raise ValueError("shuffled_periods_share must be in [0, 1]")
        if not 0 < self.largest_horizon_share < 1 or self.target_noise < 0:
            raise ValueError("largest_horizon_share must be in (0, 1), target_noise not negative")


@dataclass(frozen=True)
class SyntheticConfig:
    """Series made beside those of the corpus."""

    share: float = 0.0
    """Share of windows that come from them, in [0, 1)."""
    num_series: int = 6000
    weights: Mapping[str, float] = field(default_factory=dict)
    """How often families are drawn, by name; 1 for those that are not named."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.share < 1.0 or self.num_series < 1:
            raise ValueError("share must be in [0, 1), num_series positive")
        unknown = sorted(self.weights.keys() - set(MADE_UP))
        if unknown:
            raise ValueError(
                f"weights: there is no family {unknown[0]!r}; there are {', '.join(MADE_UP)}"
            )
        if self.weights and min(self.weights.values()) < 0:
            raise ValueError("weights must not be negative")


@dataclass(frozen=True)
class AggregateConfig:
    """Means of the corpus's own series over longer steps: hours, days, weeks, months."""

    share: float = 0.0
    """Share of windows that come from them, in [0, 1)."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.share < 1.0:
            raise ValueError("share must be in [0, 1)")


@dataclass(frozen=True)
class GroupConfig:
    """Sums of the corpus's own series over random groups, also in longer steps."""

    share: float = 0.0
    """Share of windows that come from them, in [0, 1)."""
    most: int = 200
    """Groups of each data set, at most."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.share < 1.0 or self.most < 1:
            raise ValueError("share must be in [0, 1), most positive")


@dataclass(frozen=True)
class PretrainConfig:
    """Everything that a run follows from, beside the corpus."""

    mixture: Mixture = field(default_factory=Mixture)
    hold_out: HoldOut = field(default_factory=HoldOut)
    aggregates: AggregateConfig = field(default_factory=AggregateConfig)
    groups: GroupConfig = field(default_factory=GroupConfig)
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    windows: WindowConfig = field(default_factory=WindowConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    model: NetworkConfig = field(default_factory=lag_llama)
    seed: int = 0

    def about(self, datasets: Collection[str]) -> PretrainConfig:
        """The same, without what it says of data sets by names that are not among these."""
        weights = {name: one for name, one in self.mixture.weights.items() if name in datasets}
        shares = {name: one for name, one in self.hold_out.shares.items() if name in datasets}
        return replace(
            self,
            mixture=replace(self.mixture, weights=weights),
            hold_out=replace(self.hold_out, shares=shares),
        )

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed must not be negative; got {self.seed}")
        if self.aggregates.share + self.groups.share + self.synthetic.share >= 1.0:
            raise ValueError(
                "aggregates.share, groups.share and synthetic.share must be below 1 together"
            )
