"""Fine-tuning as jobs: a queue in SQLite, one process at a time, and what has come of each.

A folder holds everything: `jobs.sqlite`, and for each job a folder of its name with `request.json`,
`log.txt`, the run while it goes on (from which it goes on after a stop or a kill) and `model/` in the
end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import sqlite3
import sys
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from llamacast.forecast import CheckpointError, DataError, needs
from llamacast.forecaster import PretrainedForecaster, load
from llamacast.interfaces.service.limits import Limits, ServiceError
from llamacast.interfaces.service.schema import PanelRequest

DATABASE, REQUEST, LOG = "jobs.sqlite", "request.json", "log.txt"
RUN, MODEL, OUTCOME = "run", "model", "outcome.json"
MOST_STARTS = 3
"""A job in which the service or its machine has gone down so often is not tried again."""
MODELS_KEPT_LOADED = 4
PAUSE_SECONDS = 5.0
"""After trouble with the queue itself (a full disk), before it is looked at again."""
Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]
OUR_FAULT = "it is our fault; it has been noted"
log = logging.getLogger("llamacast.service")
OVER: tuple[Status, ...] = ("succeeded", "failed", "cancelled")

_TABLE = """
create table if not exists jobs (
    name text primary key, owner text not null, status text not null, base text not null,
    source text not null, horizon integer not null, strategy text not null,
    steps integer not null, starts integer not null default 0, created real not null,
    started real, finished real, reached integer not null default 0, error text, verdict text)
"""


class FinetuneRequest(PanelRequest):
    """What to learn from, and how."""

    horizon: int = Field(ge=1, description="Steps that will be forecast.")
    strategy: Literal["full", "last-layers", "head", "lora", "features"] = "full"
    steps: int = Field(600, ge=1, description="At most; it ends when nothing improves.")
    learning_rate: float | None = Field(None, gt=0, lt=1)
    seed: int = Field(0, ge=0, lt=2**31)


@dataclass(frozen=True)
class Job:
    """A row of the table."""

    name: str
    owner: str
    status: Status
    base: str
    source: str
    horizon: int
    strategy: str
    steps: int
    starts: int
    created: float
    started: float | None
    finished: float | None
    reached: int
    """Steps done."""
    error: str | None
    verdict: str | None
    """JSON."""


class Queue:
    """The table of jobs; safe in any thread, and held by one process at a time."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.lock = threading.Lock()
        try:
            self.connection = sqlite3.connect(folder / DATABASE, timeout=1, check_same_thread=False)
            self.connection.row_factory = sqlite3.Row
            # The first write takes the file until the process ends, however it ends.
            self.connection.execute("pragma locking_mode = exclusive")
            with self.connection:
                self.connection.execute(_TABLE)
                self.connection.execute(
                    "update jobs set status = 'queued' where status = 'running'"
                )
        except sqlite3.OperationalError as error:
            why = "another service keeps its jobs there; give each its own folder"
            if "locked" not in str(error):
                why = f"{DATABASE} cannot be written there ({error})"
            raise DataError(f"{folder}: {why}") from error
        except sqlite3.DatabaseError as error:
            raise DataError(f"{folder / DATABASE} is no table of jobs ({error})") from error

    def close(self) -> None:
        self.connection.close()

    def add(self, job: Job) -> None:
        fields = vars(job)
        marks = ", ".join("?" * len(fields))
        with self.lock, self.connection:
            self.connection.execute(
                f"insert into jobs ({', '.join(fields)}) values ({marks})", tuple(fields.values())
            )

    def change(self, name: str, only: tuple[Status, ...] = (), **fields: Any) -> bool:
        """Set fields of a job, if its status is one of `only`; whether it was."""
        sets = ", ".join(f"{field} = ?" for field in fields)
        where = f" and status in ({', '.join('?' * len(only))})" if only else ""
        with self.lock, self.connection:
            done = self.connection.execute(
                f"update jobs set {sets} where name = ?{where}", (*fields.values(), name, *only)
            )
        return done.rowcount > 0

    def remove(self, name: str) -> None:
        with self.lock, self.connection:
            self.connection.execute("delete from jobs where name = ?", (name,))

    def find(self, where: str = "true", *values: Any) -> list[Job]:
        """Jobs in the order they came."""
        with self.lock:
            rows = self.connection.execute(
                f"select * from jobs where {where} order by created, rowid", values
            ).fetchall()
        return [Job(**dict(row)) for row in rows]


