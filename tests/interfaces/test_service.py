from __future__ import annotations

import concurrent.futures
import copy
import json
import signal
import threading

import httpx
import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient

import llamacast
from llamacast.interfaces.service.app import make_app
from llamacast.interfaces.service.limits import PROBLEM, Limits
from llamacast.interfaces.service.run import read_keys
from llamacast.interfaces.service.schema import EXAMPLE
from llamacast.interfaces.service.state import Service
from tests.interfaces.serving import serving, wait_for

FORECAST = "/v1/timeseries/forecast"


@pytest.fixture(scope="module")
def models():
    return {"cria": llamacast.load("cria", device="cpu")}


@pytest.fixture(scope="module")
def client(models):
    with TestClient(make_app(Service(models, Limits())), raise_server_exceptions=False) as found:
        yield found


def request(count=1, length=60, horizon=6, seed=0, frequency="D", **options):
    rng = np.random.default_rng(seed)
    values = 10 + np.arange(length) % 7 + rng.standard_normal((count, length)).round(3)
    return {
        "model": "cria",
        "inputs": [
            {
                "name": f"s{number}",
                "series": row.tolist(),
                "frequency": frequency,
                "start_timestamp": "2026-01-01",
            }
            for number, row in enumerate(values)
        ],
        "options": {"horizon": horizon, **options},
    }


def contents(response):
    assert response.status_code == 200, response.text
    return response.json()["outputs"][0]["content"]


def changed(path, value):
    """The example with one field changed; `value` of None takes it away."""
    asked = copy.deepcopy(EXAMPLE)
    place = asked
    *way, last = path
    for step in way:
        place = place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return asked


def test_an_answer_is_kserves_and_the_facades(client, models):
    found = client.post(FORECAST, json=EXAMPLE).json()
    assert set(found) >= {"id", "created_at", "status", "error", "model", "outputs", "usage"}
    (content,) = found["outputs"][0]["content"]
    assert content["start_timestamp"] == "2026-11-15T00:00:00"
    assert list(content["quantiles"]) == ["0.1", "0.5", "0.9"]
    values = [np.nan if one is None else one for one in EXAMPLE["inputs"][0]["series"]]
    frame = pd.DataFrame(
        {"unique_id": "shop 1", "ds": pd.date_range("2026-11-01", periods=14), "y": values}
    )
    own = models["cria"].forecast(frame, 7)
    assert np.allclose(content["quantiles"]["0.5"], own.median[0])
    assert np.allclose(content["mean_forecast"], own.mean[0])


def test_several_variates_come_back_as_they_went(client):
    rows = [[float(step % 7), 100.0 - step] for step in range(40)]
    asked = {
        "inputs": [
            {"type": "multivariate_time_series", "name": "two", "series": rows, "frequency": "hour"}
        ],
        "options": {"horizon": 5, "quantiles": [0.5]},
        "metadata": {"ticket": 7},
    }
    answer = client.post(FORECAST, json=asked)
    (content,) = contents(answer)
    assert np.shape(content["mean_forecast"]) == (5, 2)
    assert np.shape(content["quantiles"]["0.5"]) == (5, 2)
    assert content["start_timestamp"] == ""
    assert answer.json()["metadata"] == {"ticket": 7}


def test_the_same_request_has_the_same_answer_in_whatever_company(client):
    asked = [
        request(count, length, horizon, seed=place, frequency=frequency)
        for place, (count, length, horizon, frequency) in enumerate(
            [
                (1, 60, 6, "D"),
                (3, 200, 6, "h"),
                (1, 30, 6, "MS"),
                (2, 400, 12, "D"),
                (1, 60, 6, "W-SUN"),
            ]
        )
    ]
    alone = [contents(client.post(FORECAST, json=one)) for one in asked]
    before = batches(client)
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        together = list(pool.map(lambda one: client.post(FORECAST, json=one), asked * 8))
    for one, other in zip(together, alone * 8, strict=True):
        for found, told in zip(contents(one), other, strict=True):
            assert found["name"] == told["name"]
            # Products of other numbers of rows are rounded in float32 otherwise.
            for level, values in told["quantiles"].items():
                assert np.allclose(found["quantiles"][level], values, rtol=1e-5, atol=1e-5)
    calls, answered = (after - then for after, then in zip(batches(client), before, strict=True))
    assert answered == 40
    assert calls < answered


