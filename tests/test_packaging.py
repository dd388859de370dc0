"""Dockerfile, compose, Kubernetes, Prometheus and the lock say the same as the code: names, ports, paths, times."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any, Final, cast

import pytest
import yaml

from service.config import PREFIX, Settings
from tools.simulated.manifests import image_of_dockerfile

ROOT: Final = Path(__file__).resolve().parent.parent
BASE: Final = ROOT / "k8s" / "base"
USER: Final = 10001
PROBED: Final = {"startupProbe": "/health/live", "livenessProbe": "/health/live", "readinessProbe": "/health/ready"}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def document(path: str) -> dict[str, Any]:
    return cast("dict[str, Any]", yaml.safe_load(read(path)))


def manifest(name: str) -> dict[str, Any]:
    return document(f"k8s/base/{name}.yaml")


def pod() -> dict[str, Any]:
    return cast("dict[str, Any]", manifest("deployment")["spec"]["template"]["spec"])


def container() -> dict[str, Any]:
    (only,) = pod()["containers"]
    return cast("dict[str, Any]", only)


def settings_of_kubernetes() -> dict[str, str]:
    (generated,) = manifest("kustomization")["configMapGenerator"]
    return dict(literal.split("=", 1) for literal in generated["literals"])


def settings_of_image(stage: str) -> dict[str, str]:
    """Our variables in the ENV instructions of one stage of the Dockerfile."""
    found = image_of_dockerfile(stage).environment
    return {name: value for name, value in found.items() if name.startswith(PREFIX)}


def compose(service: str) -> dict[str, Any]:
    return cast("dict[str, Any]", document("docker-compose.yml")["services"][service])


def drain_seconds(settings: dict[str, str]) -> float:
    def value(name: str) -> float:
        return float(settings.get(f"{PREFIX}{name.upper()}", Settings.model_fields[name].default))

    return value("drain_delay_seconds") + value("drain_timeout_seconds")


# --- settings --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [settings_of_image("service"), settings_of_kubernetes(), compose("service")["environment"]],
    ids=["image", "kubernetes", "compose"],
)
def test_every_variable_is_a_setting_with_a_legal_value(given: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    assert given
    assert given.keys() <= known
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    Settings()


def test_the_service_listens_where_everything_looks_for_it() -> None:
    port = int(settings_of_image("service")["SLIPWAY_PORT"])
    assert f"\nEXPOSE {port}\n" in read("Dockerfile")
    assert settings_of_kubernetes()["SLIPWAY_PORT"] == str(port)
    assert container()["ports"] == [{"name": "http", "containerPort": port, "protocol": "TCP"}]
    assert manifest("service")["spec"]["ports"][0]["targetPort"] == "http"
    assert compose("service")["ports"][0].endswith(f":{port}")
    (scraped,) = document("monitoring/prometheus.yml")["scrape_configs"]
    assert scraped["static_configs"] == [{"targets": [f"service:{port}"]}]
    (replica,) = scraped["dns_sd_configs"]
    assert (replica["names"], replica["port"]) == (["service-2"], port)
    assert compose("service-2")["image"] == compose("service")["image"]


def test_the_repository_is_mounted_where_the_service_looks_and_cannot_be_written() -> None:
    repository = settings_of_image("service")["SLIPWAY_REPOSITORY"]
    assert compose("service")["volumes"] == [f"${{SLIPWAY_MODELS:-./models}}:{repository}:ro"]
    assert compose("train")["volumes"][0] == f"${{SLIPWAY_MODELS:-./models}}:{repository}"
    assert {"name": "models", "mountPath": repository, "readOnly": True} in container()["volumeMounts"]
    assert settings_of_kubernetes()["SLIPWAY_REPOSITORY"] == repository
    assert settings_of_image("training")["SLIPWAY_REPOSITORY"] == repository


# --- life cycle ------------------------------------------------------------------------------------------------


def test_nobody_kills_a_service_that_still_drains() -> None:
    assert pod()["terminationGracePeriodSeconds"] > drain_seconds(settings_of_kubernetes())
    grace = re.fullmatch(r"(\d+)s", compose("service")["stop_grace_period"])
    assert grace
    assert float(grace.group(1)) > drain_seconds(compose("service")["environment"])


def test_there_is_no_pre_stop_hook_because_the_service_delays_itself() -> None:
    assert "lifecycle" not in container()
    assert float(settings_of_kubernetes()["SLIPWAY_DRAIN_DELAY_SECONDS"]) > 0


def test_an_empty_repository_is_no_reason_to_restart() -> None:
    probes = {name: container()[name]["httpGet"] for name in PROBED}
    assert probes == {name: {"path": path, "port": "http"} for name, path in PROBED.items()}
    health_check = next(line for line in read("Dockerfile").splitlines() if line.startswith("  CMD ["))
    assert "'/health/live'" in health_check
    assert "healthcheck" not in compose("service")


def test_probed_paths_are_routes() -> None:
    source = read("service/api/health.py")
    for path in PROBED.values():
        assert f'"{path}"' in source


# --- hardening -------------------------------------------------------------------------------------------------


def test_the_pod_meets_the_restricted_profile() -> None:
    security = pod()["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] == USER
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod()["automountServiceAccountToken"] is False
    assert manifest("serviceaccount")["automountServiceAccountToken"] is False


def test_the_service_object_cannot_overwrite_a_setting() -> None:
    # Kubernetes would set SLIPWAY_PORT=tcp://... for a Service named slipway.
    assert pod()["enableServiceLinks"] is False


@pytest.mark.parametrize("service", sorted(document("docker-compose.yml")["services"]))
def test_compose_hardens_every_container(service: str) -> None:
    found = compose(service)
    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert {"pids_limit", "mem_limit"} <= found.keys()
    assert all(port.startswith("127.0.0.1:") for port in found.get("ports", []))


def test_images_run_as_a_numbered_user_who_is_not_root() -> None:
    assert re.findall(r"^USER (.*)$", read("Dockerfile"), re.MULTILINE) == [f"{USER}:{USER}"] * 2


def test_the_dockerfile_needs_no_registry_but_for_its_base() -> None:
    lines = read("Dockerfile").splitlines()
    assert not any(re.match(r"#\s*syntax\s*=", line) for line in lines)
    stages = [line.split()[-1] for line in lines if line.startswith("FROM ") and " AS " in line]
    sources = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert {"service", "training"} <= set(stages)
    assert set(sources) <= {"${BASE_IMAGE}", *stages}
    assert sources[-1] == "service"


def test_compose_has_no_password() -> None:
    assert not re.search(r"PASSWORD|password:|TOKEN|SECRET_KEY", read("docker-compose.yml"))
    grafana = compose("grafana")["environment"]
    assert grafana["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert grafana["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"


def test_compose_starts_what_is_asked_after_who_answers() -> None:
    assert compose("prometheus")["depends_on"]["service"] == {"condition": "service_healthy"}
    assert compose("balancer")["depends_on"].keys() == {"service", "service-2"}
    servers = re.findall(r"^ *server \w+ (\S+):(\d+)$", read("compose/balancer.cfg"), re.MULTILINE)
    port = settings_of_image("service")["SLIPWAY_PORT"]
    assert servers == [("service", port), ("service-2", port)]


def test_images_carry_this_version() -> None:
    version = tomllib.loads(read("pyproject.toml"))["project"]["version"]
    assert compose("service")["image"] == f"slipway:{version}"
    assert compose("train")["image"] == f"slipway-training:{version}"
    assert compose("service-2")["image"] == compose("service")["image"]
    assert {"name": container()["image"], "newTag": version} in manifest("kustomization")["images"]
    assert f"ARG SERVICE_IMAGE=slipway:{version}\n" in read("Dockerfile.model")


# --- Kubernetes objects that point at each other ----------------------------------------------------------------


def test_kustomization_lists_exactly_the_files_there_are() -> None:
    listed = manifest("kustomization")["resources"]
    assert sorted([*listed, "kustomization.yaml"]) == sorted(path.name for path in BASE.iterdir())


def test_references_between_objects_hold() -> None:
    assert pod()["serviceAccountName"] == manifest("serviceaccount")["metadata"]["name"]
    (generated,) = manifest("kustomization")["configMapGenerator"]
    assert container()["envFrom"][0] == {"configMapRef": {"name": generated["name"]}}
    volumes = {volume["name"] for volume in pod()["volumes"]}
    assert {mount["name"] for mount in container()["volumeMounts"]} == volumes


def test_the_autoscaler_owns_the_number_of_replicas() -> None:
    assert "replicas" not in manifest("deployment")["spec"]
    assert {"requests", "limits"} <= container()["resources"].keys()


# --- the lock, and the one door --------------------------------------------------------------------------------


def pins() -> dict[str, str]:
    lines = [line for line in read("constraints.txt").splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9A-Za-z.]*", line) for line in lines)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in (line.split("==") for line in lines)}


def test_the_lock_pins_every_direct_dependency() -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    wanted = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    names = {re.sub(r"[-_.]+", "-", re.split(r"[<>=!~\[; ]", requirement)[0]).lower() for requirement in wanted}
    assert names <= pins().keys()


def test_torch_is_pinned_without_a_local_build() -> None:
    assert pins()["torch"] == "2.13.0"


def test_make_knows_every_target_that_the_documents_name() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", read("Makefile"), re.MULTILINE))
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    named = {
        target
        for page in pages
        if page.exists()
        for target in re.findall(r"`make ([a-z][a-z0-9-]*)", page.read_text(encoding="utf-8"))
    }
    assert {"run", "test", "lint", "format", "serve", "train", "image", "help", "clean"} <= targets
    assert named <= targets


def test_help_lists_the_targets() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30)
    assert "make run " in shown.stdout
    assert shown.stderr == ""
