"""What a decoder learns: the next symbol of numbers, among those that may be written."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from llamacast.text.language import head_logits
from llamacast.text.vocabulary import Integers
from llamacast.text.windows import NOT_LEARNT
from llamacast.training.loop import Batch


class NextSymbol(nn.Module):
    """Sum of cross entropies, in nats. Where only a part of the weights learns, only that part is kept
    in checkpoints and averaged; the rest is one and the same tensor for all copies."""

    model: PreTrainedModel
    ids: Tensor

    def __init__(self, model: PreTrainedModel, ids: Integers) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("ids", torch.from_numpy(ids.copy()), persistent=False)

    def forward(self, batch: Batch) -> Float[Tensor, ""]:
        told = self.model.base_model(input_ids=batch["ids"][:, :-1], use_cache=False)
        logits = head_logits(self.model, told.last_hidden_state, self.ids)
        wanted = batch["columns"][:, 1:]
        return functional.cross_entropy(
            logits.flatten(0, 1), wanted.flatten(), ignore_index=NOT_LEARNT, reduction="sum"
        )

    @property
    def learnt(self) -> frozenset[str]:
        """Names of what learns, as it was when first asked: copies are frozen as a whole."""
        if not hasattr(self, "_learnt"):
            self._learnt = frozenset(
                name for name, weight in self.named_parameters() if weight.requires_grad
            )
        return self._learnt

    def state_dict(self, *args: Any, **options: Any) -> Any:
        own = super().state_dict(*args, **options)
        prefix = options.get("prefix", "")
        return {name: own[name] for name in own if name.removeprefix(prefix) in self.learnt}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        if set(state_dict) != self.learnt:
            raise RuntimeError("other weights learn than in the checkpoint")
        return super().load_state_dict(state_dict, strict=False, assign=assign)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        learnt = self.learnt
        for name, weight in self.named_parameters():
            if name not in learnt:
                memo[id(weight)] = weight
        found = type(self).__new__(type(self))
        memo[id(self)] = found
        nn.Module.__init__(found)
        for name, value in self.__dict__.items():
            found.__dict__[name] = deepcopy(value, memo)
        return found
