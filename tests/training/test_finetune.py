"""training/finetune.py: real Trainer runs of a tiny encoder, killed, resumed and read back."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from rich.progress import Progress
from safetensors.numpy import load_file

from tests.training import tiny
from tests.training.full_disk import full_disk
from training import finetune
from training.classifier import load_model, load_tokenizer, predict_logits
from training.data import Row, Table
from training.errors import FineTuneFailed, RecipeInvalid, SourceUnavailable
from training.evaluate import softmax
from training.finetune import fine_tune
from training.precision import cpu_has_bf16
from training.prepare import Prepared, prepare
from training.sources import EncoderFolder
from training.temperature import best_temperature, divide_logits


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    with Progress(disable=True) as bars:
        return prepare(tiny.table(300), tiny.recipe(), bars)


@pytest.fixture(scope="module")
def finished(
    prepared: Prepared, encoder: EncoderFolder, tmp_path_factory: pytest.TempPathFactory
) -> finetune.FineTuned:
    recipe = tiny.recipe(training__epochs=6)
    with Progress(disable=True) as bars:
        return fine_tune(recipe, prepared, encoder, tmp_path_factory.mktemp("run"), bars)


def test_a_full_disk_is_one_sentence_and_the_run_goes_on_when_it_is_not(
    prepared: Prepared, encoder: EncoderFolder, tmp_path: Path, progress: Progress
) -> None:
    recipe = tiny.recipe(training__epochs=2)
    with (
        pytest.raises(FineTuneFailed, match=r"^training in .*: cannot be written: .*disk.*full"),
        full_disk(),
    ):
        fine_tune(recipe, prepared, encoder, tmp_path, progress)
    assert {path.name for path in tmp_path.iterdir()} >= {"run.json"}
    assert fine_tune(recipe, prepared, encoder, tmp_path, progress).model_dir.is_dir()


def test_a_tiny_encoder_learns_the_task(finished: finetune.FineTuned, prepared: Prepared) -> None:
    model, tokenizer = load_model(finished.model_dir), load_tokenizer(finished.model_dir)
    logits = predict_logits(model, tokenizer, prepared.test.texts, max_tokens=tiny.MAX_TOKENS)
    assert logits.shape == (len(prepared.test), 2)
    assert (logits.argmax(axis=1) == prepared.test.labels).mean() > 0.9


def test_the_model_folder_names_its_labels_and_holds_a_clean_tokenizer(finished: finetune.FineTuned) -> None:
    config = json.loads((finished.model_dir / "config.json").read_text())
    assert config["id2label"] == {"0": "negative", "1": "positive"}
    tokenizer = json.loads((finished.model_dir / "tokenizer.json").read_text())
    assert tokenizer["truncation"] is None
    assert tokenizer["padding"] is None
    assert finished.max_input_tokens == tiny.MAX_TOKENS


def test_curves_hold_training_and_validation_points(finished: finetune.FineTuned) -> None:
    train = [point for point in finished.curve if point.kind == "train"]
    validation = [point for point in finished.curve if point.kind == "validation"]
    assert len(validation) >= 3
    assert train[-1].loss < train[0].loss
    assert all(point.accuracy is not None for point in validation)
    assert finished.best_step in {point.step for point in validation}


def test_the_best_checkpoint_is_kept_and_the_others_are_gone(finished: finetune.FineTuned) -> None:
    best = min((point for point in finished.curve if point.kind == "validation"), key=lambda point: point.loss)
    assert finished.best_step == best.step
    assert sorted(path.name for path in finished.model_dir.parent.iterdir()) == ["model", "run.json"]


def test_length_quantiles_count_special_tokens(finished: finetune.FineTuned, prepared: Prepared) -> None:
    longest = max(len(text.split()) for text in prepared.train.texts)
    assert finished.length_quantiles["max"] == longest + 2
    assert finished.length_quantiles["p50"] <= finished.length_quantiles["p99"]


def test_a_finished_run_is_not_trained_again(
    finished: finetune.FineTuned, prepared: Prepared, encoder: EncoderFolder, progress: Progress
) -> None:
    run_dir = finished.model_dir.parent
    before = (finished.model_dir / "model.safetensors").stat().st_mtime_ns
    again = fine_tune(tiny.recipe(training__epochs=6), prepared, encoder, run_dir, progress)
    assert again == finished
    assert (finished.model_dir / "model.safetensors").stat().st_mtime_ns == before


def test_another_recipe_in_the_same_folder_starts_afresh(
    prepared: Prepared, encoder: EncoderFolder, tmp_path: Path, progress: Progress
) -> None:
    first = fine_tune(tiny.recipe(training__epochs=1), prepared, encoder, tmp_path, progress)
    second = fine_tune(tiny.recipe(training__epochs=1, training__seed=1), prepared, encoder, tmp_path, progress)
    assert not second.resumed
    assert first.curve != second.curve


def test_another_encoder_under_the_same_name_starts_afresh(
    prepared: Prepared, tmp_path: Path, progress: Progress
) -> None:
    recipe = tiny.recipe(training__epochs=1)
    outcomes = [
        fine_tune(
            recipe, prepared, tiny.encoder_folder(tmp_path / "encoder", layers=layers), tmp_path / "run", progress
        )
        for layers in (1, 2)
    ]
    assert outcomes[0].curve != outcomes[1].curve


def test_the_same_seed_gives_the_same_weights(
    prepared: Prepared, encoder: EncoderFolder, tmp_path: Path, progress: Progress
) -> None:
    recipe = tiny.recipe(training__epochs=1)
    one, other = (fine_tune(recipe, prepared, encoder, tmp_path / name, progress) for name in ("a", "b"))
    assert _bytes_of(one) == _bytes_of(other)


_KILLED = """
import os, signal, sys
from pathlib import Path
from rich.progress import Progress
from safetensors.numpy import load_file
import transformers
from tests.training import tiny
from training import finetune
from training.prepare import prepare
from training.sources import EncoderFolder

