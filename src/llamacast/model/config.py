"""What networks are: a frozen dataclass for each kind, and presets as functions."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

Scaling = Literal["robust", "mean", "std", "none"]
Rotary = Literal["default", "linear", "dynamic", "absent"]
HeadName = Literal[
    "student_t", "normal", "negative_binomial", "quantile_network", "quantiles", "flow"
]

# Union over quarterly ... secondly data of GluonTS' lags for each frequency, less one, so that
# lag 0 is the current value (arXiv 2310.08278, section 4.1). The same for every frequency.
_LAG_RUNS = (
    "0 7-8 10-14 19-24 26-30 34-36 46-48 50-52 55 57-61 70-72 83 94-96 102-104 117-121 142-144 "
    "154-156 166-168 177-181 334-336 362-364 502-504 670-672 718-720 726-728 1090-1092"
)


def _expand_runs(runs: str) -> tuple[int, ...]:
    bounds = [[int(bound) for bound in run.split("-")] for run in runs.split()]
    return tuple(lag for run in bounds for lag in range(run[0], run[-1] + 1))


PAPER_LAGS = _expand_runs(_LAG_RUNS)
# The paper's, the last 15 values (the union leaves out 2 to 7 steps before the next value, among them
# the week of daily and the year of quarterly data), a day of 5 and of 1 minute.
LAGS = tuple(sorted({*PAPER_LAGS, *_expand_runs("0-14 286-288 1438-1440")}))
NUM_CALENDAR_FEATURES = 6
# Every twentieth, and the hundredths at both ends: deciles are among them.
QUANTILE_LEVELS = (0.01, *(step / 20 for step in range(1, 20)), 0.99)
# Periods that the calendar suggests for a series, the shorter first; 0 for none.
NUM_SEASONS = 2
LARGEST_SIZE = 4096


@runtime_checkable
class TransformerShape(Protocol):
    """What a LLaMA decoder is made of, whichever network it stands in."""

    @property
    def num_layers(self) -> int: ...
    @property
    def num_heads(self) -> int: ...
    @property
    def head_width(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def feedforward_width(self) -> int: ...
    @property
    def rotary(self) -> Rotary: ...
    @property
    def rotary_factor(self) -> float: ...
    @property
    def max_context_length(self) -> int: ...


@dataclass(frozen=True)
class LagLlamaConfig:
    """Architecture and input conventions of a Lag-Llama network.

    Raises:
        ValueError: if a field has the wrong type or lies outside its range; the message names it.
    """

    num_layers: int = 8
    """Transformer blocks."""
    num_heads: int = 9
    """Attention heads in each block."""
    head_width: int = 16
    """Width of one attention head (even: rotary positions turn pairs)."""
    feedforward_width: int = 512
    """Hidden width of SwiGLU."""
    lags: tuple[int, ...] = LAGS
    """Steps back that make a token, ascending, beginning with 0 (the current value)."""
    context_length: int = 256
    """Tokens the network attends to by default when it forecasts."""
    head: HeadName = "student_t"
    """Distribution of the next value."""
    scaling: Scaling = "robust"
    """How a window is brought to unit size (see `scaling.py`)."""
    scale_floor: Literal["spread", "epsilon"] = "spread"
    """Robust scale when the quartiles coincide: another spread of the values, or 1e-10."""
    lag_flags: bool = True
    """Whether a token tells which of its lags were observed, and anchors in none that was not."""
    missing: Literal["carry", "zero"] = "carry"
    """A missing input is the last value seen (the location before any), or a raw 0."""
    statistics: Literal["relative", "absolute"] = "relative"
    """Two features on the window: location in scales and share observed, which no change of unit
    alters; or log1p(|location|) and log(scale)."""
    anchor: Literal["lags", "location"] = "lags"
    """Where a predicted location is counted from: a mean of the token's own lags, weighted by a
    softmax over them (so that a season, or the current value, can be copied), in units of the
    predicted spread (so that calm series are told apart finely); or the window's location, in
    scales."""
    calendar: Literal["next", "current", "none"] = "next"
    """Calendar features of the step being predicted, of the token's own step, or none."""
    input_limit: float | None = 5.0
    """Inputs beyond this many scales grow logarithmically; None leaves them alone."""
    rotary: Rotary = "default"
    """Rotary positions: plain, linearly interpolated, dynamic NTK, or none at all."""
    rotary_factor: float = 1.0
    """Stretch of linear and dynamic rotary positions, at least 1."""
    max_context_length: int = 2048
    """Sequence length beyond which dynamic rotary positions stretch."""
    num_covariates: int = 0
    """Numbers that are known of each step beside its value, which tokens hold of the step
    to be predicted."""
    dropout: float = 0.0
    """Probability of dropping an attention weight while training; never applied in inference."""

    def __post_init__(self) -> None:
        _check_types(self)
        _check_decoder(self)
        _require(1 <= self.context_length <= 65536, "context_length", "must be 1 to 65536")
        _check_covariates(self)
        _require(self.lags[:1] == (0,), "lags", "must begin with 0, the current value")
        _require(self.lags == tuple(sorted(set(self.lags))), "lags", "must ascend")
        _require(self.lags[-1] <= 65536, "lags", "must be at most 65536")
        _require(0.0 <= self.dropout < 1.0, "dropout", "must be in [0, 1)")
        _require(
            self.input_limit is None or self.input_limit > 0, "input_limit", "must be positive"
        )
        counts = self.head == "negative_binomial"
        _require(
            not counts or self.scaling in ("mean", "none"),
            "scaling",
            "must be 'mean' or 'none' with the negative binomial head, which has no location",
        )

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return self.num_heads * self.head_width

    @property
    def num_features(self) -> int:
        """Width of a token: lags, their flags, two window statistics, calendar features."""
        lags = len(self.lags) * (2 if self.lag_flags else 1)
        return lags + 2 + self.num_calendar_features + self.num_covariates

    @property
    def num_calendar_features(self) -> int:
        return 0 if self.calendar == "none" else NUM_CALENDAR_FEATURES

    @property
    def max_lag(self) -> int:
        return self.lags[-1]

    @property
    def steps_per_token(self) -> int:
        return 1

    @property
    def history_length(self) -> int:
        """Steps that a forecast looks at by default."""
        return self.max_lag + self.context_length


