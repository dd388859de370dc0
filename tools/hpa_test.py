"""`make hpa-test`: the production autoscaler under a step of load, SIMULATED over values measured on a real pod.

Measured here: what a pod answers a second, how long a request takes, how many are in flight at half load (from its
own /metrics, as Prometheus reads it), how long a start takes. Then the HPA's documented rule, fed with what Prometheus
would say, over simulated pods of that speed. `--plot` draws it; the last line of output is one JSON document.
"""

import argparse
import asyncio
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure

from tools.rollout_test import Load, free_ports, measure_capacity, read_records, say
from tools.simulated.autoscaler import Scaler
from tools.simulated.manifests import DeploymentSpec, deployment, image_of_dockerfile, named, render
from tools.simulated.model import publish_costly
from tools.simulated.proxy import Proxy
from tools.simulated.rollout import Cluster
from tools.simulated.step import Moment, World, recovered_after, simulate

STEP_AT: Final = 300.0
BACK_AT: Final = 1200.0
DURATION: Final = 2400.0
_SAMPLE_SECONDS: Final = 8.0


async def measure(spec: DeploymentSpec, folder: Path, models: Path) -> dict[str, Any]:
    """Capacity, times of requests and of a start, and requests in flight at half load, of one real pod."""
    images = {"slipway-model": {"/repository": models}}
    async with Proxy(folder, free_ports(2)) as proxy, Cluster(folder / "pods", proxy, images, {}, 0.1) as cluster:
        await cluster.roll(spec)
        await cluster.endpoints_are(1)
        await measure_capacity(proxy.ports, 2.0)
        capacity = await measure_capacity(proxy.ports, 4.0)
        path = folder / "half.jsonl"
        async with Load(proxy.ports, capacity / 2, path):
            in_flight = await mean_in_flight(cluster.live()[0].address, cluster.live()[0].port)
        return {
            "capacity_rps": capacity,
            "half_load_seconds": [record.seconds for record in read_records(path)],
            "in_flight_at_half_load": in_flight,
            "cold_start_seconds": cluster.seen.ready_after_seconds[0],
        }


async def mean_in_flight(address: str, port: int) -> float:
    """The mean of the gauge over some seconds."""
    values = []
    end = time.monotonic() + _SAMPLE_SECONDS
    while time.monotonic() < end:
        reader, writer = await asyncio.open_connection(address, port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n")
        page = (await reader.read()).decode()
        writer.close()
        (value,) = re.findall(r"^slipway_requests_in_flight (\S+)$", page, re.MULTILINE)
        values.append(float(value) - 1)  # this very scrape is in flight, too
        await asyncio.sleep(0.05)
    return sum(values) / len(values)


def world_of(measured: dict[str, Any]) -> World:
    """A pod whose mean service time is what saturation shows, spread as at half load."""
    seconds = measured["half_load_seconds"]
    scale = 1 / measured["capacity_rps"] / (sum(seconds) / len(seconds))
    return World([each * scale for each in seconds], cold_start_seconds=measured["cold_start_seconds"] + 2.0)


def plot(moments: Sequence[Moment], capacity: float, path: Path) -> None:
    """Load, replicas, what the autoscaler sees, and how many were late."""
    figure = Figure(figsize=(8, 7), dpi=80, layout="constrained")
    figure.suptitle("A step of load, simulated over measured pods")
    top, middle, bottom = figure.subplots(3, 1, sharex=True)
    times = [moment.now for moment in moments]
    top.plot(times, [moment.rate / capacity for moment in moments], label="load, in pods' worth")
    top.step(times, [moment.replicas for moment in moments], label="pods", where="post")
    middle.plot(times, [moment.in_flight for moment in moments], label="requests in flight per pod")
    middle.axhline(2, linestyle="--", color="grey", label="target")
    middle.set_yscale("symlog")
    bottom.plot(times, [100 * moment.late_share for moment in moments], label="% later than 0.5 s", color="tab:red")
    bottom.set_xlabel("seconds")
    for axis in (top, middle, bottom):
        axis.legend(loc="upper right", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, simulate, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args(argv)
    objects = render(Path("k8s/overlays/production"))
    with tempfile.TemporaryDirectory(prefix="slipway-hpa-") as scratch:
        folder = Path(scratch)
        (folder / "pods").mkdir()
        publish_costly(folder / "models")
        spec = deployment(objects, "slipway", {"slipway": image_of_dockerfile("service")})
        measured = asyncio.run(measure(replace(spec, replicas=1), folder, folder / "models"))
    scaler = Scaler.of(named(objects, "HorizontalPodAutoscaler", "slipway"))
    capacity, world = measured["capacity_rps"], world_of(measured)
    low, high = scaler.least * capacity * 0.4, capacity * 6
    moments = simulate(scaler, world, lambda now: high if STEP_AT <= now < BACK_AT else low, DURATION)
    half = simulate(replace(scaler, least=1, most=1), world, lambda now: capacity / 2, 120.0)
    recovered = recovered_after(moments, STEP_AT, world.slo_share)
    if options.plot:
        plot(moments, capacity, options.plot)
    report = {
        "simulated": True,
        "capacity_rps": round(capacity, 1),
        "cold_start_seconds": round(world.cold_start_seconds, 2),
        "in_flight_at_half_load": {
            "measured": round(measured["in_flight_at_half_load"], 2),
            "simulated": round(sum(moment.in_flight for moment in half) / len(half), 2),
        },
        "load_in_pods": [round(low / capacity, 2), round(high / capacity, 2)],
        "replicas": {str(int(moment.now)): moment.replicas for moment in moments[::60]},
        "most_replicas": max(moment.replicas for moment in moments),
        "last_replicas": moments[-1].replicas,
        "recovered_after_seconds": recovered,
    }
    sys.stdout.write(f"{json.dumps(report)}\n")
    return 0 if recovered is not None else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, subprocess.CalledProcessError) as error:
        say(str(error))
        sys.exit(1)
