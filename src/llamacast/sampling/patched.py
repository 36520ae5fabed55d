"""Series as Cria looks at them: standardised, in whole patches, with what lies beside them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from llamacast.model.cria import Cria, PatchWindow
from llamacast.model.patches import to_patches
from llamacast.model.scaling import find_strays, standardise


@dataclass(frozen=True)
class Look:
    """A window on the network's device, and what turns its numbers back, on the CPU."""

    window: PatchWindow
    num_tokens: Int[Tensor, " series"]
    """Patches of each history."""
    location: Float[Tensor, "series 1"]
    scale: Float[Tensor, "series 1"]
    strays: Bool[Tensor, "series history"]
    """Values that were taken as missing."""

    def in_units(
        self, standardised: Float[Tensor, "series *rest"]
    ) -> Float[Tensor, "series *rest"]:
        """Standardised numbers in the units of the data."""
        shape = (-1, *(1,) * (standardised.dim() - 1))
        return standardised * self.scale.view(shape) + self.location.view(shape)


def look(
    model: Cria,
    values: Float[Tensor, "series history"],
    observed: Bool[Tensor, "series history"],
    seasons: Int[Tensor, "series season"],
    num_future: int = 0,
    covariates: Float[Tensor, "series longer covariate"] | None = None,
) -> Look:
    """Histories (float64, on the CPU, ending with their last step) without their strays, and `num_future`
    patches of nothing observed; `covariates` of the histories and of what comes after them."""
    device, length = model.levels.device, model.config.patch_length
    strays = find_strays(values, observed)
    observed = observed & ~strays
    standardised, location, scale = standardise(values, observed)
    patched, seen, num_tokens = to_patches(standardised, observed, length, num_future)
    beside = None
    if covariates is not None:
        beside = _beside(covariates, num_tokens, values, patched, length).to(device)
    window = model.window(patched.to(device), seen.to(device), seasons.to(device), beside)
    return Look(window, num_tokens, location, scale, strays)


def _beside(
    covariates: Float[Tensor, "series longer covariate"],
    num_tokens: Int[Tensor, " series"],
    values: Float[Tensor, "series history"],
    patched: Float[Tensor, "series patched"],
    length: int,
) -> Float[Tensor, "series patched_and_more covariate"]:
    """Covariates moved as `to_patches` has moved values, up to a patch after these; 0 where none are."""
    steps = torch.arange(patched.shape[1] + length, device=covariates.device)
    source = steps + values.shape[1] - num_tokens[:, None] * length
    within = (source >= 0) & (source < covariates.shape[1])
    source = source.clamp(0, covariates.shape[1] - 1)
    rows = torch.arange(len(covariates), device=covariates.device)[:, None]
    return (covariates[rows, source] * within.unsqueeze(2)).float()
