"""What `make run` does once everything is installed: train and calibrate if there is nothing to serve, serve, predict.

This process becomes `slipway serve`, so that Ctrl-C, signals and the exit status are the service's own. The prediction
is made by a grandchild, which ends as soon as it has printed what a person would try next.
"""

import argparse
import contextlib
import http.client
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from artifact.repository import Repository

MODEL = "sentiment"
HOST = "127.0.0.1"
TEXT = "A moving story, beautifully told."
SLIPWAY = Path(sys.executable).with_name("slipway")
READY_WITHIN_SECONDS = 120.0
POLL_SECONDS = 0.2
# About how long the choice of variant, engine and threads may take.
MEASURE_SECONDS = 15


def main(argv: Sequence[str] | None = None) -> int:
    """Train if need be, then turn into the service. Returns only where something went wrong before that."""
    arguments = _parser().parse_args(argv)
    if not port_is_free(arguments.port):
        _say(f"Port {arguments.port} is in use: stop what listens there, or choose another one: make run PORT=8001")
        return 1
    if not Repository(arguments.repository).versions(MODEL):
        status = train(arguments.repository)
        if status:
            return status
        measure(arguments.repository)
    greet_from_a_grandchild(arguments.port)
    return serve(arguments.repository, arguments.port)


def serve(repository: Path, port: int) -> NoReturn:
    """Become the service."""
    environment = {"SLIPWAY_LOG_FORMAT": "console"} | os.environ  # a person reads these lines
    command = [str(SLIPWAY), "serve", "--repository", str(repository), "--host", HOST, "--port", str(port)]
    sys.stdout.flush()
    os.execve(command[0], command, environment)  # noqa: S606 - our own words


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train once, serve, and try a prediction.")
    parser.add_argument("--repository", type=Path, default=Path("models"))
    parser.add_argument("--port", type=int, default=8000)
    return parser


def port_is_free(port: int) -> bool:
    """Whether the service will be able to listen: a stranger's answer must not pass for ours."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def train(repository: Path) -> int:
    """Run `slipway train sentiment`; its exit status, 130 where Ctrl-C ended it."""
    _say(f"No version of {MODEL} in {repository} yet: training one. This happens once.")
    command = [str(SLIPWAY), "train", MODEL, "--repository", str(repository)]
    with subprocess.Popen(command) as trainer:  # noqa: S603 - our own words
        while True:
            try:
                return trainer.wait()
            except KeyboardInterrupt:
                continue  # the trainer has the same signal and decides how to end


def measure(repository: Path) -> None:
    """Let the service know what runs the new model fastest on this machine. Without it, it goes by a rule."""
    command = [str(SLIPWAY), "bench", MODEL, "--engines", "--seconds", str(MEASURE_SECONDS)]
    with contextlib.suppress(KeyboardInterrupt):
        subprocess.run([*command, "--repository", str(repository)], check=False)  # noqa: S603 - our own words


def greet_from_a_grandchild(port: int) -> None:
    """Greet beside the service. A grandchild, so that init reaps it: the service expects no children."""
    service = os.getpid()
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        greet(port, service)
    finally:
        sys.stdout.flush()
        os._exit(0)


def greet(port: int, service: int) -> None:
    """Wait until the service is ready, make one prediction, and print what a person would try next."""
    if not _ready(port, service):
        return
    body = json.dumps({"inputs": TEXT})
    answer = json.loads(_ask(port, "POST", "/predict", body)[1])
    url = f"http://{HOST}:{port}"
    curl = f"curl -s {url}/predict -H 'Content-Type: application/json' -d {shlex.quote(body)}"
    best, model = answer["predictions"][0], answer["model"]
    sys.stdout.write(
        f"\n{model['name']} version {model['version']} answers on {url} (interactive documentation: {url}/docs)\n\n"
        f"  {TEXT!r} is {best['label']}, score {best['score']:.3f}\n\n"
        f"Try it from another terminal:\n\n  {curl}\n\nCtrl-C stops the service.\n\n"
    )


def _ready(port: int, service: int) -> bool:
    deadline = time.monotonic() + READY_WITHIN_SECONDS
    while time.monotonic() < deadline and _alive(service):
        try:
            status, body = _ask(port, "GET", "/health")
        except OSError:
            status, body = 0, b""  # not listening yet
        if status == http.client.OK:
            return True
        if body and json.loads(body)["status"] == "failed":
            _say(f"The service is up and has no model it can serve: {json.loads(body)['message']}")
            return False
        time.sleep(POLL_SECONDS)  # another process: there is no event to wait for
    return False


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _ask(port: int, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
    """One request; its status and body."""
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
