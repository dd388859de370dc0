"""`slipway train --from`: train a published model again from what its manifest says, and compare the two.

    fetch -> prepare -> fine-tune -> (compress ->) evaluate -> compare

A version that `slipway compress` made goes through the same cuts and trainings afterwards; products and storage change
files, not the model that is compared. Nothing is exported or published. The repeat has a folder of its own, named after
the artifact, the libraries and the CPU, so that it never finds the original's weights there, and goes on where it was
killed.
"""

import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from rich.console import Console

from artifact.files import cache_dir
from artifact.manifest import Golden, Provenance
from artifact.repository import Artifact
from inference.tasks.transforms import Cleaner
from training.candidates import REFERENCE, Candidate, Step, parse
from training.disk import disk_errors
from training.errors import RecipeInvalid
from training.evaluate import Floats, as_plain, evaluate
from training.finetune import FineTuned, fine_tune, probabilities_of
from training.keys import encoder_digest, weights_digest
from training.line import Line
from training.pipeline import Opened
from training.precision import torch_threads
from training.prepare import Prepared
from training.progress import progress_on
from training.provenance import ROOT, cpu_name, git_commit, libraries
from training.quiet import quiet
from training.recipe import AnyData, Encoder, FileData, Recipe, parse_recipe, with_paths
from training.sources import EncoderFolder, no_telemetry
from training.steps import Steps, key_of, only_user
from training.workshop import Workshop

Verdict = Literal["identical", "same answers", "different"]

_METRIC_TOLERANCE: Final = 1e-6
_GOLDEN_TOLERANCE: Final = 1e-4
_UNKNOWN: Final = "not recorded"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing held against its published self. `same` is None where the manifest does not say."""

    name: str
    published: str
    now: str
    same: bool | None


@dataclass(frozen=True, slots=True)
class Repeat:
    """What a repeat found: the outcome, and what else was not as it had been. Without `outcome` nothing was trained."""

    model: str
    digest: str
    outcome: tuple[Check, ...]
    surroundings: tuple[Check, ...]

    @property
    def verdict(self) -> Verdict:
        """`same answers` is for an artifact whose manifest has no digest of the weights."""
        if not self.outcome or any(check.same is False for check in self.outcome):
            return "different"
        return "identical" if all(check.same for check in self.outcome) else "same answers"

    @property
    def differences(self) -> tuple[Check, ...]:
        """What is known to differ around the training: the suspects, if the outcome does."""
        return tuple(check for check in self.surroundings if check.same is False)


def repeat(
    artifact: Artifact,
    run_dir: Path | None = None,
    *,
    data: Path | None = None,
    encoder: Path | None = None,
    cache: Path | None = None,
    console: Console | None = None,
) -> Repeat:
    """Train what `artifact` holds once more and compare weights, golden answers and metrics.

    `data` and `encoder` say where a local table or folder lies now, of which a manifest keeps only the name; of several
    tables `data` is the folder. Other
    data or another encoder cannot give the same model, so nothing is trained then. Raises RecipeInvalid when the
    recipe cannot be followed here, and whatever the steps raise.
    """
    provenance = artifact.manifest.provenance
    recipe, steps = recipe_of(artifact, data, encoder), _steps_of(artifact)
    no_telemetry()
    console = console or Console(stderr=True, highlight=False)
    folder = run_dir or Path("runs") / recipe.name / f"repeat-{_folder_key(artifact)}"
    with disk_errors(folder), quiet(), progress_on(console) as progress, torch_threads(provenance.threads):
        line = Line(recipe, cache or cache_dir(os.environ), console, progress)
        found, prepared = line.fetch_and_prepare()
        sources = _sources(provenance, prepared, found)
        if any(check.same is False for check in sources):
            return Repeat(_name(artifact), artifact.digest, (), (*sources, *_machine(artifact)))
        with only_user(folder):
            tuned = _train(Opened(line, found, prepared, folder), steps)
            outcome = _compare(line, artifact, prepared, tuned)
    return Repeat(
        _name(artifact), artifact.digest, outcome, (*sources, *_arithmetic(tuned, provenance), *_machine(artifact))
    )


def recipe_of(artifact: Artifact, data: Path | None = None, encoder: Path | None = None) -> Recipe:
    """The recipe in the manifest, with the precision that `auto` came to. Raises RecipeInvalid."""
    provenance = artifact.manifest.provenance
    recipe = parse_recipe(provenance.recipe, origin=f"of {_name(artifact)}")
    if encoder is not None and recipe.encoder.source != "folder":
        raise RecipeInvalid(f"--encoder: {_name(artifact)} was not trained from a local folder")
    values = recipe.model_dump()
    if data is not None:
        values["data"] = _data_at(recipe, data, _name(artifact)).model_dump()
    if encoder is not None:
        values["encoder"] = Encoder(source="folder", name=str(encoder)).model_dump()
    if provenance.precision:
        values["training"]["precision"] = provenance.precision
    return parse_recipe(values, origin=f"of {_name(artifact)}")


def _data_at(recipe: Recipe, place: Path, name: str) -> AnyData:
    """The recipe's tables where they lie now: `place` is the one table, or the folder that holds them by name."""
    tables = sum(isinstance(source, FileData) for source in recipe.sources)
    if not tables:
        raise RecipeInvalid(f"--data: {name} was not trained on a local table")
    if tables > 1 and not place.is_dir():
        raise RecipeInvalid(f"--data: {name} was trained on {tables} local tables; give the folder that holds them")
    return with_paths(recipe.data, lambda table: place / table.name if place.is_dir() else place)


