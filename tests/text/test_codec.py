import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamacast.forecast import DataError
from llamacast.text.codec import MISSING, TAIL, CodecConfig, encode, fit, read, write

FREE = CodecConfig()
WAYS = [
    FREE,
    CodecConfig(precision=3, point=True, sign="both"),
    CodecConfig(base=16, missing="?", transform="difference"),
    CodecConfig(scaler="offset", sign="minus", beta=0.5),
    CodecConfig(scaler="none", precision=3),
    CodecConfig(scaler="middle", base=2, precision=6),
]
POSITIVE = [
    CodecConfig(transform="log"),
    CodecConfig(transform="log-difference", precision=3),
    CodecConfig(transform="log-difference", width=3, sign="centred", precision=0, size=100),
]
numbers = st.floats(allow_nan=False, allow_infinity=False)


def round_trip(values, config):
    scale = fit(values, config)
    units = scale.units(values)[:, None]
    text = write(units, config)
    back = read(text, config, 1)
    assert (back == units).all(), text
    return scale.values(back[:, 0]), scale.unit


@pytest.mark.parametrize("config", WAYS, ids=str)
@given(values=st.lists(numbers, min_size=1, max_size=12))
def test_a_value_comes_back_within_half_a_unit(config, values):
    values = np.array(values)
    if config.transform == "difference" or config.scaler in ("offset", "middle"):
        values = np.clip(values, -1e290, 1e290)
    if config.scaler == "none":
        values = np.clip(values, -1e12, 1e12)
    back, unit = round_trip(values, config)
    size = np.abs(values).max()
    # Half a unit, and what float64 cannot tell apart.
    assert (np.abs(back - values) <= unit * 0.5001 + 4e-16 * len(values) * size).all()


@pytest.mark.parametrize("config", POSITIVE, ids=str)
@given(values=st.lists(st.floats(1e-300, 1e300), min_size=2, max_size=12))
def test_logarithms_come_back_within_half_a_unit_of_the_logarithm(config, values):
    values = np.array(values)
    back, unit = round_trip(values, config)
    assert (np.abs(np.log(back) - np.log(values)) <= unit * 0.5001 + 1e-9).all()


def test_the_spelling_is_as_documented():
    units = np.array([[12345, -5], [0, MISSING]])
    assert write(units, CodecConfig()) == "12345,-5;0,NaN;"
    assert write(units, CodecConfig(precision=3, point=True)) == "12.345,-0.005;0.000,NaN;"
    assert write(units, CodecConfig(sign="both", width=6)) == "+012345,-000005;+000000,NaN;"
    bare = CodecConfig(
        base=32, width=2, sign="centred", value_separator="", step_separator="", missing="?"
    )
    assert write(np.array([[0, -512], [511, MISSING]]), bare) == "g000vv??"


def test_what_does_not_fit_takes_the_nearest_that_does():
    config = CodecConfig(width=2, sign="centred", precision=0, scaler="none")
    scale = fit(np.array([0.0, 1.0]), config)
    assert scale.units(np.array([1e9, -1e9, 3.0])).tolist() == [49, -50, 3]
    unsigned = CodecConfig(sign="none", scaler="none", precision=0)
    assert fit(np.array([1.0]), unsigned).units(np.array([-4.0])).tolist() == [0]


def test_the_density_of_all_values_is_one_whatever_can_be_written():
    """Numbers within the range, and the tails that the outer ones stand for."""
    config = CodecConfig(width=2, sign="centred", precision=0, scaler="none")
    scale = fit(np.array([0.0]), config)
    grid = np.arange(-1500, 1500, 0.05)
    written = scale.written(grid, config.writable)
    density = np.exp(scale.log_density(grid, written))  # of numbers that are all as likely
    share = np.where(np.abs(grid) < 40, 1.0, 0.0)
    assert (density * share).sum() * 0.05 == pytest.approx(80, rel=0.01)
    tail = density[grid >= 49].sum() * 0.05
    assert tail == pytest.approx(1.0, rel=0.02)
    odd = [
        scale.log_density(v, scale.written(v, config.writable))[0]
        for v in map(np.atleast_1d, (60.0, 600.0))
    ]
    assert odd[0] - odd[1] == pytest.approx(540 / TAIL)