class Killer(transformers.TrainerCallback):
    def on_step_end(self, args, state, control, **_):
        if state.global_step == 24:
            half = Path(args.output_dir) / "checkpoint-24"
            half.mkdir()
            (half / "model.safetensors").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)

plain = finetune._Job._trainer
def with_killer(self, *arguments):
    trainer = plain(self, *arguments)
    trainer.add_callback(Killer())
    return trainer
finetune._Job._trainer = with_killer

encoder = EncoderFolder(Path(sys.argv[1]), "tiny", "MIT", "made for a test")
with Progress(disable=True) as bars:
    recipe = tiny.recipe(training__epochs=3, training__evaluations_per_epoch=2)
    finetune.fine_tune(recipe, prepare(tiny.table(300), recipe, bars), encoder, Path(sys.argv[2]), bars)
"""


def test_a_killed_run_goes_on_from_its_last_whole_checkpoint_to_the_same_weights(
    prepared: Prepared, encoder: EncoderFolder, tmp_path: Path, progress: Progress
) -> None:
    run_dir = tmp_path / "killed"
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, str(encoder.path), str(run_dir)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert (run_dir / "checkpoint-24").is_dir(), "the run left a half checkpoint"

    recipe = tiny.recipe(training__epochs=3, training__evaluations_per_epoch=2)
    resumed = fine_tune(recipe, prepared, encoder, run_dir, progress)
    whole = fine_tune(recipe, prepared, encoder, tmp_path / "whole", progress)

    assert resumed.resumed
    assert not whole.resumed
    assert [point.step for point in resumed.curve] == [point.step for point in whole.curve]
    assert _bytes_of(resumed) == _bytes_of(whole)


def test_accumulation_changes_nothing_but_memory(
    prepared: Prepared, encoder: EncoderFolder, tmp_path: Path, progress: Progress
) -> None:
    """Same rows per step, in one pass or four, dropout off: the same gradients."""
    without_dropout = tmp_path / "encoder"
    tiny.encoder_folder(without_dropout)
    config = json.loads((without_dropout / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (without_dropout / "config.json").write_text(json.dumps(config))
    source = EncoderFolder(without_dropout, "tiny", "MIT", "made for a test")
    outcomes = [
        fine_tune(
            tiny.recipe(training__epochs=1, training__batch_size=size, training__accumulation=passes),
            prepared,
            source,
            tmp_path / f"by-{size}",
            progress,
        )
        for size, passes in ((32, 1), (8, 4))
    ]
    assert outcomes[0].steps == outcomes[1].steps
    losses = [next(point.loss for point in outcome.curve if point.kind == "train") for outcome in outcomes]
    assert losses[0] == pytest.approx(losses[1], abs=0.05)


def test_early_stopping_ends_a_run_that_gets_no_better(
    prepared: Prepared, encoder: EncoderFolder, tmp_path: Path, progress: Progress
) -> None:
    recipe = tiny.recipe(training__epochs=40, training__patience=1, training__learning_rate=1e-2)
    stopped = fine_tune(recipe, prepared, encoder, tmp_path, progress)
    assert stopped.steps < 40 * 13


@pytest.mark.skipif(not cpu_has_bf16(), reason="this CPU has no bf16")
def test_bf16_trains_and_is_written_as_fp32(
    prepared: Prepared, encoder: EncoderFolder, tmp_path: Path, progress: Progress
) -> None:
    result = fine_tune(
        tiny.recipe(training__precision="bf16", training__epochs=1), prepared, encoder, tmp_path, progress
    )
    assert result.precision == "bf16"
    assert {str(tensor.dtype) for tensor in load_file(result.model_dir / "model.safetensors").values()} == {"float32"}


def test_a_loss_that_is_no_number_ends_the_run(
    prepared: Prepared, encoder: EncoderFolder, tmp_path: Path, progress: Progress
) -> None:
    with pytest.raises(FineTuneFailed, match="not a number"):
        fine_tune(
            tiny.recipe(training__learning_rate=1.0, training__max_grad_norm=1e30, training__epochs=5),
            prepared,
            _exploding(encoder, tmp_path / "encoder"),
            tmp_path / "run",
            progress,
        )


def _exploding(encoder: EncoderFolder, folder: Path) -> EncoderFolder:
    made = tiny.encoder_folder(folder)
    from safetensors.torch import load_file as load_torch
    from safetensors.torch import save_file

    weights = load_torch(folder / "model.safetensors")
    weights["embeddings.LayerNorm.weight"].fill_(float("inf"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return made


def test_an_encoder_that_cannot_be_loaded_is_named(prepared: Prepared, tmp_path: Path, progress: Progress) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    with pytest.raises(SourceUnavailable, match="encoder broken: transformers cannot load"):
        fine_tune(tiny.recipe(), prepared, EncoderFolder(folder, "broken", "", ""), tmp_path / "run", progress)


def test_the_head_is_calibrated_on_the_validation_split(finished: finetune.FineTuned, prepared: Prepared) -> None:
    """What is saved is already at the best temperature, so fitting once more finds 1."""
    model, tokenizer = load_model(finished.model_dir), load_tokenizer(finished.model_dir)
    logits = predict_logits(model, tokenizer, prepared.validation.texts, max_tokens=tiny.MAX_TOKENS)
    again = best_temperature(logits, prepared.validation.labels)
    assert finished.temperature != 1.0
    assert again == pytest.approx(1.0, rel=0.05) or finished.temperature == pytest.approx(0.1, rel=0.05)


def test_a_model_trained_in_bf16_is_calibrated_in_fp32(
    prepared: Prepared, encoder: EncoderFolder, tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inside the Trainer's autocast, logits are too coarse to see that scaling the head divided them."""
    coarse: list[bool] = []

    def divide(model: transformers.PreTrainedModel, temperature: float) -> bool:
        coarse.append(hasattr(model, "_original_forward"))
        return divide_logits(model, temperature)

    monkeypatch.setattr(finetune, "divide_logits", divide)
    tuned = fine_tune(tiny.recipe(training__precision="bf16"), prepared, encoder, tmp_path / "run", progress)
    assert coarse == [False]
    assert tuned.temperature != 1.0


