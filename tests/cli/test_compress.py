"""cli/compress.py: which options go together. tests/training/test_compress.py measures."""

import pytest

from tests.cli.command import Capture, refusal_of


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compress", "sentiment", "--publish"], "--publish needs a target"),
        (["compress", "sentiment", "--only"], "--only needs --try"),
        (["compress", "sentiment", "--try", "int4"], "unknown step 'int4'"),
        (["compress", "sentiment", "--try", "distil-unlabelled=1"], "needs --unlabelled FILE"),
        (["compress", "nothing"], "recipe nothing"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(capsys: Capture, arguments: list[str], said: str) -> None:
    assert said in refusal_of(capsys, *arguments)
