"""`make rollout-test`: a SIMULATED cluster rolls the rendered Deployment again and again under load.

Real: the processes, the probes, the proxy, the clients, the signals, the times of the manifest. Simulated: the
controller (its documented rule), the kubelet, the scheduler, the network between nodes. The last line of standard
output is one JSON document; the exit status is 1 when a promise was broken. With `--any-latency` the ratio of latencies
is said but not judged: on cores that others use, too, it says more of them than of the rollout.
"""

import argparse
import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Final

from artifact.repository import Repository
from tests.tiny_artifact import publish_tiny
from tools.simulated.cpu import allowed, scale_for
from tools.simulated.manifests import DeploymentSpec, deployment, image_of_dockerfile, render
from tools.simulated.model import publish_costly
from tools.simulated.proxy import Proxy
from tools.simulated.rollout import Cluster

ROLLOUTS: Final = 10
LEAST_REQUESTS: Final = 5000
WORST_P99_RATIO: Final = 1.5
BAD_ROLLOUT_SECONDS: Final = 20.0


@dataclass(frozen=True)
class Record:
    """One request: when it was due, how long it took, and what came of it."""

    due: float
    seconds: float
    outcome: str
    port: int

    @property
    def failed(self) -> bool:
        """Anything but an answer counts."""
        return self.outcome != "200"


@dataclass
class Window:
    """A stretch of wall-clock time."""

    name: str
    begin: float = field(default_factory=time.time)
    end: float = float("inf")

    def close(self) -> None:
        """It ends now."""
        self.end = time.time()

    def of(self, records: Sequence[Record]) -> list[Record]:
        """The requests that were due in it."""
        return [record for record in records if self.begin <= record.due < self.end]


def p99(records: Sequence[Record]) -> float:
    """The 99th percentile of seconds; 0 where there is nothing."""
    ordered = sorted(record.seconds for record in records)
    return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] if ordered else 0.0


def read_records(path: Path) -> list[Record]:
    """What the client wrote."""
    with path.open(encoding="utf-8") as lines:
        return [Record(*json.loads(line)) for line in lines]


def free_ports(number: int) -> list[int]:
    """Ports nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


async def measure_capacity(ports: Sequence[int], seconds: float) -> float:
    """Answers a second at saturation."""
    client = await _client(ports, "--closed", "32", "--seconds", str(seconds), stdout=subprocess.PIPE)
    out, _ = await client.communicate()
    return float(out)


async def _client(ports: Sequence[int], *more: str, **pipes: Any) -> asyncio.subprocess.Process:
    words = ("-m", "tools.simulated.load", "--ports", *(str(port) for port in ports), *more)
    return await asyncio.create_subprocess_exec(sys.executable, *words, **pipes)


class Load:
    """The open-loop client while the block runs."""

    def __init__(self, ports: Sequence[int], rate: float, path: Path) -> None:
        self._ports, self._rate, self._path = ports, rate, path

    async def __aenter__(self) -> "Load":
        self._process = await _client(
            self._ports, "--rate", str(self._rate), "--out", str(self._path), stdin=subprocess.PIPE
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin is not None  # noqa: S101 - asked for above
        self._process.stdin.close()
        await self._process.wait()


def say(text: str) -> None:
    """One line of progress."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


async def simulate(
    spec: DeploymentSpec, bad: DeploymentSpec, folder: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """Roll under load, then roll out what never becomes ready. Returns the report."""
    images = {"slipway-model": {"/repository": options.models}}
    claims = {"slipway-models": options.models, "never-ready": folder / "spoiled"}
    path = folder / "requests.jsonl"
    scale = cpu_scale(spec)
    async with (
        Proxy(folder, free_ports(2)) as proxy,
        Cluster(folder / "pods", proxy, images, claims, cpu_scale=scale) as cluster,
    ):
        if not await cluster.roll(spec):
            raise RuntimeError(f"the first pods never became ready: see {folder / 'pods'}")
        await cluster.endpoints_are(spec.replicas)
        await measure_capacity(proxy.ports, 2.0)  # warm
        capacity = await measure_capacity(proxy.ports, options.capacity_seconds)
        rate = capacity * options.share
        say(f"{spec.replicas} pods answer {capacity:.0f} requests a second; sending {rate:.0f}")
        async with Load(proxy.ports, rate, path):
            steady, rolling = await roll_and_rest(cluster, spec, options)
            stuck, kept = await roll_bad(cluster, spec, bad)
        if options.keep is not None:
            options.keep.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, options.keep)
            (options.keep / "events.json").write_text(json.dumps(cluster.events), encoding="utf-8")
        report = account(read_records(path), steady, rolling, stuck)
        return report | {
            "bad_rollout_kept_old_pods": kept,
            "capacity_rps": round(capacity, 1),
            "rate_rps": round(rate, 1),
            "replicas": spec.replicas,
            "cpu_limit_share": scale and round(scale, 3),
            "pods": pods_report(cluster),
            "proxy_complaints": proxy.complaints()[:10],
            "errors": cluster.errors,
        }


