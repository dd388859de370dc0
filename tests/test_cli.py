"""The command line: what it prints where, and with which status it ends."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.cli import get_docs_for_click
from typer.main import get_command

import cli
from artifact.errors import ArtifactError
from artifact.manifest import VariantResult
from artifact.repository import Repository
from tests.tiny_artifact import publish_tiny
from tests.training import tiny

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-c", "import sys, cli; sys.exit(cli.main())"]
BLOCKED = "import sys; sys.modules |= dict.fromkeys(sys.argv.pop(1).split(',')); import cli; sys.exit(cli.main())"

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SLIPWAY_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two versions, for commands that only read."""
    root = tmp_path_factory.mktemp("models")
    publish_tiny(root)
    publish_tiny(root)
    return root


def slipway(*arguments: object, repository: Path | None = None) -> int:
    """Run a command in this process."""
    options = ["--repository", str(repository)] if repository else []
    return cli.main([str(argument) for argument in (*arguments, *options)])


def start(*arguments: object, stdin: bytes | None = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a command in a process of its own."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], input=stdin, cwd=ROOT, capture_output=True, timeout=60, check=False
    )


def rows(output: str | bytes) -> list[dict[str, Any]]:
    """JSON lines."""
    return [json.loads(line) for line in output.splitlines()]


# --- the command itself ------------------------------------------------------------------------------------------


def test_help_names_every_command_and_the_exit_statuses(capsys: Capture) -> None:
    assert slipway("--help") == 0
    shown = capsys.readouterr().out
    words = ("explore", "train", "evaluate", "serve", "predict", "models", "130 interrupted")
    assert all(word in shown for word in words)


