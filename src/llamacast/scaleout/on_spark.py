"""On Spark: `applyInPandas` over groups of series."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
from pyspark.sql import DataFrame, functions

from llamacast.forecast import DataError
from llamacast.scaleout.partition import FrameForecaster
from llamacast.scaleout.run import MOST_SHARDS, ROWS_OF_HEAD, ROWS_PER_SHARD, Run, claim

SHARD = "llamacast_shard"


def forecast_on_spark(
    frame: DataFrame,
    output: str | os.PathLike[str],
    asked: FrameForecaster,
    *,
    threads: int = 1,
    num_shards: int | None = None,
) -> Run:
    """Forecast a long Spark frame; its workers write the parts of `output`, a folder that all see.

    A task that fails is done again as Spark is configured to; the same call goes on after a stop, and is
    refused if `frame` holds other rows. Times are those of Spark's session (`spark.sql.session.timeZone`).

    Args:
        frame: a row for each series and time.
        output: a folder, that receives `part-00000.parquet` and so on.
        asked: what to forecast, and how.
        threads: of each worker.
        num_shards: groups of series; None takes as many as have half a million rows each.

    Raises:
        DataError: says what is wrong with the table, and how to mend it.
        CheckpointError: if `output` holds another run.
    """
    head = frame.limit(ROWS_OF_HEAD).toPandas()
    if head.empty:
        raise DataError("the frame has no rows")
    settled = asked.settled(
        head, lambda name, some: frame.where(functions.col(name).isin(some)).toPandas()
    )
    if num_shards is None:
        num_shards = min(max(-(-frame.count() // ROWS_PER_SHARD), 1), MOST_SHARDS)
    names = [str(settled.id_column), str(settled.time_column), str(settled.target_column)]
    told = frame.agg(
        functions.count("*").alias("rows"),
        functions.bit_xor(functions.xxhash64(*names)).alias("digest"),
    ).first()
    assert told is not None
    about = {"table": [frame.schema.jsonValue(), told["rows"], told["digest"]]}
    run = claim(Path(output).resolve(), settled, num_shards, about)
    pending = run.pending()
    if not pending:
        return run

    def forecast(part: pd.DataFrame) -> pd.DataFrame:
        number = int(part[SHARD].iloc[0])
        if not run.is_done(number):
            run.write_part(number, settled(part[names], threads))
        return pd.DataFrame({"shard": [number]})

    shard = functions.pmod(functions.xxhash64(names[0]), functions.lit(num_shards)).cast("int")
    done = (
        frame.select(*names)
        .withColumn(SHARD, shard)
        .where(functions.col(SHARD).isin(pending))
        .groupBy(SHARD)
        .applyInPandas(forecast, "shard int")
        .collect()
    )
    for number in set(pending) - {row["shard"] for row in done}:
        run.mark_empty(number)
    run.finish()
    return run
