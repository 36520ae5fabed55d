"""Transformers run by native.c, compiled once for the machine at hand; where no compiler is, there is none.

Results are those of `model/transformer.py` up to rounding. `LLAMACAST_NATIVE=0` leaves it out.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, finalize

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from llamacast.model.config import TransformerShape
from llamacast.model.transformer import NORM_EPSILON, Block, Rotation, Transformer
from llamacast.sampling.cache import PrefixCache

OPTIONS = ("-O3", "-ffp-contract=fast", "-fno-math-errno", "-std=gnu11", "-shared", "-fPIC")
# Tuned to this machine, or, for compilers that do not know it, to any of its kind.
TUNINGS = (("-march=native",), ("-mcpu=native",), ())
COMPILERS = ("cc", "gcc", "clang")
LONGEST_COMPILATION = 60.0
# Samples that read a shared prefix together, and whose tails lie together.
GROUP = 4
# Rows of whole sequences that are run together: their way through a layer fits into caches.
ROWS_TOGETHER = 256
# Of attention, of SwiGLU, of norms.
WEIGHTS_PER_BLOCK = 4 + 3 + 2
# Of so many weights one is looked at to see whether they have changed.
PROBE = 1021
# Of tails, by each thread between forecasts.
MOST_KEPT_BYTES = 64 * 2**20


class _Shape(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_int64) for name in ("num_layers", "num_heads", "width", "feedforward_width")
    ]


class _Weights(ctypes.Structure):
    _fields_ = [("panels", ctypes.c_void_p), ("final_norm", ctypes.c_void_p)]


class _Prefix(ctypes.Structure):
    _fields_ = [
        ("keys", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("length", ctypes.c_int64),
    ]


@cache
def _library(head_width: int) -> ctypes.CDLL | None:
    """The compiled code for heads of a width; None where it cannot be had."""
    # On Windows gcc keeps wide vectors where the stack is not aligned for them (its bug 54412).
    if os.environ.get("LLAMACAST_NATIVE") == "0" or sys.platform == "win32":
        return None
    try:
        return _compiled(head_width)
    except (OSError, AttributeError, subprocess.SubprocessError):
        return None


def _load(path: Path) -> ctypes.CDLL:
    """Raises OSError or AttributeError where it is not what was compiled."""
    library = ctypes.CDLL(str(path))
    for name in ("num_lanes", "panel_width", "working_room"):
        getattr(library, name).restype = ctypes.c_int64
    return library


def _compiled(head_width: int) -> ctypes.CDLL:
    """Compile native.c, unless this has been done before.

    Raises:
        OSError: if there is no compiler, or no place to write to.
        subprocess.SubprocessError: if it fails.
    """
    source = files("llamacast.sampling").joinpath("native.c").read_bytes()
    compiler = _compiler()
    constants = {"HEAD_WIDTH": head_width, "QUERIES": GROUP, "EPSILON": f"{NORM_EPSILON}f"}
    options = [*OPTIONS, *(f"-D{name}={value}" for name, value in constants.items())]
    told = (source, compiler, options, TUNINGS, _processor())
    digest = hashlib.sha256(repr(told).encode()).hexdigest()[:16]
    target = _cache_directory() / f"native-{digest}.so"
    if target.exists():
        with suppress(OSError, AttributeError):
            return _load(target)  # else once more
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as directory:
        code, made = Path(directory) / "native.c", Path(directory) / target.name
        code.write_bytes(source)
        command = [*compiler, *options, str(code)]
        for tuning in TUNINGS:
            done = subprocess.run(
                [*command, *tuning, "-o", str(made)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # pipes would be waited for beyond the limit
                stderr=subprocess.DEVNULL,
                timeout=LONGEST_COMPILATION,
                check=tuning == TUNINGS[-1],
            )
            if done.returncode == 0:
                break
        library = _load(made)
        os.replace(made, target)  # whole or not at all, whoever else compiles just now
    return library


def _compiler() -> list[str]:
    asked = os.environ.get("CC", "").split()
    if asked and shutil.which(asked[0]):
        return asked
    found = next(filter(None, map(shutil.which, COMPILERS)), None)
    if found is None:
        raise OSError("no C compiler")
    return [found]


def _cache_directory() -> Path:
    if "LLAMACAST_CACHE" in os.environ:
        return Path(os.environ["LLAMACAST_CACHE"])
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError as error:
        raise OSError("no home directory") from error
    return home / "llamacast"


def _processor() -> str:
    """What tells processors apart that may share a cache directory."""
    told = f"{platform.machine()} {platform.processor()}"
    try:
        first, *_ = Path("/proc/cpuinfo").read_text().split("\n\n")
    except OSError:
        return told
    # Clocks and the like change from look to look.
    stays = ("flags", "features", "isa", "model", "cpu", "uarch", "vendor")
    lines = [line for line in first.splitlines() if line.lower().startswith(stays)]
    return "\n".join([told, *(line for line in lines if "MHz" not in line)])


def native_weights(transformer: Transformer) -> NativeWeights | None:
    """A transformer's weights, once in each of their versions; None where native code cannot serve.

    That weights have changed is seen by their versions, or, where torch counts none (changes by
    `.data`, by numpy, by fused optimisers), by a sample of their values.
    """
    known = _KNOWN.get(transformer)
    if known is None or known.changed:
        weights = list(transformer.parameters())
        if not _serves(transformer.config, weights) or not _is_plain(transformer, len(weights)):
            _KNOWN.pop(transformer, None)
            return None
        known = _KNOWN[transformer] = _Known.of(transformer)
    return known.native


def _is_plain(transformer: Transformer, num_weights: int) -> bool:
    """Whether nothing, such as an adapter, stands beside the matrices of blocks."""
    outside = (*transformer.embed.parameters(), *transformer.norm.parameters())
    return num_weights - len(outside) == WEIGHTS_PER_BLOCK * len(transformer.blocks)


def _serves(config: TransformerShape, weights: Sequence[Tensor]) -> bool:
    if not all(
        weight.dtype == torch.float32 and weight.is_cpu and weight.is_contiguous()
        for weight in weights
    ):
        return False
    if config.head_width < 4 or config.head_width & (config.head_width - 1):
        return False
    library = _library(config.head_width)
    widths = (config.width, config.feedforward_width)
    return library is not None and all(width % library.num_lanes() == 0 for width in widths)


class NativeWeights:
    """A transformer's weights in the order in which native.c reads them.

    The weights of norms go into the matrices behind them, and the temperature of the softmax into
    the queries.
    """

    def __init__(self, transformer: Transformer) -> None:
        config = transformer.config
        library = _library(config.head_width)
        assert library is not None
        self.library, self.config = library, config
        self.num_lanes, self.panel_width = library.num_lanes(), library.panel_width()
        panels: list[Tensor] = []
        with torch.no_grad():
            for block in transformer.blocks:
                assert isinstance(block, Block)
                attention, feedforward = block.attention, block.feedforward
                into_attention = block.attention_norm.weight
                into_feedforward = block.feedforward_norm.weight
                unit = math.log2(math.e) / math.sqrt(config.head_width)
                taken = [
                    attention.query.weight * unit,
                    attention.key.weight,
                    attention.value.weight,
                ]
                panels += self._panels([torch.cat(taken) * into_attention])
                panels += self._panels([attention.output.weight])
                gates = [feedforward.gate.weight, feedforward.up.weight]
                panels += self._panels([one * into_feedforward for one in gates])
                panels += self._panels([feedforward.down.weight])
            self.panels = torch.cat(panels)
            self.final_norm = transformer.norm.weight.detach().clone()
            self.embed = deepcopy(transformer.embed)

    def run(
        self,
        tokens: Float[Tensor, "series time feature"],
        turn: Rotation | None,
        prefix: PrefixCache | None,
    ) -> Float[Tensor, "series time width"]:
        """What the transformer makes of whole sequences; keys and values are left in `prefix`."""
        config = self.config
        num_series, steps = tokens.shape[:2]
        hidden = _zeros(num_series, steps, self.padded(config.width))
        hidden[..., : config.width] = self.embed(tokens)
        kept = (config.num_layers, num_series, config.num_heads, steps, config.head_width)
        keys, values = _room(2, *kept).unbind()
        together = min(num_series, max(1, ROWS_TOGETHER // steps))
        shape = self.shape()
        rows, longest = ctypes.c_int64(together * steps), ctypes.c_int64(steps)
        room = self.library.working_room(ctypes.byref(shape), rows, longest)
        blocks = (steps + self.num_lanes) * config.head_width
        floats, turns = _room(room + blocks), self.turns(turn, steps)
        self.library.run(
            ctypes.byref(shape),
            ctypes.byref(self.pointers()),
            ctypes.c_int64(num_series),
            ctypes.c_int64(steps),
            ctypes.c_int64(together),
            *(ctypes.c_void_p(one.data_ptr()) for one in (turns, hidden, keys, values, floats)),
        )
        if prefix is not None:
            prefix.keys, prefix.values = list(keys.unbind()), list(values.unbind())
        return hidden[..., : config.width]

    def padded(self, width: int) -> int:
        """The width of rows in whole panels."""
        return -(-width // self.panel_width) * self.panel_width

    def shape(self) -> _Shape:
        config = self.config
        sizes = (config.num_layers, config.num_heads, config.width, config.feedforward_width)
        return _Shape(*sizes)

    def pointers(self) -> _Weights:
        return _Weights(self.panels.data_ptr(), self.final_norm.data_ptr())

    def turns(self, turn: Rotation | None, steps: int) -> Float[Tensor, "time 2 head_width"]:
        """Cosines and sines of each step; for no rotation, of none."""
        if turn is not None:
            return torch.stack(turn, dim=1).to("cpu", torch.float32).contiguous()
        turns = _zeros(steps, 2, self.config.head_width)
        turns[:, 0] = 1.0
        return turns

    def _panels(self, matrices: Sequence[Tensor]) -> list[Tensor]:
        found = []
        for matrix in matrices:
            room = -len(matrix) % self.panel_width
            padded = torch.nn.functional.pad(matrix, (0, 0, 0, room))
            found.append(padded.unflatten(0, (-1, self.panel_width)).mT.flatten())
        return found


class NativeDecoder:
    """Decodes some samples of each series of a prefix (see `decoder.Decoder`)."""

    def __init__(
        self, weights: NativeWeights, prefix: PrefixCache, num_samples: int, tail_length: int
    ) -> None:
        config, lanes = weights.config, weights.num_lanes
        self.weights, self.num_samples = weights, num_samples
        keys = torch.stack(prefix.keys)
        self.num_series, length = keys.shape[1], keys.shape[3]
        keys = torch.nn.functional.pad(keys, (0, 0, 0, -length % lanes))
        self.prefix_keys = keys.unflatten(3, (-1, lanes)).mT.contiguous()
        self.prefix_values = torch.stack(prefix.values)
        self.tail_length, self.length = tail_length, 0
        blocks, groups = -(-tail_length // lanes), -(-num_samples // GROUP)
        tail = 2 * config.num_layers * self.num_series * config.width * GROUP * groups * lanes
        self.tails = _KEPT.take(blocks * tail)
        finalize(self, _KEPT.give, self.tails)
        rows = self.num_series * num_samples
        self.hidden = _zeros(rows, weights.padded(config.width))
        self._shape, self._weights = weights.shape(), weights.pointers()
        places = (self.prefix_keys.data_ptr(), self.prefix_values.data_ptr())
        self._prefix = _Prefix(*places, length)
        longest = ctypes.c_int64(length + tail_length + 2 * lanes)
        shape = ctypes.byref(self._shape)
        room = weights.library.working_room(shape, ctypes.c_int64(rows), longest)
        self.working = _room(room)

    def __call__(
        self, tokens: Float[Tensor, "series sample feature"], turn: Rotation | None
    ) -> Float[Tensor, "series sample width"]:
        self.length += 1
        assert self.length <= self.tail_length, "a decoder has room for the steps it was made for"
        width = self.weights.config.width
        self.hidden[:, :width] = self.weights.embed(tokens.flatten(0, 1))
        turns = self.weights.turns(turn, 1)
        self.weights.library.decode(
            ctypes.byref(self._shape),
            ctypes.byref(self._weights),
            ctypes.byref(self._prefix),
            ctypes.c_void_p(self.tails.data_ptr()),
            ctypes.c_int64(self.length),
            ctypes.c_int64(self.num_series),
            ctypes.c_int64(self.num_samples),
            ctypes.c_void_p(turns.data_ptr()),
            ctypes.c_void_p(self.hidden.data_ptr()),
            ctypes.c_void_p(self.working.data_ptr()),
        )
        # The next step is written over this one.
        return self.hidden[:, :width].clone().unflatten(0, (-1, self.num_samples))


def _room(*shape: int) -> Tensor:
    """Floats that hold anything, as native.c wants them, whatever torch's defaults are."""
    return torch.empty(shape, dtype=torch.float32, device="cpu")


