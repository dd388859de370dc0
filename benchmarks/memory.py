"""Where the memory of a served model is: step by step while a process gets ready, and of the real server under load.

    python -m benchmarks.memory --repository models --model sentiment

The first table is a process of its own that does what the server does, one thing after the other. The second is
`slipway serve` when it is ready and after each kind of load. `resident` is what the kernel counts against a container
while pages are in use; `own` are the pages that only this process holds and that would have to be swapped, `mapped`
those of files, which the kernel can drop and which processes share. The last line is one JSON document.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from artifact.repository import Repository
from benchmarks import machine
from benchmarks.http import bodies_of
from benchmarks.limit import add_model_arguments, open_workload
from benchmarks.process import Server, free_port, probe_body, running
from benchmarks.wrk import run_closed

_MEGA: Final = 1e6
_CLIENTS: Final = 32
_CLIENTS_OF_MANY: Final = 4  # who send 32 texts each
_ROLLUP: Final = re.compile(r"^(Rss|Pss|Anonymous):\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True)
class Sizes:
    """Memory of one process in bytes. `pss` counts a page by how many processes share it."""

    resident: int
    own: int
    pss: int

    @property
    def mapped(self) -> int:
        """Resident pages of files."""
        return self.resident - self.own


def sizes_of(rollup: str) -> Sizes:
    """Read from the text of `/proc/PID/smaps_rollup` (proc(5))."""
    found = {name: 1024 * int(number) for name, number in _ROLLUP.findall(rollup)}
    return Sizes(found["Rss"], found["Anonymous"], found["Pss"])


def weigh(pid: int | str) -> Sizes:
    """Memory of a running process."""
    return sizes_of(Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii"))


def stages(repository: Path, model: str, variant: str | None) -> Iterator[tuple[str, Sizes]]:
    """Get a model ready in this process, one step at a time. Only in a fresh process do the figures mean anything."""
    look = partial(weigh, "self")
    yield "Python and this module", look()
    import service.app
    import service.server  # noqa: F401

    yield "imports of the service", look()
    from inference.backends.registry import open_backend
    from inference.layout import read_cpu, usable_cores
    from inference.model import Model
    from inference.plan import default_plan
    from inference.tasks.registry import open_task

    artifact = Repository(repository).open(model)
    yield "artifact opened, every file hashed", look()
    open_task(artifact)
    yield "tokenizer", look()
    name = variant or default_plan(artifact.manifest, read_cpu()).variant
    chosen = next(each for each in artifact.manifest.variants if each.name == name)
    backend = open_backend(artifact, chosen, workers=usable_cores())
    yield f"weights of {name}", look()
    warm = Model.assemble(artifact, chosen, backend)
    warm.check_golden()
    warm.warm_up()
    yield "golden answers and warm-up", look()
    warm.close()


def print_table(title: str, rows: Sequence[tuple[str, Sizes]], *, growing: bool) -> None:
    """One line a row, in MB."""
    print(f"\n{title + ', MB':<38} {'resident':>9} {'own':>8} {'mapped':>8} {'added' if growing else 'pss':>8}")
    before = 0
    for name, sizes in rows:
        last = sizes.resident - before if growing else sizes.pss
        columns = (sizes.resident, sizes.own, sizes.mapped, last)
        print(f"{name:<38} " + " ".join(f"{column / _MEGA:8.1f}" for column in columns))
        before = sizes.resident


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
    parser.add_argument("--stages", action="store_true", help="only the first table, as JSON, measured in this process")
    options = parser.parse_args(arguments)
    if options.stages:
        found = [(name, asdict(sizes)) for name, sizes in stages(options.repository, options.model, options.variant)]
        print(json.dumps(found))
        return 0
    getting_ready = _stages_elsewhere(sys.argv[1:] if arguments is None else arguments)
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


def _stages_elsewhere(arguments: Sequence[str]) -> list[tuple[str, Sizes]]:
    """`stages` in a process that has loaded nothing else yet."""
    words = [sys.executable, "-m", "benchmarks.memory", *arguments, "--stages"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return [(name, Sizes(**sizes)) for name, sizes in json.loads(done.stdout.splitlines()[-1])]


if __name__ == "__main__":
    sys.exit(main())
