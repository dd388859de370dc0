"""`make compose-test`: start the compose stack for real, use it, watch an alert arrive, take it down.

Runs inside the engine's network namespace (`tools/container-engine exec`), where the published ports are. Grafana
cannot be had on the test machine: its dashboards are checked by asking Prometheus every query of every panel. The
last line of standard output is one JSON document; the exit status is 1 when a step did not happen.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from artifact.manifest import Binned, Reference
from tests.tiny_artifact import publish_tiny

ROOT: Final = Path(__file__).resolve().parents[1]
DASHBOARDS: Final = ROOT / "monitoring" / "grafana" / "dashboards"
SERVICES: Final = ("service", "prometheus", "alertmanager")
PROMETHEUS: Final = "http://127.0.0.1:9090"
ALERTMANAGER: Final = "http://127.0.0.1:9093"
SERVICE: Final = "http://127.0.0.1:8000"
BALANCER: Final = "http://127.0.0.1:8080"
ALERT: Final = "SlipwayDown"
# What training would record about held-out rows; the panels on drift compare with it.
USUAL: Final = Reference(
    rows=100,
    input_tokens=Binned(edges=(4, 8), shares=(0.5, 0.3, 0.2)),
    unknown_tokens=Binned(edges=(0, 0.5), shares=(0.9, 0.1, 0)),
    unknown_token_share=0.02,
    label_shares=(0.4, 0.6),
    scores=Binned(edges=(0.75,), shares=(0.2, 0.8)),
)
# What Grafana fills in.
_VARIABLES: Final = {"$__rate_interval": "1m", "$__interval": "15s", "$__range": "5m"}


def compose(*words: str, profiles: Sequence[str] = (), quiet: bool = True) -> str:
    """Run Docker Compose on our file; its standard output. Raises CalledProcessError."""
    chosen = [word for profile in profiles for word in ("--profile", profile)]
    command = ["docker", "compose", "--project-directory", str(ROOT), *chosen, *words]
    done = subprocess.run(command, capture_output=quiet, text=True, check=False, cwd=ROOT)  # noqa: S603
    if done.returncode:
        say(f"{' '.join(words)}: {done.stderr}")
        done.check_returncode()
    return done.stdout or ""


def ask(url: str, body: object = None, accept: Sequence[int] = (200,)) -> Any:
    """GET, or POST where there is a body; the JSON answer. Raises OSError."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310 - our own loopback
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code not in accept:
            raise
        return json.load(error)


