"""A pod as a process: started from its spec, probed as a kubelet would, ended within its grace period.

What is not simulated: images, isolation, memory limits, the scheduler. Every pod has an address of its own on
the loopback, so that all can listen on the port of the manifest.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tools.simulated.cpu import CpuGroup
from tools.simulated.manifests import ContainerSpec, DeploymentSpec, Probe, repository_of

_OK: Final = range(200, 400)


class Pod:
    """One process with its probes. `changed` is called whenever `ready` changes or the pod ends.

    `group` holds its containers to their CPU limit; without one they take what they get.
    """

    def __init__(
        self,
        name: str,
        address: str,
        spec: DeploymentSpec,
        folder: Path,
        images: Mapping[str, Mapping[str, Path]],
        claims: Mapping[str, Path],
        changed: Callable[["Pod"], None],
        group: CpuGroup | None = None,
    ) -> None:
        self.name = name
        self.address = address
        self.spec = spec
        (self.container,) = spec.containers
        self.ready = False
        self.ready_since = 0.0
        self.deleting = False
        self.gone = asyncio.Event()
        self.restarts = 0
        self.killed = False
        self.exit_status: int | None = None
        self.ready_after_seconds = 0.0
        self._folder = folder
        self._images = images
        self._claims = claims
        self._changed = changed
        self._group = group
        self._process: asyncio.subprocess.Process | None = None
        self._born = time.perf_counter()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def port(self) -> int:
        """Where it serves."""
        return next(iter(self.container.ports.values()))

    async def start(self) -> None:
        """Make the volumes, run the init containers, start the container and its probes."""
        self._folder.mkdir(parents=True)
        for init in self.spec.init_containers:
            await self._run_to_end(init)
        await self._spawn()
        self._tasks.append(asyncio.create_task(self._probe()))
        self._tasks.append(asyncio.create_task(self._restart_when_it_exits()))

    async def delete(self) -> None:
        """preStop, SIGTERM, then SIGKILL when the grace period is over."""
        self.deleting = True
        assert self._process is not None  # noqa: S101 - only what has started is deleted
        deadline = time.perf_counter() + self.spec.grace_period_seconds
        try:
            async with asyncio.timeout(self.spec.grace_period_seconds):
                await self._pre_stop()
                self._process.terminate()
                await self._process.wait()
        except TimeoutError:
            self.killed = time.perf_counter() >= deadline
            self._process.kill()
            await self._process.wait()
        self.exit_status = self._process.returncode
        self._end()

    async def destroy(self) -> None:
        """End it without ceremony."""
        self.deleting = True
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        self._end()

    def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._set_ready(now=False)
        self.gone.set()
        self._changed(self)
        if self._group is not None:
            self._group.remove()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _pre_stop(self) -> None:
        hook = self.container.pre_stop
        if "sleep" in hook:
            await asyncio.sleep(hook["sleep"]["seconds"])
        elif "exec" in hook:
            running = await asyncio.create_subprocess_exec(*hook["exec"]["command"])
            await running.wait()

    def _where(self, path: str, container: ContainerSpec) -> str:
        """The place on this machine of an absolute path in `container`; other words stay as they are."""
        places: dict[str, Path] = dict(self._images.get(repository_of(container.image), {}))
        places |= {mount: self._volume(volume) for mount, volume in container.mounts.items()}
        for inside, outside in sorted(places.items(), key=lambda pair: -len(pair[0])):
            if path == inside or path.startswith(f"{inside}/"):
                return f"{outside}{path[len(inside) :]}"
        return path

    def _volume(self, name: str) -> Path:
        volume = self.spec.volumes[name]
        if "persistentVolumeClaim" in volume:
            return self._claims[volume["persistentVolumeClaim"]["claimName"]]
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        return folder

    def _command(self, container: ContainerSpec) -> list[str]:
        words = [self._where(word, container) for word in container.command]
        if "/" not in words[0]:  # a program that the image has on its PATH: the one of this environment
            beside = Path(sys.executable).with_name(words[0])
            words[0] = str(beside) if beside.exists() else words[0]
        return words if self._group is None else self._group.command(words)

    def _environment(self, container: ContainerSpec) -> dict[str, str]:
        own = {name: self._where(value, container) for name, value in container.environment.items() if name != "PATH"}
        if "SLIPWAY_HOST" in own:
            own["SLIPWAY_HOST"] = self.address  # instead of every interface: the pods share this machine's loopback
        return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"} | own

    async def _run_to_end(self, container: ContainerSpec) -> None:
        process = await asyncio.create_subprocess_exec(
            *self._command(container), env=self._environment(container), stdout=subprocess.DEVNULL
        )
        if await process.wait():
            raise RuntimeError(f"init container {container.name} of {self.name} ended with {process.returncode}")

    async def _spawn(self) -> None:
        with (self._folder.parent / f"{self.name}.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command(self.container),
                env=self._environment(self.container),
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )

    async def _restart_when_it_exits(self) -> None:
        while not self.deleting:
            assert self._process is not None  # noqa: S101 - started before this task
            await self._process.wait()
            self._set_ready(now=False)
            if not self.deleting:
                self.restarts += 1
                await asyncio.sleep(1.0)
                await self._spawn()

    async def _probe(self) -> None:
        """Startup first; liveness and readiness only then, as a kubelet has it."""
        container = self.container
        if container.startup is not None:
            await self._until(container.startup, successes=container.startup.success_threshold)
        if container.liveness is not None:
            self._tasks.append(asyncio.create_task(self._watch_liveness(container.liveness)))
        if container.readiness is not None:
            await self._watch_readiness(container.readiness)

    async def _until(self, probe: Probe, *, successes: int) -> None:
        """Probe until `successes` in a row; after too many failures the container is restarted."""
        await asyncio.sleep(probe.initial_delay_seconds)
        good = bad = 0
        async for passed in self._results(probe):
            good, bad = (good + 1, 0) if passed else (0, bad + 1)
            if good >= successes:
                return
            if bad >= probe.failure_threshold:
                bad = 0
                await self._restart()

    async def _watch_liveness(self, probe: Probe) -> None:
        await asyncio.sleep(probe.initial_delay_seconds)
        bad = 0
        async for passed in self._results(probe):
            bad = 0 if passed else bad + 1
            if bad >= probe.failure_threshold and not self.deleting:
                bad = 0
                await self._restart()

    async def _watch_readiness(self, probe: Probe) -> None:
        await asyncio.sleep(probe.initial_delay_seconds)
        good = bad = 0
        async for passed in self._results(probe):
            good, bad = (good + 1, 0) if passed else (0, bad + 1)
            if good >= probe.success_threshold:
                self._set_ready(now=True)
            elif bad >= probe.failure_threshold:
                self._set_ready(now=False)

    async def _results(self, probe: Probe) -> Any:
        """Outcomes of `probe`, one a period."""
        while True:
            began = time.perf_counter()
            yield await passes(self.address, probe)
            await asyncio.sleep(max(0.0, began + probe.period_seconds - time.perf_counter()))

    async def _restart(self) -> None:
        assert self._process is not None  # noqa: S101 - probed only when started
        self._process.send_signal(signal.SIGKILL)

    def _set_ready(self, *, now: bool) -> None:
        if now == self.ready:
            return
        self.ready = now
        self.ready_since = time.perf_counter()
        if now and not self.ready_after_seconds:
            self.ready_after_seconds = self.ready_since - self._born
        self._changed(self)


async def passes(address: str, probe: Probe) -> bool:
    """Whether an HTTP GET answers with a status from 200 to 399 in time."""
    try:
        async with asyncio.timeout(probe.timeout_seconds):
            return await _status(address, probe) in _OK
    except (OSError, TimeoutError, ValueError, IndexError):
        return False


async def _status(address: str, probe: Probe) -> int:
    reader, writer = await asyncio.open_connection(address, probe.port)
    try:
        writer.write(f"GET {probe.path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
        return int((await reader.readline()).split()[1])
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def gather(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run all of it, and fail when one fails."""
    async with asyncio.TaskGroup() as group:
        for each in work:
            group.create_task(each)
