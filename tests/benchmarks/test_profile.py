"""CPU time by thread: the kernel's own figures, split into the event loop's and the others'."""

import os
import threading
import time

import pytest

from benchmarks.profile import cpu_by_thread, split


def test_a_thread_that_works_is_seen_and_the_first_one_is_the_process() -> None:
    native: list[int] = []
    done = threading.Event()

    def work() -> None:
        native.append(threading.get_native_id())
        while time.thread_time() < 0.05:
            pass
        done.wait(20)

    thread = threading.Thread(target=work)
    thread.start()
    while not native or cpu_by_thread(os.getpid())[native[0]] < 0.03:
        time.sleep(0.005)
    assert os.getpid() in cpu_by_thread(os.getpid())
    done.set()
    thread.join()


def test_what_threads_used_in_between_is_shared_among_the_requests() -> None:
    found = split(7, {7: 1.0, 8: 2.0}, {7: 1.5, 8: 3.0, 9: 0.5}, 500)
    assert found == {"loop_ms": pytest.approx(1.0), "workers_ms": pytest.approx(3.0)}