def test_a_window_wider_than_the_encoder_is_refused_before_anything_is_touched(
    prepared: Prepared, encoder: EncoderFolder, tmp_path: Path, progress: Progress
) -> None:
    recipe = tiny.recipe(training__window_tokens=tiny.MAX_TOKENS + 1)
    with pytest.raises(RecipeInvalid, match=r"training\.window_tokens: 65, but the encoder has 64 positions"):
        fine_tune(recipe, prepared, encoder, tmp_path / "run", progress)
    assert not (tmp_path / "run").exists()


def test_long_texts_are_learnt_from_and_judged_in_windows(
    encoder: EncoderFolder, tmp_path: Path, progress: Progress
) -> None:
    rows = [Row(" ".join([row.text] * 8), row.label, rating=row.rating) for row in tiny.table(400).rows]
    prepared = prepare(Table("long", "MIT", "made for a test", tuple(rows)), tiny.recipe(), progress)
    recipe = tiny.recipe(
        training__epochs=1, training__window_tokens=16, training__max_text_tokens=400, training__calibrate=False
    )
    tuned = fine_tune(recipe, prepared, encoder, tmp_path, progress)
    assert (tuned.window_tokens, tuned.max_input_tokens) == (16, 400)
    model, tokenizer = load_model(tuned.model_dir), load_tokenizer(tuned.model_dir)
    split = prepared.validation
    logits = predict_logits(model, tokenizer, split.texts, max_tokens=400, window_tokens=16)
    (judged,) = [point for point in tuned.curve if point.kind == "validation"]
    assert judged.accuracy == pytest.approx((logits.argmax(axis=1) == split.labels).mean())
    right = softmax(logits)[np.arange(len(split)), split.labels]
    assert judged.loss == pytest.approx(-np.log(right).mean(), abs=1e-4)


