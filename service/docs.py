"""Writes docs/settings.md and docs/metrics.md from the code: `python -m service.docs`. A test keeps them current."""

from pathlib import Path
from typing import Final

from service.config import PREFIX, Settings, bounds, default
from service.metrics import Metrics

_WRITTEN: Final = "<!-- Written by `python -m service.docs`; change the code, not this page. -->"
_SETTINGS: Final = """\
# Settings of `slipway serve`

{written}

Each is an environment variable; a flag of `slipway serve`, where there is one, wins over it. They are read once, at
start. A value that cannot be used stops the start with exit status 2 and a sentence that says what to change. An
empty variable counts as one that is not set.

| variable | default | may be | meaning |
|---|---|---|---|
{rows}

In Kubernetes a Service called `slipway` puts `SLIPWAY_PORT=tcp://...` into every pod of its namespace unless the pod
says `enableServiceLinks: false`; ours do.
"""
_METRICS: Final = """\
# Metrics

{written}

`GET /metrics`, in the Prometheus text format. Times are in seconds. Beside these stand the usual `process_*` and
`python_*` series. `model`, `version` and `task` are empty for a request that never got as far as a model; `route` is
a template, never a path; `reason` is an error code. What a model computes to warm up and to check itself is not
counted.

With `--workers N` a scrape tells of all processes, whichever answers it: counters and histograms are sums, of those
that died too; of gauges what is in flight, queued, open, executing, in memory and the limits and threads of each add
up, the rest is the greatest. Gauges, drift and `process_*` of the other processes are up to a second old;
`process_start_time_seconds` is that of the newest, so that a worker's restart shows.

| name | type | labels | meaning |
|---|---|---|---|
{rows}
"""


def settings_page() -> str:
    """Every setting of `slipway serve`."""
    rows = [
        f"| `{PREFIX}{name.upper()}` | {default(name)} | {bounds(name)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return _SETTINGS.format(written=_WRITTEN, rows="\n".join(rows))


def metrics_page() -> str:
    """Every series the service exports of its own."""
    rows = [
        f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels) or '-'} | {text} |"
        for name, kind, labels, text in Metrics(process=False).families()
    ]
    return _METRICS.format(written=_WRITTEN, rows="\n".join(rows))


def main() -> None:
    """Write both pages into docs/ of the checkout this file belongs to."""
    folder = Path(__file__).parents[1] / "docs"
    (folder / "settings.md").write_text(settings_page(), encoding="utf-8")
    (folder / "metrics.md").write_text(metrics_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
