"""The official Lightning checkpoint: read as data, its weights given our names."""

from __future__ import annotations

import collections
import dataclasses
import io
import math
import pickle
import pickletools
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llamacast.forecast import CheckpointError
from llamacast.model.checkpoint import build
from llamacast.model.config import LagLlamaConfig, official_lag_llama
from llamacast.model.lag_llama import LagLlama

LARGEST_PICKLE_BYTES = 64 * 2**20
LARGEST_ARCHIVE_BYTES = 4 * 2**30
MOST_TUPLES = 20_000


def import_official(path: Path) -> LagLlama:
    """Read the official `lag-llama.ckpt` (or one fine-tuned from it) without executing it.

    Raises:
        CheckpointError: if the file is not such a checkpoint, is damaged, or holds anything but
            tensors and plain containers where weights and settings must be.
    """
    checkpoint = read_pickled_archive(path)
    try:
        settings = dict(checkpoint["hyper_parameters"]["model_kwargs"])
        weights = dict(checkpoint["state_dict"])
        config = _official_config(settings, weights, path)
        network = build(config, translate_official_weights(weights, path), str(path))
        assert isinstance(network, LagLlama)
        return network
    except CheckpointError:
        raise
    except Exception as error:
        # Whatever stands where settings and weights should can fail in any way.
        raise CheckpointError(f"{path}: has no Lag-Llama settings and weights") from error


def _official_config(
    settings: dict[str, Any], weights: dict[str, Any], path: Path
) -> LagLlamaConfig:
    gate = weights.get("model.transformer.h.0.mlp.c_fc1.weight")
    if not isinstance(gate, Tensor) or gate.dim() != 2:
        raise CheckpointError(f"{path}: has no Lag-Llama weights")
    heads = {
        "StudentTOutput": "student_t",
        "NegativeBinomialOutput": "negative_binomial",
        "ImplicitQuantileNetworkOutput": "quantile_network",
    }
    named = type(settings.get("distr_output")).__name__
    head: Any = next((ours for name, ours in heads.items() if name == named), None)
    if head is None:
        raise CheckpointError(f"{path}: distribution {named} is not known")
    scalings: dict[Any, Any] = {None: "none", True: "mean", False: "none"}
    rope = settings.get("rope_scaling") or {"type": "default", "factor": 1.0}
    try:
        return dataclasses.replace(
            official_lag_llama(),
            num_layers=settings["n_layer"],
            num_heads=settings["n_head"],
            head_width=settings["n_embd_per_head"],
            feedforward_width=gate.shape[0],
            context_length=settings["context_length"],
            max_context_length=settings["max_context_length"],
            lags=tuple(settings["lags_seq"]),
            head=head,
            scaling=scalings.get(settings["scaling"], settings["scaling"]),
            calendar="current" if settings["time_feat"] else "none",
            rotary="absent" if rope["type"] == "nope" else rope["type"],
            rotary_factor=rope.get("factor", 1.0),
            dropout=settings.get("dropout", 0.0),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: settings not understood: {error}") from error


_OFFICIAL_NAMES = [
    (r"transformer\.wte\.(weight|bias)", r"transformer.embed.\1"),
    (r"transformer\.ln_f\.scale", r"transformer.norm.weight"),
    (r"transformer\.h\.(\d+)\.rms_1\.scale", r"transformer.blocks.\1.attention_norm.weight"),
    (r"transformer\.h\.(\d+)\.rms_2\.scale", r"transformer.blocks.\1.feedforward_norm.weight"),
    (
        r"transformer\.h\.(\d+)\.attn\.q_proj\.weight",
        r"transformer.blocks.\1.attention.query.weight",
    ),
    (
        r"transformer\.h\.(\d+)\.attn\.c_proj\.weight",
        r"transformer.blocks.\1.attention.output.weight",
    ),
    (
        r"transformer\.h\.(\d+)\.mlp\.c_fc1\.weight",
        r"transformer.blocks.\1.feedforward.gate.weight",
    ),
    (r"transformer\.h\.(\d+)\.mlp\.c_fc2\.weight", r"transformer.blocks.\1.feedforward.up.weight"),
    (
        r"transformer\.h\.(\d+)\.mlp\.c_proj\.weight",
        r"transformer.blocks.\1.feedforward.down.weight",
    ),
    (r"param_proj\.quantile_layer\.output_layer\.0\.(weight|bias)", r"head.level_hidden.\1"),
    (r"param_proj\.quantile_layer\.output_layer\.1\.weight", r"head.level_slope.weight"),
    (r"param_proj\.quantile_layer\.output_layer\.2\.(weight|bias)", r"head.level_output.\1"),
    (r"param_proj\.output_layer\.0\.(weight|bias)", r"head.mixed.\1"),
    (r"param_proj\.output_layer\.1\.weight", r"head.mixed_slope.weight"),
]
_OFFICIAL_PROJECTIONS = {1: ["quantile"], 2: ["total_count", "logits"], 3: ["df", "loc", "scale"]}


def translate_official_weights(weights: Mapping[str, Any], source: Path | str) -> dict[str, Tensor]:
    """Give each official weight our name; `kv_proj` parts into key and value."""
    plain = {name.removeprefix("model."): weight for name, weight in weights.items()}
    projections = [name for name in plain if re.fullmatch(r"param_proj\.proj\.\d+\.weight", name)]
    targets = _OFFICIAL_PROJECTIONS.get(len(projections), [])
    ours: dict[str, Tensor] = {}
    for name, weight in plain.items():
        if name.endswith("quantile_layer.integers"):  # 0 ... 63, a constant
            continue
        if not isinstance(weight, Tensor):
            raise CheckpointError(f"{source}: {name} is not a tensor")
        if joint := re.fullmatch(r"transformer\.h\.(\d+)\.attn\.kv_proj\.weight", name):
            block = f"transformer.blocks.{joint[1]}.attention"
            ours[f"{block}.key.weight"], ours[f"{block}.value.weight"] = weight.chunk(2)
        elif found := re.fullmatch(r"param_proj\.proj\.([0-2])\.(weight|bias)", name):
            if int(found[1]) < len(targets):
                ours[f"head.{targets[int(found[1])]}.{found[2]}"] = weight
        else:
            ours[_translate(name, source)] = weight
    return ours


def _translate(name: str, source: Path | str) -> str:
    for pattern, replacement in _OFFICIAL_NAMES:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, replacement, name)
    raise CheckpointError(f"{source}: weight {name} is not part of Lag-Llama")


