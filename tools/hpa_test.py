"""`make hpa-test`: the production autoscaler under a step of load, SIMULATED over values measured on a real pod.

Measured here: what a pod answers a second, how long a request takes, how long a start takes; and, by a real Prometheus
that scrapes the pod at half load and is asked prometheus-adapter's queries, what the autoscaler would be told. Then the
HPA's documented rule, fed with what Prometheus would say, over simulated pods of that speed. `--plot` draws it; the
last line of output is one JSON document.
"""

import argparse
import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Self

import httpx
import yaml
from matplotlib.figure import Figure

from tools.rollout_test import Load, free_ports, measure_capacity, read_records, say
from tools.simulated.autoscaler import Scaler
from tools.simulated.manifests import DeploymentSpec, Object, deployment, image_of_dockerfile, named, render
from tools.simulated.model import publish_costly
from tools.simulated.proxy import Proxy
from tools.simulated.rollout import Cluster
from tools.simulated.step import IN_FLIGHT, Moment, World, recovered_after, simulate

STEP_AT: Final = 300.0
BACK_AT: Final = 1200.0
DURATION: Final = 2400.0
WINDOW_SECONDS: Final = 8
POD: Final = "simulated"


async def measure(spec: DeploymentSpec, folder: Path, models: Path, queries: Mapping[str, str]) -> dict[str, Any]:
    """Capacity, times of requests and of a start, and what `queries` say at half load, of one real pod."""
    images = {"slipway-model": {"/repository": models}}
    async with Proxy(folder, free_ports(2)) as proxy, Cluster(folder / "pods", proxy, images, {}, 0.1) as cluster:
        await cluster.roll(spec)
        await cluster.endpoints_are(1)
        await measure_capacity(proxy.ports, 2.0)
        capacity = await measure_capacity(proxy.ports, 4.0)
        path = folder / "half.jsonl"
        pod = cluster.live()[0]
        async with Load(proxy.ports, capacity / 2, path), Prometheus(folder, f"{pod.address}:{pod.port}") as prometheus:
            await asyncio.sleep(WINDOW_SECONDS + 2)  # so long is what its queries look back
            seen = {name: await prometheus.ask(query) for name, query in queries.items()}
        return {
            "capacity_rps": capacity,
            "half_load_seconds": [record.seconds for record in read_records(path)],
            "at_half_load": seen,
            "cold_start_seconds": cluster.seen.ready_after_seconds[0],
        }


def adapter_queries(objects: Sequence[Object], name: str) -> dict[str, str]:
    """The adapter's queries by metric, as it would put them for our one pod, over WINDOW_SECONDS."""
    (rules,) = named(objects, "ConfigMap", name)["data"].values()
    return {
        rule["name"]["as"]: rule["metricsQuery"]
        .replace("<<.Series>>", rule["seriesQuery"].split("{")[0])
        .replace("<<.LabelMatchers>>", f'namespace="{POD}",pod="{POD}"')
        .replace("<<.GroupBy>>", "pod")
        .replace("[1m]", f"[{WINDOW_SECONDS}s]")
        for rule in yaml.safe_load(rules)["rules"]
    }


class Prometheus:
    """A real one that scrapes one pod every second, while the block runs."""

    def __init__(self, folder: Path, target: str) -> None:
        self._folder, self._target = folder / "prometheus", target
        (port,) = free_ports(1)
        self._address = f"127.0.0.1:{port}"

    async def __aenter__(self) -> Self:
        found = shutil.which("prometheus")
        if found is None:
            raise FileNotFoundError("prometheus is not installed (Debian: apt install prometheus)")
        self._folder.mkdir()
        scraped = {"targets": [self._target], "labels": {"namespace": POD, "pod": POD}}
        wanted = {
            "global": {"scrape_interval": "1s"},
            "scrape_configs": [{"job_name": "slipway", "static_configs": [scraped]}],
        }
        configuration = self._folder / "prometheus.yml"
        configuration.write_text(yaml.safe_dump(wanted), encoding="utf-8")
        options = (f"--config.file={configuration}", f"--storage.tsdb.path={self._folder / 'data'}")
        with (self._folder / "log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                found, *options, f"--web.listen-address={self._address}", stdout=log, stderr=log
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._process.terminate()
        await self._process.wait()

    async def ask(self, query: str, patience_seconds: float = 30.0) -> float:
        """The value of an instant query, waited for until there is one. Raises TimeoutError."""
        async with asyncio.timeout(patience_seconds), httpx.AsyncClient(base_url=f"http://{self._address}") as client:
            while True:
                with contextlib.suppress(httpx.TransportError):  # not up yet
                    answer = (await client.get("/api/v1/query", params={"query": query})).json()
                    if answer["status"] == "success" and answer["data"]["result"]:
                        return float(answer["data"]["result"][0]["value"][1])
                await asyncio.sleep(0.5)


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
        queries = adapter_queries(objects, "slipway-prometheus-adapter")
        measured = asyncio.run(measure(replace(spec, replicas=1), folder, folder / "models", queries))
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
            "measured": round(measured["at_half_load"][IN_FLIGHT], 2),
            "simulated": round(sum(moment.in_flight for moment in half) / len(half), 2),
        },
        "prometheus_at_half_load": {name: round(value, 3) for name, value in measured["at_half_load"].items()},
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
