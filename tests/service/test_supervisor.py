import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from service.link import Link
from service.supervisor import Worker, back_off, takers, value_folder
from tests.service.fakes import PATIENCE_SECONDS, until
from tests.service.started import ROOT, Line, Started, started

PROGRAM = """
import sys
from service.config import load_settings
from service.supervisor import serve
sys.exit(serve(load_settings()))
"""
# The same, with a worker that holds each batch until a file appears: requests are then surely in flight.
GATED = """
import os, sys, time
from service.config import load_settings
from service import supervisor

def work(settings, place):
    from service import server
    from tests.service.fakes import GatedBackend, loading

    class Held(GatedBackend):
        def infer(self, inputs):
            while not os.path.exists(os.environ["GATE"]):
                time.sleep(0.01)
            return super().infer(inputs)

    server.loader = lambda _: loading(Held())
    return server.work(settings, place)

sys.exit(supervisor.serve(load_settings(), work))
"""
# A worker that ends before it has said anything.
BROKEN = """
import sys
from service.config import load_settings
from service.supervisor import serve
sys.exit(serve(load_settings(), lambda settings, place: 7))
"""
# A worker that fails and cannot even say so.
MUTE = """
import os, sys
from service.config import load_settings
from service.supervisor import serve

def work(settings, place):
    os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
    raise RuntimeError("it fails")

try:
    sys.exit(serve(load_settings(), work))
finally:
    print("the parent's code")
"""


class Family(Started):
    """A supervisor and its workers."""

    def workers(self) -> list[int]:
        """Process ids of the children that live."""
        pid = self.handle.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        return [int(child) for child in children if _state(int(child)) != "Z"]


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except OSError:
        return ""


@contextlib.contextmanager
def family(repository: Path, program: str = PROGRAM, **settings: object) -> Iterator[Family]:
    """Two workers and what starts them."""
    given = {"repository": repository, "port": 0, "workers": 2, "drain_delay_seconds": 0, **settings}
    variables: Line = {"TMPDIR": repository.parent, "GATE": repository.parent / "gate"}
    with started(Family, program, variables=variables, settings=given) as running:
        yield running


def _ask(server: Family, times: int) -> None:
    """Each on a connection of its own."""
    for _ in range(times):
        with server.client() as client:
            assert client.post("/predict", json={"inputs": "a good film"}).status_code == 200


def _scrape(server: Family) -> dict[str, float]:
    with server.client() as client:
        page = client.get("/metrics").text
    return {name: float(value) for name, value in re.findall(r"^([a-z_]\S*(?: \S+)*?) (\S+)$", page, re.MULTILINE)}


def _sum(page: dict[str, float], start: str) -> float:
    return sum(value for name, value in page.items() if name.startswith(start))


def test_two_workers_answer_and_every_scrape_tells_of_both(repository: Path) -> None:
    with family(repository) as server:
        server.wait_for("ready", times=2)
        with contextlib.ExitStack() as open_at_once:
            for _ in range(20):
                client = open_at_once.enter_context(server.client())
                assert client.post("/predict", json={"inputs": "a good film"}).status_code == 200
            answered_by = Counter(line["worker"] for line in server.wait_for("request", times=20))
        assert answered_by == {0: 10, 1: 10}
        for _ in range(4):
            page = _scrape(server)
            assert _sum(page, 'slipway_requests_total{code="200",model="sentiment"') == 20
            assert _sum(page, "slipway_inputs_total") == 20
            assert page['slipway_request_duration_seconds_count{route="/predict"}'] == 20
        until(lambda: _scrape(server)["slipway_ready_processes"] == 2)
        page = _scrape(server)
        assert page["slipway_ready"] == 1
        assert _sum(page, "slipway_model_info") == 1
        assert page['slipway_models{state="ready"}'] == 1
        assert page["slipway_queue_limit"] == 2 * 512
        assert page["process_resident_memory_bytes"] > 2 * 20e6
        assert server.end() == 0
    assert not list(repository.parent.glob("slipway-values-*"))


def test_a_worker_that_is_killed_is_replaced_and_its_counts_stay(repository: Path) -> None:
    with family(repository) as server:
        server.wait_for("ready", times=2)
        _ask(server, 10)
        before = server.workers()
        os.kill(before[0], signal.SIGKILL)
        (line,) = server.wait_for("a worker ended, starting another")
        assert (line["pid"], line["killed_by"]) == (before[0], "SIGKILL")
        _ask(server, 4)
        server.wait_for("ready")
        assert len(set(server.workers()) - set(before)) == 1
        until(lambda: _scrape(server)["slipway_ready_processes"] == 2)
        _ask(server, 6)
        for _ in range(3):
            assert _sum(_scrape(server), "slipway_inputs_total") == 20
        assert len(list(repository.parent.glob("slipway-values-*/counter_*.db"))) == 2
        os.kill(server.workers()[0], signal.SIGTERM)
        (line,) = server.wait_for("a worker ended, starting another")
        assert line["status"] == 0
        assert server.end() == 0


