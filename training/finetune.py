"""Fine-tune an encoder on prepared rows with transformers' Trainer.

    <run_dir>/run.json          what this run is: written first; a run of something else is cleared away
    <run_dir>/checkpoint-<n>/   the Trainer's, plus a marker written once all of it is on disk
    <run_dir>/model/            the best checkpoint in the hub's layout; finetune.json inside comes last

A run that was killed goes on from its last checkpoint with a marker; one that had finished returns at once.
"""

import contextlib
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
import transformers
from pydantic import BaseModel, ConfigDict
from rich.progress import Progress

from training.checkpoints import checkpoints_in, last_complete_checkpoint, step_of
from training.classifier import load_model, load_tokenizer, max_input_tokens, predict_logits, text_limit
from training.disk import disk_errors
from training.encoder import load_encoder
from training.errors import FineTuneFailed
from training.evaluate import Floats, softmax
from training.keys import run_key, weights_digest
from training.optimize import freeze, optimizer_of
from training.precision import Precision, choose_precision
from training.prepare import Prepared
from training.quiet import quiet
from training.recipe import Recipe
from training.sources import EncoderFolder
from training.targets import soft_cross_entropy, soft_targets
from training.temperature import best_temperature, divide_logits
from training.trainer import Collator, Examples, ResumableTrainer, Watch, arguments_of, validation_metrics
from training.windowing import training_turns, windowed

_log = logging.getLogger(__name__)
_RUN: Final = "run.json"
_RESULT: Final = "finetune.json"
_QUANTILES: Final = {"p50": 50, "p90": 90, "p95": 95, "p99": 99, "max": 100}


class CurvePoint(BaseModel):
    """One reading on the way: mean training loss since the last one, or a pass over the validation split."""

    model_config = ConfigDict(frozen=True)

    step: int
    epoch: float
    kind: Literal["train", "validation"]
    loss: float
    accuracy: float | None = None
    learning_rate: float | None = None


class FineTuned(BaseModel):
    """A finished run. Tokens count the special ones; quantiles are those of the training split, uncut.

    `max_input_tokens` is the longest text that may be sent, which is read in windows of `window_tokens` where the
    recipe says so.

    `temperature` is what the best checkpoint's logits were divided by, 1 where nothing was, None where nobody knows.
    `threads` is what torch computed with; 0 in runs of before it was kept.
    """

    model_config = ConfigDict(frozen=True)

    model_dir: Path
    encoder_name: str
    precision: Precision
    threads: int = 0
    seconds: float
    steps: int
    best_step: int
    temperature: float | None = 1.0
    resumed: bool
    curve: tuple[CurvePoint, ...]
    max_input_tokens: int
    window_tokens: int | None = None
    length_quantiles: dict[str, int]


class _Run(BaseModel):
    """What a run directory holds. The precision is kept so that a resumed run goes on as it began."""

    key: str
    precision: Precision


def fine_tune(
    recipe: Recipe,
    prepared: Prepared,
    encoder: EncoderFolder,
    run_dir: Path,
    progress: Progress,
    callbacks: Sequence[transformers.TrainerCallback] = (),
    report_to: Sequence[str] = (),
) -> FineTuned:
    """Train, keep the best checkpoint, and leave it in `run_dir`/model; go on where a killed run stopped.

    `callbacks` watch the Trainer and may stop it; a run found finished calls none. `report_to` names integrations of
    the Trainer (training/track.py). Raises FineTuneFailed when the loss is not a number or the disk refuses,
    SourceUnavailable when the encoder cannot be loaded, RecipeInvalid when it has fewer layers or positions than the
    recipe wants.
    """
    with quiet(), disk_errors(f"training in {run_dir}", FineTuneFailed):
        key = _key(recipe, prepared, encoder)
        if (done := _finished(run_dir, key)) is not None:
            return done
        return _Job(recipe, prepared, encoder, run_dir, progress, callbacks, report_to).run(key)


def find_finished(recipe: Recipe, prepared: Prepared, encoder: EncoderFolder, run_dir: Path) -> FineTuned | None:
    """What `fine_tune` left in `run_dir`, if it is that recipe's over that data, and finished."""
    return _finished(run_dir, _key(recipe, prepared, encoder))


def probabilities_of(tuned: FineTuned, texts: Sequence[str], progress: Progress) -> Floats:
    """What a finished run's model says of `texts`, by torch in fp32: shape (texts, labels), in float64.

    It reads them as the service will, in windows where the recipe says so.
    """
    with quiet():
        model, tokenizer = load_model(tuned.model_dir), load_tokenizer(tuned.model_dir)
    logits = predict_logits(
        model,
        tokenizer,
        texts,
        max_tokens=tuned.max_input_tokens,
        window_tokens=tuned.window_tokens,
        progress=progress,
    )
    return softmax(logits)


