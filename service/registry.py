"""Which versions are loaded: opens the repository, keeps each version's state, and finds the one a request means.

For each model it loads the version that answers unnamed requests (`production`, else the greatest) and every other
version that has an alias. The process is ready once every model's default version is; a version that fails keeps its
reason for /health. While nothing is loaded it looks again, so that the first published model is picked up.
"""

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeVar

from artifact.errors import ArtifactError, SlipwayError
from artifact.repository import PRODUCTION, Artifact, Repository
from inference.errors import BadInput, NotReady, UnknownModel
from inference.model import Model
from service.logs import logger
from service.metrics import Metrics, ModelKey, ModelObserver

State = Literal["loading", "ready", "failed"]
Status = Literal["ready", "loading", "empty", "failed"]
Load = Callable[[Artifact], Model]
_T = TypeVar("_T")
_STUCK: Final = "its executions hang; only a new process can help"
_HOW_TO_PUBLISH: Final = (
    "nothing is published yet: run `slipway train sentiment`, or point SLIPWAY_REPOSITORY elsewhere"
)


@dataclass(eq=False)
class Served:
    """One version this process serves, or tries to."""

    name: str
    version: int
    default: bool
    aliases: tuple[str, ...]
    state: State = "loading"
    reason: str | None = None
    model: Model | None = None
    task: str = ""
    labels: tuple[str, ...] = ()
    identity: Mapping[str, object] = field(default_factory=dict)

    @property
    def stuck(self) -> bool:
        """Whether it was loaded and has since stopped answering for good."""
        return self.model is not None and self.model.batcher.failed

    def health(self) -> State:
        """The state right now: a loaded model can still fail."""
        return "failed" if self.stuck else self.state

    def ready_model(self) -> Model:
        """The loaded model. Raises NotReady while there is none."""
        if self.model is None:
            what = "is still loading" if self.state == "loading" else "could not be loaded, see /health"
            raise NotReady(f"version {self.version} of this model {what}")
        return self.model


@dataclass(frozen=True)
class Wanted:
    """A version the repository asks this process to load."""

    name: str
    version: int
    default: bool
    aliases: tuple[str, ...]


def wanted_versions(repository: Repository) -> tuple[list[Wanted], str | None]:
    """What to load, and what is wrong with models of which nothing can be said."""
    found: list[Wanted] = []
    problems = []
    for name in repository.models():
        try:
            found.extend(_wanted_of(repository, name))
        except ArtifactError as error:
            problems.append(error.message)
    return found, "; ".join(problems) or None


def _wanted_of(repository: Repository, name: str) -> list[Wanted]:
    """A model's default version and every other aliased one. Raises ArtifactError."""
    aliases = repository.aliases(name)
    chosen = repository.resolve(name)
    numbers = {chosen, *(set(repository.versions(name)) & set(aliases.values()))}
    return [
        Wanted(name, number, number == chosen, tuple(sorted(a for a, target in aliases.items() if target == number)))
        for number in sorted(numbers)
    ]


