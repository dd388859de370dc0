import os
from pathlib import Path

import pytest

from benchmarks import wrk
from benchmarks.wrk import BenchmarkError, last_json, parse_closed, parse_open

# What wrk 4.1.0 and wrk.lua printed here.
CLOSED = """\
Running 1s test @ http://127.0.0.1:56907
  1 threads and 8 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    10.49ms    6.77ms  38.93ms   61.49%
    Req/Sec   781.40    434.72     1.67k    80.00%
  786 requests in 1.02s, 472.23KB read
Requests/sec:    769.96
Transfer/sec:    462.59KB

{"requests": 786, "seconds": 1.020838, "p50_us": 10549, "p90_us": 20361, "p99_us": 28514, "max_us": 38930, \
"mean_us": 10488.4, "not_2xx": 0, "socket_errors": 0, "timeouts": 0, "sent": 0, "sent_late": 0}
"""
OPEN = {"requests": 6.0, "seconds": 2.0, "sent": 7.0, "sent_late": 1.0}
SAMPLES = """\
0 57658 0
200 57658 6168
0 600000 0
0 700000 0
429 700000 900
200 600000 40791
0 800000 0
500 800000 1000
0 900000 0
0 1400000 0
200 1400000 600000
0 1600000 0
200 1600000 2000
"""


def test_a_closed_run_is_read_from_what_wrk_prints() -> None:
    load = parse_closed(last_json(CLOSED), clients=8, cpu_seconds=0.02)
    assert load.rate == pytest.approx(769.96, abs=0.01)
    assert (load.p50_ms, load.p99_ms, load.max_ms) == (10.549, 28.514, 38.93)
    assert (load.requests, load.failed, load.client_cpu_seconds) == (786, 0, 0.02)


def test_every_kind_of_failure_counts() -> None:
    document = last_json(CLOSED) | {"not_2xx": 1.0, "socket_errors": 2.0, "timeouts": 3.0}
    assert parse_closed(document, clients=8, cpu_seconds=0).failed == 6


def test_refusals_that_were_counted_are_no_failures() -> None:
    document = last_json(CLOSED) | {"not_2xx": 5.0, "refused": 4.0}
    load = parse_closed(document, clients=8, cpu_seconds=0)
    assert (load.failed, load.refused) == (1, 4)


def test_an_open_run_counts_the_arrivals_inside_its_window() -> None:
    arrivals = parse_open(OPEN, SAMPLES, rate=5, window=(0.5, 1.5), cpu_seconds=0.1)
    assert arrivals.accepted_ms == (40.791, 600.0)
    assert (arrivals.refused, arrivals.failed, arrivals.unanswered) == (1, 1, 1)
    assert arrivals.answered == 4
    assert arrivals.sent_late == 1


def test_goodput_is_what_was_answered_in_time() -> None:
    arrivals = parse_open(OPEN, SAMPLES, rate=5, window=(0.5, 1.5), cpu_seconds=0.1)
    assert arrivals.goodput(deadline_ms=500) == pytest.approx(1.0)
    assert arrivals.goodput(deadline_ms=600) == pytest.approx(2.0)
    assert arrivals.latency_ms(50) == 40.791


def test_a_refusal_that_echoes_no_id_counts_by_the_windows_share() -> None:
    samples = "0 600000 0\n429 -1 -1\n429 -1 -1\n"
    arrivals = parse_open(OPEN, samples, rate=5, window=(0.5, 1.5), cpu_seconds=0)
    assert (arrivals.refused, arrivals.accepted_ms) == (1, ())
    assert arrivals.latency_ms(99) == 0


@pytest.mark.parametrize("text", ["", "wrk: connection refused", "[1]"])
def test_other_output_is_no_result(text: str) -> None:
    with pytest.raises(BenchmarkError):
        last_json(text)


def test_a_generator_that_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "wrk"
    program.write_text("#!/bin/sh\nexec tail -f /dev/null\n", encoding="ascii")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(wrk, "_GRACE_SECONDS", 0.05)
    with pytest.raises(BenchmarkError, match="did not end within 0 s"):
        wrk.run_closed("http://127.0.0.1:1", tmp_path / "bodies", clients=1, seconds=0)
