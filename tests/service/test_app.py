import json
import re
from pathlib import Path

import httpx
import pytest

from service.context import Context
from tests.service.fakes import GatedBackend, Running, loading, running


def test_every_answer_has_a_request_id_and_honours_a_trace(service: Running) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    sent = {"x-request-id": "mine-1", "traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    for method, path in [("GET", "/health"), ("GET", "/nowhere"), ("PUT", "/predict"), ("POST", "/predict")]:
        answer = service.client.request(method, path, headers=sent)
        assert answer.headers["x-request-id"] == "mine-1"
        assert answer.headers["traceparent"].split("-")[1] == trace
        if answer.status_code >= 400:
            assert answer.json()["error"]["request_id"] == "mine-1"
        assert re.fullmatch("[0-9a-f]{32}", service.client.request(method, path).headers["x-request-id"])


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/nowhere", 404, "route_not_found"), ("GET", "/predict", 405, "method_not_allowed")],
)
def test_what_the_framework_refuses_has_our_shape(
    service: Running, method: str, path: str, status: int, code: str
) -> None:
    answer = service.client.request(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert set(answer.json()) == {"error"}
    if status == 405:
        assert answer.headers["allow"] == "POST"


def test_every_documented_example_runs(service: Running) -> None:
    document = service.client.get("/openapi.json").json()
    ran = 0
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            bodies = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("examples", {})
            for example in [each["value"] for each in bodies.values()] or [None]:
                answer = service.client.request(method.upper(), path, json=example)
                assert answer.status_code == 200, (path, example, answer.text)
                ran += 1
    assert ran >= 8


def test_the_document_names_only_schemas_it_has(service: Running) -> None:
    text = service.client.get("/openapi.json").text
    schemas = json.loads(text)["components"]["schemas"]
    assert set(re.findall(r'"#/components/schemas/([^"]+)"', text)) <= set(schemas)
    assert "PredictRequest" in schemas


def test_the_docs_page_is_there(service: Running) -> None:
    page = service.client.get("/docs")
    assert page.status_code == 200
    assets = re.findall(r'(?:src|href)="(/[^"]+)"', page.text)
    for asset in assets:
        assert service.client.get(asset).status_code == 200


def test_a_bug_of_ours_is_a_500_without_details(repository: Path) -> None:
    with running(repository, loading(GatedBackend()), log_level="error") as service:

        def broken(*_: object) -> None:
            raise ZeroDivisionError("secret detail")

        service.server.context.registry.find = broken  # type: ignore[method-assign, assignment]
        answer = service.predict("text")
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "internal_error"
        assert "secret" not in answer.text
        assert "Traceback" not in answer.text
        assert service.client.get("/health").status_code == 200


def test_requests_are_counted_by_route_template_and_status(service: Running) -> None:
    service.predict("good")
    for path in ("/nowhere/1", "/nowhere/2"):
        service.client.get(path)
    page = service.client.get("/metrics").text
    assert 'route="/predict"' in page
    assert 'route="unmatched"' in page
    assert "nowhere" not in page


def test_the_context_is_the_applications(service: Running) -> None:
    assert isinstance(service.server.context, Context)
    assert service.server.context.in_flight == 0


def test_a_client_of_another_language_sees_plain_json(service: Running) -> None:
    answer = httpx.post(f"{service.url}/predict", content=b'{"inputs": "good"}', trust_env=False)
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["content-length"]) == len(answer.content)
