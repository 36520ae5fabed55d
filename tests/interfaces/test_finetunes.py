from __future__ import annotations

import concurrent.futures
import sqlite3
import threading
import time

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient

import llamacast
from llamacast.forecast import DataError
from llamacast.interfaces.service import jobs as jobs_module
from llamacast.interfaces.service.app import make_app
from llamacast.interfaces.service.jobs import DATABASE, FinetuneRequest, Jobs, Queue, reached
from llamacast.interfaces.service.limits import Limits, ServiceError
from llamacast.interfaces.service.schema import SeriesInput, panel_of
from llamacast.interfaces.service.state import Service
from tests.interfaces.serving import serving, wait_for

JOBS = "/v1/fine-tunes"
KEYS = {"a-key-of-somebody": "somebody", "a-key-of-another": "another"}


@pytest.fixture(scope="module")
def models():
    return {"cria": llamacast.load("cria", device="cpu")}


def series(count=2, length=90):
    rng = np.random.default_rng(3)
    weeks = 10 + np.arange(length) % 7 + rng.standard_normal((count, length)).round(3)
    return [
        {"name": f"s{n}", "series": row.tolist(), "frequency": "D"} for n, row in enumerate(weeks)
    ]


def asked(**options):
    given = {"inputs": series(), "horizon": 7, "strategy": "head", "steps": 4}
    return {**given, **options}


def client_of(models, folder, **limits):
    set_ = Limits(**limits)
    return TestClient(
        make_app(Service(models, set_, KEYS, jobs=Jobs(folder, set_))),
        raise_server_exceptions=False,
    )


def key(name="a-key-of-somebody"):
    return {"Authorization": f"Bearer {name}"}


def over(client, name, seconds=120):
    def told():
        return client.get(f"{JOBS}/{name}", headers=key()).json()

    wait_for(lambda: told()["status"] not in ("queued", "running"), seconds)
    return told()


def test_a_job_gives_the_model_that_the_facade_gives(models, tmp_path):
    with client_of(models, tmp_path / "jobs") as client:
        accepted = client.post(JOBS, json=asked(), headers=key())
        assert accepted.status_code == 202
        name = accepted.json()["id"]
        assert accepted.json()["status"] == "queued"
        assert accepted.json()["model"] is None
        job = over(client, name)
        assert job["status"] == "succeeded", job
        assert (job["model"], job["step"], job["error"]) == (name, 4, None)
        own = models["cria"].finetune(
            panel_of([SeriesInput(**one) for one in series()]), 7, strategy="head", steps=4
        )
        assert job["verdict"]["crps_after"] == pytest.approx(own.verdict.crps_after, rel=1e-4)
        assert job["verdict"]["sentence"] == str(own.verdict)
        log = client.get(f"{JOBS}/{name}/log", headers=key())
        assert "weights learn" in log.text
        assert "step 4" in log.text
        # The model has a name, for its owner and nobody else.
        request = {"model": name, "inputs": series(), "options": {"horizon": 7}}
        found = client.post("/v1/timeseries/forecast", json=request, headers=key())
        assert found.status_code == 200
        expected = own.forecast(panel_of([SeriesInput(**one) for one in series()]), 7)
        content = found.json()["outputs"][0]["content"]
        assert np.allclose(content[1]["quantiles"]["0.5"], expected.median[1], rtol=1e-4)
        listed = client.get("/v1/models", headers=key()).json()["models"]
        assert [one["name"] for one in listed] == ["cria", name]
        others = key("a-key-of-another")
        assert (
            client.post("/v1/timeseries/forecast", json=request, headers=others).status_code == 404
        )
        for told in (
            client.get(f"{JOBS}/{name}", headers=others),
            client.get(f"{JOBS}/{name}/log", headers=others),
            client.delete(f"{JOBS}/{name}", headers=others),
        ):
            assert told.status_code == 404
        assert client.get(JOBS, headers=others).json() == {"finetunes": []}
        # What goes on is not kept, the model is, until it is deleted.
        assert sorted(one.name for one in (tmp_path / "jobs" / name).iterdir()) == [
            "log.txt",
            "model",
            "outcome.json",
            "request.json",
        ]
        assert client.delete(f"{JOBS}/{name}", headers=key()).status_code == 204
        assert not (tmp_path / "jobs" / name).exists()
        assert (
            client.post("/v1/timeseries/forecast", json=request, headers=key()).status_code == 404
        )


