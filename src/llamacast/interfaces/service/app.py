"""The HTTP service: routes over the facade."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import prometheus_client
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llamacast import __version__
from llamacast.anomalies import Anomalies
from llamacast.data.panel import Panel
from llamacast.forecast import DataError, Forecast
from llamacast.interfaces.service.finetunes import add_finetunes
from llamacast.interfaces.service.limits import PROBLEM, ServiceError, problem
from llamacast.interfaces.service.schema import (
    SHAPES,
    AnomaliesRequest,
    AnomaliesResponse,
    EmbeddingsResponse,
    ForecastOutput,
    ForecastRequest,
    ForecastResponse,
    ModelInfo,
    ModelsResponse,
    PanelRequest,
    Problem,
    SeriesAnomalies,
    SeriesEmbedding,
    Usage,
    answer,
    check_judged,
    check_numbers,
    check_size,
    check_steps,
    panel_of,
)
from llamacast.interfaces.service.state import REFUSALS, Caller, Service
from llamacast.interfaces.service.tables import (
    TableRequest,
    TableResponse,
    check_table,
    forecast_table,
    read_table,
)

DEFAULT_QUANTILES = [0.1, 0.5, 0.9]
NUM_SAMPLES = 100
HUNG_UP = 499
"""The status in log and numbers of a request that nobody waited to be answered."""
PAGE = Path(str(files("llamacast.interfaces.service") / "page"))
log = logging.getLogger("llamacast.service")


def make_app(service: Service) -> FastAPI:
    """The application, ready for uvicorn."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.batcher.start()
        if service.jobs is not None:
            service.jobs.start()
        yield
        await service.batcher.close()
        if service.jobs is not None:
            await service.jobs.close()

    app = FastAPI(
        title="LlamaCast",
        version=__version__,
        description="Forecasts of time series, and how sure they are.",
        lifespan=lifespan,
        docs_url="/docs",
        redoc_url=None,
    )
    app.state.service = service
    app.add_middleware(Guard, service=service)
    _add_errors(app)
    _add_status(app, service)
    _add_answers(app, service)
    add_finetunes(app, service)
    app.mount("/page", StaticFiles(directory=PAGE), name="page")

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    def page() -> str:
        return (PAGE / "index.html").read_text()

    return app


def _add_status(app: FastAPI, service: Service) -> None:
    @app.get("/health", tags=["status"])
    def health() -> dict[str, str]:
        """The process lives."""
        return {"status": "alive"}

    @app.get(
        "/ready",
        tags=["status"],
        responses={503: {"model": Problem, "content": {PROBLEM: {}}, "description": "Not now."}},
    )
    def ready() -> dict[str, str]:
        """Requests are taken."""
        if service.batcher.closing or service.batcher.waiting >= service.limits.waiting:
            raise ServiceError(503, "no more requests are taken now", retry_after=1)
        if service.jobs is not None and service.jobs.ended:
            raise ServiceError(
                503, "fine-tunes are not worked on any more; start the service again"
            )
        return {"status": "ready"}

    @app.get("/metrics", tags=["status"], response_class=PlainTextResponse)
    def metrics() -> Response:
        """For Prometheus."""
        told = prometheus_client.generate_latest(service.registry)
        return Response(told, media_type=prometheus_client.CONTENT_TYPE_LATEST)


