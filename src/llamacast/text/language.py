"""A causal language model with the symbols that it writes numbers with; folders of them."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field, replace
from importlib.resources import files
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    Qwen2Config,
    Qwen2Model,
)
from transformers import logging as transformers_logging
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from llamacast.forecast import CheckpointError, DataError, TrainingRecord
from llamacast.text.codec import CodecConfig
from llamacast.text.grammar import Grammar
from llamacast.text.vocabulary import PlacedDigits, Vocabulary, Writing, probe

PACKAGED = ("digits",)
LORA_TARGETS = ("q_proj", "v_proj")
"""Projections that LoRA's matrices stand beside."""
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")
NUM_TRIED = 4
SETTINGS_FILE = "codec.json"
TOKENIZER_FILE = "tokenizer_config.json"
CACHE_ARGUMENT = (
    "cache" if "cache" in signature(Qwen2Model.forward).parameters else "past_key_values"
)
"""How the transformers that is installed calls it."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

PLAIN = CodecConfig(
    base=32,
    precision=0,
    width=2,
    sign="centred",
    value_separator="",
    step_separator="",
    missing="?",
    alpha=1.0,
    size=250,
)
"""How our own decoder writes: two digits, of 32 each, and nothing else, since what a step costs grows with
the square of what is written. The largest of the history is 250 units of the 512 to either side."""
OWN_CODECS = (
    replace(PLAIN, transform="log-difference"),
    replace(PLAIN, transform="difference"),
    replace(PLAIN, transform="none", scaler="middle"),
)
LANGUAGE_CODECS = (CodecConfig(precision=2, sign="none", scaler="offset"),)
"""How a language model writes if nothing else is asked for: `123,45;`, nothing below zero, since
tokenizers put minus signs and separators together."""


@dataclass(frozen=True)
class Settings:
    """What stands beside the weights."""

    codecs: tuple[CodecConfig, ...]
    """Ways of writing; all have one grammar."""
    longest: int
    """Most tokens of a prompt and what is written after it."""
    record: TrainingRecord = field(default_factory=TrainingRecord)
    prefers: Literal["likeliest", "first"] = "likeliest"
    """Which of the codecs writes a series: the one under which its history's end is likeliest, or the
    first that can."""

    def __post_init__(self) -> None:
        spellings = {replace(one, **NOT_SPELLING) for one in self.codecs}
        if len(spellings) != 1:
            raise ValueError("codecs may differ in transform and scaler only")


NOT_SPELLING: dict[str, Any] = {
    "transform": "none",
    "scaler": "basic",
    "alpha": 1.0,
    "beta": 0.3,
    "size": 1.0,
}


class Language:
    """A model, its settings, and the tokenizer that text before a series is read with, if any."""

    def __init__(
        self, model: PreTrainedModel, settings: Settings, tokenizer: Any = None, name: str = "text"
    ) -> None:
        self.model, self.settings, self.tokenizer, self.name = model, settings, tokenizer, name
        codec = settings.codecs[0]
        self.vocabulary: Vocabulary
        if tokenizer is not None:
            self.vocabulary = probe(tokenizer, codec)
        else:
            own = PlacedDigits(codec.base, codec.width or 0)
            bare = codec.sign in ("none", "centred") and not (
                codec.point or codec.value_separator or codec.step_separator
            )
            if not bare or own.size != model.config.vocab_size:
                raise DataError(
                    f"{name} writes numbers in a way of its own; leave codec out, or take a language model"
                )
            self.vocabulary = own
        self._writings: dict[int, Writing] = {}

    @property
    def device(self) -> torch.device:
        return self.model.device

    def writing(self, num_channels: int) -> Writing:
        """The grammar of so many channels, in this model's tokens."""
        if num_channels not in self._writings:
            grammar = Grammar(self.settings.codecs[0], num_channels)
            self._writings[num_channels] = Writing(grammar, self.vocabulary)
        return self._writings[num_channels]

    def read_text(self, text: str) -> list[int]:
        """Tokens of text that stands before a series.

        Raises:
            DataError: if the model knows digits only.
        """
        if not text:
            return []
        if self.tokenizer is None:
            raise DataError(
                f"{self.name} reads digits only; text before a series needs a language model, such as "
                "a folder of Qwen2.5"
            )
        found: list[int] = self.tokenizer(text.rstrip() + "\n", add_special_tokens=False)[
            "input_ids"
        ]
        return found

    def hidden(
        self,
        ids: Int[Tensor, "row token"],
        observed: Int[Tensor, "row past"] | None = None,
        positions: Int[Tensor, "row token"] | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "row token width"]:
        """The last hidden vectors. `observed` has a 0 where a token, of the cache or of these, is none."""
        model: Any = self.model
        found = model.base_model(
            input_ids=ids,
            attention_mask=observed,
            position_ids=positions,
            use_cache=cache is not None,
            **{CACHE_ARGUMENT: cache},
        )
        return found.last_hidden_state

    def digest(self) -> str:
        """A short text that tells weights and settings from others."""
        found = hashlib.blake2b(repr(self.settings).encode(), digest_size=6)
        for weight in self.model.state_dict().values():
            found.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()

    def save(self, directory: Path, dtype: torch.dtype | None = None) -> None:
        """Write a folder that `load_language` reads."""
        _hush()
        directory.mkdir(parents=True, exist_ok=True)
        model = self.model
        state = {
            name: weight.to(dtype or weight.dtype) for name, weight in model.state_dict().items()
        }
        model.save_pretrained(directory, state_dict=state)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(directory)
        save_settings(self.settings, directory)


