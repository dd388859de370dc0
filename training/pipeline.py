"""`slipway train`: from a recipe to a published artifact, step by step, each step resumable.

    fetch -> prepare -> baseline -> fine-tune -> evaluate -> export -> gate -> assess -> publish

    <run_dir>/fine-tune/    checkpoints and the best model (training/finetune.py)
    <run_dir>/export/       every candidate file, published or not
    <run_dir>/steps/        results of finished steps, each under a key of all that went into it
    <run_dir>/report.html   also when the gate refused

Fetching and preparing are repeated by every run: they are quick, and their fingerprint is what the keys of all the
other steps start from.
"""

import os
import platform
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from pydantic import BaseModel, ConfigDict
from rich.console import Console
from tokenizers import Tokenizer

from artifact.errors import ArtifactError
from artifact.files import cache_dir, record, write_atomically
from artifact.manifest import (
    GOLDEN,
    Assessment,
    FileRecord,
    GateResult,
    Limits,
    Manifest,
    Provenance,
    Uncut,
    VariantResult,
)
from artifact.publish import publish, staging
from artifact.repository import PRODUCTION, Artifact, Repository, open_artifact
from inference.model import Model
from inference.tasks.pii import count_pii
from training.assess import Questions, assess, most_moved, worst_sentence
from training.baseline import train_baseline
from training.card import render_card
from training.data_card import render_data_card
from training.disk import disk_errors
from training.earlier import explored, folds_of
from training.elsewhere import measure_elsewhere, rows_elsewhere
from training.errors import GateRefused
from training.evaluate import Evaluation, evaluate
from training.export import CANDIDATES, Candidate, Export, expected_warnings, export_model
from training.finetune import FineTuned, fine_tune, probabilities_of
from training.gate import Floats, Trial, Verdict, hold_terms, run_gate, tightened
from training.keys import encoder_digest, run_key, weights_digest, weights_key
from training.labelled import rows_of
from training.line import Line
from training.page import shown
from training.precision import torch_threads
from training.prepare import Prepared, cleaned_as
from training.progress import progress_on
from training.provenance import ROOT, cpu_name, git_commit, libraries, public_recipe
from training.quiet import quiet
from training.recipe import Recipe, load_recipe
from training.reference import reference_of
from training.report import Findings, beats_baseline, render_report
from training.runs import RunSummary, save_summary
from training.sources import EncoderFolder, no_telemetry
from training.steps import Steps, code_key, key_of, only_user
from training.track import reporters, tracked

_NO_RECORD: Final = FileRecord(sha256="0" * 64, bytes=0)
# Copies for five changes each: a few seconds for a small model. `slipway evaluate` takes more.
_PERTURBED_ROWS: Final = 200

RecordRun = Callable[[RunSummary], None]


class Published(BaseModel):
    """Where a run's artifact went."""

    model_config = ConfigDict(frozen=True)

    path: Path
    digest: str


def run_cli(recipe: str, *, repository: Path, promote: bool, run_dir: Path | None) -> int:
    """`slipway train`: progress on stderr, the published folder on stdout. Returns the exit status 0 or raises."""
    artifact = train(load_recipe(recipe), repository, run_dir, promote=promote)
    sys.stdout.write(f"{artifact.path}\n")
    return 0


def train(
    recipe: Recipe,
    repository: Path,
    run_dir: Path | None = None,
    *,
    promote: bool = False,
    cache: Path | None = None,
    console: Console | None = None,
) -> Artifact:
    """Run every step that is not done yet and return the published artifact.

    Without `run_dir` the run lives in `runs/<model>/<key>`, so that the same recipe over the same data finds it again.
    A run that has published already publishes nothing new, unless `explore` or `evaluate` found something since. Raises
    RecipeInvalid before any work when the recipe loosens the gate, GateRefused when nothing may be published, and
    whatever its steps raise.
    """
    with (
        open_run(recipe, run_dir, cache=cache, console=console) as opened,
        tracked(recipe, opened.folder) as record_run,
    ):
        return opened.run(record_run=record_run).finish(repository, promote=promote)


