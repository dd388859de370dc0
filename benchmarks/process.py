"""A server under measurement: started as a process of its own, asked until it answers, weighed, stopped."""

import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.wrk import BenchmarkError

_PROC: Final = Path("/proc")
_TICK: Final = 1 / os.sysconf("SC_CLK_TCK")
_MEGA: Final = 1e6
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
# Threads of numeric libraries are the server's own business: what the caller's shell asks for must not decide.
_NOT_PASSED_ON: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_WAIT_POLICY")


@dataclass(frozen=True)
class Weight:
    """Of a process and its descendants. `pss` shares what several of them map; `rss` counts it every time."""

    rss_bytes: int
    pss_bytes: int
    open_files: int
    processes: int


def weights(weight: Weight) -> dict[str, Any]:
    """The same for a result, in MB."""
    return {
        "memory_mb": round(weight.rss_bytes / _MEGA, 1),
        "memory_pss_mb": round(weight.pss_bytes / _MEGA, 1),
        "processes": weight.processes,
    }


@dataclass(frozen=True)
class Server:
    """A running server. `started` is when its process was asked for, on the monotonic clock."""

    pid: int
    port: int
    log: Path
    started: float
    first_answer_seconds: float

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def cpu_seconds(self) -> float:
        """User and system time so far, descendants included."""
        return sum(_cpu_seconds(pid) for pid in family(self.pid))

    def settled_cpu_seconds(self, *, still_seconds: float = 0.1, limit_seconds: float = 5.0) -> float:
        """The same once it no longer grows: callers who left at a run's end may still be worked for."""
        end = time.monotonic() + limit_seconds
        before, now = -1.0, self.cpu_seconds()
        while now > before and time.monotonic() < end:
            time.sleep(still_seconds)
            before, now = now, self.cpu_seconds()
        return now

    def weigh(self) -> Weight:
        """Memory and open files right now."""
        pids = family(self.pid)
        return Weight(
            rss_bytes=sum(_rss(pid) for pid in pids),
            pss_bytes=sum(_pss(pid) for pid in pids),
            open_files=sum(_open_files(pid) for pid in pids),
            processes=len(pids),
        )

    def get(self, path: str) -> str:
        """The body of a GET, e.g. of /metrics."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()


@contextmanager
def running(
    command: Sequence[str],
    *,
    port: int,
    probe: bytes | None,
    log: Path,
    path: str = "/predict",
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
    start_seconds: float = 120.0,
) -> Iterator[Server]:
    """Start `command`, post `probe` to `path` until that is answered with 200, hand it over, and stop it in the end.

    Without a probe `path` is only asked for with GET, so that the first request is still to come. Raises
    BenchmarkError, with the end of its log, when it ends or does not answer within `start_seconds`.
    """
    kept = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED_ON}
    with log.open("wb") as out:
        started = time.monotonic()
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env={**kept, **(environ or {})}, cwd=folder,
            start_new_session=True,
        )  # fmt: skip
        try:
            seconds = _first_answer(process, port, path, probe, started, start_seconds, log)
            yield Server(process.pid, port, log, started, seconds)
        finally:
            stop(process)


@contextmanager
def no_longer_than(server: Server, seconds: float) -> Iterator[None]:
    """End the server when the block takes longer, so that whatever waits for it fails. Raises BenchmarkError then."""
    over = threading.Event()

    def end() -> None:
        over.set()
        _kill(family(server.pid))

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as error:
        if not over.is_set():
            raise
        raise BenchmarkError(_too_slow(seconds)) from error
    finally:
        timer.cancel()
    if over.is_set():
        raise BenchmarkError(_too_slow(seconds))


def _too_slow(seconds: float) -> str:
    return f"it was not done within {seconds:.0f} s, and was ended"


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _first_answer(
    process: "subprocess.Popen[bytes]",
    port: int,
    path: str,
    probe: bytes | None,
    started: float,
    limit: float,
    log: Path,
) -> float:
    while (waited := time.monotonic() - started) < limit:
        if process.poll() is not None:
            raise BenchmarkError(f"{process.args!s:.200} ended with {process.returncode}: {_tail(log)}")
        if post(port, path, probe, timeout=limit - waited) == 200:
            return time.monotonic() - started
        time.sleep(0.005)
    raise BenchmarkError(f"{process.args!s:.200} did not answer within {limit:.0f} s: {_tail(log)}")


def post(port: int, path: str, body: bytes | None, *, timeout: float = 10) -> int:
    """The status of one POST, of a GET without a body; 0 when nobody listens or the connection breaks."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET" if body is None else "POST", path, body, {"content-type": "application/json"})
        response = connection.getresponse()
        response.read()
    except (OSError, http.client.HTTPException):
        return 0
    else:
        return response.status
    finally:
        connection.close()


def stop(process: "subprocess.Popen[bytes]", *, grace_seconds: float = 15) -> None:
    """SIGINT (no drain delay), then SIGTERM, then SIGKILL to what is left of its session."""
    left = {pid for pid in family(process.pid) if pid != process.pid}
    for number, seconds in ((signal.SIGINT, grace_seconds), (signal.SIGTERM, grace_seconds), (signal.SIGKILL, 5)):
        if process.poll() is not None:
            break
        process.send_signal(number)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
    _kill(left & set(_session(process.pid)))


def free_port() -> int:
    """A TCP port nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def family(pid: int) -> list[int]:
    """`pid` and its descendants that are alive, and whoever else is in its session (daemons that left their parent)."""
    found = set(_session(pid))
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        found.add(one)
        waiting += _children(one)
    return sorted(one for one in found if (_PROC / str(one)).exists())


def _children(pid: int) -> list[int]:
    try:
        tasks = list((_PROC / str(pid) / "task").iterdir())
    except OSError:
        return []
    found: list[int] = []
    for task in tasks:
        found += map(int, _read(task / "children").split())
    return found


def _session(leader: int) -> list[int]:
    """Processes whose session's leader is `leader`."""
    pids = (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal())
    return [pid for pid in pids if (fields := _stat(pid)) and int(fields[3]) == leader]


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat after the command name, which may hold spaces: state is the first (proc(5))."""
    return _read(_PROC / str(pid) / "stat").rpartition(")")[2].split()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _cpu_seconds(pid: int) -> float:
    """utime, stime, and those of children it has already waited for."""
    fields = _stat(pid)
    return sum(map(int, fields[11:15])) * _TICK if fields else 0.0


def _rss(pid: int) -> int:
    fields = _read(_PROC / str(pid) / "statm").split()
    return int(fields[1]) * _PAGE if fields else 0


def _pss(pid: int) -> int:
    for line in _read(_PROC / str(pid) / "smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _open_files(pid: int) -> int:
    try:
        return len(list((_PROC / str(pid) / "fd").iterdir()))
    except OSError:
        return 0


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-1500:].strip() or "it said nothing"


def probe_body(text: str) -> bytes:
    """The smallest request: one text."""
    return json.dumps({"inputs": [text]}).encode()
