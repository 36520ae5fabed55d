"""LoRA by PEFT: two thin matrices beside each query and value projection (arXiv 2106.09685)."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.utils import set_peft_model_state_dict
from safetensors.torch import load_file, save_file

from llamacast.forecast import CheckpointError
from llamacast.model import checkpoint
from llamacast.model.checkpoint import Network

# Matrices of each block that others stand beside.
ADAPTED = ["query", "value"]
WEIGHTS_FILE, CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"
# In PEFT's file, where the digest of the network that an adapter belongs to is kept.
DIGEST_KEY, BASE_KEY = "base_digest", "base_model_name_or_path"
CONTEXT_KEY = "context_length"


def inject(network: Network, rank: int) -> None:
    """Freeze a network and put adapters into it, which change nothing yet."""
    network.requires_grad_(False)
    inject_adapter_in_model(_config(rank), network)


def _config(rank: int) -> LoraConfig:
    return LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=ADAPTED)


def merged(network: Network) -> Network:
    """A copy in which adapters are added to the matrices they stand beside."""
    plain = deepcopy(network)
    for module in list(plain.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, LoraLayer):
                child.merge()
                setattr(module, name, child.get_base_layer())
    return plain.requires_grad_(True)


def save_adapter(network: Network, base: Network, directory: Path, share: float = 1.0) -> None:
    """Write the adapters alone as PEFT does, a few hundred kilobytes, with a share of their effect.

    `base` is the network that they will be put into.
    """
    directory.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(network)
    rank = next(weight.shape[0] for name, weight in state.items() if "lora_A" in name)
    scaled = {
        name: (weight * share if "lora_B" in name else weight).contiguous()
        for name, weight in state.items()
    }
    save_file(scaled, directory / WEIGHTS_FILE)
    _config(rank).save_pretrained(str(directory))
    told = json.loads((directory / CONFIG_FILE).read_text())
    told[DIGEST_KEY] = checkpoint.digest(base)
    told[CONTEXT_KEY] = network.config.context_length
    (directory / CONFIG_FILE).write_text(json.dumps(told, indent=2, sort_keys=True) + "\n")


def name_base(directory: Path, base: str) -> None:
    """Say in a folder of adapters which model they belong to."""
    told = json.loads((directory / CONFIG_FILE).read_text())
    told[BASE_KEY] = base
    (directory / CONFIG_FILE).write_text(json.dumps(told, indent=2, sort_keys=True) + "\n")


def read_into(network: Network, directory: Path) -> Network:
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
