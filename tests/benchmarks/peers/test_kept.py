from pathlib import Path

import pytest

from benchmarks.peers.kept import Kept

CONDITIONS = {"plan": {"repetitions": 2}, "digest": "sha256:1"}


def test_what_was_measured_is_given_back_under_the_same_conditions(tmp_path: Path) -> None:
    Kept.under(tmp_path / "new", CONDITIONS).write("mosec", [{"clients": 8}], {"memory_mb": 3.0})
    again = Kept.under(tmp_path / "new", dict(reversed(CONDITIONS.items())))
    assert again.read("mosec") == ([{"clients": 8}], {"memory_mb": 3.0})
    assert again.read("litserve") is None


def test_another_plan_or_model_is_not_mixed_in(tmp_path: Path) -> None:
    Kept.under(tmp_path, CONDITIONS).write("mosec", [], {})
    assert Kept.under(tmp_path, CONDITIONS | {"digest": "sha256:2"}).read("mosec") is None


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"conditions": 1}'])
def test_a_damaged_file_is_no_measurement(content: str, tmp_path: Path) -> None:
    (tmp_path / "mosec.json").write_text(content, encoding="utf-8")
    assert Kept.under(tmp_path, CONDITIONS).read("mosec") is None


def test_a_new_run_starts_with_nothing(tmp_path: Path) -> None:
    kept = Kept.under(tmp_path, CONDITIONS)
    kept.write("mosec", [], {})
    kept.forget()
    assert kept.read("mosec") is None
    Kept.under(tmp_path / "absent", CONDITIONS).forget()
