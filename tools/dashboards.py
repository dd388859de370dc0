"""Writes monitoring/grafana/dashboards/ from the panels listed here: `python -m tools.dashboards`; `--check` compares.

A dashboard of twenty panels is two thousand lines of JSON, most of them the same. What differs is here: a title, a
unit, a size and the queries. `tools/monitoring_test.py` runs every query against a real Prometheus.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

FOLDER: Final = Path(__file__).resolve().parent.parent / "monitoring" / "grafana" / "dashboards"
DATA_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_GRID_WIDTH: Final = 24

Kind = Literal["timeseries", "stat", "table", "bargauge"]
Query = tuple[str, str]  # expression, legend


@dataclass(frozen=True)
class Panel:
    """One panel. Its lines are `warn` and `bad`, where a value may be judged by itself."""

    title: str
    queries: Sequence[Query]
    description: str
    unit: str = "short"
    kind: Kind = "timeseries"
    width: int = 8
    height: int = 7
    warn: float | None = None
    bad: float | None = None
    stacked: bool = False


@dataclass(frozen=True)
class Variable:
    """A choice at the top of the page: values of `label` that `series` has."""

    label: str
    series: str
    everything: bool = True


@dataclass(frozen=True)
class Dashboard:
    """One page."""

    uid: str
    title: str
    description: str
    rows: dict[str, Sequence[Panel]]
    variables: Sequence[Variable] = field(default_factory=tuple)


_JOB: Final = 'job=~"$job"'
_REPLICA: Final = 'job=~"$job", instance=~"$instance"'
_MODEL: Final = 'job=~"$job", model=~"$model", version=~"$version"'
_MODELS: Final = 'job=~"$job", model=~"$model"'
_RATE: Final = "[$__rate_interval]"


def quantiles(series: str, selector: str, *by: str) -> list[Query]:
    """Median, p90 and p99 of a histogram."""
    groups = ", ".join((*by, "le"))
    legend = " ".join("{{%s}}" % name for name in by)  # noqa: UP031 - braces
    return [
        (
            f"histogram_quantile({quantile}, sum by ({groups}) (rate({series}_bucket{{{selector}}}{_RATE})))",
            f"p{quantile * 100:g} {legend}".strip(),
        )
        for quantile in (0.5, 0.9, 0.99)
    ]


OVERVIEW: Final = Dashboard(
    "slipway-overview",
    "Slipway / overview",
    "Is the promise kept, and if not, where does it hurt.",
    variables=(Variable("job", "slipway_build_info"), Variable("instance", "slipway_build_info")),
    rows={
        "The promise": (
            Panel(
                "Available, last hour",
                [(f"1 - slipway:unavailable:ratio_rate1h{{{_JOB}}}", "available")],
                "Share of predictions that got their answer. 429 and 5xx are ours; callers who left do not count.",
                "percentunit",
                "stat",
                4,
                5,
            ),
            Panel(
                "Within 0.5 s, last hour",
                [(f"1 - slipway:slow:ratio_rate1h{{{_JOB}}}", "in time")],
                "Share of requests to /predict that were answered within half a second.",
                "percentunit",
                "stat",
                4,
                5,
            ),
            Panel(
                "Requests per second",
                [(f'sum(rate(slipway_requests_total{{{_REPLICA}, route="/predict"}}{_RATE}))', "requests")],
                "Answered requests to /predict.",
                "reqps",
                "stat",
                4,
                5,
            ),
            Panel(
                "Ready replicas",
                [(f"sum(slipway_ready{{{_REPLICA}}})", "ready"), (f"count(up{{{_REPLICA}}})", "scraped")],
                "Replicas that want traffic, of those Prometheus knows.",
                "short",
                "stat",
                4,
                5,
            ),
            Panel(
                "Firing alerts",
                [('count(ALERTS{alertname=~"Slipway.*", alertstate="firing"}) or vector(0)', "alerts")],
                "The names are in Alertmanager; each has a runbook in docs/runbooks.",
                "short",
                "stat",
                4,
                5,
                warn=1,
                bad=3,
            ),
            Panel(
                "p99 latency",
                [quantiles("slipway_request_duration_seconds", f'{_REPLICA}, route="/predict"')[2]],
                "From the request's headers to its answer.",
                "s",
                "stat",
                4,
                5,
                warn=0.25,
                bad=0.5,
            ),
            Panel(
                "Availability: burn rate",
                [
                    (f"slipway:unavailable:ratio_rate{window}{{{_JOB}}} / 0.001", window)
                    for window in ("5m", "1h", "6h", "3d")
                ],
                "1 spends the error budget in 30 days. Pages at 14.4 (1 h and 5 min) and 6 (6 h and 30 min).",
                "short",
                width=12,
                warn=6,
                bad=14.4,
            ),
            Panel(
                "Latency: burn rate",
                [(f"slipway:slow:ratio_rate{window}{{{_JOB}}} / 0.01", window) for window in ("5m", "1h", "6h", "3d")],
                "The same for the latency budget: 1 % of the requests may take longer than half a second.",
                "short",
                width=12,
                warn=6,
                bad=14.4,
            ),
        ),
        "Traffic": (
            Panel(
                "Requests by status",
                [
                    (
                        f'sum by (code) (rate(slipway_requests_total{{{_REPLICA}, route="/predict"}}{_RATE}))',
                        "{{code}}",
                    )
                ],
                "Answers of /predict. 499: the caller left.",
                "reqps",
                stacked=True,
            ),
            Panel(
                "Latency of /predict",
                quantiles("slipway_request_duration_seconds", f'{_REPLICA}, route="/predict"'),
                "From the request's headers to its answer, refusals included.",
                "s",
                bad=0.5,
            ),
            Panel(
                "Rejected, by reason",
                [(f"sum by (reason) (rate(slipway_rejected_total{{{_REPLICA}}}{_RATE}))", "{{reason}}")],
                "Requests that got an error, by its code (docs/errors.md). Empty until there is one.",
                "reqps",
                stacked=True,
            ),
        ),
        "Saturation": (
            Panel(
                "Workers busy",
                [
                    (
                        f"sum by (instance, model) (slipway:worker_busy:ratio_rate5m{{{_REPLICA}}})",
                        "{{instance}} {{model}}",
                    )
                ],
                "Share of the workers' time spent tokenizing and computing. Above 90 % there is no headroom.",
                "percentunit",
                warn=0.75,
                bad=0.9,
            ),
            Panel(
                "Queue: p99 wait",
                [(f"slipway:queue_seconds:p99_rate5m{{{_REPLICA}}}", "{{instance}} {{model}}")],
                "What the slowest 1 % of the inputs waited for a worker.",
                "s",
                warn=0.25,
                bad=1,
            ),
            Panel(
                "Queue: how full",
                [(f"max by (instance, model) (slipway:queue_full:ratio{{{_REPLICA}}})", "{{instance}} {{model}}")],
                "Waiting inputs, of those that may wait. At 100 % the answer is 429.",
                "percentunit",
                warn=0.5,
                bad=0.8,
            ),
            Panel(
                "In flight",
                [
                    (f"sum by (instance) (slipway_requests_in_flight{{{_REPLICA}}})", "{{instance}} requests"),
                    (f"sum by (instance) (slipway_connections{{{_REPLICA}}})", "{{instance}} connections"),
                ],
                "Requests being answered and connections open.",
            ),
            Panel(
                "Memory",
                [
                    (f"process_resident_memory_bytes{{{_REPLICA}}}", "{{instance}}"),
                    (f"min(slipway_memory_limit_bytes{{{_REPLICA}}})", "limit"),
                ],
                "Resident memory and what the container may have.",
                "bytes",
            ),
            Panel(
                "CPU",
                [(f"rate(process_cpu_seconds_total{{{_REPLICA}}}{_RATE})", "{{instance}}")],
                "Cores in use.",
            ),
        ),
        "Models": (
            Panel(
                "Inputs per second",
                [
                    (
                        f"sum by (model, version) (rate(slipway_inputs_total{{{_REPLICA}}}{_RATE}))",
                        "{{model}} {{version}}",
                    )
                ],
                "Executed inputs; a request may hold many.",
            ),
            Panel(
                "Padding",
                [(f"slipway:padding:ratio_rate5m{{{_JOB}}}", "{{model}} {{version}}")],
                "Share of the computed tokens that is padding.",
                "percentunit",
                warn=0.25,
                bad=0.4,
            ),
            Panel(
                "Drift",
                [(f"slipway:drift_psi:increase1h{{{_JOB}}}", "{{model}} {{version}} {{feature}}")],
                "Population stability index of the last hour against the artifact's held-out rows. 0.25 is a shift.",
                warn=0.1,
                bad=0.25,
            ),
        ),
    },
)


def _against_reference(title: str, feature: str, description: str) -> Panel:
    """Live shares beside those of the held-out rows."""
    selector = f'{_MODEL}, feature="{feature}"'
    return Panel(
        title,
        [
            (f"sum by (bin) (slipway:drift_share:increase1h{{{selector}}})", "{{bin}} live"),
            (f"sum by (bin) (slipway:drift_reference:share{{{selector}}})", "{{bin}} reference"),
        ],
        description,
        "percentunit",
        "bargauge",
        width=12,
        height=9,
    )


ONE_MODEL: Final = Dashboard(
    "slipway-model",
    "Slipway / one model",
    "Where the time of one version goes, how well it batches, and whether its traffic still looks like its test rows.",
    variables=(
        Variable("job", "slipway_model_info"),
        Variable("model", "slipway_model_info", everything=False),
        Variable("version", "slipway_model_info", everything=False),
    ),
    rows={
        "What is served": (
            Panel(
                "Versions",
                [(f"count by (model, version, variant, digest, default) (slipway_model_info{{{_MODEL}}})", "")],
                "Replicas that have loaded each version.",
                kind="table",
                width=12,
                height=5,
            ),
            Panel(
                "Inputs per second",
                [(f"sum(rate(slipway_inputs_total{{{_MODEL}}}{_RATE}))", "inputs")],
                "Executed inputs.",
                kind="stat",
                width=4,
                height=5,
            ),
            Panel(
                "Tokens per second",
                [(f"sum(rate(slipway_tokens_total{{{_MODEL}}}{_RATE}))", "tokens")],
                "Tokens of executed inputs, padding not counted.",
                kind="stat",
                width=4,
                height=5,
            ),
            Panel(
                "Loading took",
                [(f"max(slipway_model_load_seconds{{{_MODEL}}})", "slowest")],
                "Opening, hashing, warming up and reproducing the golden answers.",
                "s",
                "stat",
                4,
                5,
            ),
        ),
        "Time": (
            Panel(
                "Queue",
                quantiles("slipway_queue_duration_seconds", _MODEL),
                "An input's wait for a worker.",
                "s",
                width=6,
            ),
            Panel(
                "Tokenization",
                quantiles("slipway_tokenization_duration_seconds", _MODEL),
                "Text to token ids, of one execution's inputs.",
                "s",
                width=6,
            ),
            Panel(
                "Inference",
                quantiles("slipway_inference_duration_seconds", _MODEL),
                "One execution of the backend.",
                "s",
                width=6,
            ),
            Panel(
                "Per input",
                [
                    (
                        f"sum(rate(slipway_inference_duration_seconds_sum{{{_MODEL}}}{_RATE}))"
                        f" / sum(rate(slipway_inputs_total{{{_MODEL}}}{_RATE}))",
                        "inference",
                    ),
                    (
                        f"sum(rate(slipway_tokenization_duration_seconds_sum{{{_MODEL}}}{_RATE}))"
                        f" / sum(rate(slipway_inputs_total{{{_MODEL}}}{_RATE}))",
                        "tokenization",
                    ),
                ],
                "Worker seconds that one input costs: what a replica's capacity follows from.",
                "s",
                width=6,
                stacked=True,
            ),
        ),
        "Batches": (
            Panel(
                "Inputs per execution",
                [
                    (
                        f"sum(rate(slipway_batch_size_sum{{{_MODEL}}}{_RATE}))"
                        f" / sum(rate(slipway_batch_size_count{{{_MODEL}}}{_RATE}))",
                        "mean",
                    ),
                    *quantiles("slipway_batch_size", _MODEL)[2:],
                ],
                "1 means that nothing gathers while the workers are busy: there is headroom.",
            ),
            Panel(
                "Padding",
                [(f"slipway:padding:ratio_rate5m{{{_MODEL}}}", "{{version}}")],
                "Share of the computed tokens that is padding.",
                "percentunit",
                warn=0.25,
                bad=0.4,
            ),
            Panel(
                "Waiting and executing",
                [
                    (f"sum(slipway_queue_size{{{_MODEL}}})", "waiting"),
                    (f"sum(slipway_inputs_executing{{{_MODEL}}})", "executing"),
                    (f"sum(rate(slipway_failed_executions_total{{{_MODEL}}}{_RATE}))", "failed executions/s"),
                ],
                "Inputs accepted and not answered, and executions that failed.",
            ),
        ),
        "Drift, last hour against the artifact's held-out rows": (
            Panel(
                "Population stability index",
                [(f"slipway:drift_psi:increase1h{{{_MODEL}}}", "{{feature}}")],
                "Below 0.1 nothing changed; above 0.25 it did. Needs some 500 inputs to mean anything.",
                warn=0.1,
                bad=0.25,
            ),
            Panel(
                "Unknown tokens",
                [
                    (f"slipway:unknown_tokens:ratio_rate1h{{{_MODEL}}}", "live"),
                    (f"max(slipway_unknown_tokens_reference_share{{{_MODEL}}})", "reference"),
                ],
                "Share of the tokens that stand for text outside the vocabulary.",
                "percentunit",
            ),
            Panel(
                "Inputs counted",
                [
                    (
                        f'sum(slipway:drift_inputs:increase1h{{{_MODEL}, feature="input_tokens"}})',
                        "inputs in the last hour",
                    )
                ],
                "The index's sample.",
            ),
            _against_reference("Input length", "input_tokens", "Tokens per input; a bin is named by its upper edge."),
            _against_reference("Unknown tokens per input", "unknown_tokens", "Share of unknown tokens in an input."),
            _against_reference("Labels", "label", "How often each label wins."),
            _against_reference("Scores", "score", "The winning label's score."),
        ),
    },
)

ROLLOUT: Final = Dashboard(
    "slipway-rollout",
    "Slipway / rollout",
    "Who serves what while versions change, and whether the new ones do as well as the old.",
    variables=(Variable("job", "slipway_build_info"), Variable("model", "slipway_model_info")),
    rows={
        "Where it stands": (
            Panel(
                "Who serves what",
                [
                    (
                        f"max by (instance, model, version, variant, default) (slipway_model_info{{{_MODELS}}})",
                        "",
                    )
                ],
                "Every loaded version of every replica; `default` answers requests that name none.",
                kind="table",
                width=16,
            ),
            Panel(
                "Different default artifacts",
                [(f"slipway:default_digests:count{{{_MODELS}}}", "{{model}}")],
                "1 outside a rollout. SlipwayVersionSkew fires when it stays above that.",
                kind="stat",
                warn=2,
                bad=3,
            ),
            Panel(
                "Replicas by default version",
                [
                    (
                        f'count by (model, version) (slipway_model_info{{{_MODELS}, default="true"}})',
                        "{{model}} {{version}}",
                    )
                ],
                "How far the rollout is.",
                stacked=True,
            ),
            Panel(
                "Ready",
                [(f"slipway_ready{{{_JOB}}}", "{{instance}}")],
                "1 while a replica wants traffic; 0 while it loads, drains or has nothing to serve.",
                stacked=True,
            ),
            Panel(
                "Versions by state",
                [(f"sum by (state) (slipway_models{{{_JOB}}})", "{{state}}")],
                "A version that failed has its reason in /health.",
                stacked=True,
            ),
        ),
        "Old against new": (
            Panel(
                "Share of the traffic",
                [
                    (
                        f"sum by (model, version) (rate(slipway_requests_total{{{_MODELS}}}{_RATE}))"
                        " / on (model) group_left ()"
                        f" sum by (model) (rate(slipway_requests_total{{{_MODELS}}}{_RATE}))",
                        "{{model}} {{version}}",
                    )
                ],
                "Requests that each version answered.",
                "percentunit",
                stacked=True,
            ),
            Panel(
                "Failures by version",
                [
                    (
                        f'(sum by (model, version) (rate(slipway_requests_total{{{_MODELS}, code=~"5..|429"}}'
                        f"{_RATE})) or 0 * sum by (model, version)"
                        f" (rate(slipway_requests_total{{{_MODELS}}}{_RATE})))"
                        f" / sum by (model, version) (rate(slipway_requests_total{{{_MODELS}}}{_RATE}))",
                        "{{model}} {{version}}",
                    )
                ],
                "Share of the requests that ended in 429 or 5xx. The reason to roll back.",
                "percentunit",
                warn=0.001,
                bad=0.01,
            ),
            Panel(
                "p99 inference by version",
                [
                    (
                        "histogram_quantile(0.99, sum by (model, version, le)"
                        f" (rate(slipway_inference_duration_seconds_bucket{{{_MODELS}}}{_RATE})))",
                        "{{model}} {{version}}",
                    )
                ],
                "One execution of the backend.",
                "s",
            ),
            Panel(
                "Labels by version",
                [
                    (
                        f'slipway:drift_share:increase1h{{{_MODELS}, feature="label"}}',
                        "{{model}} {{version}} {{bin}}",
                    )
                ],
                "Two versions that see the same traffic should answer about the same.",
                "percentunit",
            ),
            Panel(
                "p99 queue by version",
                [
                    (
                        "histogram_quantile(0.99, sum by (model, version, le)"
                        f" (rate(slipway_queue_duration_seconds_bucket{{{_MODELS}}}{_RATE})))",
                        "{{model}} {{version}}",
                    )
                ],
                "An input's wait for a worker.",
                "s",
            ),
            Panel(
                "Loading took",
                [(f"slipway_model_load_seconds{{{_MODELS}}}", "{{instance}} {{model}} {{version}}")],
                "What a new replica needs before it is ready.",
                "s",
            ),
        ),
        "Processes": (
            Panel(
                "Up for",
                [(f"time() - process_start_time_seconds{{{_JOB}}}", "{{instance}}")],
                "Since the process started.",
                "s",
            ),
            Panel(
                "Starts in the last 15 minutes",
                [(f"changes(process_start_time_seconds{{{_JOB}}}[15m])", "{{instance}}")],
                "Three are an alert.",
                warn=1,
                bad=3,
            ),
            Panel(
                "Builds",
                [(f"count by (version, python, onnxruntime) (slipway_build_info{{{_JOB}}})", "")],
                "Replicas of each build.",
                kind="table",
            ),
        ),
    },
)
DASHBOARDS: Final = (OVERVIEW, ONE_MODEL, ROLLOUT)


def document(dashboard: Dashboard) -> dict[str, Any]:
    """The dashboard as Grafana (schema 39, Grafana 10 and later) reads it."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["slipway"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "utc",
        "links": [{"type": "dashboards", "tags": ["slipway"], "title": "Slipway", "asDropdown": True}],
        "templating": {"list": [_data_source(), *map(_variable, dashboard.variables)]},
        "panels": list(_panels(dashboard)),
    }


