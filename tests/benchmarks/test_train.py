"""benchmarks/train.py: the real trainers on a tiny encoder. No speed is asserted."""

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers
from rich.progress import Progress

from benchmarks import train
from benchmarks.train import Material, Turn, our_trainer, plain_trainer, speed_figures, take_turn
from tests.training import tiny
from training.prepare import prepare
from training.recipe import load_recipe

QUIET = Progress(disable=True)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Spinning threads cost more than tiny matrices gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    folder = tmp_path_factory.mktemp("bench-train")
    recipe = tiny.recipe(training__epochs=4, training__layer_decay=0.5)
    return Material(recipe, prepare(tiny.table(300), recipe, QUIET), tiny.encoder_folder(folder / "encoder"), folder)


def steps_of_an_epoch(material: Material) -> int:
    return math.ceil(len(material.prepared.train) / material.recipe.training.batch_size)


def test_ours_is_the_trainer_of_fine_tune_and_plain_is_transformers_own(material: Material) -> None:
    ours, plain = our_trainer(material.changed(precision="bf16")), plain_trainer(material.changed(precision="bf16"))
    assert type(ours).__module__ == "training.trainer"
    assert type(plain) is transformers.Trainer
    assert (ours.args.bf16, plain.args.bf16) == (True, False)
    assert isinstance(plain._get_train_sampler(), torch.utils.data.RandomSampler)
    assert not isinstance(ours._get_train_sampler(), torch.utils.data.RandomSampler)


def test_both_train_the_same_weights_at_the_same_rates_in_batches_of_the_same_size(material: Material) -> None:
    ours, plain = our_trainer(material), plain_trainer(material)
    for one, other in zip(ours.optimizer.param_groups, plain.optimizer.param_groups, strict=True):
        assert [p.shape for p in one["params"]] == [p.shape for p in other["params"]]
        names = ("lr", "weight_decay", "betas", "eps")
        assert [one[name] for name in names] == [other[name] for name in names]
    assert isinstance(plain.optimizer, torch.optim.AdamW)
    assert all(torch.equal(a, b) for a, b in zip(ours.model.parameters(), plain.model.parameters(), strict=True))
    for field in dataclasses.fields(ours.args):
        assert getattr(ours.args, field.name) == getattr(plain.args, field.name), field.name


@pytest.mark.parametrize("make", [our_trainer, plain_trainer])
def test_a_turn_counts_the_tokens_of_the_steps_it_trained(material: Material, make: train.Maker) -> None:
    trainer = make(material)
    epoch = steps_of_an_epoch(material)
    lengths = [len(example["input_ids"]) for example in trainer.train_dataset]
    whole = take_turn(trainer, epoch, QUIET, "whole")
    assert (whole.steps, whole.real_tokens) == (epoch, sum(lengths))
    assert sum(lengths) < whole.padded_tokens <= max(lengths) * len(lengths)
    assert whole.seconds > 0
    assert take_turn(make(material), 3, QUIET, "part").steps == 3


def test_a_turn_longer_than_the_run_ends_with_it_and_saves_nothing(material: Material) -> None:
    short = material.changed(epochs=0.25, seed=99)
    turn = take_turn(our_trainer(short), 1000, QUIET, "short")
    assert 0 < turn.steps < 10
    last = take_turn(our_trainer(short), turn.steps, QUIET, "exact")
    assert last.steps == turn.steps


def test_grouping_by_length_pads_less(material: Material) -> None:
    epoch = steps_of_an_epoch(material)
    ours, plain = train.measure_speed(material, 2, epoch, QUIET)
    figures = speed_figures(ours, plain)
    assert 1 <= figures["padded_over_real"] < figures["baseline_padded_over_real"]
    assert [turn.steps for turn in (*ours, *plain)] == [epoch] * 4
    assert len({turn.real_tokens for turn in (*ours, *plain)}) == 1


def test_figures_are_medians_and_their_ratio() -> None:
    ours = [Turn(10, 400, 500, seconds) for seconds in (1.0, 2.0, 4.0)]
    plain = [Turn(10, 300, 600, seconds) for seconds in (3.0, 3.0, 6.0)]
    figures = speed_figures(ours, plain)
    assert (figures["real_tokens_per_s"], figures["baseline_real_tokens_per_s"], figures["ratio"]) == (200, 100, 2)
    assert figures["spread"]["real_tokens_per_s"] == [100, 400]
    assert figures["spread"]["ratio"] == [2, 4]
    assert (figures["padded_over_real"], figures["baseline_padded_over_real"]) == (1.25, 2)
    assert figures["seconds_per_step"] == 0.2


def test_without_epochs_no_accuracy_is_claimed(material: Material) -> None:
    found = train.measure_quality(material, 0, QUIET)
    assert found == {"accuracy": None, "baseline_accuracy": None, "quality_epochs": 0}


def test_the_command_ends_with_one_json_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.project(tmp_path)
    monkeypatch.setenv("SLIPWAY_CACHE_DIR", str(tmp_path / "cache"))
    arguments = ["--recipe", str(tmp_path / "recipe.toml"), "--turns", "1", "--steps", "2", "--epochs", "6"]
    assert train.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    found = json.loads(lines[-1])
    assert found["ratio"] == pytest.approx(found["real_tokens_per_s"] / found["baseline_real_tokens_per_s"], rel=0.01)
    assert found["accuracy"] > 0.8
    assert found["baseline_accuracy"] > 0.8
    low, high = found["accuracy_interval"]
    assert low <= found["accuracy"] <= high
    assert found["machine"]["command"].endswith("--epochs 6")
    assert "transformers" in found["machine"]["versions"]
    assert "real tokens/s" in lines[0]


def test_no_batch_is_looked_at_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.project(tmp_path)
    monkeypatch.setenv("SLIPWAY_CACHE_DIR", str(tmp_path / "cache"))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(recipe.read_text() + "adversarial = 0.5\n")
    assert load_recipe(str(recipe)).training.adversarial == 0.5
    assert train.read_material(str(recipe), tmp_path, QUIET).recipe.training.adversarial is None


def test_a_recipe_that_is_not_there_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--recipe", "no-such-recipe"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.strip().startswith("benchmarks.train: recipe no-such-recipe: ")


@pytest.mark.parametrize("wrong", [("--turns", "0"), ("--epochs", "-1"), ("--epochs", "nan"), ("--steps", "x")])
def test_impossible_numbers_are_refused(wrong: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train.main(list(wrong))
    assert wrong[0] in capsys.readouterr().err
