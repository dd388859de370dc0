import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.fakes import PATIENCE_SECONDS, Running, running

HEAD = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service with short timers, small headers and no model: connections are all it is asked about."""
    with running(
        tmp_path_factory.mktemp("nothing"),
        wait_for="empty",
        header_timeout_seconds=0.3,
        body_timeout_seconds=0.4,
        idle_timeout_seconds=0.5,
        max_header_bytes=2048,
        max_connections=20,
    ) as service:
        yield service


@contextlib.contextmanager
def _connected(service: Running) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", service.port), PATIENCE_SECONDS) as client:
        yield client


def _until_closed(client: socket.socket) -> tuple[bytes, float]:
    """Everything the server says until it closes, and how long that took."""
    started = time.perf_counter()
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := client.recv(65536):
            received += chunk
    return received, time.perf_counter() - started


def _trickle(client: socket.socket, byte: bytes) -> tuple[bytes, float]:
    """Send a byte every 50 ms for as long as the server lets us."""
    stop = threading.Event()

    def send() -> None:
        with contextlib.suppress(OSError):
            while not stop.wait(0.05):
                client.sendall(byte)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        return _until_closed(client)
    finally:
        stop.set()
        sender.join()


def test_a_silent_connection_is_closed(strict: Running) -> None:
    with _connected(strict) as client:
        received, seconds = _until_closed(client)
    assert received == b""
    assert seconds < 3


@pytest.mark.parametrize("start", [b"", b"POST /pre", HEAD + b"x-slow: "])
def test_trickled_headers_are_cut_off(strict: Running, start: bytes) -> None:
    with _connected(strict) as client:
        client.sendall(start)
        received, seconds = _trickle(client, b"a" if start else b"\r\n")
    assert seconds < 3
    if start:
        assert received.startswith(b"HTTP/1.1 408 ")
        assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]["code"] == "request_timeout"


def test_a_trickled_body_is_cut_off(strict: Running) -> None:
    with _connected(strict) as client:
        client.sendall(HEAD + b"content-length: 1000\r\n\r\n{")
        received, seconds = _trickle(client, b" ")
    assert received.startswith(b"HTTP/1.1 408 ")
    assert seconds < 3


def test_a_trickled_chunked_body_is_cut_off(strict: Running) -> None:
    with _connected(strict) as client:
        client.sendall(HEAD + b"transfer-encoding: chunked\r\n\r\n")
        received, seconds = _trickle(client, b"1\r\n \r\n")
    assert received.startswith(b"HTTP/1.1 408 ")
    assert seconds < 3


def test_a_body_nobody_reads_is_cut_off_too(strict: Running) -> None:
    with _connected(strict) as client:
        client.sendall(b"GET /health/live HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n")
        received, seconds = _trickle(client, b" ")
    assert received.startswith(b"HTTP/1.1 200 ")
    assert seconds < 3


def test_a_kept_alive_connection_is_closed_when_idle_and_not_before(strict: Running) -> None:
    with _connected(strict) as client:
        for _ in range(2):
            client.sendall(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
            threading.Event().wait(0.1)
        received, seconds = _until_closed(client)
    assert received == b""
    assert 0.2 < seconds < 3


def test_a_second_request_is_timed_like_the_first(strict: Running) -> None:
    with _connected(strict) as client:
        client.sendall(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        received, seconds = _trickle(client, b"G")
    assert received.startswith((b"HTTP/1.1 408 ", b"HTTP/1.1 400 "))
    assert seconds < 3


def test_headers_have_a_largest_size(strict: Running) -> None:
    with _connected(strict) as client:
        for _ in range(100):
            with contextlib.suppress(OSError):
                client.sendall(b"x" * 100 if _ else b"GET /" + b"x" * 100)
        received, _seconds = _until_closed(client)
    assert received.startswith(b"HTTP/1.1 431 ") or received == b""


def test_that_bound_is_per_request_and_not_about_bodies(strict: Running) -> None:
    body = b'{"inputs": "' + b"a" * 5000 + b'"}'
    with _connected(strict) as client:
        for _ in range(20):
            client.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
            assert client.recv(65536).startswith(b"HTTP/1.1 503 ")
            client.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(body))
            client.sendall(body[:3000])
            client.sendall(body[3000:])
            assert client.recv(65536).startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize("junk", [b"\x16\x03\x01\x02\x00\x01\x00", b"hello\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"])
def test_what_is_not_http_gets_our_error_shape(strict: Running, junk: bytes) -> None:
    with _connected(strict) as client:
        client.sendall(junk)
        received, _ = _until_closed(client)
    assert received.startswith(b"HTTP/1.1 400 ")
    head, _, body = received.partition(b"\r\n\r\n")
    assert json.loads(body)["error"]["code"] == "bad_http"
    assert b"x-request-id" in head


def test_connections_beyond_the_cap_are_refused_and_the_others_served(strict: Running) -> None:
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(_connected(strict)) for _ in range(40)]
        answers = []
        for client in held:
            received, _ = _until_closed(client)
            answers.append(received[:12])
    assert answers.count(b"HTTP/1.1 503") >= 20
    assert strict.client.get("/health/live").status_code == 200


def test_pipelined_requests_are_answered_in_order(strict: Running) -> None:
    with _connected(strict) as client:
        client.sendall(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\nGET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n")
        received, _ = _until_closed(client)
    assert received.index(b"HTTP/1.1 200") < received.index(b"HTTP/1.1 404")


def test_a_hundred_slow_clients_do_not_keep_others_out(repository: Path) -> None:
    with running(repository, header_timeout_seconds=5.0) as service, contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(_connected(service)).sendall(HEAD[:10])
        started = time.perf_counter()
        assert service.predict("good").status_code == 200
        assert time.perf_counter() - started < 3
