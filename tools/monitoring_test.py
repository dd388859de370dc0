"""`make monitoring-test`: two real services, Prometheus with our rules, Alertmanager, a webhook, all on the loopback.

    python -m tools.monitoring_test [--images docs/images]

Static checks first (promtool, amtool). Then traffic, with an incident in it: inputs the model was not made for, and
callers who send what cannot be answered. Every query of every panel must return data. Then one service is stopped, and
SlipwayDown must be seen in Prometheus, in Alertmanager and at the webhook. The last line of stdout is JSON.
Needs Debian's `prometheus` and `prometheus-alertmanager`; status 2 where they are missing, never a silent pass.
"""

import argparse
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import yaml

from artifact.manifest import Reference
from artifact.repository import Repository
from inference.model import Model
from tests.tiny_artifact import MODEL, publish_tiny, tiny_tokenizer
from tools.dashboards import DASHBOARDS, Dashboard
from training.reference import reference_of

ROOT: Final = Path(__file__).resolve().parent.parent
MONITORING: Final = ROOT / "monitoring"
PROGRAMS: Final = ("prometheus", "promtool", "prometheus-alertmanager", "amtool")
HOST: Final = "127.0.0.1"
TOKEN: Final = "not-a-secret"  # noqa: S105 - made for this run
SCRAPE_SECONDS: Final = 1
RATE_INTERVAL: Final = "10s"
PATIENCE_SECONDS: Final = 45.0
USUAL: Final = (
    "good",
    "a very good film",
    "an awful mess",
    "the movie was dull and boring",
    "it was funny , very warm",
)
STRANGE: Final = ("zorp " * 30, "quux blarg the zzz", "wibble " * 55)


class CheckFailed(Exception):
    """What was expected and did not happen."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run everything; 0 when it all happened."""
    parser = argparse.ArgumentParser(description="The monitoring, live.")
    parser.add_argument("--images", type=Path, help="also plot the dashboards from what was measured into this folder")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to send traffic")
    arguments = parser.parse_args(argv)
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        sys.stderr.write(f"missing: {', '.join(missing)}; apt-get install prometheus prometheus-alertmanager\n")
        return 2
    started = time.monotonic()
    result: dict[str, object] = {"passed": False}
    try:
        with ThreadPoolExecutor() as pool:
            files = pool.submit(check_files)
            with tempfile.TemporaryDirectory(prefix="slipway-monitoring-") as folder, ExitStack() as stack:
                result |= live(Stack.start(Path(folder), stack), arguments.seconds, arguments.images)
            result |= files.result()
        result["passed"] = True
    except CheckFailed as failure:
        result["failure"] = str(failure)
    result["seconds"] = round(time.monotonic() - started, 1)
    sys.stdout.write(json.dumps(result) + "\n")
    return 0 if result["passed"] else 1


# --- what needs no process ---------------------------------------------------------------------------------------


def check_files() -> dict[str, object]:
    """Rules, their tests, Alertmanager's file, and whether every query of panels and runbooks parses."""
    run("promtool", "check", "rules", *map(str, sorted((MONITORING / "rules").glob("*.yml"))))
    run("promtool", "test", "rules", *(str(MONITORING / name) for name in ("rules_test.yml", "slo_test.yml")))
    run("amtool", "check-config", str(MONITORING / "alertmanager.yml"))
    panels = [expression for dashboard in DASHBOARDS for _, expression in panel_queries(dashboard)]
    runbooks = runbook_queries()
    queries = [*panels, *runbooks]
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        rules = [{"record": f"panel:{number}", "expr": concrete(each)} for number, each in enumerate(queries)]
        yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}, file)
        file.flush()
        run("promtool", "check", "rules", file.name)
    say(f"files: rules, alertmanager.yml, {len(panels)} panel and {len(runbooks)} runbook queries parse; tests pass")
    return {"panel_queries_parsed": len(panels), "runbook_queries_parsed": len(runbooks)}


