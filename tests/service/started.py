"""A program of ours in a process of its own, with the log lines that it writes."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import httpx

from tests.service.fakes import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
Line = dict[str, object]


@dataclass
class Started:
    """A process whose log lines are read as they come."""

    handle: "subprocess.Popen[str]"
    lines: "queue.Queue[Line | None]" = field(default_factory=queue.Queue)
    seen: list[Line] = field(default_factory=list)
    url: str = ""

    def read(self) -> None:
        assert self.handle.stderr is not None
        for line in self.handle.stderr:
            with contextlib.suppress(ValueError):
                self.lines.put(json.loads(line))
        self.lines.put(None)

    def wait_for(self, event: str, times: int = 1) -> list[Line]:
        """The next log lines of that event."""
        found: list[Line] = []
        while len(found) < times:
            line = self.lines.get(timeout=PATIENCE_SECONDS)
            assert line is not None, f"it ended before {event!r}: {self.seen}"
            self.seen.append(line)
            if line["event"] == event:
                found.append(line)
        return found

    def send(self, number: signal.Signals) -> None:
        self.handle.send_signal(number)

    def status(self) -> int:
        return self.handle.wait(PATIENCE_SECONDS)

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        self.send(number)
        return self.status()

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=PATIENCE_SECONDS, trust_env=False, verify=False)


AnyStarted = TypeVar("AnyStarted", bound=Started)


@contextlib.contextmanager
def started(kind: type[AnyStarted], program: str, *, variables: Line, settings: Line) -> Iterator[AnyStarted]:
    """Start `program`, wait until it listens; make sure that it and its children are gone afterwards."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLIPWAY_")}
    environment |= {name: str(value) for name, value in variables.items()}
    environment |= {f"SLIPWAY_{name.upper()}": str(value) for name, value in settings.items()}
    handle = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program], stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    )
    running = kind(handle)
    reader = threading.Thread(target=running.read)
    reader.start()
    try:
        running.url = str(running.wait_for("listening")[0]["url"])
        yield running
    finally:
        if handle.poll() is None:
            handle.kill()
        handle.wait(PATIENCE_SECONDS)
        reader.join(PATIENCE_SECONDS)
        assert not reader.is_alive(), "a child outlived its parent"
        if handle.stderr is not None:
            handle.stderr.close()