def batches(client):
    """Calls of the model so far, and requests that they answered."""
    lines = client.get("/metrics").text.splitlines()
    told = dict(
        line.rsplit(" ", 1) for line in lines if line.startswith("llamacast_batch_requests_")
    )
    return (
        float(told["llamacast_batch_requests_count"]),
        float(told["llamacast_batch_requests_sum"]),
    )


def test_options_are_heeded(client):
    asked = request(length=40, nonnegative=True, integer=True, quantiles=[0.05, 0.5])
    asked["inputs"][0]["series"] = [0, 1, 0, 0, 2] * 8
    (content,) = contents(client.post(FORECAST, json=asked))
    for values in content["quantiles"].values():
        assert all(value >= 0 for value in values)
    assert list(content["quantiles"]) == ["0.05", "0.5"]


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("inputs",), [], "inputs"),
        (("inputs",), None, "inputs"),
        (("inputs", 0, "series"), [], "inputs.0.series"),
        (("inputs", 0, "series"), [None, None], "inputs.0"),
        (("inputs", 0, "series"), ["a"], "inputs.0.series"),
        (("inputs", 0, "series"), [[1.0], [2.0]], "inputs.0"),
        (("inputs", 0, "frequency"), "sometimes", "inputs.0.frequency"),
        (("inputs", 0, "frequency"), None, "inputs.0.frequency"),
        (("inputs", 0, "start_timestamp"), "yesterday", "inputs.0.start_timestamp"),
        (("inputs", 0, "start_timestamp"), "9999-01-01", "inputs.0.start_timestamp"),
        (("inputs", 0, "name"), "", "inputs.0.name"),
        (("inputs", 0, "type"), "picture", "inputs.0.type"),
        (("options", "horizon"), 0, "options.horizon"),
        (("options", "horizon"), 10**9, "options.horizon"),
        (("options", "horizon"), "many", "options.horizon"),
        (("options", "quantiles"), [0.0], "options.quantiles.0"),
        (("options", "seed"), -1, "options.seed"),
        (("options", "colour"), "red", "options.colour"),
        (("model",), "gpt", "model"),
    ],
)
def test_what_is_wrong_is_told_with_its_field(client, path, value, field):
    answer = client.post(FORECAST, json=changed(path, value))
    assert answer.status_code == (404 if field == "model" else 422)
    assert answer.headers["content-type"] == PROBLEM
    told = answer.json()
    assert told["status"] == answer.status_code
    assert any(one["field"].startswith(field) for one in told["errors"]), told
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe\x00",
        b'{"inputs": [{"name": "a", "series": [NaN], "frequency": "D"}], "options": {"horizon": 1}}',
        b'{"inputs": [{"name": "a", "series": [Infinity, 1], "frequency": "D"}], "options": {"horizon": 1}}',
        b'{"inputs": [{"name": "a", "series": [1e999, 1], "frequency": "D"}], "options": {"horizon": 1}}',
        b"[" * 100_000,
        b'{"a":' * 50_000,
        json.dumps(EXAMPLE).encode()[:-20],
    ],
    ids=range(12),
)
def test_broken_bodies_are_refused_and_the_service_lives(client, body):
    answer = client.post(FORECAST, content=body, headers={"Content-Type": "application/json"})
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.headers["content-type"] == PROBLEM
    assert client.get("/health").status_code == 200


def test_a_thousand_damaged_requests_harm_nobody(client):
    rng = np.random.default_rng(0)
    good = json.dumps(EXAMPLE).encode()
    statuses = set()
    for _ in range(1000):
        body = bytearray(good)
        for _ in range(rng.integers(1, 6)):
            place = int(rng.integers(len(body)))
            kind = rng.integers(3)
            if kind == 0:
                body[place] = int(rng.integers(256))
            elif kind == 1:
                del body[place : place + int(rng.integers(1, 30))]
            else:
                body[place:place] = body[place : place + int(rng.integers(1, 30))]
            if not body:
                break
        answer = client.post(
            FORECAST, content=bytes(body), headers={"Content-Type": "application/json"}
        )
        statuses.add(answer.status_code)
        assert answer.status_code < 500, bytes(body)
    assert statuses >= {200, 400, 422}
    assert contents(client.post(FORECAST, json=EXAMPLE))


