from tests.service.fakes import Running
from tests.tiny_artifact import LABELS, MAX_INPUT_TOKENS


def test_models_with_what_the_manifest_says(service: Running) -> None:
    (model,) = service.client.get("/models").json()["models"]
    assert (model["name"], model["task"], model["labels"]) == ("sentiment", "text-classification", list(LABELS))
    assert model["limits"]["max_input_tokens"] == MAX_INPUT_TOKENS
    assert model["limits"]["max_inputs_per_request"] == 128
    assert model["metrics"] == {"accuracy": {"value": 0.9, "low": 0.85, "high": 0.95}}
    assert model["aliases"] == {"production": 1, "canary": 2}
    assert [each["version"] for each in model["versions"]] == [1, 2]
    assert model["default_version"] == 1
