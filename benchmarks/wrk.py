"""The load generator: wrk (https://github.com/wg/wrk), driven by wrk.lua. It costs about 20 us of CPU a request."""

import json
import resource
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.figures import percentile

_SCRIPT: Final = Path(__file__).with_name("wrk.lua")
# A server that is at its limit still answers within this.
_TIMEOUT_SECONDS: Final = 15
# After the time it was given, for wrk to end.
_GRACE_SECONDS: Final = 60
_MICRO: Final = 1e-6
_KINDS: Final = {0: "sent", 429: "refused", 503: "refused"}


class BenchmarkError(Exception):
    """A measurement that cannot be made or trusted. Ends the program with this message."""


@dataclass(frozen=True)
class Load:
    """One closed-loop run. Latencies are wrk's, which fill in what a slow answer kept from being sent.

    `failed` has the `refused` in it only where they were not counted.
    """

    clients: int
    requests: int
    seconds: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    mean_ms: float
    failed: int
    client_cpu_seconds: float
    refused: int = 0

    @property
    def rate(self) -> float:
        """Requests answered per second."""
        return self.requests / self.seconds


@dataclass(frozen=True)
class Arrivals:
    """One open-loop run, over the arrivals that had time to be answered. Latency counts from the arrival."""

    offered_rate: float
    seconds: float
    accepted_ms: tuple[float, ...]
    refused: int
    failed: int
    unanswered: int
    sent_late: int
    client_cpu_seconds: float

    @property
    def answered(self) -> int:
        """Arrivals that got any answer."""
        return len(self.accepted_ms) + self.refused + self.failed

    def goodput(self, deadline_ms: float) -> float:
        """Accepted answers within the deadline, per second."""
        return sum(latency <= deadline_ms for latency in self.accepted_ms) / self.seconds

    def latency_ms(self, percent: float) -> float:
        """A percentile of the accepted; 0 when nothing was accepted."""
        return percentile(self.accepted_ms, percent) if self.accepted_ms else 0.0


def run_closed(
    url: str, bodies: Path, *, clients: int, seconds: int, path: str = "/predict", count_refused: bool = False
) -> Load:
    """Keep `clients` connections busy for `seconds`. Raises BenchmarkError when wrk cannot run.

    With `count_refused`, answers 429, 503 and 504 do not count as failed: the server said that it was too slow.
    """
    words = [f"bodies={bodies}", f"path={path}", *(["refused=count"] if count_refused else [])]
    document, cpu = _run(url, clients, seconds, words)
    return parse_closed(document, clients, cpu)


def run_open(
    url: str,
    bodies: Path,
    samples: Path,
    *,
    rate: float,
    seconds: int,
    deadline_seconds: float,
    connections: int = 700,
    path: str = "/predict",
    id_in: str = "header",
    seed: int = 7,
) -> Arrivals:
    """Offer `rate` requests a second as a Poisson process. `samples` receives one line an answer.

    Arrivals in the last `deadline_seconds`, and in the first half second, are not counted.
    """
    words = [
        f"bodies={bodies}",
        f"path={path}",
        f"rate={rate:.3f}",
        f"samples={samples}",
        f"id={id_in}",
        f"seed={seed}",
    ]
    document, cpu = _run(url, connections, seconds, words)
    window = (0.5, seconds - deadline_seconds - 0.1)
    return parse_open(document, samples.read_text(encoding="ascii"), rate, window, cpu)


def _run(url: str, clients: int, seconds: int, words: Sequence[str]) -> tuple[dict[str, float], float]:
    """The JSON line of wrk.lua, and the CPU seconds that wrk itself used."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise BenchmarkError("wrk is not installed: apt-get install wrk (or build https://github.com/wg/wrk)")
    command = [wrk, "-t1", f"-c{clients}", f"-d{seconds}s", f"--timeout={_TIMEOUT_SECONDS}s", "-s", str(_SCRIPT), url]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        done = subprocess.run(
            [*command, "--", *words], capture_output=True, text=True, timeout=seconds + _GRACE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError(f"wrk did not end within {error.timeout:.0f} s") from error
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise BenchmarkError(f"wrk failed: {(done.stderr or done.stdout).strip()[-500:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return last_json(done.stdout), cpu


def last_json(text: str) -> dict[str, float]:
    """The last line of a program's output, which is one JSON document. Raises BenchmarkError."""
    lines = text.strip().splitlines()
    try:
        found = json.loads(lines[-1])
    except (IndexError, ValueError) as error:
        raise BenchmarkError(f"no JSON in the last line: {lines[-1:] or 'nothing'}") from error
    if not isinstance(found, dict):
        raise BenchmarkError("the last line is not a JSON object")
    return found


def parse_closed(document: dict[str, float], clients: int, cpu_seconds: float) -> Load:
    """A closed-loop run from wrk.lua's document."""
    refused = int(document.get("refused", 0))
    return Load(
        clients=clients,
        requests=int(document["requests"]),
        seconds=document["seconds"],
        p50_ms=document["p50_us"] / 1000,
        p90_ms=document["p90_us"] / 1000,
        p99_ms=document["p99_us"] / 1000,
        max_ms=document["max_us"] / 1000,
        mean_ms=document["mean_us"] / 1000,
        failed=int(document["not_2xx"] + document["socket_errors"] + document["timeouts"]) - refused,
        client_cpu_seconds=cpu_seconds,
        refused=refused,
    )


def parse_open(
    document: dict[str, float], samples: str, rate: float, window: tuple[float, float], cpu_seconds: float
) -> Arrivals:
    """An open-loop run from the samples (`status arrival_us latency_us` a line, status 0 when sent) and wrk's document.

    Refused are 429 and 503; failed is every other status but 200. An answer without its arrival's time (a refusal
    by a server that does not echo ids) is counted in proportion to the window.
    """
    start, end = (edge / _MICRO for edge in window)
    accepted: list[float] = []
    counts = {"sent": 0.0, "refused": 0.0, "failed": 0.0}
    share = (window[1] - window[0]) / document["seconds"]
    for line in samples.splitlines():
        status, arrival, latency = map(int, line.split())
        if arrival >= 0 and not start <= arrival < end:
            continue
        if status == 200 and arrival >= 0:
            accepted.append(latency / 1000)
        else:
            counts[_KINDS.get(status, "failed")] += 1.0 if arrival >= 0 else share
    answered = len(accepted) + counts["refused"] + counts["failed"]
    return Arrivals(
        offered_rate=rate,
        seconds=window[1] - window[0],
        accepted_ms=tuple(accepted),
        refused=round(counts["refused"]),
        failed=round(counts["failed"]),
        unanswered=max(0, round(counts["sent"] - answered)),
        sent_late=int(document["sent_late"]),
        client_cpu_seconds=cpu_seconds,
    )