def query(expression: str) -> list[Any]:
    """The result of an instant query."""
    found = ask(f"{PROMETHEUS}/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
    return list(found["data"]["result"])


def wait_for(what: str, happened: Callable[[], bool], seconds: float) -> float:
    """Seconds until it happened. Raises TimeoutError."""
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        try:
            if happened():
                took = time.perf_counter() - began
                say(f"{what}: {took:.1f} s")
                return took
        except OSError:
            pass  # not there yet
        time.sleep(0.2)  # other processes: there is no event to wait for
    raise TimeoutError(f"{what} did not happen in {seconds} s")


def say(text: str) -> None:
    """One line of progress."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


@contextmanager
def stack(models: Path) -> Iterator[float]:
    """The stack, up and healthy; yields the seconds that took. Whatever happens, it is taken down."""
    os.environ["SLIPWAY_MODELS"] = str(models)
    began = time.perf_counter()
    try:
        compose("up", "-d", "--wait", "--no-build", "--pull", "never", *SERVICES)
        yield time.perf_counter() - began
    except BaseException:
        say(compose("logs", "--no-color", "--tail", "30", profiles=["balanced"]))
        raise
    finally:
        compose("down", "-v", "--remove-orphans", profiles=["balanced"])


def use_it() -> str:
    """A prediction, and one of every kind of refusal, so that every panel has something to show."""
    for count in range(40):
        answer = ask(f"{SERVICE}/predict", {"inputs": ["a good film", "an awful mess ."][count % 2]})
    ask(f"{SERVICE}/predict", {"inputs": 7}, accept=(422,))
    ask(f"{SERVICE}/no-such-path", accept=(404,))
    return str(answer["predictions"][0]["label"])


def panel_queries(folder: Path = DASHBOARDS) -> dict[str, str]:
    """Every query of every panel: where it is -> expression, with Grafana's variables filled in."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        dashboard = json.loads(path.read_text(encoding="utf-8"))
        panels = [inner for panel in dashboard["panels"] for inner in (panel, *panel.get("panels", []))]
        for panel in panels:
            for target in panel.get("targets", []):
                name = f"{path.stem}: {panel['title']} {target.get('refId', '')}"
                found[name] = filled(target["expr"])
    return found


def filled(expression: str) -> str:
    """The expression with variables replaced: a dashboard's own by what matches everything."""
    for name, value in _VARIABLES.items():
        expression = expression.replace(name, value).replace(f"${{{name[1:]}}}", value)
    return re.sub(r"\$\{?\w+(:\w+)?\}?", ".*", expression)


def without_data(queries: dict[str, str], seconds: float) -> list[str]:
    """Panels that stay empty, after waiting for scrapes and rules."""
    empty = dict(queries)
    end = time.perf_counter() + seconds
    while empty and time.perf_counter() < end:
        use_it()
        empty = {name: expression for name, expression in empty.items() if not query(expression)}
        time.sleep(1)
    return [f"{name}: {expression}" for name, expression in empty.items()]


def balanced() -> int:
    """Start the second replica and the balancer; how many replicas answered through it."""
    compose("up", "-d", "--wait", "--no-build", "--pull", "never", "service-2", "balancer", profiles=["balanced"])
    wait_for("a prediction through the balancer", lambda: bool(ask(f"{BALANCER}/predict", {"inputs": "good"})), 30)
    before = [requests_of(name) for name in ("service", "service-2")]
    for _ in range(20):
        ask(f"{BALANCER}/predict", {"inputs": "a good film"})
    after = [requests_of(name) for name in ("service", "service-2")]
    return sum(late > early for early, late in zip(before, after, strict=True))


def requests_of(service: str) -> float:
    """Predictions that one replica has answered, by its own count."""
    page = compose(
        "exec",
        "-T",
        service,
        "python",
        "-c",
        "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8000/metrics').read().decode())",
        profiles=["balanced"],
    )
    lines = re.findall(r'^slipway_requests_total\{.*route="/predict".*\} (\S+)$', page, re.MULTILINE)
    return sum(float(value) for value in lines)


def alerting() -> bool:
    """Whether Alertmanager has the alert."""
    return any(alert["labels"]["alertname"] == ALERT for alert in ask(f"{ALERTMANAGER}/api/v2/alerts"))


def run(models: Path) -> dict[str, Any]:
    """All steps; what was seen."""
    with stack(models) as up_seconds:
        report: dict[str, Any] = {"up_seconds": round(up_seconds, 1)}
        wait_for("ready", lambda: bool(ask(f"{SERVICE}/health/ready")), 30)
        report["predicted"] = use_it()
        report["scrape_seconds"] = round(wait_for("the scrape", lambda: bool(query('up{job="slipway"} == 1')), 60), 1)
        queries = panel_queries()
        empty = without_data(queries, 90)
        report |= {"panel_queries": len(queries), "panels_without_data": empty}
        report["replicas_behind_the_balancer"] = balanced()
        both = 'count(up{job="slipway", instance=~"service(-2)?:8000"} == 1) == 2'
        report["both_scraped_seconds"] = round(wait_for("both replicas scraped", lambda: bool(query(both)), 60), 1)
        began = time.perf_counter()
        compose("stop", "service")
        report["stop_seconds"] = round(time.perf_counter() - began, 1)
        report["alert_seconds"] = round(wait_for(f"{ALERT} in Alertmanager", alerting, 240), 1)
        began = time.perf_counter()
    report["down_seconds"] = round(time.perf_counter() - began, 1)
    return report


def main() -> int:
    """Run it, print what was seen."""
    with tempfile.TemporaryDirectory(prefix="slipway-compose-") as scratch:
        models = Path(scratch) / "models"
        publish_tiny(models, reference=USUAL)
        for path in (models.parent, *models.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)  # the container's user is another one
        report = run(models)
    sys.stdout.write(f"{json.dumps(report)}\n")
    good = not report["panels_without_data"] and report["replicas_behind_the_balancer"] == 2 and report["predicted"]
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
