"""training/trainer.py: the Trainer's arguments, its batches, and what watches it. Whole runs are test_finetune.py's."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from rich.progress import Progress

from tests.training import tiny
from training.checkpoints import last_complete_checkpoint
from training.classifier import load_tokenizer
from training.encoder import load_encoder
from training.errors import FineTuneFailed
from training.sources import EncoderFolder
from training.targets import soft_cross_entropy
from training.trainer import Collator, Examples, ResumableTrainer, Watch, arguments_of, validation_metrics

LENGTHS = tuple(3 + (7 * row) % 29 for row in range(64))


def trainer(encoder: EncoderFolder, run_dir: Path, adversarial: float | None = None) -> ResumableTrainer:
    """A Trainer of 64 rows of ones, of `LENGTHS`."""
    model, tokenizer = load_encoder(encoder, tiny.recipe(training__dropout=0.0))
    turns = [[{"input_ids": [1] * length}, {"input_ids": [2] * length}] for length in LENGTHS]
    rows = Examples(turns, np.tile(np.array([0, 1], dtype=np.float32), (len(LENGTHS), 1)))
    return ResumableTrainer(
        adversarial=adversarial,
        model=model,
        args=arguments_of(tiny.recipe().training, "fp32", run_dir, len(rows), ()),
        train_dataset=rows,
        eval_dataset=rows,
        data_collator=Collator(tokenizer),
        compute_loss_func=soft_cross_entropy,
    )


def test_the_order_of_rows_follows_from_seed_and_epoch_alone(encoder: EncoderFolder, tmp_path: Path) -> None:
    made = trainer(encoder, tmp_path)
    first = list(made._get_train_sampler())
    torch.rand(5)
    assert list(made._get_train_sampler()) == first, "the global generator has no say"
    assert sorted(first) == list(range(len(LENGTHS)))
    made.state.epoch = 1.5
    assert list(made._get_train_sampler()) != first
    made.state.epoch = 0.5
    assert list(made._get_train_sampler()) == first, "a run resumed within an epoch sees the same order"


def test_a_second_look_adds_its_gradient_and_leaves_loss_and_weights_alone(
    encoder: EncoderFolder, tmp_path: Path
) -> None:
    losses, slopes, tables = [], [], []
    for distance in (None, 1e-6, 1.0):
        transformers.set_seed(3)
        made = trainer(encoder, tmp_path, distance)
        embeddings = made.model.get_input_embeddings().weight
        before = embeddings.detach().clone()
        losses.append(float(made.training_step(made.model, next(iter(made.get_train_dataloader())))))
        slopes.append(embeddings.grad.clone())
        tables.append(torch.equal(embeddings, before))
    assert losses[0] == losses[1] == losses[2]
    assert tables == [True, True, True]
    torch.testing.assert_close(slopes[1], 2 * slopes[0], rtol=1e-3, atol=1e-6)
    assert not torch.allclose(slopes[2], 2 * slopes[0], rtol=1e-2)


def test_the_windows_of_a_text_take_turns_by_epoch(encoder: EncoderFolder, tmp_path: Path) -> None:
    made = trainer(encoder, tmp_path)
    seen = []
    for epoch in (0.0, 0.7, 1.0, 2.0, 3.4):
        made.state.epoch = epoch
        batch = next(iter(made.get_train_dataloader()))
        seen.append(int(batch["input_ids"].max()))
    assert seen == [1, 1, 2, 1, 2]


def test_a_batch_is_as_wide_as_its_own_longest_row(encoder: EncoderFolder) -> None:
    tokenizer = load_tokenizer(encoder.path)
    targets = np.array([[0.9, 0.1], [0.2, 0.8]], dtype=np.float32)
    rows = [{"input_ids": [2, 5, 3], "labels": targets[0]}, {"input_ids": [2, 5, 6, 7, 3], "labels": targets[1]}]
    batch = Collator(tokenizer)(rows)
    assert batch["input_ids"].tolist() == [[2, 5, 3, tokenizer.pad_token_id, tokenizer.pad_token_id], [2, 5, 6, 7, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    np.testing.assert_array_equal(batch["labels"].numpy(), targets)


def test_a_run_is_read_as_often_as_the_recipe_says(tmp_path: Path) -> None:
    section = tiny.recipe(training__batch_size=8, training__accumulation=2, training__evaluations_per_epoch=2).training
    arguments = arguments_of(section, "bf16", tmp_path, 100, ["mlflow"])
    assert (arguments.eval_steps, arguments.save_steps) == (3, 3), "7 optimizer steps per epoch"
    assert (arguments.bf16, arguments.fp16) == (True, False)
    assert arguments.report_to == ["mlflow"]
    assert arguments.metric_for_best_model == f"eval_{section.best_by}"
    assert arguments.load_best_model_at_end


def test_accuracy_and_log_loss_of_logits() -> None:
    logits = np.log(np.array([[0.9, 0.1], [0.4, 0.6], [0.5, 0.5]]))
    wanted = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    found = validation_metrics(transformers.EvalPrediction(predictions=logits, label_ids=wanted), np.arange(3))
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["log_loss"] == pytest.approx(-np.log([0.9, 0.4, 0.5]).mean())


@pytest.mark.parametrize("logs", [{"loss": math.nan}, {"eval_loss": math.inf}])
def test_a_loss_that_is_no_number_ends_the_run(logs: dict[str, float], progress: Progress) -> None:
    state = transformers.TrainerState(global_step=7)
    with pytest.raises(FineTuneFailed, match=r"not a number at step 7; try a smaller training\.learning_rate"):
        Watch(progress).on_log(None, state, None, logs)


def test_a_run_is_watched_from_its_first_step_to_its_last(tmp_path: Path, progress: Progress) -> None:
    watch = Watch(progress)
    state = transformers.TrainerState(global_step=3, max_steps=10)
    watch.on_train_begin(None, state, None)
    (bar,) = progress.tasks
    assert (bar.completed, bar.total, bar.visible) == (3, 10, True)
    watch.on_step_end(None, dataclasses.replace(state, global_step=4), None)
    assert bar.completed == 4
    watch.on_log(None, state, None, {"eval_accuracy": 0.75, "eval_loss": 0.5})
    watch.on_log(None, state, None, {"loss": 0.25})
    assert bar.description == "Training (loss 0.250, validation accuracy 0.750)"
    watch.on_train_end(None, state, None)
    assert progress.tasks == []


def test_a_checkpoint_is_marked_when_all_of_it_is_written(tmp_path: Path, progress: Progress) -> None:
    (tmp_path / "checkpoint-5").mkdir()
    arguments = arguments_of(tiny.recipe().training, "fp32", tmp_path, 10, ())
    Watch(progress).on_save(arguments, transformers.TrainerState(global_step=5), None)
    assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-5"
