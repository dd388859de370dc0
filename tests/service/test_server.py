import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from artifact.repository import Artifact
from inference.model import Model
from service.server import _alone
from tests.service.fakes import PATIENCE_SECONDS, GatedBackend, accepts, loading, running
from tests.service.started import ROOT, Started, started
from tests.tiny_artifact import publish_tiny

PROGRAM = """
import sys
from artifact.errors import SlipwayError
from service.config import load_settings
from service.server import serve
try:
    sys.exit(serve(load_settings()))
except SlipwayError as error:
    print(error.message, file=sys.stderr)
    sys.exit(error.exit_status)
"""


@contextlib.contextmanager
def process(repository: Path, **settings: object) -> Iterator[Started]:
    """A real `serve` in a process of its own."""
    given = {"repository": repository, "port": 0, **settings}
    with started(Started, PROGRAM, variables={}, settings=given) as running:
        yield running


@dataclass
class Load:
    """Clients that ask until told to stop, and remember every answer.

    A connection that is refused was never accepted. Whatever else goes wrong with a request is a lost answer.
    """

    url: str
    keep_alive: bool
    statuses: list[int] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    refused: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.stop.is_set():
            with httpx.Client(base_url=self.url, timeout=PATIENCE_SECONDS, trust_env=False) as client:
                self._ask(client, 1000 if self.keep_alive else 1)

    def _ask(self, client: httpx.Client, times: int) -> None:
        for _ in range(times):
            if self.stop.is_set():
                return
            try:
                self.statuses.append(client.post("/predict", json={"inputs": ["a good film", "dull"]}).status_code)
            except httpx.ConnectError:
                self.refused += 1
                self.stop.set()
            except httpx.HTTPError as error:
                self.lost.append(repr(error))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_drain_under_load_loses_nothing(repository: Path, number: signal.Signals) -> None:
    with process(repository, drain_delay_seconds=0.5) as server:
        server.wait_for("ready")
        loads = [Load(server.url, keep_alive=n % 2 == 0) for n in range(6)]
        threads = [threading.Thread(target=load.run) for load in loads]
        for thread in threads:
            thread.start()
        while any(len(load.statuses) < 5 for load in loads):
            threading.Event().wait(0.01)
        server.send(number)
        status = server.status()
        for load in loads:
            load.stop.set()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
    assert status == 0
    assert [lost for load in loads for lost in load.lost] == []
    assert {code for load in loads for code in load.statuses} == {200}


def test_drain_is_not_ready_at_once_yet_answers_and_sends_clients_away(repository: Path) -> None:
    with running(repository, drain_delay_seconds=1.0) as service:
        assert service.predict("good").headers.get("connection") is None
        service.stop(signal.SIGTERM)
        service.wait_until("draining")
        ready = service.client.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "draining")
        answer = service.predict("good")
        assert answer.status_code == 200
        assert answer.headers["connection"] == "close"


def test_what_was_accepted_is_answered_after_the_socket_closed(repository: Path) -> None:
    backend = GatedBackend()
    with running(repository, loading(backend), drain_delay_seconds=0) as service:
        backend.gate.clear()
        answers: list[httpx.Response] = []
        caller = threading.Thread(target=lambda: answers.append(service.predict("good")))
        caller.start()
        assert backend.entered.wait(PATIENCE_SECONDS)
        service.stop(signal.SIGTERM)
        while accepts(service.port):
            threading.Event().wait(0.01)
        backend.gate.set()
        caller.join(PATIENCE_SECONDS)
        assert [answer.status_code for answer in answers] == [200]


