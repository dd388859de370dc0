"""k8s/ as it is applied: rendered by kubectl where the machine has it (CI has), and held together with the code."""

import re
from functools import cache
from pathlib import Path
from typing import Any, Final, cast

import pytest
import yaml

from service.config import PREFIX, Settings
from service.metrics import Metrics
from tools.k8s_rules import OBJECT, prometheus_rule
from tools.simulated.manifests import ROOT, kubectl, named, of_kind, render

K8S: Final = ROOT / "k8s"
APPLIED: Final = ("base", *(f"overlays/{name}" for name in ("local", "staging", "production", "canary")), "training")
AUTOSCALERS: Final = ("HorizontalPodAutoscaler", "ScaledObject")


def read(path: str) -> dict[str, Any]:
    return cast("dict[str, Any]", yaml.safe_load((K8S / path).read_text(encoding="utf-8")))


@cache
def rendered(name: str) -> list[dict[str, Any]]:
    try:
        kubectl()
    except FileNotFoundError:
        pytest.skip("kubectl is not installed: tools/toolbox render")
    return render(K8S / name)


def series() -> set[str]:
    """Every series name of the service."""
    families = Metrics(process=False).families()
    ends = {"histogram": ("_bucket", "_sum", "_count")}
    return {f"{family.name}{end}" for family in families for end in ends.get(family.kind, ("",))}


def test_every_overlay_is_looked_at() -> None:
    assert {f"overlays/{path.name}" for path in (K8S / "overlays").iterdir()} <= set(APPLIED)


