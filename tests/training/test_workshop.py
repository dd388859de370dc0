"""Torch models of candidates: built once, kept when they took training, and built anew when something changed."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from rich.progress import Progress

from tests.training import tiny
from training.candidates import parse
from training.classifier import load_model
from training.errors import TrainingError
from training.finetune import fine_tune
from training.line import Line
from training.pipeline import Opened
from training.prepare import prepare
from training.sources import EncoderFolder
from training.steps import Steps
from training.workshop import Workshop

RECIPE = tiny.recipe(training__epochs=1, training__max_tokens=32)
UNLABELLED = tuple(row.text for row in tiny.table(40, seed=77).rows)


@pytest.fixture(scope="module")
def opened(encoder: EncoderFolder, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    """A finished run of one epoch."""
    folder = tmp_path_factory.mktemp("run")
    with Progress(disable=True) as progress:
        prepared = prepare(tiny.table(120), RECIPE, progress)
        fine_tune(RECIPE, prepared, encoder, folder / "fine-tune", progress)
        line = Line(RECIPE, folder / "cache", Console(file=io.StringIO()), progress)
    return Opened(line, encoder, prepared, folder)


def workshop(opened: Opened, folder: Path, unlabelled: tuple[str, ...] = UNLABELLED) -> Workshop:
    tuned = fine_tune(RECIPE, opened.prepared, opened.encoder, opened.folder / "fine-tune", opened.line.progress)
    return Workshop(opened, tuned, unlabelled, folder / "models", Steps(folder / "steps"))


@pytest.mark.parametrize("name", ["layers=1", "heads=0.5", "neurons=0.5", "svd=0.5", "zeros=0.5", "clip=0.9"])
def test_a_cut_is_built_and_forgotten(opened: Opened, tmp_path: Path, name: str) -> None:
    shop, steps = workshop(opened, tmp_path), parse(name).model
    folder = shop.model_dir(steps)
    before = load_model(opened.folder / "fine-tune" / "model").state_dict()
    after = load_model(folder).state_dict()
    assert any(key not in after or not torch.equal(before[key], after[key]) for key in before if "layer" in key)
    shop.forget(steps)
    assert not folder.exists()


def test_another_arithmetic_or_number_of_threads_is_another_model(opened: Opened, tmp_path: Path) -> None:
    tuned = fine_tune(RECIPE, opened.prepared, opened.encoder, opened.folder / "fine-tune", opened.line.progress)
    changed: tuple[dict[str, object], ...] = ({}, {"precision": "bf16"}, {"threads": 7})
    keys = {
        Workshop(opened, tuned.model_copy(update=change), (), tmp_path, Steps(tmp_path)).key(parse("layers=1").model)
        for change in changed
    }
    assert len(keys) == 3


def test_nothing_to_do_is_the_fine_tuned_model_itself(opened: Opened, tmp_path: Path) -> None:
    shop = workshop(opened, tmp_path)
    shop.forget(())
    assert load_model(shop.model_dir(())).config.num_hidden_layers == 2


@pytest.mark.parametrize("name", ["layers=1+tune=1", "layers=1+distil=0.5", "layers=1+distil-unlabelled=0.5"])
def test_what_took_training_is_kept(opened: Opened, tmp_path: Path, name: str) -> None:
    steps = parse(name).model
    folder = workshop(opened, tmp_path).model_dir(steps)
    written = (folder / "model.safetensors").stat().st_mtime_ns
    shop = workshop(opened, tmp_path)
    shop.forget(steps)
    assert (shop.model_dir(steps) / "model.safetensors").stat().st_mtime_ns == written


def test_a_cut_after_training_starts_from_what_is_kept(opened: Opened, tmp_path: Path) -> None:
    shop = workshop(opened, tmp_path)
    trained = shop.model_dir(parse("layers=1+tune=1").model)
    written = (trained / "model.safetensors").stat().st_mtime_ns
    further = shop.model_dir(parse("layers=1+tune=1+neurons=0.5").model)
    assert (trained / "model.safetensors").stat().st_mtime_ns == written
    assert load_model(further).get_parameter("bert.encoder.layer.0.intermediate.dense.weight").shape == (32, 32)


def test_a_half_written_model_is_made_again(opened: Opened, tmp_path: Path) -> None:
    steps = parse("layers=1+tune=1").model
    folder = workshop(opened, tmp_path).model_dir(steps)
    (folder / "cut.json").unlink()
    assert (workshop(opened, tmp_path).model_dir(steps) / "cut.json").exists()


def test_keys_tell_what_went_in(opened: Opened, tmp_path: Path) -> None:
    shop, other = workshop(opened, tmp_path), workshop(opened, tmp_path, UNLABELLED[:-1])
    plain, soaked = parse("layers=1+distil=1").model, parse("layers=1+distil-unlabelled=1").model
    assert shop.key(plain) == other.key(plain)
    assert shop.key(soaked) != other.key(soaked)
    assert shop.key(plain) != shop.key(parse("layers=1+distil=2").model)
    data = Opened(opened.line, opened.encoder, replace(opened.prepared, fingerprint="other"), opened.folder)
    assert workshop(data, tmp_path).key(plain) != shop.key(plain)


def test_no_held_out_text_is_learned_from(opened: Opened, tmp_path: Path) -> None:
    held_out = (*opened.prepared.validation.texts, *opened.prepared.test.texts)
    steps = parse("layers=1+distil-unlabelled=1").model
    assert workshop(opened, tmp_path, UNLABELLED + held_out).key(steps) == workshop(opened, tmp_path).key(steps)


def test_calibration_texts_are_the_graphs_inputs(opened: Opened, tmp_path: Path) -> None:
    feeds = workshop(opened, tmp_path).calibration()
    assert len(feeds) == len(opened.prepared.train)
    assert set(feeds[0]) == {"input_ids", "attention_mask", "token_type_ids"}
    assert all(feed["input_ids"].dtype == np.int64 and feed["input_ids"].shape[0] == 1 for feed in feeds)


def test_what_cannot_be_cut_leaves_nothing_behind(opened: Opened, tmp_path: Path) -> None:
    shop = workshop(opened, tmp_path)
    with pytest.raises(TrainingError, match="cannot keep 5 of 2 layers"):
        shop.model_dir(parse("layers=5").model)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_the_sample_knows_where_its_rows_come_from(opened: Opened, tmp_path: Path) -> None:
    """Weights by source need it."""
    train = opened.prepared.train
    sources = tuple(f"row {row}" for row in range(len(train)))
    joined = replace(opened, prepared=replace(opened.prepared, train=replace(train, sources=sources)))
    sample = workshop(joined, tmp_path)._sample
    assert [train.texts[int(name.removeprefix("row "))] for name in sample.sources] == list(sample.texts)


def test_a_model_that_was_trained_again_has_a_temperature_of_its_own(opened: Opened, tmp_path: Path) -> None:
    shop = workshop(opened, tmp_path)
    shop.model_dir(parse("layers=1+tune=1+clip=0.9").model)
    trained = shop.temperature(parse("layers=1+tune=1").model)
    assert trained is not None
    assert shop.temperature(parse("layers=1+tune=1+clip=0.9").model) == trained
    assert shop.temperature(parse("layers=1").model) is None
