"""cli/predict.py: answers in order, from the repository."""

import json
import subprocess
from pathlib import Path

import pytest

from artifact.repository import Repository, open_artifact
from inference.engines import Choice, open_cache
from inference.plan import candidates
from tests.cli.command import COMMAND, ROOT, Capture, refusal_of, rows, slipway, start
from tests.tiny_artifact import publish_tiny


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


def test_the_plan_that_was_measured_here_answers_as_in_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    artifact = open_artifact(publish_tiny(tmp_path / "models")[0])
    monkeypatch.setenv("SLIPWAY_CACHE_DIR", str(tmp_path / "cache"))
    cache = open_cache(tmp_path / "cache")
    slowest = candidates(artifact.manifest, cache.cpu, cache.installed)[-1]
    cache.write(artifact, Choice(slowest, "for a test"), [])
    caplog.set_level("INFO", logger="slipway.engines")
    assert slipway("predict", "good", repository=tmp_path / "models") == 0
    assert [f"sentiment runs {slowest}: for a test"] == caplog.messages


def test_an_artifact_whose_golden_inputs_fail_answers_nothing(tmp_path: Path, capsys: Capture) -> None:
    publish_tiny(tmp_path, spoil_golden=True)
    assert slipway("predict", "good", repository=tmp_path) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "golden" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["predict", "x", "--url", "http://h", "--variant", "fp32"], "--variant cannot be asked"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(capsys: Capture, arguments: list[str], said: str) -> None:
    assert said in refusal_of(capsys, *arguments)
