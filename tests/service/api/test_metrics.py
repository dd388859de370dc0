from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.service.fakes import Running, running


def _scrape(service: Running) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    answer = service.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_a_scrape_counts_what_was_asked(repository: Path) -> None:
    with running(repository) as service:
        service.predict(["good", "the film was awful"])
        service.predict("good")
        service.predict(["good", ""])
        found = _scrape(service)
    model = {"model": "sentiment", "version": "1", "task": "text-classification"}

    def value(name: str, **labels: str) -> float:
        return found[name, tuple(sorted(labels.items()))]

    assert value("slipway_requests_total", **model, route="/predict", code="200") == 2
    assert value("slipway_requests_total", **model, route="/predict", code="422") == 1
    assert value("slipway_rejected_total", reason="bad_input") == 1
    assert value("slipway_inputs_total", **model) == 3
    assert value("slipway_tokens_total", **model) == 3 + 6 + 3
    assert value("slipway_padded_tokens_total", **model) >= 12
    assert value("slipway_queue_duration_seconds_count", **model) == 3
    assert value("slipway_request_duration_seconds_count", route="/predict") == 3
    assert value("slipway_queue_size", **model) == 0
    assert value("slipway_requests_in_flight") == 0
    assert value("slipway_ready") == 1
    assert any(name == "slipway_model_info" for name, _ in found)
    assert any(name == "process_cpu_seconds_total" for name, _ in found)