def test_sizes_are_limited(models):
    limits = Limits(body_bytes=20_000, series=3, points=100, horizon=10, quantiles=2)
    with TestClient(make_app(Service(models, limits))) as client:
        for asked, field in (
            (request(4, 10), "inputs"),
            (request(2, 60), "inputs.series"),
            (request(1, 10, 11), "options.horizon"),
            (request(1, 10, quantiles=[0.1, 0.2, 0.3]), "options.quantiles"),
        ):
            told = client.post(FORECAST, json=asked).json()
            assert told["errors"][0]["field"] == field
        large = client.post(FORECAST, content=b" " * 20_001)
        assert large.status_code == 413

        def chunks():
            for _ in range(300):
                yield b" " * 100

        assert client.post(FORECAST, content=chunks()).status_code == 413
        assert client.post(FORECAST, json=request(1, 10, quantiles=[0.5])).status_code == 200


def test_keys_let_in_whom_they_should(models, tmp_path):
    file = tmp_path / "keys"
    file.write_text("# ours\nanna:0123456789abcdef\n\nfedcba9876543210\n")
    keys = read_keys(file)
    assert list(keys) == ["0123456789abcdef", "fedcba9876543210"]
    assert keys["0123456789abcdef"] == "anna"
    # Whoever has no name is still the same when lines come and go: jobs belong to owners.
    (tmp_path / "fewer").write_text("fedcba9876543210\n")
    assert read_keys(tmp_path / "fewer")["fedcba9876543210"] == keys["fedcba9876543210"]
    with TestClient(make_app(Service(models, Limits(), keys))) as client:
        for headers, status in (
            ({}, 401),
            ({"X-API-Key": "wrong"}, 401),
            ({"X-API-Key": "0123456789abcdef"}, 200),
            ({"Authorization": "Bearer fedcba9876543210"}, 200),
        ):
            answer = client.post(FORECAST, json=EXAMPLE, headers=headers)
            assert answer.status_code == status
        assert client.get("/v1/models").status_code == 401
        assert client.get("/health").status_code == 200
    for text, message in (("", "holds no key"), ("short", "at least 16")):
        file.write_text(text)
        with pytest.raises(llamacast.DataError, match=message):
            read_keys(file)


class Slow:
    """A model that takes its time, and tells who was asked."""

    training = llamacast.load("cria", device="cpu").training

    def __init__(self, model, gate):
        self.model, self.gate, self.names = model, gate, []

    def forecast(self, panel, horizon, **options):
        self.gate.wait(10)
        self.names.append(list(panel.ids))
        return self.model.forecast(panel, horizon, **options)


def test_who_asks_too_much_is_told_when_to_come_again_and_others_are_served(models):
    gate = threading.Event()
    slow = Slow(models["cria"], gate)
    keys = {"0123456789abcdef": "greedy", "fedcba9876543210": "modest"}
    service = Service({"cria": slow}, Limits(waiting=6, waiting_per_caller=4), keys)
    with TestClient(make_app(service)) as client, concurrent.futures.ThreadPoolExecutor(12) as pool:
        ask = lambda key, number: client.post(  # noqa: E731
            FORECAST, json=request(seed=number), headers={"X-API-Key": key}
        )
        greedy = [pool.submit(ask, "0123456789abcdef", number) for number in range(7)]
        wait_for(lambda: service.batcher.waiting == 4)
        modest = [pool.submit(ask, "fedcba9876543210", 100 + number) for number in range(2)]
        wait_for(lambda: service.batcher.waiting == 6)
        assert client.get("/ready").status_code == 503
        full = ask("fedcba9876543210", 200)
        assert (full.status_code, full.headers["retry-after"]) == (503, "1")
        gate.set()
        statuses = sorted(one.result().status_code for one in greedy)
        assert statuses == [200] * 4 + [429] * 3
        assert [one.result().status_code for one in modest] == [200, 200]
        assert client.get("/ready").status_code == 200


def test_an_answer_that_takes_too_long_is_given_up(models):
    gate = threading.Event()
    service = Service({"cria": Slow(models["cria"], gate)}, Limits(seconds=0.2))
    with TestClient(make_app(service)) as client:
        answer = client.post(FORECAST, json=EXAMPLE)
        assert answer.status_code == 504
        gate.set()
        assert client.post(FORECAST, json=request()).status_code == 200


