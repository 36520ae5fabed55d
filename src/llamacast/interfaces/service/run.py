"""The service as a process: keys from a file, one port, an end that loses nothing."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import uvicorn

from llamacast.forecast import DataError
from llamacast.forecaster import PretrainedForecaster
from llamacast.interfaces.service.app import make_app
from llamacast.interfaces.service.jobs import Jobs
from llamacast.interfaces.service.limits import Limits
from llamacast.interfaces.service.state import Service

SHORTEST_KEY = 16
GRACE_SECONDS = 90


def read_keys(file: Path) -> dict[str, str]:
    """Keys and their owners, a line each: `KEY`, or `OWNER:KEY`. Empty lines and `#` count for nothing.

    Raises:
        DataError: if there is none, one is too short to be one or stands there twice, or the file is no
            text.
    """
    found: dict[str, str] = {}
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not in UTF-8 ({error.reason}); save it so") from error
    for number, line in enumerate(text.splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        owner, separator, key = text.partition(":")
        # Not by its line: jobs and models belong to an owner, and lines come and go.
        digest = hashlib.sha256(text.encode()).hexdigest()
        owner, key = (owner, key.strip()) if separator else (f"key {digest[:16]}", text)
        if len(key) < SHORTEST_KEY:
            raise DataError(f"{file}, line {number}: a key has at least {SHORTEST_KEY} characters")
        if not key.isascii():  # headers carry no others alike everywhere
            raise DataError(
                f"{file}, line {number}: a key holds letters, digits and signs of ASCII"
            )
        if key in found:
            raise DataError(f"{file}, line {number}: the key stands there twice; give each its own")
        found[key] = owner.strip()
    if not found:
        raise DataError(f"{file} holds no key; write one on each line")
    return found


def run_service(
    models: Mapping[str, PretrainedForecaster],
    host: str,
    port: int,
    keys: Mapping[str, str],
    batching: bool,
    finetunes: Path | None,
    tell: Callable[[str], None],
) -> None:
    """Serve until told to stop; then answer what has been accepted, and end.

    `finetunes` is the folder of fine-tuning jobs, which are not offered without.

    Raises:
        DataError: if another service uses that folder.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    limits = Limits()
    first = next(iter(models.values()))
    device = str(next(first.model.parameters()).device)
    jobs = None if finetunes is None else Jobs(finetunes, limits, device)
    service = Service(models, limits, keys, together=batching, jobs=jobs)
    config = uvicorn.Config(
        make_app(service),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = uvicorn.Server(config)
    # Bound first: the port may be any that is free, or taken.
    bound = config.bind_socket()
    place = f"[{host}]" if ":" in host else host
    address = f"http://{place}:{bound.getsockname()[1]}/"
    tell(f"LlamaCast answers on {address} (documentation: /docs); Ctrl-C stops it")
    try:
        server.run(sockets=[bound])
    finally:
        if service.batcher.busy:
            # The interpreter would wait for a call that nobody waits for any more.
            logging.shutdown()
            os._exit(0)
