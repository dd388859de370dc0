"""The rendered Kubernetes objects, and what a kubelet would read from them."""

import json
import math
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import yaml

from tools.simulated.autoscaler import quantity

ROOT: Final = Path(__file__).resolve().parents[2]
TOOLS: Final = ROOT / ".venv" / ".tools" / "bin"
Object = dict[str, Any]


def kubectl() -> str:
    """The path of kubectl: the machine's own, else the one in .venv/.tools. Raises FileNotFoundError."""
    found = shutil.which("kubectl") or shutil.which("kubectl", path=str(TOOLS))
    if found is None:
        raise FileNotFoundError("kubectl is not installed: run tools/toolbox render")
    return found


def render(folder: Path) -> list[Object]:
    """What `kubectl apply -k folder` would send. Raises CalledProcessError with kustomize's words in `stderr`."""
    done = subprocess.run([kubectl(), "kustomize", str(folder)], capture_output=True, text=True, check=True)  # noqa: S603
    return [found for found in yaml.safe_load_all(done.stdout) if found]


def of_kind(objects: Sequence[Object], kind: str) -> list[Object]:
    """Every object of `kind`."""
    return [found for found in objects if found["kind"] == kind]


def named(objects: Sequence[Object], kind: str, name: str) -> Object:
    """The object of `kind` called `name`. Raises LookupError."""
    for found in of_kind(objects, kind):
        if found["metadata"]["name"] == name:
            return found
    raise LookupError(f"no {kind} {name}")


@dataclass(frozen=True)
class Probe:
    """One HTTP probe, with Kubernetes' defaults filled in."""

    path: str
    port: int
    period_seconds: float = 10.0
    timeout_seconds: float = 1.0
    initial_delay_seconds: float = 0.0
    failure_threshold: int = 3
    success_threshold: int = 1

    @classmethod
    def of(cls, given: Mapping[str, Any], ports: Mapping[str, int]) -> Self:
        """Read a probe of the pod spec; `ports` resolves port names."""
        port = given["httpGet"]["port"]
        names = {
            "periodSeconds": "period_seconds",
            "timeoutSeconds": "timeout_seconds",
            "initialDelaySeconds": "initial_delay_seconds",
            "failureThreshold": "failure_threshold",
            "successThreshold": "success_threshold",
        }
        times = {ours: given[theirs] for theirs, ours in names.items() if theirs in given}
        return cls(given["httpGet"]["path"], ports[port] if isinstance(port, str) else port, **times)


@dataclass(frozen=True)
class ContainerSpec:
    """One container: what to run and what it finds."""

    name: str
    image: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    mounts: Mapping[str, str]  # mount path -> volume name
    ports: Mapping[str, int]
    startup: Probe | None = None
    liveness: Probe | None = None
    readiness: Probe | None = None
    pre_stop: Mapping[str, Any] = field(default_factory=dict)
    cpu_request: float = 0.0  # cores
    cpu_limit: float | None = None


@dataclass(frozen=True)
class DeploymentSpec:
    """What the Deployment controller and the kubelet need to know. Times in seconds."""

    name: str
    replicas: int
    max_surge: int
    max_unavailable: int
    min_ready_seconds: float
    grace_period_seconds: float
    volumes: Mapping[str, Mapping[str, Any]]
    containers: tuple[ContainerSpec, ...]
    init_containers: tuple[ContainerSpec, ...]


def deployment(objects: Sequence[Object], name: str, images: Mapping[str, "ImageConfig"]) -> DeploymentSpec:
    """The Deployment called `name`; without `replicas` the number is its autoscaler's minimum."""
    found = named(objects, "Deployment", name)["spec"]
    pod = found["template"]["spec"]
    replicas = found.get("replicas") or _autoscaler_minimum(objects, name)
    rolling = found.get("strategy", {}).get("rollingUpdate", {})
    return DeploymentSpec(
        name=name,
        replicas=replicas,
        max_surge=portion(rolling.get("maxSurge", "25%"), replicas, up=True),
        max_unavailable=portion(rolling.get("maxUnavailable", "25%"), replicas, up=False),
        min_ready_seconds=found.get("minReadySeconds", 0),
        grace_period_seconds=pod.get("terminationGracePeriodSeconds", 30),
        volumes={volume["name"]: volume for volume in pod.get("volumes", [])},
        containers=tuple(_container(each, objects, images) for each in pod["containers"]),
        init_containers=tuple(_container(each, objects, images) for each in pod.get("initContainers", [])),
    )


