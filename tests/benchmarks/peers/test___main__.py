import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from artifact.repository import Repository
from benchmarks.open_loop import FACTORS
from benchmarks.peers import __main__ as peers
from benchmarks.peers.__main__ import (
    LOADS,
    Material,
    Setting,
    _measure_peers,
    figures_of,
    install,
    saturation_of,
    serving,
    table,
    write_results,
)
from benchmarks.peers.catalogue import Peer, Program
from benchmarks.peers.kept import Kept
from benchmarks.peers.pace import choose_plan
from benchmarks.process import Server
from benchmarks.workload import Workload
from tests.benchmarks.test_bench import OPENED, result, run
from tests.benchmarks.test_plots import load
from tests.tiny_artifact import publish_tiny

# What `make bench` promises for its last line, but for what only it measures.
FIELDS = (
    "ratio",
    "ratio_yardstick",
    "ratio_long",
    "p50_ms",
    "p99_ms",
    "engine_batch1_ms",
    "cpu_over_limit",
    "goodput_at_2x",
    "padded_over_real",
    "many_texts_speedup",
    "cold_start_s",
    "memory_mb",
    "engine",
    "variant",
)
OPEN_LOOP = {**OPENED, "loads": {str(factor): load(factor) for factor in FACTORS}}


def runs(**without: None) -> list[dict[str, Any]]:
    found = [run(kind, clients, repetition) for kind, clients in LOADS for repetition in range(2)]
    return [{name: value for name, value in each.items() if name not in without} for each in found]


def peer(title: str = "mosec") -> dict[str, Any]:
    about = {
        "title": title,
        "engine": "onnxruntime",
        "variant": "int8 dynamic",
        "memory_mb": 300.0,
        "cold_start_s": 2.0,
    }
    return {**about, **figures_of(runs(), OPEN_LOOP)}


def measured() -> dict[str, Any]:
    ours = {"title": "Slipway", **result(), "open_loop": OPEN_LOOP, "memory_mb": 180.0, "cold_start_s": 0.9}
    return {"peers": {"mosec": peer()}, "slipway": ours, "skipped": {}, "failed": {}}


def test_a_peer_has_the_figures_that_bench_has() -> None:
    found = figures_of(runs(), OPENED)
    assert found["ratio"] == {"8": 0.9, "32": 0.9, "128": 0.9}
    assert found["ratio_yardstick"] == {"8": 0.85, "32": 0.85, "128": 0.85}
    assert found["ratio_long"] == {"32": 0.9}
    assert found["p50_ms"].keys() == found["p99_ms"].keys() == {"1", "8", "32", "128"}
    assert (found["cpu_over_limit"], found["engine_batch1_ms"], found["goodput_at_2x"]) == (1.2, 4.0, 0.96)
    assert found["padding"].keys() == {"short-1", "short-8", "short-32", "short-128", "long-32"}


@pytest.mark.parametrize("server", ["peer", "slipway"])
def test_every_server_has_every_field(server: str) -> None:
    found = measured()["slipway"] if server == "slipway" else peer()
    assert set(FIELDS) - found.keys() == set()


def test_what_does_not_apply_is_null() -> None:
    found = figures_of(runs(ratio=None, cpu_over_limit=None, batch1_ms=None, padded_over_real=None), OPENED)
    assert found["ratio"] is None
    assert found["ratio_long"] is None
    assert found["engine_batch1_ms"] is None
    assert found["many_texts_speedup"] is None
    assert found["padding"] == {}
    assert "NaN" not in json.dumps(found)


def test_the_open_loop_is_scaled_by_what_128_clients_got() -> None:
    references = {"before": {"limit": 900.0}, "after": {"limit": 1100.0}}
    assert saturation_of([{**each, **references} for each in runs()]) == pytest.approx(0.5)


def test_the_table_has_a_line_for_every_server_and_every_gap() -> None:
    found = measured() | {"skipped": {"torchserve": "needs java"}, "failed": {"triton": "no wheel"}}
    lines = table(found).splitlines()
    assert lines[2].startswith("| mosec | 5.0 | 0.85 |")
    assert "| Slipway |" in lines[3]
    assert lines[-2:] == ["skipped: torchserve (needs java)", "failed: triton (no wheel)"]


def test_a_peer_that_cannot_be_had_does_not_keep_the_others_from_being_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken").write_text("a file where its folder should be", encoding="utf-8")
    monkeypatch.setattr(peers, "_ENVIRONMENTS", tmp_path)
    lacking = Peer("lacking", "Lacking", needs=(Program("no-such-program", "no-such-package"),))
    found: dict[str, Any] = {"skipped": {}, "failed": {}}
    monkeypatch.setattr(Peer, "requirements", tmp_path / "broken")
    assert install([lacking, Peer("broken", "Broken")], found, ()) == {}
    assert found["skipped"] == {"lacking": "needs no-such-program: apt-get install no-such-package"}
    assert "venv" in found["failed"]["broken"]
    assert "skipped: Lacking needs no-such-program" in capsys.readouterr().out


