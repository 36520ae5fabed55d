import json
from pathlib import Path

import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from llamacast.text.language import LANGUAGE_CODECS, OWN_CODECS, Language, Settings, make_decoder

# Of Qwen2.5's vocabulary, the tokens of single bytes and of what is written with digits, separators and
# "NaN"; with the merges among them and its rule of cutting (Apache-2.0).
QWEN_NUMBERS = Path(__file__).parent / "qwen2_5_numbers.json"
QWEN_CUTS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)


def tokenizer_of(vocabulary, merges, cuts):
    found = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    found.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(cuts), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=found)


@pytest.fixture(scope="session")
def qwen():
    told = json.loads(QWEN_NUMBERS.read_text())
    merges = [tuple(merge.split(" ")) for merge in told["merges"]]
    return tokenizer_of(told["vocab"], merges, QWEN_CUTS)


@pytest.fixture(scope="session")
def decoder():
    """Our own decoder's class with random weights, small."""
    torch.manual_seed(0)
    model = make_decoder(width=32, num_layers=2, num_heads=2, num_key_value_heads=1)
    return Language(_sharp(model).eval(), Settings(OWN_CODECS, 200), name="small")


@pytest.fixture(scope="session")
def reader(qwen):
    """A small model of Qwen2.5's class with random weights, that reads text."""
    torch.manual_seed(1)
    config = Qwen2Config(
        vocab_size=30000,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    model = Qwen2ForCausalLM(config)
    return Language(_sharp(model).eval(), Settings(LANGUAGE_CODECS, 400), qwen, "reader")


def _sharp(model):
    """With logits that tell symbols apart, so that a wrong one would be seen."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.mul_(6.0)
    return model