def _autoscaler_minimum(objects: Sequence[Object], name: str) -> int:
    for scaler in of_kind(objects, "HorizontalPodAutoscaler"):
        if scaler["spec"]["scaleTargetRef"]["name"] == name:
            return int(scaler["spec"].get("minReplicas", 1))
    for scaler in of_kind(objects, "ScaledObject"):
        if scaler["spec"]["scaleTargetRef"]["name"] == name:
            return max(1, int(scaler["spec"].get("minReplicaCount", 0)))
    return 1


def portion(value: int | str, replicas: int, *, up: bool) -> int:
    """MaxSurge or maxUnavailable as a number of pods: percentages of a surge round up, of absences down."""
    if isinstance(value, int):
        return value
    exact = replicas * int(value.removesuffix("%")) / 100
    return math.ceil(exact) if up else math.floor(exact)


def repository_of(image: str) -> str:
    """The last word of an image's name: `registry.example/team/slipway:1.0` is slipway."""
    return image.split("@")[0].rsplit("/", 1)[-1].split(":")[0]


@dataclass(frozen=True)
class ImageConfig:
    """What an image says about how to run it."""

    entrypoint: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


def image_of_dockerfile(stage: str, text: str | None = None) -> ImageConfig:
    """ENTRYPOINT and ENV of a stage of the Dockerfile, and of the stages it starts from. Raises LookupError."""
    text = text if text is not None else (ROOT / "Dockerfile").read_text(encoding="utf-8")
    found = re.search(rf"^FROM (\S+) AS {re.escape(stage)}\n(.*?)(?=^FROM |\Z)", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise LookupError(f"the Dockerfile has no stage {stage}")
    source, body = found.group(1), found.group(2).replace("\\\n", " ")
    inherited = ImageConfig(()) if source.startswith("$") else image_of_dockerfile(source, text)
    entrypoint = re.search(r"^ENTRYPOINT (\[.*\])$", body, re.MULTILINE)
    settings = " ".join(re.findall(r"^ENV (.*)$", body, re.MULTILINE))
    words = tuple(json.loads(entrypoint.group(1))) if entrypoint else inherited.entrypoint
    return ImageConfig(words, dict(inherited.environment) | dict(re.findall(r"(\w+)=(\S+)", settings)))


def _container(given: Mapping[str, Any], objects: Sequence[Object], images: Mapping[str, ImageConfig]) -> ContainerSpec:
    image = images.get(repository_of(given["image"]), ImageConfig(()))
    ports = {port["name"]: port["containerPort"] for port in given.get("ports", [])}
    probes = {
        key.removesuffix("Probe"): Probe.of(given[key], ports)
        for key in ("startupProbe", "livenessProbe", "readinessProbe")
        if key in given
    }
    limit = given.get("resources", {}).get("limits", {}).get("cpu")
    request = given.get("resources", {}).get("requests", {}).get("cpu", limit or 0)  # as the API server fills it in
    return ContainerSpec(
        name=given["name"],
        image=given["image"],
        command=(*given.get("command", image.entrypoint), *given.get("args", [])),
        environment=dict(image.environment) | _environment(given, objects),
        mounts={mount["mountPath"]: mount["name"] for mount in given.get("volumeMounts", [])},
        ports=ports,
        pre_stop=given.get("lifecycle", {}).get("preStop", {}),
        cpu_request=quantity(str(request)),
        cpu_limit=None if limit is None else quantity(str(limit)),
        **probes,
    )


def _environment(given: Mapping[str, Any], objects: Sequence[Object]) -> dict[str, str]:
    """Variables from ConfigMaps, then the literal ones. A secret is nobody's business here."""
    found: dict[str, str] = {}
    for source in given.get("envFrom", []):
        if "configMapRef" in source:
            found |= named(objects, "ConfigMap", source["configMapRef"]["name"])["data"]
    return found | {each["name"]: each["value"] for each in given.get("env", []) if "value" in each}
