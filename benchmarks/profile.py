"""`make profile`: where the served model's CPU time goes, by thread, and as a flame graph.

    python -m benchmarks.profile --repository models --model sentiment

The event loop is the process's first thread, the others are workers; the kernel counts what each used while wrk asked
short texts. Then py-spy samples them at 32 clients for docs/images/serve-profile.svg. Sampling slows the service down:
the table is what to reckon with, the picture is for looking. Ends with one JSON document.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from artifact.repository import Repository
from benchmarks.http import SHORT_CLIENTS, Target, bodies_of, run_load, slipway
from benchmarks.limit import add_model_arguments, open_workload
from benchmarks.wrk import BenchmarkError

FLAME: Final = Path(__file__).parent.parent / "docs" / "images" / "serve-profile.svg"
_PY_SPY: Final = Path(sys.executable).with_name("py-spy")
_TICK: Final = 1 / os.sysconf("SC_CLK_TCK")
_FLAME_CLIENTS: Final = 32


def cpu_by_thread(pid: int) -> dict[int, float]:
    """User and system seconds of every thread of a process so far, by thread id; the first thread's is the pid."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        fields = (task / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        found[int(task.name)] = (int(fields[11]) + int(fields[12])) * _TICK
    return found


def split(pid: int, before: dict[int, float], after: dict[int, float], requests: int) -> dict[str, float]:
    """CPU milliseconds per request of the event loop and of all other threads, between two readings."""
    used = {thread: seconds - before.get(thread, 0.0) for thread, seconds in after.items()}
    loop = used.pop(pid, 0.0)
    return {"loop_ms": 1000 * loop / requests, "workers_ms": 1000 * sum(used.values()) / requests}


def draw(target: Target, seconds: int, out: Path) -> None:
    """Sample the server under load into a flame graph. Raises BenchmarkError when it cannot be read."""
    words = [str(_PY_SPY), "record", "--pid", str(target.server.pid), "--duration", str(seconds), "--output", str(out)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as sampler:
        run_load(target, "short", _FLAME_CLIENTS, seconds + 1)
        if sampler.wait():
            raise BenchmarkError("py-spy could not read the process: it needs root, or ptrace allowed")
    # py-spy writes its command line into the picture: other machines' paths are nobody's business.
    out.write_text(out.read_text(encoding="utf-8").replace(" ".join(words), "py-spy record"), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Profile. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Where the service's CPU time goes.")
    add_model_arguments(parser)
    parser.add_argument("--seconds", type=int, default=5, help="of each load")
    parser.add_argument("--flame", type=Path, default=FLAME)
    options = parser.parse_args(arguments)
    workload = open_workload(Repository(options.repository).open(options.model), options.texts)
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="slipway-profile-") as scratch:
        folder = Path(scratch)
        with slipway(options.repository, options.model, options.variant, folder, workload.short[0]) as server:
            target = Target("slipway", server, bodies_of(workload, folder))
            run_load(target, "short", _FLAME_CLIENTS, 1)
            for clients in SHORT_CLIENTS:
                before = cpu_by_thread(server.pid)
                run = run_load(target, "short", clients, options.seconds)
                found[str(clients)] = split(server.pid, before, cpu_by_thread(server.pid), run["requests"])
            draw(target, options.seconds, options.flame)
    print("clients   event loop, ms CPU a request   workers, ms CPU a request")
    for name, each in found.items():
        print(f"{name:>7}   {each['loop_ms']:28.3f}   {each['workers_ms']:25.3f}")
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
