import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from artifact.repository import Repository
from benchmarks.first_request import REQUESTS, measure, ratio, summarize, texts_of, time_requests
from benchmarks.process import Server, free_port, running
from benchmarks.wrk import BenchmarkError
from inference.tasks.registry import open_task
from tests.tiny_artifact import publish_tiny

# Ready at once; writes a line for every text it is asked about, and refuses the word "no".
SERVER = """
import http.server, json, pathlib, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, status):
        self.send_response(status); self.send_header("content-length", "0"); self.end_headers()
    def do_POST(self):
        text, = json.loads(self.rfile.read(int(self.headers["content-length"])))["inputs"]
        with open(sys.argv[2], "a") as asked:
            asked.write(text + "\\n")
        self.answer(503 if text == "no" else 200)
    do_GET = lambda self: self.answer(200)
    log_message = lambda self, *words: None
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    """What the servers were asked, in order."""
    return tmp_path / "asked"


@pytest.fixture
def fresh(tmp_path: Path, asked: Path) -> Callable[[], AbstractContextManager[Server]]:
    """Starts one more server."""

    def start() -> AbstractContextManager[Server]:
        port = free_port()
        command = [sys.executable, "-c", SERVER, str(port), str(asked)]
        return running(command, port=port, probe=None, path="/health/ready", log=tmp_path / "log")

    return start


def test_texts_are_as_long_as_the_artifacts_own(tmp_path: Path) -> None:
    publish_tiny(tmp_path)
    artifact = Repository(tmp_path).open("sentiment")
    task = open_task(artifact)
    texts = texts_of(artifact)
    assert {name: task.prepare(text, truncate=False).tokens for name, text in texts.items()} == {
        "median": 8,
        "longest": 20,
    }


def test_every_start_is_asked_about_one_text_and_nothing_before(
    fresh: Callable[[], AbstractContextManager[Server]], asked: Path
) -> None:
    found = measure(fresh, {"median": "a b", "longest": "a b c"}, starts=1)
    assert {name: [len(each) for each in starts] for name, starts in found.items()} == {
        "median": [REQUESTS],
        "longest": [REQUESTS],
    }
    assert asked.read_text(encoding="utf-8").splitlines() == ["a b"] * REQUESTS + ["a b c"] * REQUESTS


def test_a_first_request_that_is_refused_is_no_measurement(fresh: Callable[[], AbstractContextManager[Server]]) -> None:
    with fresh() as server, pytest.raises(BenchmarkError, match="503"):
        time_requests(server, "no")


def test_a_server_that_is_gone_is_no_measurement(tmp_path: Path) -> None:
    server = Server(1, free_port(), tmp_path / "log", 0.0, 0.0)
    with pytest.raises(BenchmarkError, match="not answered"):
        time_requests(server, "a")


def test_the_first_is_compared_with_the_median_of_the_later_ones() -> None:
    assert ratio([6.0, 3.0, 2.0, 90.0]) == pytest.approx(2)
    found = summarize({"median": [[4.0, 2.0, 2.0], [3.0, 3.0, 3.0], [9.0, 3.0, 3.0]], "longest": [[1.0, 2.0]]})
    assert found["first_request_ratio"] == {"median": 2.0, "longest": 0.5}
    assert found["first_requests"]["median"]["ratio"] == {"median": 2.0, "low": 1.0, "high": 3.0, "runs": 3}
    assert found["first_requests"]["median"]["first_ms"]["high"] == 9.0
