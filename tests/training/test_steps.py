"""Finished steps are found again under their own key, and under no other."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel

from tests.training.full_disk import full_disk
from training.errors import TrainingError
from training.steps import Steps, key_of, only_user, source_key


class Figure(BaseModel):
    value: float


def test_a_result_is_found_under_its_key_only(tmp_path: Path) -> None:
    steps = Steps(tmp_path / "steps")
    steps.save("baseline", "a", Figure, Figure(value=0.5))
    assert steps.load("baseline", "a", Figure) == Figure(value=0.5)
    assert steps.load("baseline", "b", Figure) is None
    assert steps.load("other", "a", Figure) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"key": "a"}', b'{"key": "a", "result": {"value": "x"}}'])
def test_a_result_that_cannot_be_read_was_never_there(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "baseline.json").write_bytes(content)
    assert Steps(tmp_path).load("baseline", "a", Figure) is None


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    steps = Steps(tmp_path)
    array = np.random.default_rng(0).random((7, 2))
    steps.save_array("scores", "a", array)
    found = steps.load_array("scores", "a")
    assert found is not None
    np.testing.assert_array_equal(found, array)
    assert steps.load_array("scores", "b") is None


def test_an_array_is_nothing_without_its_note_or_its_values(tmp_path: Path) -> None:
    steps = Steps(tmp_path)
    steps.save_array("scores", "a", np.zeros((3, 2)))
    (tmp_path / "scores.npy").write_bytes(b"torn")
    assert steps.load_array("scores", "a") is None
    steps.save_array("scores", "a", np.zeros((3, 2)))
    (tmp_path / "scores.json").unlink()
    assert steps.load_array("scores", "a") is None


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "steps").write_text("a file where the folder should be")
    with pytest.raises(TrainingError, match="steps: File exists"):
        Steps(tmp_path / "steps").save("baseline", "a", Figure, Figure(value=1))
    with pytest.raises(TrainingError, match="steps: File exists"):
        Steps(tmp_path / "steps").save_array("scores", "a", np.zeros(3))


def test_a_full_disk_leaves_no_array_that_would_be_found(tmp_path: Path) -> None:
    steps = Steps(tmp_path)
    steps.save_array("scores", "a", np.zeros(3))
    with pytest.raises(TrainingError, match=r"scores\.npy: cannot be written: the disk is full"), full_disk():
        steps.save_array("scores", "b", np.zeros(5_000))
    assert steps.load_array("scores", "b") is None
    steps.save_array("scores", "b", np.ones(5_000))
    assert steps.load_array("scores", "b") is not None


def test_keys_depend_on_values_and_not_on_the_order_of_a_dictionary() -> None:
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
    assert key_of("a", "b") != key_of("ab")


def test_changed_code_changes_the_key(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    module = tmp_path / "package" / "module.py"
    module.write_text("x = 1")
    before = source_key("package", root=tmp_path)
    assert source_key("package", root=tmp_path) == before
    module.write_text("x = 2")
    assert source_key("package", root=tmp_path) != before


def _hold(folder: Path, held: "multiprocessing.synchronize.Event") -> None:
    with only_user(folder):
        held.set()
        multiprocessing.Event().wait(60)


def test_a_folder_has_one_user_and_a_killed_one_leaves_it_free(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    other = context.Process(target=_hold, args=(tmp_path / "run", held), daemon=True)
    other.start()
    assert held.wait(60)
    with pytest.raises(TrainingError, match="another run is using"), only_user(tmp_path / "run"):
        pass
    other.kill()
    other.join()
    with only_user(tmp_path / "run"):
        pass