@pytest.mark.parametrize("name", APPLIED)
def test_a_deployment_has_at_most_one_autoscaler_and_then_no_size_of_its_own(name: str) -> None:
    objects = rendered(name)
    for deployment in of_kind(objects, "Deployment"):
        scalers = [
            each["kind"]
            for kind in AUTOSCALERS
            for each in of_kind(objects, kind)
            if each["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
        ]
        assert len(scalers) <= 1
        assert not (scalers and "replicas" in deployment["spec"])


@pytest.mark.parametrize("name", APPLIED)
def test_selectors_choose_the_pods_they_mean_and_no_others(name: str) -> None:
    objects = rendered(name)
    pods = {
        each["metadata"]["name"]: each["spec"]["template"]["metadata"]["labels"]
        for each in of_kind(objects, "Deployment")
    }
    for service in of_kind(objects, "Service"):
        chosen = [pod for pod, labels in pods.items() if service["spec"]["selector"].items() <= labels.items()]
        assert chosen == [service["metadata"]["name"]]
    for budget in of_kind(objects, "PodDisruptionBudget"):
        wanted = budget["spec"]["selector"]["matchLabels"].items()
        assert [pod for pod, labels in pods.items() if wanted <= labels.items()] == [budget["metadata"]["name"]]
    for policy in of_kind(objects, "NetworkPolicy"):
        wanted = policy["spec"]["podSelector"]["matchLabels"].items()
        jobs = [each["spec"]["template"]["metadata"]["labels"] for each in of_kind(objects, "Job")]
        assert any(wanted <= labels.items() for labels in (*pods.values(), *jobs))


def test_the_canary_is_not_chosen_by_production() -> None:
    production = named(rendered("overlays/production"), "Service", "slipway")["spec"]["selector"]
    canary = named(rendered("overlays/canary"), "Deployment", "slipway-canary")["spec"]["template"]["metadata"][
        "labels"
    ]
    assert not production.items() <= canary.items()


def test_traffic_is_split_between_services_that_exist() -> None:
    (route,) = of_kind(rendered("overlays/canary"), "HTTPRoute")
    backends = route["spec"]["rules"][0]["backendRefs"]
    found = {
        each["metadata"]["name"]
        for name in ("canary", "production")
        for each in of_kind(rendered(f"overlays/{name}"), "Service")
    }
    assert {each["name"] for each in backends} == found
    assert sum(each["weight"] for each in backends) == 100


@pytest.mark.parametrize("name", APPLIED)
def test_every_variable_is_a_setting(name: str) -> None:
    known = {f"{PREFIX}{setting.upper()}" for setting in Settings.model_fields} | {"SLIPWAY_CACHE_DIR"}
    for settings in of_kind(rendered(name), "ConfigMap"):
        assert {key for key in settings["data"] if key.startswith(PREFIX)} <= known


@pytest.mark.parametrize("name", APPLIED)
def test_what_pods_refer_to_exists_or_is_optional(name: str) -> None:
    objects = rendered(name)
    existing = {(each["kind"], each["metadata"]["name"]) for each in objects} | {
        ("PersistentVolumeClaim", "slipway-models")
    }
    for kind in ("Deployment", "Job"):
        for each in of_kind(objects, kind):
            pod = each["spec"]["template"]["spec"]
            assert ("ServiceAccount", pod["serviceAccountName"]) in existing
            claims = {
                volume["persistentVolumeClaim"]["claimName"]
                for volume in pod["volumes"]
                if "persistentVolumeClaim" in volume
            }
            assert {("PersistentVolumeClaim", claim) for claim in claims} <= existing
            for source in pod["containers"][0]["envFrom"]:
                reference = source.get("configMapRef") or source["secretRef"]
                assert reference.get("optional") or ("ConfigMap", reference["name"]) in existing


def test_autoscalers_ask_for_what_the_adapter_makes_of_series_that_exist() -> None:
    rules = read("components/autoscaling-prometheus-adapter/config.yaml")["rules"]
    assert {re.split(r"[{]", rule["seriesQuery"])[0] for rule in rules} <= series()
    asked = {
        metric["pods"]["metric"]["name"]
        for metric in read("components/autoscaling-prometheus-adapter/hpa.yaml")["spec"]["metrics"]
    }
    assert asked == {rule["name"]["as"] for rule in rules}


def test_keda_asks_for_series_that_exist_and_for_the_same_targets() -> None:
    triggers = read("components/autoscaling-keda/scaledobject.yaml")["spec"]["triggers"]
    assert {name for each in triggers for name in re.findall(r"slipway_\w+", each["metadata"]["query"])} <= series()
    metrics = read("components/autoscaling-prometheus-adapter/hpa.yaml")["spec"]["metrics"]
    targets = [metric["pods"]["target"]["averageValue"] for metric in metrics]
    assert [each["metadata"]["threshold"] for each in triggers] == targets


def test_all_autoscalers_grow_at_once_and_shrink_slowly() -> None:
    paths = ("base/hpa.yaml", "components/autoscaling-prometheus-adapter/hpa.yaml")
    behaviors = [read(path)["spec"]["behavior"] for path in paths]
    keda = read("components/autoscaling-keda/scaledobject.yaml")["spec"]["advanced"]["horizontalPodAutoscalerConfig"]
    assert behaviors == [keda["behavior"]] * 2
    assert behaviors[0]["scaleUp"]["stabilizationWindowSeconds"] == 0
    assert behaviors[0]["scaleDown"]["stabilizationWindowSeconds"] >= 300


def test_the_prometheus_rule_is_what_monitoring_has() -> None:
    found = yaml.safe_load(OBJECT.read_text(encoding="utf-8"))
    assert found == prometheus_rule(), "run `make k8s-rules`"


def test_what_is_scraped_is_the_service_port_and_path() -> None:
    (endpoint,) = read("components/prometheus-operator/servicemonitor.yaml")["spec"]["endpoints"]
    assert endpoint["port"] == read("base/service.yaml")["spec"]["ports"][0]["name"]
    assert f'"{endpoint["path"]}"' in (ROOT / "service" / "api" / "metrics.py").read_text(encoding="utf-8")


def test_the_job_and_the_cron_job_train_alike() -> None:
    job, cron = read("training/job.yaml"), read("training/cronjob.yaml")
    assert cron["spec"]["jobTemplate"]["spec"] == job["spec"]


def test_a_training_that_the_gate_refused_is_not_repeated() -> None:
    rule = read("training/job.yaml")["spec"]["podFailurePolicy"]["rules"][0]
    assert rule["action"] == "FailJob"
    assert 3 in rule["onExitCodes"]["values"]


@pytest.mark.parametrize("name", ["model-pvc", "model-image-volume", "model-baked"])
def test_another_way_of_delivery_leaves_no_init_container(name: str, tmp_path: Path) -> None:
    patch = read(f"components/{name}/kustomization.yaml")["patches"][0]["patch"]
    steps = yaml.safe_load(patch)
    assert {"op": "remove", "path": "/spec/template/spec/initContainers"} in steps
    assert steps[0]["op"] == "test", "a patch by position says what it expects there"


def test_the_model_image_is_copied_from_where_it_has_its_repository() -> None:
    text = (ROOT / "Dockerfile.model").read_text(encoding="utf-8")
    (copied,) = re.findall(r"^COPY \. (/repository)$", text, re.MULTILINE)
    (init,) = read("base/deployment.yaml")["spec"]["template"]["spec"]["initContainers"]
    assert init["command"] == ["/bin/cp", "-R", f"{copied}/.", f"{init['volumeMounts'][0]['mountPath']}/"]
    assert "/bin/cp" in text
