"""Which peers there are, and how each is installed, started and asked."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.wrk import BenchmarkError

_HERE: Final = Path(__file__).parent
_REQUIREMENTS: Final = _HERE / "requirements"
# For one environment: a server that does not answer must not keep the other peers waiting.
_INSTALL_SECONDS: Final = 1200
# Replaced by the open loop's generator with the time of the arrival; any text in the closed loop.
ID: Final = "@ID@"


def plain_body(text: str) -> dict[str, Any]:
    """The body that the drivers of our own choice of format take."""
    return {"id": ID, "text": text}


def list_body(text: str) -> dict[str, Any]:
    """A list of one query, for servers whose batchable endpoints take lists."""
    return {"queries": [plain_body(text)]}


def v2_body(text: str) -> dict[str, Any]:
    """The open inference protocol (KServe's v2): one BYTES tensor that holds one text."""
    return {"id": ID, "inputs": [{"name": "text", "shape": [1, 1], "datatype": "BYTES", "data": [text]}]}


@dataclass(frozen=True)
class Model:
    """What a peer computes with; `precision` says which peak of the machine it could reach."""

    engine: str
    variant: str
    precision: str


YARDSTICK: Final = Model("onnxruntime", "int8 dynamic", "int8")
PIPELINE: Final = Model("torch", "fp32", "fp32")


@dataclass(frozen=True)
class Program:
    """Something that pip does not install, and the Debian package that does."""

    name: str
    package: str


@dataclass(frozen=True)
class Peer:
    """One other server. `arguments` follow `python -m benchmarks.peers.serve_NAME`; {port} is filled in."""

    name: str
    title: str
    path: str = "/predict"
    arguments: tuple[str, ...] = ()
    body: Callable[[str], dict[str, Any]] = plain_body
    model: Model = YARDSTICK
    environ: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[Program, ...] = ()

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

    def why_not(self, which: Callable[[str], str | None] = shutil.which) -> str | None:
        """Why it cannot be had on this machine, or None: it can."""
        missing = [need for need in self.needs if which(need.name) is None]
        return "; ".join(f"needs {need.name}: apt-get install {need.package}" for need in missing) or None


# https://docs.ray.io/en/master/kuberay/user-guides/serve-high-throughput.html
_RAY_FAST: Final = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}

PEERS: Final[tuple[Peer, ...]] = (
    Peer("fastapi-pipeline", "FastAPI + transformers pipeline", model=PIPELINE),
    Peer("fastapi-onnxruntime", "FastAPI `def` + onnxruntime"),
    Peer("mosec", "mosec", "/inference", ("--address", "127.0.0.1", "--port", "{port}")),
    Peer("litserve", "LitServe"),
    Peer("bentoml", "BentoML", body=list_body),
    Peer("ray-serve", "Ray Serve", environ=_RAY_FAST),
    Peer("mlserver", "MLServer", "/v2/models/classify/infer", body=v2_body),
    Peer("torchserve", "TorchServe", "/predictions/classify", needs=(Program("java", "openjdk-17-jre-headless"),)),
    Peer("triton", "Triton (PyTriton)", "/v2/models/classify/infer", body=v2_body),
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
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_INSTALL_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError(f"{' '.join(command[1:4])} was not done within {error.timeout:.0f} s") from error
    if done.returncode != 0:
        raise BenchmarkError(f"{' '.join(command[1:4])} failed: {(done.stderr or done.stdout).strip()[-1000:]}")


def environ_of(
    peer: Peer, model: Path, tokenizer: Path, encoder: Path | None, port: int, counts: Path, root: Path
) -> Mapping[str, str]:
    """What drivers read, and what keeps their libraries from spreading over more threads than configured."""
    found = {
        "PEER_MODEL": str(model),
        "PEER_TOKENIZER": str(tokenizer),
        "PEER_PORT": str(port),
        "PEER_COUNTS": str(counts),
        "PYTHONPATH": str(root),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
        "ORT_DISABLE_TELEMETRY": "1",
        **peer.environ,
    }
    return found if encoder is None else {**found, "PEER_ENCODER": str(encoder)}
