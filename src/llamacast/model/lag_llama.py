"""Lag-Llama: scaled lags and the calendar in, the distribution of each next value out."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from llamacast.model.config import LagLlamaConfig
from llamacast.model.distributions import Distribution
from llamacast.model.heads import make_head
from llamacast.model.scaling import location_and_scale
from llamacast.model.tokens import (
    Lags,
    fill_missing,
    look_back,
    make_tokens,
    token_calendar,
    window_statistics,
)
from llamacast.model.transformer import (
    CausalAttention,
    Rotation,
    Transformer,
    draw_weights,
    full_precision,
    rotation,
)

# Logit of the current value among a token's lags at first: most weight, but not all.
INITIAL_WEIGHT_OF_CURRENT = 5.0


@dataclass(frozen=True)
class ScaledWindow:
    """A history in scaled units and what turns it back: value = scaled * scale + location."""

    scaled: Float[Tensor, "series history"]
    observed: Bool[Tensor, "series history"]
    location: Float[Tensor, "series 1"]
    scale: Float[Tensor, "series 1"]
    statistics: Float[Tensor, "series 2"]

    def to(self, device: torch.device) -> ScaledWindow:
        """The same in float32 on `device`."""
        parts = (self.scaled, self.location, self.scale, self.statistics)
        scaled, location, scale, statistics = (part.float().to(device) for part in parts)
        return ScaledWindow(scaled, self.observed.to(device), location, scale, statistics)

    def choose(self, series: slice) -> ScaledWindow:
        """That of some series."""
        parts = (self.scaled, self.observed, self.location, self.scale, self.statistics)
        return ScaledWindow(*(part[series] for part in parts))

    def to_scaled(self, values: Float[Tensor, "series time"]) -> Float[Tensor, "series time"]:
        """Values in data units, in scaled ones."""
        return (values - self.location) / self.scale

    def to_values(self, scaled: Float[Tensor, "series time"]) -> Float[Tensor, "series time"]:
        """Scaled values, in data units."""
        return scaled * self.scale + self.location


class LagLlama(nn.Module):
    """The network of arXiv 2310.08278, a function of tensors: it holds weights and no state."""

    def __init__(self, config: LagLlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = Transformer(config, nn.Linear(config.num_features, config.width))
        self.anchor = nn.Linear(config.width, len(config.lags)) if config.anchor == "lags" else None
        self.head = make_head(config)

    def scale_window(
        self,
        values: Float[Tensor, "series history"],
        observed: Bool[Tensor, "series history"],
    ) -> ScaledWindow:
        """Location, scale and statistics of a history, and the history in scaled units.

        `values` may be float64 (kept until they are scaled) and anything where not observed.
        """
        location, scale = location_and_scale(values, observed, self.config)
        filled = fill_missing(values, observed, location, self.config)
        statistics = window_statistics(observed, location, scale, self.config)
        scaled = ((filled - location) / scale).float()
        return ScaledWindow(scaled, observed, location, scale, statistics.float())

    def extend_window(
        self,
        window: ScaledWindow,
        values: Float[Tensor, "series time"],
        observed: Bool[Tensor, "series time"],
    ) -> ScaledWindow:
        """The history that `window` was made of and what came after it, at the history's scale."""
        filled = fill_missing(values, observed, window.location, self.config)
        scaled = window.to_scaled(filled).to(window.scaled)
        return dataclasses.replace(window, scaled=scaled, observed=observed)

    def forward(
        self,
        window: ScaledWindow,
        calendar: Float[Tensor, "series step feature"],
        sequence_length: int | None = None,
    ) -> Distribution:
        """Distribution, in scaled units, of the value after each of the last `context` steps.

        The window holds at least `max(lags) + context` steps. `calendar` describes the context's
        steps and the one after them. `sequence_length` is what dynamic rotary positions stretch
        to, if not the context.
        """
        tokens, turn, lags = self.inputs(window, calendar, sequence_length)
        causal = CausalAttention(self.config.dropout if self.training else 0.0)
        return self.distribution(self.transformer(tokens, turn, causal), lags, window.scale)

    def inputs(
        self,
        window: ScaledWindow,
        calendar: Float[Tensor, "series step feature"],
        sequence_length: int | None = None,
    ) -> tuple[Float[Tensor, "series context input"], Rotation | None, Lags]:
        """Tokens of a context, how they are turned, and the lags that they hold."""
        context_length = token_calendar(calendar, self.config).shape[1]
        lags = look_back(window.scaled, window.observed, self.config, context_length)
        positions = torch.arange(context_length, device=calendar.device)
        turn = rotation(positions, sequence_length or context_length, self.config)
        return self.tokens(window, calendar, lags), turn, lags

    def tokens(
        self,
        window: ScaledWindow,
        calendar: Float[Tensor, "series step feature"],
        lags: Lags,
    ) -> Float[Tensor, "series context input"]:
        """Tokens of a context that hold these lags."""
        aligned = token_calendar(calendar, self.config)
        return make_tokens(lags, window.statistics, aligned, self.config)

    def distribution(
        self,
        hidden: Float[Tensor, "*batch width"],
        lags: Lags,
        scale: Float[Tensor, "series 1"],
    ) -> Distribution:
        """What `hidden` says, in scaled units, of the value after a token of these lags.

        In full precision also where the transformer runs in less: in bfloat16 no spread below 0.8 %
        of the scale could be told.
        """
        with full_precision(hidden):
            return self.head(hidden, self._anchor_in(lags, hidden), scale.to(hidden.dtype))

    def _anchor_in(self, lags: Lags, hidden: Tensor) -> Float[Tensor, "*batch"]:
        if self.anchor is None:
            return torch.zeros_like(lags.values[..., 0])
        logits = self.anchor(hidden)
        if self.config.lag_flags:
            # The current value may have been carried here; it is there in any case.
            current = torch.arange(len(self.config.lags), device=logits.device) == 0
            logits = logits.masked_fill(~(lags.observed | current), -math.inf)
        return (logits.softmax(dim=-1) * lags.values).sum(dim=-1)

    def loss(
        self,
        values: Float[Tensor, "series time"],
        observed: Bool[Tensor, "series time"],
        calendar: Float[Tensor, "series step feature"],
        history_length: int,
        noise: Float[Tensor, "series token"] | None = None,
    ) -> tuple[Float[Tensor, "series token"], Bool[Tensor, "series token"]]:
        """Loss at every token, in scaled units, and where it counts (the next value is observed).

        The window is scaled by its first `history_length` steps, as in a forecast made there;
        the steps after them are the horizon. `calendar` describes the window's last steps; there
        is a token for each of them but the last, which is only predicted. `noise` is added to
        what is predicted, in scaled units.
        """
        num_tokens = calendar.shape[1] - 1
        window = self.scale_window(values[:, :history_length], observed[:, :history_length])
        known = self.extend_window(window, values[:, :-1], observed[:, :-1])
        targets = window.to_scaled(values[:, -num_tokens:]).to(known.scaled)
        targets = targets.masked_fill(~observed[:, -num_tokens:], 0.0)
        distribution = self(known, calendar)
        targets = targets if noise is None else targets + noise
        return distribution.loss(targets), observed[:, -num_tokens:]

    def initialise(self, generator: torch.Generator | None = None) -> None:
        """Draw weights; anchors begin near the current value."""
        draw_weights(self, self.config.num_layers, ("head", "anchor"), generator)
        if self.anchor is not None:
            self.anchor.bias.data[0] = INITIAL_WEIGHT_OF_CURRENT
