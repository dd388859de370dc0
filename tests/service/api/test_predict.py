import json
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from artifact.repository import Artifact, Repository
from inference.model import Model
from service.schemas import PredictResponse
from tests.service.fakes import PATIENCE_SECONDS, GatedBackend, Running, loading, running, until
from tests.tiny_artifact import LABELS, MAX_INPUT_TOKENS, publish_tiny

CHUNK = b'{"inputs": "' + b"a" * 65536


def _error(answer: httpx.Response, status: int, code: str, field: str | None = None) -> dict[str, object]:
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    error: dict[str, object] = answer.json()["error"]
    assert error["code"] == code
    assert error.get("field") == field
    assert error["request_id"] == answer.headers["x-request-id"]
    return error


def test_one_text(service: Running) -> None:
    answer = service.predict("A good, warm and funny film!")
    assert answer.status_code == 200
    body = answer.json()
    (prediction,) = body["predictions"]
    assert prediction["label"] == "positive"
    assert prediction["score"] == prediction["scores"]["positive"] == max(prediction["scores"].values())
    assert list(prediction["scores"]) == list(LABELS)
    assert sum(prediction["scores"].values()) == pytest.approx(1)
    assert set(body["model"]) == {"name", "version", "digest", "variant"}
    assert (body["model"]["name"], body["model"]["version"], body["model"]["variant"]) == ("sentiment", 1, "fp32")
    assert body["usage"] == {"input_tokens": [10], "truncated": [False]}
    phases = ("queue_seconds", "tokenization_seconds", "inference_seconds")
    assert sum(body["timings"][phase] for phase in phases) == pytest.approx(body["timings"]["total_seconds"])


def test_many_texts_keep_their_order_and_their_answers(service: Running) -> None:
    texts = ["good", "awful mess", "the film", "best", "it was very dull, boring and bad"] * 8
    together = service.predict(texts).json()["predictions"]
    alone = [service.predict(text).json()["predictions"][0] for text in texts[:5]] * 8
    for one, other in zip(together, alone, strict=True):
        assert one["label"] == other["label"]
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)


def test_a_long_text_is_read_in_windows_and_the_answer_says_so(repository: Path) -> None:
    publish_tiny(repository, window_tokens=10)
    Repository(repository).set_alias("sentiment", "production", 2)
    with running(repository) as served:
        answer = served.predict(["good film", "a very good film and a funny movie " * 6])
        assert answer.status_code == 200
        assert answer.json()["usage"] == {"input_tokens": [4, 50], "truncated": [False, False], "windows": [1, 6]}
        PredictResponse.model_validate(answer.json())
        assert "windows" not in served.predict("good film").json()["usage"]
        too_long = _error(served.predict("good " * 63), 413, "input_too_long", "inputs[0]")
        assert str(MAX_INPUT_TOKENS) in str(too_long["message"])
        cut = served.predict("good " * 63, parameters={"truncate": True}).json()["usage"]
        assert cut == {"input_tokens": [64], "truncated": [True], "windows": [8]}
        schema = served.client.get("/openapi.json").json()["components"]["schemas"]["Usage"]
        assert "windows" in schema["properties"]
        counted = served.client.get("/metrics").text
        assert 'slipway_inputs_total{model="sentiment",task="text-classification",version="2"} 4.0' in counted
        assert 'slipway_batch_size_sum{model="sentiment",task="text-classification",version="2"} 16.0' in counted


def test_the_tutorials_body_gets_the_tutorials_answer(service: Running) -> None:
    scores = [list(p["scores"].values()) for p in service.predict(["good", "bad"]).json()["predictions"]]
    answer = service.client.post("/predict", json={"input_data": ["good", "bad"]})
    assert answer.json() == {"output_data": [pytest.approx(row) for row in scores]}
    _error(service.client.post("/predict", json={"input_data": ["a", 1]}), 422, "bad_input", "input_data[1]")


@pytest.mark.parametrize(("version", "number"), [(None, 1), (1, 1), (2, 2), ("canary", 2), ("production", 1), ("2", 2)])
def test_versions_by_number_and_alias(service: Running, version: object, number: int) -> None:
    assert service.predict("good", version=version, model="sentiment").json()["model"]["version"] == number


def test_nul_is_a_character_like_any_other(service: Running) -> None:
    assert service.predict("good\0film").status_code == 200


def test_json_with_parameters_or_a_suffix_is_json(service: Running) -> None:
    for kind in ("application/json; charset=utf-8", "application/vnd.api+json", "Application/JSON"):
        answer = service.client.post("/predict", content=b'{"inputs": "good"}', headers={"content-type": kind})
        assert answer.status_code == 200


