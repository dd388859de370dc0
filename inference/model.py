"""A served model: one variant of one artifact, its task, and the batcher in front of it."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from artifact.errors import ArtifactCorrupt
from artifact.manifest import Variant
from artifact.repository import Artifact
from inference.backends.base import Backend
from inference.backends.registry import open_backend
from inference.batcher import Batcher, Observer, Priority
from inference.cache import ResponseCache
from inference.errors import BadInput, DeadlineExceeded
from inference.layout import usable_cores
from inference.plan import Plan, find_variant, golden_tolerance
from inference.policy import Limits
from inference.samples import quantile_function, sample_texts
from inference.tasks.base import Prediction, Task
from inference.tasks.registry import open_task
from inference.ticket import Answer, Ticket

_log = logging.getLogger("slipway.model")

# Of the lengths in the training data: the usual ones and the longest.
_WARM_UP_SHARES: Final = (0.5, 0.9, 0.99, 1.0)


@dataclass(frozen=True, slots=True)
class Request:
    """One call. `inputs` are raw JSON values: the task checks them."""

    inputs: Sequence[object]
    truncate: bool = False
    timeout_seconds: float | None = None
    priority: Priority = "interactive"


@dataclass(frozen=True, slots=True)
class Options:
    """How a model is run here. `workers` = 0 means one per usable core; each computes with `threads` threads.

    `engine` is one that runs the variant's format (`backends/registry.py`); without it the format's default.
    `response_cache_bytes` = 0 is no response cache; only `Model.load` opens one, since what is measured or judged must
    be computed.
    """

    limits: Limits = field(default_factory=Limits)
    workers: int = 0
    threads: int = 1
    engine: str | None = None
    execution_timeout_seconds: float = 30.0
    response_cache_bytes: int = 0


class Model:
    """Ready from construction by `load` until `close`."""

    def __init__(
        self, artifact: Artifact, variant: Variant, task: Task, batcher: Batcher, plan: Plan, limits: Limits
    ) -> None:
        self.artifact = artifact
        self.plan = plan
        self.why = "asked for"
        self.manifest = artifact.manifest
        self.digest = artifact.digest
        self.variant = variant
        self.task = task
        self.batcher = batcher
        self.limits = limits

    @classmethod
    def load(
        cls,
        artifact: Artifact,
        *,
        variant: str | None = None,
        options: Options | None = None,
    ) -> "Model":
        """Load, warm up through the real path, and reproduce the golden answers on this CPU.

        `variant` names one the manifest lists; the first is the default. Raises ArtifactNotFound for an unknown
        variant, ArtifactCorrupt for files that do not load or answers that differ.
        """
        model = cls.open(artifact, variant=variant, options=options)
        try:
            model.check_golden()
            model.warm_up()
        except BaseException:
            model.close()
            raise
        if options is not None and options.response_cache_bytes:
            model.remember(options.response_cache_bytes)
        return model

    @classmethod
    def open(
        cls,
        artifact: Artifact,
        *,
        variant: str | None = None,
        options: Options | None = None,
    ) -> "Model":
        """Load without checking or warming up: for who measures how far the answers are off. Raises as `load`."""
        options = options or Options()
        chosen = artifact.manifest.variants[0] if variant is None else find_variant(artifact.manifest, variant)
        backend = open_backend(
            artifact,
            chosen,
            engine=options.engine,
            workers=options.workers or usable_cores(),
            threads=options.threads,
        )
        return cls.assemble(artifact, chosen, backend, options=options)

    @classmethod
    def assemble(
        cls,
        artifact: Artifact,
        variant: Variant,
        backend: Backend,
        *,
        options: Options | None = None,
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
        )
        plan = Plan(variant.name, backend.engine, workers, options.threads)
        return cls(artifact, variant, task, batcher, plan, options.limits)

    def observe(self, observer: Observer) -> None:
        """Tell `observer` of every execution from now on; warming up and checking went before."""
        self.batcher.observe(observer)

    def remember(self, most_bytes: int) -> None:
        """Open a response cache: from now on what is known is not computed again. It ends with this model."""
        self.batcher.remember(ResponseCache(most_bytes))

    def check_golden(self) -> None:
        """Reproduce the artifact's golden answers on this engine and CPU. Raises ArtifactCorrupt."""
        golden = self.artifact.golden()
        allowed = golden_tolerance(golden, self.variant.name, self.plan.engine)
        answers = self.predict([example.input for example in golden.inputs], truncate=True).predictions
        for number, (example, prediction) in enumerate(zip(golden.inputs, answers, strict=True)):
            difference = float(np.abs(np.subtract(prediction.scores, example.scores)).max())
            if not difference <= allowed:
                raise ArtifactCorrupt(
                    f"{self.artifact.path}: variant {self.variant.name} on {self.plan.engine} misses golden input "
                    f"{number} by {difference:.2g} on this CPU, {allowed:.2g} is allowed"
                )
        _log.info("%s reproduces its %d golden inputs", self.artifact.path.name, len(golden.inputs))

    def warm_up(self) -> None:
        """Run the shapes that will come, through queue and workers, before anybody waits for them.

        Single texts at the artifact's recorded length quantiles, then the longest execution on every worker at once.
        """
        tokens = quantile_function(self.manifest.length_quantiles)
        lengths = [min(self.manifest.row_tokens, tokens(share)) for share in _WARM_UP_SHARES]
        texts = [example.input for example in self.artifact.golden().inputs]
        texts = sample_texts(texts, lengths, lambda text: self.task.prepare(text, truncate=True).tokens)
        for text in texts:
            self.predict([text], truncate=True)
        together = min(self.limits.max_batch_size, max(1, self.limits.max_batch_tokens // max(lengths)))
        full = min(self.plan.workers * together, self.limits.max_queue_size)
        self.predict(texts[-1:] * full, truncate=True)

    def submit(self, request: Request, on_done: Callable[[Ticket], None]) -> Ticket:
        """Check and queue a request; returns at once. `on_done` is called exactly once.

        That is on another thread, or before this returns where the response cache knows every input. Raises BadInput,
        Overloaded, NotReady, in which case `on_done` is never called.
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
