"""`slipway compress`: measure smaller versions of a fine-tuned model, and find the one that reaches a target.

    <run_dir>/compress/models/      torch models that took training, each a finished step
    <run_dir>/compress/steps/       what was measured, each under a key of all that went into it
    <run_dir>/compress/release/     export, steps and report of what was published
    <run_dir>/compress/report.html  the table and the plot; report.json the same for programs

Candidates are chosen on the validation split. The test split is asked once, about the one that was found. It is
published as `slipway train` publishes: through the gate.
"""

import itertools
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console

from artifact.files import write_atomically
from artifact.manifest import GateResult
from artifact.repository import Artifact
from inference.tasks.text import normalize_text
from training import gate
from training.candidates import REFERENCE, Candidate
from training.data import first_bad_byte
from training.errors import DataInvalid, TargetMissed, TrainingError
from training.evaluate import paired_accuracy_difference
from training.export import CANDIDATES, export_model
from training.export import Candidate as Proposal
from training.finetune import FineTuned, find_finished
from training.gate import Floats, Trial, tightened
from training.lowering import lowered
from training.pareto import Confirmed, Measured, Outcome, Target, find, front, nearest
from training.pipeline import Opened, Smaller, open_run
from training.prepare import Split
from training.provenance import cpu_name, libraries
from training.recipe import Recipe
from training.steps import Steps, key_of
from training.tradeoffs import render_page, render_tradeoffs
from training.workshop import Workshop

_NEIGHBOURS: Final = (32,)
_BATCH: Final = 32
_TOKENS: Final = 32


@dataclass(frozen=True)
class Options:
    """What to try, what to reach (None: only measure), texts without labels, and where to publish what is found."""

    candidates: tuple[Candidate, ...]
    target: Target | None = None
    unlabelled: tuple[str, ...] = ()
    publish: bool = False
    promote: bool = False
    repository: Path = Path("models")


def compress(
    recipe: Recipe,
    options: Options,
    run_dir: Path | None = None,
    *,
    cache: Path | None = None,
    console: Console | None = None,
) -> Outcome:
    """Measure every candidate that is not measured yet and, with a target, look for the one that reaches it.

    What takes training is left out where something that does not already reaches the target. Raises TrainingError
    when the recipe has no finished model, GateRefused when what was found may not be published.
    """
    with open_run(recipe, run_dir, cache=cache, console=console) as opened:
        tuned = find_finished(recipe, opened.prepared, opened.encoder, opened.folder / "fine-tune")
        if tuned is None:
            raise TrainingError(f"{opened.folder} holds no finished model of this recipe; run slipway train first")
        return _Job(opened, tuned, options).run()


def check(outcome: Outcome, target: Target | None) -> None:
    """Raises TargetMissed when a target was given and nothing reaches it, on the test split too."""
    if target is None:
        return
    if outcome.found is None:
        near = nearest(outcome.measured, target)
        hint = f"; {near.name}, small and fast enough, loses {near.points_lost:.1f}" if near else ""
        raise TargetMissed(f"no candidate is {target}{hint}")
    if outcome.test is not None and not outcome.test.keeps(target):
        lost = outcome.test.points_lost
        raise TargetMissed(f"{outcome.found} is {target} on validation, but loses {lost:.1f} points on the test split")