@contextmanager
def open_run(
    recipe: Recipe, run_dir: Path | None = None, *, cache: Path | None = None, console: Console | None = None
) -> Iterator["Opened"]:
    """Fetch and prepare the data and hold the run's folder for this process. Raises as `train`."""
    tightened(recipe.gate)
    no_telemetry()
    console = console or Console(stderr=True, highlight=False)
    with disk_errors(run_dir or "the run"), quiet(), progress_on(console) as progress:
        line = Line(recipe, cache or cache_dir(os.environ), console, progress)
        encoder, prepared = line.fetch_and_prepare()
        folder = run_dir or Path("runs") / recipe.name / run_key(recipe, prepared)[:16]
        with only_user(folder):
            yield Opened(line, encoder, prepared, folder)


class Smaller(NamedTuple):
    """How `slipway compress` made a model smaller, what that cost, and HTML of what there was to choose from."""

    steps: str
    uncut: Uncut
    tradeoffs: str


@dataclass(frozen=True)
class Opened:
    """A run's folder, held for this process, and what the run starts from."""

    line: Line
    encoder: EncoderFolder
    prepared: Prepared
    folder: Path

    def run(self, inside: str = "", record_run: RecordRun = lambda _: None) -> "Run":
        """The run, or another over the same data in a folder of its own inside."""
        return Run(self.line, self.encoder, self.prepared, self.folder / inside, record_run)