@pytest.mark.parametrize("body", [b"", b"{", b"not json", b'{"inputs": NaN}', b"[" * 100_000 + b"]" * 100_000])
def test_what_is_not_json_is_a_400(service: Running, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    _error(service.client.post("/predict", content=body, headers=headers), 400, "not_json")
    _error(service.client.post("/predict", content=body), 400, "not_json")
    assert service.predict("good").status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "inputs"),
        ({"inputs": 1}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"inputs": ""}, "inputs[0]"),
        ({"inputs": " \n"}, "inputs[0]"),
        ({"inputs": ["a", "b", "c", 4]}, "inputs[3]"),
        ({"inputs": ["a", None]}, "inputs[1]"),
        ({"inputs": ["a", ["b"]]}, "inputs[1]"),
        ({"inputs": ["a", ""]}, "inputs[1]"),
        ({"inputs": "a", "colour": "red"}, "body"),
        ({"inputs": "a", "parameters": {"truncate": "yes"}}, "parameters.truncate"),
        ({"inputs": "a", "timeout_seconds": -1}, "timeout_seconds"),
        ([1], "body"),
    ],
)
def test_a_wrong_field_is_a_422_that_names_it(service: Running, body: object, field: str) -> None:
    _error(service.client.post("/predict", json=body), 422, "bad_input", field)


def test_lone_surrogates_are_a_422(service: Running) -> None:
    body = b'{"inputs": ["good", "\\ud83d"]}'
    answer = service.client.post("/predict", content=body, headers={"content-type": "application/json"})
    _error(answer, 422, "bad_input", "inputs[1]")


def test_errors_never_repeat_the_request(service: Running) -> None:
    secret = "hunter2"
    for body in (
        {"inputs": ["a", {"x": secret}]},
        {secret: 1},
        {"inputs": "a", "model": secret},
        {"inputs": "a", "version": secret},
        {"inputs": "a", "priority": secret},
        {"inputs": f"{secret} " * 100},
    ):
        answer = service.client.post("/predict", json=body)
        assert answer.status_code >= 400
        assert secret not in answer.text


def test_unknown_model_and_version_are_404(service: Running) -> None:
    assert "sentiment" in str(_error(service.predict("a", model="other"), 404, "unknown_model", "model")["message"])
    assert "canary" in str(_error(service.predict("a", version=3), 404, "unknown_model", "version")["message"])
    _error(service.predict("a", version="stable"), 404, "unknown_model", "version")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "json"])
def test_another_content_type_is_a_415(service: Running, kind: str) -> None:
    answer = service.client.post("/predict", content=b'{"inputs": "a"}', headers={"content-type": kind})
    _error(answer, 415, "unsupported_media_type")


def test_too_many_inputs_is_a_413(service: Running) -> None:
    assert service.predict(["good"] * 128).status_code == 200
    _error(service.predict(["good"] * 129), 413, "too_many_inputs", "inputs")


def test_too_long_is_a_413_unless_truncation_is_asked_for_and_then_flagged(service: Running) -> None:
    texts = ["good", "good " * 200]
    error = _error(service.predict(texts), 413, "input_too_long", "inputs[1]")
    assert str(MAX_INPUT_TOKENS) in str(error["message"])
    answer = service.predict(texts, parameters={"truncate": True})
    assert answer.json()["usage"] == {"input_tokens": [3, MAX_INPUT_TOKENS], "truncated": [False, True]}


def test_a_body_that_says_it_is_too_large_is_refused_unread(service: Running) -> None:
    with socket.create_connection(("127.0.0.1", service.port), PATIENCE_SECONDS) as client:
        client.sendall(
            b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 104857600\r\n\r\n"
        )
        assert client.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_hundred_megabytes_are_refused_however_they_come(service: Running) -> None:
    headers = {"content-type": "application/json"}
    large = b'{"inputs": "' + b"a" * 100_000_000 + b'"}'
    _error(service.client.post("/predict", content=large, headers=headers), 413, "body_too_large")
    chunks = (CHUNK for _ in range(1600))
    _error(service.client.post("/predict", content=chunks, headers=headers), 413, "body_too_large")
    assert service.predict("good").status_code == 200


@pytest.fixture
def backend() -> GatedBackend:
    return GatedBackend()


@pytest.fixture
def gated(repository: Path, backend: GatedBackend) -> Iterator[Running]:
    with running(repository, loading(backend, max_queue_size=4, max_batch_size=4)) as service:
        yield service
        backend.gate.set()


def test_a_failing_backend_is_a_500_and_the_next_request_is_answered(gated: Running, backend: GatedBackend) -> None:
    backend.failing = True
    answer = gated.predict("good")
    _error(answer, 500, "backend_failed")
    assert "secret" not in answer.text
    backend.failing = False
    assert gated.predict("good").status_code == 200


