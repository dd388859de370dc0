"""The torch models that `slipway compress` cuts and trains: built from the fine-tuned one, step by step, and kept."""

import shutil
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from training import surgery
from training.candidates import Candidate, Step
from training.classifier import load_model, load_tokenizer, predict_logits, row_logits
from training.distil import Batch, Lesson, padded, teach
from training.export import input_names
from training.finetune import FineTuned
from training.keys import weights_key
from training.pipeline import Opened
from training.precision import torch_threads
from training.prepare import Cleaning, Split, spread
from training.steps import Steps, key_of
from training.targets import soft_targets
from training.temperature import best_temperature, divide_logits
from training.windowing import training_rows

Floats = NDArray[np.float32]

_SAMPLE_ROWS: Final = 512
_SAMPLE_BATCH: Final = 32
_CALIBRATION_TEXTS: Final = 128


class Workshop:
    """Builds the torch model of any candidate. What took training is kept in `folder`, under a key of what went in."""

    def __init__(self, opened: Opened, tuned: FineTuned, unlabelled: Sequence[str], folder: Path, steps: Steps) -> None:
        self._line = opened.line
        self._recipe = opened.line.recipe
        self._prepared = opened.prepared
        self._tuned = tuned
        held_out = {*opened.prepared.validation.texts, *opened.prepared.test.texts}
        cleaned = map(Cleaning(self._recipe.prepare), unlabelled)
        self._unlabelled = tuple(dict.fromkeys(text for text in cleaned if text and text not in held_out))
        self._folder = folder
        self._steps = steps
        self._weights = weights_key(tuned.model_dir)

    def key(self, steps: Sequence[Step]) -> str:
        """A hash of all that decides the model these steps make."""
        extra = self._unlabelled if any(step.name == "distil-unlabelled" for step in steps) else ()
        how = (self._tuned.precision, self._tuned.threads)
        return key_of(self._weights, self._prepared.fingerprint, [str(step) for step in steps], extra, how)

    def model_dir(self, steps: tuple[Step, ...]) -> Path:
        """A folder with the model these steps make, built now if it is not there. Raises TrainingError.

        It is built in the arithmetic and by the number of threads that the fine-tuned model was.
        """
        if not steps:
            return self._tuned.model_dir
        folder = self._place(steps)
        if not self._is_kept(steps):
            with torch_threads(self._tuned.threads):
                self._keep(steps, self._build(steps))
        return folder

    def temperature(self, steps: tuple[Step, ...]) -> float | None:
        """What the logits were divided by after the last training of `steps`; None where nobody knows."""
        while steps and steps[-1].stage != "training":
            steps = steps[:-1]
        return self._steps.load(f"temperature-{Candidate(steps).name}", self.key(steps), float)

    def forget(self, steps: tuple[Step, ...]) -> None:
        """Remove a model that is built again in seconds."""
        if steps and not any(step.stage == "training" for step in steps):
            shutil.rmtree(self._place(steps), ignore_errors=True)

    def calibration(self) -> list[dict[str, NDArray[np.int64]]]:
        """Training texts as inputs of the graph, one each, for quantizers that look at activations."""
        names = input_names(load_model(self._tuned.model_dir), self._tokenizer)
        rows = training_rows(self._tokenizer, self._sample.texts[:_CALIBRATION_TEXTS], self._recipe.training)
        return [{name: np.array([row[name]], dtype=np.int64) for name in names} for row in rows]

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerFast:
        return load_tokenizer(self._tuned.model_dir)

    @cached_property
    def _sample(self) -> Split:
        """Rows spread evenly over the training split: enough to tell what matters in a model."""
        train = self._prepared.train
        return train.at(spread(len(train), _SAMPLE_ROWS))

    @cached_property
    def _batches(self) -> list[Batch]:
        """The sample with its targets, like lengths together."""
        rows = training_rows(self._tokenizer, self._sample.texts, self._recipe.training)
        targets = soft_targets(self._sample, self._recipe)
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]["input_ids"]))
        return [
            padded(self._tokenizer, [rows[row] for row in chosen]) | {"labels": torch.tensor(targets[chosen])}
            for chosen in (order[start : start + _SAMPLE_BATCH] for start in range(0, len(order), _SAMPLE_BATCH))
        ]

    def _build(self, steps: tuple[Step, ...]) -> PreTrainedModel:
        """From the longest row of steps that is kept; a step that trains is kept before the next one is taken."""
        if not steps or self._is_kept(steps):
            return load_model(self.model_dir(steps))
        model = self._build(steps[:-1])
        if steps[-1].stage == "training":
            self._train(model, steps)
            self._keep(steps, model)
        else:
            self._cut(model, steps[-1])
        return model

    def _cut(self, model: PreTrainedModel, step: Step) -> None:
        cuts: Mapping[str, Any] = {
            "layers": lambda: surgery.keep_layers(model, int(step.value)),
            "heads": lambda: surgery.remove_heads(model, step.value, self._batches),
            "neurons": lambda: surgery.remove_neurons(model, step.value, self._batches),
            "svd": lambda: surgery.factorise(model, step.value, self._batches),
            "zeros": lambda: surgery.zero_weights(model, step.value),
            "clip": lambda: surgery.clip_weights(model, step.value),
        }
        cuts[step.name]()

    def _train(self, model: PreTrainedModel, steps: tuple[Step, ...]) -> None:
        """The last of `steps`, then the temperature, as `slipway train` does."""
        step = steps[-1]
        section = self._recipe.training.model_copy(update={"precision": self._tuned.precision})
        texts = self._prepared.train.texts + (self._unlabelled if step.name == "distil-unlabelled" else ())
        lesson = Lesson(
            texts=texts,
            targets=soft_targets(self._prepared.train, self._recipe),
            teacher=None if step.name == "tune" else self._teacher(texts),
            epochs=step.value,
        )
        title = Candidate(steps).name
        with self._line.timed("train") as said:
            teach(model, self._tokenizer, lesson, section, self._line.progress, title=title)
            if section.calibrate:
                logits = self._answers(model, self._prepared.validation.texts)
                temperature = best_temperature(logits, self._prepared.validation.labels)
                if divide_logits(model, temperature):
                    self._steps.save(f"temperature-{title}", self.key(steps), float, temperature)
            said.append(title)

    def _teacher(self, texts: tuple[str, ...]) -> Floats:
        """Logits of the uncut model, (texts, labels), kept."""
        name = "teacher" if len(texts) == len(self._prepared.train) else "teacher-unlabelled"
        key = key_of(self._weights, texts)
        found = self._steps.load_array(name, key)
        if found is None:
            model = load_model(self._tuned.model_dir, attention="sdpa")
            rows = training_rows(self._tokenizer, texts, self._recipe.training)
            found = row_logits(model, self._tokenizer, rows, progress=self._line.progress)
            found = self._steps.save_array(name, key, found)
        return found

    def _answers(self, model: PreTrainedModel, texts: Sequence[str]) -> Floats:
        return predict_logits(
            model,
            self._tokenizer,
            texts,
            max_tokens=self._tuned.max_input_tokens,
            window_tokens=self._tuned.window_tokens,
            progress=self._line.progress,
        )

    def _place(self, steps: tuple[Step, ...]) -> Path:
        return self._folder / Candidate(steps).name

    def _is_kept(self, steps: tuple[Step, ...]) -> bool:
        noted = self._steps.load(f"model-{Candidate(steps).name}", self.key(steps), bool)
        return bool(noted) and surgery.is_cut(self._place(steps))

    def _keep(self, steps: tuple[Step, ...], model: PreTrainedModel) -> None:
        """Write the model beside its place, rename it there, and only then note that it is there."""
        folder = self._place(steps)
        partial = folder.with_name(f".{folder.name}.partial")
        for old in (partial, folder):
            shutil.rmtree(old, ignore_errors=True)
        surgery.save_cut(model, self._tokenizer, partial, Candidate(steps).name)
        partial.rename(folder)
        self._steps.save(f"model-{folder.name}", self.key(steps), bool, True)