class Registry:
    """Owned by the event loop: only its thread changes or reads the state; loading itself happens elsewhere."""

    def __init__(
        self,
        repository: Repository,
        load: Load,
        metrics: Metrics,
        *,
        default_model: str | None = None,
        poll_seconds: float = 2.0,
    ) -> None:
        self._repository = repository
        self._load = load
        self._metrics = metrics
        self._default_model = default_model
        self._poll_seconds = poll_seconds
        self._served: list[Served] = []
        self._tried: list[Wanted] | None = None
        self._looked = False
        self._problem: str | None = None

    async def run(self) -> None:
        """Load, and look again for as long as nothing is loaded. Returns once something is."""
        while True:
            await self._look()
            if any(served.model for served in self._served):
                return
            await asyncio.sleep(self._poll_seconds)

    async def _look(self) -> None:
        """Read the repository and load what it wants, unless that is what failed last time."""
        try:
            wanted, self._problem = await in_thread(lambda: wanted_versions(self._repository))
        except OSError as error:
            wanted, self._problem = [], f"{self._repository.root}: {error.strerror}"
        if wanted == self._tried:
            return
        self._tried = wanted
        self._served = [Served(each.name, each.version, each.default, each.aliases) for each in wanted]
        self._looked = True
        if not wanted:
            logger().warning("no model to serve", repository=str(self._repository.root), hint=self.message())
        for served in self._served:
            await self._open(served)

    async def _open(self, served: Served) -> None:
        log = logger().bind(model=served.name, version=served.version)
        started = time.perf_counter()
        try:
            served.model = await in_thread(lambda: self._open_blocking(served))
        except SlipwayError as error:
            served.state, served.reason = "failed", error.message
            log.error("model failed to load", reason=error.message)
            return
        except Exception:
            served.state, served.reason = "failed", "loading it raised an unexpected error, see the log"
            log.exception("model failed to load")
            return
        self._publish(served, served.model, time.perf_counter() - started)
        plan = served.model.plan
        log.info(
            "model ready",
            variant=plan.variant,
            engine=plan.engine,
            workers=plan.workers,
            threads=plan.threads,
            why=served.model.why,
            digest=served.model.digest,
            aliases=served.aliases,
        )

    def _open_blocking(self, served: Served) -> Model:
        artifact = self._repository.open(served.name, served.version)
        key = ModelKey(served.name, str(served.version), artifact.manifest.task)
        model = self._load(artifact)
        model.observe(ModelObserver(self._metrics, key, artifact.manifest))
        return model

    def _publish(self, served: Served, model: Model, seconds: float) -> None:
        """From here on requests find it."""
        served.task, served.labels = model.manifest.task, model.manifest.labels
        served.identity = {
            "name": served.name,
            "version": served.version,
            "digest": model.digest,
            "variant": model.variant.name,
        }
        served.state = "ready"
        labels = (served.name, str(served.version), served.task)
        default = str(served.default).lower()
        self._metrics.model_info.labels(*labels, model.variant.name, model.plan.engine, model.digest, default).set(1)
        self._metrics.workers.set(model.plan.workers)
        self._metrics.model_load_duration.labels(*labels).set(seconds)

    @property
    def served(self) -> Sequence[Served]:
        """Every version this process serves or tries to, by name and number."""
        return self._served

    def status(self) -> Status:
        """Ready once every model's default version is."""
        defaults = [served.health() for served in self._served if served.default]
        if self._problem is not None or "failed" in defaults or self._nameless():
            return "failed"
        if not self._looked or "loading" in defaults:
            return "loading"
        return "ready" if defaults else "empty"

    def message(self) -> str:
        """The status in a sentence that says what to do."""
        status = self.status()
        if status == "empty":
            return _HOW_TO_PUBLISH
        if status == "failed":
            failed = [f"{s.name} {s.version}: {s.reason or _STUCK}" for s in self._served if s.health() == "failed"]
            return "; ".join(filter(None, [self._problem, self._nameless(), *failed]))
        return "loading" if status == "loading" else "ready"

    def _nameless(self) -> str | None:
        """What is wrong with the default model, if anything."""
        if self._default_model is None or not self._served or self._default_model in {s.name for s in self._served}:
            return None
        return "SLIPWAY_DEFAULT_MODEL names a model that the repository does not have"

    def find(self, name: str | None, version: int | str | None) -> Served:
        """The version a request means. Raises NotReady, UnknownModel, BadInput when a model must be named."""
        if not self._served:
            raise NotReady(_HOW_TO_PUBLISH if self._looked else "the models are being loaded")
        candidates = self._of_model(name)
        if version is None or version == PRODUCTION:
            return next(served for served in candidates if served.default)
        for served in candidates:
            if served.version == version or version in served.aliases or version == str(served.version):
                return served
        loaded = ", ".join(
            " ".join([str(each.version), *(f"({alias})" for alias in each.aliases)]) for each in candidates
        )
        error = UnknownModel(f"version: {candidates[0].name} is loaded in other versions only: {loaded}")
        error.field = "version"
        raise error

    def _of_model(self, name: str | None) -> list[Served]:
        names = sorted({served.name for served in self._served})
        name = self.default_name() if name is None else name
        if name is None:
            raise BadInput("model", f"must be named, because several are loaded: {', '.join(names)}")
        candidates = [served for served in self._served if served.name == name]
        if not candidates:
            error = UnknownModel(f"model: no such model is loaded; loaded: {', '.join(names)}")
            error.field = "model"
            raise error
        return candidates

    def default_name(self) -> str | None:
        """The model that answers when none is named, if there is one."""
        names = {served.name for served in self._served}
        return self._default_model or (names.pop() if len(names) == 1 else None)

    def refresh_metrics(self) -> None:
        """Set the gauges that are looked up rather than counted."""
        for served in self._served:
            if served.model is not None:
                labels = (served.name, str(served.version), served.task)
                self._metrics.queue_size.labels(*labels).set(served.model.batcher.waiting)
                self._metrics.executing.labels(*labels).set(served.model.batcher.executing)
                self._metrics.response_cache_bytes.labels(*labels).set(served.model.batcher.cached_bytes)
        for state in ("loading", "ready", "failed"):
            self._metrics.models.labels(state).set(sum(served.health() == state for served in self._served))

    async def close(self) -> None:
        """Answer everything accepted, then stop every model."""
        models = [served.model for served in self._served if served.model is not None]

        def close_all() -> None:
            for model in models:
                model.close()

        await in_thread(close_all)


async def in_thread(work: Callable[[], _T]) -> _T:
    """Run `work` on a thread of its own that cannot keep the process alive, unlike the loop's executor."""
    outcome: concurrent.futures.Future[_T] = concurrent.futures.Future()

    def run() -> None:
        outcome.set_running_or_notify_cancel()
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name="slipway-loader", daemon=True).start()
    return await asyncio.wrap_future(outcome)
