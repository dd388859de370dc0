"""`make image-test`: what the service's image promises, tried on the image that was built.

Size on top of its base, what is in it and what is not, who it runs as, how long until it is ready (the median of three
starts), how it ends; its SBOM. `--target service-openvino` and the like try the other serving images, built before.
Runs inside the engine's network namespace (`tools/container-engine exec`). The last line of standard output is one
JSON document.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.tiny_artifact import publish_tiny
from tools.compose_test import ask, say, wait_for
from tools.simulated.manifests import ROOT, TOOLS
from tools.simulated.model import publish_torchscript

BASE: Final = "python:3.11-slim-bookworm"
READY_WITHIN_SECONDS: Final = 3.0
STARTS: Final = 3
PORT: Final = 18000
_HARDENED: Final = (
    *("--read-only", "--tmpfs", "/tmp:rw,noexec,nosuid,size=64m", "--cap-drop", "ALL"),  # noqa: S108 - inside it
    *("--security-opt", "no-new-privileges", "--pids-limit", "256", "--memory", "1g", "--cpus", "1"),
)


@dataclass(frozen=True)
class Target:
    """One serving image: how it is called, what it may weigh on top of its base, what runs in it on which engine."""

    image: str
    most_megabytes: float
    engine: str = "onnxruntime"
    publish: Callable[[Path], object] = publish_tiny
    absent: tuple[str, ...] = ("compiler", "torch", "training", "pip", "capabilities", "root", "writable")


TARGETS: Final = {
    "service": Target("slipway", 200.0),
    "service-openvino": Target("slipway-openvino", 400.0, "openvino"),
    "service-torch": Target(
        *("slipway-torch", 1000.0, "torchscript", publish_torchscript),
        absent=("compiler", "training", "pip", "capabilities", "root", "writable"),
    ),
}
# Each prints what should not be there.
_ABSENT: Final = {
    "compiler": "command -v gcc cc g++ clang || true",
    "torch": "python -c 'import torch; print(torch)' 2>/dev/null || true",
    "training": "python -c 'import training; print(training)' 2>/dev/null || true",
    "pip": "python -m pip --version 2>/dev/null || true",
    "capabilities": "grep -E '^Cap(Eff|Bnd)' /proc/1/status | grep -v 0000000000000000 || true",
    "root": "id -u | grep '^0$' || true",
    "writable": "for place in / /opt/slipway /models; do touch $place/x 2>/dev/null && echo $place; done; true",
}


def docker(*words: str) -> str:
    """Run docker; its standard output. Raises CalledProcessError."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)  # noqa: S603, S607
    if done.returncode:
        say(f"docker {' '.join(words)}: {done.stderr}")
        done.check_returncode()
    return done.stdout.strip()


def size(image: str) -> float:
    """Megabytes."""
    return int(docker("image", "inspect", "--format", "{{.Size}}", image)) / 1e6


def sbom(image: str, folder: Path) -> int:
    """Packages that syft finds; the document is left in build/sbom.json."""
    archive, document = folder / "image.tar", ROOT / "build" / "sbom.spdx.json"
    docker("save", "-o", str(archive), image)
    document.parent.mkdir(exist_ok=True)
    command = [str(TOOLS / "syft"), "-q", f"docker-archive:{archive}", "-o", f"spdx-json={document}"]
    subprocess.run(command, check=True, env={"SYFT_CHECK_FOR_APP_UPDATE": "false", "HOME": str(folder)})  # noqa: S603
    return len(json.loads(document.read_text(encoding="utf-8"))["packages"])


def life(image: str, models: Path, target: Target) -> dict[str, Any]:
    """Start it hardened, look around, ask it, stop it."""
    name = "slipway-image-test"
    outside = ("-p", f"127.0.0.1:{PORT}:8000", "-v", f"{models}:/models:ro", "-e", f"SLIPWAY_ENGINE={target.engine}")
    url = f"http://127.0.0.1:{PORT}"
    ready: list[float] = []
    try:
        while len(ready) < STARTS:
            docker("rm", "-f", name)
            docker("run", "-d", "--name", name, *_HARDENED, *outside, image)
            ready.append(wait_for("ready", lambda: bool(ask(f"{url}/health/ready")), 30))
        label = ask(f"{url}/predict", {"inputs": "a good film"})["predictions"][0]["label"]
        found = {what: docker("exec", name, "sh", "-c", _ABSENT[what]) for what in target.absent}
        began = time.perf_counter()
        docker("stop", "-t", "45", name)
        status = int(docker("inspect", "--format", "{{.State.ExitCode}}", name))
    finally:
        docker("rm", "-f", name)
    return {
        "ready_seconds": round(statistics.median(ready), 2),
        "ready_seconds_each": [round(each, 2) for each in ready],
        "label": label,
        "stop_seconds": round(time.perf_counter() - began, 1),
        "exit_status": status,
        "found_what_should_not_be_there": {what: text for what, text in found.items() if text},
    }


def lint() -> list[str]:
    """What hadolint says about our Dockerfiles; waivers are in .hadolint.yaml."""
    command = [str(TOOLS / "hadolint"), "--no-color", "Dockerfile", "Dockerfile.model"]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT).stdout.splitlines()  # noqa: S603


def examine(target: Target) -> dict[str, Any]:
    """Everything about one image that is built."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    image = f"{target.image}:{version}"
    with tempfile.TemporaryDirectory(prefix="slipway-image-") as scratch:
        folder = Path(scratch)
        models = folder / "models"
        target.publish(models)
        for path in (folder, *models.rglob("*"), models):
            path.chmod(0o755 if path.is_dir() else 0o644)  # the container's user is another one
        report = {
            "image": image,
            "engine": target.engine,
            "megabytes_above_base": round(size(image) - size(BASE), 1),
            **life(image, models, target),
        }
        return report | {"sbom_packages": sbom(image, folder), "lint": lint()}


def broken(report: dict[str, Any], target: Target) -> list[str]:
    """Which promises were."""
    promises = {
        "megabytes_above_base": report["megabytes_above_base"] <= target.most_megabytes,
        "ready_seconds": report["ready_seconds"] <= READY_WITHIN_SECONDS,
        "exit_status": report["exit_status"] == 0,
        "found_what_should_not_be_there": not report["found_what_should_not_be_there"],
        "lint": not report["lint"],
    }
    return [name for name, kept in promises.items() if not kept]


def main(argv: Sequence[str] | None = None) -> int:
    """Run it, print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", choices=TARGETS, default="service")
    target = TARGETS[parser.parse_args(argv).target]
    report = examine(target)
    problems = broken(report, target)
    for name in problems:
        say(f"BROKEN: {name}")
    sys.stdout.write(f"{json.dumps(report)}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