def _add_answers(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models", tags=["models"], responses={401: REFUSALS[401]})
    def models(who: Caller) -> ModelsResponse:
        """What requests can name."""
        known = service.trained_on(who)
        return ModelsResponse(
            models=[ModelInfo(name=name, trained_on=list(seen)) for name, seen in known.items()]
        )

    @app.post(
        "/v1/timeseries/forecast",
        tags=["time series"],
        response_model=ForecastResponse,
        responses=REFUSALS,
    )
    async def forecast(asked: ForecastRequest, who: Caller) -> Response:
        """Forecast series. The same request has the same answer, to the rounding of float32, whatever
        else is asked at the time."""
        name, model = await asyncio.to_thread(service.model, asked.model, who)
        options = asked.options
        quantiles = sorted(set(options.quantiles or DEFAULT_QUANTILES))
        check_size(asked.inputs, options.horizon, len(quantiles), service.limits)
        num_series = sum(one.num_variates for one in asked.inputs)
        check_steps(model, num_series, options.horizon, service.limits)
        check_numbers(num_series, options.horizon, len(quantiles), service.limits)

        def call(panel: Panel) -> Forecast:
            return model.forecast(
                panel,
                options.horizon,
                num_samples=NUM_SAMPLES,
                seed=options.seed,
                nonnegative=options.nonnegative,
                integer=options.integer,
                progress=False,
            )

        kind = (options.horizon, options.seed, options.nonnegative, options.integer)
        panel = await asyncio.to_thread(panel_of, asked.inputs)
        found = await service.batcher.ask(who, ("forecast", name, *kind), panel, call)
        service.series.inc(len(found.ids))
        read = sum(len(one.series) for one in asked.inputs)
        written = len(found.ids) * options.horizon
        content = await asyncio.to_thread(answer, asked.inputs, found, quantiles)
        told = ForecastResponse.model_construct(
            id=f"forecast-{uuid.uuid4().hex}",
            created_at=int(time.time()),
            model=name,
            outputs=[
                ForecastOutput.model_construct(id=f"output-{uuid.uuid4().hex}", content=content)
            ],
            usage=Usage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written),
            metadata=asked.metadata,
        )
        return Response(told.model_dump_json(), media_type="application/json")

    @app.post("/v1/tables/forecast", tags=["tables"], responses=REFUSALS)
    async def forecast_csv(asked: TableRequest, who: Caller) -> TableResponse:
        """Forecast a CSV as it is, by one or two models, and tell where they stood before."""
        asked_for: list[str | None] = list(dict.fromkeys(asked.models or ())) or [None]
        models = dict([await asyncio.to_thread(service.model, one, who) for one in asked_for])

        def call() -> TableResponse:
            panel = read_table(asked, service.limits)
            check_table(asked, panel, models, service.limits)
            return forecast_table(asked, panel, models)

        return await service.batcher.ask_alone(who, call)

    @app.post(
        "/v1/anomalies",
        tags=["time series"],
        response_model=AnomaliesResponse,
        responses=REFUSALS,
    )
    async def anomalies(asked: AnomaliesRequest, who: Caller) -> Response:
        """Which values are odd, each judged by those before it."""
        name, model = await asyncio.to_thread(service.model, asked.model, who)
        check_size(asked.inputs, 1, 0, service.limits)
        check_judged(model, asked.inputs, service.limits)

        def call(panel: Panel) -> Anomalies:
            return model.detect(panel, false_alarm_rate=asked.false_alarm_rate, progress=False)

        panel = await asyncio.to_thread(panel_of, asked.inputs)
        found = await service.batcher.ask(who, uuid.uuid4(), panel, call)

        def told() -> str:
            outputs = [
                SeriesAnomalies.model_construct(
                    name=str(own),
                    probability=[None if one != one else one for one in probability.tolist()],
                    anomaly=flags.tolist(),
                )
                for own, probability, flags in zip(
                    found.ids, found.probability, found.flags, strict=True
                )
            ]
            return AnomaliesResponse.model_construct(model=name, outputs=outputs).model_dump_json()

        return Response(await asyncio.to_thread(told), media_type="application/json")

    @app.post("/v1/embeddings", tags=["time series"], responses=REFUSALS)
    async def embeddings(asked: PanelRequest, who: Caller) -> EmbeddingsResponse:
        """A vector for each series, that tells its shape and not its size."""
        model_name, model = await asyncio.to_thread(service.model, asked.model, who)
        check_size(asked.inputs, 1, 0, service.limits)
        panel = await asyncio.to_thread(panel_of, asked.inputs)
        frame = await service.batcher.ask(who, uuid.uuid4(), panel, model.embed)
        return EmbeddingsResponse(
            model=model_name,
            outputs=[
                SeriesEmbedding(name=name, vector=[float(one) for one in row])
                for name, row in zip(panel.ids, frame.to_numpy(), strict=True)
            ],
        )


