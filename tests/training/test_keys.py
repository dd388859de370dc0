"""training/keys.py: what changes a key, and what must not."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rich.progress import Progress

from tests.training import tiny
from training.keys import encoder_digest, run_key, weights_digest
from training.prepare import Prepared, prepare


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    with Progress(disable=True) as bars:
        return prepare(tiny.table(60), tiny.recipe(), bars)


def test_fields_that_came_later_leave_the_keys_of_earlier_runs_alone(prepared: Prepared) -> None:
    """The first key was made before those fields existed."""
    as_it_was = replace(prepared, fingerprint="sha256:0")
    assert run_key(tiny.recipe(), as_it_was) == "cf204b3265504e2382ba3eed22955d7551e559ae3b17e94803effae0b399adf9"
    others = [{"class_weights": "balanced"}, {"optimizer": "sgd"}, {"dropout": 0.1}, {"frozen_layers": 1}]
    others += [{"encoder_layers": 1}, {"adversarial": 0.5}]
    keys = {run_key(tiny.recipe(training=change), as_it_was) for change in others}
    assert len(keys) == len(others)


def test_what_cannot_change_the_weights_leaves_the_key_alone(prepared: Prepared) -> None:
    key = run_key(tiny.recipe(), prepared)
    assert run_key(tiny.recipe(name="other"), prepared) == key
    assert run_key(tiny.recipe(training__seed=7), prepared) != key
    assert run_key(tiny.recipe(), replace(prepared, fingerprint="sha256:1")) != key


def test_sources_count_where_they_decide_the_weights(prepared: Prepared) -> None:
    def joined(name: str) -> Prepared:
        return replace(prepared, train=replace(prepared.train, sources=(name,) * len(prepared.train)))

    one, other = joined("a"), joined("b")
    assert run_key(tiny.recipe(), one) == run_key(tiny.recipe(), other)
    by_source = tiny.recipe(training__class_weights="balanced_by_source")
    assert run_key(by_source, one) != run_key(by_source, other)


def test_an_encoder_is_its_weights_its_configuration_and_its_tokenizer(tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    tiny.encoder_folder(folder)
    weights, whole = weights_digest(folder), encoder_digest(folder)
    (folder / "README.md").write_text("words")
    assert encoder_digest(folder) == whole
    (folder / "config.json").write_text("{}")
    assert weights_digest(folder) == weights
    changed = encoder_digest(folder)
    assert changed != whole
    shutil.copyfile(folder / "model.safetensors", folder / "more.safetensors")
    assert weights_digest(folder) != weights
    assert encoder_digest(folder) != changed
