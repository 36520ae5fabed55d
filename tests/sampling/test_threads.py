from __future__ import annotations

import threading
import time

import pytest
import torch

from llamacast.sampling import threads


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Pretend that so many threads run on the machine, ours among them."""
    path = tmp_path / "loadavg"
    monkeypatch.setattr(threads, "LOAD_FILE", path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return lambda running: path.write_text(f"1.0 1.0 1.0 {running}/300 4242\n")


@pytest.mark.parametrize(("running", "idle"), [(1, 4), (2, 3), (4, 1), (40, 1)])
def test_idle_cores_are_those_that_nobody_uses(load, running, idle):
    load(running)
    assert threads.idle_cores(4) == idle


def test_where_load_cannot_be_seen_all_cores_count(load):
    assert threads.idle_cores(4) == 4


def test_threads_are_lowered_within_and_restored_after(load):
    before = torch.get_num_threads()
    load(50)
    torch.set_num_threads(2)
    try:
        with threads.considerate_threads():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_whoever_leaves_last_leaves_what_was_there_before_the_first(load):
    before = torch.get_num_threads()
    load(50)
    torch.set_num_threads(2)
    entered, left, found = threading.Event(), threading.Event(), []

    def second():
        with threads.considerate_threads():
            entered.set()
            left.wait(10)
        found.append(torch.get_num_threads())

    try:
        with threads.considerate_threads():
            other = threading.Thread(target=second)
            other.start()
            entered.wait(10)
        left.set()
        other.join()
        fresh = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        fresh.start()
        fresh.join()
        assert [*found, torch.get_num_threads()] == [2, 2, 2]
    finally:
        torch.set_num_threads(before)


def test_where_there_is_work_for_one_thread_nobody_looks(load, monkeypatch):
    monkeypatch.setattr(threads, "idle_cores", lambda cores: pytest.fail("looked"))
    with threads.considerate_threads(1) as found:
        assert found == 1


def test_a_number_set_by_the_user_stands(load, monkeypatch):
    load(50)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    before = torch.get_num_threads()
    with threads.considerate_threads():
        assert torch.get_num_threads() == before


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_parts_come_in_order_whoever_does_them(num_threads):
    def work(part):
        time.sleep(0.01 * (part % 3))
        return part * part

    found = list(threads.share_out(work, range(7), num_threads))
    assert found == [(part, part * part) for part in range(7)]


def test_each_of_several_parts_has_one_thread_and_one_part_has_all():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        alone = list(threads.share_out(lambda part: torch.get_num_threads(), [0], 2))
        shared = list(threads.share_out(lambda part: torch.get_num_threads(), [0, 1, 2], 2))
        assert [count for _, count in alone] == [2]
        assert [count for _, count in shared] == [1, 1, 1]
    finally:
        torch.set_num_threads(before)


def test_what_goes_wrong_in_a_part_arrives():
    def work(part):
        if part == 2:
            raise KeyboardInterrupt
        return part

    with pytest.raises(KeyboardInterrupt):
        list(threads.share_out(work, range(6), 2))
