"""`make image-test`: what the service's image promises, tried on the image that was built.

Size on top of its base, what is in it and what is not, who it runs as, how long until it is ready, how it ends; its
SBOM. Runs inside the engine's network namespace (`tools/container-engine exec`). The last line of standard output is
one JSON document.
"""

import json
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any, Final

from tests.tiny_artifact import publish_tiny
from tools.compose_test import ask, say, wait_for
from tools.simulated.manifests import ROOT, TOOLS

BASE: Final = "python:3.11-slim-bookworm"
MOST_MEGABYTES: Final = 200.0
READY_WITHIN_SECONDS: Final = 3.0
PORT: Final = 18000
_HARDENED: Final = (
    *("--read-only", "--tmpfs", "/tmp:rw,noexec,nosuid,size=64m", "--cap-drop", "ALL"),  # noqa: S108 - inside it
    *("--security-opt", "no-new-privileges", "--pids-limit", "256", "--memory", "1g", "--cpus", "1"),
)
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


def life(image: str, models: Path) -> dict[str, Any]:
    """Start it hardened, look around, ask it, stop it."""
    name = "slipway-image-test"
    docker("run", "-d", "--name", name, *_HARDENED, "-p", f"127.0.0.1:{PORT}:8000", "-v", f"{models}:/models:ro", image)
    began = time.perf_counter()
    try:
        url = f"http://127.0.0.1:{PORT}"
        ready = wait_for("ready", lambda: bool(ask(f"{url}/health/ready")), 30)
        label = ask(f"{url}/predict", {"inputs": "a good film"})["predictions"][0]["label"]
        found = {what: docker("exec", name, "sh", "-c", command) for what, command in _ABSENT.items()}
        began = time.perf_counter()
        docker("stop", "-t", "45", name)
        status = int(docker("inspect", "--format", "{{.State.ExitCode}}", name))
    finally:
        docker("rm", "-f", name)
    return {
        "ready_seconds": round(ready, 2),
        "label": label,
        "stop_seconds": round(time.perf_counter() - began, 1),
        "exit_status": status,
        "found_what_should_not_be_there": {what: text for what, text in found.items() if text},
    }


def lint() -> list[str]:
    """What hadolint says about our Dockerfiles; waivers are in .hadolint.yaml."""
    command = [str(TOOLS / "hadolint"), "--no-color", "Dockerfile", "Dockerfile.model"]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT).stdout.splitlines()  # noqa: S603


def main() -> int:
    """Run it, print what was seen."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    image = f"slipway:{version}"
    with tempfile.TemporaryDirectory(prefix="slipway-image-") as scratch:
        folder = Path(scratch)
        models = folder / "models"
        publish_tiny(models)
        for path in (folder, *models.rglob("*"), models):
            path.chmod(0o755 if path.is_dir() else 0o644)  # the container's user is another one
        report = {"megabytes_above_base": round(size(image) - size(BASE), 1), **life(image, models)}
        report |= {"sbom_packages": sbom(image, folder), "lint": lint()}
    sys.stdout.write(f"{json.dumps(report)}\n")
    promises = (
        report["megabytes_above_base"] <= MOST_MEGABYTES,
        report["ready_seconds"] <= READY_WITHIN_SECONDS,
        report["exit_status"] == 0,
        not report["found_what_should_not_be_there"],
        not report["lint"],
    )
    return 0 if all(promises) else 1


if __name__ == "__main__":
    sys.exit(main())
