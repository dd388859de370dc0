"""Fine-tune an encoder on prepared rows with transformers' Trainer, and read the result back.

    <run_dir>/run.json          what this run is: written first; a run of something else is cleared away
    <run_dir>/checkpoint-<n>/   the Trainer's, plus a marker written once all of it is on disk
    <run_dir>/model/            the best checkpoint in the hub's layout; finetune.json inside comes last

A run that was killed goes on from its last checkpoint with a marker; one that had finished returns at once.
"""

import contextlib
import hashlib
import json
import logging
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from transformers.trainer_pt_utils import get_length_grouped_indices

from training.errors import FineTuneFailed, RecipeInvalid, SourceUnavailable
from training.evaluate import softmax
from training.prepare import Prepared, Split
from training.recipe import Recipe, TrainingSection
from training.sources import EncoderFolder
from training.surgery import is_cut, load_cut
from training.temperature import best_temperature, divide_logits
from training.windowing import Row, averaged, training_rows, windowed

Precision = Literal["fp32", "bf16", "fp16"]
Attention = Literal["eager", "sdpa"]

_log = logging.getLogger(__name__)
_COMPLETE: Final = "slipway-complete"
_RUN: Final = "run.json"
_RESULT: Final = "finetune.json"
_CURVE_POINTS_PER_EPOCH: Final = 20
_QUANTILES: Final = {"p50": 50, "p90": 90, "p95": 95, "p99": 99, "max": 100}
_UNBOUNDED_TOKENS: Final = 100_000
_FALLBACK_TOKENS: Final = 512
_BF16_WORTH_IT: Final = 1.15
_SGD_MOMENTUM: Final = 0.9
# Fields of [training] that the first runs did not have.
_LATER: Final = frozenset(
    {"class_weights", "optimizer", "dropout", "frozen_layers", "encoder_layers", "window_tokens", "max_text_tokens"}
)
# What encoders call their dropout rates.
_DROPOUTS: Final = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "dropout",
    "attention_dropout",
    "seq_classif_dropout",
)


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
    with quiet():
        try:
            key = _key(recipe, prepared, encoder)
            if (done := _finished(run_dir, key)) is not None:
                return done
            return _Job(recipe, prepared, encoder, run_dir, progress, callbacks, report_to).run(key)
        except OSError as error:
            raise FineTuneFailed(f"training in {run_dir}: {error.strerror or error}") from error


def find_finished(recipe: Recipe, prepared: Prepared, encoder: EncoderFolder, run_dir: Path) -> FineTuned | None:
    """What `fine_tune` left in `run_dir`, if it is that recipe's over that data, and finished."""
    return _finished(run_dir, _key(recipe, prepared, encoder))


def new_trainer(
    recipe: Recipe, prepared: Prepared, encoder: EncoderFolder, run_dir: Path, progress: Progress
) -> transformers.Trainer:
    """The Trainer that `fine_tune` would run, before its first step: for measuring what a step takes.

    `run_dir` becomes this run's, as it would there. Raises SourceUnavailable when the encoder cannot be loaded.
    """
    return _Job(recipe, prepared, encoder, run_dir, progress).begin(_key(recipe, prepared, encoder)).trainer


