from pathlib import Path

import pytest

from benchmarks.memory import print_table, stages_elsewhere
from benchmarks.stages import Sizes, sizes_of, weigh
from tests.tiny_artifact import publish_tiny

ROLLUP = """00400000-7fff00000000 ---p 00000000 00:00 0                          [rollup]
Rss:              165000 kB
Pss:              126000 kB
Pss_Anon:          90000 kB
Anonymous:        100000 kB
"""


def test_sizes_are_read_in_bytes() -> None:
    sizes = sizes_of(ROLLUP)
    assert sizes == Sizes(resident=165000 * 1024, own=100000 * 1024, pss=126000 * 1024)
    assert sizes.mapped == 65000 * 1024
    assert weigh("self").resident > weigh("self").own > 0


def test_every_step_is_weighed_in_a_fresh_process(tmp_path: Path) -> None:
    publish_tiny(tmp_path)
    found = stages_elsewhere(tmp_path, "sentiment", None)
    assert [name for name, _ in found][-3:] == ["tokenizer", "weights of fp32", "golden answers and warm-up"]
    assert found[0][1].resident < found[1][1].resident < found[2][1].resident


def test_a_table_says_what_each_step_added(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("one", Sizes(10_000_000, 4_000_000, 9_000_000)), ("two", Sizes(12_500_000, 5_000_000, 9_500_000))]
    print_table("steps", rows, growing=True)
    assert capsys.readouterr().out.splitlines()[-1].split() == ["two", "12.5", "5.0", "7.5", "2.5"]
    print_table("server", rows, growing=False)
    assert capsys.readouterr().out.splitlines()[-1].split() == ["two", "12.5", "5.0", "7.5", "9.5"]
