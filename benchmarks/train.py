"""`make bench-train`: how fast `slipway train` trains, against a plain Trainer on the same rows and steps.

    python -m benchmarks.train --recipe sentiment

Ours is the Trainer that training/finetune.py runs, taken before its first step and without a second look at each batch
(`training.adversarial`), which buys accuracy with time. Plain is transformers' own Trainer over the same model, rows,
targets, batch size and AdamW (its groups, rates, schedule and clipping too), with what the Trainer does unless told
otherwise: random batches padded to their longest row, fp32, and the implementation of AdamW that `TrainingArguments`
names by default. What differs is what makes ours fast, and nothing else.

Speed: both train the first steps of a run from the pretrained weights, by turns, each turn with a seed of its own. A
turn is as many steps as rows are grouped by length at a time, so it holds short and long batches as an epoch does.
The clock runs from the first batch being drawn to the last step's end; tokens that only pad are not counted.

Quality: both train `--epochs` to the end (`--full`: the recipe's number), and the checkpoint each kept labels the
validation split in fp32. With one epoch both know less than a finished model; the comparison is what counts. Ends
with one JSON document.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import transformers
from rich.console import Console
from rich.progress import Progress

from artifact.errors import SlipwayError
from artifact.files import cache_dir
from benchmarks import machine
from training.classifier import load_model, load_tokenizer, max_input_tokens, predict_logits
from training.data import read_table
from training.evaluate import evaluate, paired_accuracy_difference, softmax
from training.finetune import fine_tune, new_trainer
from training.optimize import parameter_groups
from training.prepare import Prepared, prepare
from training.progress import progress_on
from training.quiet import quiet
from training.recipe import Recipe, load_recipe
from training.sources import EncoderFolder, fetch_encoder
from training.targets import soft_cross_entropy

# get_length_grouped_indices sorts this many batches at a time, longest first.
STEPS: Final = 50
_WARM_UP_STEPS: Final = 5
_LIBRARIES: Final = ("torch", "transformers", "accelerate")


@dataclass(frozen=True, slots=True)
class Material:
    """What is trained on, and where."""

    recipe: Recipe
    prepared: Prepared
    encoder: EncoderFolder
    folder: Path

    def changed(self, **training: object) -> "Material":
        """The same with other values in the recipe's `[training]`."""
        section = self.recipe.training.model_copy(update=training)
        recipe = self.recipe.model_copy(update={"training": section})
        return Material(recipe, self.prepared, self.encoder, self.folder)


@dataclass(frozen=True, slots=True)
class Turn:
    """What one Trainer did in one turn. `padded_tokens` are all positions computed, `real_tokens` those of texts."""

    steps: int
    real_tokens: int
    padded_tokens: int
    seconds: float

    @property
    def rate(self) -> float:
        """Real tokens per second."""
        return self.real_tokens / self.seconds


class Meter(transformers.TrainerCallback):  # type: ignore[misc]
    """Counts the tokens a model is trained on and the time it takes, moves a bar, and stops after `steps`."""

    def __init__(self, progress: Progress, title: str, steps: int | None = None) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=steps)
        self._wanted = steps
        self._real: list[torch.Tensor] = []
        self._padded = 0
        self._began = self._ended = 0.0
        self._steps = 0

    def count(self, model: torch.nn.Module, _: object, inputs: Mapping[str, torch.Tensor]) -> None:
        """A forward pre-hook: sees the batches that are computed, not those a loader has drawn ahead."""
        if model.training:
            self._real.append(inputs["attention_mask"].sum())
            self._padded += inputs["attention_mask"].numel()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock."""
        self._progress.update(self._task, total=self._wanted or state.max_steps)
        self._began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop the clock, and the training once there were enough steps."""
        self._progress.update(self._task, completed=state.global_step)
        self._steps = state.global_step
        if self._wanted is not None and state.global_step >= self._wanted:
            if torch.accelerator.is_available():
                torch.accelerator.synchronize()
            control.should_training_stop = True
            # A run of so few steps may end here: its checkpoint is not what is measured.
            control.should_save = control.should_evaluate = False
        self._ended = time.perf_counter()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take the bar away."""
        self._progress.remove_task(self._task)

    def turn(self) -> Turn:
        """What was counted."""
        real = int(sum(int(count) for count in self._real))
        return Turn(self._steps, real, self._padded, self._ended - self._began)


# --- the two trainers -------------------------------------------------------------------------------------------


def our_trainer(material: Material) -> transformers.Trainer:
    """The one of `slipway train`, without its bar."""
    return new_trainer(
        material.recipe, material.prepared, material.encoder, material.folder / "run", Progress(disable=True)
    )


def plain_trainer(material: Material) -> transformers.Trainer:
    """Transformers' own Trainer over all that ours would be given, in fp32."""
    ours = our_trainer(material.changed(precision="fp32"))
    kind, options = transformers.Trainer.get_optimizer_cls_and_kwargs(ours.args)
    optimizer = kind(parameter_groups(ours.model, material.recipe.training), **options)
    plain = transformers.Trainer(
        model=ours.model,
        args=ours.args,
        train_dataset=ours.train_dataset,
        eval_dataset=ours.eval_dataset,
        data_collator=ours.data_collator,
        processing_class=ours.processing_class,
        compute_loss_func=soft_cross_entropy,
        compute_metrics=ours.compute_metrics,
        optimizers=(optimizer, None),
    )
    plain.remove_callback(transformers.PrinterCallback)
    return plain