def runbook_queries() -> list[str]:
    """What the runbooks tell a person to ask."""
    pages = sorted((ROOT / "docs" / "runbooks").glob("*.md"))
    return [
        query for page in pages for query in re.findall(r"```promql\n(.*?)\n```", page.read_text("utf-8"), re.DOTALL)
    ]


def run(*command: str) -> None:
    """A program that must succeed. Raises CheckFailed with what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)  # noqa: S603
    if done.returncode:
        raise CheckFailed(f"{' '.join(command)}: {done.stdout}{done.stderr}")


def panel_queries(dashboard: Dashboard) -> Iterator[tuple[str, str]]:
    """Title and expression of every query of every panel."""
    for panels in dashboard.rows.values():
        for panel in panels:
            for expression, _ in panel.queries:
                yield panel.title, expression


def concrete(expression: str) -> str:
    """The expression with Grafana's variables filled in: everything, of the version that gets most of the traffic."""
    for name, value in {"__rate_interval": RATE_INTERVAL, "job": ".+", "instance": ".+", "model": ".+"}.items():
        expression = expression.replace(f"${name}", value)
    return expression.replace("$version", "1")


# --- the stack ---------------------------------------------------------------------------------------------------


class Webhook:
    """Alertmanager's receiver: remembers what came, by route and alert."""

    def __init__(self) -> None:
        self.heard: dict[str, dict[str, Any]] = {}
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if self.headers["authorization"] == f"Bearer {TOKEN}":
                    for alert in body["alerts"]:
                        webhook.heard[alert["labels"]["alertname"]] = alert | {"route": self.path}
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer((HOST, 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@dataclass
class Stack:
    """Everything that runs, and where."""

    services: list[subprocess.Popen[bytes]]
    urls: list[str]
    prometheus: str
    alertmanager: str
    webhook: Webhook
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=10, trust_env=False))

    @classmethod
    def start(cls, folder: Path, stack: ExitStack) -> "Stack":
        """Publish, configure, start, and wait until all of it is ready."""
        ports = free_ports(4)
        publish(folder / "models")
        webhook = Webhook()
        stack.callback(webhook.server.shutdown)
        configure(folder, ports, webhook.port)
        services = [stack.enter_context(process(folder, f"service-{port}", *serve(folder, port))) for port in ports[:2]]
        stack.enter_context(process(folder, "prometheus", *prometheus(folder, ports[2])))
        stack.enter_context(process(folder, "alertmanager", *alertmanager(folder, ports[3])))
        urls = [f"http://{HOST}:{port}" for port in ports]
        made = cls(services, urls[:2], urls[2], urls[3], webhook)
        stack.callback(made.client.close)
        for url in (*(f"{each}/health/ready" for each in made.urls), f"{urls[2]}/-/ready", f"{urls[3]}/-/ready"):
            until(f"{url} is ready", lambda url=url: made.answers(url))  # type: ignore[misc]
        say("stack: two services, Prometheus and Alertmanager are ready")
        return made

    def answers(self, url: str) -> bool:
        """Whether `url` says 200."""
        try:
            return self.client.get(url).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Samples of an instant query. Raises CheckFailed where Prometheus refuses it."""
        return self._ask("query", query=expression)

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """Series of a range query."""
        return self._ask("query_range", query=expression, start=start, end=end, step=step)

    def _ask(self, what: str, **parameters: object) -> list[dict[str, Any]]:
        answer = self.client.post(f"{self.prometheus}/api/v1/{what}", data=parameters).json()
        if answer["status"] != "success":
            raise CheckFailed(f"{parameters['query']}: {answer['error']}")
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on right now."""
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def publish(repository: Path) -> None:
    """Two versions of the tiny model, the second as canary, with the reference that training would record."""
    reference = tiny_reference(repository.with_name("draft"))
    for _ in range(2):
        publish_tiny(repository, reference=reference)
    Repository(repository).set_alias(MODEL, "canary", 2)


