"""What `.ci/run` runs once the environment stands: every stage into a log of its own, one line each, then `make test`.

The test runner's summary is the last thing printed, so the tests come last and speak for themselves. A stage that
fails shows the end of its log, and the others still run. Status 0 when everything passed. SKIP_CONTAINERS=1 leaves
out what needs a container engine; without it a machine where none can be started fails.
"""

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools.simulated.manifests import ROOT
from tools.simulated.model import publish_for_ci

LOGS: Final = ROOT / "build" / "ci"
MODELS: Final = LOGS / "models"
TEXTS: Final = LOGS / "texts.txt"
TAIL_LINES: Final = 40
_CLEAN_UP_SECONDS: Final = 10.0
_ENDING: Final = (signal.SIGINT, signal.SIGTERM)
# Debian's package for each program that a stage starts; kubectl, checkov and the linters come through tools/toolbox.
PACKAGES: Final = {
    "haproxy": "haproxy",
    "prometheus": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "npm": "npm",
    "wrk": "wrk",
}


@dataclass(frozen=True)
class Stage:
    """One shell command, run in the repository's root. A stage whose `needs` failed is not tried."""

    name: str
    command: str
    containers: bool = False
    needs: str = ""
    most_seconds: float = 900.0


STAGES: Final = (
    Stage("k8s-test", "make k8s-test"),
    Stage("monitoring-test", "make monitoring-test"),
    Stage("hpa-test", f"make hpa-test PLOT={LOGS / 'hpa-step.png'}"),
    # CI's cores are not its own: the ratio of latencies is in the log, a lost request fails.
    Stage("rollout-test", "make rollout-test ROLLOUT_FLAGS=--any-latency"),
    Stage(
        "soak",
        f"{sys.executable} -m benchmarks.soak --repository {MODELS} --texts {TEXTS} --minutes 1 --results {LOGS}",
    ),
    Stage(
        "engine",
        "tools/container-engine install && tools/container-engine build && tools/container-engine base",
        containers=True,
    ),
    Stage(
        "images",
        'eval "$(tools/container-engine env)" && make image DOCKER_FLAGS=--network=host'
        f" && make model-image MODELS={MODELS} DOCKER_FLAGS=--network=host && tools/container-engine run",
        containers=True,
        needs="engine",
    ),
    Stage("image-test", "make image-test", containers=True, needs="images"),
    Stage("compose-test", "make compose-test", containers=True, needs="images"),
)
AFTERWARDS: Final = Stage("engine-stop", "tools/container-engine stop", containers=True, needs="engine")


def say(text: str) -> None:
    """One line, at once: CI's page shows how far it is."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def install(packages: dict[str, str] = PACKAGES) -> str:
    """The command that installs what this machine lacks; empty where it lacks nothing."""
    found = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    lacking = sorted({package for program, package in packages.items() if shutil.which(program, path=found) is None})
    if not lacking:
        return ""
    quietly = "DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends"
    return f"apt-get update -qq && {quietly} {' '.join(lacking)}"


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End the leader of a process group and everybody in it: politely, then for good."""
    os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_CLEAN_UP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # Not `process.wait`: a signal inside an earlier one may have left its lock taken, and this would wait for ever.
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process.pid, 0)


def leave_on_sigterm() -> None:
    """Let SIGTERM unwind this process as Ctrl-C does, so that it leaves no stage behind; status 143."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def _take_signals() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)


def run(stage: Stage, logs: Path) -> bool:
    """Run it into its log, and print its line; the end of the log, too, when it fails."""
    log = logs / f"{stage.name}.log"
    began = time.monotonic()
    with log.open("wb") as out:
        # A signal waits until there is something to end with it.
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        process = subprocess.Popen(  # noqa: S602 - our own words
            stage.command,
            shell=True,
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_take_signals,
        )
        try:
            _take_signals()
            passed = process.wait(stage.most_seconds) == 0
        except subprocess.TimeoutExpired:
            passed = False
            out.write(f"\nended after {stage.most_seconds:g} s\n".encode())
        finally:
            # Also when we are the ones who are ended: a stage has a process group of its own, and would go on.
            if process.poll() is None:
                end_group(process)
    say(f"{stage.name:<16} {time.monotonic() - began:6.1f} s  {'ok' if passed else 'FAILED'}")
    if not passed:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        say("\n".join(f"    {line}" for line in lines[-TAIL_LINES:]))
    return passed


def run_all(stages: Sequence[Stage], logs: Path, *, containers: bool) -> list[str]:
    """Every stage that may run; the names of those that failed."""
    logs.mkdir(parents=True, exist_ok=True)
    failed: list[str] = []
    for stage in stages:
        if stage.containers and not containers:
            say(f"{stage.name:<16}      -    skipped, SKIP_CONTAINERS is set")
        elif stage.needs in failed:
            say(f"{stage.name:<16}      -    FAILED, for want of {stage.needs}")
            failed.append(stage.name)
        elif not run(stage, logs):
            failed.append(stage.name)
    return failed


def main(argv: Sequence[str] | None = None) -> int:
    """All stages, then the tests."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=[stage.name for stage in STAGES], help="these, without the tests")
    chosen = parser.parse_args(argv).only
    leave_on_sigterm()
    stages = [stage for stage in STAGES if chosen is None or stage.name in chosen]
    publish_for_ci(MODELS, TEXTS)
    containers = os.environ.get("SKIP_CONTAINERS") != "1"
    lacking = install()
    first = [Stage("install", lacking)] if lacking else []
    last = [AFTERWARDS] if any(stage.name == "engine" for stage in stages) else []
    failed = run_all([*first, *stages, *last], LOGS, containers=containers)
    if failed:
        say(f"FAILED: {' '.join(failed)}")
    if chosen is not None:
        return 1 if failed else 0
    tests = subprocess.run(["make", "test"], cwd=ROOT, check=False).returncode  # noqa: S607
    return 1 if failed else tests


if __name__ == "__main__":
    sys.exit(main())