# --- A reader for torch's zip archives that runs nothing ------------------------------------------


class Placeholder:
    """Stands for any object of a class we do not read: takes what the pickle gives it, does nothing."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        pass

    def extend(self, items: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass


_STORAGES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "BoolStorage": np.bool_,
    "ByteStorage": np.uint8,
}
_PLAIN = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): Placeholder,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
}


class _StorageType:
    """Names the element type of a storage; inert."""

    def __init__(self, dtype: type) -> None:
        self.dtype = dtype


class _InertUnpickler(pickle.Unpickler):
    """Builds plain containers and tensors; every other global becomes a `Placeholder` class."""

    def __init__(self, archive: _Archive) -> None:
        super().__init__(io.BytesIO(archive.pickled))
        self.archive = archive

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _PLAIN:
            return _PLAIN[module, name]
        if module == "torch" and name in _STORAGES:
            return _StorageType(_STORAGES[name])
        if module == "torch._utils" and name == "_rebuild_tensor_v2":
            return self.archive.tensor
        return type(name.rpartition(".")[2], (Placeholder,), {"__module__": "placeholder"})

    def persistent_load(self, identifier: Any) -> Any:
        kind, storage_type, key, _, length = identifier
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise pickle.UnpicklingError("unknown kind of stored object")
        return self.archive.storage(storage_type.dtype, key, length)


def _check_instructions(pickled: bytes) -> None:
    """Walk all instructions of a pickle without obeying one; refuse what could harm the reader.

    That is: truncation and false lengths (found by the walk), memo places far beyond what was made
    (the memo is an array), and tuples enough to nest beyond the stack.
    """
    num_tuples = 0
    for instruction, argument, position in pickletools.genops(pickled):
        num_tuples += instruction.name.startswith("TUPLE")
        puts = instruction.name in ("PUT", "BINPUT", "LONG_BINPUT")
        if num_tuples > MOST_TUPLES or (puts and int(argument or 0) > (position or 0)):
            raise pickle.UnpicklingError("its pickle is not one that torch.save writes")


class _Archive:
    """The zip file that `torch.save` writes: one pickle, and a file for each storage."""

    def __init__(self, path: Path) -> None:
        self.zip = zipfile.ZipFile(path)
        names = [name for name in self.zip.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise pickle.UnpicklingError("holds no torch checkpoint")
        if sum(entry.file_size for entry in self.zip.infolist()) > LARGEST_ARCHIVE_BYTES:
            raise pickle.UnpicklingError(f"unpacks to over {LARGEST_ARCHIVE_BYTES} bytes")
        if self.zip.getinfo(names[0]).file_size > LARGEST_PICKLE_BYTES:
            raise pickle.UnpicklingError(f"its pickle is over {LARGEST_PICKLE_BYTES} bytes")
        self.root = names[0].removesuffix("data.pkl")
        self.pickled = self.zip.read(names[0])
        _check_instructions(self.pickled)
        self.bytes_left = LARGEST_ARCHIVE_BYTES

    def storage(self, dtype: type, key: str, length: int) -> np.ndarray:
        entry = self.zip.getinfo(f"{self.root}data/{key}")
        if entry.file_size != length * np.dtype(dtype).itemsize:
            raise pickle.UnpicklingError(f"storage {key} has another size than declared")
        return np.frombuffer(self.zip.read(entry), dtype=dtype)

    def tensor(
        self,
        storage: np.ndarray,
        offset: int,
        shape: tuple[int, ...],
        stride: tuple[int, ...],
        *_: Any,
    ) -> Tensor:
        whole = all(type(number) is int and number >= 0 for number in (offset, *shape, *stride))
        if not isinstance(storage, np.ndarray) or not whole:
            raise pickle.UnpicklingError("a tensor is not described by whole numbers")
        count = math.prod(shape)
        reach = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
        # A tensor larger than what it is made from repeats it (strides of 0): ours never do.
        if count > 0 and (reach >= len(storage) or count > len(storage)):
            raise pickle.UnpicklingError("a tensor reaches beyond its storage")
        part = storage[offset : reach + 1] if count else storage[:0]
        self.bytes_left -= part.nbytes
        if self.bytes_left < 0:
            raise pickle.UnpicklingError(f"its tensors take over {LARGEST_ARCHIVE_BYTES} bytes")
        return torch.from_numpy(part.copy()).as_strided(shape, stride).clone()


def read_pickled_archive(path: Path) -> Any:
    """Read a file made by `torch.save` as tensors, containers and placeholders.

    Raises:
        CheckpointError: one line, whatever is wrong with the file.
    """
    try:
        return _InertUnpickler(_Archive(path)).load()
    except CheckpointError:
        raise
    except Exception as error:
        # Damaged or hostile bytes can raise nearly anything out of an unpickler.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: not a readable checkpoint ({reason})") from error
