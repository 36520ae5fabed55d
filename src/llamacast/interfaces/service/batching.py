"""Requests that arrive together, answered by one call of the model, each as it would be alone."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from llamacast.data.panel import Columns, Panel
from llamacast.forecast import Forecast
from llamacast.interfaces.service.limits import Limits, ServiceError

LONGEST_WAIT_SECONDS = 0.004
"""For others to arrive."""
MOST_SERIES_TOGETHER = 512
NOTHING = Panel([], [], [], Columns(None, "ds", "y"))


@dataclass(eq=False)
class Work:
    """A request that waits."""

    caller: str
    key: Hashable
    """Only what has one key goes into one call; a key that nobody else has is answered alone."""
    panel: Panel
    call: Callable[[Panel], Any]
    """What is asked of the panel. Those of one key give forecasts, and one of them asks for all."""
    answer: asyncio.Future[Any]
    arrived: float = field(default_factory=time.monotonic)


class Batcher:
    """One worker. Callers take turns, so that one with many requests does not keep others waiting."""

    def __init__(self, limits: Limits, together: bool = True) -> None:
        """Without `together` each request is a call of its own."""
        self.limits, self.together = limits, together
        self.queues: OrderedDict[str, deque[Work]] = OrderedDict()
        self.open: dict[str, int] = {}
        self.arrived = asyncio.Event()
        self.pool = ThreadPoolExecutor(1, "forecasts")
        self.calling: Future[list[Any]] | None = None
        self.sizes: Callable[[int], Any] = lambda size: None
        """Told how many requests each call has answered."""
        self.closing = False
        self.worker: asyncio.Task[None] | None = None
        self.left = asyncio.Event()
        """Nobody waits."""
        self.left.set()

    def start(self) -> None:
        self.worker = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Finish what has been accepted; not a call whose callers have all been told that it takes too
        long."""
        self.closing = True
        self.arrived.set()
        await self.left.wait()
        if self.worker is not None:
            self.worker.cancel()
            await asyncio.wait([self.worker])
        self.pool.shutdown(wait=False, cancel_futures=True)

    @property
    def busy(self) -> bool:
        """Whether the model is at work, if only for callers who do not wait any more."""
        return self.calling is not None and not self.calling.done()

    @property
    def waiting(self) -> int:
        return sum(self.open.values())

    async def ask(
        self, caller: str, key: Hashable, panel: Panel, call: Callable[[Panel], Any]
    ) -> Any:
        """What is called for of a panel, together with others of the same key.

        Raises:
            ServiceError: 429 or 503, if too many wait; 504, if it took too long.
        """
        self._admit(caller)
        work = Work(caller, key, panel, call, asyncio.get_running_loop().create_future())
        self.open[caller] = self.open.get(caller, 0) + 1
        self.left.clear()
        self.queues.setdefault(caller, deque()).append(work)
        self.arrived.set()
        try:
            return await asyncio.wait_for(work.answer, self.limits.seconds)
        except TimeoutError:
            raise ServiceError(
                504,
                f"no answer within {self.limits.seconds:g} seconds; ask for less",
                retry_after=5,
            ) from None
        finally:
            self.open[caller] -= 1
            if not self.open[caller]:
                del self.open[caller]
            if not self.open:
                self.left.set()
            self._take_back(work)

    async def ask_alone(self, caller: str, call: Callable[[], Any]) -> Any:
        """What is called for, with nobody else's, by the same rules.

        Raises:
            ServiceError: as `ask`.
        """
        return await self.ask(caller, uuid.uuid4(), NOTHING, lambda panel: call())

    def _take_back(self, work: Work) -> None:
        """Out of the queue, if it still stands there."""
        queue = self.queues.get(work.caller)
        if queue is not None and work in queue:
            queue.remove(work)
            self._forget()

    def _admit(self, caller: str) -> None:
        if self.closing:
            raise ServiceError(503, "the service is shutting down", retry_after=10)
        if self.waiting >= self.limits.waiting:
            raise ServiceError(503, "too many requests wait", retry_after=1)
        if self.open.get(caller, 0) >= self.limits.waiting_per_caller:
            raise ServiceError(429, "too many of your requests wait", retry_after=1)

    async def _work(self) -> None:
        while True:
            await self.arrived.wait()
            if not self.queues:
                if self.closing:
                    return
                self.arrived.clear()
                continue
            if self.together and not self.closing:
                await asyncio.sleep(LONGEST_WAIT_SECONDS)
            batch = self._take()
            if not batch:
                continue
            self.sizes(len(batch))
            try:
                found = await self._call(batch)
            except Exception as error:
                # Of one request the answer is the error; of several, each is asked alone, so that
                # one that cannot be answered does not take others with it.
                await self._one_by_one(batch, error)
                continue
            for work, forecast in zip(batch, found, strict=True):
                if not work.answer.done():
                    work.answer.set_result(forecast)

    async def _call(self, batch: list[Work]) -> list[Any]:
        self.calling = self.pool.submit(_answer, batch)
        return await asyncio.wrap_future(self.calling)

    async def _one_by_one(self, batch: list[Work], error: Exception) -> None:
        for work in batch:
            if work.answer.done():
                continue
            own: Exception | None = error
            if len(batch) > 1:
                try:
                    (forecast,) = await self._call([work])
                    own = None
                except Exception as alone:
                    own = alone
            if work.answer.done():
                continue
            if own is None:
                work.answer.set_result(forecast)
            else:
                work.answer.set_exception(own)

    def _take(self) -> list[Work]:
        """The oldest request's key, and of each caller in turn those that go with it."""
        if not self.queues:
            return []
        first = next(iter(self.queues.values()))[0]
        batch: list[Work] = []
        size, found = 0, True
        while found and (self.together or not batch):
            found = False
            for caller in list(self.queues):
                queue = self.queues[caller]
                if not queue or queue[0].key != first.key:
                    continue
                if batch and size + len(queue[0].panel) > MOST_SERIES_TOGETHER:
                    continue
                if batch and not self.together:
                    break
                work = queue.popleft()
                batch.append(work)
                size += len(work.panel)
                found = True
                # Whoever has been served stands behind the others.
                self.queues.move_to_end(caller)
        self._forget()
        return batch

    def _forget(self) -> None:
        """Callers who have nothing in the queue."""
        for caller in [one for one, queue in self.queues.items() if not queue]:
            del self.queues[caller]


def _answer(batch: list[Work]) -> list[Any]:
    """One call for all; parts of it for each."""
    if len(batch) == 1:
        return [batch[0].call(batch[0].panel)]
    whole = Panel(
        [name for work in batch for name in work.panel.ids],
        [values for work in batch for values in work.panel.values],
        [axis for work in batch for axis in work.panel.axes],
        batch[0].panel.columns,
    )
    forecast = batch[0].call(whole)
    ends = np.cumsum([len(work.panel) for work in batch])
    parts = [slice(end - len(work.panel), end) for work, end in zip(batch, ends, strict=True)]
    return [
        Forecast(
            forecast.samples[part],
            work.panel.ids,
            forecast.index[part],
            model=forecast.model,
            joint=forecast.joint,
            whole=forecast.whole[part],
        )
        for work, part in zip(batch, parts, strict=True)
    ]
