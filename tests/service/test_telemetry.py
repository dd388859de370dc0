"""What a request leaves behind: a count, a duration, and a line that carries its ids and none of its text."""

import json
from pathlib import Path

import pytest

from inference.errors import NotReady
from service import logs
from service.context import RequestInfo
from service.telemetry import record, refuse
from tests.service.fakes import running

pytestmark = pytest.mark.usefixtures("own_logging")


def test_a_request_is_counted_once_and_its_line_carries_its_ids(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"
    with running(repository) as service:
        context = service.server.context
        logs.configure("info", "json")
        context.log = logs.logger().bind()
        info = RequestInfo([(b"x-request-id", b"r1"), (b"traceparent", trace)])
        info.status, info.tokens = 200, 7
        info.served = context.registry.find(None, None)
        capsys.readouterr()
        record(context, info, "POST", "/predict", 0.25)
        record(context, info, "GET", "/health", 0.25)
        (line,) = [json.loads(text) for text in capsys.readouterr().err.splitlines()]
        labels = {"model": "sentiment", "version": "1", "task": "text-classification", "route": "/predict"}
        counted = context.metrics.registry.get_sample_value("slipway_requests_total", {**labels, "code": "200"})
    assert counted == 1
    assert (line["event"], line["request_id"], line["trace_id"]) == ("request", "r1", "a" * 32)
    assert (line["route"], line["status"], line["seconds"], line["tokens"]) == ("/predict", 200, 0.25, 7)


def test_an_error_of_ours_is_logged_and_told_as_nothing_but_that(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(repository) as service:
        logs.configure("info", "json")
        reply = refuse(service.server.context, RequestInfo([(b"x-request-id", b"r2")]), ZeroDivisionError("secret"))
        metrics = service.server.context.metrics.registry
        assert metrics.get_sample_value("slipway_rejected_total", {"reason": "internal_error"}) == 1
    (line,) = [json.loads(text) for text in capsys.readouterr().err.splitlines() if "request failed" in text]
    assert line["request_id"] == "r2"
    assert "secret" in line["exception"]
    assert reply.status == 500
    assert b"secret" not in reply.body


def test_a_refusal_is_told_and_not_logged(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(repository) as service:
        logs.configure("info", "json")
        reply = refuse(service.server.context, RequestInfo(()), NotReady("loading", retry_after_seconds=2.5))
    assert (reply.status, reply.retry_after) == (503, 3)
    assert "request failed" not in capsys.readouterr().err
