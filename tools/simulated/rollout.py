"""The Deployment controller's rolling update over simulated pods, and the endpoints behind it."""

import asyncio
import os
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from tools.simulated.cpu import CpuGroup
from tools.simulated.manifests import DeploymentSpec
from tools.simulated.pods import Pod
from tools.simulated.proxy import Proxy

_LOOK_SECONDS: Final = 0.5


@dataclass(frozen=True)
class Scale:
    """How many pods a rolling update may start and stop now."""

    create: int
    delete: int


def next_step(spec: DeploymentSpec, *, old: int, new: int, available: int) -> Scale:
    """The rule of a rolling update. `old` and `new` count pods that are not being deleted, `available` ready ones.

    https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#rolling-update-deployment
    """
    room = spec.replicas + spec.max_surge - (old + new)
    create = max(0, min(room, spec.replicas - new))
    spare = available - (spec.replicas - spec.max_unavailable)
    return Scale(create, max(0, min(spare, old)))


@dataclass
class Seen:
    """What happened to the pods, for the report."""

    ready_after_seconds: list[float] = field(default_factory=list)
    withdrawn_after_seconds: list[float] = field(default_factory=list)
    exit_statuses: list[int | None] = field(default_factory=list)
    killed: int = 0
    restarts: int = 0


class Cluster:
    """Pods of one Deployment. Endpoints follow readiness `endpoint_delay_seconds` later, both ways.

    With a `cpu_scale` every pod gets that share of its CPU limit and request (tools/simulated/cpu.py).
    """

    def __init__(
        self,
        folder: Path,
        proxy: Proxy,
        images: Mapping[str, Mapping[str, Path]],
        claims: Mapping[str, Path],
        endpoint_delay_seconds: float = 2.0,
        cpu_scale: float | None = None,
    ) -> None:
        self._folder = folder
        self._proxy = proxy
        self._images = images
        self._claims = claims
        self._delay = endpoint_delay_seconds
        self._cpu_scale = cpu_scale
        self._event = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._made = 0
        self._asked_to_end: dict[str, float] = {}
        self.pods: list[tuple[int, Pod]] = []  # (revision, pod), being deleted or not
        self.revision = 0
        self.endpoints: set[str] = set()
        self.seen = Seen()
        self.errors: list[str] = []
        self.events: list[tuple[float, str, str]] = []  # wall-clock time, what, which pod

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        for _revision, pod in self.pods:
            await pod.destroy()

    def live(self, revision: int | None = None) -> list[Pod]:
        """Pods that nobody is deleting: all of them, or of one revision."""
        return [pod for made, pod in self.pods if not pod.deleting and revision in (None, made)]

    async def roll(self, spec: DeploymentSpec, timeout_seconds: float = 120.0) -> bool:
        """Replace every pod by one of `spec`. False when it is not complete in time: the rollout is stuck."""
        self.revision += 1
        try:
            async with asyncio.timeout(timeout_seconds):
                while not await self._step(spec):
                    await self._something_changes()
        except TimeoutError:
            return False
        return True

    async def undo(self, spec: DeploymentSpec) -> bool:
        """Back to the revision before: the stuck pods go, the old ones were never touched."""
        for pod in self.live(self.revision):
            self._delete(pod)
        self.pods = [(self.revision + 1 if not pod.deleting else made, pod) for made, pod in self.pods]
        return len(self.live()) == spec.replicas and all(pod.ready for pod in self.live())

    async def settled(self) -> None:
        """Wait until every pod that is being deleted is gone."""
        for _, pod in list(self.pods):
            if pod.deleting:
                await pod.gone.wait()

    async def endpoints_are(self, number: int) -> None:
        """Wait until the proxy knows `number` pods."""
        while len(self.endpoints) != number:
            await self._something_changes()

    async def _something_changes(self) -> None:
        """Wait for a change; a pod also becomes available by waiting (minReadySeconds), so not for ever."""
        waiting = asyncio.ensure_future(self._event.wait())
        await asyncio.wait({waiting}, timeout=_LOOK_SECONDS)
        waiting.cancel()
        self._event.clear()

    async def _step(self, spec: DeploymentSpec) -> bool:
        """Create and delete what the rule allows. True when the rollout is complete."""
        new = self.live(self.revision)
        old = [pod for pod in self.live() if pod not in new]
        now = time.perf_counter()
        available = [pod for pod in self.live() if pod.ready and now - pod.ready_since >= spec.min_ready_seconds]
        if not old and len(new) == spec.replicas and all(pod in available for pod in new):
            return True
        step = next_step(spec, old=len(old), new=len(new), available=len(available))
        for _ in range(step.create):
            await self._create(spec)
        for pod in sorted(old, key=lambda each: each.ready)[: step.delete]:
            self._delete(pod)
        return False

    async def _create(self, spec: DeploymentSpec) -> None:
        self._made += 1
        name = f"{spec.name}-{self.revision}-{self._made}"
        address = f"127.20.{self._made // 250}.{self._made % 250 + 1}"
        group = self._group(name, spec)
        pod = Pod(name, address, spec, self._folder / name, self._images, self._claims, self._changed, group)
        self.pods.append((self.revision, pod))
        self._note("starting", pod)
        await pod.start()

    def _group(self, name: str, spec: DeploymentSpec) -> CpuGroup | None:
        limit = spec.containers[0].cpu_limit
        if self._cpu_scale is None or limit is None:
            return None
        request = spec.containers[0].cpu_request
        return CpuGroup.make(f"simulated-{os.getpid()}-{name}", limit * self._cpu_scale, request * self._cpu_scale)

    def _delete(self, pod: Pod) -> None:
        pod.deleting = True
        self._asked_to_end[pod.name] = time.perf_counter()
        self._note("terminating", pod)
        self._spawn(self._delete_and_record(pod))

    async def _delete_and_record(self, pod: Pod) -> None:
        await pod.delete()
        self._note("gone", pod)
        self.seen.exit_statuses.append(pod.exit_status)
        self.seen.killed += pod.killed
        self.seen.restarts += pod.restarts

    def _changed(self, pod: Pod) -> None:
        self._note("ready" if pod.ready else "not ready", pod)
        if pod.ready and pod.address not in self.endpoints:
            self.seen.ready_after_seconds.append(pod.ready_after_seconds)
        self._spawn(self._follow(pod, ready=pod.ready))
        self._event.set()

    async def _follow(self, pod: Pod, *, ready: bool) -> None:
        """Tell the proxy, as late as a slow cluster would."""
        await asyncio.sleep(self._delay)
        if ready and not pod.gone.is_set() and pod.address not in self.endpoints:
            self.endpoints.add(pod.address)
            await self._proxy.add(pod.address, pod.port)
            self._note("in", pod)
            self._event.set()
        elif not ready and pod.address in self.endpoints:
            self.endpoints.discard(pod.address)
            await self._proxy.withdraw(pod.address)
            self._note("out", pod)
            asked = self._asked_to_end.get(pod.name)
            if asked is not None:
                self.seen.withdrawn_after_seconds.append(time.perf_counter() - asked)

    def _note(self, what: str, pod: Pod) -> None:
        self.events.append((time.time(), what, pod.name))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.errors.append(repr(task.exception()))
