"""The one shape of every error."""

import json

from artifact.errors import ArtifactCorrupt
from inference.errors import BadInput, Overloaded
from service.errors import Internal
from service.responses import as_response, error_detail, error_reply, presentable


def test_an_error_names_its_code_its_field_and_the_request() -> None:
    detail = error_detail(BadInput("inputs[1]", "must be a string"), "r-1")
    assert detail == {
        "code": "bad_input",
        "message": "inputs[1]: must be a string",
        "field": "inputs[1]",
        "request_id": "r-1",
    }


def test_coming_back_is_told_in_the_body_and_in_whole_seconds_in_the_header() -> None:
    response = as_response(error_reply(Overloaded("busy", retry_after_seconds=0.2), None))
    assert response.status_code == 429
    assert response.headers["retry-after"] == "1"
    body = json.loads(bytes(response.body))
    assert body == {"error": {"code": "overloaded", "message": "busy", "retry_after_seconds": 0.2}}


def test_what_is_not_part_of_the_api_is_not_shown() -> None:
    for error in (ArtifactCorrupt("/secret/model.onnx: sha256 differs"), RuntimeError("secret")):
        shown = presentable(error)
        assert isinstance(shown, Internal)
        assert "secret" not in shown.message
    kept = BadInput("inputs", "must not be empty")
    assert presentable(kept) is kept
