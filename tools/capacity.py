"""How many replicas, cores and dollars a load takes, and which limit is met first: `python -m tools.capacity`.

Every figure is an argument; the defaults are this project's measurements or named as assumptions in docs/capacity.md.
Prints a Markdown table; with `--json`, one JSON document.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Final

LOADS: Final = (1_000, 100_000, 10_000_000)
_HOURS_PER_MONTH: Final = 730
_HALVING: Final = 60


@dataclass(frozen=True)
class Costs:
    """What one request, pod and node cost. Times in seconds, sizes in bytes."""

    requests_per_core: float = 200.0  # measured: fp32 MiniLM, 27 tokens a request
    in_flight_target: float = 2.0  # the autoscaler's target for each pod
    cores_per_pod: int = 1  # k8s/base
    cores_per_node: int = 16
    pods_per_node: int = 110  # the kubelet's default
    reserved_cores_per_node: float = 1.0  # system, agents
    spare_share: float = 0.34  # one of three zones may be gone
    dollars_per_core_hour: float = 0.04
    memory_bytes_per_pod: float = 512 * 2**20
    model_bytes: float = 91e6  # fp32 MiniLM
    image_bytes: float = 75e6  # the service's layers, compressed
    node_bytes_per_second: float = 1.25e9  # 10 Gbit/s
    registry_bytes_per_second: float = 2.5e9
    series_per_pod: int = 450  # assumed, on the safe side: 196 were seen after the first request
    series_per_prometheus: int = 5_000_000
    request_bytes: float = 1500.0  # both ways, headers included
    balancer_requests_per_core: float = 20_000.0
    cold_start_seconds: float = 5.0  # image and model on the node; measured 2 to 3, probes included


@dataclass(frozen=True)
class Plan:
    """What one load takes."""

    requests_per_second: int
    utilization: float
    replicas: int
    cores: int
    nodes: int
    dollars_per_hour: float
    dollars_per_million: float
    memory_bytes: float
    series: int
    prometheis: int
    balancer_cores: int
    traffic_bytes_per_second: float
    cold_pull_seconds: float
    doubling_seconds: float


def utilization_at(in_flight: float) -> float:
    """How busy a pod is when `in_flight` requests are with it on average.

    A queue with random arrivals and even service times (M/D/1): L = u + u^2 / (2 (1 - u)), solved for u.
    """
    low, high = 0.0, 1.0
    for _ in range(_HALVING):
        middle = (low + high) / 2
        low, high = (middle, high) if middle + middle**2 / (2 * (1 - middle)) < in_flight else (low, middle)
    return low


def plan(requests_per_second: int, costs: Costs) -> Plan:
    """What `requests_per_second` take."""
    utilization = utilization_at(costs.in_flight_target)
    per_pod = costs.requests_per_core * costs.cores_per_pod * utilization
    replicas = math.ceil(requests_per_second / per_pod * (1 + costs.spare_share))
    cores = replicas * costs.cores_per_pod
    fit = min(costs.pods_per_node, int((costs.cores_per_node - costs.reserved_cores_per_node) / costs.cores_per_pod))
    nodes = math.ceil(replicas / fit)
    hourly = nodes * costs.cores_per_node * costs.dollars_per_core_hour
    series = replicas * costs.series_per_pod
    return Plan(
        requests_per_second=requests_per_second,
        utilization=utilization,
        replicas=replicas,
        cores=cores,
        nodes=nodes,
        dollars_per_hour=hourly,
        dollars_per_million=hourly / (requests_per_second * 3600) * 1e6,
        memory_bytes=replicas * costs.memory_bytes_per_pod,
        series=series,
        prometheis=math.ceil(series / costs.series_per_prometheus),
        balancer_cores=math.ceil(requests_per_second / costs.balancer_requests_per_core),
        traffic_bytes_per_second=requests_per_second * costs.request_bytes,
        cold_pull_seconds=pull_seconds(nodes, costs),
        doubling_seconds=doubling_seconds(costs),
    )


def pull_seconds(nodes: int, costs: Costs) -> float:
    """All nodes at once fetch image and model from one registry: its line or the node's is the bound."""
    size = costs.image_bytes + costs.model_bytes
    return max(size / costs.node_bytes_per_second, nodes * size / costs.registry_bytes_per_second)


def doubling_seconds(costs: Costs) -> float:
    """From a doubled load to twice the pods: scrape, the minute's average half way, a sync, the start."""
    scrape, half_a_minute, sync = 15.0, 30.0, 15.0
    return scrape + half_a_minute + sync + costs.cold_start_seconds


def table(plans: Sequence[Plan]) -> str:
    """Markdown, one column a load."""
    rows = {
        "requests per second": [f"{each.requests_per_second:,}" for each in plans],
        "replicas (1 core each)": [f"{each.replicas:,}" for each in plans],
        "nodes of 16 cores": [f"{each.nodes:,}" for each in plans],
        "memory requested": [f"{each.memory_bytes / 2**30:,.0f} GiB" for each in plans],
        "dollars per hour": [f"{each.dollars_per_hour:,.2f}" for each in plans],
        "dollars per month": [f"{each.dollars_per_hour * _HOURS_PER_MONTH:,.0f}" for each in plans],
        "dollars per million requests": [f"{each.dollars_per_million:.3f}" for each in plans],
        "time series": [f"{each.series:,}" for each in plans],
        "Prometheus servers": [f"{each.prometheis:,}" for each in plans],
        "balancer cores": [f"{each.balancer_cores:,}" for each in plans],
        "traffic": [f"{each.traffic_bytes_per_second * 8 / 1e9:,.2f} Gbit/s" for each in plans],
        "first pull by all nodes, one registry": [f"{each.cold_pull_seconds:,.1f} s" for each in plans],
    }
    lines = [f"| {name} | {' | '.join(values)} |" for name, values in rows.items()]
    return "\n".join([lines[0], "|---" * (len(plans) + 1) + "|", *lines[1:]])


def main(argv: Sequence[str] | None = None) -> int:
    """Print the plan."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--loads", type=int, nargs="+", default=LOADS)
    for each in fields(Costs):
        parser.add_argument(f"--{each.name.replace('_', '-')}", type=type(each.default), default=each.default)
    options = parser.parse_args(argv)
    costs = Costs(**{each.name: getattr(options, each.name) for each in fields(Costs)})
    plans = [plan(load, costs) for load in options.loads]
    text = (
        json.dumps({"costs": asdict(costs), "plans": [asdict(each) for each in plans]})
        if options.json
        else table(plans)
    )
    sys.stdout.write(f"{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