def test_what_has_no_logarithm_has_no_density():
    config = CodecConfig(transform="log-difference", width=3, sign="centred", precision=0, size=100)
    scale = fit(np.array([1.0, 2.0, 3.0]), config)
    values = np.array([1.0, 0.0, np.nan, -2.0, 3.0])
    density = scale.log_density(values, scale.written(values, config.writable))
    assert (density[[1, 3]] == -np.inf).all()
    assert np.isfinite(density[[0, 4]]).all()


def test_numbers_for_models_have_an_end():
    config = CodecConfig(scaler="none", most_digits=4)
    scale = fit(np.array([1.0]), config)
    units, (written,) = encode(np.array([[5.0], [1e9]]), [scale])
    assert units.ravel().tolist() == [500, 9999]
    assert written.excess[1] == 1e11 - 9999
    assert scale.units(np.array([1e9])).tolist() == [10**11]


def test_negative_values_without_a_sign_are_refused():
    with pytest.raises(DataError, match="scaler='offset'"):
        fit(np.array([-100.0, -90.0]), CodecConfig(sign="none"))


def test_what_does_not_move_is_measured_by_its_own_size():
    for size in (1e-6, 1.0, -1e6):
        for config in (CodecConfig(transform="difference"), CodecConfig(scaler="middle")):
            assert fit(np.full(9, size), config).unit == pytest.approx(abs(size) / 100)


def test_differences_do_not_add_up_errors():
    rng = np.random.default_rng(0)
    values = np.cumsum(rng.standard_normal(5000))
    config = CodecConfig(transform="difference", precision=1)
    back, unit = round_trip(values, config)
    assert np.abs(back - values).max() <= 0.5001 * unit


def test_missing_values_stay_missing_and_break_no_difference():
    values = np.array([1.0, 2.0, np.nan, np.nan, 5.0, 4.0])
    for transform in ("none", "difference", "log-difference"):
        back, _ = round_trip(values, CodecConfig(transform=transform, precision=4))
        assert np.isnan(back).tolist() == np.isnan(values).tolist()
        assert np.allclose(back, values, atol=1e-3, equal_nan=True)


def test_the_scale_is_the_historys_alone():
    history, future = np.array([1.0, 2.0, 4.0]), np.array([1000.0])
    scale = fit(history, FREE)
    units = scale.units(np.concatenate([history, future]))
    assert units[:3].tolist() == scale.units(history).tolist()


def test_a_constant_series_and_a_single_value_have_a_scale():
    for config in [*WAYS, *POSITIVE]:
        for values in (np.full(5, 3.0), np.array([7.0])):
            back, unit = round_trip(values, config)
            assert np.isfinite(unit)
            assert np.allclose(back, values, rtol=0.05)


def test_the_density_is_one_over_a_units_width():
    values = np.array([1.0, 2.0, 3.0, 5.0])
    scale = fit(values, CodecConfig(transform="log", precision=3))
    one = scale.units(np.array([2.5]))
    edges = np.exp((one[0] + np.array([-0.5, 0.5])) * scale.unit)
    width = edges[1] - edges[0]
    assert scale.log_density(np.array([2.5]))[0] == pytest.approx(-np.log(width), abs=2e-3)


def test_channels_are_interleaved_in_order():
    assert write(np.array([[1, 2], [3, 4]]), FREE) == "1,2;3,4;"
    assert read("1,2;3,4;", FREE, 2).tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("text", "message"),
    [("1,2", "does not end"), ("1,x;", "not a number"), ("1;2;3;", "ends within")],
)
def test_what_is_no_text_of_numbers_is_refused(text, message):
    with pytest.raises(DataError, match=message):
        read(text, FREE, 2)


def test_values_without_logarithms_are_named():
    with pytest.raises(DataError, match=r"shop 3.*no logarithm.*difference"):
        fit(np.array([1.0, 0.0]), CodecConfig(transform="log"), "shop 3")


@pytest.mark.parametrize(
    "changes",
    [
        {"base": 1},
        {"sign": "centred"},
        {"value_separator": ""},
        {"point": True, "precision": 0},
        {"missing": "1x"},
        {"base": 16},
        {"alpha": 0.0},
        {"width": 0},
        {"width": 20},
    ],
)
def test_ways_of_writing_that_cannot_be_read_are_refused(changes):
    with pytest.raises(ValueError, match=r"base|centred|width|point|separators|alpha|64 bits"):
        CodecConfig(**changes)
