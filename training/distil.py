"""A short training loop for a model that was cut: towards its labels, towards a teacher, or both.

The distillation loss is that of Hinton, Vinyals & Dean 2015, arXiv:1503.02531: cross-entropy with the teacher's
probabilities at temperature 2, times 4, beside the one with the labels. A text without a label has the first alone.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import transformers
from rich.progress import Progress
from transformers.trainer_pt_utils import get_length_grouped_indices

from training.errors import FineTuneFailed
from training.optimize import parameter_groups
from training.precision import choose_precision
from training.recipe import TrainingSection
from training.windowing import training_rows

Floats = npt.NDArray[np.float32]
Batch = dict[str, torch.Tensor]

_TEMPERATURE: Final = 2.0
_TEACHER_WEIGHT: Final = 0.5


@dataclass(frozen=True)
class Lesson:
    """What to learn from: `targets` (labelled texts, labels) for the first texts, the rest have no label.

    `teacher`: logits of shape (texts, labels), None where there is no teacher; then every text has a label.
    """

    texts: Sequence[str]
    targets: Floats
    teacher: Floats | None
    epochs: float


def teach(
    model: transformers.PreTrainedModel,
    tokenizer: transformers.PreTrainedTokenizerFast,
    lesson: Lesson,
    section: TrainingSection,
    progress: Progress,
    *,
    title: str = "training",
) -> None:
    """Train in place, with the recipe's rate, decay and batch size; weights that are zero stay zero.

    Raises FineTuneFailed when the loss is not a number.
    """
    transformers.set_seed(section.seed)
    encoded = training_rows(tokenizer, lesson.texts, section)
    steps = max(1, round(lesson.epochs * math.ceil(len(encoded) / section.batch_size)))
    optimizer = torch.optim.AdamW(parameter_groups(model, section), fused=True)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, int(section.warmup * steps), steps)
    reduced = choose_precision(section.precision, model) == "bf16"
    zeros = _zeros(model)
    task = progress.add_task(title, total=steps)
    model.train()
    for step, rows in enumerate(_rows(encoded, section, steps), start=1):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=reduced):
            logits = model(**padded(tokenizer, [encoded[row] for row in rows])).logits
        loss = _loss(logits.float(), lesson, rows)
        if not math.isfinite(loss.item()):
            raise FineTuneFailed(f"{title}: the loss is not a number at step {step}; try a smaller learning rate")
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), section.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        _restore(zeros)
        progress.update(task, completed=step, description=f"{title} (loss {loss.item():.3f})")
    progress.remove_task(task)
    model.eval()


def padded(tokenizer: transformers.PreTrainedTokenizerFast, rows: Sequence[dict[str, list[int]]]) -> Batch:
    """Rows as one batch, padded to the longest."""
    return dict(tokenizer.pad(list(rows), return_tensors="pt"))


def _loss(logits: torch.Tensor, lesson: Lesson, rows: Sequence[int]) -> torch.Tensor:
    """The mean over rows, in nats."""
    labelled = [place for place, row in enumerate(rows) if row < len(lesson.targets)]
    targets = torch.tensor(lesson.targets[[rows[place] for place in labelled]])
    hard = -(targets * torch.log_softmax(logits[labelled], dim=-1)).sum(dim=-1)
    if lesson.teacher is None:
        return hard.mean()
    wanted = torch.softmax(torch.tensor(lesson.teacher[list(rows)]) / _TEMPERATURE, dim=-1)
    soft = -(wanted * torch.log_softmax(logits / _TEMPERATURE, dim=-1)).sum(dim=-1) * _TEMPERATURE**2
    weights = torch.ones(len(rows))
    weights[labelled] = _TEACHER_WEIGHT
    return ((weights * soft).sum() + (1 - _TEACHER_WEIGHT) * hard.sum()) / len(rows)


def _rows(encoded: Sequence[dict[str, list[int]]], section: TrainingSection, steps: int) -> Iterator[list[int]]:
    """Batches of row numbers with rows of like length together, until there were `steps` of them."""
    lengths = [len(row["input_ids"]) for row in encoded]
    taken = epoch = 0
    while taken < steps:
        generator = torch.Generator().manual_seed(section.seed * 1_000_003 + epoch)
        order = get_length_grouped_indices(lengths, section.batch_size, generator=generator)
        for start in range(0, len(order), section.batch_size)[: steps - taken]:
            yield order[start : start + section.batch_size]
            taken += 1
        epoch += 1


def _zeros(model: transformers.PreTrainedModel) -> list[tuple[Any, torch.Tensor]]:
    """Matrices of which a part was set to zero, and where."""
    return [
        (module.weight, module.weight == 0)
        for module in model.modules()
        if isinstance(module, torch.nn.Linear) and bool((module.weight == 0).any())
    ]


def _restore(zeros: Sequence[tuple[Any, torch.Tensor]]) -> None:
    with torch.no_grad():
        for weight, where in zeros:
            weight.masked_fill_(where, 0.0)
