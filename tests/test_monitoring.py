"""monitoring/ against the code: every rule has its cases, every alert its runbook, every query asks for what exists.

What needs Prometheus' own programs, and a real Prometheus, is `make monitoring-test`.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, cast

import pytest
import yaml

from service.drift import INPUT_TOKENS, LABEL, SCORE, UNKNOWN_TOKENS
from service.metrics import Metrics
from tools.dashboards import DASHBOARDS, FOLDER

ROOT: Final = Path(__file__).resolve().parent.parent
MONITORING: Final = ROOT / "monitoring"
# What Prometheus, its client library and Alertmanager bring along.
FOREIGN: Final = {
    "up",
    "ALERTS",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_cpu_seconds_total",
}
VARIABLES: Final = {"job", "instance", "model", "version", "datasource", "__rate_interval", "__all"}


def rules() -> list[dict[str, Any]]:
    found = yaml.safe_load((MONITORING / "rules" / "slipway.yml").read_text(encoding="utf-8"))
    return [rule for group in found["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def records() -> dict[str, str]:
    return {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}


def cases() -> list[dict[str, Any]]:
    """Every promtool test."""
    files = [MONITORING / name for name in ("rules_test.yml", "slo_test.yml")]
    return [case for file in files for case in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]]


def exported() -> dict[str, set[str]]:
    """Series a scraper sees, with their labels."""
    found: dict[str, set[str]] = {}
    for family in Metrics(process=False).families():
        ends = {"histogram": ("_bucket", "_sum", "_count")}.get(family.kind, ("",))
        found |= {f"{family.name}{end}": {*family.labels, *(["le"] if end == "_bucket" else [])} for end in ends}
    return found


def dashboard_files() -> dict[str, dict[str, Any]]:
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def runbooks() -> dict[str, str]:
    return {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "runbooks").glob("*.md")}


def queries() -> Iterator[tuple[str, str]]:
    """Every PromQL expression that we ship, with its place."""
    for rule in rules():
        yield rule.get("alert") or rule["record"], rule["expr"]
    for name, dashboard in dashboard_files().items():
        for panel in panels(dashboard):
            yield from ((f"{name}, {panel['title']}", target["expr"]) for target in panel["targets"])
    for name, page in runbooks().items():
        yield from ((f"{name}.md", found) for found in re.findall(r"```promql\n(.*?)\n```", page, re.DOTALL))


def names(expression: str) -> set[str]:
    """Metric names: words that are no function, keyword, label or string."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b(?:by|on|without|ignoring|group_left|group_right) *\([^)]*\)", " ", bare)
    words = re.findall(r"[a-zA-Z_:][\w:]*(?!\w|\s*\()", bare)
    return set(words) - {"and", "or", "unless", "on", "by", "bool", "offset"}


# --- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("place", "expression"), list(queries()))
def test_a_query_asks_only_for_what_exists(place: str, expression: str) -> None:
    known = exported().keys() | records().keys() | FOREIGN
    assert names(expression), place
    assert names(expression) <= known, f"{place}: {names(expression) - known}"


@pytest.mark.parametrize(("place", "expression"), list(queries()))
def test_a_query_selects_by_labels_that_the_series_has(place: str, expression: str) -> None:
    for name, selector in re.findall(r"\b(slipway_\w+)\{((?:[^}\"]|\"[^\"]*\")*)\}", expression):
        asked = set(re.findall(r"(\w+) *(?:=~|!~|!=|=)", re.sub(r'"[^"]*"', "", selector)))
        assert asked <= exported()[name] | {"job", "instance"}, f"{place}: {name} has no {asked - exported()[name]}"


def test_every_recording_rule_is_for_somebody() -> None:
    used = {name for _, expression in queries() for name in names(expression)}
    assert records().keys() <= used


def test_features_are_the_services_own() -> None:
    asked = {
        feature
        for _, expression in queries()
        for chosen in re.findall(r'feature=~?"([^"]+)"', expression)
        for feature in chosen.split("|")
    }
    assert asked == {INPUT_TOKENS, UNKNOWN_TOKENS, LABEL, SCORE}


def test_reasons_and_buckets_are_the_services_own() -> None:
    text = (MONITORING / "rules" / "slipway.yml").read_text(encoding="utf-8")
    codes = set(re.findall(r"^\| `\w+` \| `(\w+)` \|", (ROOT / "docs" / "errors.md").read_text("utf-8"), re.MULTILINE))
    asked = {reason for group in re.findall(r'reason!~"([^"]+)"', text) for reason in group.split("|")}
    assert asked
    assert asked <= codes
    page = Metrics(process=False)
    page.request_duration.labels("/predict").observe(0.1)
    for bucket in set(re.findall(r'le="([^"]+)"', text)):
        assert f'le="{bucket}"' in page.render().decode()