def _zeros(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.float32, device="cpu")


class _Kept(threading.local):
    """Tails that a thread is done with: memory that was touched before is quicker to come by."""

    def __init__(self) -> None:
        self.floats = _room(0)

    def take(self, size: int) -> Tensor:
        """At least so many floats, which hold anything."""
        taken, self.floats = self.floats, _room(0)
        return taken if len(taken) >= size else _room(size)

    def give(self, floats: Tensor) -> None:
        if 4 * len(floats) <= MOST_KEPT_BYTES:
            self.floats = floats


_KEPT = _Kept()


@dataclass(frozen=True)
class _Known:
    """Native weights, and what they were made of: asking whether that still holds takes a tenth of the
    time that walking through all modules does."""

    native: NativeWeights
    held: list[tuple[dict[str, Any], dict[str, Any]]]
    """What hangs on each module, as it is and as it was: modules and weights by their names."""
    weights: Sequence[Tensor]
    versions: list[tuple[int, int | None]]
    probes: list[npt.NDArray[np.float32]]
    """Views of some of their values."""
    sample: npt.NDArray[np.float32]

    @classmethod
    def of(cls, transformer: Transformer) -> _Known:
        held = [
            (part, dict(part))
            for module in transformer.modules()
            for part in (module._modules, module._parameters)
        ]
        # They are held, so that no others come to lie where they lay.
        weights = list(transformer.parameters())
        probes = [weight.detach().view(-1)[::PROBE].numpy() for weight in weights]
        native = NativeWeights(transformer)
        return cls(native, held, weights, _versions(weights), probes, np.concatenate(probes))

    @property
    def changed(self) -> bool:
        return (
            any(_differs(now, before) for now, before in self.held)
            or _versions(self.weights) != self.versions
            or not np.array_equal(np.concatenate(self.probes), self.sample)
        )


def _differs(now: dict[str, Any], before: dict[str, Any]) -> bool:
    return len(now) != len(before) or any(now.get(name) is not one for name, one in before.items())


def _versions(weights: Sequence[Tensor]) -> list[tuple[int, int | None]]:
    return [
        (weight.data_ptr(), None if weight.is_inference() else weight._version)
        for weight in weights
    ]


_KNOWN: WeakKeyDictionary[Transformer, _Known] = WeakKeyDictionary()
