"""Requests that arrive together, answered by one call of the model, each as it would be alone."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from llamacast.data.panel import Panel
from llamacast.forecast import Forecast
from llamacast.interfaces.service.limits import Limits, ServiceError

LONGEST_WAIT_SECONDS = 0.004
"""For others to arrive."""
MOST_SERIES_TOGETHER = 512


@dataclass
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
        self.sizes: Callable[[int], Any] = lambda size: None
        """Told how many requests each call has answered."""
        self.closing = False
        self.worker: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.worker = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Finish what has been accepted."""
        self.closing = True
        self.arrived.set()
        if self.worker is not None:
            await self.worker
        self.pool.shutdown()

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

    def _admit(self, caller: str) -> None:
        if self.closing:
            raise ServiceError(503, "the service is shutting down", retry_after=10)
        if self.waiting >= self.limits.waiting:
            raise ServiceError(503, "too many requests wait", retry_after=1)
        if self.open.get(caller, 0) >= self.limits.waiting_per_caller:
            raise ServiceError(429, "too many of your requests wait", retry_after=1)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
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
                found = await loop.run_in_executor(self.pool, _answer, batch)
            except Exception as error:
                # Of one request the answer is the error; of several, each is asked alone, so that
                # one that cannot be answered does not take others with it.
                await self._one_by_one(batch, error)
                continue
            for work, forecast in zip(batch, found, strict=True):
                if not work.answer.done():
                    work.answer.set_result(forecast)

    async def _one_by_one(self, batch: list[Work], error: Exception) -> None:
        loop = asyncio.get_running_loop()
        for work in batch:
            own: Exception | None = error
            if len(batch) > 1:
                try:
                    (forecast,) = await loop.run_in_executor(self.pool, _answer, [work])
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
        self._forget()
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
        """Requests that nobody waits for any more, and callers without any."""
        for caller in list(self.queues):
            queue = self.queues[caller]
            while queue and queue[0].answer.done():
                queue.popleft()
            if not queue:
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
    return [
        Forecast(
            forecast.samples[end - len(work.panel) : end],
            work.panel.ids,
            forecast.index[end - len(work.panel) : end],
            model=forecast.model,
            joint=forecast.joint,
        )
        for work, end in zip(batch, ends.tolist(), strict=True)
    ]