class Run:
    """One run over prepared data, in its own folder."""

    def __init__(
        self, line: Line, encoder: EncoderFolder, prepared: Prepared, folder: Path, record_run: RecordRun
    ) -> None:
        self._record_run = record_run
        self._line = line
        self._recipe = line.recipe
        self._encoder = encoder
        self._prepared = prepared
        self._folder = folder
        self._steps = Steps(folder / "steps")
        self.code = self._code = code_key()

    def finish(self, repository: Path, *, promote: bool) -> Artifact:
        """Every step from the baseline on."""
        baseline = self.baseline()
        return self.release(self._fine_tune(), baseline, repository, promote=promote)

    def release(
        self,
        tuned: FineTuned,
        baseline: Evaluation,
        repository: Path,
        *,
        promote: bool,
        candidates: Sequence[Candidate] = CANDIDATES,
        required: str = "fp32",
        smaller: Smaller | None = None,
    ) -> Artifact:
        """Every step from a finished model on, offering `candidates` to the gate.

        `smaller` says how the model was made smaller. Raises GateRefused when `required` may not be published.
        """
        weights = weights_key(tuned.model_dir)
        scores, evaluation = self._evaluate(tuned, weights)
        export = self._export(tuned, weights, candidates)
        gate = GateResult(
            passed=False,
            test_rows=evaluation.rows,
            cpu=cpu_name(),
            reference_metrics=evaluation.metrics,
            baseline_metrics=baseline.metrics,
            confusion_matrix=evaluation.confusion_matrix,
        )
        draft = self._with_reference(self.draft(tuned, export, gate, smaller), scores)
        verdict, gate_key = self._gate(draft, export, scores)
        judged = _judged(draft, verdict)
        if verdict.passed:
            assessment = self._assess(judged, gate_key, tuned.temperature)
            verdict = self._hold_terms(judged, verdict)
            judged = _judged(draft, verdict).model_copy(update={"assessment": assessment})
        findings = self._findings(tuned, export, evaluation, baseline, judged, smaller)
        self._report(findings)
        self._keep(findings, None)
        if required not in {variant.name for variant in verdict.published}:
            raise GateRefused(f"{verdict.reasons()}; nothing was published, {self._folder / 'report.html'} tells more")
        artifact = self._publish(findings, verdict, repository, gate_key, promote=promote)
        self._keep(findings, artifact)
        return artifact

    def _keep(self, findings: Findings, artifact: Artifact | None) -> None:
        """What the run came to, for `slipway runs` and for whoever tracks it."""
        provenance = findings.manifest.provenance
        summary = RunSummary(
            model=self._recipe.name,
            finished=datetime.now(UTC),
            recipe=provenance.recipe,
            data_fingerprint=provenance.data_fingerprint,
            weights_digest=provenance.weights_digest,
            steps=findings.fine_tuned.steps,
            seconds=findings.fine_tuned.seconds,
            metrics=findings.evaluation.metrics,
            version=artifact.manifest.version if artifact else None,
            digest=artifact.digest if artifact else "",
        )
        save_summary(self._folder, summary)
        self._record_run(summary)

    def baseline(self) -> Evaluation:
        """What the frozen encoder is worth on the test split."""
        recipe, prepared = self._recipe, self._prepared
        key = key_of(
            prepared.fingerprint, recipe.encoder.model_dump(mode="json"), recipe.training.row_tokens, self._code
        )
        scores = self._steps.load_array("baseline", key)
        if scores is not None:
            found = evaluate(scores, prepared.test.labels, recipe.labels)
            self._line.say("baseline", f"accuracy {shown(found.metrics['accuracy'])}")
            return found
        with self._line.timed("baseline") as said:
            baseline = train_baseline(recipe, prepared, self._encoder, self._line.progress)
            self._steps.save_array("baseline", key, baseline.test_scores)
            said.append(f"accuracy {shown(baseline.evaluation.metrics['accuracy'])}")
        return baseline.evaluation

    def _fine_tune(self) -> FineTuned:
        with self._line.timed("fine-tune") as said:
            tuned = fine_tune(
                self._recipe,
                self._prepared,
                self._encoder,
                self._folder / "fine-tune",
                self._line.progress,
                report_to=reporters(self._recipe.track),
            )
            said.append(f"{tuned.steps:,} steps in {tuned.precision}, best at step {tuned.best_step:,}")
        return tuned

    def _evaluate(self, tuned: FineTuned, weights: str) -> tuple[Floats, Evaluation]:
        """The reference: torch's probabilities for the test split, in fp32, and what they are worth."""
        key = key_of(weights, self._prepared.fingerprint, self._code)
        with self._line.timed("evaluate") as said:
            scores = self._steps.load_array("test-scores", key)
            if scores is None:
                found = probabilities_of(tuned, self._prepared.test.texts, self._line.progress)
                scores = self._steps.save_array("test-scores", key, found)
            evaluation = evaluate(scores, self._prepared.test.labels, self._recipe.labels)
            said.append(f"accuracy {shown(evaluation.metrics['accuracy'])} on {evaluation.rows:,} test rows")
        return scores, evaluation

    def _export(self, tuned: FineTuned, weights: str, candidates: Sequence[Candidate]) -> Export:
        folder = self._folder / "export"
        key = key_of(weights, self._code, libraries(), [candidate.name for candidate in candidates])
        found = self._steps.load("export", key, Export)
        if found is not None and all((folder / name).is_file() for variant in found.variants for name in variant.files):
            self._line.say("export", _built(found))
            return found
        with self._line.timed("export") as said:
            export = export_model(tuned.model_dir, folder, progress=self._line.progress, candidates=candidates)
            said.append(_built(export))
        return self._steps.save("export", key, Export, export)

    def draft(self, tuned: FineTuned, export: Export, gate: GateResult, smaller: Smaller | None = None) -> Manifest:
        """The manifest as far as it is known before the gate: every variant, no files, no verdict."""
        files = {name: _NO_RECORD for variant in export.variants for name in variant.files}
        return Manifest(
            name=self._recipe.name,
            version=1,
            task=self._recipe.task,
            inputs=export.inputs,
            outputs=export.outputs,
            labels=self._recipe.labels,
            limits=Limits(max_input_tokens=tuned.max_input_tokens),
            preprocessing=cleaned_as(
                self._recipe.prepare, export.preprocessing.model_copy(update={"window_tokens": tuned.window_tokens})
            ),
            variants=export.variants,
            length_quantiles=tuned.length_quantiles,
            files=files | {GOLDEN: _NO_RECORD, export.preprocessing.tokenizer: _NO_RECORD},
            provenance=self._provenance(tuned, smaller),
            gate=gate,
        )

    def _with_reference(self, draft: Manifest, scores: Floats) -> Manifest:
        """The manifest with what the test split looks like: the service compares its traffic with that."""
        tokenizer = Tokenizer.from_file(str(self._folder / "export" / draft.preprocessing.tokenizer))
        return draft.model_copy(update={"reference": reference_of(draft, tokenizer, self._prepared.test.texts, scores)})

    def _provenance(self, tuned: FineTuned, smaller: Smaller | None) -> Provenance:
        digest = encoder_digest(self._encoder.path)
        return Provenance(
            created=datetime.now(UTC),
            recipe=public_recipe(self._recipe),
            data_fingerprint=self._prepared.fingerprint,
            data_name=self._prepared.name,
            rows=self._prepared.counts,
            transformed=self._prepared.transformed,
            masked=self._prepared.masked,
            explored=explored(self._recipe, self._prepared, digest),
            # Of the recipe's own models: a cut one is not among them.
            folds=() if smaller else folds_of(self._recipe, self._prepared, digest),
            seed=self._recipe.training.seed,
            libraries=libraries(),
            git_commit=git_commit(ROOT),
            platform=platform.platform(),
            encoder_digest=digest,
            weights_digest=weights_digest(tuned.model_dir),
            precision=tuned.precision,
            threads=tuned.threads,
            compressed=smaller.steps if smaller else "",
            uncut=smaller.uncut if smaller else None,
        )

    def _hold_terms(self, judged: Manifest, verdict: Verdict) -> Verdict:
        """The verdict on what swapped terms do to each variant, where the recipe sets a floor for that."""
        limit = self._recipe.gate.max_term_movement
        if limit is None:
            return verdict
        exported = Artifact(self._folder / "export", judged, "")
        with expected_warnings(), torch_threads(0):
            moved = {each.name: most_moved(exported, each.name, self._line.progress) for each in verdict.published}
        held = hold_terms(verdict, moved, limit)
        self._say_refused([each for each in held.results if each.name in moved])
        return held

    def _gate(self, draft: Manifest, export: Export, scores: Floats) -> tuple[Verdict, str]:
        """The verdict and its key. It is found again only for the same files, code, libraries, floors and CPU."""
        folder = self._folder / "export"
        names = [name for variant in export.variants for name in variant.files] + [export.preprocessing.tokenizer]
        key = key_of(
            {name: record(folder / name).sha256 for name in names},
            self._prepared.fingerprint,
            self._recipe.gate.model_dump(mode="json"),
            [self._code, libraries(), cpu_name()],
        )
        found = self._steps.load("gate", key, Verdict)
        if found is not None and (not found.passed or _holds(folder / GOLDEN, found)):
            self._line.say("gate", _outcome(found))
            return found, key
        with self._line.timed("gate") as said:
            trial = Trial(
                folder=folder,
                manifest=draft,
                texts=self._prepared.test.texts,
                labels=self._prepared.test.labels,
                torch_scores=scores,
                floors=tightened(self._recipe.gate),
                failures=export.failures,
            )
            verdict = run_gate(trial, self._line.progress)
            said.append(_outcome(verdict))
        self._say_refused(verdict.results)
        return self._steps.save("gate", key, Verdict, verdict), key

    def _say_refused(self, results: Sequence[VariantResult]) -> None:
        for result in results:
            if not result.published:
                told = f"  [yellow]{result.name} is not published:[/yellow] {result.reason}"
                self._line.console.print(told, soft_wrap=True)

    def _assess(self, judged: Manifest, gate_key: str, temperature: float | None) -> Assessment:
        """Where the first variant is weaker, for whom, and under what changes, through the serving code."""
        places = [source.model_dump(mode="json") for source in self._recipe.elsewhere]
        key = key_of(gate_key, temperature, places)
        found = self._steps.load("assess", key, Assessment)
        if found is not None:
            self._line.say("assess", worst_sentence(found))
            return found
        folder, variant = self._folder / "export", judged.variants[0]
        with self._line.timed("assess") as said:
            model = Model.open(Artifact(folder, judged, ""), variant=variant.name)
            try:
                questions = Questions(perturbed_rows=_PERTURBED_ROWS)
                rows = rows_of(self._prepared)
                assessed = assess(model, rows, questions, self._line.progress, temperature=temperature)
                elsewhere = rows_elsewhere(self._recipe, self._prepared, self._line.cache, self._line.progress)
                found = assessed.beside(measure_elsewhere(model, elsewhere, self._line.progress)).assessment
            finally:
                model.close()
            said.append(worst_sentence(found))
        return self._steps.save("assess", key, Assessment, found)

    def _findings(
        self,
        tuned: FineTuned,
        export: Export,
        evaluation: Evaluation,
        baseline: Evaluation,
        judged: Manifest,
        smaller: Smaller | None,
    ) -> Findings:
        tokenizer = Tokenizer.from_file(str(self._folder / "export" / export.preprocessing.tokenizer))
        encodings = tokenizer.encode_batch_fast(list(self._prepared.train.texts))
        return Findings(
            recipe=self._recipe,
            prepared=self._prepared,
            encoder=self._encoder,
            fine_tuned=tuned,
            evaluation=evaluation,
            baseline=baseline,
            lengths=[len(encoding.ids) for encoding in encodings],
            manifest=judged,
            notes=export.notes,
            personal=self._personal(),
            tradeoffs=smaller.tradeoffs if smaller else "",
        )

    def _personal(self) -> dict[str, int]:
        """What has the form of personal data and is in the texts as they are learned; nothing where it is masked."""
        prepared, key = self._prepared, key_of(self._prepared.fingerprint, self._code)
        if "pii" in self._recipe.prepare.transforms:
            return {}
        found = self._steps.load("personal", key, dict[str, int])
        if found is None:
            counts: Counter[str] = Counter()
            for split in (prepared.train, prepared.validation, prepared.test):
                for text in split.texts:
                    counts.update(count_pii(text))
            found = self._steps.save("personal", key, dict[str, int], dict(counts))
        return found

    def _report(self, findings: Findings) -> None:
        """The page stays in the run's folder too, where a refused run is looked up."""
        write_atomically(self._folder / "report.html", render_report(findings).encode())
        if not beats_baseline(findings):
            self._line.console.print("  [yellow]the model is not shown to be better than the frozen baseline[/yellow]")

    def _publish(
        self, findings: Findings, verdict: Verdict, repository: Path, gate_key: str, *, promote: bool
    ) -> Artifact:
        """Publish once: a run leaves its own artifact in place, unless there is more to tell of it now."""
        told = (self._recipe.card, self._recipe.chosen)
        key = key_of(gate_key, str(repository.resolve()), [each.model_dump(mode="json") for each in told if each])
        artifact = _intact(self._steps.load("published", key, Published))
        if artifact is not None and not _more_to_tell(artifact.manifest.provenance, findings.manifest.provenance):
            if promote:
                Repository(repository).set_alias(artifact.manifest.name, PRODUCTION, artifact.manifest.version)
            self._line.say("publish", _version(artifact))
            return artifact
        with self._line.timed("publish") as said:
            manifest = findings.manifest.model_copy(update={"variants": verdict.published})
            with staging(repository) as staged:
                self._stage(staged, findings, manifest)
                path, _ = publish(staged, repository, manifest, promote=promote)
            artifact = open_artifact(path)
            said.append(_version(artifact))
        self._steps.save("published", key, Published, Published(path=path.resolve(), digest=artifact.digest))
        return artifact

    def _stage(self, staged: Path, findings: Findings, manifest: Manifest) -> None:
        weights = [name for variant in manifest.variants for name in variant.files]
        for name in (*weights, manifest.preprocessing.tokenizer, GOLDEN):
            shutil.copyfile(self._folder / "export" / name, staged / name)
        (staged / "MODEL_CARD.md").write_text(render_card(findings, manifest), encoding="utf-8")
        (staged / "DATA_CARD.md").write_text(render_data_card(findings), encoding="utf-8")
        (staged / "report.html").write_text(render_report(findings), encoding="utf-8")


