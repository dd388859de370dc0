"""Which peers there are, and how each is installed, started and asked."""

import hashlib
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.wrk import BenchmarkError

_HERE: Final = Path(__file__).parent
_REQUIREMENTS: Final = _HERE / "requirements"
# Replaced by the open loop's generator with the time of the arrival; any text in the closed loop.
ID: Final = "@ID@"


def plain_body(text: str) -> dict[str, Any]:
    """The body that the drivers of our own choice of format take."""
    return {"id": ID, "text": text}


@dataclass(frozen=True)
class Peer:
    """One other server. `arguments` follow `python -m benchmarks.peers.serve_NAME`; {port} is filled in."""

    name: str
    title: str
    path: str = "/predict"
    arguments: tuple[str, ...] = ()
    body: Callable[[str], dict[str, Any]] = plain_body

    @property
    def module(self) -> str:
        """Its driver."""
        return f"benchmarks.peers.serve_{self.name.replace('-', '_')}"

    @property
    def requirements(self) -> Path:
        """Its pinned packages."""
        return _REQUIREMENTS / f"{self.name}.txt"

    def command(self, python: Path, port: int) -> list[str]:
        """What starts it."""
        return [str(python), "-m", self.module, *(word.format(port=port) for word in self.arguments)]


PEERS: Final[tuple[Peer, ...]] = (
    Peer("fastapi-pipeline", "FastAPI + transformers pipeline"),
    Peer("fastapi-onnxruntime", "FastAPI `def` + onnxruntime"),
    Peer("mosec", "mosec", "/inference", ("--address", "127.0.0.1", "--port", "{port}")),
    Peer("litserve", "LitServe"),
)


def choose(names: Sequence[str]) -> list[Peer]:
    """The named peers, or all. Raises BenchmarkError for an unknown name."""
    known = {peer.name: peer for peer in PEERS}
    if unknown := sorted(set(names) - known.keys()):
        raise BenchmarkError(f"no peer called {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in names] if names else list(PEERS)


def environment(peer: Peer, folder: Path, index: Sequence[str] = ()) -> Path:
    """The peer's Python, in a virtual environment made once for each version of its requirements.

    `index` are further options for pip. Raises BenchmarkError with the end of pip's output.
    """
    home = folder / peer.name
    python, stamp = home / "bin" / "python", home / "installed"
    wanted = hashlib.sha256(peer.requirements.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text(encoding="ascii") == wanted:
        return python
    print(f"installing {peer.title} into {home.name}", flush=True)
    _run([sys.executable, "-m", "venv", "--clear", str(home)])
    _run([str(python), "-m", "pip", "install", "--quiet", *index, "--requirement", str(peer.requirements)])
    stamp.write_text(wanted, encoding="ascii")
    return python


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"{' '.join(command[1:4])} failed: {(done.stderr or done.stdout).strip()[-1000:]}")


def environ_of(model: Path, tokenizer: Path, encoder: Path | None, port: int, root: Path) -> Mapping[str, str]:
    """What drivers read, and what keeps their libraries from spreading over more threads than configured."""
    found = {
        "PEER_MODEL": str(model),
        "PEER_TOKENIZER": str(tokenizer),
        "PEER_PORT": str(port),
        "PYTHONPATH": str(root),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
    }
    return found if encoder is None else {**found, "PEER_ENCODER": str(encoder)}