def test_jobs_are_cancelled_whether_they_wait_or_go_on(models, tmp_path):
    with client_of(models, tmp_path) as client:
        first, second = (
            client.post(JOBS, json=asked(steps=2000), headers=key()).json()["id"] for _ in range(2)
        )
        wait_for(lambda: client.get(f"{JOBS}/{first}", headers=key()).json()["status"] == "running")
        assert client.delete(f"{JOBS}/{first}", headers=key()).status_code == 409
        for name in (second, first):
            cancelled = client.post(f"{JOBS}/{name}/cancel", headers=key())
            assert cancelled.json()["status"] == "cancelled"
            assert client.post(f"{JOBS}/{name}/cancel", headers=key()).status_code == 409
        wait_for(lambda: not (tmp_path / first / "run").exists())
        wait_for(lambda: client.delete(f"{JOBS}/{first}", headers=key()).status_code == 204)
        # The queue goes on.
        third = client.post(JOBS, json=asked(), headers=key()).json()["id"]
        assert over(client, third)["status"] == "succeeded"


def test_jobs_are_bounded_in_number_steps_size_and_time(models, tmp_path):
    few = {"finetunes_waiting": 2, "finetunes_kept": 3, "finetune_seconds": 0.5}
    with client_of(models, tmp_path, **few, finetune_steps=100) as client:
        names = [client.post(JOBS, json=asked(), headers=key()).json()["id"] for _ in range(2)]
        third = client.post(JOBS, json=asked(), headers=key())
        assert third.status_code == 429
        assert int(third.headers["retry-after"]) > 0
        # Of another caller there are none.
        other = client.post(JOBS, json=asked(), headers=key("a-key-of-another"))
        assert other.status_code == 202
        for name in names:
            job = over(client, name)
            assert job["status"] == "failed"
            assert "0.5 seconds" in job["error"]
        assert client.post(JOBS, json=asked(), headers=key()).status_code == 202
        full = client.post(JOBS, json=asked(), headers=key())
        assert full.status_code == 429
        assert "delete some" in full.json()["detail"]
        for body, field in (
            (asked(steps=101), "steps"),
            (asked(horizon=0), "horizon"),
            (asked(strategy="magic"), "strategy"),
            (asked(horizon=70), "inputs"),  # too short
            (asked(horizon=10**6), "horizon"),
            (asked(model="gpt"), "model"),
        ):
            told = client.post(JOBS, json=body, headers=key("a-key-of-another"))
            assert told.status_code in (404, 422), body
            assert told.json()["errors"][0]["field"] == field
    assert len(list(tmp_path.glob("ft-*"))) == 4


def test_where_it_is_not_offered_it_says_how_to(models):
    with TestClient(make_app(Service(models, Limits()))) as client:
        told = client.get(JOBS)
        assert told.status_code == 404
        assert "--fine-tunes" in told.json()["detail"]


def test_a_folder_has_one_service(tmp_path):
    first = Jobs(tmp_path, Limits())
    with pytest.raises(DataError, match="another service"):
        Jobs(tmp_path, Limits())
    first.queue.close()
    Jobs(tmp_path, Limits()).queue.close()
    (tmp_path / DATABASE).write_text("no database " * 100)
    with pytest.raises(DataError, match="no table of jobs"):
        Jobs(tmp_path, Limits())


def test_a_job_outlives_a_kill_in_the_middle(models, tmp_path):
    folder = tmp_path / "jobs"
    body = asked(steps=12)
    with serving(tmp_path, "--fine-tunes", folder) as (process, address):
        name = httpx.post(address + JOBS, json=body).json()["id"]
        wait_for(lambda: httpx.get(f"{address}{JOBS}/{name}").json()["step"] >= 4, 120)
        process.kill()
        process.wait()
        time.sleep(2)  # its process ends with it
        before = (folder / name / "run" / "log.csv").read_text()
        time.sleep(1)
        assert (folder / name / "run" / "log.csv").read_text() == before
    with sqlite3.connect(folder / DATABASE) as table:
        assert table.execute("select status from jobs").fetchall() == [("running",)]
    with serving(tmp_path, "--fine-tunes", folder) as (process, address):
        found = f"{address}{JOBS}/{name}"
        wait_for(lambda: httpx.get(found).json()["status"] == "succeeded", 120)
        told = httpx.get(found).json()
    own = models["cria"].finetune(
        panel_of([SeriesInput(**one) for one in series()]), 7, strategy="head", steps=12
    )
    assert told["verdict"]["crps_after"] == pytest.approx(own.verdict.crps_after, rel=1e-4)


