"""Thousands of clients of every kind against a backend that fails in every way: each gets the one answer it is owed.

Nothing here depends on speed: what is asserted is which answers came and how many, never when, but for the patience
after which an answer counts as lost.
"""

import asyncio
import itertools
import json
import math
import random
import resource
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from artifact.repository import Artifact
from inference.model import Model, Options
from inference.policy import Limits
from service.registry import Load
from tests.service.fakes import GatedBackend, Running, running, until
from tests.tiny_artifact import tiny_tokenizer

CLIENTS = 2000
AT_ONCE = 500
FILES = 2 * CLIENTS + 500  # both ends of each connection are in this process
PATIENCE_SECONDS = 60.0
DEADLINE_SECONDS = 50.0
EXECUTION_TIMEOUT_SECONDS = 0.2
WORDS = ("good", "bad", "film", "movie", "is", "was", "very", "not")


class MoodyBackend(GatedBackend):
    """In turns it answers, raises, returns too few rows, returns NaN and hangs; good and well once `calm`."""

    MOODS = ("well", "raises", "well", "few", "well", "nan", "hangs") + (
        "well",
        "raises",
        "well",
        "few",
        "well",
        "nan",
    ) * 5

    def __init__(self) -> None:
        super().__init__()
        self.calm = False
        self.seen: Counter[str] = Counter()
        self._turns = itertools.cycle(self.MOODS)
        self._lock = threading.Lock()
        self._never = threading.Event()

    def infer(self, inputs: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[Any]]:
        """As the turn wants it."""
        with self._lock:
            mood = "well" if self.calm else next(self._turns)
            self.seen[mood] += 1
        logits = super().infer(inputs)["logits"]
        if mood == "raises":
            raise RuntimeError("device lost")
        if mood == "hangs":  # until long after the watchdog has answered for it
            self._never.wait(3 * EXECUTION_TIMEOUT_SECONDS)
        if mood == "nan":
            logits[0] = np.nan
        return {"logits": logits[:-1] if mood == "few" else logits}


def loading(backend: GatedBackend, *, workers: int) -> Load:
    """A loader that puts `backend` behind every artifact and soon gives up on what hangs."""

    def load(artifact: Artifact) -> Model:
        options = Options(
            limits=Limits(max_queue_size=400), workers=workers, execution_timeout_seconds=EXECUTION_TIMEOUT_SECONDS
        )
        return Model.assemble(artifact, artifact.manifest.variants[0], backend, options=options)

    return load


@contextmanager
def many_files() -> Iterator[None]:
    """Raise the soft limit on open files as far as it must be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES:
        pytest.skip(f"this process may open {hard} files, {FILES} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, FILES), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- clients -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Client:
    """What one of them does, sends, and is owed: `statuses` it may get, none meaning that no answer is owed."""

    kind: str
    sends: bytes
    leaves: bool
    texts: tuple[str, ...]
    statuses: frozenset[int]


def request(texts: tuple[str, ...]) -> bytes:
    """A whole request, after which the server closes."""
    body = json.dumps({"inputs": texts, "timeout_seconds": DEADLINE_SECONDS}).encode()
    head = f"POST /predict HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def clients(seed: int = 3) -> list[Client]:
    """Three fifths wait for their answer; the others stall in the headers, in the body, leave, or say nothing."""
    words = random.Random(seed)

    def client(number: int) -> Client:
        texts = tuple(" ".join(words.choices(WORDS, k=words.randint(1, 40))) for _ in range(words.choice((1, 1, 3))))
        whole = request(texts)
        head = whole.index(b"\r\n\r\n")
        # 500: the backend failed; 429: the queue was full; 503: too much hung at once; 408: on a busy machine, it was
        # not read in time, and so never accepted. A 504 would be an answer that got lost: nothing takes that long.
        kinds = {
            "waits": (whole, False, {200, 408, 429, 500, 503}),
            "stalls in the headers": (whole[: head - 3], False, {408}),
            "stalls in the body": (whole[: head + 12], False, {408}),
            "leaves": (whole, True, set[int]()),
            "says nothing": (b"", True, set[int]()),
        }
        kind = tuple(kinds)[max(0, number % 10 - 5)]
        sends, leaves, statuses = kinds[kind]
        return Client(kind, sends, leaves, texts, frozenset(statuses))

    made = [client(number) for number in range(CLIENTS)]
    words.shuffle(made)
    return made


async def visit(port: int, client: Client) -> bytes:
    """Everything the server sends until it closes; for one who leaves, nothing."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(client.sends)
        await writer.drain()
        if client.leaves:
            writer.transport.abort()
            return b""
        return await reader.read(-1)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def storm(port: int, crowd: list[Client]) -> list[bytes]:
    """Those who stall all stay; of the others some hundreds are there at once, so that no timer of the server ends
    before it has read what was sent. Raises TimeoutError when anybody is left without an answer.
    """
    room = asyncio.Semaphore(AT_ONCE)

    async def turn(client: Client) -> bytes:
        if "stalls" in client.kind:
            return await visit(port, client)
        async with room:
            return await visit(port, client)

    async with asyncio.timeout(PATIENCE_SECONDS):
        return list(await asyncio.gather(*(turn(client) for client in crowd)))