def cpu_scale(spec: DeploymentSpec) -> float | None:
    """The share of its CPU limit that every pod gets on this machine; None where no limit can be set."""
    limit = spec.containers[0].cpu_limit
    if limit is None or not allowed():
        say("no CPU limits: there is none, or control groups cannot be made here (root can)")
        return None
    return scale_for(spec.replicas + spec.max_surge, limit, len(os.sched_getaffinity(0)))


async def roll_and_rest(
    cluster: Cluster, spec: DeploymentSpec, options: argparse.Namespace
) -> tuple[list[Window], list[Window]]:
    """Rolling restarts, two back to back, then a rest to compare with: whatever else the machine does meets both.

    Returns the rests and the rollouts; a rollout's window ends when the last old pod is gone.
    """
    steady = [await rest(options.rest_seconds)]
    rolling: list[Window] = []
    while len(rolling) < options.rollouts:
        for _ in range(2):
            rolling.append(await roll_once(cluster, spec, len(rolling) + 1))
        await cluster.settled()
        rolling[-1].close()
        steady.append(await rest(options.rest_seconds))
    return steady, rolling


async def rest(seconds: float) -> Window:
    """Let the load run on its own."""
    window = Window("rest")
    await asyncio.sleep(seconds)
    window.close()
    return window


async def roll_once(cluster: Cluster, spec: DeploymentSpec, number: int) -> Window:
    """One rolling restart. Raises RuntimeError when it does not complete."""
    window = Window(f"rollout {number}")
    if not await cluster.roll(spec):
        raise RuntimeError(f"rollout {number} is stuck")
    window.close()
    say(f"rollout {number}: {window.end - window.begin:.1f} s")
    return window


async def roll_bad(cluster: Cluster, spec: DeploymentSpec, bad: DeploymentSpec) -> tuple[Window, bool]:
    """A version that never becomes ready, then the undo. True when the old pods stayed, all of them."""
    window = Window("bad rollout")
    before = {pod.name for pod in cluster.live()}
    complete = await cluster.roll(bad, timeout_seconds=BAD_ROLLOUT_SECONDS)
    still = {pod.name for pod in cluster.live() if pod.ready}
    least = spec.replicas - spec.max_unavailable
    kept = not complete and len(before & still) >= least
    restored = await cluster.undo(spec)
    await cluster.settled()
    window.close()
    return window, kept and restored


def p99_ratios(records: Sequence[Record], steady: Sequence[Window], rolling: Sequence[Window]) -> list[float]:
    """For every two rollouts, their p99 over that of the rests before and after them.

    Their median is the run's figure: one noisy neighbour spoils one of them, and would spoil a p99 over all requests.
    """
    ratios: list[float] = []
    for number, (before, after) in enumerate(pairwise(steady)):
        calm = p99([record for rest in (before, after) for record in rest.of(records)])
        rolled = [record for window in rolling[2 * number : 2 * number + 2] for record in window.of(records)]
        if calm and rolled:
            ratios.append(p99(rolled) / calm)
    return ratios


def account(
    records: Sequence[Record], steady: Sequence[Window], rolling: Sequence[Window], stuck: Window
) -> dict[str, Any]:
    """The numbers of issue and documents."""
    calm = [record for window in steady for record in window.of(records)]
    rolled = [record for window in rolling for record in window.of(records)]
    bad = stuck.of(records)
    ratios = p99_ratios(records, steady, rolling)
    failures = [record for record in records if record.failed]
    return {
        "simulated": True,
        "rollouts": len(rolling),
        "sent": len(records),
        "failed": len(failures) - sum(record.failed for record in bad),
        "p99_ratio": round(median(ratios), 3) if ratios else None,
        "bad_rollout_failed": sum(record.failed for record in bad),
        "sent_while_rolling": len(rolled),
        "p99_steady_seconds": round(p99(calm), 4),
        "p99_rolling_seconds": round(p99(rolled), 4),
        "p99_ratios": [round(ratio, 2) for ratio in ratios],
        "failures": dict(Counter(f"{record.port}: {record.outcome}" for record in failures)),
        "rollout_seconds": [round(window.end - window.begin, 1) for window in rolling],
    }