def _judged(draft: Manifest, verdict: Verdict) -> Manifest:
    """The draft with the verdict in it; still with every variant, for the report."""
    gate = draft.gate.model_copy(update={"passed": verdict.passed, "variants": verdict.results})
    return draft.model_copy(update={"gate": gate})


def _built(export: Export) -> str:
    failed = f"; could not build {', '.join(export.failures)}" if export.failures else ""
    return ", ".join(variant.file for variant in export.variants) + failed


def _outcome(verdict: Verdict) -> str:
    passed = ", ".join(variant.name for variant in verdict.published) or "nothing"
    refused = ", ".join(result.name for result in verdict.results if not result.published)
    return f"passed: {passed}" + (f"; refused: {refused}" if refused else "")


def _holds(path: Path, verdict: Verdict) -> bool:
    """Whether the golden answers that belong to a verdict are still on disk."""
    try:
        return (
            verdict.golden is not None and type(verdict.golden).model_validate_json(path.read_bytes()) == verdict.golden
        )
    except (OSError, ValueError):
        return False


def _intact(published: Published | None) -> Artifact | None:
    """The artifact a run published, if it is still there and unchanged."""
    if published is None:
        return None
    try:
        artifact = open_artifact(published.path)
    except ArtifactError:
        return None
    return artifact if artifact.digest == published.digest else None


def _more_to_tell(published: Provenance, now: Provenance) -> bool:
    """Whether the data was explored, or the recipe cross-validated, since a version was published."""
    return now.explored not in ((), published.explored) or now.folds not in ((), published.folds)


def _version(artifact: Artifact) -> str:
    return f"{artifact.manifest.name} version {artifact.manifest.version} in {artifact.path}"
