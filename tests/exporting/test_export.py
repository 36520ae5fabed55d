from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import llamacast
from llamacast.data.calendar import natural_seasons
from llamacast.exporting.export import LARGEST_DIFFERENCE, export
from llamacast.exporting.programs import OnePass, Prefill, Step
from llamacast.forecast import DataError
from llamacast.model.config import CriaConfig, LagLlamaConfig
from llamacast.model.cria import Cria
from llamacast.model.lag_llama import LagLlama
from llamacast.sampling.one_pass import forecast_quantiles

HORIZON, CONTEXT = 20, 32


@pytest.fixture(scope="module")
def cria():
    """A small one, so that writing it is quick."""
    network = Cria(CriaConfig(num_layers=1, num_heads=2, head_width=8, feedforward_width=16))
    network.initialise(torch.Generator().manual_seed(0))
    return network.eval()


@pytest.fixture(scope="module")
def lag_llama():
    network = LagLlama(
        LagLlamaConfig(
            num_layers=2, num_heads=2, head_width=8, feedforward_width=16, lags=(0, 1, 6)
        )
    )
    network.initialise(torch.Generator().manual_seed(0))
    return network.eval()


def histories(count, length, seed=0):
    rng = np.random.default_rng(seed)
    waves = 30 + 8 * np.sin(np.arange(length) * 2 * np.pi / 12 + np.arange(count)[:, None])
    found = torch.from_numpy(waves + rng.normal(0, 1, waves.shape))
    found[0, : length // 2] = torch.nan
    found[-1, -3] = torch.nan
    return found


def test_the_one_pass_program_says_what_the_package_says(cria):
    history = histories(4, CONTEXT)
    seasons = torch.tensor([[12, 0]] * 4)
    observed = ~history.isnan()
    own = forecast_quantiles(
        cria, history.nan_to_num(0.0), observed, seasons, HORIZON
    ).quantiles.values
    with torch.no_grad():
        found = OnePass(cria, HORIZON)(history, seasons)
    assert torch.allclose(found, own, rtol=1e-4, atol=1e-4)


def test_steps_go_on_as_the_whole_sequence_would(lag_llama):
    """Prefill and steps, by the values drawn outside of them: the same as without a cache."""
    longest, count = lag_llama.config.max_lag, 3
    lags = torch.tensor(lag_llama.config.lags)
    history = histories(count, longest + CONTEXT)
    calendar = torch.rand(count, CONTEXT + HORIZON, 6) - 0.5
    with torch.no_grad():
        prefill = Prefill(lag_llama, HORIZON)
        found = prefill(history, calendar[:, : CONTEXT + 1])
        told, (scaled, observed, _, scale, statistics, keys, values) = found[:3], found[3:]
        step = Step(lag_llama, CONTEXT, HORIZON)
        drawn = torch.randn(count, HORIZON)
        path, seen = scaled, observed.float()
        for number in range(HORIZON - 1):
            path = torch.cat([path, drawn[:, number : number + 1]], dim=1)
            seen = torch.cat([seen, torch.ones(count, 1)], dim=1)
            first = CONTEXT + number
            *told, keys, values = step(
                path[:, -1 - lags],
                seen[:, -1 - lags],
                calendar[:, first : first + 2],
                statistics,
                scale,
                keys,
                values,
            )
        # The same window as one sequence, at the scale of the history.
        window = lag_llama.scale_window(history.nan_to_num(0.0), ~history.isnan())
        plain = window.to_values(path.double())
        known = torch.cat([~history.isnan(), torch.ones(count, HORIZON - 1, dtype=bool)], dim=1)
        longer = lag_llama.extend_window(window, plain.masked_fill(~known, 0.0), known)
        whole = lag_llama(longer.to(torch.device("cpu")), calendar)
    assert keys.shape[3] == CONTEXT + HORIZON - 1
    for one, other in zip(told, (whole.df, whole.loc, whole.scale), strict=True):
        assert torch.allclose(one, other[:, -1], atol=1e-4)


@pytest.fixture(scope="module")
def in_onnx(cria, tmp_path_factory):
    """Writing takes most of a test's time."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("onnx")
    return folder, export(cria, folder, "onnx", HORIZON, CONTEXT)


def test_files_answer_as_torch_does_for_any_number_of_series(in_onnx, lag_llama, tmp_path):
    # It compares them itself, for another number of series than the file was made with.
    others = [
        (tmp_path / format_, export(lag_llama, tmp_path / format_, format_, HORIZON, CONTEXT))
        for format_ in ("onnx", "torch")
    ]
    for (folder, found), names in zip(
        [in_onnx, *others], ({"forecast"}, *({"prefill", "step"},) * 2), strict=True
    ):
        assert {name.split(".")[0] for name in found} == names
        assert max(found.values()) <= LARGEST_DIFFERENCE
        about = json.loads((folder / "about.json").read_text())
        assert about["horizon"] == HORIZON
        assert set(about["programs"]) == names


def test_an_onnx_file_forecasts_without_torch(in_onnx, cria):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(in_onnx[0] / "forecast.onnx"))
    history = histories(5, CONTEXT, seed=2).numpy()
    seasons = np.zeros((5, 2), dtype=np.int64)
    (found,) = session.run(None, {"history": history, "seasons": seasons})
    assert found.shape == (5, HORIZON, len(cria.config.levels))
    assert (np.diff(found, axis=2) >= 0).all()
    (moved,) = session.run(None, {"history": 3 * history + 100, "seasons": seasons})
    assert np.allclose(moved, 3 * found + 100, rtol=1e-4)
    (alone,) = session.run(None, {"history": history[2:3], "seasons": seasons[:1]})
    assert np.allclose(alone[0], found[2], rtol=1e-4)


def test_an_answer_that_differs_is_not_kept(cria, lag_llama, tmp_path, monkeypatch):
    monkeypatch.setattr("llamacast.exporting.export._difference", lambda *given: 0.5)
    with pytest.raises(DataError, match="not kept"):
        export(lag_llama, tmp_path, "torch", HORIZON, CONTEXT)
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match="multiple of 16"):
        export(cria, tmp_path, "torch", HORIZON, 50)


def test_the_packaged_ones_can_be_exported():
    """Their configurations have nothing that a program has not; the files take minutes."""
    from llamacast.exporting.export import _programs

    assert natural_seasons(None) == ()
    for name in ("cria", "lag-llama"):
        network = llamacast.load(name, device="cpu").model
        for program in _programs(network, HORIZON, CONTEXT):
            with torch.no_grad():
                found = program.module.eval()(*program.example(2))
            assert all(
                torch.isfinite(one.float()).all()
                for one in (found if isinstance(found, tuple) else (found,))
            )


def test_an_answer_that_is_no_number_differs_from_any():
    from llamacast.exporting.export import Program, _difference

    program = Program(
        "same", torch.nn.Identity(), ("a",), ("b",), lambda n: (torch.arange(float(n)),), ({},)
    )
    assert _difference(program, lambda given: [given]) == 0.0
    for odd in (torch.nan, torch.inf):
        assert _difference(program, lambda given, odd=odd: [given.fill_(odd)]) == np.inf
        one = torch.tensor([0.0, odd, 2.0])
        assert _difference(program, lambda given, one=one: [one]) == np.inf