def run_key(recipe: Recipe, prepared: Prepared) -> str:
    """A hash of all in recipe and data that decides the weights. The encoder counts by its name alone."""
    parts = {
        "fingerprint": prepared.fingerprint,
        "max_rows": recipe.max_rows,
        "encoder": recipe.encoder.model_dump(mode="json"),
        "training": _deciding(recipe.training),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _deciding(section: TrainingSection) -> dict[str, Any]:
    """The section's values. Fields that came later count only when set: runs of before them keep their key."""
    values: dict[str, Any] = section.model_dump(mode="json")
    defaults = {name: field.default for name, field in TrainingSection.model_fields.items()}
    return {name: value for name, value in values.items() if name not in _LATER or value != defaults[name]}


def weights_digest(folder: Path) -> str:
    """SHA-256 over the SHA-256 of each safetensors file in `folder`. Raises OSError."""
    hasher = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as stream:
            hasher.update(hashlib.file_digest(stream, "sha256").digest())
    return hasher.hexdigest()


def encoder_digest(folder: Path) -> str:
    """SHA-256 over an encoder's configuration, tokenizer and weights: what decides a model. Raises OSError."""
    hasher = hashlib.sha256(weights_digest(folder).encode())
    for name in ("config.json", "tokenizer.json", "vocab.txt"):
        if (path := folder / name).is_file():
            hasher.update(f"{name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return hasher.hexdigest()


def load_model(model_dir: Path, attention: Attention | None = "eager") -> transformers.PreTrainedModel:
    """The classifier in `model_dir`, fp32, in evaluation mode. `eager` attention is what exporters trace best."""
    if is_cut(model_dir):
        return load_cut(model_dir, attention)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        model_dir, attn_implementation=attention, dtype=torch.float32, local_files_only=True, use_safetensors=True
    )
    return model.eval()


def load_tokenizer(model_dir: Path) -> transformers.PreTrainedTokenizerFast:
    """The fast tokenizer in `model_dir`, without the padding or truncation it may have been saved with."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_dir, use_fast=True, local_files_only=True)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def predict_logits(
    model: transformers.PreTrainedModel,
    tokenizer: transformers.PreTrainedTokenizerFast,
    texts: Sequence[str],
    *,
    max_tokens: int,
    window_tokens: int | None = None,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> npt.NDArray[np.float32]:
    """Logits of shape (texts, labels), by torch: the reference that every exported variant is held against.

    With `window_tokens` they are the mean over the windows that serving reads a text in.
    """
    rows, owners = windowed(tokenizer, texts, max_tokens, window_tokens)
    return averaged(row_logits(model, tokenizer, rows, batch_size=batch_size, progress=progress), owners)


def row_logits(
    model: transformers.PreTrainedModel,
    tokenizer: transformers.PreTrainedTokenizerFast,
    encoded: Sequence[Row],
    *,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> npt.NDArray[np.float32]:
    """Logits of shape (rows, labels) for texts that are tokenized, by torch, in batches of like length."""
    order = sorted(range(len(encoded)), key=lambda index: len(encoded[index]["input_ids"]))
    logits = np.zeros((len(encoded), model.config.num_labels), dtype=np.float32)
    task = progress.add_task("Predicting", total=len(encoded)) if progress else None
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = tokenizer.pad([encoded[index] for index in chosen], return_tensors="pt").to(model.device)
        with torch.inference_mode():
            logits[chosen] = model(**batch).logits.float().cpu().numpy()
        if progress and task is not None:
            progress.update(task, completed=start + len(chosen))
    if progress and task is not None:
        progress.remove_task(task)
    return logits


def max_input_tokens(model: transformers.PreTrainedModel, tokenizer: transformers.PreTrainedTokenizerFast) -> int:
    """Positions the encoder really has, special tokens included.

    The tokenizer's own figure is only believed where the model names none: sentence encoders set it lower than need be.
    """
    positions = getattr(model.config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        return positions - _positions_lost_to_padding(model)
    own: int = tokenizer.model_max_length
    return own if 0 < own < _UNBOUNDED_TOKENS else _FALLBACK_TOKENS


def text_limit(section: TrainingSection, positions: int) -> int:
    """Tokens of the longest text that can be read, special ones included. Raises RecipeInvalid for too wide a one."""
    if section.window_tokens is None:
        return positions
    if section.window_tokens > positions:
        raise RecipeInvalid(
            f"training.window_tokens: {section.window_tokens}, but the encoder has {positions} positions"
        )
    return section.max_text_tokens


def parameter_groups(model: transformers.PreTrainedModel, section: TrainingSection) -> list[dict[str, Any]]:
    """The optimizer's groups: the head at the full rate, each layer below it at `layer_decay` times the one above.

    Layer-wise decay as in Howard & Ruder 2018 and Sun et al. 2019; biases and norms get no weight decay.
    """
    depths = {name: _depth(name) for name, _ in model.named_parameters()}
    layers = 1 + max((depth for depth in depths.values() if depth is not None), default=-1)
    groups: dict[tuple[int, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        depth = depths[name]
        below = 0 if _in_head(name, model) else layers - (-1 if depth is None else depth)
        groups.setdefault((below, parameter.ndim < 2), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": section.learning_rate * section.layer_decay**below,
            "weight_decay": 0.0 if plain else section.weight_decay,
        }
        for (below, plain), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def optimizer_of(model: transformers.PreTrainedModel, section: TrainingSection) -> torch.optim.Optimizer:
    """The recipe's optimizer over the parameters that are trained."""
    groups = parameter_groups(model, section)
    if section.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=section.learning_rate, momentum=_SGD_MOMENTUM, nesterov=True)
    if section.optimizer == "nadam":
        return torch.optim.NAdam(groups, lr=section.learning_rate, decoupled_weight_decay=True)
    if section.optimizer == "adafactor":
        return torch.optim.Adafactor(groups, lr=section.learning_rate)
    return torch.optim.AdamW(groups, fused=True)


