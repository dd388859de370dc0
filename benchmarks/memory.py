"""Where the memory of a served model is: step by step while a process gets ready, and of the real server under load.

    python -m benchmarks.memory --repository models --model sentiment

The first table is a process of its own that does what the server does, one thing after the other. The second is
`slipway serve` when it is ready and after each kind of load. `resident` is what the kernel counts against a container
while pages are in use; `own` are the pages that only this process holds and that would have to be swapped, `mapped`
those of files, which the kernel can drop and which processes share. The last line is one JSON document.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from artifact.repository import Repository
from benchmarks import machine
from benchmarks.http import bodies_of
from benchmarks.limit import add_model_arguments, open_workload
from benchmarks.process import Server, free_port, probe_body, running
from benchmarks.stages import Sizes, weigh
from benchmarks.wrk import run_closed

_MEGA: Final = 1e6
_CLIENTS: Final = 32
_CLIENTS_OF_MANY: Final = 4  # who send 32 texts each


def print_table(title: str, rows: Sequence[tuple[str, Sizes]], *, growing: bool) -> None:
    """One line a row, in MB."""
    print(f"\n{title + ', MB':<38} {'resident':>9} {'own':>8} {'mapped':>8} {'added' if growing else 'pss':>8}")
    before = 0
    for name, sizes in rows:
        last = sizes.resident - before if growing else sizes.pss
        columns = (sizes.resident, sizes.own, sizes.mapped, last)
        print(f"{name:<38} " + " ".join(f"{column / _MEGA:8.1f}" for column in columns))
        before = sizes.resident


def stages_elsewhere(repository: Path, model: str, variant: str | None) -> list[tuple[str, Sizes]]:
    """`benchmarks.stages` in a process that has loaded nothing else yet."""
    words = [sys.executable, "-m", "benchmarks.stages", str(repository), model, *([variant] if variant else [])]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return [(name, Sizes(**sizes)) for name, sizes in json.loads(done.stdout.splitlines()[-1])]


@contextmanager
def served(options: argparse.Namespace, folder: Path, probe: str) -> Iterator[Server]:
    """`slipway serve` of this source tree."""
    port = free_port()
    words = [sys.executable, "-m", "cli", "serve", "--repository", str(options.repository), "--port", str(port)]
    words += ["--default-model", options.model, *(["--variant", options.variant] if options.variant else [])]
    with running(words, port=port, probe=probe_body(probe), log=folder / "serve.log") as server:
        yield server


def under_load(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Sizes]]:
    """The server's memory when ready and after each load. Raises BenchmarkError."""
    workload = open_workload(Repository(options.repository).open(options.model), options.texts)
    bodies = bodies_of(workload, folder)
    with served(options, folder, workload.short[0]) as server:
        yield "ready", weigh(server.pid)
        for kind, clients in (("short", _CLIENTS), ("long", _CLIENTS), ("mixed", _CLIENTS_OF_MANY)):
            load = run_closed(server.url, bodies[kind], clients=clients, seconds=options.seconds)
            yield f"{kind} texts, {clients} clients, {load.requests} requests", weigh(server.pid)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print both tables. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Where the memory of a served model is.")
    add_model_arguments(parser)
    parser.add_argument("--seconds", type=int, default=10, help="of each load")
    options = parser.parse_args(arguments)
    getting_ready = stages_elsewhere(options.repository, options.model, options.variant)
    print_table("getting ready", getting_ready, growing=True)
    with tempfile.TemporaryDirectory(prefix="slipway-memory-") as scratch:
        loaded = list(under_load(options, Path(scratch)))
    print_table("slipway serve", loaded, growing=False)
    tables: dict[str, Any] = {
        title: {name: asdict(sizes) for name, sizes in rows}
        for title, rows in (("getting_ready", getting_ready), ("served", loaded))
    }
    most = max(sizes.resident for _, sizes in loaded) / _MEGA
    print(
        json.dumps({"memory_mb": round(most, 1), **tables, "machine": machine.describe("python -m benchmarks.memory")})
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