def test_results_and_plots_of_all_servers_are_kept(tmp_path: Path) -> None:
    write_results(measured(), "quick-", tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    pictures = {f"quick-peers-{name}.svg" for name in ("open-loop", "cpu-per-request", "padding")}
    assert names == pictures | {"quick-peers.json"}
    assert "mosec" in (tmp_path / "quick-peers-open-loop.svg").read_text(encoding="utf-8")


def test_an_unknown_peer_ends_the_program_with_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    publish_tiny(tmp_path)
    assert peers.main(["--repository", str(tmp_path), "vapour"]) == 1
    assert "no peer called vapour" in capsys.readouterr().err


SERVE = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        known = all(os.path.isabs(os.environ[name]) for name in ("PEER_MODEL", "PEER_TOKENIZER", "PEER_COUNTS"))
        self.send_response(200 if known and b"good" in body else 400); self.end_headers()
    log_message = lambda self, *words: None
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


class Double(Peer):
    """A peer whose server is the one above, or ends at once."""

    def command(self, python: Path, port: int) -> list[str]:
        return [sys.executable, "-c", SERVE if self.name == "good" else "raise SystemExit('no luck')", str(port)]


@pytest.fixture
def material(tmp_path: Path) -> Material:
    publish_tiny(tmp_path / "models")
    artifact = Repository(tmp_path / "models").open("sentiment")
    return Material(artifact, Workload("test", ("good",), ("good film",), ()), Path("y.onnx"), None, tmp_path)


def test_a_peer_is_started_with_what_it_needs_and_tried(material: Material) -> None:
    with serving(material, Double("good", "Good"), Path("python")) as (server, counts):
        assert server.first_answer_seconds > 0
        assert counts.is_dir()


def test_installing_tries_every_server_once_and_measures_nothing(
    material: Material, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peers, "PEERS", (Double("bad", "Bad"), Double("good", "Good")))
    monkeypatch.setattr(peers, "install", lambda *_: PYTHONS)
    monkeypatch.setattr(peers, "prepare", lambda *_: material)
    repository = str(material.folder / "models")
    assert peers.main(["--repository", repository, "--install"]) == 1
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["answered"].keys() == {"good"}
    assert found["failed"].keys() == {"bad"}


@pytest.fixture
def setting(material: Material, monkeypatch: pytest.MonkeyPatch) -> Setting:
    """Of two peers: `good`, whose measurement is not made but given, and `bad`."""
    monkeypatch.setattr(peers, "PEERS", (Double("bad", "Bad"), Double("good", "Good")))
    monkeypatch.setattr(peers, "_in_turns", lambda *_: (runs(), {"p50_ms": {"1": 2.0}}))
    plan = choose_plan(quick=True, minutes=None, peers=2)
    unused: Any = None
    return Setting(material, {}, unused, plan, unused, Kept.under(material.folder / "kept", {}))


PYTHONS = {"good": Path("python"), "bad": Path("python")}


def test_one_that_fails_is_listed_and_the_others_are_measured_and_kept(setting: Setting) -> None:
    found: dict[str, Any] = {"peers": {}, "failed": {}}
    ours = _measure_peers(setting, PYTHONS, found)
    assert len(ours) == len(runs())
    assert found["peers"]["good"]["p50_ms"] == {"1": 2.0}
    assert found["peers"]["good"]["memory_mb"] > 0
    assert "no luck" in found["failed"]["bad"]
    assert setting.kept.read("good") is not None
    assert setting.kept.read("bad") is None


def test_what_was_kept_is_not_measured_again(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    setting.kept.write("bad", [{"clients": 8}], {"memory_mb": 1.0})
    found: dict[str, Any] = {"peers": {}, "failed": {}}
    assert {"clients": 8} in _measure_peers(setting, PYTHONS, found)
    assert found["peers"]["bad"]["memory_mb"] == 1.0
    assert found["failed"] == {}


def test_one_that_hangs_is_ended_and_the_others_go_on(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(_: Setting, peer: Peer, server: Server, counts: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        while Path(f"/proc/{server.pid}/exe").exists():
            os.sched_yield()
        return [], {}

    monkeypatch.setattr(peers, "_in_turns", hang)
    monkeypatch.setattr(peers, "most_seconds", lambda plan: 0.05)
    found: dict[str, Any] = {"peers": {}, "failed": {}}
    assert _measure_peers(setting, PYTHONS, found) == []
    assert found["failed"]["good"] == "it was not done within 0 s, and was ended"
    assert found["failed"].keys() == {"good", "bad"}


def test_an_error_that_nobody_thought_of_is_that_peers_own(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(peers, "_in_turns", break_down)
    found: dict[str, Any] = {"peers": {}, "failed": {}}
    _measure_peers(setting, PYTHONS, found)
    assert found["failed"]["good"] == "ZeroDivisionError"


def test_arguments_are_those_of_every_benchmark() -> None:
    options = peers._parser().parse_args(["--quick", "mosec"])
    assert isinstance(options, argparse.Namespace)
    assert (options.quick, options.peers, options.model) == (True, ["mosec"], "sentiment")
    assert (options.minutes, options.resume, options.install) == (None, False, False)


def test_the_command_in_the_results_says_which_plan_it_was() -> None:
    parse = peers._parser().parse_args
    assert peers._flags(parse(["--minutes", "30", "mosec"])) == " --minutes 30"
    assert peers._flags(parse(["--quick"])) == " --quick"
    assert peers._flags(parse([])) == ""


def test_a_new_run_forgets_and_a_resumed_one_does_not(material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_KEPT", material.folder / "kept")
    plan = choose_plan(quick=True, minutes=None, peers=2)
    about = (plan, material.artifact, {"variant": "fp32", "engine": "onnxruntime"}, material.workload)
    peers._kept(*about, resume=False).write("good", [], {})
    assert peers._kept(*about, resume=True).read("good") == ([], {})
    assert peers._kept(*about, resume=False).read("good") is None
