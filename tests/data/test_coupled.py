import numpy as np
import pytest

from llamacast.data.synthetic.coupled import FAMILIES, _sound, coupled

POPULATIONS = {"predator_prey", "food_chain", "brusselator", "epidemic"}


@pytest.mark.parametrize("num_channels", [1, 2, 3])
def test_systems_are_as_asked_and_seeded(num_channels):
    one, other = (coupled(np.random.default_rng(3), 40, 50, num_channels) for _ in range(2))
    assert one.shape == (40, 50, num_channels)
    assert np.isfinite(one).all()
    assert (one == other).all()
    assert (coupled(np.random.default_rng(4), 40, 50, num_channels) != one).any()


@pytest.mark.parametrize(
    ("channels", "make"), FAMILIES, ids=lambda one: getattr(one, "__name__", "")
)
def test_families_move_and_populations_are_positive(channels, make):
    systems = _sound(np.random.default_rng(0), make, 30, 80, channels)
    assert systems.shape == (30, 80, channels)
    assert (systems.std(axis=1) > 0).all()
    if make.__name__ in POPULATIONS:
        assert (systems > 0).all()


def test_predators_and_prey_are_of_all_classes():
    """Damped, growing and steady swings, at many paces."""
    systems = np.log(_sound(np.random.default_rng(1), FAMILIES[0][1], 300, 100, 2)[..., 0])
    early, late = np.ptp(systems[:, 10:45], axis=1), np.ptp(systems[:, 65:], axis=1)
    ratio = late / early
    for share in (
        (ratio < 0.9).mean(),
        (ratio > 1.1).mean(),
        ((ratio > 0.9) & (ratio < 1.1)).mean(),
    ):
        assert share > 0.05