@pytest.mark.parametrize("arguments", [(), ("models",)])
def test_without_a_command_the_help_is_shown_and_it_is_wrong_usage(capsys: Capture, arguments: tuple[str, ...]) -> None:
    assert slipway(*arguments) == 2
    assert "Usage" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bogus"], "No such command 'bogus' (see slipway --help)"),
        (["train"], "give a recipe, or --from with the model to repeat (see slipway train --help)"),
        (["train", "sentiment", "--from", "sentiment:1"], "give a recipe, or --from"),
        (["train", "sentiment", "--json"], "go with --from"),
        (["train", "--from", "sentiment:1", "--promote"], "publishes nothing"),
        (["train", "--from", "sentiment:x"], "NAME@ALIAS"),
        (["predict", "--bogus", "x"], "No such option: --bogus"),
        (["serve", "--port", "many"], "--port"),
        (["models", "alias", "sentiment", "canary"], "give the version"),
        (["models", "alias", "sentiment", "canary", "1", "--remove"], "not both"),
        (["models", "verify"], "NAME:VERSION, or --all"),
        (["models", "verify", "a", "--all"], "NAME:VERSION, or --all"),
        (["models", "show", "a:latest"], "NAME@ALIAS"),
        (["models", "show", "a:"], "NAME@ALIAS"),
        (["models", "show", "@b"], "NAME@ALIAS"),
        (["evaluate", "a", "--baseline"], "--baseline goes with --folds"),
        (["evaluate", "a", "--run-dir", "x"], "--run-dir goes with --folds"),
        (["evaluate", "a", "--folds", "5", "--data", "x.csv"], "--data is for a published model"),
        (["evaluate", "a", "--folds", "5", "--against", "b"], "--against is for a published model"),
        (["evaluate", "absent-recipe", "--folds", "5"], "absent-recipe: No such file"),
        (["evaluate", "a:latest"], "NAME@ALIAS"),
        (["predict", "x", "--url", "ftp://host"], "not an http or https address"),
        (["predict", "x", "--url", "http://[::1"], "--url: "),
        (["predict", "x", "--url", "http://h", "--variant", "fp32"], "--variant cannot be asked"),
        (["compress", "sentiment", "--publish"], "--publish needs a target"),
        (["compress", "sentiment", "--only"], "--only needs --try"),
        (["compress", "sentiment", "--try", "int4"], "unknown step 'int4'"),
        (["compress", "sentiment", "--try", "distil-unlabelled=1"], "needs --unlabelled FILE"),
        (["compress", "nothing"], "recipe nothing"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(capsys: Capture, arguments: list[str], said: str) -> None:
    assert slipway(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said.lower() in err.lower()


def test_a_failure_is_one_line_without_a_traceback(capsys: Capture, published: Path) -> None:
    assert slipway("models", "show", "sentiment:9", repository=published) == 1
    assert capsys.readouterr().err == "error: model 'sentiment' has no version 9\n"


@pytest.mark.parametrize("how", ["flag", "environment"])
def test_debug_shows_the_traceback(capsys: Capture, published: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    if how == "environment":
        monkeypatch.setenv("SLIPWAY_DEBUG", "1")
    debug = ["--debug"] if how == "flag" else []
    assert slipway(*debug, "models", "show", "sentiment:9", repository=published) == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.endswith("error: model 'sentiment' has no version 9\n")


def test_a_message_is_never_read_as_markup_nor_broken(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> list[str]:
        raise ArtifactError("pip install 'slipway[train]' " + "x" * 300 + "\nsecond")

    monkeypatch.setattr(Repository, "models", fail)
    assert slipway("models", "list") == 1
    assert capsys.readouterr().err == "error: pip install 'slipway[train]' " + "x" * 300 + " second\n"


def test_what_nobody_expected_is_one_line_too(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> list[str]:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(Repository, "models", fail)
    assert slipway("models", "list") == 1
    assert capsys.readouterr().err == "error: unexpected ZeroDivisionError: by zero (SLIPWAY_DEBUG=1 shows where)\n"


def test_an_interrupted_command_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(Repository, "models", interrupt)
    assert slipway("models", "list") == 130


@pytest.mark.parametrize("command", ["train", "serve"])
def test_a_status_a_command_returns_is_the_status(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    pytest.importorskip("training.pipeline" if command == "train" else "service.supervisor")
    target = "training.pipeline.run_cli" if command == "train" else "service.supervisor.serve"
    monkeypatch.setattr(target, lambda *_, **__: 3)
    assert slipway(command, *(["sentiment"] if command == "train" else [])) == 3


def test_flags_of_serve_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("service.server")
    seen = []

    def run(settings: Any) -> int:
        seen.append(settings)
        return 0

    monkeypatch.setattr("service.supervisor.serve", run)
    monkeypatch.setenv("SLIPWAY_PORT", "1111")
    monkeypatch.setenv("SLIPWAY_HOST", "0.0.0.0")
    assert slipway("serve", "--port", 2222) == 0
    assert (seen[0].port, seen[0].host) == (2222, "0.0.0.0")


def test_a_wrong_setting_stops_the_start_with_status_2(capsys: Capture) -> None:
    pytest.importorskip("service.server")
    assert slipway("serve", "--port", 99999) == 2
    assert "--port" in capsys.readouterr().err


def test_train_says_what_to_install_when_the_libraries_are_missing() -> None:
    missing = "torch,transformers,datasets,sklearn,onnx"
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, missing, "train", "sentiment"], cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.decode().count("\n") == 1
    assert done.stderr.endswith(b"pip install 'slipway[train]'\n")


def explored(folder: Path, *options: object) -> int:
    """Explore a small table with a tiny encoder."""
    tiny.project(folder)
    page = folder / "page.html"
    return slipway("explore", folder / "reviews.csv", "--encoder", folder / "encoder", "--output", page, *options)


def test_explore_prints_what_it_found_and_writes_the_page(capsys: Capture, tmp_path: Path) -> None:
    assert explored(tmp_path) == 0
    out, err = capsys.readouterr()
    assert "what training does" in out
    assert err.endswith(f"the page is {tmp_path / 'page.html'}\n")
    assert "<!doctype html>" in (tmp_path / "page.html").read_text()


def test_explore_prints_its_figures_as_json(capsys: Capture, tmp_path: Path) -> None:
    assert explored(tmp_path, "--json", "--held-out", tmp_path / "reviews.csv") == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["outcome"]["counts"]["read"] == 300
    assert figures["held_out"][0]["exact"] == 300
    assert {"topic", "level", "found", "training"} == figures["advice"][0].keys()


def test_explore_refuses_in_one_line(capsys: Capture, tmp_path: Path) -> None:
    assert explored(tmp_path, "--label-column", "stars") == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: reviews.csv, row 1: column 'stars' is not there; name another with --label-column"
    )


def test_help_needs_neither_half() -> None:
    missing = "torch,transformers,numpy,onnxruntime,tokenizers,fastapi,uvicorn"
    for arguments in (["--help"], ["serve", "--help"], ["train", "--help"], ["models", "list", "--help"]):
        command = [sys.executable, "-c", BLOCKED, missing, *arguments]
        assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0, arguments


def test_a_reader_that_leaves_ends_the_command_quietly(published: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "predict", "--repository", str(published)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(b"good\n" * 5)
        process.stdin.flush()
        process.stdout.readline()
        process.stdout.close()
        process.stdin.write(b"good\n" * 50)
        process.stdin.close()
        assert process.wait(30) == 1
        assert process.stderr.read() == b""


def test_the_reference_page_is_current() -> None:
    command = get_command(cli.app)
    page = get_docs_for_click(obj=command, ctx=typer.Context(command), name="slipway").strip() + "\n"
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == page, (
        "write it again: .venv/bin/python -m typer cli utils docs --name slipway --output docs/cli.md"
    )


# --- predict -----------------------------------------------------------------------------------------------------


def test_predict_answers_arguments_in_order(capsys: Capture, published: Path) -> None:
    assert slipway("predict", "a good film", "an awful mess", repository=published) == 0
    first, second = rows(capsys.readouterr().out)
    assert (first["label"], second["label"]) == ("positive", "negative")
    assert list(first["scores"]) == ["negative", "positive"]
    assert first["score"] == first["scores"]["positive"]
    assert (first["input_tokens"], first["truncated"]) == (5, False)


def test_a_text_that_is_refused_leaves_the_others_answered(capsys: Capture, published: Path) -> None:
    assert slipway("predict", "good", "", "film " * 100, "bad", repository=published) == 1
    good, empty, long, bad = rows(capsys.readouterr().out)
    assert (good["label"], bad["label"]) == ("positive", "negative")
    assert (empty["error"]["code"], empty["error"]["input"]) == ("bad_input", 2)
    assert (long["error"]["code"], long["error"]["input"]) == ("input_too_long", 3)


def test_truncation_is_done_when_asked_for_and_flagged(capsys: Capture, published: Path) -> None:
    assert slipway("predict", "film " * 100, "--truncate", repository=published) == 0
    assert rows(capsys.readouterr().out)[0]["truncated"] is True


def test_lines_of_stdin_are_answered_one_for_one(published: Path) -> None:
    lines = ["good", "", "bad\r", "caf\u00e9 \u2028 good", "\0 good"] + ["good", "bad"] * 300
    content = "\n".join(lines).encode() + b"\n\xff\xfe\n" + b"x" * (5 << 20) + b"\nlast good"
    done = start("predict", "--repository", published, stdin=content)
    answers = rows(done.stdout)
    assert (done.returncode, done.stderr) == (1, b"")
    assert len(answers) == len(lines) + 3
    assert [answer.get("label") for answer in answers[:5]] == ["positive", None, "negative", "positive", "positive"]
    assert [answer["label"] for answer in answers[5:605]] == ["positive", "negative"] * 300
    refused = [answer["error"] for answer in answers if "error" in answer]
    assert [error["input"] for error in refused] == [2, 606, 607]
    assert [error["code"] for error in refused] == ["bad_input"] * 3
    assert "UTF-8" in refused[1]["message"]
    assert "longer than" in refused[2]["message"]
    assert answers[-1]["label"] == "positive"


def test_a_line_is_answered_before_the_next_is_typed(published: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "predict", "--repository", str(published)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        for word, label in (("good", "positive"), ("bad", "negative")):
            process.stdin.write(f"{word}\n".encode())
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["label"] == label
        process.stdin.close()
        assert process.wait(30) == 0


def test_nothing_on_stdin_is_no_answer_and_no_error(published: Path) -> None:
    done = start("predict", "--repository", published)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize("reference", [("--version", "2"), ("--version", "canary"), ("--model", "sentiment")])
def test_a_model_and_a_version_can_be_named(tmp_path: Path, capsys: Capture, reference: tuple[str, str]) -> None:
    publish_tiny(tmp_path)
    publish_tiny(tmp_path)
    Repository(tmp_path).set_alias("sentiment", "canary", 2)
    assert slipway("predict", "good", "--variant", "fp32", *reference, repository=tmp_path) == 0
    assert rows(capsys.readouterr().out)[0]["label"] == "positive"


def test_predict_asks_which_model_when_there_are_several(tmp_path: Path, capsys: Capture) -> None:
    assert slipway("predict", "good", repository=tmp_path) == 2
    assert "no models in" in capsys.readouterr().err
    publish_tiny(tmp_path, "one")
    publish_tiny(tmp_path, "two")
    assert slipway("predict", "good", repository=tmp_path) == 2
    assert "--model: one, two" in capsys.readouterr().err
    assert slipway("predict", "good", "--model", "two", repository=tmp_path) == 0


def test_an_artifact_whose_golden_inputs_fail_answers_nothing(tmp_path: Path, capsys: Capture) -> None:
    publish_tiny(tmp_path, spoil_golden=True)
    assert slipway("predict", "good", repository=tmp_path) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "golden" in err


def test_the_repository_can_come_from_the_environment(
    published: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIPWAY_REPOSITORY", str(published))
    assert slipway("predict", "good") == 0
    assert slipway("models", "list", "--json") == 0
    assert "positive" in capsys.readouterr().out


# --- predict --url -----------------------------------------------------------------------------------------------

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


# --- models ------------------------------------------------------------------------------------------------------


def test_list_shows_every_version_with_its_aliases(published: Path, capsys: Capture) -> None:
    assert slipway("models", "list", repository=published) == 0
    shown = capsys.readouterr().out
    assert "production" in shown
    assert "0.900 [0.850, 0.950]" in shown
    assert slipway("models", "list", "--json", repository=published) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["version"], first["aliases"], second["aliases"]) == (1, ["production"], [])
    assert first["digest"].startswith("sha256:")


def test_an_empty_repository_says_how_to_fill_it(tmp_path: Path, capsys: Capture) -> None:
    assert slipway("models", "list", repository=tmp_path) == 0
    out, err = capsys.readouterr()
    assert (out, "slipway train" in err) == ("", True)
    assert slipway("models", "list", "--json", repository=tmp_path) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_version_that_cannot_be_read_is_listed_and_said(tmp_path: Path, capsys: Capture) -> None:
    publish_tiny(tmp_path)
    path, _ = publish_tiny(tmp_path)
    (path / "manifest.json").write_text("{}")
    assert slipway("models", "list", repository=tmp_path) == 1
    out, err = capsys.readouterr()
    assert "0.900" in out
    assert "cannot be read" in out
    assert "sentiment:2 cannot be read: " in err


@pytest.mark.parametrize("reference", ["sentiment", "sentiment:1", "sentiment@production"])
def test_show_tells_one_version(published: Path, capsys: Capture, reference: str) -> None:
    assert slipway("models", "show", reference, repository=published) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("sentiment:1 @production", "accuracy", "fp32", "model.onnx", "published"))
    assert slipway("models", "show", reference, "--json", repository=published) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["manifest"]["version"], document["aliases"]) == (1, ["production"])


def test_verify_hashes_and_runs(published: Path, capsys: Capture) -> None:
    assert slipway("models", "verify", "sentiment:2", repository=published) == 0
    assert capsys.readouterr().out == "sentiment:2  ok  3 files hashed, golden inputs reproduced by fp32\n"
    assert slipway("models", "verify", "--all", "--json", repository=published) == 0
    assert [row["version"] for row in json.loads(capsys.readouterr().out)] == [1, 2]


def test_verify_finds_damage_wrong_answers_and_strangers(tmp_path: Path, capsys: Capture) -> None:
    damaged, _ = publish_tiny(tmp_path)
    (damaged / "model.onnx").write_bytes(b"x")
    publish_tiny(tmp_path, spoil_golden=True)
    extended, _ = publish_tiny(tmp_path)
    (extended / "NOTES.txt").write_text("mine")
    assert slipway("models", "verify", "--all", repository=tmp_path) == 1
    first, second, third = capsys.readouterr().out.splitlines()
    assert "sentiment:1  FAILED" in first
    assert "model.onnx: 1 bytes" in first
    assert "golden input 0" in second
    assert third.endswith("never read: NOTES.txt")


def test_verify_of_nothing_is_not_a_success_in_silence(tmp_path: Path, capsys: Capture) -> None:
    assert slipway("models", "verify", "--all", repository=tmp_path) == 0
    assert "no models" in capsys.readouterr().err
    assert slipway("models", "verify", "absent", repository=tmp_path) == 1


def test_alias_moves_and_removes(tmp_path: Path, capsys: Capture) -> None:
    publish_tiny(tmp_path)
    publish_tiny(tmp_path)
    repository = Repository(tmp_path)
    assert slipway("models", "alias", "sentiment", "production", 2, repository=tmp_path) == 0
    assert repository.aliases("sentiment") == {"production": 2}
    assert capsys.readouterr().err == "sentiment@production means version 2; before, 1\n"
    assert slipway("models", "alias", "sentiment", "production", "--remove", repository=tmp_path) == 0
    assert repository.aliases("sentiment") == {}
    assert slipway("models", "alias", "sentiment", "canary", 7, repository=tmp_path) == 1
    assert slipway("models", "alias", "sentiment", "canary", "--remove", repository=tmp_path) == 1


def test_the_speed_shown_is_that_of_batches_of_eight_near_32_tokens() -> None:
    cells = [(1, 32, 10.0), (8, 8, 20.0), (8, 31, 30.0), (8, 127, 40.0), (32, 32, 50.0)]
    speed = tuple({"batch_size": b, "tokens": t, "inputs_per_second": s} for b, t, s in cells)
    assert cli._speed(VariantResult(name="fp32", published=True, speed=speed)) == "30"
    assert cli._speed(VariantResult(name="fp32", published=True)) == ""