# --- what they got -----------------------------------------------------------------------------------------------


def one_answer(raw: bytes) -> tuple[int, dict[str, Any]]:
    """Status and body of a connection that carried exactly one whole answer and not a byte more."""
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    assert len(body) == int(headers["content-length"]), raw[:200]
    status = int(lines[0].split()[1])
    if status in (429, 503):
        assert float(headers["retry-after"]) > 0
    return status, json.loads(body)


def own_scores(texts: tuple[str, ...]) -> list[float]:
    """What GatedBackend makes of each text's own token ids: nobody else's may come back."""
    tokenizer = tiny_tokenizer()
    totals = [sum(tokenizer.encode(text).ids) / 100 for text in texts]
    return [1 / (1 + math.exp(-2 * total)) for total in totals]


def check(client: Client, raw: bytes) -> str:
    """One client's answer is the one it is owed; how it went, for the count."""
    if client.leaves:
        return "left"
    status, body = one_answer(raw)
    assert status in client.statuses, (client.kind, status, body)
    if status == 200:
        scores = [prediction["scores"]["negative"] for prediction in body["predictions"]]
        assert scores == pytest.approx(own_scores(client.texts))
    else:
        assert body["error"]["code"]
    return f"{client.kind}: {status}"


@pytest.fixture
def served(repository: Path) -> Iterator[tuple[Running, MoodyBackend]]:
    """A server with room for everybody and a backend in a mood."""
    backend = MoodyBackend()
    bounds: dict[str, Any] = {
        "header_timeout_seconds": 5.0,
        "body_timeout_seconds": 5.0,
        "max_connections": 2 * CLIENTS,
    }
    with many_files(), running(repository, loading(backend, workers=2), **bounds) as service:
        yield service, backend


def batcher_of(service: Running) -> Any:
    """The one model's."""
    (served,) = service.server.context.registry.served
    return served.ready_model().batcher


@pytest.mark.timeout(2 * PATIENCE_SECONDS)
def test_everybody_gets_the_one_answer_they_are_owed(served: tuple[Running, MoodyBackend]) -> None:
    service, backend = served
    crowd = clients()
    answers = asyncio.run(storm(service.port, crowd))
    went = Counter(check(client, raw) for client, raw in zip(crowd, answers, strict=True))
    waited = sum(client.kind == "waits" for client in crowd)
    assert sum(count for how, count in went.items() if how.startswith("waits")) == waited >= CLIENTS // 2
    assert went["waits: 200"], went
    assert went["waits: 500"], went
    assert set(backend.MOODS) == set(backend.seen), "every failure was met"

    backend.calm = True
    batcher = batcher_of(service)
    until(lambda: (batcher.waiting, batcher.executing, service.server.context.in_flight) == (0, 0, 0))
    service.wait_until("ready")
    assert [service.predict("good film").status_code for _ in range(20)] == [200] * 20


def test_readiness_tells_when_too_much_hangs_and_when_that_is_over(repository: Path) -> None:
    backend = GatedBackend()
    with running(repository, loading(backend, workers=1)) as service:
        backend.gate.clear()
        assert {service.predict("good film").status_code for _ in range(4)} == {500}
        service.wait_until("failed")
        assert service.client.get("/health/ready").status_code == 503
        assert service.client.get("/health/live").status_code == 503
        assert service.predict("good film").status_code == 503
        backend.gate.set()
        service.wait_until("ready")
        assert service.client.get("/health/live").status_code == 200
        assert service.predict("good film").status_code == 200