def _data_source() -> dict[str, Any]:
    return {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}


def _variable(variable: Variable) -> dict[str, Any]:
    query = f"label_values({variable.series}, {variable.label})"
    return {
        "name": variable.label,
        "type": "query",
        "datasource": DATA_SOURCE,
        "query": {"query": query, "refId": variable.label},
        "refresh": 2,
        "sort": 3,
        "includeAll": variable.everything,
        "multi": variable.everything,
        "allValue": ".+",  # series of no model are no model
        "current": {"text": "All", "value": "$__all"} if variable.everything else {},
    }


def _panels(dashboard: Dashboard) -> Iterator[dict[str, Any]]:
    """Rows from top to bottom; panels from left to right, wrapped where a line is full."""
    number, y = 0, 0
    for title, panels in dashboard.rows.items():
        number += 1
        grid = {"h": 1, "w": _GRID_WIDTH, "x": 0, "y": y}
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": grid, "panels": []}
        x, y, tallest = 0, y + 1, 0
        for panel in panels:
            if x + panel.width > _GRID_WIDTH:
                x, y, tallest = 0, y + tallest, 0
            number += 1
            yield _panel(panel, number, {"h": panel.height, "w": panel.width, "x": x, "y": y})
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest


def _panel(panel: Panel, number: int, grid: dict[str, int]) -> dict[str, Any]:
    instant = panel.kind in {"table", "bargauge"}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATA_SOURCE,
        "gridPos": grid,
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": DATA_SOURCE,
                "expr": expression,
                "legendFormat": legend,
                "instant": instant,
                "range": not instant,
                "format": "table" if panel.kind == "table" else "time_series",
            }
            for index, (expression, legend) in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": _look(panel), "overrides": []},
        "options": _options(panel),
    }