def test_trouble_with_one_job_does_not_keep_others_waiting(models, tmp_path, monkeypatch):
    """A full disk, no more processes: the worker goes on."""
    settle, troubled = Jobs._settle, []

    def once(self, job, code, late):
        if not troubled:
            troubled.append(job.name)
            raise OSError("no space left on device")
        settle(self, job, code, late)

    monkeypatch.setattr(Jobs, "_settle", once)
    with client_of(models, tmp_path) as client:
        names = [client.post(JOBS, json=asked(), headers=key()).json()["id"] for _ in range(2)]
        assert [over(client, name)["status"] for name in names] == ["failed", "succeeded"]
        assert (
            client.get(f"{JOBS}/{names[0]}", headers=key()).json()["error"].startswith("it is our")
        )


def test_a_disk_that_was_full_does_not_end_the_queue(models, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs_module, "PAUSE_SECONDS", 0.02)
    change, full = Queue.change, threading.Event()
    full.set()
    refused = []

    def unless_full(self, name, *only, **fields):
        if full.is_set():
            refused.append(name)
            raise sqlite3.OperationalError("database or disk is full")
        return change(self, name, *only, **fields)

    async def at_once(self, job):
        self.queue.change(job.name, ("queued",), status="succeeded")

    monkeypatch.setattr(Queue, "change", unless_full)
    monkeypatch.setattr(Jobs, "_do", at_once)
    with client_of(models, tmp_path) as client:
        names = [client.post(JOBS, json=asked(), headers=key()).json()["id"] for _ in range(2)]
        wait_for(lambda: len(refused) > 3)
        assert client.get("/ready").status_code == 200
        full.clear()
        assert [over(client, name)["status"] for name in names] == ["failed", "succeeded"]


def test_it_is_not_ready_once_nobody_works_on_the_queue(models, tmp_path, monkeypatch):
    async def ends(self):
        raise SystemError

    monkeypatch.setattr(Jobs, "_work", ends)
    with client_of(models, tmp_path) as client:
        wait_for(lambda: client.get("/ready").status_code == 503)
        assert "fine-tunes" in client.get("/ready").json()["detail"]


def test_many_at_once_do_not_pass_the_limit(models, tmp_path):
    jobs = Jobs(tmp_path, Limits())
    wanted = FinetuneRequest(**asked())

    def submit(_):
        try:
            jobs.submit("somebody", wanted, "cria", models["cria"])
        except ServiceError as error:
            return error.status
        return 202

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        found = list(pool.map(submit, range(24)))
    assert found.count(202) == Limits().finetunes_waiting
    assert found.count(429) == 24 - Limits().finetunes_waiting


def test_a_model_that_another_job_begins_with_is_not_deleted(models, tmp_path):
    with client_of(models, tmp_path) as client:
        first = client.post(JOBS, json=asked(steps=1), headers=key()).json()["id"]
        assert over(client, first)["status"] == "succeeded"
        second = client.post(JOBS, json=asked(model=first, steps=2000), headers=key()).json()["id"]
        refused = client.delete(f"{JOBS}/{first}", headers=key())
        assert refused.status_code == 409
        assert "begins with" in refused.json()["detail"]
        client.post(f"{JOBS}/{second}/cancel", headers=key())


def test_a_log_that_is_cut_short_tells_of_no_steps(tmp_path):
    assert reached(tmp_path) == 0
    (tmp_path / "log.csv").write_text("")
    assert reached(tmp_path) == 0
    (tmp_path / "log.csv").write_text("step,minutes\n")
    assert reached(tmp_path) == 0


def test_a_job_in_which_the_service_goes_down_again_and_again_is_given_up(models, tmp_path):
    jobs = Jobs(tmp_path, Limits())
    with TestClient(make_app(Service(models, Limits(), jobs=jobs))) as client:
        name = client.post(JOBS, json=asked(steps=2000)).json()["id"]
        wait_for(lambda: client.get(f"{JOBS}/{name}").json()["status"] == "running")
    with sqlite3.connect(tmp_path / DATABASE) as table:
        # Told to stop is not going down.
        assert table.execute("select status, starts from jobs").fetchall() == [("queued", 0)]
        table.execute("update jobs set starts = 3")
    table.close()
    again = Service(models, Limits(), jobs=Jobs(tmp_path, Limits()))
    with TestClient(make_app(again)) as client:
        wait_for(lambda: client.get(f"{JOBS}/{name}").json()["status"] == "failed")
        assert "3 times" in client.get(f"{JOBS}/{name}").json()["error"]