def refusal(
    status: int, detail: str, errors: Any = None, retry_after: int | None = None
) -> JSONResponse:
    """Problem details as an answer."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status == 408:
        headers["Connection"] = "close"  # what comes of the body later is no request
    return JSONResponse(
        problem(status, detail, errors), status, headers=headers, media_type=PROBLEM
    )


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ServiceError)
    async def refused(request: Request, error: ServiceError) -> JSONResponse:
        errors = [{"field": error.field, "message": error.detail}] if error.field else None
        return refusal(error.status, error.detail, errors, error.retry_after)

    @app.exception_handler(DataError)
    async def unusable(request: Request, error: DataError) -> JSONResponse:
        return refusal(422, str(error), [{"field": "inputs", "message": str(error)}])

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        found = error.errors()
        if any(one["type"] == "json_invalid" for one in found):
            return refusal(400, f"the body is not JSON: {found[0].get('ctx', {}).get('error', '')}")
        errors = [
            {
                "field": _field(one["loc"]),
                "message": str(one["msg"]).removeprefix("Value error, "),
            }
            for one in found[:20]
        ]
        return refusal(422, f"{errors[0]['field']}: {errors[0]['message']}", errors)

    @app.exception_handler(HTTPException)
    async def known(request: Request, error: HTTPException) -> JSONResponse:
        found = refusal(error.status_code, str(error.detail))
        found.headers.update(error.headers or {})
        return found

    @app.exception_handler(Exception)
    async def ours(request: Request, error: Exception) -> JSONResponse:
        log.exception("a request failed")
        return refusal(
            500, "the request could not be answered, and it is our fault; it has been noted"
        )


def _field(place: Sequence[int | str]) -> str:
    """As users know it: without the whole, and without which of its shapes a field was taken for."""
    return ".".join(str(part) for part in place if part not in ("body", *SHAPES)) or "body"


class _HungUpError(Exception):
    """Whoever asked has gone before the end of the question."""


class Guard:
    """Before anything is parsed: who asks, and how large a body is. Afterwards: a line of the log, and
    numbers."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service
        self.held = 0
        """Bytes of bodies."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 500

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._limited(scope, receive, sent)
        except _HungUpError:
            status = HUNG_UP
        finally:
            seconds = time.perf_counter() - begun
            route = getattr(scope.get("route"), "path", "other")
            self.service.requests.labels(route, str(status)).inc()
            self.service.seconds.labels(route).observe(seconds)
            told = {
                "method": scope["method"],
                "route": route,
                "status": status,
                "seconds": round(seconds, 4),
            }
            log.info(json.dumps(told))

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        # No other address takes a body, or needs a key.
        if not scope["path"].startswith("/v1/"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        held = [0]
        try:
            self.service.caller(headers.get("authorization"), headers.get("x-api-key"))
            if scope["method"] in ("POST", "PUT", "PATCH"):
                receive = await self._read(headers, receive, held)
            await self.app(scope, receive, send)
        except ServiceError as error:
            await refusal(error.status, error.detail, None, error.retry_after)(scope, receive, send)
        finally:
            self.held -= held[0]

    async def _read(self, headers: Headers, receive: Receive, held: list[int]) -> Receive:
        """What hands the whole body on. Its bytes are told in `held` as they come.

        Raises:
            ServiceError: 413, 503, or 408 if it does not come in time.
        """
        limits = self.service.limits
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > limits.body_bytes:
            raise self._too_large()
        whole = bytearray()
        try:
            async with asyncio.timeout(limits.reading_seconds):
                # Counted, too, so that a body without a length is stopped.
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise _HungUpError
                    chunk = message.get("body", b"")
                    held[0] += len(chunk)
                    self.held += len(chunk)
                    if held[0] > limits.body_bytes:
                        raise self._too_large()
                    if self.held > limits.held_bytes:
                        raise ServiceError(503, "too many bodies are held", retry_after=1)
                    whole += chunk
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            raise ServiceError(
                408, f"the body did not arrive within {limits.reading_seconds:g} seconds"
            ) from None
        handed = False

        async def given() -> Message:
            nonlocal handed
            if handed:
                return await receive()
            handed, body = True, bytes(whole)
            whole.clear()
            return {"type": "http.request", "body": body, "more_body": False}

        return given

    def _too_large(self) -> ServiceError:
        most = self.service.limits.body_bytes
        return ServiceError(413, f"the body may have {most} bytes; send fewer series at a time")