def read_unlabelled(path: Path) -> tuple[str, ...]:
    """The lines of a UTF-8 file that are not blank, each once. Raises DataInvalid."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        byte = first_bad_byte(path)
        raise DataInvalid(f"--unlabelled {path.name}: not UTF-8 (byte {byte}); save it as UTF-8") from error
    except OSError as error:
        raise DataInvalid(f"--unlabelled {path}: {error.strerror or 'cannot be read'}") from error
    found = tuple(dict.fromkeys(text for line in lines if (text := normalize_text(line))))
    if not found:
        raise DataInvalid(f"--unlabelled {path.name}: no text in it; one text a line is expected")
    return found


class _Job:
    """One run of `slipway compress`, in the run's own folder."""

    def __init__(self, opened: Opened, tuned: FineTuned, options: Options) -> None:
        self._opened = opened
        self._line = opened.line
        self._tuned = tuned
        self._options = options
        self._folder = opened.folder / "compress"
        self._steps = Steps(self._folder / "steps")
        self._release = opened.run("compress/release")
        self._workshop = Workshop(opened, tuned, options.unlabelled, self._folder / "models", self._steps)
        self._floors = tightened(self._line.recipe.gate)

    def run(self) -> Outcome:
        """Measure, find, confirm, publish; the report is written as soon as there is something to tell."""
        quick = [candidate for candidate in self._options.candidates if not candidate.trains]
        slow = [candidate for candidate in self._options.candidates if candidate.trains]
        target = self._options.target
        measured = self._measure_all(quick)
        if target is None or find(measured, target) is None:
            measured += self._measure_all(slow)
            slow = []
        said = str(target) if target else ""
        outcome = Outcome(measured=tuple(measured), front=front(measured), target=said, skipped=len(slow))
        self._write(outcome)
        if target is not None and (found := find(measured, target)) is not None:
            outcome = self._confirmed(outcome.model_copy(update={"found": found.name}), target)
        return outcome

    def _confirmed(self, outcome: Outcome, target: Target) -> Outcome:
        """The same with what the test split says of the one that was found and, where asked and kept, published."""
        [candidate] = [each for each in self._options.candidates if each.name == outcome.found]
        test = self._confirm(candidate)
        outcome = outcome.model_copy(update={"test": test})
        self._write(outcome)
        if self._options.publish and test.keeps(target):
            outcome = outcome.model_copy(update={"published": str(self._publish(candidate, outcome, test).path)})
            self._write(outcome)
        return outcome

    def _measure_all(self, candidates: Sequence[Candidate]) -> list[Measured]:
        """In order. Neighbours in the list that share a torch model share its export."""
        measured: list[Measured] = []
        bar = self._line.progress.add_task("compress", total=len(candidates))
        for _, group in itertools.groupby(candidates, lambda each: each.model):
            measured += self._measure_group(list(group))
            self._line.progress.update(bar, completed=len(measured))
        self._line.progress.remove_task(bar)
        return measured

    def _measure_group(self, group: Sequence[Candidate]) -> list[Measured]:
        """Found finished, or measured now."""
        found = {each: self._found(each) for each in group}
        missing = [each for each, result in found.items() if result is None]
        if missing:
            own = Candidate(group[0].model)
            found |= self._measure_missing(own, missing)
        for candidate in group:
            if candidate not in missing:
                self._line.say("measured", candidate.name)
        return [result for result in found.values() if result is not None]

    def _measure_missing(self, own: Candidate, missing: Sequence[Candidate]) -> dict[Candidate, Measured]:
        """`own` is the torch model as it is, in fp32: what the gate will hold its other variants against."""
        try:
            with self._exported(own, missing, self._opened.prepared.validation) as trial:
                trial = replace(trial, torch_scores=self._scores(own, trial))
                return {each: self._found(each) or self._measured(each, trial) for each in missing}
        except TrainingError as error:
            if isinstance(error.__cause__, OSError):
                raise  # the disk, not the candidate
            return {each: Measured(name=each.name, refused=f"could not be built: {error.message}") for each in missing}

    @contextmanager
    def _exported(self, own: Candidate, candidates: Sequence[Candidate], split: Split) -> Iterator[Trial]:
        """The files of candidates that share a torch model, ready to be run over `split`; gone afterwards."""
        folder = self._folder / "work"
        proposals = [CANDIDATES[0], *(self._proposal(each) for each in candidates if each != own)]
        try:
            model_dir = self._workshop.model_dir(own.model)
            export = export_model(model_dir, folder, progress=self._line.progress, candidates=proposals)
            yield Trial(
                folder=folder,
                manifest=self._release.draft(self._tuned, export, GateResult(passed=False, test_rows=0)),
                texts=split.texts,
                labels=split.labels,
                torch_scores=np.zeros((len(split), len(self._line.recipe.labels))),
                floors=self._floors,
                failures=export.failures,
                neighbours=_NEIGHBOURS,
            )
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            self._workshop.forget(own.model)

    def _proposal(self, candidate: Candidate) -> Proposal:
        """How its graph is written, as the export and the gate take it."""
        if candidate == Candidate(candidate.model):
            return CANDIDATES[0]
        needs_texts = candidate.products == "int8-static"
        return lowered(candidate.products, candidate.storage, self._workshop.calibration() if needs_texts else ())

    def _scores(self, own: Candidate, trial: Trial) -> Floats:
        """What the torch model answers in fp32 for the validation split: measured once, with all its figures."""
        found = self._steps.load_array(f"scores-{own.name}", self._key(own))
        if found is None:
            self._measured(own, trial)
            found = self._steps.load_array(f"scores-{own.name}", self._key(own))
        if found is None:
            raise TrainingError(f"{own.name} could not be run in fp32")
        return found

    def _measured(self, candidate: Candidate, trial: Trial) -> Measured:
        """Through the serving code, as the gate does; kept."""
        name = self._proposal_name(candidate)
        if name in trial.failures:
            return Measured(name=candidate.name, refused=trial.failures[name])
        with self._line.timed("measure") as said:
            variant = next(each for each in trial.manifest.variants if each.name == name)
            figures = gate.measure(trial, variant, self._line.progress)
            said.append(candidate.name)
        if isinstance(figures, str):
            return Measured(name=candidate.name, refused=figures)
        self._steps.save_array(f"scores-{candidate.name}", self._key(candidate), figures.alone)
        if name == REFERENCE:
            trial = replace(trial, torch_scores=figures.alone)
        result = self._summary(candidate, trial, figures)
        return self._steps.save(f"measured-{candidate.name}", self._key(candidate), Measured, result)

    def _summary(self, candidate: Candidate, trial: Trial, figures: gate.Measured) -> Measured:
        """The gate's figures, and the comparison with the model that everything started from."""
        judged = gate.result_of(figures, trial, trial.torch_scores)
        original = self._steps.load_array(f"scores-{REFERENCE}", self._key(Candidate()))
        if original is None:
            raise TrainingError("the fine-tuned model itself was not measured")
        cells = {int(cell["batch_size"]): cell for cell in judged.speed if cell["tokens"] <= _TOKENS}
        return Measured(
            name=candidate.name,
            bytes=judged.bytes,
            seconds_alone=cells[1]["seconds"],
            seconds_batch=cells[_BATCH]["seconds"],
            tokens=int(cells[1]["tokens"]),
            accuracy=judged.metrics["accuracy"],
            accuracy_difference=paired_accuracy_difference(figures.alone, original, trial.labels),
            agreement=gate.agreement(figures.alone, original),
            moved=judged.neighbour_max_score_difference,
            flipped=judged.neighbour_label_flips,
            refused=judged.reason,
        )

    def _confirm(self, candidate: Candidate) -> Confirmed:
        """The test split's word on one candidate."""
        split = self._opened.prepared.test
        scores, reference = self._test_scores(candidate), self._test_scores(Candidate())
        return Confirmed(
            rows=len(split),
            accuracy_difference=paired_accuracy_difference(scores, reference, split.labels),
            agreement=gate.agreement(scores, reference),
        )

    def _test_scores(self, candidate: Candidate) -> Floats:
        """Probabilities for the test split, each text alone; kept."""
        name, key = f"test-{candidate.name}", self._key(candidate)
        found = self._steps.load_array(name, key)
        if found is not None:
            return found
        with self._exported(Candidate(candidate.model), [candidate], self._opened.prepared.test) as trial:
            wanted = self._proposal_name(candidate)
            variant = next(each for each in trial.manifest.variants if each.name == wanted)
            figures = gate.measure(replace(trial, neighbours=()), variant, self._line.progress)
        if isinstance(figures, str):
            raise TrainingError(f"{candidate.name}: {figures}")
        return self._steps.save_array(name, key, figures.alone)

    def _publish(self, candidate: Candidate, outcome: Outcome, test: Confirmed) -> Artifact:
        """A version of its own: its torch model in fp32 and, where there is one, the smaller variant."""
        own = candidate == Candidate(candidate.model)
        proposals = CANDIDATES[:1] if own else (CANDIDATES[0], self._proposal(candidate))
        # A head that was trained again has a temperature of its own.
        known = self._workshop.temperature(candidate.model) if candidate.trains else self._tuned.temperature
        made = {"model_dir": self._workshop.model_dir(candidate.model), "temperature": known}
        tuned = self._tuned.model_copy(update=made)
        try:
            return self._release.release(
                tuned,
                self._opened.run().baseline(),
                self._options.repository,
                promote=self._options.promote,
                candidates=proposals,
                required=proposals[-1].name,
                smaller=Smaller(candidate.name, test, render_tradeoffs(outcome, cpu_name())),
            )
        finally:
            self._workshop.forget(candidate.model)

    def _proposal_name(self, candidate: Candidate) -> str:
        own = candidate == Candidate(candidate.model)
        return REFERENCE if own else lowered(candidate.products, candidate.storage, ()).name

    def _found(self, candidate: Candidate) -> Measured | None:
        if self._steps.load_array(f"scores-{candidate.name}", self._key(candidate)) is None:
            return None
        return self._steps.load(f"measured-{candidate.name}", self._key(candidate), Measured)

    def _key(self, candidate: Candidate) -> str:
        return key_of(self._workshop.key(candidate.model), candidate.name, self._release.code, libraries(), cpu_name())

    def _write(self, outcome: Outcome) -> None:
        name = self._line.recipe.name
        write_atomically(self._folder / "report.html", render_page(name, outcome, cpu_name()).encode())
        write_atomically(self._folder / "report.json", outcome.model_dump_json(indent=1).encode() + b"\n")