@dataclass(frozen=True)
class CriaConfig:
    """Architecture and input conventions of a Cria network.

    Raises:
        ValueError: if a field has the wrong type or lies outside its range; the message names it.
    """

    num_layers: int = 6
    """Transformer blocks."""
    num_heads: int = 6
    """Attention heads in each block."""
    head_width: int = 32
    """Width of one attention head (even: rotary positions turn pairs)."""
    feedforward_width: int = 512
    """Hidden width of SwiGLU."""
    projection_width: int = 384
    """Hidden width of the two projections, patches in and quantiles out."""
    patch_length: int = 16
    """Steps in a token, and steps that it predicts."""
    context_length: int = 2048
    """Steps of history that a forecast looks at."""
    num_periods: int = 3
    """Periods whose lags are inputs."""
    num_seasons: int = 12
    """Past seasons that are averaged; fewer where the history holds fewer."""
    frame_patches: int = 32
    """Patches in which a token's scale forgets half of what was."""
    levels: tuple[float, ...] = QUANTILE_LEVELS
    """Levels of the quantiles, odd in number, ascending, around 0.5."""
    num_told_seasons: int = 2
    """Periods that the calendar suggests, told to tokens as numbers, too: what comes after twenty
    hours is not what comes after twenty years. At most 2."""
    tells_spreads: bool = True
    """Whether tokens are told how far apart the seasons lie that they average: how wide a forecast
    must be that follows them."""
    num_covariates: int = 0
    """Numbers that are known of each step beside its value, which tokens hold of their own
    steps and of those to be predicted."""
    rotary: Rotary = "default"
    """Rotary positions: plain, linearly interpolated, dynamic NTK, or none at all."""
    rotary_factor: float = 1.0
    """Stretch of linear and dynamic rotary positions, at least 1."""
    max_context_length: int = 192
    """Number of tokens beyond which dynamic rotary positions stretch."""

    def __post_init__(self) -> None:
        _check_types(self)
        _check_decoder(self)
        _check_covariates(self)
        whole = ("projection_width", "patch_length", "num_periods", "num_seasons", "frame_patches")
        _check_sizes(self, whole)
        told = self.num_told_seasons
        _require(0 <= told <= NUM_SEASONS, "num_told_seasons", f"must be 0 to {NUM_SEASONS}")
        _require(
            self.patch_length <= self.context_length <= 65536,
            "context_length",
            "must be patch_length to 65536",
        )
        inner = self.levels
        ascending = all(low < high for low, high in itertools.pairwise(inner))
        _require(
            len(inner) >= 5 and len(inner) % 2 == 1 and inner[len(inner) // 2] == 0.5,
            "levels",
            "must be odd in number, at least 5, with 0.5 in the middle",
        )
        _require(
            ascending and inner[0] > 0 and inner[-1] < 1, "levels", "must ascend within 0 to 1"
        )

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return self.num_heads * self.head_width

    @property
    def steps_per_token(self) -> int:
        return self.patch_length

    @property
    def history_length(self) -> int:
        """Steps that a forecast looks at by default."""
        return self.context_length


def cria() -> CriaConfig:
    """The packaged Cria (3.3 M parameters)."""
    return CriaConfig()


NetworkConfig = LagLlamaConfig | CriaConfig

ARCHITECTURES: dict[str, type[NetworkConfig]] = {"lag-llama": LagLlamaConfig, "cria": CriaConfig}
"""By the names that files call them."""


def lag_llama() -> LagLlamaConfig:
    """The packaged Lag-Llama: official size, inputs mended and flagged, anchored in its lags (2.48 M
    parameters)."""
    return LagLlamaConfig()


def paper_lag_llama() -> LagLlamaConfig:
    """Our network with the paper's inputs: its 84 lags, without flags."""
    return LagLlamaConfig(lags=PAPER_LAGS, lag_flags=False)


def official_lag_llama() -> LagLlamaConfig:
    """Exactly what the official implementation (commit 013ff0c) computes, faults included."""
    return LagLlamaConfig(
        context_length=32,
        lags=PAPER_LAGS,
        lag_flags=False,
        scale_floor="epsilon",
        missing="zero",
        statistics="absolute",
        anchor="location",
        calendar="current",
        input_limit=None,
    )


def _require(condition: bool, field: str, rule: str) -> None:
    if not condition:
        raise ValueError(f"{field} {rule}")


def _check_decoder(config: LagLlamaConfig | CriaConfig) -> None:
    """What `TransformerShape` names."""
    _check_sizes(config, ("num_layers", "num_heads", "head_width", "feedforward_width"))
    _require(config.head_width % 2 == 0, "head_width", "must be even")
    _require(config.max_context_length >= 1, "max_context_length", "must be at least 1")
    _require(config.rotary_factor >= 1.0, "rotary_factor", "must be at least 1")


def _check_covariates(config: LagLlamaConfig | CriaConfig) -> None:
    within = 0 <= config.num_covariates <= LARGEST_SIZE
    _require(within, "num_covariates", f"must be 0 to {LARGEST_SIZE}")


def _check_sizes(config: LagLlamaConfig | CriaConfig, names: tuple[str, ...]) -> None:
    for name in names:
        _require(1 <= getattr(config, name) <= LARGEST_SIZE, name, f"must be 1 to {LARGEST_SIZE}")


def _check_types(config: LagLlamaConfig | CriaConfig) -> None:
    """Refuse a value whose type is not the default's, or a word that is not among the choices."""
    choices = {
        "head": get_args(HeadName),
        "scaling": get_args(Scaling),
        "rotary": get_args(Rotary),
        "scale_floor": ("spread", "epsilon"),
        "missing": ("carry", "zero"),
        "statistics": ("relative", "absolute"),
        "anchor": ("lags", "location"),
        "calendar": ("next", "current", "none"),
    }
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name in choices:
            allowed = choices[field.name]
            _require(
                value in allowed, field.name, f"must be one of {', '.join(allowed)}; got {value!r}"
            )
        elif field.name == "lags":
            whole = isinstance(value, tuple) and all(type(lag) is int for lag in value)
            _require(whole and len(value) > 0, "lags", "must be a tuple of whole numbers")
        elif field.name == "levels":
            real = isinstance(value, tuple) and all(type(level) is float for level in value)
            _require(real, "levels", "must be a tuple of numbers")
        elif field.name == "input_limit" and value is None:
            continue
        elif isinstance(field.default, bool):
            _require(type(value) is bool, field.name, f"must be true or false; got {value!r}")
        elif isinstance(field.default, float):
            real = isinstance(value, (int, float)) and not isinstance(value, bool)
            finite = real and math.isfinite(value)
            _require(finite, field.name, f"must be a finite number; got {value!r}")
        else:
            _require(type(value) is int, field.name, f"must be a whole number; got {value!r}")