def _steps_of(artifact: Artifact) -> tuple[Step, ...]:
    """What `slipway compress` did to the model after training. Raises RecipeInvalid when it cannot be done again."""
    candidate = parse(artifact.manifest.provenance.compressed or REFERENCE)
    if candidate.unlabelled:
        raise RecipeInvalid(
            f"{_name(artifact)} learned from texts without labels too ({candidate.name}), which its manifest lacks"
        )
    return candidate.model


def _train(opened: Opened, steps: tuple[Step, ...]) -> FineTuned:
    """The fine-tuned model and, of a compressed version, what its steps make of that."""
    line, folder = opened.line, opened.folder
    with line.timed("fine-tune") as said:
        tuned = fine_tune(line.recipe, opened.prepared, opened.encoder, folder / "fine-tune", line.progress)
        said.append(f"{tuned.steps:,} steps in {tuned.precision}, best at step {tuned.best_step:,}")
    if not steps:
        return tuned
    with line.timed("compress") as said:
        workshop = Workshop(opened, tuned, (), folder / "compress" / "models", Steps(folder / "compress" / "steps"))
        made = tuned.model_copy(update={"model_dir": workshop.model_dir(steps)})
        said.append(Candidate(steps).name)
    return made


def _compare(line: Line, artifact: Artifact, prepared: Prepared, tuned: FineTuned) -> tuple[Check, ...]:
    with line.timed("evaluate") as said:
        golden = artifact.golden()
        scores = _scores(line, tuned, prepared.test.texts)
        metrics = as_plain(evaluate(scores, prepared.test.labels, line.recipe.labels).metrics)
        clean = Cleaner.of(artifact.manifest.preprocessing)
        answers = _scores(line, tuned, tuple(clean(each.input) for each in golden.inputs))
        said.append(f"{len(prepared.test):,} test rows, {len(golden.inputs)} golden inputs")
    published = artifact.manifest.provenance.weights_digest
    return (
        _compared("weights", published, weights_digest(tuned.model_dir)),
        golden_check(golden, artifact.manifest.labels, answers),
        *metric_checks(as_plain(artifact.manifest.gate.reference_metrics), metrics),
    )


def _scores(line: Line, tuned: FineTuned, texts: tuple[str, ...]) -> Floats:
    """Probabilities by torch, as the metrics in a manifest were measured."""
    return probabilities_of(tuned, texts, line.progress)


def golden_check(golden: Golden, labels: tuple[str, ...], scores: Floats) -> Check:
    """The golden answers against `scores` of shape (inputs, labels), by the tolerance of the fp32 variant."""
    expected = np.array([each.scores for each in golden.inputs])
    limit = golden.tolerance.get("fp32", _GOLDEN_TOLERANCE)
    worst = float(np.abs(scores - expected).max())
    kept = sum(labels[int(row.argmax())] == each.label for row, each in zip(scores, golden.inputs, strict=True))
    return Check(
        "golden answers",
        f"{len(golden.inputs)} labels, scores within {limit:.0e}",
        f"{kept} labels, scores within {worst:.1e}",
        kept == len(golden.inputs) and worst <= limit,
    )


def metric_checks(published: Mapping[str, float], now: Mapping[str, float]) -> Iterator[Check]:
    """Each metric the manifest holds. They follow from the scores, so the same model has the same to the last digit."""
    for name, value in published.items():
        if name not in now:
            yield Check(name, f"{value:.6f}", "not measured", None)
            continue
        yield Check(name, f"{value:.6f}", f"{now[name]:.6f}", abs(now[name] - value) <= _METRIC_TOLERANCE)


def _sources(provenance: Provenance, prepared: Prepared, encoder: EncoderFolder) -> tuple[Check, ...]:
    return (
        _compared("data fingerprint", provenance.data_fingerprint, prepared.fingerprint),
        _compared("encoder", provenance.encoder_digest, encoder_digest(encoder.path)),
    )


def _arithmetic(tuned: FineTuned, provenance: Provenance) -> tuple[Check, ...]:
    threads = str(provenance.threads or "")
    return (
        _compared("arithmetic", provenance.precision, tuned.precision),
        _compared("threads", threads, str(tuned.threads or "")),
    )


def _machine(artifact: Artifact) -> tuple[Check, ...]:
    provenance, installed = artifact.manifest.provenance, libraries()
    return (
        *(
            _compared(name, provenance.libraries.get(name, ""), installed.get(name, ""))
            for name in provenance.libraries | installed
        ),
        _compared("CPU", artifact.manifest.gate.cpu, cpu_name()),
        _compared("platform", provenance.platform, platform.platform()),
        _compared("git commit", provenance.git_commit, git_commit(ROOT)),
    )


def _compared(name: str, published: str, now: str) -> Check:
    """Two facts as text; one that is unknown proves nothing."""
    return Check(name, published or _UNKNOWN, now or _UNKNOWN, published == now if published and now else None)


def _name(artifact: Artifact) -> str:
    return f"{artifact.manifest.name}:{artifact.manifest.version}"


def _folder_key(artifact: Artifact) -> str:
    return key_of(artifact.digest, libraries(), cpu_name())[:16]
