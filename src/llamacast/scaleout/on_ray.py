"""On Ray: a pool of actors, each of which loads the model once."""

from __future__ import annotations

import os
from typing import Any

import ray
import ray.data

from llamacast.forecast import DataError
from llamacast.scaleout.partition import FrameForecaster
from llamacast.scaleout.run import Run, open_run


class Worker:
    """What each actor holds."""

    def __init__(self, run: Run, threads: int) -> None:
        self.run, self.threads = run, threads

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Forecast the shards of these numbers, but for those that are there."""
        found = []
        for number in batch["shard"].tolist():
            done = self.run.is_done(number)
            found.append(0 if done else self.run.do(number, self.threads))
        return {"shard": batch["shard"], "series": found}


def forecast_on_ray(
    data: str | os.PathLike[str],
    output: str | os.PathLike[str],
    asked: FrameForecaster,
    *,
    concurrency: int | None = None,
    threads: int = 1,
    num_gpus: float = 0,
    num_shards: int | None = None,
) -> Run:
    """Forecast a parquet file, or a folder of such, on the Ray that is initialised or can be.

    The table is cut into shards here, and actors forecast them; one that dies is replaced, and its
    shard done again, without end (Ray's way: mind the memory). The same call goes on after a stop.

    Args:
        data: a path that all machines see.
        output: another, of a folder.
        asked: what to forecast, and how.
        concurrency: actors; None takes as many as the cluster has room for.
        threads: cores for each actor.
        num_gpus: for each actor.
        num_shards: None takes as many as have half a million rows each.

    Raises:
        DataError: says what is wrong with the table, and how to mend it.
        CheckpointError: if `output` holds another run.
    """
    if threads < 1:
        raise DataError(f"threads must be at least 1; got {threads}")
    run = open_run(os.path.abspath(data), os.path.abspath(output), asked, num_shards)
    pending = run.pending()
    if pending:
        if not ray.is_initialized():
            ray.init()
        actors = concurrency or max(1, int(ray.cluster_resources().get("CPU", 1)) // threads)
        shards = ray.data.from_items(
            [{"shard": number} for number in pending], override_num_blocks=len(pending)
        )
        shards.map_batches(
            Worker,
            fn_constructor_args=(run, threads),
            batch_size=1,
            concurrency=min(actors, len(pending)),
            num_cpus=threads,
            num_gpus=num_gpus or None,
        ).materialize()
    run.finish()
    return run