def tiny_reference(repository: Path) -> Reference:
    """What training/reference.py makes of the usual texts."""
    path, manifest = publish_tiny(repository)
    model = Model.load(Repository(repository).open(MODEL, int(path.name)))
    texts = [text for text in USUAL for _ in range(20)]
    scores = np.array([each.scores for each in model.predict(texts).predictions])
    model.close()
    return reference_of(manifest, tiny_tokenizer(), texts, scores)


def configure(folder: Path, ports: Sequence[int], webhook: int) -> None:
    """Our own files, with other addresses and less patience."""
    wanted = yaml.safe_load((MONITORING / "prometheus.yml").read_text(encoding="utf-8"))
    wanted["global"] = {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": f"{SCRAPE_SECONDS}s"}
    wanted["rule_files"] = [str(MONITORING / "rules" / "*.yml")]
    wanted["scrape_configs"][0]["static_configs"] = [{"targets": [f"{HOST}:{port}" for port in ports[:2]]}]
    wanted["scrape_configs"][0].pop("dns_sd_configs")  # the names of compose do not exist here
    wanted["alerting"]["alertmanagers"][0]["static_configs"] = [{"targets": [f"{HOST}:{ports[3]}"]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(wanted), encoding="utf-8")
    (folder / "token").write_text(TOKEN, encoding="utf-8")
    text = (MONITORING / "alertmanager.yml").read_text(encoding="utf-8")
    text = text.replace("http://alert-receiver:9095", f"http://{HOST}:{webhook}")
    text = text.replace("/etc/alertmanager/secrets/webhook-token", str(folder / "token")).replace(": 10s", ": 1s")
    (folder / "alertmanager.yml").write_text(text, encoding="utf-8")


def serve(folder: Path, port: int) -> list[str]:
    """The service's command line."""
    slipway = str(Path(sys.executable).with_name("slipway"))
    return [slipway, "serve", "--repository", str(folder / "models"), "--host", HOST, "--port", str(port)]


def prometheus(folder: Path, port: int) -> list[str]:
    """Prometheus' command line."""
    return [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address={HOST}:{port}",
        "--log.level=warn",
    ]


def alertmanager(folder: Path, port: int) -> list[str]:
    """Alertmanager's command line, without a cluster."""
    return [
        "prometheus-alertmanager",
        f"--config.file={folder / 'alertmanager.yml'}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address={HOST}:{port}",
        "--cluster.listen-address=",
        "--log.level=warn",
    ]


@contextmanager
def process(folder: Path, name: str, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program for as long as the block lasts; its output goes to a file in `folder`."""
    environment = os.environ | {
        "SLIPWAY_DRAIN_DELAY_SECONDS": "0",
        "SLIPWAY_MODEL_WORKERS": "1",
        "PYTHONPATH": str(ROOT),
    }
    with (folder / f"{name}.log").open("wb") as log:
        started = subprocess.Popen(command, stdout=log, stderr=log, env=environment)  # noqa: S603
        try:
            yield started
        except CheckFailed:
            say(f"--- {name}\n{tail(folder / f'{name}.log')}")
            raise
        finally:
            started.send_signal(signal.SIGINT if name.startswith("service") else signal.SIGTERM)
            try:
                started.wait(10)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()


def tail(log: Path, lines: int = 8) -> str:
    """The end of a program's output, for a person who wonders why."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


# --- the play ----------------------------------------------------------------------------------------------------


def live(stack: Stack, seconds: float, images: Path | None) -> dict[str, object]:
    """Traffic, every panel, an incident, the alert."""
    began = time.time()
    sent = traffic(stack, seconds)
    say(f"traffic: {sent} requests in {seconds:g} s")
    panels = check_panels(stack)
    say(f"panels: {panels} queries of {len(DASHBOARDS)} dashboards returned data")
    psi = {each["metric"]["feature"]: finite(each) for each in stack.query('slipway:drift_psi:increase1h{version="1"}')}
    seen = stop_one(stack)
    if images is not None:
        from tools.panel_images import draw

        end = time.time()
        draw(DASHBOARDS, lambda query: stack.query_range(concrete(query), began, end, 1), images, began)
    return {"sent": sent, "panel_queries": panels, "psi": psi, **seen}


def traffic(stack: Stack, seconds: float) -> int:
    """Usual traffic, then strange inputs and bad requests too; from four callers."""
    end = time.monotonic() + seconds
    counts = [0] * 4

    def call(caller: int) -> None:
        with httpx.Client(base_url=stack.urls[caller % 2], timeout=10, trust_env=False) as client:
            while (left := end - time.monotonic()) > 0:
                client.post("/predict", json=body(counts[caller], incident=left < seconds / 2))
                counts[caller] += 1
                stopped.wait(0.02)

    stopped = threading.Event()
    threads = [threading.Thread(target=call, args=(number,)) for number in range(len(counts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts)


def body(number: int, *, incident: bool) -> dict[str, object]:
    """What the next request says."""
    if incident and number % 7 == 0:
        return {"inputs": ["", " "][number % 2]}  # answered 422
    if incident and number % 11 == 0:
        return {"inputs": USUAL[0], "timeout_seconds": 1e-6}  # answered 429 or 504
    texts = STRANGE if incident and number % 2 else USUAL
    version = {"version": 2} if number % 5 == 0 else {}
    return {"inputs": [texts[number % len(texts)], USUAL[number % 3]], **version}


def check_panels(stack: Stack) -> int:
    """Every query of every panel has at least one sample that is a number."""
    queries = [(dashboard.title, title, query) for dashboard in DASHBOARDS for title, query in panel_queries(dashboard)]

    def empty() -> list[tuple[str, str, str]]:
        return [each for each in queries if not any(map(math.isfinite, map(finite, stack.query(concrete(each[2])))))]

    try:
        until("every panel has data", lambda: not empty(), patience=10)
    except CheckFailed:
        lines = [f"{dashboard}, {title}: {query}" for dashboard, title, query in empty()]
        raise CheckFailed("no data for " + "; ".join(lines)) from None
    return len(queries)


def finite(sample: dict[str, Any]) -> float:
    """A sample's value."""
    return float(sample["value"][1])


def stop_one(stack: Stack) -> dict[str, object]:
    """Stop one service; see the alert in three places. Returns how long each took."""
    stopped = time.monotonic()
    stack.services[1].send_signal(signal.SIGTERM)
    status = stack.services[1].wait(20)
    took: dict[str, object] = {"exit_status": status}

    def note(what: str, condition: Callable[[], object]) -> None:
        until(what, condition)
        took[f"{what}_seconds"] = round(time.monotonic() - stopped, 1)

    note("prometheus", lambda: stack.query('ALERTS{alertname="SlipwayDown", alertstate="firing"}'))
    note("alertmanager", lambda: "SlipwayDown" in alert_names(stack))
    note("webhook", lambda: "SlipwayDown" in stack.webhook.heard)
    alert = stack.webhook.heard["SlipwayDown"]
    page = ROOT / alert["annotations"]["runbook_url"]
    if alert["route"] != "/page" or not page.is_file() or not stack.urls[1].endswith(alert["labels"]["instance"]):
        raise CheckFailed(f"the webhook heard something else: {alert}")
    took["webhook_heard"] = sorted(stack.webhook.heard)
    if "SlipwayAvailabilityBurnFast" not in stack.webhook.heard:
        raise CheckFailed("the incident spent the error budget and paged nobody")
    say(f"alert: SlipwayDown for {alert['labels']['instance']} reached the webhook, {took['webhook_seconds']} s")
    return took


def alert_names(stack: Stack) -> set[str]:
    """What Alertmanager holds."""
    return {each["labels"]["alertname"] for each in stack.client.get(f"{stack.alertmanager}/api/v2/alerts").json()}


def until(what: str, condition: Callable[[], object], patience: float = PATIENCE_SECONDS) -> None:
    """Wait for other processes, which have no event to wait for. Raises CheckFailed."""
    end = time.monotonic() + patience
    pause = threading.Event()
    while not condition():
        if time.monotonic() > end:
            raise CheckFailed(f"{what}: not within {patience:g} s")
        pause.wait(0.2)


def say(text: str) -> None:
    """Progress."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
