from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import json
import signal
import threading
import tracemalloc

import httpx
import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

import llamacast
from llamacast.data.frame import read_panel
from llamacast.evaluation.baselines import SeasonalNaive
from llamacast.forecast import DataError, TrainingRecord
from llamacast.interfaces.service import app as app_module
from llamacast.interfaces.service.app import HUNG_UP, make_app
from llamacast.interfaces.service.batching import Batcher
from llamacast.interfaces.service.limits import PROBLEM, Limits, ServiceError
from llamacast.interfaces.service.run import read_keys
from llamacast.interfaces.service.schema import EXAMPLE, ForecastRequest
from llamacast.interfaces.service.state import Service
from llamacast.interfaces.service.tables import TableRequest, read_table, standing
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
    counts = request(1, 60, 6, seed=0, frequency="D")  # goes with the first
    counts["inputs"][0]["series"] = [0, 1, 0, 2, 0, 0, 1, 0, 0, 3] * 6
    asked.append(counts)
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
    assert answered == 48
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
        (("inputs", 0, "series"), [1.0, "a"], "inputs.0.series.1"),
        (("inputs", 0, "series"), [1.0, -1e301], "inputs.0.series.1"),
        (
            ("inputs", 0),
            {
                **EXAMPLE["inputs"][0],
                "type": "multivariate_time_series",
                "series": [[1.0, 2.0], [3.0, "a"]],
            },
            "inputs.0.series.1.1",
        ),
        (("inputs", 0, "series"), [[1.0], [2.0]], "inputs.0"),
        (("inputs", 0, "frequency"), "sometimes", "inputs.0.frequency"),
        (("inputs", 0, "frequency"), None, "inputs.0.frequency"),
        (("inputs", 0, "start_timestamp"), "yesterday", "inputs.0.start_timestamp"),
        (("inputs", 0, "start_timestamp"), "9999-01-01", "inputs.0.start_timestamp"),
        (("inputs", 0, "start_timestamp"), "10:00", "inputs.0.start_timestamp"),
        (("inputs", 0, "start_timestamp"), "now", "inputs.0.start_timestamp"),
        (("inputs", 0, "name"), "", "inputs.0.name"),
        (("inputs", 0, "type"), "picture", "inputs.0.type"),
        (("options", "horizon"), 0, "options.horizon"),
        (("options", "horizon"), 10**9, "options.horizon"),
        (("options", "horizon"), "many", "options.horizon"),
        (("options", "quantiles"), [0.0], "options.quantiles.0"),
        (("options", "seed"), -1, "options.seed"),
        (("options", "colour"), "red", "options.colour"),
        (("metadata",), {"a": "\ud800"}, "metadata"),
        (("metadata",), {"\ud800": 1}, "metadata"),
        (("metadata",), {"a": [float("nan")]}, "metadata"),
        (("metadata",), json.loads('{"a":' * 300 + "1" + "}" * 300), "metadata"),
        (("\ud800",), 1, "body"),
        (("model",), "gpt", "model"),
    ],
)
def test_what_is_wrong_is_told_with_its_field(client, path, value, field):
    # Not by `json=`, which has no words for half a character.
    answer = client.post(
        FORECAST,
        content=json.dumps(changed(path, value)),
        headers={"Content-Type": "application/json"},
    )
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


@pytest.mark.parametrize(
    "fields",
    [
        {"inputs": [{}] * 9_999},
        {"inputs": [{**EXAMPLE["inputs"][0], "series": ["a"] * 9_999}]},
        {"inputs": [{**EXAMPLE["inputs"][0], "series": [["a"]] * 9_999}]},
        {"inputs": [{**EXAMPLE["inputs"][0], "series": [["a"] * 9_999]}]},
        {"inputs": EXAMPLE["inputs"] * 9_999},
        {"options": {"horizon": 1, "quantiles": [7] * 9_999}},
        {str(number): 0 for number in range(9_999)},
    ],
    ids=range(7),
)
def test_of_many_faults_a_few_are_gathered(fields):
    """Each one that is gathered costs time and memory, and a body has room for millions."""
    with pytest.raises(ValidationError) as told:
        ForecastRequest.model_validate({**EXAMPLE, **fields})
    assert told.value.error_count() <= 3