def test_a_drain_answers_what_is_in_flight_in_every_worker(repository: Path) -> None:
    gate = repository.parent / "gate"
    with family(repository, GATED, drain_delay_seconds=0.3) as server, ThreadPoolExecutor(8) as pool:
        server.wait_for("ready", times=2)
        asked = [pool.submit(_ask, server, 1) for _ in range(8)]
        until(lambda: _scrape(server)["slipway_requests_in_flight"] >= 8)
        os.kill(server.workers()[0], signal.SIGTERM)
        server.wait_for("draining")
        server.handle.send_signal(signal.SIGTERM)
        server.wait_for("draining")
        gate.touch()
        for each in asked:
            each.result(PATIENCE_SECONDS)
        assert server.handle.wait(PATIENCE_SECONDS) == 0


def test_a_drain_under_load_loses_nothing(repository: Path) -> None:
    stop = threading.Event()
    statuses: list[int] = []

    def ask(server: Family, *, keep: bool) -> int:
        """How many answers were lost. A connection that is refused was never accepted."""
        lost = 0
        while not stop.is_set():
            with server.client() as client:
                for _ in range(1000 if keep else 1):
                    try:
                        statuses.append(client.post("/predict", json={"inputs": "good"}).status_code)
                    except httpx.ConnectError:
                        return lost
                    except httpx.HTTPError:
                        lost += 1
        return lost

    with family(repository, drain_delay_seconds=0.3) as server, ThreadPoolExecutor() as pool:
        server.wait_for("ready", times=2)
        asking = [pool.submit(ask, server, keep=n % 2 == 0) for n in range(4)]
        until(lambda: len(statuses) > 40)
        assert server.end(signal.SIGTERM) == 0
        stop.set()
        assert [each.result(PATIENCE_SECONDS) for each in asking] == [0] * 4
    assert set(statuses) == {200}


def test_a_second_signal_ends_all_of_them_at_once(repository: Path) -> None:
    with family(repository, drain_delay_seconds=60) as server:
        server.wait_for("ready", times=2)
        server.handle.send_signal(signal.SIGTERM)
        server.wait_for("draining", times=2)
        assert server.end(signal.SIGTERM) == 1
    assert not list(repository.parent.glob("slipway-values-*"))


def test_workers_leave_when_their_supervisor_is_killed_and_the_next_one_cleans_up(repository: Path) -> None:
    with family(repository) as server:
        server.wait_for("ready", times=2)
        server.handle.kill()
        server.wait_for("drained", times=2)
    assert list(repository.parent.glob("slipway-values-*"))
    with family(repository) as server:
        server.wait_for("ready", times=2)
        assert len(list(repository.parent.glob("slipway-values-*"))) == 1
        assert server.end() == 0


def test_without_a_model_they_are_alive_and_not_ready_and_leave_without_delay(tmp_path: Path) -> None:
    with family(tmp_path / "empty", drain_delay_seconds=60) as server, server.client() as client:
        assert client.get("/health/live").status_code == 200
        assert client.get("/health").status_code == 503
        assert client.get("/health").headers["connection"] == "close"
        assert server.end(signal.SIGTERM) == 0


def test_a_worker_that_cannot_start_ends_the_whole_with_status_1(tmp_path: Path) -> None:
    with family(tmp_path / "empty", BROKEN) as server:
        (line,) = server.wait_for("a worker cannot start")
        assert line["status"] == 7
        assert server.handle.wait(PATIENCE_SECONDS) == 1


def test_a_worker_never_gets_back_into_the_parents_code(tmp_path: Path) -> None:
    environment = os.environ | {"SLIPWAY_PORT": "0", "SLIPWAY_WORKERS": "2", "TMPDIR": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", MUTE], capture_output=True, text=True, cwd=ROOT, env=environment, check=False
    )
    assert (ended.returncode, ended.stdout) == (1, "the parent's code\n")


def test_a_port_in_use_ends_with_status_1_and_says_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        environment = os.environ | {"SLIPWAY_PORT": str(port), "SLIPWAY_WORKERS": "2"}
        ended = subprocess.run(
            [sys.executable, "-c", PROGRAM], capture_output=True, text=True, cwd=ROOT, env=environment, check=False
        )
    assert ended.returncode == 1
    assert f"127.0.0.1:{port}" in ended.stderr


def test_who_is_not_ready_takes_nothing_while_another_is() -> None:
    link, other = Link.pair()
    loading, busy, free, leaving, silent = (Worker(n, n, link, 0.0, heard=n != 4) for n in range(5))
    busy.willing = free.willing = leaving.willing = True
    busy.connections, free.connections = 3, 2
    leaving.given_up = True
    assert takers([loading, busy, free, leaving, silent]) == [free, busy]
    assert takers([loading, leaving, silent]) == [loading]
    assert takers([leaving, silent]) == []
    link.close()
    other.close()


def test_a_start_is_put_off_ever_longer_up_to_a_bound() -> None:
    assert [back_off(deaths) for deaths in (1, 2, 3)] == [0.1, 0.2, 0.4]
    assert back_off(10_000) == 30.0


def test_the_folder_of_a_running_supervisor_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with value_folder() as first:
        with value_folder() as second:
            assert first.exists()
            assert first != second
        assert not second.exists()
    assert not list(tmp_path.iterdir())