def test_a_request_on_an_open_connection_is_still_read_when_the_socket_is_closed(repository: Path) -> None:
    with (
        running(repository, drain_delay_seconds=0) as service,
        socket.create_connection(("127.0.0.1", service.port), PATIENCE_SECONDS) as client,
    ):
        service.stop(signal.SIGTERM)
        while accepts(service.port):
            threading.Event().wait(0.01)
        client.sendall(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_drain_that_takes_too_long_gives_up_with_status_1(repository: Path) -> None:
    backend = GatedBackend()
    load = loading(backend)
    with running(repository, load, ends_with=1, drain_delay_seconds=0, drain_timeout_seconds=0.3) as service:
        backend.gate.clear()
        caller = threading.Thread(target=lambda: _ignore_errors(service.predict, "good"))
        caller.start()
        assert backend.entered.wait(PATIENCE_SECONDS)
        service.stop(signal.SIGTERM)
        caller.join(PATIENCE_SECONDS)
        backend.gate.set()


def test_a_second_signal_stops_at_once_with_status_1(repository: Path) -> None:
    with process(repository, drain_delay_seconds=60) as server:
        server.wait_for("ready")
        server.send(signal.SIGTERM)
        server.wait_for("draining")
        server.send(signal.SIGTERM)
        assert server.status() == 1


def test_a_signal_while_nothing_is_loaded_stops_without_delay(tmp_path: Path) -> None:
    with process(tmp_path / "empty", drain_delay_seconds=60) as server:
        assert httpx.get(f"{server.url}/health/live", trust_env=False).status_code == 200
        assert httpx.get(f"{server.url}/health", trust_env=False).status_code == 503
        server.send(signal.SIGTERM)
        assert server.status() == 0


def test_alive_and_not_ready_while_a_model_loads_and_a_signal_does_not_wait_for_it(repository: Path) -> None:
    release = threading.Event()

    def slow(artifact: Artifact) -> Model:
        release.wait(PATIENCE_SECONDS)
        return loading(GatedBackend())(artifact)

    with running(repository, slow, wait_for="loading", drain_delay_seconds=60) as service:
        assert service.client.get("/health/live").status_code == 200
        assert service.client.get("/health/ready").status_code == 503
        assert service.predict("good").status_code == 503
        service.stop(signal.SIGTERM)
    release.set()


def test_every_line_of_the_log_is_json_and_a_request_has_one(repository: Path) -> None:
    with process(repository) as server:
        server.wait_for("ready")
        sent = {"x-request-id": "find-me", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
        httpx.post(f"{server.url}/predict", json={"inputs": "good secret"}, headers=sent, trust_env=False)
        (line,) = server.wait_for("request")
        server.send(signal.SIGINT)
        assert server.status() == 0
    assert (line["request_id"], line["trace_id"]) == ("find-me", "0af7651916cd43dd8448eb211c80319c")
    assert (line["method"], line["route"], line["status"]) == ("POST", "/predict", 200)
    assert (line["model"], line["version"], line["tokens"]) == ("sentiment", 1, 4)
    assert "secret" not in str(line)


def test_a_wrong_setting_ends_with_status_2_and_one_sentence(tmp_path: Path) -> None:
    environment = os.environ | {"SLIPWAY_PORT": "tcp://10.0.0.1:80", "SLIPWAY_REPOSITORY": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, cwd=ROOT, env=environment, check=False
    )
    assert ended.returncode == 2
    assert len(ended.stderr.strip().splitlines()) == 1
    assert "SLIPWAY_PORT" in ended.stderr


def test_a_port_in_use_ends_with_status_1_and_says_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        environment = os.environ | {"SLIPWAY_PORT": str(port), "SLIPWAY_REPOSITORY": str(tmp_path)}
        ended = subprocess.run(
            [sys.executable, "-c", PROGRAM], capture_output=True, text=True, cwd=ROOT, env=environment, check=False
        )
    assert ended.returncode == 1
    assert f"127.0.0.1:{port}" in ended.stderr
    assert "SLIPWAY_PORT" in ended.stderr


def test_a_model_published_later_is_picked_up_by_the_process(tmp_path: Path) -> None:
    root = tmp_path / "models"
    with process(root, repository_poll_seconds=0.05) as server:
        server.wait_for("no model to serve")
        publish_tiny(root)
        server.wait_for("ready")
        server.send(signal.SIGINT)
        assert server.status() == 0


def test_one_of_several_leaves_to_be_replaced_when_its_model_hangs_for_good(repository: Path) -> None:
    with running(repository, shared=repository.parent, drain_delay_seconds=0) as service:
        (served,) = service.server.context.registry.served
        service.stopped = True
        served.ready_model().batcher._stuck = 1_000_000


def test_processes_measure_one_after_the_other(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    entered = threading.Event()

    def enter() -> None:
        with _alone(folder):
            entered.set()

    second = threading.Thread(target=enter)
    with _alone(folder):
        second.start()
        assert not entered.wait(0.1)
    assert entered.wait(PATIENCE_SECONDS)
    second.join(PATIENCE_SECONDS)


def test_where_no_lock_can_be_kept_they_measure_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with _alone(tmp_path / "file" / "cache"):
        pass


def _ignore_errors(ask: object, text: str) -> None:
    with contextlib.suppress(httpx.HTTPError):
        ask(text)  # type: ignore[operator]