def test_what_is_too_much_together_is_refused(models):
    limits = Limits(steps=100, steps_of_paths=20, numbers=150)
    both = {**models, "lag-llama": llamacast.load("lag-llama", device="cpu")}
    table = "ds,a,b\n" + "\n".join(f"2026-01-{day:02},{day},{day % 7}" for day in range(1, 31))
    with TestClient(make_app(Service(both, limits))) as client:
        for asked, field in (
            (request(10, 10, 11, quantiles=[0.5]), "options.horizon"),
            ({**request(3, 10, 7, quantiles=[0.5]), "model": "lag-llama"}, "options.horizon"),
            (request(10, 10, 8), "options.quantiles"),
        ):
            told = client.post(FORECAST, json=asked)
            assert told.status_code == 422
            assert told.json()["errors"][0]["field"] == field
        assert client.post(FORECAST, json=request(5, 10, 10)).status_code == 200
        for asked, status in (
            ({"horizon": 13}, 422),  # two series, and three windows of each
            ({"horizon": 13, "scores": False}, 422),  # 13 steps of 2 series, in 8 numbers
            ({"horizon": 11, "scores": False, "models": ["lag-llama"]}, 422),
            ({"horizon": 9, "scores": False}, 200),
        ):
            told = client.post("/v1/tables/forecast", json={"csv": table, **asked})
            assert told.status_code == status
            if status == 422:
                assert told.json()["errors"][0]["field"] == "horizon"


def sparse(count):
    """Two rows of each series, sixty-nine days of minutes apart."""
    rows = [
        f"{name},{day}T10:39,1" for name in range(count) for day in ("2026-01-01", "2026-03-11")
    ]
    return "id,ds,y\n" + "\n".join(rows)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (sparse(2_000), "2000 series"),
        (sparse(100), "9936100 values"),
        (",".join(map(str, range(5_000))) + "\n", "5000 columns"),
        ('"a\nb",' + ",".join(map(str, range(5_000))) + "\n1", "5001 columns"),
        ("\n  \n" + ";".join(map(str, range(5_000))) + "\n", "5000 columns"),
        (",".join(map(str, range(1_000))) + "\n1" * 10_000, "10000000 cells"),
        ("y" + "\n1" * 2_000_001, "2000001 lines"),
        ("y" + "\r1" * 2_000_001, "2000001 lines"),
        ("a" * 200_000 + "," * 5_000, "header cannot be read"),
    ],
    ids=range(9),
)
def test_a_table_that_is_too_large_is_refused_before_it_is_laid_out(text, message):
    asked = TableRequest(csv=text, horizon=1, frequency="min")
    tracemalloc.start()
    with pytest.raises(ServiceError, match=message) as told:
        read_table(asked, Limits())
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert told.value.field == "csv"
    assert most < 20 * 2**20


def test_a_table_is_read_in_its_turn(client, monkeypatch):
    """By the rules of those who wait: so many, and so long."""
    service, waiting = client.app.state.service, []

    def read(asked, limits):
        waiting.append(service.batcher.waiting)
        return read_table(asked, limits)

    monkeypatch.setattr(app_module, "read_table", read)
    asked = {"csv": "y\n1\n2\n3\n4\n5\n6\n", "horizon": 1}
    assert client.post("/v1/tables/forecast", json=asked).status_code == 200
    assert waiting == [1]


def test_a_table_is_told_what_was_taken_as_missing(client):
    rows = [f"2026-01-{day:02},{day if day != 15 else 1e9}" for day in range(1, 31)]
    asked = {"csv": "ds,y\n" + "\n".join(rows), "horizon": 1, "scores": False}
    (note,) = client.post("/v1/tables/forecast", json=asked).json()["notes"]
    assert "taken as missing" in note


