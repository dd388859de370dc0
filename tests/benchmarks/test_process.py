import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.process import (
    Server,
    Weight,
    family,
    free_port,
    no_longer_than,
    post,
    probe_body,
    running,
    stop,
    weights,
)
from benchmarks.wrk import BenchmarkError

# Answers every POST with 200 and keeps one child that idles.
SERVER = """
import http.server, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200); self.end_headers()
    do_GET = lambda self: (self.send_response(200), self.end_headers(), self.wfile.write(b"page"))
    log_message = lambda self, *words: None
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 5
    while any(Path("/proc", str(pid)).exists() for pid in pids) and time.monotonic() < deadline:
        os.sched_yield()
    assert not any(Path("/proc", str(pid)).exists() for pid in pids)


def ask_for_ever(port: int) -> None:
    """Until nobody answers any more. Raises ConnectionError then."""
    while post(port, "/predict", b"{}", timeout=1):
        os.sched_yield()
    raise ConnectionError


def test_a_server_is_started_weighed_and_stopped_with_its_children(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-c", SERVER, str(port)]
    with running(command, port=port, probe=probe_body("x"), log=tmp_path / "log") as server:
        assert server.first_answer_seconds > 0
        assert server.get("/") == "page"
        pids = family(server.pid)
        weight = server.weigh()
        assert weight.processes == len(pids) == 2
        assert weight.rss_bytes >= weight.pss_bytes > 0
        assert weight.open_files > 0
        before = server.cpu_seconds()
        assert server.settled_cpu_seconds(still_seconds=0.01) >= before > 0
    wait_until_gone(pids)


def test_a_server_is_ready_before_it_was_asked_for_anything(tmp_path: Path) -> None:
    port = free_port()
    with running([sys.executable, "-c", SERVER, str(port)], port=port, probe=None, log=tmp_path / "log") as server:
        assert server.get("/") == "page"


def test_who_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-c", SERVER, str(port)]
    with running(command, port=port, probe=probe_body("x"), log=tmp_path / "log") as server:
        pids = family(server.pid)
        with pytest.raises(BenchmarkError, match="not done within 0 s"), no_longer_than(server, 0.05):
            ask_for_ever(port)
    wait_until_gone(pids)


def test_a_late_end_is_no_measurement_either(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
    server = Server(process.pid, 1, tmp_path / "log", 0.0, 0.0)
    with pytest.raises(BenchmarkError, match="was ended"), no_longer_than(server, 0.01):
        process.wait(10)


def test_who_is_in_time_is_left_alone_and_fails_for_its_own_reason(tmp_path: Path) -> None:
    server = Server(os.getpid(), 1, tmp_path / "log", 0.0, 0.0)
    with no_longer_than(server, 60):
        pass
    with pytest.raises(KeyError), no_longer_than(server, 60):
        raise KeyError("its own")


def test_weights_are_in_megabytes() -> None:
    assert weights(Weight(180_000_000, 150_040_000, 20, 2)) == {
        "memory_mb": 180.0,
        "memory_pss_mb": 150.0,
        "processes": 2,
    }


def test_a_server_that_ends_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such model')"]
    with (
        pytest.raises(BenchmarkError, match="no such model"),
        running(command, port=free_port(), probe=b"{}", log=tmp_path / "log"),
    ):
        pass


def test_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import threading; threading.Event().wait()"]
    with (
        pytest.raises(BenchmarkError, match="did not answer within 0 s"),
        running(command, port=free_port(), probe=b"{}", log=tmp_path / "log", start_seconds=0.2),
    ):
        pass


def test_nobody_listening_is_no_answer() -> None:
    assert post(free_port(), "/predict", b"{}", timeout=1) == 0


def test_stopping_what_has_ended_does_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], start_new_session=True)
    process.wait()
    stop(process)
    assert process.returncode == 0
