"""LoRA by PEFT: two thin matrices beside chosen projections (arXiv 2106.09685)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.utils import set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import nn

from llamacast.forecast import CheckpointError
from llamacast.model import checkpoint
from llamacast.model.checkpoint import Network

# Matrices of each block of our own networks that others stand beside.
ADAPTED = ("query", "value")
WEIGHTS_FILE, CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"
# In PEFT's file, where the digest of the network that an adapter belongs to is kept.
DIGEST_KEY, BASE_KEY = "base_digest", "base_model_name_or_path"
CONTEXT_KEY = "context_length"

Module = TypeVar("Module", bound=nn.Module)


def inject(network: nn.Module, rank: int, targets: Sequence[str] = ADAPTED) -> None:
    """Freeze a network and put adapters into it, which change nothing yet."""
    network.requires_grad_(False)
    inject_adapter_in_model(_config(rank, targets), network)


def _config(rank: int, targets: Sequence[str]) -> LoraConfig:
    return LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=list(targets))


def merge(network: nn.Module) -> None:
    """Add adapters to the matrices they stand beside, and take them away."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, LoraLayer):
                child.merge()
                setattr(module, name, child.get_base_layer())
    network.requires_grad_(True)


def merged(network: Module) -> Module:
    """A copy in which that is done."""
    plain = deepcopy(network)
    merge(plain)
    return plain


def write_adapter(
    network: nn.Module,
    directory: Path,
    told: Mapping[str, Any],
    share: float = 1.0,
    targets: Sequence[str] = ADAPTED,
) -> None:
    """Write the adapters alone as PEFT does, a few hundred kilobytes, with a share of their effect.

    `told` goes into PEFT's file.
    """
    directory.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(network)
    rank = next(weight.shape[0] for name, weight in state.items() if "lora_A" in name)
    scaled = {
        name: (weight * share if "lora_B" in name else weight).contiguous()
        for name, weight in state.items()
    }
    save_file(scaled, directory / WEIGHTS_FILE)
    _config(rank, targets).save_pretrained(str(directory))
    told = json.loads((directory / CONFIG_FILE).read_text()) | dict(told)
    (directory / CONFIG_FILE).write_text(json.dumps(told, indent=2, sort_keys=True) + "\n")


def save_adapter(network: Network, base: Network, directory: Path, share: float = 1.0) -> None:
    """Write the adapters of one of our own networks; `base` is the network that they will be put into."""
    told = {
        DIGEST_KEY: checkpoint.digest(base),
        CONTEXT_KEY: network.config.context_length,
    }
    write_adapter(network, directory, told, share)


def name_base(directory: Path, base: str) -> None:
    """Say in a folder of adapters which model they belong to."""
    told = json.loads((directory / CONFIG_FILE).read_text())
    told[BASE_KEY] = base
    (directory / CONFIG_FILE).write_text(json.dumps(told, indent=2, sort_keys=True) + "\n")


def read_into(network: Module, directory: Path) -> Module:
    """Put the adapters of a folder into a network that has places for them."""
    with torch.no_grad():
        set_peft_model_state_dict(network, load_file(directory / WEIGHTS_FILE))
    return network


def with_adapter(base: Network, directory: Path) -> Network:
    """A network with the adapters of a folder added to its matrices.

    Raises:
        CheckpointError: if the folder is damaged, or its adapters are of another network.
    """
    try:
        told = json.loads((directory / CONFIG_FILE).read_text())
        rank, digest = int(told["r"]), told[DIGEST_KEY]
        context_length = int(told[CONTEXT_KEY])
        load_file(directory / WEIGHTS_FILE)
    except Exception as error:
        # Two formats fail in types of their own; each means that the folder is not whole.
        raise CheckpointError(f"{directory}: cannot be read as an adapter ({error})") from error
    if digest != checkpoint.digest(base):
        raise CheckpointError(
            f"{directory}: this adapter was learnt on other weights; load those it belongs to"
        )
    network = deepcopy(base)
    network.config = replace(network.config, context_length=context_length)
    inject(network, rank)
    return merged(read_into(network, directory)).eval()
