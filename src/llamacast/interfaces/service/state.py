"""What all routes share: models, limits, keys, numbers, and who asks."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import prometheus_client
from fastapi import Depends, Header, Request

from llamacast.forecaster import PretrainedForecaster
from llamacast.interfaces.service.batching import Batcher
from llamacast.interfaces.service.jobs import Jobs
from llamacast.interfaces.service.limits import PROBLEM, Limits, ServiceError
from llamacast.interfaces.service.schema import Problem

ANYBODY = "anybody"

REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "content": {PROBLEM: {}}, "description": text}
    for status, text in (
        (400, "The body is not JSON."),
        (401, "The API key is missing or wrong."),
        (404, "There is no such model."),
        (408, "The body did not arrive in time."),
        (413, "The body is too large."),
        (422, "A field is wrong; `errors` names it."),
        (429, "Too many requests of one caller wait."),
        (503, "Too many requests wait or are sent, or the service shuts down."),
        (504, "It took too long."),
    )
}


@dataclass
class Service:
    """What routes share."""

    models: Mapping[str, PretrainedForecaster]
    limits: Limits
    keys: Mapping[str, str] = field(default_factory=dict)
    """API keys and whose they are; none lets everybody in."""
    together: bool = True
    """Requests that arrive together are answered by one call."""
    jobs: Jobs | None = None
    """Fine-tuning, where it is offered."""
    registry: prometheus_client.CollectorRegistry = field(
        default_factory=prometheus_client.CollectorRegistry
    )

    def __post_init__(self) -> None:
        registry = self.registry
        self.requests = prometheus_client.Counter(
            "llamacast_requests",
            "Requests by address and status.",
            ["route", "status"],
            registry=registry,
        )
        self.seconds = prometheus_client.Histogram(
            "llamacast_request_seconds", "From arrival to answer.", ["route"], registry=registry
        )
        self.sizes = prometheus_client.Histogram(
            "llamacast_batch_requests",
            "Requests answered by a call.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
            registry=registry,
        )
        self.series = prometheus_client.Counter(
            "llamacast_series", "Series that were forecast.", registry=registry
        )
        self.batcher = Batcher(self.limits, self.together)
        self.batcher.sizes = self.sizes.observe
        prometheus_client.Gauge(
            "llamacast_waiting", "Requests that wait or are worked on.", registry=registry
        ).set_function(lambda: self.batcher.waiting)

    def trained_on(self, who: str) -> dict[str, tuple[str, ...]]:
        """Models that a caller can name, and the data sets that their weights have seen."""
        found = {name: model.training.datasets for name, model in self.models.items()}
        for job in self.jobs.all(who) if self.jobs is not None else []:
            if job.status == "succeeded":
                found[job.name] = found.get(job.base, ())
        return found

    def model(self, asked: str | None, who: str) -> tuple[str, PretrainedForecaster]:
        """A name and its model, the first where none is asked for; those that a caller has fine-tuned are
        that caller's alone.

        Raises:
            ServiceError: 404.
        """
        name = asked or next(iter(self.models))
        if name in self.models:
            return name, self.models[name]
        own = self.jobs.succeeded(who) if self.jobs is not None else []
        if self.jobs is not None and name in own:
            return name, self.jobs.model(name)
        known = ", ".join([*self.models, *own])
        raise ServiceError(404, f"there is no model {name!r}; there are {known}", "model")

    def caller(self, authorization: str | None, api_key: str | None) -> str:
        """Who asks; keys are compared in constant time.

        Raises:
            ServiceError: 401.
        """
        if not self.keys:
            return ANYBODY
        given = api_key or ""
        if authorization is not None and authorization.lower().startswith("bearer "):
            given = authorization[len("bearer ") :].strip()
        found = None
        for key, owner in self.keys.items():  # all of them, so that time tells nothing
            if hmac.compare_digest(key.encode(), given.encode()):
                found = owner
        if found is None:
            raise ServiceError(401, "give a key as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'")
        return found


def _caller(
    request: Request,
    authorization: Annotated[str | None, Header(include_in_schema=False)] = None,
    x_api_key: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> str:
    service: Service = request.app.state.service
    return service.caller(authorization, x_api_key)


Caller = Annotated[str, Depends(_caller)]
