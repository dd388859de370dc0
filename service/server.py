"""The process: listens, loads, serves, drains. `serve` is what `slipway serve` runs.

Phases, in order: signals are handled; the socket listens (liveness answers from here on); models load; the first ready
moment; a signal. Then architecture promise 5: not ready at once; still accepting for the drain delay, each answer
closing its connection; the socket closes; what was accepted is answered; exit.
"""

import asyncio
import ctypes
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import Final

import uvloop
from uvicorn.config import Config
from uvicorn.server import ServerState

from artifact.files import cache_dir
from artifact.repository import Artifact, Repository
from inference.engines import load_model, open_cache
from inference.layout import usable_memory
from inference.model import Model, Options
from inference.plan import Wish
from inference.policy import Limits
from service import heap, logs
from service.app import create_app
from service.bridge import Bridge
from service.config import Settings
from service.context import Context
from service.metrics import Metrics
from service.protocol import Bounds, Connection, protocol_factory
from service.registry import Load, Registry

_SO_ATTACH_FILTER: Final = 26  # Linux; Python has no name for it
_BACKLOG: Final = 2048
# How long open connections are still read after the socket closed: a request on its way then gets its answer.
_LINGER_SECONDS: Final = 1.0
# How long handshakes that have begun get to end, once no new one may.
_HANDSHAKE_SECONDS: Final = 0.1
_TICK_SECONDS: Final = 0.02
# How long a thread may keep the interpreter while another wants it: workers with an answer wait for the event loop,
# and the other way round. Python's own 5 ms is longer than a whole request takes.
_SWITCH_SECONDS: Final = 0.001


def serve(settings: Settings) -> int:
    """Serve until a signal. Returns the exit status: 0 when every accepted request was answered, 1 otherwise."""
    logs.configure(settings.log_level, settings.log_format)
    heap.use_one_arena()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        listener = listen(settings.host, settings.port)
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        logs.logger().error(
            "cannot listen",
            address=where,
            reason=error.strerror,
            hint="set SLIPWAY_HOST and SLIPWAY_PORT to a free one",
        )
        return 1
    with listener, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(Server(settings, listener, loader(settings))))


async def _run(server: "Server") -> int:
    """Signals first: one that comes while models load must drain, not kill."""
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, server.stop, number)
    return await server.run()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def drop_new_connections(listener: socket.socket) -> bool:
    """Have the kernel drop SYN packets to `listener`; a client that sends one tries again and is then refused.

    A classic BPF program (socket(7), SO_ATTACH_FILTER) over the TCP header, whose byte 13 holds the flags. Where
    the kernel knows no such thing (False), a connection made in the instant of closing can still be reset.
    """
    program = (
        (0x30, 0, 0, 13),  # load the byte at 13
        (0x54, 0, 0, 0x12),  # keep SYN and ACK
        (0x15, 0, 1, 0x02),  # SYN alone? next, else skip one
        (0x06, 0, 0, 0),  # drop
        (0x06, 0, 0, 0xFFFFFFFF),  # accept
    )
    code = b"".join(struct.pack("HBBI", *step) for step in program)
    buffer = ctypes.create_string_buffer(code)
    described = struct.pack("HL", len(program), ctypes.addressof(buffer))
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)
    except OSError:
        return False
    return True


def loader(settings: Settings) -> Load:
    """How a model is loaded under these settings."""
    limits = Limits(
        max_batch_size=settings.max_batch_size,
        max_batch_tokens=settings.max_batch_tokens,
        max_queue_size=settings.max_queue_size,
    )
    wish = Wish(settings.variant, settings.engine, settings.workers, settings.threads)
    cache = open_cache(settings.cache_dir or cache_dir(os.environ))

    def load(artifact: Artifact) -> Model:
        return load_model(
            artifact,
            cache=cache,
            wish=wish,
            options=Options(limits=limits, response_cache_bytes=settings.response_cache_bytes),
            calibrate_seconds=settings.calibrate_seconds,
        )

    return load