def freeze(model: transformers.PreTrainedModel, layers: int) -> None:
    """Leave the embeddings and the lowest `layers` layers as they are; with 0 everything is trained.

    Raises RecipeInvalid when the encoder has fewer.
    """
    if not layers:
        return
    depths = {name: _depth(name) for name, _ in model.named_parameters()}
    count = 1 + max((depth for depth in depths.values() if depth is not None), default=-1)
    if layers > count:
        raise RecipeInvalid(f"training.frozen_layers: {layers}, but the encoder has {count} layers")
    for name, parameter in model.named_parameters():
        depth = depths[name]
        if not _in_head(name, model) and (depth is None or depth < layers):
            parameter.requires_grad = False


def soft_targets(split: Split, recipe: Recipe) -> npt.NDArray[np.float32]:
    """What the model should say about each row, shape (rows, labels), each row summing to its weight in the loss.

    Without `rating_sharpness` all weight lies on the label. With it, a row that people rated near the neutral band
    asks for less certainty than one they all agreed on. `label_smoothing` is applied on top. The weight is 1 unless
    the recipe has `class_weights`.
    """
    count = len(recipe.labels)
    section = recipe.training
    targets = np.eye(count)[split.labels]
    if section.rating_sharpness is not None and split.ratings is not None:
        second = 1 / (1 + np.exp(-section.rating_sharpness * _towards_last(split.ratings, recipe)))
        targets = np.stack([1 - second, second], axis=1)
    smoothed = targets * (1 - section.label_smoothing) + section.label_smoothing / count
    return np.asarray(smoothed * class_weights(split, recipe)[split.labels, None], dtype=np.float32)


def class_weights(split: Split, recipe: Recipe) -> npt.NDArray[np.float64]:
    """The weight of each label, shape (labels,), scaled so that the rows of `split` weigh 1 on average.

    `balanced` gives every label the same share of the loss: rows / (labels x rows of the label).
    """
    weights = recipe.training.class_weights
    rows = np.bincount(split.labels, minlength=len(recipe.labels))
    if weights is None:
        return np.ones(len(recipe.labels))
    wanted = 1 / np.maximum(rows, 1) if weights == "balanced" else np.array([weights[label] for label in recipe.labels])
    scaled: npt.NDArray[np.float64] = wanted * (rows.sum() / (wanted * rows).sum())
    return scaled


def _towards_last(ratings: npt.NDArray[np.float64], recipe: Recipe) -> npt.NDArray[np.float64]:
    """Signed distance from the middle of the neutral band; positive on the last label's side."""
    first, last = (recipe.data.thresholds[label] for label in recipe.labels)
    middle = (first.high + last.low) / 2 if first.low < last.low else (last.high + first.low) / 2
    return (ratings - middle) * (1.0 if first.low < last.low else -1.0)


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
        model, tokenizer = _load_encoder(self._encoder, self._recipe)
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
        rows = training_rows(tokenizer, self._prepared.train.texts, section, positions)
        train = _examples(rows, soft_targets(self._prepared.train, self._recipe))
        validation, owners = self._validation(tokenizer, positions)
        freeze(model, section.frozen_layers)
        trainer = _Trainer(
            model=model,
            args=_arguments(section, precision, self._run_dir, len(train), self._report_to),
            train_dataset=train,
            eval_dataset=validation,
            data_collator=_Collator(tokenizer),
            processing_class=tokenizer,
            compute_loss_func=soft_cross_entropy,
            compute_metrics=partial(_validation_metrics, owners=owners),
            optimizers=(optimizer_of(model, section), None),
            callbacks=[
                transformers.EarlyStoppingCallback(section.patience),
                _Watch(self._progress),
                *self._callbacks,
            ],
        )
        # The one that prints a dictionary to stdout at every reading; _Watch shows the same.
        trainer.remove_callback(transformers.PrinterCallback)
        return trainer

    def _validation(
        self, tokenizer: transformers.PreTrainedTokenizerFast, positions: int
    ) -> tuple[list[dict[str, Any]], npt.NDArray[np.int64]]:
        """The validation split as rows, and the number of the text each is of."""
        section, split = self._recipe.training, self._prepared.validation
        most = min(section.max_tokens, positions) if section.window_tokens is None else section.max_text_tokens
        rows, owners = windowed(tokenizer, split.texts, most, section.window_tokens)
        # Validation asks for the plain label: that is what the finished model is judged by.
        plain = np.eye(len(self._recipe.labels), dtype=np.float32)[split.labels]
        examples = _examples(rows, plain[owners])
        # Metrics do not ask for an order, and like lengths together pad least.
        order = sorted(range(len(rows)), key=lambda number: len(rows[number]["input_ids"]))
        return [examples[number] for number in order], owners[order]

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
            best_step=_step_of(Path(best)) if best else trainer.state.global_step,
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
        for checkpoint in _checkpoints(self._run_dir):
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