def pods_report(cluster: Cluster) -> dict[str, Any]:
    """How the pods came and went."""
    seen = cluster.seen
    return {
        "started": len(seen.ready_after_seconds),
        "ready_after_seconds_max": round(max(seen.ready_after_seconds), 2),
        "withdrawn_after_seconds": [round(pick(seen.withdrawn_after_seconds), 2) for pick in (min, max)],
        "exit_statuses": {str(status): count for status, count in Counter(seen.exit_statuses).items()},
        "killed": seen.killed,
        "restarts": seen.restarts,
    }


def latency_kept(report: dict[str, Any]) -> bool:
    """Whether rolling was about as fast as resting; False where there is nothing to tell by."""
    return report["p99_ratio"] is not None and bool(report["p99_ratio"] <= WORST_P99_RATIO)


def broken(report: dict[str, Any], *, any_latency: bool = False) -> list[str]:
    """Which promises were; that of latency only where it is judged."""
    promises = {
        "rollouts": report["rollouts"] >= ROLLOUTS,
        "sent": report["sent"] >= LEAST_REQUESTS,
        "failed": report["failed"] == 0,
        "p99_ratio": latency_kept(report) or (any_latency and report["p99_ratio"] is not None),
        "bad_rollout_failed": report["bad_rollout_failed"] == 0,
        "bad_rollout_kept_old_pods": report["bad_rollout_kept_old_pods"],
        "pods": not report["pods"]["killed"] and not report["pods"]["restarts"] and not report["errors"],
        "exit status": report["pods"]["exit_statuses"].keys() <= {"0"},
    }
    return [name for name, kept in promises.items() if not kept]


def never_ready(spec: DeploymentSpec, folder: Path) -> DeploymentSpec:
    """The same Deployment with a model whose golden answers are wrong: the service refuses to serve it."""
    publish_tiny(folder / "spoiled", spoil_golden=True)
    volumes = {
        name: {"name": name, "persistentVolumeClaim": {"claimName": "never-ready"}} if name == "models" else volume
        for name, volume in spec.volumes.items()
    }
    return replace(spec, volumes=volumes, init_containers=())


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--manifests", type=Path, default=Path("k8s/overlays/production"))
    parser.add_argument(
        "--models", type=Path, help="Repository to serve; without it a model of similar cost is published."
    )
    parser.add_argument("--keep", type=Path, help="Folder for every request's record and the pods' events.")
    parser.add_argument("--any-latency", action="store_true", help="Say the ratio of latencies, do not judge it.")
    parser.add_argument("--rollouts", type=int, default=ROLLOUTS)
    parser.add_argument("--share", type=float, default=0.5, help="Load as a share of the measured capacity.")
    parser.add_argument("--rest-seconds", type=float, default=8.0)
    parser.add_argument("--capacity-seconds", type=float, default=5.0)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run it, print the report."""
    options = _options(argv)
    with tempfile.TemporaryDirectory(prefix="slipway-rollout-") as scratch:
        folder = Path(scratch)
        (folder / "pods").mkdir()
        if options.models is None:
            options.models = folder / "models"
            publish_costly(options.models)
        options.models = options.models.resolve()
        if not Repository(options.models).models():
            say(f"{options.models} holds no model")
            return 2
        spec = deployment(render(options.manifests), "slipway", {"slipway": image_of_dockerfile("service")})
        report = asyncio.run(simulate(spec, never_ready(spec, folder), folder, options))
    if report["p99_ratio"] is not None:
        verdict = "kept" if latency_kept(report) else "not kept"
        say(f"p99 while rolling over p99 at rest: {report['p99_ratio']:.2f}, at most {WORST_P99_RATIO} is {verdict}")
    problems = broken(report, any_latency=options.any_latency)
    for name in problems:
        say(f"BROKEN: {name}")
    sys.stdout.write(f"{json.dumps(report)}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