class Server:
    """One process's life. `run` is called once."""

    def __init__(self, settings: Settings, listener: socket.socket, load: Load) -> None:
        self._settings = settings
        self._listener = listener
        self._load = load
        self._state = ServerState()
        self._stop = asyncio.Event()
        self._signals: list[signal.Signals] = []
        self._was_ready = False
        self.context: Context

    async def run(self) -> int:
        """Serve until a signal, then drain. Returns the exit status."""
        loop = asyncio.get_running_loop()
        context = self.context = self._make_context(loop)
        server = await self._open(loop, context)
        background = [loop.create_task(self._load_models(context)), loop.create_task(self._tell_the_time())]
        await self._stop.wait()
        answered = await self._drain(context, server)
        for task in background:
            task.cancel()
        return 0 if answered else 1

    def stop(self, number: signal.Signals) -> None:
        """Begin to drain; the second time, leave at once."""
        self._signals.append(number)
        if len(self._signals) > 1:
            logs.logger().error("stopped at once by a second signal")
            sys.stderr.flush()
            os._exit(1)
        self._stop.set()

    def _make_context(self, loop: asyncio.AbstractEventLoop) -> Context:
        settings = self._settings
        metrics = Metrics()
        metrics.queue_limit.set(settings.max_queue_size)
        metrics.memory_limit.set(usable_memory())
        registry = Registry(
            Repository(settings.repository),
            self._load,
            metrics,
            default_model=settings.default_model,
            poll_seconds=settings.repository_poll_seconds,
        )
        return Context(settings, metrics, registry, Bridge(loop), connections=self._state.connections)

    async def _open(self, loop: asyncio.AbstractEventLoop, context: Context) -> asyncio.Server:
        settings = self._settings
        config = Config(
            create_app(context),
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=settings.idle_timeout_seconds,  # type: ignore[arg-type]  # any number of seconds will do
        )
        config.load()
        bounds = Bounds(
            settings.header_timeout_seconds,
            settings.body_timeout_seconds,
            settings.max_header_bytes,
            settings.max_connections,
        )
        factory = protocol_factory(config, self._state, loop, context, bounds)
        server = await loop.create_server(factory, sock=self._listener, backlog=_BACKLOG)
        host, port = self._listener.getsockname()[:2]
        logs.logger().info("listening", host=host, port=port, url=f"http://{host}:{port}", pid=os.getpid())
        return server

    async def _load_models(self, context: Context) -> None:
        await context.registry.run()
        heap.give_back()  # what reading and building models left behind
        self._was_ready = context.ready
        status = context.registry.status()
        log = logs.logger().info if status == "ready" else logs.logger().error
        log("ready" if status == "ready" else "not ready", status=status, detail=context.registry.message())

    async def _tell_the_time(self) -> None:
        """Keep the Date header right to the second."""
        while True:
            self._state.default_headers = [(b"date", formatdate(time.time(), usegmt=True).encode())]
            await asyncio.sleep(1)

    async def _drain(self, context: Context, server: asyncio.Server) -> bool:
        """Promise 5. True when everything accepted was answered in time."""
        settings = self._settings
        context.draining = True
        # A process that never was ready has no endpoint to wait for, and a person has no balancer.
        delay = settings.drain_delay_seconds if self._was_ready and self._signals[0] == signal.SIGTERM else 0.0
        logs.logger().info("draining", signal=self._signals[0].name, delay_seconds=delay, in_flight=context.in_flight)
        await asyncio.sleep(delay)
        await self._close_listener(server)
        deadline = time.perf_counter() + settings.drain_timeout_seconds
        answered = await self._answer_all(deadline)
        if answered:
            answered = await self._close_models(context, deadline)
        log = logs.logger().info if answered else logs.logger().error
        log("drained" if answered else "gave up draining", in_flight=context.in_flight)
        return answered

    async def _close_listener(self, server: asyncio.Server) -> None:
        """Stop accepting. Closing resets what the kernel has accepted and we have not: first nothing new may begin."""
        drop_new_connections(self._listener)
        await asyncio.sleep(_HANDSHAKE_SECONDS)
        server.close()

    async def _answer_all(self, deadline: float) -> bool:
        """Wait for open requests; close connections that have none, once nothing can be on its way any more."""
        linger = time.perf_counter() + _LINGER_SECONDS
        while self._state.connections or self._state.tasks:
            now = time.perf_counter()
            if now > deadline:
                return self._abort()
            if now > linger:
                for connection in self._idle_connections():
                    connection.transport.close()
            await asyncio.sleep(_TICK_SECONDS)
        return True

    def _idle_connections(self) -> Iterator[Connection]:
        for connection in list(self._state.connections):
            if isinstance(connection, Connection) and connection.idle and not connection.unread:
                yield connection

    def _abort(self) -> bool:
        """Time is up. True if nobody was owed an answer."""
        owed = self.context.in_flight
        for connection in list(self._state.connections):
            connection.transport.abort()
        return owed == 0

    async def _close_models(self, context: Context, deadline: float) -> bool:
        try:
            await asyncio.wait_for(context.registry.close(), max(0.1, deadline - time.perf_counter()))
        except TimeoutError:
            return False
        return True