def soft_cross_entropy(
    outputs: Mapping[str, torch.Tensor], labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Cross-entropy in nats against targets of shape (rows, labels), in fp32; the mean over the optimizer's step.

    `num_items_in_batch` counts target cells over all forward passes of one step, so accumulation changes nothing.
    """
    losses = -(labels * torch.log_softmax(outputs["logits"].float(), dim=-1)).sum(dim=-1)
    if num_items_in_batch is None:
        return losses.mean()
    return losses.sum() * labels.shape[-1] / num_items_in_batch


def last_complete_checkpoint(run_dir: Path) -> Path | None:
    """The newest checkpoint with a marker; those without are half-written, and are removed."""
    complete = None
    for checkpoint in _checkpoints(run_dir):
        if (checkpoint / _COMPLETE).is_file():
            complete = checkpoint
        else:
            _log.warning("%s was not finished when its run ended; it is dropped", checkpoint)
            shutil.rmtree(checkpoint)
    return complete


def choose_precision(wanted: Literal["auto"] | Precision, model: transformers.PreTrainedModel) -> Precision:
    """The arithmetic to train in. `auto`: bf16 or fp16 on a GPU; on a CPU whichever of fp32 and bf16 is faster here."""
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if torch.accelerator.is_available() or not cpu_has_bf16():
        return "fp32"
    plain, reduced = (_seconds_per_step(model, bf16=bf16) for bf16 in (False, True))
    _log.info("one training step: fp32 %.3f s, bf16 %.3f s", plain, reduced)
    return "bf16" if reduced * _BF16_WORTH_IT < plain else "fp32"


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 natively. Emulated bf16 is slower than fp32."""
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return False
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})


def _seconds_per_step(model: transformers.PreTrainedModel, *, bf16: bool) -> float:
    """The faster of two forward and backward passes, after one to warm up; no weight changes."""
    tokens = torch.ones((16, 32), dtype=torch.long)
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss = model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits.float().sum()
        loss.backward()
        seconds.append(time.perf_counter() - began)
        model.zero_grad(set_to_none=True)
    return min(seconds[1:])