Maker = Callable[[Material], transformers.Trainer]


# --- speed ------------------------------------------------------------------------------------------------------


def take_turn(trainer: transformers.Trainer, steps: int, progress: Progress, title: str) -> Turn:
    """Train `steps` steps, fewer where the run is shorter."""
    meter = Meter(progress, title, steps)
    trainer.add_callback(meter)
    hook = trainer.model.register_forward_pre_hook(meter.count, with_kwargs=True)
    try:
        trainer.train()
    finally:
        hook.remove()
    return meter.turn()


def measure_speed(material: Material, turns: int, steps: int, progress: Progress) -> tuple[list[Turn], list[Turn]]:
    """Ours and plain by turns, after a few steps of each that warm up; who goes first alternates."""
    makers: dict[str, Maker] = {"ours": our_trainer, "plain": plain_trainer}
    taken: dict[str, list[Turn]] = {"ours": [], "plain": []}
    for make in makers.values():
        take_turn(make(material), _WARM_UP_STEPS, progress, "Warming up")
    for number in range(turns):
        seeded = material.changed(seed=material.recipe.training.seed + number)
        for name in sorted(makers, reverse=bool(number % 2)):
            trainer = makers[name](seeded)
            taken[name].append(take_turn(trainer, steps, progress, f"Turn {number + 1} of {turns}, {name}"))
            progress.console.print(f"turn {number + 1}, {name}: {taken[name][-1].rate:.0f} real tokens/s")
    return taken["ours"], taken["plain"]


def speed_figures(ours: Sequence[Turn], plain: Sequence[Turn]) -> dict[str, Any]:
    """Medians over the turns, their ratio, the smallest and largest of each, and how much each padded."""
    rates = {"real_tokens_per_s": [turn.rate for turn in ours], "baseline_real_tokens_per_s": [t.rate for t in plain]}
    medians = {name: statistics.median(found) for name, found in rates.items()}
    ratios = [one.rate / other.rate for one, other in zip(ours, plain, strict=True)]
    spread = {name: [round(min(found), 1), round(max(found), 1)] for name, found in rates.items()}
    return {
        **{name: round(median, 1) for name, median in medians.items()},
        "ratio": round(medians["real_tokens_per_s"] / medians["baseline_real_tokens_per_s"], 3),
        "spread": {**spread, "ratio": [round(min(ratios), 3), round(max(ratios), 3)]},
        "steps_per_turn": ours[0].steps,
        "turns": len(ours),
        "seconds_per_step": round(statistics.median(turn.seconds / turn.steps for turn in ours), 4),
        "baseline_seconds_per_step": round(statistics.median(turn.seconds / turn.steps for turn in plain), 4),
        "padded_over_real": _padding(ours),
        "baseline_padded_over_real": _padding(plain),
    }


def _padding(turns: Sequence[Turn]) -> float:
    return round(sum(turn.padded_tokens for turn in turns) / sum(turn.real_tokens for turn in turns), 3)


# --- quality ----------------------------------------------------------------------------------------------------


def our_logits(material: Material, progress: Progress) -> npt.NDArray[np.float32]:
    """Fine-tune as `slipway train` does; logits of the validation split, shape (rows, labels)."""
    tuned = fine_tune(material.recipe, material.prepared, material.encoder, material.folder / "ours", progress)
    model, tokenizer = load_model(tuned.model_dir, None), load_tokenizer(tuned.model_dir)
    texts = material.prepared.validation.texts
    most, window = tuned.max_input_tokens, tuned.window_tokens
    return predict_logits(model, tokenizer, texts, max_tokens=most, window_tokens=window, progress=progress)


def plain_logits(material: Material, progress: Progress) -> npt.NDArray[np.float32]:
    """The same by the plain Trainer."""
    trainer = plain_trainer(material)
    trainer.add_callback(Meter(progress, "Training, plain"))
    trainer.train()
    model, tokenizer = trainer.model.eval(), trainer.processing_class
    limit = max_input_tokens(model, tokenizer)
    return predict_logits(model, tokenizer, material.prepared.validation.texts, max_tokens=limit, progress=progress)