# --- alerts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(alerts()))
def test_an_alert_says_what_it_means_and_where_its_runbook_is(name: str) -> None:
    alert = alerts()[name]
    assert alert["labels"]["severity"] in {"page", "ticket"}
    assert {"summary", "description", "runbook_url"} <= alert["annotations"].keys()
    assert alert["annotations"]["runbook_url"] == f"docs/runbooks/{name}.md"
    page = runbooks()[name]
    assert page.startswith(f"# {name}\n")
    assert f"Severity: {alert['labels']['severity']}." in page
    for heading in ("## What it means", "## Confirm", "## Do"):
        assert heading in page
    assert page.count("```promql") >= 2
    assert f"(runbooks/{name}.md)" in (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")


def test_there_is_no_runbook_without_its_alert() -> None:
    assert runbooks().keys() == alerts().keys()


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    silent = {
        check["alertname"]
        for case in cases()
        for check in case.get("alert_rule_test", ())
        if not check.get("exp_alerts")
    }
    fires = {
        name
        for case in cases()
        for check in case.get("promql_expr_test", ())
        for sample in check["exp_samples"]
        for name in re.findall(r'^\{alertname="(\w+)"\}$', sample.get("labels", ""))
    }
    assert silent == alerts().keys()
    assert fires == alerts().keys()


def test_every_recording_rule_has_a_case_with_its_value() -> None:
    asked = {
        name
        for case in cases()
        for check in case.get("promql_expr_test", ())
        if check["exp_samples"]
        for name in names(check["expr"])
    }
    assert records().keys() <= asked


def test_rules_are_tested_in_the_order_they_stand_in() -> None:
    order = [
        group["name"] for group in yaml.safe_load((MONITORING / "rules" / "slipway.yml").read_text("utf-8"))["groups"]
    ]
    for name in ("rules_test.yml", "slo_test.yml"):
        assert yaml.safe_load((MONITORING / name).read_text("utf-8"))["group_eval_order"] == order


def test_rules_select_the_job_that_is_scraped() -> None:
    scraped = yaml.safe_load((MONITORING / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    text = (MONITORING / "rules" / "slipway.yml").read_text(encoding="utf-8")
    assert set(re.findall(r'job="(\w+)"', text)) == {each["job_name"] for each in scraped}


# --- Alertmanager ------------------------------------------------------------------------------------------------


def alertmanager() -> dict[str, Any]:
    return cast("dict[str, Any]", yaml.safe_load((MONITORING / "alertmanager.yml").read_text(encoding="utf-8")))


def test_every_severity_has_its_receiver_and_no_secret_stands_in_the_file() -> None:
    found = alertmanager()
    receivers = {receiver["name"] for receiver in found["receivers"]}
    severities = {alert["labels"]["severity"] for alert in alerts().values()}
    assert receivers == severities
    for receiver in found["receivers"]:
        (webhook,) = receiver["webhook_configs"]
        assert webhook["http_config"] == {
            "authorization": {"credentials_file": "/etc/alertmanager/secrets/webhook-token"}
        }
        assert "@" not in webhook["url"]


def test_inhibition_speaks_of_alerts_and_labels_that_exist() -> None:
    text = (MONITORING / "alertmanager.yml").read_text(encoding="utf-8")
    for matcher in re.findall(r'alertname=~?"([^"]+)"', text):
        pattern = re.compile(matcher)
        options = re.findall(r"\w+", matcher.removeprefix("Slipway")) if "(" in matcher else [matcher]
        matched = {name for name in alerts() if pattern.fullmatch(name)}
        assert len(matched) == len(options), f"{matcher} matches {sorted(matched)}"
    for label, value in re.findall(r"\[(burn|slo)=\"(\w+)\"", text):
        assert any(alert["labels"].get(label) == value for alert in alerts().values())


# --- dashboards --------------------------------------------------------------------------------------------------


def test_the_dashboards_are_what_the_program_writes() -> None:
    command = [sys.executable, "-m", "tools.dashboards", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout
    assert len(dashboard_files()) == len(DASHBOARDS)


@pytest.mark.parametrize("name", ["model.json", "overview.json", "rollout.json"])
def test_a_dashboard_is_whole(name: str) -> None:
    dashboard = dashboard_files()[name]
    assert {"uid", "title", "schemaVersion", "templating", "panels"} <= dashboard.keys()
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    known = {variable["name"] for variable in dashboard["templating"]["list"]}
    for panel in panels(dashboard):
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["targets"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        used = {found for target in panel["targets"] for found in re.findall(r"\$(\w+)", target["expr"])}
        assert used <= known | {"__rate_interval"}, panel["title"]
        assert used <= VARIABLES


@pytest.mark.parametrize("name", ["model.json", "overview.json", "rollout.json"])
def test_panels_lie_side_by_side_on_the_grid(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard_files()[name]["panels"]:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24
        cells = {(grid["x"] + x, grid["y"] + y) for x in range(grid["w"]) for y in range(grid["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def test_legends_name_labels_that_the_query_keeps() -> None:
    for name, dashboard in dashboard_files().items():
        for target in (target for panel in panels(dashboard) for target in panel["targets"]):
            by = re.findall(r"\b(?:sum|count|max|min) by \(([^)]*)\)", target["expr"])
            wanted = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            if by:
                kept = {label.strip() for label in by[0].split(",")}
                assert wanted <= kept, f"{name}: {target['expr']}"


def test_grafana_finds_the_dashboards_and_the_data_source() -> None:
    folder = MONITORING / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text("utf-8"))["datasources"]
    assert source["type"] == "prometheus"
    assert source["isDefault"] is True
    assert "password" not in json.dumps(source).lower()
    (provider,) = yaml.safe_load((folder / "dashboards" / "slipway.yml").read_text("utf-8"))["providers"]
    assert provider["options"]["path"].startswith("/")
