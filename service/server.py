"""One process: listens, loads, serves, drains. `serve` runs alone, `work` is one of several (service/supervisor.py).

Phases, in order: signals are handled; the socket listens; models load while what answers is imported (liveness answers
as soon as that is done); the first ready moment; a signal. Then architecture promise 5: not ready at once; still
accepting for the drain delay, each answer closing its connection; the socket closes; what was accepted is answered;
exit.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator
from email.utils import formatdate
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvloop

from artifact.files import cache_dir
from artifact.repository import Artifact, Repository
from inference.engines import load_model, open_cache
from inference.layout import usable_memory
from inference.model import Model, Options
from inference.plan import Wish
from inference.policy import Limits
from service import heap, logs
from service.bridge import Bridge
from service.config import Settings
from service.context import Context, Traffic
from service.door import Door, Make, OwnDoor, SharedDoor, try_to_listen
from service.link import Phase, Place
from service.metrics import Metrics, share_values
from service.registry import Load, Registry, in_thread

if TYPE_CHECKING:
    from service.protocol import Connection

# How long open connections are still read after the socket closed: a request on its way then gets its answer.
_LINGER_SECONDS: Final = 1.0
_TICK_SECONDS: Final = 0.02
# How long a thread may keep the interpreter while another wants it: workers with an answer wait for the event loop,
# and the other way round. Python's own 5 ms is longer than a whole request takes.
_SWITCH_SECONDS: Final = 0.001


def serve(settings: Settings) -> int:
    """Serve until a signal. Returns the exit status: 0 when every accepted request was answered, 1 otherwise."""
    logs.configure(settings.log_level, settings.log_format)
    listener = try_to_listen(settings.host, settings.port)
    if listener is None:
        return 1
    with listener:
        return _run(Server(settings, OwnDoor(listener), loader(settings)))


def work(settings: Settings, place: Place) -> int:
    """Serve what the supervisor hands over, as one of several processes. Returns the exit status, as `serve`."""
    logs.configure(settings.log_level, settings.log_format, place.number)
    share_values(place.folder, place.number)
    server = Server(
        settings, SharedDoor(place.link, settings.drain_delay_seconds), loader(settings), shared=place.folder
    )
    status = _run(server)
    server.context.metrics.refresh()
    return status


def _run(server: "Server") -> int:
    heap.use_one_arena()
    sys.setswitchinterval(_SWITCH_SECONDS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run_until_signal(server))


async def _run_until_signal(server: "Server") -> int:
    """Signals first: one that comes while models load must drain, not kill."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        asyncio.get_running_loop().add_signal_handler(number, server.stop, number)
    # A worker begins with them held back.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    return await server.run()


def loader(settings: Settings) -> Load:
    """How a model is loaded under these settings."""
    limits = Limits(
        max_batch_size=settings.max_batch_size,
        max_batch_tokens=settings.max_batch_tokens,
        max_queue_size=settings.max_queue_size,
    )
    wish = Wish(settings.variant, settings.engine, settings.model_workers, settings.threads)
    folder = settings.cache_dir or cache_dir(os.environ)
    cache = open_cache(folder, settings.workers)
    seconds = settings.calibrate_seconds

    def load(artifact: Artifact) -> Model:
        options = Options(limits=limits, response_cache_bytes=settings.response_cache_bytes)
        # Processes that measure side by side measure each other; the first one's choice is the others' too.
        with _alone(folder) if seconds and settings.workers > 1 else contextlib.nullcontext():
            return load_model(artifact, cache=cache, wish=wish, options=options, calibrate_seconds=seconds)

    return load


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait for every other process that is in here with the same folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "calibrating.lock").open("w")
    except OSError:  # nowhere to keep a choice either
        yield
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make_front(context: Context, traffic: Traffic, loop: asyncio.AbstractEventLoop) -> Make:
    """What makes the protocol of each connection. Importing FastAPI takes as long as models take to load."""
    from service.front import make_front

    return make_front(context, traffic, loop)