def test_a_column_called_model_stays(client):
    rows = [f"{name},2026-01-{day:02},{day}" for name in ("x", "y") for day in range(1, 31)]
    asked = {"csv": "model,ds,y\n" + "\n".join(rows), "horizon": 1, "id_column": "model"}
    found = client.post("/v1/tables/forecast", json={**asked, "scores": False}).json()
    header, *lines = found["csv"].splitlines()
    assert header.startswith("model,ds,mean")
    assert header.endswith("forecast_by")
    assert [line.split(",")[0] for line in lines] == ["x", "y"]
    assert all(line.endswith(",cria") for line in lines)


@pytest.mark.parametrize("frequency", ["h", "D"])
@pytest.mark.parametrize("offset", ["+05:00", "-03:30", "Z"])
def test_an_offset_comes_back_and_changes_no_number(client, frequency, offset):
    """Clocks on the wall count; the same times as elsewhere are forecast alike."""
    plain, shifted = request(frequency=frequency), request(frequency=frequency)
    plain["inputs"][0]["start_timestamp"] = "2026-01-01T10:00"
    shifted["inputs"][0]["start_timestamp"] = "2026-01-01T10:00" + offset
    own, other = (contents(client.post(FORECAST, json=one))[0] for one in (plain, shifted))
    told = offset.replace("Z", "+00:00")
    assert other["start_timestamp"] == own["start_timestamp"] + told
    assert np.allclose(own["mean_forecast"], other["mean_forecast"], rtol=1e-5)


class Connection:
    """One request to the application, part by part, as a server hands it on."""

    def __init__(self, app, path=FORECAST, headers=(), parts=()):
        self.app, self.parts, self.sent = app, list(parts), []
        self.scope = {
            "type": "http", "method": "POST", "path": path, "query_string": b"", "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in headers],
        }  # fmt: skip

    async def receive(self):
        if not self.parts:
            await asyncio.Event().wait()
        part = self.parts.pop(0)
        if part is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part, "more_body": True}

    async def send(self, message):
        self.sent.append(message)

    async def answered(self):
        await asyncio.wait_for(self.app(self.scope, self.receive, self.send), 10)
        return self

    @property
    def status(self):
        return self.sent[0]["status"]

    @property
    def headers(self):
        return dict(self.sent[0]["headers"])


def test_without_a_key_nothing_is_read(models):
    service = Service(models, Limits(), {"0123456789abcdef": "anna"})
    asked = Connection(make_app(service), parts=[b"{"])
    asyncio.run(asked.answered())
    assert asked.status == 401
    assert asked.headers[b"www-authenticate"] == b"Bearer"
    assert asked.parts == [b"{"]


def test_a_body_that_does_not_come_is_given_up(models):
    asked = Connection(make_app(Service(models, Limits(reading_seconds=0.05))), parts=[b"{"])
    asyncio.run(asked.answered())
    assert asked.status == 408
    assert asked.headers[b"connection"] == b"close"


def test_who_hangs_up_is_no_fault_of_ours(models):
    service = Service(models, Limits())
    asked = Connection(make_app(service), parts=[b"{", None])
    asyncio.run(asked.answered())
    assert asked.sent == []
    (counted,) = [
        sample.labels["status"]
        for one in service.requests.collect()
        for sample in one.samples
        if sample.name.endswith("_total")
    ]
    assert counted == str(HUNG_UP)


def test_bodies_are_held_up_to_a_limit(models):
    app = make_app(Service(models, Limits(body_bytes=100, held_bytes=150)))

    async def run():
        slow = Connection(app, parts=[b" " * 60])
        task = asyncio.create_task(slow.answered())
        while slow.parts:
            await asyncio.sleep(0)
        full = await Connection(app, parts=[b" " * 50, b" " * 50]).answered()
        assert full.status == 503
        assert full.headers[b"retry-after"] == b"1"
        task.cancel()
        await asyncio.wait([task])
        large = await Connection(app, parts=[b" " * 90, b" " * 90]).answered()
        assert large.status == 413
        # What has been held is forgotten, whatever came of it.
        assert (await Connection(app, parts=[b" " * 90, b" " * 9, None]).answered()).sent == []

    asyncio.run(run())


