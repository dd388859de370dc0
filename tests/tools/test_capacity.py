"""The capacity plan adds up, and the page shows what the program prints."""

from pathlib import Path

import pytest
import yaml

from tools.capacity import LOADS, Costs, plan, table, utilization_at
from tools.simulated.autoscaler import quantity
from tools.simulated.manifests import ROOT


def test_utilization_solves_the_queue() -> None:
    for in_flight in (0.5, 1.0, 2.0, 10.0):
        busy = utilization_at(in_flight)
        assert busy + busy**2 / (2 * (1 - busy)) == pytest.approx(in_flight)


def test_a_plan_carries_its_load_with_a_zone_gone() -> None:
    costs = Costs()
    for load in LOADS:
        found = plan(load, costs)
        left = found.replicas * 2 / 3 * costs.requests_per_core
        assert left > load
        assert found.nodes * (costs.cores_per_node - 1) >= found.cores


def test_dearer_requests_take_more() -> None:
    cheap, dear = plan(1000, Costs(requests_per_core=400)), plan(1000, Costs(requests_per_core=100))
    assert cheap.replicas * 3 < dear.replicas


def test_the_defaults_are_what_the_manifests_say() -> None:
    hpa = yaml.safe_load((ROOT / "k8s/components/autoscaling-prometheus-adapter/hpa.yaml").read_text(encoding="utf-8"))
    target = hpa["spec"]["metrics"][0]["pods"]["target"]["averageValue"]
    assert Costs().in_flight_target == quantity(target)
    pod = yaml.safe_load((ROOT / "k8s/base/deployment.yaml").read_text(encoding="utf-8"))["spec"]["template"]["spec"]
    requests = pod["containers"][0]["resources"]["requests"]
    assert (str(Costs().cores_per_pod), f"{Costs().memory_bytes_per_pod / 2**20:.0f}Mi") == (
        requests["cpu"],
        requests["memory"],
    )


def test_the_page_shows_what_the_program_prints() -> None:
    page = Path(ROOT / "docs" / "capacity.md").read_text(encoding="utf-8")
    assert table([plan(load, Costs()) for load in LOADS]) in page, (
        "paste `python -m tools.capacity` into docs/capacity.md"
    )