def new_trainer(
    recipe: Recipe, prepared: Prepared, encoder: EncoderFolder, run_dir: Path, progress: Progress
) -> transformers.Trainer:
    """The Trainer that `fine_tune` would run, before its first step: for measuring what a step takes.

    `run_dir` becomes this run's, as it would there. Raises SourceUnavailable when the encoder cannot be loaded.
    """
    return _Job(recipe, prepared, encoder, run_dir, progress).begin(_key(recipe, prepared, encoder)).trainer


@dataclass(frozen=True, slots=True)
class _Begun:
    """A run that may train, and what was decided for it."""

    trainer: transformers.Trainer
    precision: Precision
    max_input_tokens: int


class _Job:
    """One run from encoder to best checkpoint."""

    def __init__(
        self,
        recipe: Recipe,
        prepared: Prepared,
        encoder: EncoderFolder,
        run_dir: Path,
        progress: Progress,
        callbacks: Sequence[transformers.TrainerCallback] = (),
        report_to: Sequence[str] = (),
    ) -> None:
        self._callbacks = callbacks
        self._report_to = report_to
        self._recipe = recipe
        self._prepared = prepared
        self._encoder = encoder
        self._run_dir = run_dir
        self._progress = progress

    def run(self, key: str) -> FineTuned:
        """Train or resume, then write the finished model. The clock counts this process only."""
        began = time.monotonic()
        begun = self.begin(key)
        checkpoint = last_complete_checkpoint(self._run_dir)
        begun.trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        return self._finish(begun, resumed=checkpoint is not None, seconds=time.monotonic() - began)

    def begin(self, key: str) -> _Begun:
        """Seed, load the encoder, and take up the run directory or clear it; nothing is trained."""
        transformers.set_seed(self._recipe.training.seed)
        model, tokenizer = load_encoder(self._encoder, self._recipe)
        positions = max_input_tokens(model, tokenizer)
        limit = text_limit(self._recipe.training, positions)
        run = _begin(self._run_dir, key, lambda: choose_precision(self._recipe.training.precision, model))
        return _Begun(self._trainer(model, tokenizer, run.precision, positions), run.precision, limit)

    def _trainer(
        self,
        model: transformers.PreTrainedModel,
        tokenizer: transformers.PreTrainedTokenizerFast,
        precision: Precision,
        positions: int,
    ) -> transformers.Trainer:
        section = self._recipe.training
        turns = training_turns(tokenizer, self._prepared.train.texts, section, positions)
        train = Examples(turns, soft_targets(self._prepared.train, self._recipe))
        validation, owners = self._validation(tokenizer, positions)
        # Embeddings that are moved for a second look need a gradient.
        freeze(model, section.frozen_layers, embeddings=section.adversarial is None)
        trainer = ResumableTrainer(
            adversarial=section.adversarial,
            model=model,
            args=arguments_of(section, precision, self._run_dir, len(train), self._report_to),
            train_dataset=train,
            eval_dataset=validation,
            data_collator=Collator(tokenizer),
            processing_class=tokenizer,
            compute_loss_func=soft_cross_entropy,
            compute_metrics=partial(validation_metrics, owners=owners),
            optimizers=(optimizer_of(model, section), None),
            callbacks=[
                transformers.EarlyStoppingCallback(section.patience),
                Watch(self._progress),
                *self._callbacks,
            ],
        )
        # The one that prints a dictionary to stdout at every reading; Watch shows the same.
        trainer.remove_callback(transformers.PrinterCallback)
        return trainer

    def _validation(
        self, tokenizer: transformers.PreTrainedTokenizerFast, positions: int
    ) -> tuple[Examples, npt.NDArray[np.int64]]:
        """The validation split as rows, and the number of the text each is of."""
        section, split = self._recipe.training, self._prepared.validation
        most = min(section.max_tokens, positions) if section.window_tokens is None else section.max_text_tokens
        rows, owners = windowed(tokenizer, split.texts, most, section.window_tokens)
        # Validation asks for the plain label: that is what the finished model is judged by.
        plain = np.eye(len(self._recipe.labels), dtype=np.float32)[split.labels]
        # Metrics do not ask for an order, and like lengths together pad least.
        order = sorted(range(len(rows)), key=lambda number: len(rows[number]["input_ids"]))
        return Examples([[rows[number]] for number in order], plain[owners[order]]), owners[order]

    def _finish(self, begun: _Begun, *, resumed: bool, seconds: float) -> FineTuned:
        """Write the model beside its final place, rename it there, then drop the checkpoints."""
        trainer, limit = begun.trainer, begun.max_input_tokens
        best = trainer.state.best_model_checkpoint
        # Out of the autocast that accelerate puts around a bf16 model: calibrated in the arithmetic that is exported.
        model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
        temperature = self._calibrate(model, trainer.processing_class, limit)
        result = FineTuned(
            model_dir=self._run_dir / "model",
            encoder_name=self._encoder.name,
            precision=begun.precision,
            threads=torch.get_num_threads(),
            seconds=seconds,
            steps=trainer.state.global_step,
            best_step=step_of(Path(best)) if best else trainer.state.global_step,
            temperature=temperature,
            resumed=resumed,
            curve=_curve(trainer.state.log_history),
            max_input_tokens=limit,
            window_tokens=self._recipe.training.window_tokens,
            length_quantiles=_length_quantiles(trainer.processing_class, self._prepared.train.texts),
        )
        scratch = self._run_dir / "model.partial"
        shutil.rmtree(scratch, ignore_errors=True)
        trainer.model.save_pretrained(scratch)
        trainer.processing_class.save_pretrained(scratch)
        (scratch / _RESULT).write_text(result.model_dump_json(indent=2), encoding="utf-8")
        shutil.rmtree(result.model_dir, ignore_errors=True)
        scratch.rename(result.model_dir)
        for checkpoint in checkpoints_in(self._run_dir):
            shutil.rmtree(checkpoint, ignore_errors=True)
        return result

    def _calibrate(
        self, model: transformers.PreTrainedModel, tokenizer: transformers.PreTrainedTokenizerFast, limit: int
    ) -> float:
        """Fit the temperature on the validation split and fold it into the head; 1 where the recipe says no."""
        if not self._recipe.training.calibrate:
            return 1.0
        split = self._prepared.validation
        model.eval()
        window = self._recipe.training.window_tokens
        logits = predict_logits(
            model, tokenizer, split.texts, max_tokens=limit, window_tokens=window, progress=self._progress
        )
        temperature = best_temperature(logits, split.labels)
        if divide_logits(model, temperature):
            return temperature
        _log.warning(
            "this model's head cannot be scaled: its scores stay as they are, best at temperature %.2f", temperature
        )
        return 1.0


