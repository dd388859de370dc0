"""cli/train.py: which options go together, and how a repeated model is reported."""

import json

import pytest

from cli.train import report_repeat
from tests.cli.command import Capture, refusal_of
from training.reproduce import Check, Repeat

DIGEST = "0123456789abcdef" * 4
SAME = Check("weights", DIGEST, DIGEST, same=True)
DIFFERENT = Check("accuracy", "0.800", "0.799", same=False)
UNKNOWN = Check("weights", "not recorded", DIGEST, same=None)
SUSPECT = Check("torch", "1.0", "2.0", same=False)


def repeated(*outcome: Check, surroundings: tuple[Check, ...] = ()) -> Repeat:
    return Repeat("tiny:1", "sha256:0", outcome, surroundings)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train"], "give a recipe, or --from with the model to repeat (see slipway train --help)"),
        (["train", "sentiment", "--from", "sentiment:1"], "give a recipe, or --from"),
        (["train", "sentiment", "--json"], "go with --from"),
        (["train", "--from", "sentiment:1", "--promote"], "publishes nothing"),
        (["train", "--from", "sentiment:x"], "NAME@ALIAS"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(capsys: Capture, arguments: list[str], said: str) -> None:
    assert said in refusal_of(capsys, *arguments)


@pytest.mark.parametrize(
    ("found", "status", "said"),
    [
        (repeated(SAME), 0, "tiny:1 came out the same, bit for bit\n"),
        (repeated(SAME, surroundings=(SUSPECT,)), 0, "bit for bit, although these differ: torch\n"),
        (repeated(UNKNOWN), 0, "with the same answers; its manifest has no digest of the weights to compare\n"),
        (repeated(SAME, DIFFERENT), 1, "different: accuracy; nothing that is recorded explains it\n"),
        (repeated(DIFFERENT, surroundings=(SUSPECT,)), 1, "different: accuracy; what else differs: torch\n"),
        (repeated(surroundings=(SUSPECT,)), 1, "tiny:1 was not trained again; what differs: torch\n"),
    ],
)
def test_a_repeat_ends_with_a_sentence_and_its_status(capsys: Capture, found: Repeat, status: int, said: str) -> None:
    assert report_repeat(found, as_json=False) == status
    assert capsys.readouterr().out.endswith(said)


def test_of_a_digest_the_table_shows_the_beginning(capsys: Capture) -> None:
    report_repeat(repeated(SAME, UNKNOWN), as_json=False)
    shown = capsys.readouterr().out
    assert "0123456789abcdef..." in shown
    assert DIGEST not in shown


def test_as_json_a_repeat_holds_everything(capsys: Capture) -> None:
    assert report_repeat(repeated(DIFFERENT, surroundings=(SUSPECT,)), as_json=True) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["verdict"] == "different"
    assert document["outcome"] == [{"name": "accuracy", "published": "0.800", "now": "0.799", "same": False}]
