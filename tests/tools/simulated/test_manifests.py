"""What the simulated cluster reads from manifests, and the rule of its rolling update."""

from dataclasses import replace
from typing import Any

import pytest

from tools.simulated.manifests import (
    DeploymentSpec,
    ImageConfig,
    deployment,
    image_of_dockerfile,
    portion,
    repository_of,
)
from tools.simulated.rollout import Scale, next_step

DOCKERFILE = """ARG BASE_IMAGE=python
FROM ${BASE_IMAGE} AS runtime
ENV SLIPWAY_PORT=8000 \\
    HOME=/tmp
ENTRYPOINT ["slipway", "serve"]
FROM runtime AS service
ENV SLIPWAY_PORT=9000
"""
CONTAINER: dict[str, Any] = {
    "name": "service",
    "image": "registry.example:5000/team/slipway:1",
    "envFrom": [{"configMapRef": {"name": "settings"}}],
    "env": [{"name": "B", "value": "own"}],
    "ports": [{"name": "http", "containerPort": 8000}],
    "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 2},
    "volumeMounts": [{"name": "models", "mountPath": "/models"}],
}
OBJECTS: list[dict[str, Any]] = [
    {"kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"A": "1", "B": "2"}},
    {
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h"},
        "spec": {"scaleTargetRef": {"name": "d"}, "minReplicas": 3},
    },
    {
        "kind": "Deployment",
        "metadata": {"name": "d"},
        "spec": {
            "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "50%"}},
            "template": {"spec": {"containers": [CONTAINER], "volumes": [{"name": "models", "emptyDir": {}}]}},
        },
    },
]


def spec(**more: Any) -> DeploymentSpec:
    return replace(
        deployment(OBJECTS, "d", {"slipway": ImageConfig(("slipway", "serve"), {"A": "0", "C": "3"})}), **more
    )


def test_a_deployment_is_read_with_kubernetes_defaults() -> None:
    found = spec()
    assert (found.replicas, found.max_surge, found.max_unavailable, found.grace_period_seconds) == (3, 1, 1, 30)
    (container,) = found.containers
    assert container.command == ("slipway", "serve"), "the image's, where the manifest names none"
    assert container.environment == {"A": "1", "B": "own", "C": "3"}, (
        "the image's, the ConfigMap's, the container's own"
    )
    assert container.readiness is not None
    assert (container.readiness.port, container.readiness.period_seconds, container.readiness.failure_threshold) == (
        8000,
        2,
        3,
    )
    assert container.startup is None


def test_a_stage_inherits_from_the_stage_it_starts_from() -> None:
    found = image_of_dockerfile("service", DOCKERFILE)
    assert found == ImageConfig(("slipway", "serve"), {"SLIPWAY_PORT": "9000", "HOME": "/tmp"})


def test_image_names() -> None:
    assert {repository_of(name) for name in ("slipway", "a.b:5000/c/slipway:1", "slipway@sha256:00")} == {"slipway"}


def test_a_surge_rounds_up_and_an_absence_rounds_down() -> None:
    assert portion("25%", 5, up=True) == 2
    assert portion("25%", 5, up=False) == 1
    assert portion(3, 5, up=False) == 3


@pytest.mark.parametrize(
    ("old", "new", "available", "expected"),
    [
        (3, 0, 3, Scale(create=1, delete=0)),
        (3, 1, 3, Scale(create=0, delete=0)),
        (3, 1, 4, Scale(create=0, delete=1)),
        (2, 1, 3, Scale(create=1, delete=0)),
        (0, 3, 3, Scale(create=0, delete=0)),
    ],
    ids=["begins with one more", "waits for it", "then one may go", "and the next comes", "complete"],
)
def test_a_rolling_update_without_absences(old: int, new: int, available: int, expected: Scale) -> None:
    assert next_step(spec(max_unavailable=0), old=old, new=new, available=available) == expected


def test_a_version_that_never_becomes_ready_costs_no_old_pod() -> None:
    assert next_step(spec(max_unavailable=0), old=3, new=1, available=3) == Scale(create=0, delete=0)
