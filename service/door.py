"""Where a server's connections come from: a socket of its own, or the supervisor that hands them over."""

import asyncio
import ctypes
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from service.link import Link, Phase, Report
from service.logs import logger

Make = Callable[[], asyncio.Protocol]

_SO_ATTACH_FILTER: Final = 26  # Linux; Python has no name for it
_BACKLOG: Final = 2048
# How long handshakes that have begun get to end, once no new one may.
HANDSHAKE_SECONDS: Final = 0.1
# How much longer than agreed a worker waits for the supervisor to end.
_PATIENCE_SECONDS: Final = 5.0


class Door(Protocol):
    """Opened once, closed once, by the server whose connections come through it."""

    async def open(self, make: Awaitable[Make], on_end: Callable[[], None]) -> None:
        """Let connections in once `make` is there; `on_end`: none will come any more and nobody asked for that."""

    async def close(self, delay: float) -> None:
        """Let them in for `delay` seconds more, then no longer; none that was accepted is lost."""

    def tell(self, phase: Phase, connections: int) -> None:
        """How the server is doing, for whoever decides what comes through."""


class OwnDoor:
    """A listening socket that nobody else accepts from."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._server: asyncio.Server | None = None

    async def open(self, make: Awaitable[Make], on_end: Callable[[], None]) -> None:
        """Who connects before `make` is there waits in the kernel. It never ends by itself."""
        say_listening(self._listener)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(await make, sock=self._listener, backlog=_BACKLOG)

    async def close(self, delay: float) -> None:
        """Closing resets what the kernel has accepted and we have not: first nothing new may begin."""
        await asyncio.sleep(delay)
        drop_new_connections(self._listener)
        await asyncio.sleep(HANDSHAKE_SECONDS)
        if self._server is not None:
            self._server.close()

    def tell(self, phase: Phase, connections: int) -> None:
        """Nobody asks."""


class SharedDoor:
    """The worker's end of a link: the supervisor accepts, and says when to stop."""

    def __init__(self, link: Link, longest_delay: float) -> None:
        """`longest_delay` is what the supervisor may keep the door open for, in seconds."""
        self._link = link
        self._longest_delay = longest_delay
        self._arriving: set[asyncio.Task[object]] = set()
        self._ended = asyncio.Event()

    async def open(self, make: Awaitable[Make], on_end: Callable[[], None]) -> None:
        """Take what the supervisor gives."""
        self._make, self._on_end = await make, on_end
        asyncio.get_running_loop().add_reader(self._link.fileno(), self._take)
        self.tell(Phase.NOT_READY, 0)

    async def close(self, delay: float) -> None:
        """The supervisor keeps the delay, and closes the listening socket, for all workers at once."""
        try:
            await asyncio.wait_for(self._ended.wait(), self._longest_delay + _PATIENCE_SECONDS)
        except TimeoutError:
            logger().warning("the supervisor did not end in time, leaving without it")
            asyncio.get_running_loop().remove_reader(self._link.fileno())
        if self._arriving:
            await asyncio.wait(self._arriving)

    def tell(self, phase: Phase, connections: int) -> None:
        """The supervisor gives to who is ready, and first to who has least."""
        self._link.tell(Report(phase, connections))

    def _take(self) -> None:
        """All there is: after an error on the link libuv does not call again."""
        while self._take_one():
            pass

    def _take_one(self) -> bool:
        loop = asyncio.get_running_loop()
        try:
            connection = self._link.take()
        except BlockingIOError:
            return False
        except OSError as error:
            logger().error("a connection could not be taken", reason=str(error))
            return False
        if connection is None:
            loop.remove_reader(self._link.fileno())
            self._ended.set()
            self._on_end()
            return False
        connection.setblocking(False)
        task: asyncio.Task[object] = loop.create_task(loop.connect_accepted_socket(self._make, connection))
        self._arriving.add(task)
        task.add_done_callback(self._arrived)
        return True

    def _arrived(self, task: "asyncio.Task[object]") -> None:
        self._arriving.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger().debug("a connection ended before it began", reason=str(error))


def try_to_listen(host: str, port: int) -> socket.socket | None:
    """A listening socket, or None and a line in the log that says what to change."""
    try:
        return listen(host, port)
    except OSError as error:
        hint = "set SLIPWAY_HOST and SLIPWAY_PORT to a free one"
        logger().error("cannot listen", address=f"{host}:{port}", reason=error.strerror, hint=hint)
        return None


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


def say_listening(listener: socket.socket, **more: object) -> None:
    """One line in the log: where to send requests."""
    host, port = listener.getsockname()[:2]
    logger().info("listening", host=host, port=port, url=f"http://{host}:{port}", pid=os.getpid(), **more)


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