def test_who_has_waited_too_long_leaves_the_queue_and_is_not_waited_for(models):
    gate = threading.Event()

    async def run():
        batcher = Batcher(Limits(seconds=0.1))
        batcher.start()
        asks = [
            batcher.ask_alone("hog", lambda: gate.wait(10)),
            batcher.ask_alone("other", lambda: None),
        ]
        found = await asyncio.gather(*asks, return_exceptions=True)
        assert [one.status for one in found] == [504, 504]
        assert batcher.busy
        assert not batcher.queues
        assert not batcher.waiting
        await asyncio.wait_for(batcher.close(), 5)
        assert batcher.busy
        gate.set()

    asyncio.run(run())


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
    for text, message in (("", "holds no key"), ("short", "at least 16"), ("ä" * 20, "of ASCII")):
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
    service = Service({"cria": Slow(models["cria"], gate)}, Limits(seconds=1.0))
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


def test_without_a_name_the_first_model_answers(models):
    tuned = Service({"tuned": models["cria"]}, Limits())
    with TestClient(make_app(tuned)) as client:
        asked = request()
        del asked["model"]
        assert client.post(FORECAST, json=asked).json()["model"] == "tuned"
        del asked["options"]
        for path in ("/v1/anomalies", "/v1/embeddings"):
            assert client.post(path, json=asked).json()["model"] == "tuned"
        told = client.post("/v1/tables/forecast", json={"csv": "y\n" + "1\n2\n" * 9, "horizon": 2})
        assert list(told.json()["series"][0]["forecasts"]) == ["tuned"]


def test_more_points_than_can_be_judged_in_time_are_refused(models):
    asked = request(count=2, length=60)
    del asked["options"]
    with TestClient(make_app(Service(models, Limits(judged=100)))) as client:
        answered = client.post("/v1/anomalies", json=asked)
    assert answered.status_code == 422
    assert answered.json()["errors"][0]["field"] == "inputs.series"


def test_a_frequency_that_is_none_is_told_by_its_field(client):
    table = {"csv": "ds,y\n2024-01-01,1\n2024-01-02,2", "horizon": 2, "frequency": "foo"}
    told = client.post("/v1/tables/forecast", json=table).json()
    assert told["errors"][0]["field"] == "frequency"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("schlüssel-0123456789".encode("latin-1"), "is not in UTF-8"),
        (b"a:0123456789abcdef\nb:0123456789abcdef\n", "line 2: the key stands there twice"),
    ],
)
def test_files_of_keys_that_cannot_be_meant_are_refused(tmp_path, content, message):
    (tmp_path / "keys").write_bytes(content)
    with pytest.raises(llamacast.DataError, match=message):
        read_keys(tmp_path / "keys")
    (tmp_path / "keys").write_bytes("\ufeffada:0123456789abcdef".encode())
    assert read_keys(tmp_path / "keys") == {"0123456789abcdef": "ada"}


class Knows(SeasonalNaive):
    """Weights that were fine-tuned on the time of the windows, and fail on some."""

    training = TrainingRecord(until="2024-03-25T00:00:00")

    def forecast(self, data, horizon, **options):
        if len(data) > 1 or len(data.values[0]) > 90:
            raise DataError("too long")
        return super().forecast(data, horizon)


def test_scores_of_a_model_that_knew_or_failed_are_told_so():
    days = pd.date_range("2024-01-01", periods=100)
    panel = read_panel(pd.DataFrame({"ds": days, "y": np.arange(100.0) % 7 + np.arange(100)}))
    scores, notes = standing(panel, 7, {"knows": Knows()})
    assert notes[0].startswith("knows: ")
    assert "its score is no forecast's" in notes[0]
    assert notes[1] == "knows failed on 1 of 3 windows: DataError: too long"
    # On the windows that both have told.
    assert [one.crps for one in scores if one.model == "knows"] == [1.0]
