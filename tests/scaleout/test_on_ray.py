from __future__ import annotations

import threading
import time

import pytest

from tests.scaleout.tables import ASKED, assert_same, in_one_process, table, write

ray = pytest.importorskip("ray")
psutil = pytest.importorskip("psutil")


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


def test_ray_gives_what_one_process_gives_though_a_worker_is_killed(tmp_path):
    from llamacast.scaleout.on_ray import forecast_on_ray

    frame, output = table(), tmp_path / "out"
    source, killed = write(tmp_path / "in", frame), []

    def kill_one():
        """As soon as something is done, and before all is."""
        end = time.monotonic() + 120
        while not killed and time.monotonic() < end:
            if list(output.glob("part-*")):
                for process in psutil.process_iter(["name", "cmdline"]):
                    if "MapBatches" in " ".join(process.info["cmdline"] or ()):
                        process.kill()
                        killed.append(process.pid)
                        break
            time.sleep(0.02)

    killer = threading.Thread(target=kill_one)
    killer.start()
    run = forecast_on_ray(source, output, ASKED, concurrency=2, num_shards=20)
    killer.join()
    assert killed
    assert_same(run.read(), in_one_process(frame))
    # All is there: the same call has nothing to do.
    stamps = [path.stat().st_mtime_ns for path in sorted(output.glob("part-*"))]
    forecast_on_ray(source, output, ASKED, num_shards=20)
    assert [path.stat().st_mtime_ns for path in sorted(output.glob("part-*"))] == stamps