class Server:
    """One process's life. `run` is called once."""

    def __init__(self, settings: Settings, door: Door, load: Load, *, shared: Path | None = None) -> None:
        """`shared` is the folder in which several processes count together."""
        self._settings = settings
        self._door = door
        self._load = load
        self._shared = shared
        self._traffic = Traffic()
        self._stop = asyncio.Event()
        self._opened = asyncio.Event()
        self._signals: list[signal.Signals] = []
        self._was_ready = False
        self.context: Context

    async def run(self) -> int:
        """Serve until a signal, then drain. Returns the exit status."""
        loop = asyncio.get_running_loop()
        context = self.context = self._make_context(loop)
        background = [loop.create_task(self._load_models(context))]
        await self._door.open(in_thread(partial(_make_front, context, self._traffic, loop)), self._leave)
        self._opened.set()
        background.append(loop.create_task(self._keep_current()))
        await self._stop.wait()
        answered = await self._drain(context)
        for task in background:
            task.cancel()
        heap.take_back()
        return 0 if answered else 1

    def stop(self, number: signal.Signals) -> None:
        """Begin to drain; the second time, leave at once. A worker may be told by two, and only its parent ends it."""
        self._signals.append(number)
        if len(self._signals) > 1:
            if self._shared is not None:
                return
            logs.logger().error("stopped at once by a second signal")
            sys.stderr.flush()
            os._exit(1)
        self._stop.set()

    def _leave(self) -> None:
        """Drain, if nobody said so before."""
        if not self._signals:
            self.stop(signal.SIGTERM)

    def _make_context(self, loop: asyncio.AbstractEventLoop) -> Context:
        settings = self._settings
        metrics = Metrics(shared=self._shared)
        metrics.queue_limit.set(settings.max_queue_size)
        metrics.memory_limit.set(usable_memory())
        registry = Registry(
            Repository(settings.repository),
            self._load,
            metrics,
            default_model=settings.default_model,
            poll_seconds=settings.repository_poll_seconds,
        )
        return Context(settings, metrics, registry, Bridge(loop), connections=self._traffic.connections)

    async def _load_models(self, context: Context) -> None:
        await context.registry.run()
        await self._opened.wait()
        # What reading and building models left behind.
        heap.set_aside()
        heap.give_back()
        self._was_ready = context.ready
        self._report()
        status = context.registry.status()
        log = logs.logger().info if status == "ready" else logs.logger().error
        log("ready" if status == "ready" else "not ready", status=status, detail=context.registry.message())

    async def _keep_current(self) -> None:
        """Keep the Date header right to the second, and what other processes are told of this one."""
        while True:
            self._traffic.default_headers = [(b"date", formatdate(time.time(), usegmt=True).encode())]
            if self._shared is not None:
                self._refresh()
            await asyncio.sleep(1)

    def _refresh(self) -> None:
        context = self.context
        context.refresh_metrics()
        context.metrics.refresh()
        self._report()
        if not self._signals and any(served.stuck for served in context.registry.served):
            logs.logger().error("leaving to be replaced", reason=context.registry.message())
            self.stop(signal.SIGTERM)

    def _report(self) -> None:
        context = self.context
        context.turning_away = self._shared is not None and not context.ready
        phase = Phase.LEAVING if context.draining else Phase.READY if context.ready else Phase.NOT_READY
        self._door.tell(phase, len(self._traffic.connections))

    async def _drain(self, context: Context) -> bool:
        """Promise 5. True when everything accepted was answered in time."""
        settings = self._settings
        context.draining = True
        self._report()
        # A process that never was ready has no endpoint to wait for, and a person has no balancer.
        delay = settings.drain_delay_seconds if self._was_ready and self._signals[0] == signal.SIGTERM else 0.0
        logs.logger().info("draining", signal=self._signals[0].name, delay_seconds=delay, in_flight=context.in_flight)
        await self._door.close(delay)
        deadline = time.perf_counter() + settings.drain_timeout_seconds
        answered = await self._answer_all(deadline)
        if answered:
            answered = await self._close_models(context, deadline)
        log = logs.logger().info if answered else logs.logger().error
        log("drained" if answered else "gave up draining", in_flight=context.in_flight)
        return answered

    async def _answer_all(self, deadline: float) -> bool:
        """Wait for open requests; close connections that have none, once nothing can be on its way any more."""
        linger = time.perf_counter() + _LINGER_SECONDS
        while self._traffic.connections or self._traffic.tasks:
            now = time.perf_counter()
            if now > deadline:
                return self._abort()
            if now > linger:
                for connection in self._idle_connections():
                    connection.transport.close()
            await asyncio.sleep(_TICK_SECONDS)
        return True

    def _idle_connections(self) -> "Iterator[Connection]":
        for connection in list(self._traffic.connections):
            if connection.idle and not connection.unread:
                yield connection

    def _abort(self) -> bool:
        """Time is up. True if nobody was owed an answer."""
        owed = self.context.in_flight
        for connection in list(self._traffic.connections):
            connection.transport.abort()
        return owed == 0

    async def _close_models(self, context: Context, deadline: float) -> bool:
        try:
            await asyncio.wait_for(context.registry.close(), max(0.1, deadline - time.perf_counter()))
        except TimeoutError:
            return False
        return True
