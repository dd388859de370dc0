"""`make k8s-rules`: wrap monitoring/rules/ into the PrometheusRule object of the operator's component."""

import sys
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).resolve().parents[1]
RULES: Final = ROOT / "monitoring" / "rules"
OBJECT: Final = ROOT / "k8s" / "components" / "prometheus-operator" / "prometheusrule.yaml"
_HEAD: Final = "# Made by `make k8s-rules` from monitoring/rules/; edit those.\n"


def prometheus_rule(folder: Path = RULES) -> dict[str, Any]:
    """The groups of every rules file, as one object."""
    files = sorted(folder.glob("*.yml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]]
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "slipway"},
        "spec": {"groups": groups},
    }


def text() -> str:
    """The file's whole text."""
    return _HEAD + yaml.safe_dump(prometheus_rule(), sort_keys=False, width=120, allow_unicode=True)


def main() -> int:
    """Write it."""
    OBJECT.write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
