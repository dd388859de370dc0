"""`make k8s-test`: render everything under k8s/, hold it against the schemas of three Kubernetes versions and checkov.

Runs in .venv/.tools. The last line of standard output is one JSON document; the exit status is 1 when something is
wrong.
"""

import copy
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from tools.k8s_schemas import problems
from tools.simulated.manifests import ROOT, TOOLS, Object, render

VERSIONS: Final = ("1.33", "1.35", "1.37")
K8S: Final = ROOT / "k8s"
# Where a key that nobody knows is put into one object of each kind, to see that it is found: a validator that accepts
# everything would pass everything.
_SPOILED: Final = {
    "Deployment": ("spec", "template", "spec", "containers", 0),
    "HorizontalPodAutoscaler": ("spec", "behavior", "scaleDown"),
    "NetworkPolicy": ("spec", "ingress", 0),
    "Ingress": ("spec", "tls", 0),
    "Job": ("spec", "podFailurePolicy"),
    "ServiceMonitor": ("spec", "endpoints", 0),
    "PrometheusRule": ("spec", "groups", 0, "rules", 0),
    "ScaledObject": ("spec", "advanced", "horizontalPodAutoscalerConfig", "behavior", "scaleUp"),
    "HTTPRoute": ("spec", "rules", 0, "backendRefs", 0),
    "Gateway": ("spec", "listeners", 0),
    "ServingRuntime": ("spec", "containers", 0),
    "InferenceService": ("spec", "predictor", "model"),
}


def kustomizations() -> dict[str, Path]:
    """Every folder that one applies."""
    folders = [K8S / "base", *sorted((K8S / "overlays").iterdir()), K8S / "kserve", K8S / "training"]
    return {str(folder.relative_to(K8S)): folder for folder in folders}


@contextmanager
def with_component(component: Path) -> Iterator[Path]:
    """A folder that applies the base with one component: some are in no overlay."""
    with tempfile.TemporaryDirectory(dir=K8S, prefix=".try-") as scratch:
        folder = Path(scratch)
        content = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [os.path.relpath(K8S / "base", folder)],
            "components": [os.path.relpath(component, folder)],
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        yield folder


def rendered() -> dict[str, list[Object]]:
    """What each of them renders to."""
    found = {name: render(folder) for name, folder in kustomizations().items()}
    for component in sorted((K8S / "components").iterdir()):
        with with_component(component) as folder:
            found[f"base + {component.name}"] = render(folder)
    return found


def schema_problems(sets: dict[str, list[Object]], version: str) -> list[str]:
    """Everything that is wrong with everything, for one version of Kubernetes."""
    return [
        f"{name}: {each['kind']}/{each['metadata']['name']} ({version}): {problem}"
        for name, objects in sets.items()
        for each in objects
        for problem in problems(each, version)
    ]


def unnoticed(sets: dict[str, list[Object]], version: str) -> list[str]:
    """Kinds whose validator does not notice a key that does not exist."""
    examples = {each["kind"]: each for objects in sets.values() for each in objects}
    return [kind for kind, path in _SPOILED.items() if not problems(spoil(examples[kind], path), version)]


def spoil(found: Object, path: tuple[str | int, ...]) -> Object:
    """A copy with a misspelt key at `path`."""
    changed = copy.deepcopy(found)
    place: Any = changed
    for step in path:
        place = place[step]
    place["mispelt"] = "x"
    return changed


def checkov(sets: dict[str, list[Object]]) -> tuple[int, list[str]]:
    """Policies passed, and findings. Waivers, each explained: k8s/checkov.yaml."""
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("overlays/production", "overlays/staging", "training"):
            path = Path(scratch) / f"{name.replace('/', '-')}.yaml"
            path.write_text(yaml.safe_dump_all(sets[name]), encoding="utf-8")
        program = str(TOOLS.parent / "checkov" / "bin" / "checkov")
        command = [program, "--config-file", str(K8S / "checkov.yaml"), "-d", scratch, "-o", "json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    report = json.loads(done.stdout)
    reports = report if isinstance(report, list) else [report]
    found = [
        f"{check['check_id']} {check['resource']}: {check['check_name']}"
        for each in reports
        for check in each["results"]["failed_checks"]
    ]
    return sum(each["summary"]["passed"] for each in reports), found


def main() -> int:
    """Run it all, print what is wrong."""
    sets = rendered()
    wrong = [problem for version in VERSIONS for problem in schema_problems(sets, version)]
    wrong += [f"the validator of {kind} accepts an unknown key" for kind in unnoticed(sets, VERSIONS[-1])]
    passed, findings = checkov(sets)
    for line in [*wrong, *findings]:
        sys.stderr.write(f"{line}\n")
    report = {
        "rendered": len(sets),
        "objects": sum(len(objects) for objects in sets.values()),
        "versions": list(VERSIONS),
        "kinds": sorted({each["kind"] for objects in sets.values() for each in objects}),
        "unknown_keys_found_in": len(_SPOILED),
        "schema_problems": len(wrong),
        "policies_passed": passed,
        "policies_failed": len(findings),
    }
    sys.stdout.write(f"{json.dumps(report)}\n")
    return 1 if wrong or findings else 0


if __name__ == "__main__":
    sys.exit(main())
