"""transformers' Trainer as fine-tuning runs it: its arguments, its batches, and what watches it."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import transformers
from rich.progress import Progress
from transformers.trainer_pt_utils import get_length_grouped_indices

from training.adversarial import embeddings, moved_embeddings
from training.checkpoints import mark_complete
from training.errors import FineTuneFailed
from training.evaluate import softmax
from training.precision import Precision
from training.recipe import TrainingSection
from training.windowing import Row, averaged

_CURVE_POINTS_PER_EPOCH: Final = 20


class _LengthGrouped(torch.utils.data.Sampler[int]):
    """Row numbers with rows of like length together, in an order that follows from seed and epoch alone.

    The Trainer's own sampler draws from the global generator, so a run resumed within an epoch would see some rows
    twice and others never.
    """

    def __init__(self, lengths: list[int], batch_size: int, seed: int, epoch: Callable[[], int]) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch())
        return iter(get_length_grouped_indices(self._lengths, self._batch_size, generator=generator))


class Examples(torch.utils.data.Dataset[dict[str, Any]]):
    """Texts to learn from. One that is read in windows shows another of them in each epoch.

    `turns` are the rows of each text (training/windowing.py), `targets` of shape (texts, labels) what to say of it.
    """

    def __init__(self, turns: Sequence[Sequence[Row]], targets: npt.NDArray[np.float32]) -> None:
        self._turns = turns
        self._targets = targets
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._turns)

    def __getitem__(self, index: int) -> dict[str, Any]:
        turns = self._turns[index]
        return {**turns[self.epoch % len(turns)], "labels": self._targets[index]}


class ResumableTrainer(transformers.Trainer):  # type: ignore[misc]
    """The Trainer with an order of rows, and of their windows, that survives a resume.

    `adversarial` is how far embeddings are moved for a second look at each batch (training/adversarial.py).
    """

    def __init__(self, *, adversarial: float | None = None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._adversarial = adversarial

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """One batch, forward and backward; the loss is that of the texts as they are."""
        if self._adversarial is None:
            return self._pass(model, inputs, num_items_in_batch)
        bare = self.accelerator.unwrap_model(model)
        slope = embeddings(bare).grad
        before = None if slope is None else slope.clone()
        loss = self._pass(model, inputs, num_items_in_batch)
        with moved_embeddings(bare, self._adversarial, before) as moved:
            if moved:
                self._pass(model, inputs, num_items_in_batch)
        return loss

    def _pass(self, model: Any, inputs: Any, num_items_in_batch: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
        return loss

    def _get_train_sampler(self, train_dataset: Any = None) -> _LengthGrouped:
        lengths = [len(example["input_ids"]) for example in self.train_dataset]
        together = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return _LengthGrouped(lengths, together, self.args.seed, self._epoch)

    def _epoch(self) -> int:
        """The epoch that begins: asked for once in each, before the first of its rows is read."""
        epoch = int(self.state.epoch or 0)
        self.train_dataset.epoch = epoch
        return epoch


class Collator:
    """Pads a batch to its own longest row and stacks the targets."""

    def __init__(self, tokenizer: transformers.PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        inputs = [{name: value for name, value in example.items() if name != "labels"} for example in examples]
        batch: dict[str, torch.Tensor] = dict(self._tokenizer.pad(inputs, return_tensors="pt"))
        batch["labels"] = torch.tensor(np.stack([example["labels"] for example in examples]))
        return batch


class Watch(transformers.TrainerCallback):  # type: ignore[misc]
    """Moves the progress bar, marks finished checkpoints, and stops a run whose loss is no number."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("Training", total=None, visible=False)
        self._last = ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Show the bar, at the step a resumed run starts from."""
        self._progress.update(self._task, total=state.max_steps, completed=state.global_step, visible=True)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """One optimizer step further."""
        self._progress.update(self._task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **_: Any) -> None:
        """Show the losses; NaN or infinity ends the run, for no later step can mend it."""
        for name in ("loss", "eval_loss"):
            if name in logs and not math.isfinite(float(logs[name])):
                raise FineTuneFailed(
                    f"the loss is not a number at step {state.global_step}; "
                    'try a smaller training.learning_rate or training.precision = "fp32"'
                )
        if "eval_accuracy" in logs:
            self._last = f", validation accuracy {logs['eval_accuracy']:.3f}"
        if "loss" in logs:
            self._progress.update(self._task, description=f"Training (loss {float(logs['loss']):.3f}{self._last})")

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The Trainer calls this after everything of a checkpoint is written."""
        mark_complete(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take the bar away."""
        self._progress.remove_task(self._task)


def arguments_of(
    section: TrainingSection, precision: Precision, run_dir: Path, rows: int, report_to: Sequence[str]
) -> Any:
    """The Trainer's arguments for `rows` rows of training. `report_to` names integrations (training/track.py)."""
    steps_per_epoch = math.ceil(math.ceil(rows / section.batch_size) / section.accumulation)
    every = max(1, steps_per_epoch // section.evaluations_per_epoch)
    return transformers.TrainingArguments(
        output_dir=str(run_dir),
        seed=section.seed,
        num_train_epochs=section.epochs,
        per_device_train_batch_size=section.batch_size,
        per_device_eval_batch_size=64,
        gradient_accumulation_steps=section.accumulation,
        learning_rate=section.learning_rate,
        lr_scheduler_type=section.schedule if section.schedule != "constant" else "constant_with_warmup",
        warmup_steps=section.warmup,
        max_grad_norm=section.max_grad_norm,
        use_cpu=not torch.accelerator.is_available(),
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        remove_unused_columns=False,
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        # The best and the newest; while the newest is being written, the one before it is still there.
        save_total_limit=2,
        load_best_model_at_end=True,
        # Otherwise the patience of early stopping would start afresh with every resume.
        restore_callback_states_from_checkpoint=True,
        metric_for_best_model=f"eval_{section.best_by}",
        greater_is_better=section.best_by == "accuracy",
        logging_strategy="steps",
        logging_steps=max(1, steps_per_epoch // _CURVE_POINTS_PER_EPOCH),
        logging_nan_inf_filter=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,
        report_to=list(report_to) or "none",
    )


def validation_metrics(outcome: transformers.EvalPrediction, owners: npt.NDArray[np.int64]) -> dict[str, float]:
    """Accuracy and log loss in nats of texts, over logits and targets of shape (rows, labels), averaged by `owners`."""
    logits, targets = averaged(outcome.predictions, owners), averaged(outcome.label_ids, owners)
    right = logits.argmax(axis=1) == targets.argmax(axis=1)
    loss = -(targets * np.log(np.clip(softmax(logits), 1e-15, 1))).sum(axis=1)
    return {"accuracy": float(right.mean()), "log_loss": float(loss.mean())}
