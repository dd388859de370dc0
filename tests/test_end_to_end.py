"""The whole line with the real commands: a table in, a trained and gated model out, served, and not a request lost."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.training import tiny

SLIPWAY = Path(sys.executable).with_name("slipway")
CLIENTS = 8
ANSWERS_BEFORE_THE_SIGNAL = 200
PATIENCE_SECONDS = 60.0


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a few hundred rows, a recipe, and what `slipway train` made of them."""
    home = tmp_path_factory.mktemp("line")
    tiny.project(home)
    finished = run(home, "train", "recipe.toml")
    assert finished.returncode == 0, finished.stderr
    return home


def environment(home: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SLIPWAY_")}
    return clean | {"SLIPWAY_REPOSITORY": str(home / "models"), "SLIPWAY_CACHE_DIR": str(home / "cache")}


def run(home: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [SLIPWAY, *words], cwd=home, env=environment(home), capture_output=True, text=True, timeout=170, check=False
    )


@contextlib.contextmanager
def serving(home: Path, *flags: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """`slipway serve` as a process of its own, and its address once it is ready."""
    service = subprocess.Popen(
        [SLIPWAY, "serve", "--port", "0", *flags], cwd=home, env=environment(home), stderr=subprocess.PIPE, text=True
    )
    assert service.stderr is not None
    try:
        url = ""
        for line in service.stderr:
            found = re.search(r"http://[\d.]+:\d+", line)
            url = url or (found.group() if found else "")
            if url and '"model ready"' in line:
                break
        # Somebody must go on reading, or a full pipe would stop the service.
        threading.Thread(target=service.stderr.read, daemon=True).start()
        yield service, url
    finally:
        service.kill()
        service.wait(PATIENCE_SECONDS)
        service.stderr.close()


class Client(threading.Thread):
    """Asks over one kept connection until the service refuses a new one; every other failure is a lost answer."""

    def __init__(self, url: str, answered: threading.Semaphore) -> None:
        super().__init__()
        self.url = url
        self.answered = answered
        self.statuses: list[int] = []
        self.lost: list[str] = []

    def run(self) -> None:
        with httpx.Client(base_url=self.url, timeout=PATIENCE_SECONDS, trust_env=False) as client:
            while True:
                try:
                    response = client.post("/predict", json={"inputs": "a superb film"})
                except httpx.ConnectError:
                    return
                except httpx.HTTPError as error:
                    self.lost.append(repr(error))
                    return
                self.statuses.append(response.status_code)
                self.answered.release()


def test_a_model_goes_from_a_table_to_an_answer_over_http(home: Path) -> None:
    shown = json.loads(run(home, "models", "show", "tiny", "--json").stdout)
    assert shown["manifest"]["gate"]["passed"] is True
    by_hand = json.loads(run(home, "predict", "--model", "tiny", "a superb film").stdout)
    with serving(home) as (_, url), httpx.Client(base_url=url, trust_env=False) as client:
        assert client.get("/health").json()["ready"] is True
        answer = client.post("/predict", json={"inputs": "a superb film"}).json()
        metrics = client.get("/metrics").text
    assert answer["predictions"][0]["label"] == by_hand["label"]
    assert answer["predictions"][0]["score"] == pytest.approx(by_hand["score"], abs=1e-6)
    assert answer["model"]["version"] == 1
    assert re.search(r'^slipway_requests_total\{.*code="200".*\} 1\.0$', metrics, flags=re.MULTILINE)


def test_a_signal_under_load_loses_no_answer(home: Path) -> None:
    with serving(home) as (service, url):
        answered = threading.Semaphore(0)
        clients = [Client(url, answered) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        for _ in range(ANSWERS_BEFORE_THE_SIGNAL):
            assert answered.acquire(timeout=PATIENCE_SECONDS)
        service.send_signal(signal.SIGTERM)
        for client in clients:
            client.join(PATIENCE_SECONDS)
        assert service.wait(PATIENCE_SECONDS) == 0
    assert [client.lost for client in clients] == [[]] * CLIENTS
    assert {status for client in clients for status in client.statuses} == {200}
    assert sum(len(client.statuses) for client in clients) > ANSWERS_BEFORE_THE_SIGNAL


def test_onnx_and_torchscript_serve_the_same_answers(home: Path) -> None:
    texts = ["a superb film", "a dreadful bore", "superb superb dreadful"]
    scores = {}
    for variant in ("fp32", "torchscript"):
        with serving(home, "--variant", variant) as (_, url), httpx.Client(base_url=url, trust_env=False) as client:
            answer = client.post("/predict", json={"inputs": texts}).json()
        assert answer["model"]["variant"] == variant
        scores[variant] = [prediction["score"] for prediction in answer["predictions"]]
    assert scores["fp32"] == pytest.approx(scores["torchscript"], abs=1e-4)