class Jobs:
    """Takes jobs, does them one after the other in processes of their own, keeps what comes of them."""

    def __init__(self, folder: Path, limits: Limits, device: str = "auto") -> None:
        """`device` is where jobs learn, and their models forecast.

        Raises:
            DataError: if another service uses the folder, or what fine-tuning needs is missing.
        """
        try:
            import llamacast.training.finetune  # noqa: F401 (takes seconds: not in a request)
        except ModuleNotFoundError as error:
            raise needs("fine-tuning", "finetune", error) from error
        self.folder, self.limits, self.device = folder, limits, device
        self.submitting = threading.Lock()
        self.queue = Queue(folder)
        self.loaded: OrderedDict[str, PretrainedForecaster] = OrderedDict()
        self.loading = threading.Lock()
        self.process: asyncio.subprocess.Process | None = None
        self.running: str | None = None
        self.troubled: list[str] = []
        """Jobs that have failed by our fault, which has yet to be written down."""
        self.arrived = asyncio.Event()
        self.stopping = asyncio.Event()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.worker: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.worker = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Stop; what is going on goes on from its last checkpoint at the next start."""
        self.stopping.set()
        self.arrived.set()
        self._stop(self.running)
        if self.worker is not None:
            await asyncio.wait([self.worker])
        self.queue.close()

    @property
    def closing(self) -> bool:
        return self.stopping.is_set()

    @property
    def ended(self) -> bool:
        """Whether nobody works on the queue any more, though jobs are taken."""
        return self.worker is not None and self.worker.done()

    def submit(
        self, who: str, asked: FinetuneRequest, base: str, model: PretrainedForecaster
    ) -> Job:
        """Put a job into the queue.

        Raises:
            ServiceError: 429, if the caller has too many; 422, if the model has no files.
        """
        with self.submitting:
            return self._submit(who, asked, base, model)

    def _submit(
        self, who: str, asked: FinetuneRequest, base: str, model: PretrainedForecaster
    ) -> Job:
        own = self.queue.find("owner = ?", who)
        waiting = sum(job.status not in OVER for job in own)
        if waiting >= self.limits.finetunes_waiting:
            raise ServiceError(
                429, f"{waiting} of your fine-tunes wait or go on; come back", retry_after=60
            )
        if len(own) >= self.limits.finetunes_kept:
            raise ServiceError(
                429,
                f"you have {len(own)} fine-tunes, and may have {self.limits.finetunes_kept}; "
                "delete some",
                retry_after=60,
            )
        if model.source is None:
            raise ServiceError(422, f"{base} was not loaded from files", "model")
        name = f"ft-{uuid.uuid4().hex[:16]}"
        place = self.folder / name
        place.mkdir()
        (place / REQUEST).write_text(asked.model_dump_json())
        job = Job(
            name,
            who,
            "queued",
            base,
            model.source,
            asked.horizon,
            asked.strategy,
            asked.steps,
            starts=0,
            created=time.time(),
            started=None,
            finished=None,
            reached=0,
            error=None,
            verdict=None,
        )
        self.queue.add(job)
        self._wake()
        return job

    def all(self, who: str) -> list[Job]:
        return [self._as_it_is(job) for job in self.queue.find("owner = ?", who)]

    def one(self, name: str, who: str) -> Job:
        """
        Raises:
            ServiceError: 404, also where it is another caller's.
        """
        found = self.queue.find("name = ? and owner = ?", name, who)
        if not found:
            raise ServiceError(404, f"you have no fine-tune {name!r}")
        return self._as_it_is(found[0])

    def log(self, name: str, who: str) -> str:
        self.one(name, who)
        file = self.folder / name / LOG
        return file.read_text(errors="replace") if file.exists() else ""

    def cancel(self, name: str, who: str) -> Job:
        """
        Raises:
            ServiceError: 404; 409, if it is over.
        """
        job = self.one(name, who)
        if not self.queue.change(
            name, ("queued", "running"), status="cancelled", finished=time.time()
        ):
            raise ServiceError(409, f"{name} is over: {job.status}")
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self._stop, name)
        return self.one(name, who)

    def delete(self, name: str, who: str) -> None:
        """
        Raises:
            ServiceError: 404; 409, if it is not over.
        """
        job = self.one(name, who)
        if job.status not in OVER or self.running == name:
            raise ServiceError(409, f"{name} is not over; cancel it, or wait")
        begun = str((self.folder / name / MODEL).resolve())
        if self.queue.find("source = ? and status in ('queued', 'running')", begun):
            raise ServiceError(409, f"another of your fine-tunes begins with {name}; wait for it")
        self.queue.remove(name)
        with self.loading:
            self.loaded.pop(name, None)
        shutil.rmtree(self.folder / name, ignore_errors=True)

    def succeeded(self, who: str) -> list[str]:
        """Names of the models that a caller has."""
        return [job.name for job in self.queue.find("owner = ? and status = 'succeeded'", who)]

    def model(self, name: str) -> PretrainedForecaster:
        """That of a job that has succeeded; some are kept loaded.

        Raises:
            ServiceError: 404, if it has been deleted meanwhile.
        """
        with self.loading:
            if name not in self.loaded:
                try:
                    self.loaded[name] = load(self.folder / name / MODEL, device=self.device)
                except (CheckpointError, OSError) as error:
                    raise ServiceError(404, f"there is no model {name!r}", "model") from error
                while len(self.loaded) > MODELS_KEPT_LOADED:
                    self.loaded.popitem(last=False)
            self.loaded.move_to_end(name)
            return self.loaded[name]

    def _as_it_is(self, job: Job) -> Job:
        if job.status != "running":
            return job
        return Job(**{**vars(job), "reached": reached(self.folder / job.name / RUN)})

    async def _work(self) -> None:
        while not self.closing:
            try:
                await self._take_turn()
            except Exception:
                # A queue that cannot be written to can be, once there is room on the disk again.
                log.exception("the queue of fine-tunes is in trouble, and will be looked at again")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.stopping.wait(), PAUSE_SECONDS)

    async def _take_turn(self) -> None:
        self.arrived.clear()
        while self.troubled:
            self._fail(self.troubled[0], OUR_FAULT)
            del self.troubled[0]
        waiting = self.queue.find("status = 'queued'")
        if not waiting:
            await self.arrived.wait()
            return
        try:
            await self._do(waiting[0])
        except Exception:
            # One job's trouble (a full disk, no more processes) must not keep others waiting.
            log.exception("a fine-tune failed")
            self._stop(waiting[0].name)
            self.troubled.append(waiting[0].name)
        finally:
            self.process = self.running = None

    async def _do(self, job: Job) -> None:
        if job.starts >= MOST_STARTS:
            self._fail(job.name, f"given up: it was stopped in the middle {job.starts} times")
            return
        fields = {"status": "running", "starts": job.starts + 1, "started": time.time()}
        if not self.queue.change(job.name, ("queued",), **fields):
            return  # cancelled meanwhile
        place, self.running = self.folder / job.name, job.name
        with (place / LOG).open("ab") as lines:
            # It ends when its standard input does: with this process, however that ends.
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "llamacast.interfaces.service.job",
                str(place),
                job.source,
                self.device,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=lines,
            )
        late = False
        try:
            if self.queue.find("name = ? and status = 'cancelled'", job.name) or self.closing:
                self._stop(job.name)
            await asyncio.wait_for(self.process.wait(), self.limits.finetune_seconds)
        except TimeoutError:
            late = True
            self._stop(job.name)
            await self.process.wait()
        code = self.process.returncode
        if self.closing and code != 0:
            self.queue.change(job.name, ("running",), status="queued", starts=job.starts)
            return
        await asyncio.to_thread(self._settle, job, code, late)

    def _settle(self, job: Job, code: int | None, late: bool) -> None:
        """Keep the model and what was told of it; the rest of the run goes."""
        place = self.folder / job.name
        fields: dict[str, Any] = {"finished": time.time(), "reached": reached(place / RUN)}
        told = _outcome(place)
        if code == 0 and (place / RUN / MODEL).exists():
            shutil.rmtree(place / MODEL, ignore_errors=True)
            os.replace(place / RUN / MODEL, place / MODEL)
            fields |= {"status": "succeeded", "verdict": json.dumps(told["verdict"])}
        elif late:
            most = self.limits.finetune_seconds
            fields |= {"status": "failed", "error": f"it took longer than {most:g} seconds"}
        elif "error" in told:
            fields |= {"status": "failed", "error": told["error"]}
        elif code is not None and code < 0:
            why = f"its process was killed (signal {-code}); it may have needed too much memory"
            fields |= {"status": "failed", "error": why}
        else:
            fields |= {"status": "failed", "error": OUR_FAULT}
        self.queue.change(job.name, ("running",), **fields)
        shutil.rmtree(place / RUN, ignore_errors=True)

    def _fail(self, name: str, why: str) -> None:
        fields = {"status": "failed", "error": why, "finished": time.time()}
        self.queue.change(name, ("queued", "running"), **fields)

    def _stop(self, name: str | None) -> None:
        """The process of a job, if it is that job's; in the loop only."""
        process = self.process
        if process is not None and self.running == name and process.returncode is None:
            process.kill()

    def _wake(self) -> None:
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self.arrived.set)


def reached(run: Path) -> int:
    """Steps that the log of a run tells of."""
    file = run / "log.csv"
    try:
        lines = file.read_text().splitlines()
    except FileNotFoundError:
        return 0
    last = lines[-1].partition(",")[0] if lines else ""
    return int(last) if last.isdigit() else 0


def _outcome(place: Path) -> Mapping[str, Any]:
    file = place / OUTCOME
    try:
        return json.loads(file.read_text())
    except (FileNotFoundError, ValueError):  # killed before it could tell
        return {}
