"""An open-loop HTTP client: requests leave when they are due, whatever became of the ones before.

Connections are kept alive and reused at random, so that some are busy and some lie idle for long. A request is sent
once: there is no retry. A connection that its peer has closed while it lay idle is dropped, not used: every pooling
client looks before it writes. One line a request goes to the output: when it was due, seconds from then to its whole
answer, what came of it, and the port asked.
"""

import argparse
import asyncio
import contextlib
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TextIO

import uvloop

TEXTS: Final = (
    "A warm, funny and beautifully acted film.",
    "Two hours of my life I will not get back.",
    "The plot is thin, but the two leads are a delight and the last scene is worth the ticket.",
    "Dull.",
    "An awful mess: badly written, badly lit, and far too long for the little it has to say about anything at all.",
)
TIMEOUT_SECONDS: Final = 20.0
_HEAD: Final = "POST /predict HTTP/1.1\r\nHost: slipway\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"


class Lost(Exception):
    """The connection ended without the whole answer; `args[0]` says when."""


@dataclass
class Connection:
    """One kept-alive connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    used: int = 0

    @property
    def closed(self) -> bool:
        """Whether the peer has closed it."""
        return self.reader.at_eof() or self.reader.exception() is not None or self.writer.is_closing()


@dataclass
class Pool:
    """Idle connections to one port."""

    port: int
    random: random.Random
    idle: list[Connection] = field(default_factory=list)

    async def take(self) -> Connection:
        """An idle connection that is still open, or a new one."""
        while self.idle:
            place = self.random.randrange(len(self.idle))
            self.idle[place], self.idle[-1] = self.idle[-1], self.idle[place]
            found = self.idle.pop()
            if not found.closed:
                return found
            found.writer.close()
        return Connection(*await asyncio.open_connection("127.0.0.1", self.port))


async def ask(pool: Pool, text: str) -> str:
    """One request. "200", another status, or how it was lost."""
    body = json.dumps({"inputs": text}).encode()
    head = _HEAD.format(len(body))
    try:
        connection = await pool.take()
    except OSError as error:
        return f"connect: {error}"
    connection.used += 1
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            connection.writer.write(head.encode() + body)
            status, answer, keep = await _answer(connection.reader)
    except (Lost, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        connection.writer.close()
        return f"{type(error).__name__}: {error} (request {connection.used} of its connection)"
    if keep:
        pool.idle.append(connection)
    else:
        connection.writer.close()
    return str(status) if status != 200 or b'"predictions"' in answer else "200 without predictions"


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    """Status, body, and whether the connection stays open."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        raise Lost("closed in the answer's head" if error.partial else "closed without an answer") from None
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    body = await reader.readexactly(int(headers["content-length"]))
    return int(first.split()[1]), body, headers.get("connection", "").lower() != "close"


async def open_loop(ports: Sequence[int], rate: float, out: TextIO, stop: asyncio.Event, seed: int = 1) -> None:
    """Send at `rate` a second, at random moments, to the ports in turn, until `stop`."""
    numbers = random.Random(seed)
    pools = [Pool(port, numbers) for port in ports]
    running: set[asyncio.Task[None]] = set()
    due = time.time()
    count = 0
    while not stop.is_set():
        due += numbers.expovariate(rate)
        await asyncio.sleep(max(0.0, due - time.time()))
        pool = pools[count % len(pools)]
        task = asyncio.create_task(_timed(pool, TEXTS[count % len(TEXTS)], due, out))
        running.add(task)
        task.add_done_callback(running.discard)
        count += 1
    if running:
        await asyncio.wait(running)


async def _timed(pool: Pool, text: str, due: float, out: TextIO) -> None:
    outcome = await ask(pool, text)
    out.write(json.dumps([due, time.time() - due, outcome, pool.port]) + "\n")


async def closed_loop(ports: Sequence[int], clients: int, seconds: float) -> float:
    """Answers a second that `clients` get who ask without a pause."""
    numbers = random.Random(2)
    answered = 0
    end = time.time() + seconds

    async def client(number: int) -> None:
        nonlocal answered
        pool = Pool(ports[number % len(ports)], numbers)
        while time.time() < end:
            if await ask(pool, TEXTS[(number + answered) % len(TEXTS)]) == "200":
                answered += 1

    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(client(number))
    return answered / seconds


async def _until_told(ports: Sequence[int], rate: float, path: Path) -> None:
    """Run the open loop until standard input ends."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stop.set)  # nobody writes: readable means closed
    with path.open("w", encoding="utf-8", buffering=1) as out:
        await open_loop(ports, rate, out, stop)


def main() -> None:
    """The client is a process of its own, so that what it measures is not delayed by who orchestrates."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ports", type=int, nargs="+", required=True)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--closed", type=int)
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if arguments.closed:
            sys.stdout.write(f"{runner.run(closed_loop(arguments.ports, arguments.closed, arguments.seconds))}\n")
        else:
            runner.run(_until_told(arguments.ports, arguments.rate, arguments.out))


if __name__ == "__main__":
    main()
