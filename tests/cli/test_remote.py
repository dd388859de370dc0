"""cli/remote.py: `slipway predict --url` against a server that answers what a test says."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.cli.command import Capture, refusal_of, rows, slipway

Reply = tuple[int, dict[str, str], bytes]


class Server:
    """An HTTP server that answers what a function says, and remembers what it was asked."""

    def __init__(self, answer: Callable[[dict[str, Any]], Reply]) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                asked.append((self.path, request))
                status, headers, body = answer(request)
                self.send_response(status)
                for name, value in (headers | {"Content-Length": str(len(body))}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Keep stderr for what is tested."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def running(self) -> Iterator["Server"]:
        """Serve until the end of the block."""
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


def reply(status: int, body: object, **headers: str) -> Reply:
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, json.dumps(body).encode()


def refusal(status: int, code: str, **headers: str) -> Reply:
    return reply(status, {"error": {"code": code, "message": f"it is {code}"}}, **headers)


def answered(request: dict[str, Any]) -> Reply:
    """As the service answers: the label is the text itself, so that order shows."""
    inputs = request["inputs"]
    return reply(
        200,
        {
            "predictions": [{"label": text, "score": 1.0, "scores": {text: 1.0}} for text in inputs],
            "usage": {"input_tokens": [len(text) for text in inputs], "truncated": [False] * len(inputs)},
        },
    )


def test_a_server_is_asked_in_groups_and_answers_in_the_same_form(capsys: Capture) -> None:
    texts = [f"t{number}" for number in range(200)]
    with Server(answered).running() as server:
        assert slipway("predict", *texts, "--url", server.url + "/base/", "--model", "m", "--version", "3") == 0
    answers = rows(capsys.readouterr().out)
    assert [answer["label"] for answer in answers] == texts
    assert answers[0] == {"label": "t0", "score": 1.0, "scores": {"t0": 1.0}, "input_tokens": 2, "truncated": False}
    assert [(path, len(request["inputs"])) for path, request in server.asked] == [
        ("/base/predict", 128),
        ("/base/predict", 72),
    ]
    assert server.asked[0][1].items() >= {"model": "m", "version": 3, "parameters": {"truncate": False}}.items()


def test_a_request_without_names_names_nothing(capsys: Capture) -> None:
    with Server(answered).running() as server:
        assert slipway("predict", "a", "--truncate", "--url", server.url.removeprefix("http://")) == 0
    assert server.asked == [("/predict", {"parameters": {"truncate": True}, "inputs": ["a"]})]
    assert rows(capsys.readouterr().out)[0]["label"] == "a"


def test_a_group_that_is_refused_is_asked_one_by_one(capsys: Capture) -> None:
    def answer(request: dict[str, Any]) -> Reply:
        return refusal(422, "bad_input") if "" in request["inputs"] else answered(request)

    with Server(answer).running() as server:
        assert slipway("predict", "a", "", "b", "--url", server.url) == 1
    first, second, third = rows(capsys.readouterr().out)
    assert (first["label"], third["label"]) == ("a", "b")
    assert second == {"error": {"code": "bad_input", "message": "it is bad_input", "input": 2}}
    assert [len(request["inputs"]) for _, request in server.asked] == [3, 1, 1, 1]


def test_a_busy_server_is_asked_again_when_it_says(capsys: Capture) -> None:
    replies = iter([refusal(429, "overloaded", Retry_After="0"), refusal(503, "not_ready", Retry_After="0")])
    with Server(lambda request: next(replies, None) or answered(request)).running() as server:
        assert slipway("predict", "a", "--url", server.url) == 0
    assert len(server.asked) == 3
    assert rows(capsys.readouterr().out)[0]["label"] == "a"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (refusal(404, "unknown_model"), "answers 404: it is unknown_model"),
        (refusal(429, "overloaded", Retry_After="0"), "answers 429: it is overloaded"),
        (reply(200, {"predictions": []}), "answers 200, and not as Slipway does"),
        (reply(200, {"predictions": [], "usage": {"input_tokens": [], "truncated": []}}), "not as Slipway does"),
        (reply(200, []), "not as Slipway does"),
        (reply(500, {"detail": "x"}), "answers 500, and not as Slipway does"),
        ((502, {}, b"<html>"), "answers 502, and not with JSON"),
    ],
)
def test_a_server_that_cannot_be_worked_with_ends_the_command(capsys: Capture, answer: Reply, said: str) -> None:
    with Server(lambda _: answer).running() as server:
        assert slipway("predict", "a", "--url", server.url) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err


def test_no_server_is_said_with_its_address(capsys: Capture) -> None:
    server = Server(answered)
    with server.running():
        pass
    assert slipway("predict", "a", "--url", server.url) == 1
    assert capsys.readouterr().err == f"error: no answer from {server.url}: Connection refused\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["predict", "x", "--url", "ftp://host"], "not an http or https address"),
        (["predict", "x", "--url", "http://[::1"], "--url: "),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(capsys: Capture, arguments: list[str], said: str) -> None:
    assert said in refusal_of(capsys, *arguments)
