"""Networks as functions from plain tensors to plain tensors, of fixed lengths, for any number of series."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llamacast.model.cria import Cria
from llamacast.model.distributions import Distribution, StudentT
from llamacast.model.lag_llama import LagLlama, ScaledWindow
from llamacast.model.patches import to_patches
from llamacast.model.scaling import find_strays, standardise
from llamacast.model.tokens import Lags, make_tokens, token_calendar
from llamacast.model.transformer import CausalAttention, rotation
from llamacast.sampling.cache import PrefixCache


class OnePass(nn.Module):
    """Cria: all quantiles of a horizon."""

    def __init__(self, network: Cria, horizon: int) -> None:
        super().__init__()
        self.network, self.horizon = network, horizon

    def forward(
        self,
        history: Float[Tensor, "series context"],
        seasons: Int[Tensor, "series 2"],
    ) -> Float[Tensor, "series horizon level"]:
        """Quantiles at the network's levels, in the units of the data.

        `history` is float64 and ends with the last known step, NaN where nothing was observed or a
        series is shorter; its length is a multiple of the patch. `seasons` are periods in steps that
        the calendar suggests, 0 for none.
        """
        network, length = self.network, self.network.config.patch_length
        observed = ~history.isnan()
        history = history.masked_fill(~observed, 0.0)
        observed = observed & ~find_strays(history, observed)
        values, location, scale = standardise(history, observed)
        num_future = -(-self.horizon // length)
        patched, seen, num_tokens = to_patches(
            values, observed, length, num_future - 1, history.shape[1] // length
        )
        window = network.window(patched, seen, seasons)
        hidden = network.hidden(window)
        tokens = num_tokens[:, None] - 1 + torch.arange(num_future)
        rows = torch.arange(history.shape[0])[:, None]
        outlook = window.outlook.choose(tokens)
        framed = network.quantiles(hidden[rows, tokens], outlook)
        told = outlook.frames.from_frame(framed).flatten(1, 2)[:, : self.horizon].double()
        return told * scale[..., None] + location[..., None]


class Prefill(nn.Module):
    """Lag-Llama: a history read once; what is said of the next value, and what steps go on from."""

    def __init__(self, network: LagLlama, horizon: int) -> None:
        """`horizon` is how far steps will go: rotary positions that stretch depend on it."""
        super().__init__()
        self.network, self.horizon = network, horizon

    def forward(
        self,
        history: Float[Tensor, "series history"],
        calendar: Float[Tensor, "series step feature"],
    ) -> tuple[Tensor, ...]:
        """`history` is float64, as long as the largest lag and the context, NaN where missing;
        `calendar` describes the context's steps and the one after.

        Answers: degrees of freedom, location and spread of Student's t in scaled units `(series,)`;
        the history's scaled values and whether they were observed, `(series, history)`; location and
        scale in float64, `(series, 1)`: value = scaled * scale + location; statistics `(series, 2)`; keys and
        values of the context, `(layer, series, head, context, head_width)`.
        """
        observed = ~history.isnan()
        exact = self.network.scale_window(history.masked_fill(~observed, 0.0), observed)
        # The network reads float32; data far from zero are told from their location in float64.
        window = ScaledWindow(
            exact.scaled,
            exact.observed,
            exact.location.float(),
            exact.scale.float(),
            exact.statistics,
        )
        context = calendar.shape[1] - 1
        tokens, turn, lags = self.network.inputs(window, calendar, context + self.horizon - 1)
        cache = PrefixCache()
        hidden = self.network.transformer(tokens, turn, cache)
        told = self.network.distribution(hidden[:, -1:], lags.last(1), window.scale)
        return (
            *_numbers(told),
            window.scaled,
            window.observed,
            exact.location,
            exact.scale,
            window.statistics,
            torch.stack(cache.keys),
            torch.stack(cache.values),
        )


class Step(nn.Module):
    """Lag-Llama: one more value of each path, and what is said of the next."""

    def __init__(self, network: LagLlama, context_length: int, horizon: int) -> None:
        super().__init__()
        self.network = network
        self.context_length, self.length = context_length, context_length + horizon - 1

    def forward(
        self,
        lags: Float[Tensor, "path lag"],
        observed: Float[Tensor, "path lag"],
        calendar: Float[Tensor, "path 2 feature"],
        statistics: Float[Tensor, "path 2"],
        scale: Float[Tensor, "path 1"],
        keys: Float[Tensor, "layer path head past head_width"],
        values: Float[Tensor, "layer path head past head_width"],
    ) -> tuple[Tensor, ...]:
        """`lags` are scaled values, so many steps before the next value, the newest first; whether
        they were observed (1) or not (0); `calendar` describes the newest step and the next.

        Answers: degrees of freedom, location, spread; keys and values with the newest step.
        """
        seen = Lags(lags.unsqueeze(1), observed.unsqueeze(1) > 0)
        aligned = token_calendar(calendar, self.network.config)
        tokens = make_tokens(seen, statistics, aligned, self.network.config)
        position = torch.full((1,), 1) * keys.shape[3]
        turn = rotation(position, self.length, self.network.config)
        cache = _Appended(keys, values)
        hidden = self.network.transformer(tokens, turn, cache)
        told = self.network.distribution(hidden, seen, scale)
        return (*_numbers(told), torch.stack(cache.keys), torch.stack(cache.values))


class _Appended:
    """Attention of one new step to all before it and itself."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.before = keys, values
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self._attend = CausalAttention()

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        self.keys.append(torch.cat([self.before[0][layer], key], dim=2))
        self.values.append(torch.cat([self.before[1][layer], value], dim=2))
        return torch.nn.functional.scaled_dot_product_attention(
            query, self.keys[-1], self.values[-1]
        )


def _numbers(told: Distribution) -> tuple[Tensor, Tensor, Tensor]:
    """Of a Student's t of one step, `(series,)` each."""
    assert isinstance(told, StudentT)
    return told.df[:, 0], told.loc[:, 0], told.scale[:, 0]
