"""What each step of getting a model ready adds to a process, measured in this one: `benchmarks.memory` starts it.

Nothing is imported up here but the standard library, so that every import is seen to cost what it costs.

    python -m benchmarks.stages models sentiment [variant]
"""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

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
    yield "Python", look()
    import numpy  # noqa: F401
    import onnxruntime  # noqa: F401
    import tokenizers  # noqa: F401

    yield "numpy, onnxruntime, tokenizers", look()
    import cli.app  # noqa: F401
    import service.server  # noqa: F401
    from service import heap

    heap.use_one_arena()
    yield "FastAPI, uvicorn and all of ours", look()
    from artifact.repository import Repository
    from inference.backends.registry import open_backend
    from inference.layout import read_cpu, usable_cores
    from inference.model import Model
    from inference.plan import default_plan
    from inference.tasks.registry import open_task

    artifact = Repository(repository).open(model)
    yield "artifact opened, every file hashed", look()
    task = open_task(artifact)
    yield "tokenizer", look()
    del task  # the model opens its own
    name = variant or default_plan(artifact.manifest, read_cpu()).variant
    chosen = next(each for each in artifact.manifest.variants if each.name == name)
    backend = open_backend(artifact, chosen, workers=usable_cores())
    yield f"weights of {name}", look()
    warm = Model.assemble(artifact, chosen, backend)
    warm.check_golden()
    warm.warm_up()
    heap.give_back()
    yield "golden answers and warm-up", look()
    warm.close()


if __name__ == "__main__":
    found = stages(Path(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None)
    print(json.dumps([(name, asdict(sizes)) for name, sizes in found]))