def head_logits(
    model: Any, hidden: Float[Tensor, "... width"], ids: Int[Tensor, " column"]
) -> Float[Tensor, "... column"]:
    """Logits of the tokens that may be written, and of no other: a numeric-only vocabulary."""
    head = model.get_output_embeddings()
    bias = None if head.bias is None else head.bias[ids]
    return functional.linear(hidden, head.weight[ids], bias).float()


def make_decoder(
    width: int = 128, num_layers: int = 6, num_heads: int = 2, num_key_value_heads: int = 2
) -> PreTrainedModel:
    """A small decoder of Qwen2's architecture with our own digits for a vocabulary; random weights."""
    vocabulary = PlacedDigits(PLAIN.base, PLAIN.width or 0)
    config = Qwen2Config(
        vocab_size=vocabulary.size,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_key_value_heads,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def load_language(
    path: str | Path = "digits",
    device: str = "auto",
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    codec: CodecConfig | None = None,
) -> Language:
    """A packaged decoder, a folder that was saved, a folder of Hugging Face's, or a name on its hub.

    Raises:
        CheckpointError: there is no such model, or it is damaged.
        DataError: its tokenizer cuts numbers in a way that no grammar can follow.
    """
    if dtype not in DTYPES:
        raise DataError(f"dtype must be one of {', '.join(DTYPES)}; got {dtype!r}")
    folder = Path(str(files("llamacast") / "weights" / path)) if path in PACKAGED else Path(path)
    source = str(folder) if folder.is_dir() else str(path)
    if not folder.is_dir() and not HUB_NAME.fullmatch(source):
        raise CheckpointError(
            f"no language model {source!r}: neither packaged ({', '.join(PACKAGED)}), nor a folder, nor a "
            "name on Hugging Face's hub such as Qwen/Qwen2.5-0.5B"
        )
    settings = read_settings(folder)
    if settings is None:
        settings = Settings((codec,) if codec else LANGUAGE_CODECS, longest=4096)
    elif codec is not None:
        settings = replace(settings, codecs=(codec,))
    own = (folder / SETTINGS_FILE).exists() and not (folder / TOKENIZER_FILE).exists()
    _hush()
    try:
        model = AutoModelForCausalLM.from_pretrained(source, dtype=DTYPES[dtype])
        tokenizer = None if own else AutoTokenizer.from_pretrained(source)
    except Exception as error:
        # The hub, its cache, two formats of weights and of tokenizers fail in types of their own.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{path}: cannot be read as a language model, which is a folder with config.json, weights and "
            f"a tokenizer, or a name on Hugging Face's hub ({reason})"
        ) from error
    chosen = _device(device)
    limit = getattr(model.config, "max_position_embeddings", settings.longest)
    settings = replace(settings, longest=min(settings.longest, limit))
    model.to(chosen)
    found = Language(model.eval(), settings, tokenizer, folder.name)
    _check_head(found)
    return found


@torch.inference_mode()
def _check_head(language: Language) -> None:
    """Some models alter logits after the head (caps, scales), which `head_logits` does not."""
    ids = torch.from_numpy(language.writing(1).ids)[:NUM_TRIED].to(language.device)
    own = head_logits(language.model, language.hidden(ids[None]), ids)
    theirs = language.model(input_ids=ids[None]).logits[..., ids].float()
    # Half precision rounds products of many terms in one order or another.
    if (own - theirs).abs().max() > 0.02 * (1 + theirs.abs().max()):
        raise DataError(
            f"{language.name} alters what its head says (a cap or a scale of logits), which is not "
            "supported; take a model of Qwen2's or Llama's class"
        )


def read_settings(folder: Path) -> Settings | None:
    """What stands beside the weights in a folder of ours; None if it is none."""
    file = folder / SETTINGS_FILE
    if not file.exists():
        return None
    try:
        told = json.loads(file.read_text())
        record = TrainingRecord(
            tuple(told["datasets"]), told["until"], dict(told.get("licences", {}))
        )
        codecs = tuple(CodecConfig(**one) for one in told["codecs"])
        return Settings(codecs, int(told["longest"]), record, told.get("prefers", "likeliest"))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file} is damaged ({error})") from error


def save_settings(settings: Settings, folder: Path) -> None:
    told = {
        "codecs": [asdict(codec) for codec in settings.codecs],
        "longest": settings.longest,
        "prefers": settings.prefers,
        **asdict(settings.record),
    }
    (folder / SETTINGS_FILE).write_text(json.dumps(told, indent=1) + "\n")


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer with room for what will follow, so that nothing is copied again."""

    def __init__(self, keys: Tensor, values: Tensor, times: int, room: int) -> None:
        super().__init__()
        self.dtype, self.device = keys.dtype, keys.device
        self.buffers = [_with_room(one, times, room) for one in (keys, values)]
        self.length = keys.shape[-2]
        self.keys, self.values = (one[..., : self.length, :] for one in self.buffers)
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        end = self.length + key_states.shape[-2]
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[..., self.length : end, :] = states
        self.length = end
        self.keys, self.values = (one[..., :end, :] for one in self.buffers)
        return self.keys, self.values


def _with_room(one: Tensor, times: int, room: int) -> Tensor:
    rows, heads, length, width = one.shape
    found = one.new_empty((rows * times, heads, length + room, width))
    found[..., :length, :] = one.repeat_interleave(times, dim=0)
    return found


def replicate(cache: Cache, times: int, room: int) -> Cache:
    """What was read once, for several rows each, with room for so many more tokens."""
    layers: list[Any] = list(cache.layers)
    return Cache([RoomyLayer(one.keys, one.values, times, room) for one in layers])


def empty_cache(model: PreTrainedModel) -> Cache:
    return DynamicCache(config=model.config)


def _hush() -> None:
    """Neither bars nor remarks beside ours."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise DataError(f"there is no device {name!r} here; use auto, cpu or cuda") from error
    return torch.device(name)
