import json

import numpy as np
import pytest
import torch

from llamacast.forecast import CheckpointError, DataError
from llamacast.text.codec import CodecConfig
from llamacast.text.language import (
    OWN_CODECS,
    PLAIN,
    Language,
    Settings,
    empty_cache,
    head_logits,
    load_language,
    make_decoder,
    read_settings,
    replicate,
)


def ids_of(language, count, seed=0):
    found = language.writing(2).ids
    return torch.from_numpy(np.random.default_rng(seed).choice(found, (3, count)))


@pytest.mark.parametrize("which", ["decoder", "reader"])
def test_cached_is_uncached(which, request):
    language = request.getfixturevalue(which)
    ids = ids_of(language, 12)
    with torch.inference_mode():
        whole = language.hidden(ids)
        cache = empty_cache(language.model)
        parts = [language.hidden(ids[:, :7], cache=cache)]
        cache = replicate(cache, 1, 5)
        for step in range(7, 12):
            positions = torch.full((3, 1), step)
            parts.append(language.hidden(ids[:, step : step + 1], None, positions, cache))
    assert torch.allclose(torch.cat(parts, dim=1), whole, atol=1e-5)


def test_rows_of_one_prompt_share_what_was_read_once(decoder):
    ids = ids_of(decoder, 8)[:1]
    ends = ids_of(decoder, 3, seed=1)
    with torch.inference_mode():
        cache = empty_cache(decoder.model)
        decoder.hidden(ids, cache=cache)
        cache = replicate(cache, 3, 3)
        positions = torch.arange(8, 11).expand(3, 3)
        shared = decoder.hidden(ends, None, positions, cache)
        apart = decoder.hidden(torch.cat([ids.expand(3, -1), ends], dim=1))[:, 8:]
    assert torch.allclose(shared, apart, atol=1e-5)


def test_numeric_logits_are_those_of_the_whole_vocabulary(reader):
    ids = ids_of(reader, 6)
    numeric = torch.from_numpy(reader.writing(2).ids)
    with torch.inference_mode():
        own = head_logits(reader.model, reader.hidden(ids), numeric)
        whole = reader.model(input_ids=ids).logits[..., numeric]
    assert torch.allclose(own, whole, atol=1e-5)


def test_saved_is_loaded(decoder, reader, tmp_path):
    for language in (decoder, reader):
        folder = tmp_path / language.name
        language.save(folder)
        back = load_language(str(folder))
        assert back.settings == language.settings
        assert back.digest() == language.digest()
        assert (back.tokenizer is None) == (language.tokenizer is None)
        assert (back.writing(2).ids == language.writing(2).ids).all()


def test_a_folder_of_hugging_faces_is_read_with_digits_and_separators(reader, tmp_path):
    reader.model.save_pretrained(tmp_path)
    reader.tokenizer.save_pretrained(tmp_path)
    found = load_language(str(tmp_path))
    assert found.settings.codecs[0].step_separator == ";"
    asked = load_language(str(tmp_path), codec=CodecConfig(precision=3, point=True, sign="none"))
    assert "." in asked.writing(1).grammar.symbols


def test_what_is_no_model_is_told_in_one_line(decoder, tmp_path):
    for name in ("nothing", "./nobody/nothing", "/nobody/nothing"):
        with pytest.raises(CheckpointError, match=r"no language model.*digits.*hub"):
            load_language(name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="cannot be read as a language model"):
        load_language(str(tmp_path / "empty"))
    decoder.save(tmp_path)
    with pytest.raises(DataError, match="no device 'nowhere'"):
        load_language(str(tmp_path), device="nowhere")
    (tmp_path / "codec.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"codec\.json is damaged"):
        load_language(str(tmp_path))


def test_settings_keep_what_they_were_trained_on(decoder, tmp_path):
    decoder.save(tmp_path)
    told = json.loads((tmp_path / "codec.json").read_text())
    assert [one["transform"] for one in told["codecs"]] == ["log-difference", "difference", "none"]
    assert read_settings(tmp_path) == decoder.settings


def test_ways_of_writing_of_one_model_are_spelled_alike():
    with pytest.raises(ValueError, match="may differ"):
        Settings((PLAIN, CodecConfig()), 100)


def test_text_before_a_series_needs_a_model_that_reads_it(decoder, reader):
    assert decoder.read_text("") == []
    with pytest.raises(DataError, match="reads digits only"):
        decoder.read_text("a holiday follows")
    assert reader.read_text("12;") == reader.tokenizer("12;\n")["input_ids"]


def test_models_that_alter_logits_are_refused(qwen, tmp_path):
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        vocab_size=30000,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        final_logit_softcapping=0.5,
    )
    torch.manual_seed(0)
    model = Gemma2ForCausalLM(config)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(20.0)
    model.save_pretrained(tmp_path)
    qwen.save_pretrained(tmp_path)
    with pytest.raises(DataError, match="alters what its head says"):
        load_language(str(tmp_path))


def test_the_packaged_decoder_writes_its_own_way(decoder, tmp_path):
    decoder.save(tmp_path)
    for codec in (CodecConfig(), CodecConfig(base=10, width=3, sign="centred", precision=0)):
        with pytest.raises(DataError, match="writes numbers in a way of its own"):
            load_language(str(tmp_path), codec=codec)


def test_the_packaged_shape_is_small():
    model = make_decoder()
    assert sum(one.numel() for one in model.parameters()) < 2_000_000
    language = Language(model, Settings(OWN_CODECS, 704))
    assert len(language.writing(3).ids) == 128
