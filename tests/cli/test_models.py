"""cli/models.py: what is published, whether it is whole, and what its aliases mean."""

import json
from pathlib import Path

import pytest

from artifact.manifest import VariantResult
from artifact.repository import Repository
from cli.models import texts_per_second
from tests.cli.command import Capture, refusal_of, slipway
from tests.tiny_artifact import publish_tiny


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


def test_show_tells_how_longer_texts_are_read(tmp_path: Path, capsys: Capture) -> None:
    publish_tiny(tmp_path, window_tokens=8)
    publish_tiny(tmp_path)
    assert slipway("models", "show", "sentiment:1", repository=tmp_path) == 0
    assert "64 tokens per input, read in windows of 8" in capsys.readouterr().out
    assert slipway("models", "show", "sentiment:2", repository=tmp_path) == 0
    assert "windows" not in capsys.readouterr().out


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
    assert texts_per_second(VariantResult(name="fp32", published=True, speed=speed)) == "30"
    assert texts_per_second(VariantResult(name="fp32", published=True)) == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["models", "alias", "sentiment", "canary"], "give the version"),
        (["models", "alias", "sentiment", "canary", "1", "--remove"], "not both"),
        (["models", "verify"], "NAME:VERSION, or --all"),
        (["models", "verify", "a", "--all"], "NAME:VERSION, or --all"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(capsys: Capture, arguments: list[str], said: str) -> None:
    assert said in refusal_of(capsys, *arguments)
