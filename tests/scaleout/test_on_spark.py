from __future__ import annotations

import os
import shutil
import signal
import sys

import pytest

from llamacast.scaleout.run import Run
from tests.scaleout.tables import ASKED, assert_same, in_one_process, table, write

sql = pytest.importorskip("pyspark.sql")
pytestmark = pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java")


@pytest.fixture(scope="module")
def spark():
    os.environ["PYSPARK_PYTHON"] = sys.executable
    # Two workers; a task may fail three times.
    found = (
        sql.SparkSession.builder.master("local[2,4]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .getOrCreate()
    )
    yield found
    found.stop()


def test_spark_gives_what_one_process_gives_though_a_worker_is_killed(tmp_path, spark):
    from llamacast.scaleout.on_spark import forecast_on_spark

    frame, output, mark = table(), tmp_path / "out", str(tmp_path / "killed")
    source = write(tmp_path / "in", frame)
    write_part = Run.write_part

    def once(self, number, forecast):
        """In a worker: the first part is written, the process dies before it can tell."""
        write_part(self, number, forecast)
        try:
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    class Dying(Run):
        write_part = once

    import llamacast.scaleout.on_spark as module

    claim = module.claim
    module.claim = lambda *given: Dying(*vars(claim(*given)).values())
    try:
        run = forecast_on_spark(spark.read.parquet(str(source)), output, ASKED, num_shards=6)
    finally:
        module.claim = claim
    assert os.path.exists(mark)
    assert_same(run.read(), in_one_process(frame))
    stamps = [path.stat().st_mtime_ns for path in sorted(output.glob("part-*"))]
    forecast_on_spark(spark.read.parquet(str(source)), output, ASKED, num_shards=6)
    assert [path.stat().st_mtime_ns for path in sorted(output.glob("part-*"))] == stamps