def _bytes_of(run: finetune.FineTuned) -> bytes:
    return (run.model_dir / "model.safetensors").read_bytes()


@pytest.mark.parametrize("optimizer", ["adamw", "nadam", "adafactor", "sgd"])
def test_every_optimizer_trains_what_is_not_frozen(
    optimizer: str, prepared: Prepared, encoder: EncoderFolder, tmp_path: Path, progress: Progress
) -> None:
    recipe = tiny.recipe(
        training__epochs=0.3, training__optimizer=optimizer, training__frozen_layers=1, training__dropout=0.2
    )
    result = fine_tune(recipe, prepared, encoder, tmp_path, progress)
    before = load_file(encoder.path / "model.safetensors")
    after = {
        name.removeprefix("bert."): value for name, value in load_file(result.model_dir / "model.safetensors").items()
    }
    moved = {name for name, value in before.items() if name in after and not np.array_equal(value, after[name])}
    assert not [name for name in moved if name.startswith(("embeddings.", "encoder.layer.0."))]
    assert "encoder.layer.1.output.dense.weight" in moved
    config = json.loads((result.model_dir / "config.json").read_text())
    assert config["hidden_dropout_prob"] == config["attention_probs_dropout_prob"] == 0.2


def test_the_lowest_layers_of_an_encoder_can_be_kept_alone(
    prepared: Prepared, encoder: EncoderFolder, tmp_path: Path, progress: Progress
) -> None:
    recipe = tiny.recipe(training__epochs=0.1, training__encoder_layers=1)
    model = load_model(fine_tune(recipe, prepared, encoder, tmp_path, progress).model_dir)
    assert len(model.bert.encoder.layer) == 1


def test_an_adversarial_run_learns_otherwise_and_is_the_same_each_time(
    prepared: Prepared, encoder: EncoderFolder, tmp_path: Path, progress: Progress
) -> None:
    made = []
    for number, distance in enumerate((0.5, 0.5, None)):
        recipe = tiny.recipe(training__epochs=0.3, training__adversarial=distance)
        made.append(_bytes_of(fine_tune(recipe, prepared, encoder, tmp_path / str(number), progress)))
    assert made[0] == made[1]
    assert made[0] != made[2]


def test_an_adversarial_run_may_freeze_layers_but_not_what_it_moves(
    prepared: Prepared, encoder: EncoderFolder, tmp_path: Path, progress: Progress
) -> None:
    recipe = tiny.recipe(training__epochs=0.1, training__adversarial=0.5, training__frozen_layers=2)
    made = load_model(fine_tune(recipe, prepared, encoder, tmp_path, progress).model_dir).state_dict()
    before = load_model(encoder.path).state_dict()
    frozen = "bert.encoder.layer.1.output.dense.weight"
    assert torch.equal(made[frozen], before[frozen])
    moved = "bert.embeddings.word_embeddings.weight"
    assert not torch.equal(made[moved], before[moved])


@pytest.mark.parametrize("field", ["frozen_layers", "encoder_layers"])
def test_more_layers_than_there_are_are_refused(
    field: str, prepared: Prepared, encoder: EncoderFolder, tmp_path: Path, progress: Progress
) -> None:
    recipe = tiny.recipe(**{f"training__{field}": 3})
    with pytest.raises(RecipeInvalid, match=rf"training\.{field}: 3, but the encoder has 2"):
        fine_tune(recipe, prepared, encoder, tmp_path, progress)