def test_a_full_queue_is_a_429_that_says_when_to_come_back(gated: Running, backend: GatedBackend) -> None:
    backend.gate.clear()
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(gated.predict, "good")
        assert backend.entered.wait(PATIENCE_SECONDS)
        waiting = pool.submit(gated.predict, ["good"] * 4)
        until(lambda: _waiting(gated) == 4)
        refused = gated.predict("good")
        error = _error(refused, 429, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        assert float(str(error["retry_after_seconds"])) > 0
        backend.gate.set()
        assert first.result().status_code == waiting.result().status_code == 200


def test_a_passed_deadline_is_a_504_even_while_the_backend_hangs(gated: Running, backend: GatedBackend) -> None:
    backend.gate.clear()
    answer = gated.predict("good", timeout_seconds=0.1)
    _error(answer, 504, "deadline_exceeded")
    assert "retry-after" in answer.headers
    backend.gate.set()
    assert gated.predict("good").status_code == 200


def test_a_caller_who_leaves_mid_batch_costs_nobody_else_and_is_not_computed(
    gated: Running, backend: GatedBackend
) -> None:
    backend.gate.clear()
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(gated.predict, "good")
        assert backend.entered.wait(PATIENCE_SECONDS)
        leaver = _send(gated.port, {"inputs": ["bad", "bad"]})
        until(lambda: _waiting(gated) == 2)
        stays = pool.submit(gated.predict, "awful film")
        until(lambda: _waiting(gated) == 3)
        leaver.close()
        until(lambda: gated.server.context.in_flight == 2)
        assert "slipway_requests_in_flight 2.0" in gated.client.get("/metrics").text, "without the scrape itself"
        backend.gate.set()
        assert first.result().status_code == stays.result().status_code == 200
    assert sum(backend.batches) == 2
    page = gated.client.get("/metrics").text
    assert 'slipway_rejected_total{reason="client_closed_request"} 1.0' in page
    assert "slipway_requests_in_flight 0.0" in page


def test_a_caller_who_leaves_while_executing_strands_nobody(gated: Running, backend: GatedBackend) -> None:
    backend.gate.clear()
    leaver = _send(gated.port, {"inputs": "bad"})
    assert backend.entered.wait(PATIENCE_SECONDS)
    leaver.close()
    until(lambda: gated.server.context.in_flight == 0)
    backend.gate.set()
    assert gated.predict("good").status_code == 200


def test_before_a_model_is_loaded_it_is_a_503(tmp_path: Path) -> None:
    with running(tmp_path / "empty", wait_for="empty") as service:
        answer = service.predict("good")
        assert "slipway train" in str(_error(answer, 503, "not_ready")["message"])
        assert int(answer.headers["retry-after"]) >= 1


def _send(port: int, body: object) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS)
    content = json.dumps(body).encode()
    head = (
        f"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    client.sendall(head.encode() + content)
    return client


def _waiting(service: Running) -> int:
    (served,) = service.server.context.registry.served
    return served.ready_model().batcher.waiting


def test_a_response_says_what_was_cached_and_versions_share_nothing(repository: Path) -> None:
    publish_tiny(repository)
    Repository(repository).set_alias("sentiment", "canary", 2)
    with running(repository, response_cache_bytes=100_000) as served:
        first, again = served.predict("good").json(), served.predict(["good", "bad"]).json()
        # Ready is when the default version is.
        until(lambda: served.predict("good", version=2).status_code != 503)
        other = served.predict("bad", version=2).json()
        page = served.client.get("/metrics").text
    assert "cached" not in first["usage"]
    assert again["usage"] == {"input_tokens": [3, 3], "truncated": [False, False], "cached": [True, False]}
    assert again["predictions"][0] == first["predictions"][0]
    assert "cached" not in other["usage"]
    PredictResponse.model_validate(again)
    counted = re.findall(r'slipway_response_cache_inputs_total\{.*outcome="(\w+)".*version="(\d)"\} ([\d.]+)', page)
    found = {(outcome, version): float(value) for outcome, version, value in counted if float(value)}
    assert found == {("hit", "1"): 1, ("miss", "1"): 2, ("miss", "2"): 2}
    held = re.findall(r"slipway_response_cache_bytes\{.*\} ([\d.e+]+)", page)
    assert len(held) == 2
    assert all(float(value) > 0 for value in held)


def test_identical_requests_at_the_same_time_are_computed_once(repository: Path) -> None:
    backend = GatedBackend()

    def load(artifact: Artifact) -> Model:
        model = loading(backend)(artifact)
        model.remember(100_000)
        return model

    with running(repository, load) as served, ThreadPoolExecutor(9) as pool:
        backend.gate.clear()
        first = pool.submit(served.predict, "good")
        assert backend.entered.wait(PATIENCE_SECONDS)
        others = [pool.submit(served.predict, "good") for _ in range(8)]
        joined = 'slipway_response_cache_inputs_total{model="sentiment",outcome="joined"'
        for _ in range(500):
            if re.search(re.escape(joined) + r".*\} 8.0", served.client.get("/metrics").text):
                break
        backend.gate.set()
        bodies = [each.result(PATIENCE_SECONDS).json() for each in (first, *others)]
    assert backend.batches == [1]
    assert all(body["predictions"] == bodies[0]["predictions"] for body in bodies)
    assert all("cached" not in body["usage"] for body in bodies)
