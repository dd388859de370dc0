from pathlib import Path

from tests.service.fakes import Running, running
from tests.tiny_artifact import publish_tiny


def test_ready(service: Running) -> None:
    answer = service.client.get("/health")
    assert answer.status_code == 200
    body = answer.json()
    assert (body["status"], body["ready"]) == ("ready", True)
    first, second = body["models"]
    assert (first["name"], first["version"], first["state"], first["default"]) == ("sentiment", 1, "ready", True)
    assert first["digest"].startswith("sha256:")
    assert (second["version"], second["aliases"], second["default"]) == (2, ["canary"], False)
    assert service.client.get("/health/ready").status_code == 200
    assert service.client.get("/health/live").json() == {"status": "alive"}


def test_an_empty_repository_is_alive_not_ready_and_picks_up_the_first_model(tmp_path: Path) -> None:
    root = tmp_path / "models"
    with running(root, wait_for="empty", repository_poll_seconds=0.05) as service:
        health = service.client.get("/health")
        assert health.status_code == 503
        assert "slipway train sentiment" in health.json()["message"]
        assert health.json()["error"]["code"] == "not_ready"
        assert health.headers["retry-after"] == "1"
        assert service.client.get("/health/ready").status_code == 503
        assert service.client.get("/health/live").status_code == 200
        assert service.client.get("/models").json() == {"models": []}
        publish_tiny(root)
        service.wait_until("ready")
        assert service.predict("good").status_code == 200


def test_a_corrupt_artifact_is_not_ready_and_says_why(repository: Path) -> None:
    (repository / "sentiment" / "1" / "model.onnx").write_bytes(b"short")
    with running(repository, wait_for="failed") as service:
        health = service.client.get("/health")
        assert health.status_code == 503
        (state,) = health.json()["models"]
        assert state["state"] == "failed"
        assert "model.onnx" in state["reason"]
        assert service.client.get("/health/live").status_code == 200
        assert service.predict("good").status_code == 503


def test_a_model_whose_executions_hang_for_good_asks_for_a_new_process(repository: Path) -> None:
    with running(repository) as service:
        (served,) = service.server.context.registry.served
        batcher = served.ready_model().batcher
        batcher._stuck = 1_000_000
        live = service.client.get("/health/live")
        assert (live.status_code, live.json()["status"]) == (503, "stuck")
        assert service.client.get("/health").json()["models"][0]["state"] == "failed"
        assert service.predict("good").status_code == 503
        batcher._stuck = 0
        assert service.client.get("/health/live").status_code == 200
