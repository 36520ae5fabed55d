"""What a language model of true size takes: Qwen2.5-0.5B's shape with random weights.

    OMP_NUM_THREADS=1 python benchmarks/text_size.py FOLDER_OF_QWENS_TOKENIZER

Speed and memory do not depend on what weights have learnt. Reads a prompt of 80 steps of two channels,
writes some of it on, takes a step of LoRA on 512 tokens, and counts what torch counts. Writes
`results/text_size.md`.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np
import torch
from machine import publish
from transformers import AutoModelForCausalLM, AutoTokenizer

from llamacast.text.codec import CodecConfig
from llamacast.text.flops import QWEN2_5_05B, config_of, forward, generation, measure, training_step
from llamacast.text.generation import Draws, draw
from llamacast.text.language import LORA_TARGETS, Language, Settings
from llamacast.text.objective import NextSymbol
from llamacast.text.windows import batch_of, tokens_of
from llamacast.training.lora import inject

RESULTS = Path(__file__).parent / "results"
PUBLISHED = CodecConfig(precision=3, point=True, sign="none", scaler="none", most_digits=5)


def peak() -> float:
    """GiB, of the whole process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--steps-written", type=int, default=2)
    arguments = parser.parse_args()
    shape = QWEN2_5_05B
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config_of(shape)).eval()
    tokenizer = AutoTokenizer.from_pretrained(str(arguments.tokenizer))
    language = Language(model, Settings((PUBLISHED,), 4096), tokenizer, "qwen")
    weights = sum(one.numel() for one in model.parameters())
    lines = [
        "# A language model of true size",
        "",
        f"Qwen2.5-0.5B's shape, random weights ({weights:,}), float32, {torch.get_num_threads()} thread(s).",
        "",
        "| what | tokens | seconds | tokens a second | peak memory, GiB |",
        "|---|---|---|---|---|",
    ]

    def add(what: str, tokens: int, begun: float) -> None:
        seconds = time.perf_counter() - begun
        lines.append(
            f"| {what} | {tokens} | {seconds:.1f} | {tokens / seconds:.1f} | {peak():.1f} |"
        )
        print(lines[-1], flush=True)

    system = np.exp(0.3 * np.random.default_rng(0).standard_normal((80, 2)))
    writing = language.writing(2)
    prompt = tokens_of(system, 80, PUBLISHED, writing).ids
    with torch.inference_mode():
        begun = time.perf_counter()
        language.hidden(torch.from_numpy(prompt)[None])
    add("read 80 steps of two channels", len(prompt), begun)
    for samples in (1, 8):
        begun = time.perf_counter()
        units = draw(language, [prompt], ["a"], 2, arguments.steps_written, Draws(samples))
        shown = sum(len(writing.encode(path).ids) for path in units[0].numpy())
        add(f"read them and write {arguments.steps_written} steps, {samples} path(s)", shown, begun)
    inject(model, 8, LORA_TARGETS)
    learnt = sum(one.numel() for one in model.parameters() if one.requires_grad)
    objective = NextSymbol(model.train(), writing.ids)
    window = batch_of([tokens_of(system, 80, PUBLISHED, writing)])
    window = {name: value[:, :512] if value.dim() else value for name, value in window.items()}
    begun = time.perf_counter()
    objective(window).backward()
    add(f"a step of LoRA, rank 8 ({learnt:,} weights learn)", 512, begun)
    counted = measure(shape, 512, 8)
    lines += [
        "",
        f"Floating-point operations by the convention of `llamacast text flops`: forward of 512 tokens "
        f"{forward(shape, 512):.4e}, step of LoRA at batch 4 {training_step(shape, 512, 4, 8):.5e} (768 "
        f"tokens: {training_step(shape, 768, 4, 8):.6e}); 236 tokens after a prompt of 945 "
        f"{generation(shape, 945, 236):.2e} with a cache, {generation(shape, 945, 236, False):.2e} without. "
        f"By torch's count of matrix products: forward {counted.forward:,}, a step of LoRA "
        f"{counted.lora_step / counted.forward:.2f} times that, a full one "
        f"{counted.full_step / counted.forward:.2f} times.",
    ]
    publish(lines, RESULTS / "text_size.md")


if __name__ == "__main__":
    main()