def _begin(run_dir: Path, key: str, precision: Callable[[], Precision]) -> _Run:
    """Take up the run in `run_dir`, or clear away another one and begin."""
    path = run_dir / _RUN
    with contextlib.suppress(OSError, ValueError):
        found = _Run.model_validate_json(path.read_bytes())
        if found.key == key:
            return found
    for old in (*checkpoints_in(run_dir), run_dir / "model"):
        shutil.rmtree(old, ignore_errors=True)
    run_dir.mkdir(parents=True, exist_ok=True)
    run = _Run(key=key, precision=precision())
    scratch = path.with_suffix(".partial")
    scratch.write_text(run.model_dump_json(), encoding="utf-8")
    scratch.replace(path)
    return run


def _finished(run_dir: Path, key: str) -> FineTuned | None:
    with contextlib.suppress(OSError, ValueError):
        run = _Run.model_validate_json((run_dir / _RUN).read_bytes())
        result = FineTuned.model_validate_json((run_dir / "model" / _RESULT).read_bytes())
        if run.key == key:
            return result.model_copy(update={"model_dir": run_dir / "model"})
    return None


def _key(recipe: Recipe, prepared: Prepared, encoder: EncoderFolder) -> str:
    return f"{run_key(recipe, prepared)} {weights_digest(encoder.path)}"


def _curve(history: Sequence[Mapping[str, Any]]) -> tuple[CurvePoint, ...]:
    points = []
    for entry in history:
        if "loss" in entry:
            points.append(
                CurvePoint(
                    step=entry["step"],
                    epoch=entry["epoch"],
                    kind="train",
                    loss=entry["loss"],
                    learning_rate=entry.get("learning_rate"),
                )
            )
        elif "eval_log_loss" in entry:
            points.append(
                CurvePoint(
                    step=entry["step"],
                    epoch=entry["epoch"],
                    kind="validation",
                    loss=entry["eval_log_loss"],
                    accuracy=entry["eval_accuracy"],
                )
            )
    return tuple(points)


def _length_quantiles(tokenizer: transformers.PreTrainedTokenizerFast, texts: Sequence[str]) -> dict[str, int]:
    lengths = [len(ids) for ids in tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]]
    return {name: int(np.percentile(lengths, percent)) for name, percent in _QUANTILES.items()}