def test_a_request_that_fails_takes_no_other_with_it(models):
    class Picky(Slow):
        def forecast(self, panel, horizon, **options):
            found = super().forecast(panel, horizon, **options)
            if "poison" in panel.ids:
                raise RuntimeError("secret of the house")
            return found

    gate = threading.Event()
    service = Service({"cria": Picky(models["cria"], gate)}, Limits())
    app = make_app(service)
    poison = request()
    poison["inputs"][0]["name"] = "poison"
    with (
        TestClient(app, raise_server_exceptions=False) as client,
        concurrent.futures.ThreadPoolExecutor(8) as pool,
    ):
        asked = [poison, *(request(seed=number) for number in range(5))]
        found = [pool.submit(client.post, FORECAST, json=one) for one in asked]
        wait_for(lambda: service.batcher.waiting == 6)
        gate.set()
        statuses = [one.result().status_code for one in found]
        assert statuses == [500] + [200] * 5
        assert "secret" not in found[0].result().text


def test_anomalies_and_embeddings(client):
    asked = request(2)
    asked["inputs"][1]["series"][50] = 900.0
    del asked["options"]
    found = client.post("/v1/anomalies", json=asked).json()["outputs"]
    assert [one["name"] for one in found] == ["s0", "s1"]
    assert found[1]["anomaly"][50]
    assert len(found[0]["probability"]) == 60
    vectors = client.post("/v1/embeddings", json=asked).json()["outputs"]
    assert np.shape([one["vector"] for one in vectors]) == (2, 192)
    wrong = client.post("/v1/anomalies", json={**asked, "false_alarm_rate": 2})
    assert wrong.json()["errors"][0]["field"] == "false_alarm_rate"


def test_a_table_is_forecast_as_it_is(client):
    rows = [
        f"{shop};{day.date()};{10 + day.dayofweek + number}"
        for number, shop in enumerate("ab")
        for day in pd.date_range("2026-01-01", periods=70)
    ]
    text = "shop;day;sold\n" + "\n".join(rows)
    found = client.post("/v1/tables/forecast", json={"csv": text, "horizon": 7}).json()
    assert found["columns"] == {"id": "shop", "time": "day", "target": "sold"}
    assert [one["name"] for one in found["series"]] == ["a", "b"]
    assert found["series"][0]["times"][0] == "2026-03-12T00:00:00"
    assert found["csv"].startswith("shop,day,mean,0.025")
    assert [one["model"] for one in found["scores"]] == ["cria", "seasonal-naive"]
    for body, message in (
        ({"csv": "nothing here", "horizon": 3}, "no rows"),
        ({"csv": text, "horizon": 7, "target_column": "price"}, "price"),
        ({"csv": text, "horizon": 7, "models": ["gpt"]}, "no model 'gpt'"),
        ({"csv": text, "horizon": 10**7}, "horizon"),
    ):
        told = client.post("/v1/tables/forecast", json=body)
        assert told.status_code in (404, 422)
        assert message in told.json()["detail"]


def test_the_page_and_the_documentation_are_there_and_load_nothing_from_elsewhere(client):
    page = client.get("/")
    assert page.status_code == 200
    for name in ("style.css", "page.js"):
        assert f"/page/{name}" in page.text
        assert client.get(f"/page/{name}").status_code == 200
    for text in (page.text, client.get("/page/page.js").text, client.get("/page/style.css").text):
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in text
    assert FORECAST in client.get("/openapi.json").json()["paths"]


def test_told_to_stop_it_answers_what_it_has_accepted(tmp_path):
    with serving(tmp_path) as (process, address):
        asked = request(40, 512, 48)
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            found = [
                pool.submit(httpx.post, address + FORECAST, json=asked, timeout=60)
                for _ in range(12)
            ]
            wait_for(lambda: waiting(address) >= 6)
            process.send_signal(signal.SIGTERM)
            accepted = [one.result().status_code for one in found if one.exception() is None]
        assert accepted.count(200) >= 6
        assert set(accepted) <= {200, 503}
        assert process.wait(30) in (0, -signal.SIGTERM)
    lines = [
        json.loads(line)
        for line in (tmp_path / "log").read_text().splitlines()
        if line.startswith("{")
    ]
    assert any(line["route"] == FORECAST and line["status"] == 200 for line in lines)
    assert "s0" not in json.dumps(lines)


def waiting(address):
    lines = httpx.get(address + "/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("llamacast_waiting"))
