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