def _look(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    steps += [{"color": "orange", "value": panel.warn}] if panel.warn is not None else []
    steps += [{"color": "red", "value": panel.bad}] if panel.bad is not None else []
    look: dict[str, Any] = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.kind == "timeseries":
        judged = panel.warn is not None or panel.bad is not None
        look["color"] = {"mode": "palette-classic"}
        look["custom"] = {
            "drawStyle": "line",
            "fillOpacity": 20 if panel.stacked else 5,
            "stacking": {"mode": "normal" if panel.stacked else "none"},
            "thresholdsStyle": {"mode": "line" if judged else "off"},
        }
    return look


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "timeseries":
        return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
    if panel.kind == "table":
        return {"showHeader": True}
    reduce = {"calcs": ["lastNotNull"], "values": False, "fields": ""}
    if panel.kind == "bargauge":
        return {"reduceOptions": reduce, "orientation": "horizontal", "displayMode": "basic"}
    return {"reduceOptions": reduce, "colorMode": "value", "graphMode": "area"}


def pages() -> dict[str, str]:
    """File name to contents."""
    return {
        f"{dashboard.uid.removeprefix('slipway-')}.json": json.dumps(document(dashboard), indent=2) + "\n"
        for dashboard in DASHBOARDS
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Write the files, or say which of them are not what they should be."""
    parser = argparse.ArgumentParser(description="Write Grafana's dashboards.")
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 where a file differs")
    only_check = parser.parse_args(argv).check
    stale = [
        name
        for name, text in pages().items()
        if not (FOLDER / name).is_file() or (FOLDER / name).read_text(encoding="utf-8") != text
    ]
    if only_check:
        sys.stdout.write("".join(f"{name} is not current: run python -m tools.dashboards\n" for name in stale))
        return 1 if stale else 0
    for name in stale:
        (FOLDER / name).write_text(pages()[name], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
