from __future__ import annotations

import numpy as np
import torch
from scipy import stats

from llamacast.sampling.streams import uniforms


def test_streams_belong_to_names():
    together = uniforms(["a", "b", "c"], 0, 4, 3)
    assert torch.equal(uniforms(["c"], 0, 4, 3)[0], together[2])
    assert torch.equal(uniforms(["b", "a"], 0, 4, 3), together[[1, 0]])
    assert not torch.equal(together[0], together[1])


def test_seeds_differ_and_repeat():
    assert torch.equal(uniforms(["a"], 5, 4, 3), uniforms(["a"], 5, 4, 3))
    assert not torch.equal(uniforms(["a"], 5, 4, 3), uniforms(["a"], 6, 4, 3))


def test_a_shorter_horizon_draws_the_first_numbers():
    assert torch.equal(uniforms(["a"], 0, 4, 3), uniforms(["a"], 0, 4, 9)[:, :, :3])


def test_numbers_are_uniform_and_positive():
    drawn = uniforms(["a"], 0, 100, 200).numpy().ravel()
    assert (drawn > 0).all()
    assert stats.kstest(drawn, "uniform").pvalue > 1e-3
    assert drawn.dtype == np.float32


def test_the_numbers_of_one_path_are_independent_and_uniform():
    """Over many series, whatever the other samples are."""
    drawn = uniforms([f"s{n}" for n in range(3000)], 0, 5, 2)[:, 3].numpy()
    for numbers in drawn.reshape(3000, 4).T:
        assert stats.kstest(numbers, "uniform").pvalue > 1e-3
    correlations = np.corrcoef(drawn.reshape(3000, 4).T)[np.triu_indices(4, 1)]
    np.testing.assert_allclose(correlations, 0.0, atol=0.06)


def test_the_samples_of_a_step_are_spread_evenly():
    drawn = uniforms(["a", "b"], 0, 50, 3).double().numpy()
    ordered = np.sort(drawn[..., 0], axis=1)
    np.testing.assert_allclose(np.diff(ordered, axis=1), 1 / 50, atol=1e-6)
    gaps = np.diff(np.sort(drawn[..., 1], axis=1), axis=1)
    assert gaps.max() < 3 / 50
    # In an order that says nothing: neighbours of one step are not those of the next.
    ranks = drawn[0, :, :, 0].argsort(axis=0).argsort(axis=0)
    assert abs(np.corrcoef(ranks[:, 0], ranks[:, 1])[0, 1]) < 0.5
