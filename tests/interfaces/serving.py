"""The service as a process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import httpx


@contextmanager
def serving(folder, *options):
    """Start it with all packaged models, wait until it answers, and end it; it logs in `folder`."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [sys.executable, "-m", "llamacast", "serve", "--port", str(port)]
    with (folder / "log").open("a") as told:
        process = subprocess.Popen(
            [*command, *map(str, options)],
            stderr=told,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            cwd=folder,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: _answers(address), 60)
        yield process, address
    finally:
        process.kill()
        process.wait()


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def _answers(address):
    try:
        return httpx.get(address + "/health").status_code == 200
    except httpx.HTTPError:
        return False
