import pytest

from llamacast.text.flops import (
    QWEN2_5_05B,
    Shape,
    account,
    forward,
    generation,
    measure,
    shape_of,
    steps_within,
    training_step,
)
from llamacast.text.language import make_decoder

# Worked out by hand for 512 tokens, per layer unless said.
PRIMITIVES_512 = {
    "position add": 458_752,
    "RMSNorm": 1_840_640,
    "scores": 466_092_032,
    "scale": 3_670_026,
    "softmax": 44_033_024,
    "attention x values": 469_303_296,
    "output projection": 821_624_832,
    "gate and up": 8_920_498_176,
    "SiLU": 32_374_784,
    "gate product": 2_490_368,
    "down": 4_462_280_704,
    "residual adds": 917_504,
    "head": 139_324_096_512,
}


def test_primitives_are_those_of_the_convention():
    found = {item.name: item.flops for item in account(QWEN2_5_05B, 512, rank=8)}
    assert {name: found[name] for name in PRIMITIVES_512} == PRIMITIVES_512
    assert found["query"] + found["key"] + found["value"] == 2_466_250_752
    assert found["LoRA on query"] + found["LoRA on value"] == 30_269_440


@pytest.mark.parametrize(
    ("tokens", "plain", "adapted", "grouped", "step"),
    [
        (512, 563_963_598_576, 564_690_065_136, 530_140_731_120, 6_776_280_781_632),
        (768, 863_649_554_928, 864_739_254_768, 812_915_253_744, 10_376_871_057_216),
    ],
)
def test_totals(tokens, plain, adapted, grouped, step):
    assert forward(QWEN2_5_05B, tokens) == plain
    assert forward(QWEN2_5_05B, tokens, rank=8) == adapted
    assert forward(QWEN2_5_05B, tokens, grouped=True) == grouped
    assert training_step(QWEN2_5_05B, tokens, 4, 8) == step


def test_a_budget_in_steps():
    assert steps_within(1e17, QWEN2_5_05B, 512, 4, 8) == 14_757
    assert steps_within(1e17, QWEN2_5_05B, 768, 4, 8) == 9_636
    step = training_step(QWEN2_5_05B, 512, 4, 8)
    assert steps_within(10 * step, QWEN2_5_05B, 512, 4, 8, validation=1) == 9
    assert steps_within(1, QWEN2_5_05B, 512, 4, 8) == 0


def test_generation_with_a_cache_is_a_sliver():
    cached = generation(QWEN2_5_05B, 945, 236)
    assert cached == pytest.approx(1.09e12, rel=0.01)
    assert generation(QWEN2_5_05B, 945, 236, cached=False) / cached == pytest.approx(264, rel=0.02)


def test_shape_is_read_from_a_configuration():
    assert shape_of(make_decoder().config) == Shape(128, 2, 2, 64, 384, 132, 6)


def test_torch_counts_less_for_lora_than_for_all_weights():
    shape = Shape(64, 4, 2, 16, 192, 500, 2)
    found = measure(shape, 64, 4)
    assert found.full_step == pytest.approx(3 * found.forward, rel=0.02)
    assert 1.95 < found.lora_step / found.forward < 2.2
    # Our account beside it: products alone are most of what is counted.
    assert found.forward == pytest.approx(forward(shape, 64, grouped=True), rel=0.06)
