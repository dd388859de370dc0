import json
import statistics
from pathlib import Path

import pytest

from benchmarks.workload import LONG_TOKENS, MIXED_SIZE, Workload, make_workload, read_texts, write_bodies

TEXTS = [f"snippet {number} " + "word " * (5 + number % 40) for number in range(200)]


def count(text: str) -> int:
    return len(text.split())


def workload(seed: int = 7) -> Workload:
    return make_workload("test", TEXTS, count, most_tokens=300, seed=seed)


def test_the_same_seed_gives_the_same_texts() -> None:
    assert workload() == workload()
    assert workload() != workload(seed=8)


def test_long_texts_have_about_two_hundred_tokens() -> None:
    lengths = [count(text) for text in workload().long]
    assert statistics.mean(lengths) == pytest.approx(LONG_TOKENS, rel=0.05)
    assert max(lengths) <= 300


def test_no_text_is_longer_than_the_model_takes() -> None:
    small = make_workload("test", TEXTS, count, most_tokens=30)
    assert max(count(text) for text in (*small.short, *small.long)) <= 30
    with pytest.raises(ValueError, match="at most 3 tokens"):
        make_workload("test", TEXTS, count, most_tokens=3)


def test_mixed_bodies_are_half_short_half_long_and_shuffled() -> None:
    made = workload()
    for body in made.mixed:
        assert len(body) == MIXED_SIZE
        assert sum(text in made.long for text in body) == MIXED_SIZE // 2
    assert any(body[0] in made.long for body in made.mixed)
    assert any(body[0] in made.short for body in made.mixed)


def test_a_plain_file_of_texts_will_do(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("one\n\n  two words \n", encoding="utf-8")
    assert read_texts(path) == ["one", "two words"]


def test_bodies_are_one_json_document_a_line(tmp_path: Path) -> None:
    path = write_bodies(tmp_path / "bodies.jsonl", [("a\nb",), ("ü", "d")], timeout_seconds=0.5)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"inputs": ["a\nb"], "timeout_seconds": 0.5},
        {"inputs": ["ü", "d"], "timeout_seconds": 0.5},
    ]