class _Collator:
    """Pads a batch to its own longest row and stacks the targets."""

    def __init__(self, tokenizer: transformers.PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        inputs = [{name: value for name, value in example.items() if name != "labels"} for example in examples]
        batch: dict[str, torch.Tensor] = dict(self._tokenizer.pad(inputs, return_tensors="pt"))
        batch["labels"] = torch.tensor(np.stack([example["labels"] for example in examples]))
        return batch


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


class _Trainer(transformers.Trainer):  # type: ignore[misc]
    """The Trainer with an order of rows that survives a resume."""

    def _get_train_sampler(self, train_dataset: Any = None) -> _LengthGrouped:
        lengths = [len(example["input_ids"]) for example in self.train_dataset]
        together = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return _LengthGrouped(lengths, together, self.args.seed, lambda: int(self.state.epoch or 0))


class _Watch(transformers.TrainerCallback):  # type: ignore[misc]
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
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        (checkpoint / _COMPLETE).touch()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take the bar away."""
        self._progress.remove_task(self._task)


def _arguments(
    section: TrainingSection, precision: Precision, run_dir: Path, rows: int, report_to: Sequence[str]
) -> Any:
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


def _validation_metrics(outcome: transformers.EvalPrediction, owners: npt.NDArray[np.int64]) -> dict[str, float]:
    logits, targets = averaged(outcome.predictions, owners), averaged(outcome.label_ids, owners)
    probabilities = softmax(logits)
    right = logits.argmax(axis=1) == targets.argmax(axis=1)
    loss = -(targets * np.log(np.clip(probabilities, 1e-15, 1))).sum(axis=1)
    return {"accuracy": float(right.mean()), "log_loss": float(loss.mean())}


def _load_encoder(
    encoder: EncoderFolder, recipe: Recipe
) -> tuple[transformers.PreTrainedModel, transformers.PreTrainedTokenizerFast]:
    try:
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            encoder.path,
            config=_configured(encoder.path, recipe),
            # A folder that already classifies something else keeps its encoder and gets a new head.
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
        )
        tokenizer = load_tokenizer(encoder.path)
    except (OSError, ValueError, KeyError) as error:
        raise SourceUnavailable(f"encoder {encoder.name}: transformers cannot load {encoder.path}") from error
    limit = max_input_tokens(model, tokenizer)
    tokenizer.model_max_length = limit
    return model, tokenizer


def _configured(folder: Path, recipe: Recipe) -> transformers.PretrainedConfig:
    """The encoder's configuration with the recipe's labels, dropout and number of layers. Raises RecipeInvalid."""
    section = recipe.training
    names = dict(enumerate(recipe.labels))
    config = transformers.AutoConfig.from_pretrained(
        folder,
        num_labels=len(recipe.labels),
        id2label=names,
        label2id={label: index for index, label in names.items()},
        local_files_only=True,
    )
    if section.dropout is not None:
        for name in _DROPOUTS:
            if hasattr(config, name):
                setattr(config, name, section.dropout)
    if section.encoder_layers is not None:
        if section.encoder_layers > config.num_hidden_layers:
            raise RecipeInvalid(
                f"training.encoder_layers: {section.encoder_layers}, but the encoder has {config.num_hidden_layers}"
            )
        config.num_hidden_layers = section.encoder_layers
    return config


def _begin(run_dir: Path, key: str, precision: Callable[[], Precision]) -> _Run:
    """Take up the run in `run_dir`, or clear away another one and begin."""
    path = run_dir / _RUN
    with contextlib.suppress(OSError, ValueError):
        found = _Run.model_validate_json(path.read_bytes())
        if found.key == key:
            return found
    for old in (*_checkpoints(run_dir), run_dir / "model"):
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


def _checkpoints(run_dir: Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    found = [path for path in run_dir.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()]
    return sorted(found, key=_step_of)


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


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


def _examples(rows: Sequence[Row], targets: npt.NDArray[np.float32]) -> list[dict[str, Any]]:
    return [{**inputs, "labels": target} for inputs, target in zip(rows, targets, strict=True)]


def _length_quantiles(tokenizer: transformers.PreTrainedTokenizerFast, texts: Sequence[str]) -> dict[str, int]:
    lengths = [len(ids) for ids in tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]]
    return {name: int(np.percentile(lengths, percent)) for name, percent in _QUANTILES.items()}


def _positions_lost_to_padding(model: transformers.PreTrainedModel) -> int:
    """RoBERTa and its kin number positions from padding_idx + 1, so two of their 514 are never used."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            return 0 if module.padding_idx is None else module.padding_idx + 1
    return 0


def _depth(name: str) -> int | None:
    """The layer number in a parameter's name: `bert.encoder.layer.3.output...` is 3."""
    found = re.search(r"\.(?:layer|layers|h|block|blocks)\.(\d+)\.", name)
    return int(found.group(1)) if found else None


def _in_head(name: str, model: transformers.PreTrainedModel) -> bool:
    """Whether a parameter lies above the encoder's layers: the classifier and the pooler."""
    return ".pooler." in name or not name.startswith(f"{model.base_model_prefix}.")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from drawing its own bars and reports; errors still get through."""
    verbosity = transformers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    # A forked tokenizer warns about its threads; ours never forks with work in flight.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(verbosity)
        if bars:
            transformers.logging.enable_progress_bar()
