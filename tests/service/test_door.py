import asyncio
import socket
from collections.abc import Callable
from typing import cast

import pytest
import uvloop

from service.door import OwnDoor, SharedDoor, drop_new_connections, listen
from service.link import Link, Phase, Report
from tests.service.fakes import PATIENCE_SECONDS, accepts


class _Greeter(asyncio.Protocol):
    def __init__(self, lost: Callable[[], None]) -> None:
        self._lost = lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(b"hello")
        transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost()


async def _made(make: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
    return make


def test_who_connects_before_there_is_an_answer_to_give_waits_for_it() -> None:
    async def scenario() -> bytes:
        listener = listen("127.0.0.1", 0)
        door = OwnDoor(listener)
        front: asyncio.Future[Callable[[], asyncio.Protocol]] = asyncio.get_running_loop().create_future()
        with listener, socket.create_connection(listener.getsockname(), 1) as early:
            opening = asyncio.create_task(door.open(front, lambda: None))
            lost = asyncio.Event()
            front.set_result(lambda: _Greeter(lost.set))
            await opening
            await asyncio.wait_for(lost.wait(), PATIENCE_SECONDS)
            greeting = early.recv(10)
            await door.close(0)
        return greeting

    assert uvloop.run(scenario()) == b"hello"


def test_a_connection_made_before_the_socket_closes_is_not_reset() -> None:
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    with listener, socket.create_connection(("127.0.0.1", port), 1) as early:
        if not drop_new_connections(listener):
            pytest.skip("this kernel attaches no filter to a socket")
        assert not accepts(port)
        accepted, _ = listener.accept()
        with accepted:
            accepted.sendall(b"answer")
            assert early.recv(10) == b"answer"


def test_what_was_given_before_the_end_is_still_taken() -> None:
    async def scenario() -> tuple[list[str], bytes, list[Report | None]]:
        ours, theirs = Link.pair()
        ended: list[str] = []
        client, server = socket.socketpair()
        client.settimeout(1)
        door = SharedDoor(theirs, 0)
        with client, server:
            ours.give(server)
            ours.end()
            lost = asyncio.Event()
            await door.open(_made(lambda: _Greeter(lost.set)), lambda: ended.append("ended"))
            door.tell(Phase.READY, 3)
            await door.close(0)
            await asyncio.wait_for(lost.wait(), PATIENCE_SECONDS)
            greeting = client.recv(10)
        reports = [ours.hear(), ours.hear()]
        ours.close()
        theirs.close()
        return ended, greeting, reports

    ended, greeting, reports = uvloop.run(scenario())
    assert ended == ["ended"]
    assert greeting == b"hello"
    assert reports == [Report(Phase.NOT_READY, 0), Report(Phase.READY, 3)]


def test_a_supervisor_that_dies_without_having_read_a_report_ends_the_door() -> None:
    """The kernel then says "connection reset" first, and libuv calls no second time."""

    async def scenario() -> tuple[list[str], list[bytes]]:
        ours, theirs = Link.pair()
        ended: list[str] = []
        pairs = [socket.socketpair() for _ in range(3)]
        door = SharedDoor(theirs, PATIENCE_SECONDS)
        all_lost = asyncio.Semaphore(0)
        await door.open(_made(lambda: _Greeter(all_lost.release)), lambda: ended.append("ended"))
        for _, server in pairs:
            assert ours.give(server)
        ours.close()
        await door.close(0)
        for _ in pairs:
            await asyncio.wait_for(all_lost.acquire(), PATIENCE_SECONDS)
        greetings = []
        for client, server in pairs:
            server.close()
            client.settimeout(1)
            greetings.append(client.recv(10))
            client.close()
        theirs.close()
        return ended, greetings

    assert uvloop.run(scenario()) == (["ended"], [b"hello"] * 3)


def test_a_supervisor_that_does_not_end_is_waited_for_no_longer_than_agreed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        ours, theirs = Link.pair()
        door = SharedDoor(theirs, 0.01)
        await door.open(_made(asyncio.Protocol), lambda: None)
        await door.close(0)
        ours.close()
        theirs.close()

    monkeypatch.setattr("service.door._PATIENCE_SECONDS", 0.0)
    uvloop.run(scenario())
