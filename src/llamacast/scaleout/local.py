"""A table larger than memory, on this machine."""

from __future__ import annotations

import os

from llamacast.sampling.progress import shown
from llamacast.scaleout.partition import FrameForecaster
from llamacast.scaleout.run import Run, open_run


def forecast_dataset(
    data: str | os.PathLike[str],
    output: str | os.PathLike[str],
    asked: FrameForecaster,
    *,
    num_shards: int | None = None,
    progress: bool | None = None,
) -> Run:
    """Forecast a parquet file, or a folder of such, of any size; the same call goes on after a stop.

    Args:
        data: a long table; the rows of a series may lie anywhere in it.
        output: a folder, that receives `part-00000.parquet` and so on.
        asked: what to forecast, and how.
        num_shards: parts that are held in memory one at a time, at most 512; None takes as many as
            have half a million rows each.
        progress: show a bar; None does in a terminal.

    Raises:
        DataError: says what is wrong with the table, and how to mend it.
        CheckpointError: if `output` holds another run.
    """
    run = open_run(data, output, asked, num_shards)
    pending = run.pending()
    for number in shown(pending, len(pending), progress):
        run.do(number)
    run.finish()
    return run
