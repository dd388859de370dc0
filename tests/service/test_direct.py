"""The ordinary request, answered on its connection: everything HTTP allows around it still holds."""

import contextlib
import gc
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference.ticket import Ticket
from service.direct import DirectCycle, is_ordinary
from tests.service.fakes import PATIENCE_SECONDS, GatedBackend, Running, loading, running, until

BODY = b'{"inputs": "good"}'
LENGTH = (b"content-length", b"18")


def _post(body: bytes = BODY, *lines: str, version: str = "1.1") -> bytes:
    head = [f"POST /predict HTTP/{version}", "host: x", f"content-length: {len(body)}", *lines]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


@contextlib.contextmanager
def _connected(service: Running) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", service.port), PATIENCE_SECONDS) as client:
        yield client


def _read(client: socket.socket) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """Status line, headers and body of one answer."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += client.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    headers = dict(line.split(b": ", 1) for line in lines)
    while len(body) < int(headers[b"content-length"]):
        body += client.recv(65536)
    return status, headers, body


@pytest.mark.parametrize(
    ("method", "url", "headers", "ordinary"),
    [
        (b"POST", b"/predict", [LENGTH], True),
        (b"POST", b"/predict", [(b"content-length", b"100")], True),
        (b"POST", b"/predict", [(b"content-length", b"101")], False),
        (b"POST", b"/predict", [], False),
        (b"POST", b"/predict", [LENGTH, (b"transfer-encoding", b"chunked")], False),
        (b"POST", b"/predict", [LENGTH, (b"expect", b"100-continue")], False),
        (b"POST", b"/predict", [LENGTH, (b"upgrade", b"websocket")], False),
        (b"POST", b"/predict?x=1", [LENGTH], False),
        (b"POST", b"/health", [LENGTH], False),
        (b"GET", b"/predict", [LENGTH], False),
    ],
)
def test_what_is_ordinary(method: bytes, url: bytes, headers: list[tuple[bytes, bytes]], ordinary: bool) -> None:
    assert is_ordinary(method, url, headers, 100) is ordinary


def test_one_connection_carries_many_requests_and_their_ids(service: Running) -> None:
    with _connected(service) as client:
        for number in range(3):
            client.sendall(_post(BODY, f"x-request-id: id-{number}"))
            status, headers, body = _read(client)
            assert status == b"HTTP/1.1 200 OK"
            assert headers[b"x-request-id"] == f"id-{number}".encode()
            assert headers[b"content-type"] == b"application/json"
            assert b"date" in headers
            assert b"connection" not in headers
            assert json.loads(body)["predictions"]


@pytest.mark.parametrize(("lines", "version"), [(("connection: close",), "1.1"), ((), "1.0")])
def test_a_client_that_keeps_nothing_alive_is_closed(service: Running, lines: tuple[str, ...], version: str) -> None:
    with _connected(service) as client:
        client.sendall(_post(BODY, *lines, version=version))
        status, headers, _ = _read(client)
        assert status.endswith(b"200 OK")
        assert headers[b"connection"] == b"close"
        assert client.recv(1) == b""


@pytest.mark.parametrize("body", [BODY, b'{"inputs": 1}'])
def test_what_a_request_needed_is_gone_without_a_search_for_garbage(service: Running, body: bytes) -> None:
    def kept() -> int:
        # Not isinstance: that asks objects of other libraries for their class, and some answer with a warning.
        return sum(type(each) in (DirectCycle, Ticket) for each in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        with _connected(service) as client:
            before = kept()
            for _ in range(20):
                client.sendall(_post(body))
                _read(client)
            # A connection holds its last request until the next one comes, a worker its last batch.
            assert kept() <= before + 2
    finally:
        gc.enable()


def test_a_body_in_pieces_is_one_body(service: Running) -> None:
    whole = _post(b'{"inputs": "a very good film"}')
    with _connected(service) as client:
        for start in range(0, len(whole), 7):
            client.sendall(whole[start : start + 7])
        assert _read(client)[0] == b"HTTP/1.1 200 OK"


def test_requests_behind_a_direct_one_wait_their_turn(repository: Path) -> None:
    backend = GatedBackend()
    backend.gate.clear()
    with running(repository, loading(backend)) as service, _connected(service) as client:
        client.sendall(_post(BODY, "x-request-id: first") + _post(BODY, "x-request-id: second"))
        client.sendall(b"GET /health/live HTTP/1.1\r\nhost: x\r\nx-request-id: third\r\n\r\n")
        assert backend.entered.wait(PATIENCE_SECONDS)
        backend.gate.set()
        received = b""
        while received.count(b"HTTP/1.1 200 OK") < 3 or not received.endswith(b"}"):
            received += client.recv(65536)
    order = [received.index(b"x-request-id: " + name) for name in (b"first", b"second", b"third")]
    assert order == sorted(order)


def test_a_caller_who_leaves_with_half_a_body_is_counted_and_forgotten(repository: Path) -> None:
    with running(repository) as service:
        with _connected(service) as client:
            client.sendall(_post(BODY)[:-4])
            until(lambda: service.server.context.in_flight == 1)
        until(lambda: service.server.context.in_flight == 0)
        assert 'code="499"' in service.client.get("/metrics").text


def test_a_draining_service_answers_and_closes(repository: Path) -> None:
    with running(repository) as service, _connected(service) as client:
        service.server.context.draining = True
        client.sendall(_post())
        status, headers, _ = _read(client)
        service.server.context.draining = False
        assert status == b"HTTP/1.1 200 OK"
        assert headers[b"connection"] == b"close"
        assert client.recv(1) == b""


def test_a_process_that_turns_away_answers_and_closes(repository: Path) -> None:
    with running(repository) as service, _connected(service) as client:
        service.server.context.turning_away = True
        client.sendall(_post())
        status, headers, _ = _read(client)
        assert status == b"HTTP/1.1 200 OK"
        assert headers[b"connection"] == b"close"
        assert service.client.get("/health").headers["connection"] == "close"


def test_a_refusal_says_when_to_come_back_and_keeps_the_connection(tmp_path: Path) -> None:
    with running(tmp_path, wait_for="empty") as service, _connected(service) as client:
        for _ in range(2):
            client.sendall(_post())
            status, headers, body = _read(client)
            assert status == b"HTTP/1.1 503 Service Unavailable"
            assert int(headers[b"retry-after"]) >= 1
            assert json.loads(body)["error"]["request_id"] == headers[b"x-request-id"].decode()
