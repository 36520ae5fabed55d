"""What a service accepts, and what it says of what it does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PROBLEM = "application/problem+json"


@dataclass(frozen=True)
class Limits:
    """Most of everything in a request, and most requests."""

    body_bytes: int = 16 * 2**20
    held_bytes: int = 256 * 2**20
    """Of all bodies that are being read, wait or are worked on."""
    reading_seconds: float = 30.0
    """From a request's first line to the end of its body."""
    series: int = 1_000
    """In a request; of a multivariate one each variate counts."""
    points: int = 2_000_000
    """In a request, over all series; steps without a row count, too."""
    cells: int = 8_000_000
    """In a CSV: its lines times its columns."""
    horizon: int = 2_000
    quantiles: int = 99
    steps: int = 200_000
    """In an answer: series times horizon."""
    steps_of_paths: int = 5_000
    """The same, of a model that draws its paths step after step (Lag-Llama)."""
    judged: int = 100_000
    """Points of a request for anomalies; some thirty seconds of a core."""
    judged_of_paths: int = 20_000
    """The same, of a model that looks at each step by itself (Lag-Llama)."""
    numbers: int = 2_000_000
    """In an answer: series times horizon times quantiles."""
    waiting: int = 256
    """Requests that are worked on or wait; more are told to come again."""
    waiting_per_caller: int = 64
    seconds: float = 60.0
    """From a request's arrival to its answer."""
    finetunes_waiting: int = 4
    """Jobs of a caller that wait or go on."""
    finetunes_kept: int = 20
    """Of a caller in all; each has its data and a model of some 14 MB on disk."""
    finetune_steps: int = 5_000
    finetune_seconds: float = 3_600.0
    """From a job's start to its end."""


class ServiceError(Exception):
    """A request that is not answered, with its HTTP status and, for some, when to come again."""

    def __init__(
        self, status: int, detail: str, field: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.field, self.retry_after = status, detail, field, retry_after


def problem(status: int, detail: str, errors: list[dict[str, str]] | None = None) -> dict[str, Any]:
    """Problem details (RFC 9457), with the fields that are wrong. What a request brought of half
    characters (lone surrogates), which cannot be sent, is shown as question marks."""
    titles = {
        400: "The body is not JSON",
        401: "The API key is missing or wrong",
        404: "There is no such thing",
        405: "This address takes other methods",
        408: "The body did not arrive in time",
        409: "The state does not allow it",
        413: "The body is too large",
        422: "The request cannot be used",
        429: "Too many requests of one caller",
        500: "Something is wrong in the service",
        503: "The service is busy",
        504: "It took too long",
    }
    found: dict[str, Any] = {
        "type": "about:blank",
        "title": titles.get(status, "The request cannot be answered"),
        "status": status,
        "detail": _sendable(detail),
    }
    if errors:
        found["errors"] = [
            {name: _sendable(text) for name, text in error.items()} for error in errors
        ]
    return found


def _sendable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