def measure_quality(material: Material, epochs: float, progress: Progress) -> dict[str, Any]:
    """Both trained for `epochs`: accuracy on the validation split with 95% intervals, and the paired difference.

    With 0 epochs nothing is trained and the accuracies are null.
    """
    found: dict[str, Any] = {"accuracy": None, "baseline_accuracy": None, "quality_epochs": epochs}
    if not epochs:
        return found
    material = material.changed(epochs=epochs)
    labels, names = material.prepared.validation.labels, material.recipe.labels
    scores = {
        "accuracy": softmax(our_logits(material, progress)),
        "baseline_accuracy": softmax(plain_logits(material, progress)),
    }
    for name, each in scores.items():
        estimate = evaluate(each, labels, names).metrics["accuracy"]
        found |= {name: estimate.value, f"{name}_interval": [estimate.low, estimate.high]}
    difference = paired_accuracy_difference(scores["accuracy"], scores["baseline_accuracy"], labels)
    found["accuracy_difference"] = difference.value
    found["accuracy_difference_interval"] = [difference.low, difference.high]
    return found


# --- the command ------------------------------------------------------------------------------------------------


def measure(material: Material, turns: int, steps: int, epochs: float, progress: Progress) -> dict[str, Any]:
    """Speed, then quality. The precision is decided once, so that every turn trains in the same."""
    ours = our_trainer(material)
    precision = "bf16" if ours.args.bf16 else "fp16" if ours.args.fp16 else "fp32"
    fixed = material.changed(precision=precision)
    section = material.recipe.training
    return {
        **speed_figures(*measure_speed(fixed, turns, steps, progress)),
        **measure_quality(fixed, epochs, progress),
        "precision": precision,
        "baseline_precision": "fp32",
        "baseline_optimizer": str(ours.args.optim.value),
        "batch_size": section.batch_size,
        "rows": len(material.prepared.train),
        "validation_rows": len(material.prepared.validation),
    }


def summary(result: Mapping[str, Any]) -> str:
    """A few lines for people."""
    lines = []
    for title, prefix in (("ours", ""), ("plain", "baseline_")):
        low, high = result["spread"][f"{prefix}real_tokens_per_s"]
        lines.append(
            f"{title:<6} {result[f'{prefix}precision']:<5} {result[f'{prefix}real_tokens_per_s']:8.0f} real tokens/s"
            f" ({low:.0f} - {high:.0f})  {1000 * result[f'{prefix}seconds_per_step']:5.0f} ms a step,"
            f" {result[f'{prefix}padded_over_real']:.2f} positions a token,"
            f" accuracy {_accuracy(result, f'{prefix}accuracy')}"
        )
    low, high = result["spread"]["ratio"]
    lines.append(f"ratio {result['ratio']:.2f} ({low:.2f} - {high:.2f})")
    return "\n".join(lines)


def _accuracy(result: Mapping[str, Any], name: str) -> str:
    if result[name] is None:
        return "not measured"
    low, high = result[f"{name}_interval"]
    return f"{result[name]:.3f} ({low:.3f} - {high:.3f}) after {result['quality_epochs']:g} epochs"


def read_material(name: str, folder: Path, progress: Progress) -> Material:
    """Data and encoder of a recipe, which looks at each batch once. Raises SlipwayError where `slipway train` would."""
    recipe, cache = load_recipe(name), cache_dir(os.environ)
    encoder = fetch_encoder(recipe.encoder, cache, progress)
    material = Material(recipe, prepare(read_table(recipe, cache, progress), recipe, progress), encoder, folder)
    return material.changed(adversarial=None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Training speed against a plain Trainer.")
    parser.add_argument("--recipe", default="sentiment", help="name or path (default: sentiment)")
    parser.add_argument("--turns", type=_positive, default=3, help="of each Trainer (default: 3)")
    parser.add_argument("--steps", type=_positive, default=STEPS, help=f"optimizer steps of a turn (default: {STEPS})")
    how_long = parser.add_mutually_exclusive_group()
    how_long.add_argument("--epochs", type=_not_negative, default=1.0, help="of the quality runs; 0: none (default: 1)")
    how_long.add_argument("--full", action="store_true", help="as many epochs as the recipe has")
    options = parser.parse_args(arguments)
    about = machine.describe(f"python -m benchmarks.train {' '.join(arguments or sys.argv[1:])}".strip())
    about["versions"] |= machine.versions(_LIBRARIES)
    try:
        with (
            quiet(),
            progress_on(Console(stderr=True, highlight=False)) as progress,
            tempfile.TemporaryDirectory(prefix="slipway-bench-train-") as scratch,
        ):
            material = read_material(options.recipe, Path(scratch), progress)
            epochs = material.recipe.training.epochs if options.full else options.epochs
            result = measure(material, options.turns, options.steps, epochs, progress)
    except SlipwayError as error:
        print(f"benchmarks.train: {error}", file=sys.stderr)
        return error.exit_status
    print(summary(result))
    print(json.dumps({**result, "recipe": options.recipe, "machine": about}))
    return 0


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _not_negative(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError("must be 0 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
