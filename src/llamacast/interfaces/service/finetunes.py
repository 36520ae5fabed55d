"""Routes of fine-tuning jobs."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from llamacast.data.panel import Panel
from llamacast.interfaces.service.jobs import FinetuneRequest, Job, Jobs, Status
from llamacast.interfaces.service.limits import PROBLEM, Limits, ServiceError
from llamacast.interfaces.service.schema import Problem, Strict, check_size, panel_of
from llamacast.interfaces.service.state import REFUSALS, Caller, Service

TAG = "fine-tuning"
_OVER = {"model": Problem, "content": {PROBLEM: {}}, "description": "It is over, or not yet."}
_FIND: dict[int | str, dict[str, Any]] = {status: REFUSALS[status] for status in (401, 404, 422)}


class FinetuneVerdict(Strict):
    """What came of it, on the last windows of the series, which nothing was learnt from."""

    improved: bool = False
    """If not, the model is the one it began with."""
    crps_before: float
    crps_after: float
    sentence: str


class Finetune(Strict):
    """A job."""

    id: str
    status: Status
    base: str
    horizon: int
    strategy: str
    step: int
    steps: int
    created_at: int
    started_at: int | None
    finished_at: int | None
    model: str | None
    """For requests to name, once it has succeeded."""
    verdict: FinetuneVerdict | None
    error: str | None


class Finetunes(Strict):
    """All of a caller."""

    finetunes: list[Finetune]


def add_finetunes(app: FastAPI, service: Service) -> None:
    """`/v1/fine-tunes` and what is under it."""

    def jobs() -> Jobs:
        if service.jobs is None:
            raise ServiceError(
                404, "this service does not fine-tune; start it with --fine-tunes FOLDER"
            )
        return service.jobs

    @app.post("/v1/fine-tunes", tags=[TAG], status_code=202, responses=REFUSALS)
    async def create(asked: FinetuneRequest, who: Caller) -> Finetune:
        """Learn from series; kept is only what surely forecasts better."""
        queue, limits = jobs(), service.limits
        if asked.steps > limits.finetune_steps:
            raise ServiceError(422, f"steps may be {limits.finetune_steps} at most", "steps")
        check_size(asked.inputs, asked.horizon, 0, limits, "horizon")
        base, model = await asyncio.to_thread(service.model, asked.model, who)
        panel = await asyncio.to_thread(panel_of, asked.inputs)
        await asyncio.to_thread(_check, panel, asked, limits)
        return _told(await asyncio.to_thread(queue.submit, who, asked, base, model))

    @app.get("/v1/fine-tunes", tags=[TAG], responses={s: REFUSALS[s] for s in (401, 404)})
    def listed(who: Caller) -> Finetunes:
        """All of yours, oldest first."""
        return Finetunes(finetunes=[_told(job) for job in jobs().all(who)])

    @app.get("/v1/fine-tunes/{name}", tags=[TAG], responses=_FIND)
    def found(name: str, who: Caller) -> Finetune:
        """How far it is, and what came of it."""
        return _told(jobs().one(name, who))

    @app.get(
        "/v1/fine-tunes/{name}/log", tags=[TAG], response_class=PlainTextResponse, responses=_FIND
    )
    def log(name: str, who: Caller) -> str:
        """Its cost, and a line for each validation."""
        return jobs().log(name, who)

    @app.post("/v1/fine-tunes/{name}/cancel", tags=[TAG], responses={**_FIND, 409: _OVER})
    def cancel(name: str, who: Caller) -> Finetune:
        """Stop it, or take it out of the queue."""
        return _told(jobs().cancel(name, who))

    @app.delete(
        "/v1/fine-tunes/{name}", tags=[TAG], status_code=204, responses={**_FIND, 409: _OVER}
    )
    def delete(name: str, who: Caller) -> None:
        """Forget it, with its data and its model."""
        jobs().delete(name, who)


def _check(panel: Panel, asked: FinetuneRequest, limits: Limits) -> None:
    """What can be told before anything is learnt.

    Raises:
        DataError: if the series are too short.
    """
    from llamacast.training.finetune import FinetuneConfig, split

    split(panel, FinetuneConfig(horizon=asked.horizon))


def _told(job: Job) -> Finetune:
    verdict = None if job.verdict is None else json.loads(job.verdict)
    return Finetune(
        id=job.name,
        status=job.status,
        base=job.base,
        horizon=job.horizon,
        strategy=job.strategy,
        step=job.reached,
        steps=job.steps,
        created_at=int(job.created),
        started_at=None if job.started is None else int(job.started),
        finished_at=None if job.finished is None else int(job.finished),
        model=job.name if job.status == "succeeded" else None,
        verdict=None
        if verdict is None
        else FinetuneVerdict(**{name: verdict[name] for name in FinetuneVerdict.model_fields}),
        error=job.error,
    )
