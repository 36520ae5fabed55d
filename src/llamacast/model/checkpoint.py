"""Networks on disk: safetensors beside a `config.json` that is checked field by field."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from llamacast.forecast import CheckpointError, TrainingRecord
from llamacast.model.config import ARCHITECTURES, CriaConfig, NetworkConfig
from llamacast.model.cria import Cria
from llamacast.model.lag_llama import LagLlama
from llamacast.model.patches import feature_widths

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
TRAINING_FILE = "training.json"
# What configurations written before it was thought of do not name, and then have none of.
LATER_FIELDS: dict[str, Any] = {
    "num_told_seasons": 0,
    "tells_spreads": False,
    "num_covariates": 0,
}
# Inputs that networks may have more or less of and still be averaged, or trained on: the most is taken.
INPUT_FIELDS = (*LATER_FIELDS, "num_seasons")
Network = LagLlama | Cria


def make_network(config: NetworkConfig) -> Network:
    """A network of its kind, its weights not drawn yet."""
    return Cria(config) if isinstance(config, CriaConfig) else LagLlama(config)


def save(model: Network, directory: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write weights (as `dtype`) and configuration; the configuration last, once all is there."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = {
        name: weight.detach().to("cpu", dtype).contiguous()
        for name, weight in model.state_dict().items()
    }
    unfinished = directory / f"{WEIGHTS_FILE}.new"
    save_file(weights, unfinished)
    os.replace(unfinished, directory / WEIGHTS_FILE)
    architecture = "cria" if isinstance(model, Cria) else "lag-llama"
    config = {"architecture": architecture, **dataclasses.asdict(model.config)}
    write_json(config, directory / CONFIG_FILE)


def load(directory: Path) -> Network:
    """Read a network in float32, in evaluation mode.

    Raises:
        CheckpointError: if a file is missing, unreadable, or does not say what it must.
    """
    config = read_config(directory / CONFIG_FILE)
    path = directory / WEIGHTS_FILE
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read as safetensors ({error})") from error
    return build(config, weights, str(path))


def digest(model: Network) -> str:
    """A short text that tells a network, its weights and its configuration, from any other."""
    told = repr(model.config)
    for name, none in LATER_FIELDS.items():
        told = told.replace(f", {name}={none}", "")
    found = hashlib.blake2b(told.encode(), digest_size=8)
    for name, weight in sorted(model.state_dict().items()):
        found.update(name.encode() + weight.detach().float().cpu().numpy().tobytes())
    return found.hexdigest()


def widened(network: Network, config: NetworkConfig) -> Network:
    """The network with the further inputs of `config`, whose weights are nothing yet: what it says
    stays the same, but where more past seasons are averaged."""
    found = make_network(config).to(next(network.parameters()).device)
    own = network.state_dict()
    before, after = _widths_of_inputs(network.config), _widths_of_inputs(config)
    for name, weight in found.state_dict().items():
        if name not in own:
            own[name] = torch.zeros_like(weight)
        elif name.startswith("transformer.embed.") and weight.shape != own[name].shape:
            # Of what every network is told, Lag-Llama's width is not named.
            every = own[name].shape[1] - sum(before)
            parts = own[name].split([every, *before], dim=1)
            more = [0, *(wide - narrow for wide, narrow in zip(after, before, strict=True))]
            own[name] = torch.cat(
                [functional.pad(part, (0, n)) for part, n in zip(parts, more, strict=True)], dim=1
            )
    found.load_state_dict(own)
    return found.eval()


def deepened(
    network: Network, num_layers: int, generator: torch.Generator | None = None
) -> Network:
    """The network with so many blocks, of which the further ones come last and add nothing yet, since
    their outputs are 0: what it says stays the same. The rest of their weights is drawn."""
    found = make_network(dataclasses.replace(network.config, num_layers=num_layers))
    found.initialise(generator)
    own = network.state_dict()
    with torch.no_grad():
        for name, weight in found.state_dict().items():
            if name in own:
                weight.copy_(own[name])
            elif name.endswith(("output.weight", "down.weight")):
                weight.zero_()
    return found.to(next(network.parameters()).device).eval()


def shrunk(network: Network, share: float, generator: torch.Generator | None = None) -> Network:
    """The network with `share` of each matrix and the rest of newly drawn ones: where to train on from,
    once more steps from where it is change little (shrink and perturb; Ash and Adams 2020, arXiv
    1910.08475). Vectors, such as the weights of norms, stay.

    Raises:
        CheckpointError: if `share` is not within 0 and 1.
    """
    if not 0 <= share <= 1:
        raise CheckpointError(f"share must be within 0 and 1; got {share}")
    found = make_network(network.config)
    found.initialise(generator)
    own = network.state_dict()
    with torch.no_grad():
        for name, weight in found.state_dict().items():
            kept = own[name].to(weight)
            weight.copy_(torch.lerp(weight, kept, share) if weight.dim() > 1 else kept)
    return found.to(next(network.parameters()).device).eval()


def with_inputs_of(config: NetworkConfig, others: Sequence[NetworkConfig]) -> NetworkConfig:
    """The configuration with all inputs that it or one of the others has: further ones, and the most
    past seasons."""
    every = [config, *others]
    shared = [name for name in INPUT_FIELDS if all(hasattr(one, name) for one in every)]
    inputs = {name: max(getattr(one, name) for one in every) for name in shared}
    return dataclasses.replace(config, **inputs)


def _widths_of_inputs(config: NetworkConfig) -> tuple[int, ...]:
    """Of those that only some networks have, in the order in which tokens hold them."""
    if isinstance(config, CriaConfig):
        return feature_widths(config)[1:]
    return (config.num_covariates,)


def average(networks: Sequence[Network], shares: Sequence[float]) -> Network:
    """The network whose weights are means of others', each in its share. Inputs that some do not
    know weigh nothing there (see `widened`); it averages the most past seasons that one of them does.

    Raises:
        CheckpointError: if they are otherwise not of one configuration, or shares are not above 0.
    """
    configs = [one.config for one in networks]
    networks = [widened(one, with_inputs_of(one.config, configs)) for one in networks]
    mean = networks[0]
    if any(one.config != mean.config for one in networks):
        raise CheckpointError("only networks of one configuration can be averaged")
    if min(shares) <= 0:
        raise CheckpointError(f"shares must be above 0; got {min(shares)}")
    parts = [one.state_dict() for one in networks]
    mean.load_state_dict(
        {
            name: sum(
                part[name].double() * (share / sum(shares))
                for part, share in zip(parts, shares, strict=True)
            )
            for name in parts[0]
        }
    )
    return mean


def save_training(record: TrainingRecord, directory: Path) -> None:
    """Write what the weights in `directory` have learnt from."""
    fields = dataclasses.asdict(record)
    write_json(fields, directory / TRAINING_FILE)


def write_json(fields: dict[str, Any], path: Path) -> None:
    """Write a file that is whole or as it was, also if the disk is full."""
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.write_text(json.dumps(fields, indent=2) + "\n")
    os.replace(unfinished, path)


def load_training(directory: Path) -> TrainingRecord:
    """What the weights in `directory` have learnt from; nothing, where there is no such file.

    Raises:
        CheckpointError: if the file is damaged.
    """
    path = directory / TRAINING_FILE
    if not path.exists():
        return TrainingRecord()
    fields = _read_object(path)
    datasets, until = fields.get("datasets"), fields.get("until")
    licences = fields.get("licences", {})
    listed = isinstance(datasets, list) and isinstance(licences, dict)
    known = fields.keys() <= {"datasets", "until", "licences"}
    if not listed or not known or not _all_texts([*datasets, until, *licences.values()]):
        raise CheckpointError(
            f"{path}: must hold datasets, a list of names, until, a text, and may hold licences, "
            "texts by name"
        )
    return TrainingRecord(tuple(datasets), until, licences)


def _all_texts(members: list[Any]) -> bool:
    return all(isinstance(member, str) for member in members)


def _read_object(path: Path) -> Any:
    try:
        fields = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(fields, dict):
        raise CheckpointError(f"{path}: must hold one JSON object")
    return fields


def read_config(path: Path) -> NetworkConfig:
    """Read a configuration field by field; nothing named in the file is imported or called."""
    fields = _read_object(path)
    architecture = fields.pop("architecture", None)
    kind = ARCHITECTURES.get(architecture) if isinstance(architecture, str) else None
    if kind is None:
        kinds = ", ".join(map(repr, ARCHITECTURES))
        raise CheckpointError(f"{path}: architecture is {architecture!r}, none of {kinds}")
    known = {field.name for field in dataclasses.fields(kind)}
    none = {name: one for name, one in LATER_FIELDS.items() if name in known}
    fields = {**none, **fields}
    if fields.keys() != known:
        odd = ", ".join(sorted(fields.keys() ^ known))
        raise CheckpointError(f"{path}: fields missing or unknown: {odd}")
    fields = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }
    try:
        return kind(**fields)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def build(config: NetworkConfig, weights: Mapping[str, Tensor], source: str) -> Network:
    """Make a network of exactly these weights."""
    with torch.device("meta"):
        model = make_network(config)
    expected = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    for name in sorted(expected.keys() | weights.keys()):
        found = tuple(weights[name].shape) if name in weights else "nothing"
        wanted = expected.get(name, "nothing")
        if found != wanted:
            raise CheckpointError(f"{source}: weight {name} is {found}, the config wants {wanted}")
        if not weights[name].isfinite().all():
            raise CheckpointError(f"{source}: weight {name} is not finite")
    # Copies lie where torch aligns them: matrix products round by alignment, and a file's does vary.
    copies = {name: weights[name].to(torch.float32, copy=True) for name in expected}
    model.load_state_dict(copies, assign=True)
    return model.eval()
