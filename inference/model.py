"""A served model: one variant of one artifact, its task, and the batcher in front of it."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from artifact.errors import ArtifactCorrupt, ArtifactNotFound
from artifact.manifest import Variant
from artifact.repository import Artifact
from inference.backends.base import Backend
from inference.backends.registry import open_backend
from inference.batcher import Batcher, Observer, Priority
from inference.errors import BadInput, DeadlineExceeded
from inference.layout import usable_cores
from inference.policy import Limits
from inference.tasks.base import Prediction, Task
from inference.tasks.registry import open_task
from inference.ticket import Answer, Ticket

_log = logging.getLogger("slipway.model")


@dataclass(frozen=True, slots=True)
class Request:
    """One call. `inputs` are raw JSON values: the task checks them."""

    inputs: Sequence[object]
    truncate: bool = False
    timeout_seconds: float | None = None
    priority: Priority = "interactive"


@dataclass(frozen=True, slots=True)
class Options:
    """How a model is run here. `workers` = 0 means one per usable core; each computes on one thread."""

    limits: Limits = field(default_factory=Limits)
    workers: int = 0
    execution_timeout_seconds: float = 30.0


class Model:
    """Ready from construction by `load` until `close`."""

    def __init__(self, artifact: Artifact, variant: Variant, task: Task, batcher: Batcher) -> None:
        self.artifact = artifact
        self.manifest = artifact.manifest
        self.digest = artifact.digest
        self.variant = variant
        self.task = task
        self.batcher = batcher

    @classmethod
    def load(
        cls,
        artifact: Artifact,
        *,
        variant: str | None = None,
        options: Options | None = None,
        observer: Observer | None = None,
    ) -> "Model":
        """Load, warm up through the real path, and reproduce the golden answers on this CPU.

        `variant` names one the manifest lists; the first is the default. Raises ArtifactNotFound for an unknown
        variant, ArtifactCorrupt for files that do not load or answers that differ.
        """
        chosen = artifact.manifest.variants[0] if variant is None else artifact.manifest.variant(variant)
        if chosen is None:
            known = ", ".join(each.name for each in artifact.manifest.variants)
            raise ArtifactNotFound(f"{artifact.path}: no variant {variant!r}; it has {known}")
        backend = open_backend(artifact, chosen)
        model = cls.assemble(artifact, chosen, backend, options=options, observer=observer)
        try:
            model.check_golden()
        except BaseException:
            model.close()
            raise
        return model

    @classmethod
    def assemble(
        cls,
        artifact: Artifact,
        variant: Variant,
        backend: Backend,
        *,
        options: Options | None = None,
        observer: Observer | None = None,
    ) -> "Model":
        """Put the serving path around an open backend, unchecked: the gate judges variants before they are golden."""
        options = options or Options()
        task = open_task(artifact)
        workers = options.workers or usable_cores()
        batcher = Batcher(
            backend,
            task,
            options.limits,
            workers=workers,
            execution_timeout_seconds=options.execution_timeout_seconds,
            observer=observer,
        )
        return cls(artifact, variant, task, batcher)

    def check_golden(self) -> None:
        """Reproduce the artifact's golden answers, which also warms every worker up. Raises ArtifactCorrupt."""
        golden = self.artifact.golden()
        allowed = golden.tolerance.get(self.variant.name, 1e-3)
        answers = self.predict([example.input for example in golden.inputs], truncate=True).predictions
        for number, (example, prediction) in enumerate(zip(golden.inputs, answers, strict=True)):
            difference = float(np.abs(np.subtract(prediction.scores, example.scores)).max())
            if not difference <= allowed:
                raise ArtifactCorrupt(
                    f"{self.artifact.path}: variant {self.variant.name} misses golden input {number} by "
                    f"{difference:.2g} on this CPU, {allowed:.2g} is allowed"
                )
        _log.info("%s reproduces its %d golden inputs", self.artifact.path.name, len(golden.inputs))

    def submit(self, request: Request, on_done: Callable[[Ticket], None]) -> Ticket:
        """Check and queue a request; returns at once. `on_done` is called exactly once, on another thread.

        Raises BadInput, Overloaded, NotReady, in which case `on_done` is never called.
        """
        if not request.inputs:
            raise BadInput("inputs", "must hold at least one input")
        values = [self.task.check(value, f"inputs[{index}]") for index, value in enumerate(request.inputs)]
        return self.batcher.submit(
            values,
            on_done,
            truncate=request.truncate,
            timeout_seconds=request.timeout_seconds,
            priority=request.priority,
        )

    def predict(
        self, inputs: Sequence[object], *, truncate: bool = False, timeout_seconds: float | None = None
    ) -> Answer:
        """Submit and wait. Raises InferenceError."""
        finished = threading.Event()
        request = Request(inputs, truncate=truncate, timeout_seconds=timeout_seconds)
        ticket = self.submit(request, lambda _: finished.set())
        if not finished.wait(timeout_seconds):
            ticket.fail(DeadlineExceeded("the deadline passed before the answer was there"), time.perf_counter())
        return ticket.result()

    def predict_batches(self, batches: Sequence[Sequence[str]]) -> list[list[Prediction]]:
        """Run each group of texts as exactly one execution, whatever the limits say. For the gate."""
        return [self.batcher.run_together([self.task.check(text, "inputs") for text in batch]) for batch in batches]

    def close(self) -> None:
        """Answer everything accepted, then stop."""
        self.batcher.close()
