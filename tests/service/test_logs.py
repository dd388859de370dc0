import json
import logging

import pytest

from service import logs

pytestmark = pytest.mark.usefixtures("own_logging")


def _lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_one_json_object_a_line_with_the_requests_ids(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    request_id, trace_id = logs.REQUEST_ID.set("abc"), logs.TRACE_ID.set("def")
    logs.logger().info("answered", tokens=3, text="line\nbreak")
    logs.REQUEST_ID.reset(request_id)
    logs.TRACE_ID.reset(trace_id)
    logs.logger().info("elsewhere")
    first, second = _lines(capsys)
    assert (first["event"], first["level"], first["request_id"], first["trace_id"]) == (
        "answered",
        "info",
        "abc",
        "def",
    )
    assert first["tokens"] == 3
    assert "request_id" not in second
    assert "worker" not in second


def test_each_line_of_one_process_among_several_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json", worker=2)
    logs.logger().info("ours")
    logging.getLogger("slipway.engines").warning("a library's")
    assert [line["worker"] for line in _lines(capsys)] == [2, 2]


def test_the_standard_librarys_records_come_along(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    try:
        raise ValueError("the cause")
    except ValueError:
        logging.getLogger("slipway.batcher").exception("a batch of %d failed", 2)
    logging.getLogger("somebody").debug("noise")
    (line,) = _lines(capsys)
    assert (line["event"], line["level"], line["logger"]) == ("a batch of 2 failed", "error", "slipway.batcher")
    assert "the cause" in str(line["exception"])


def test_the_level_is_the_least_severe_shown(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("warning", "json")
    logs.logger().info("quiet")
    logging.getLogger("x").info("quiet")
    logs.logger().warning("loud")
    assert [line["event"] for line in _lines(capsys)] == ["loud"]


def test_a_person_can_read_the_other_format(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "console")
    logs.logger().info("listening", port=1)
    text = capsys.readouterr().err
    assert "listening" in text
    assert "port=1" in text
