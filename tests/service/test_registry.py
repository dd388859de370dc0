import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from artifact.repository import Artifact, Repository
from inference.errors import BadInput, NotReady, UnknownModel
from inference.model import Model
from service.metrics import Metrics
from service.registry import Load, Registry, Wanted, in_thread, wanted_versions
from tests.service.fakes import GatedBackend, loading
from tests.tiny_artifact import publish_tiny


def _real(artifact: Artifact) -> Model:
    return Model.load(artifact)


def _registry(root: Path, load: Load = _real, default_model: str | None = None) -> Registry:
    return Registry(Repository(root), load, Metrics(process=False), default_model=default_model, poll_seconds=0.01)


def _run(registry: Registry, check: Callable[[], Awaitable[None] | None]) -> None:
    """Load, check, close."""

    async def scenario() -> None:
        await asyncio.wait_for(registry.run(), 10)
        waited = check()
        if waited is not None:
            await waited
        await registry.close()

    asyncio.run(scenario())


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  (the registry tells nobody, by design)
        await asyncio.sleep(0.005)


def test_wanted_is_the_default_and_everything_aliased(tmp_path: Path) -> None:
    for _ in range(4):
        publish_tiny(tmp_path)
    Repository(tmp_path).set_alias("sentiment", "canary", 3)
    publish_tiny(tmp_path, "other")
    assert wanted_versions(Repository(tmp_path)) == (
        [
            Wanted("other", 1, True, ("production",)),
            Wanted("sentiment", 1, True, ("production",)),
            Wanted("sentiment", 3, False, ("canary",)),
        ],
        None,
    )


def test_without_production_the_greatest_is_wanted(tmp_path: Path) -> None:
    publish_tiny(tmp_path)
    publish_tiny(tmp_path)
    Repository(tmp_path).remove_alias("sentiment", "production")
    assert wanted_versions(Repository(tmp_path))[0] == [Wanted("sentiment", 2, True, ())]


def test_unreadable_aliases_are_that_models_problem_only(tmp_path: Path) -> None:
    publish_tiny(tmp_path)
    publish_tiny(tmp_path, "broken")
    (tmp_path / "broken" / "aliases.json").write_text("{")
    wanted, problem = wanted_versions(Repository(tmp_path))
    assert [each.name for each in wanted] == ["sentiment"]
    assert "broken/aliases.json" in (problem or "")


def test_the_only_model_needs_no_name(repository: Path) -> None:
    registry = _registry(repository)

    def check() -> None:
        assert registry.status() == "ready"
        served = registry.find(None, None)
        assert (served.name, served.version, served.state) == ("sentiment", 1, "ready")
        assert served is registry.find("sentiment", 1)
        assert served is registry.find(None, "production")
        assert served is registry.find(None, "1")
        assert served.identity["digest"] == served.ready_model().digest

    _run(registry, check)


def test_production_means_the_default_even_before_the_alias_is_written(repository: Path) -> None:
    Repository(repository).remove_alias("sentiment", "production")
    registry = _registry(repository)
    _run(registry, lambda: _assert(registry.find(None, "production").version == 1))


def test_what_is_not_loaded_is_not_found(repository: Path) -> None:
    registry = _registry(repository)

    def check() -> None:
        with pytest.raises(UnknownModel, match="loaded: sentiment") as caught:
            registry.find("asked-name", None)
        assert caught.value.field == "model"
        assert "asked-name" not in caught.value.message
        with pytest.raises(UnknownModel, match=r"1 \(production\)") as caught:
            registry.find(None, "asked-alias")
        assert caught.value.field == "version"
        assert "asked-alias" not in caught.value.message
        with pytest.raises(UnknownModel):
            registry.find(None, 2)

    _run(registry, check)


def test_several_models_want_a_name_or_a_default(repository: Path) -> None:
    publish_tiny(repository, "other")
    nameless, named = _registry(repository), _registry(repository, default_model="other")

    def check() -> None:
        with pytest.raises(BadInput, match="other, sentiment") as caught:
            nameless.find(None, None)
        assert caught.value.field == "model"
        assert nameless.find("sentiment", None).name == "sentiment"

    _run(nameless, check)
    _run(named, lambda: _assert(named.find(None, None).name == "other"))


def test_a_default_model_that_is_not_there_keeps_the_process_not_ready(repository: Path) -> None:
    registry = _registry(repository, default_model="typo")

    def check() -> None:
        assert registry.status() == "failed"
        assert "SLIPWAY_DEFAULT_MODEL" in registry.message()

    _run(registry, check)


def test_before_loading_and_with_nothing_to_load(tmp_path: Path) -> None:
    async def scenario() -> None:
        registry = _registry(tmp_path / "not-there-yet")
        assert registry.status() == "loading"
        with pytest.raises(NotReady):
            registry.find(None, None)
        task = asyncio.create_task(registry.run())
        await _until(lambda: registry.status() != "loading")
        assert registry.status() == "empty"
        assert "slipway train sentiment" in registry.message()
        with pytest.raises(NotReady, match="slipway train"):
            registry.find("anything", None)
        publish_tiny(tmp_path / "not-there-yet")
        await asyncio.wait_for(task, 10)
        assert registry.status() == "ready"
        await registry.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("damage", ["bytes", "golden"])
def test_a_default_version_that_fails_keeps_its_reason_until_another_is_published(tmp_path: Path, damage: str) -> None:
    path, _ = publish_tiny(tmp_path, spoil_golden=damage == "golden")
    if damage == "bytes":
        (path / "model.onnx").write_bytes(b"x" * (path / "model.onnx").stat().st_size)
    loads = []

    def counting(artifact: Artifact) -> Model:
        loads.append(artifact.manifest.version)
        return _real(artifact)

    async def scenario() -> None:
        registry = _registry(tmp_path, counting)
        task = asyncio.create_task(registry.run())
        await _until(lambda: registry.status() != "loading")
        await asyncio.sleep(0.05)
        assert len(loads) <= 1, "what failed is not tried again while nothing changes"
        assert registry.status() == "failed"
        assert ("sha256" if damage == "bytes" else "golden") in registry.message()
        with pytest.raises(NotReady, match="could not be loaded"):
            registry.find(None, None).ready_model()
        publish_tiny(tmp_path, promote=True)
        await asyncio.wait_for(task, 10)
        assert (registry.status(), registry.find(None, None).version) == ("ready", 2)
        await registry.close()

    asyncio.run(scenario())


def test_a_failed_canary_leaves_the_process_ready(repository: Path) -> None:
    publish_tiny(repository, spoil_golden=True)
    Repository(repository).set_alias("sentiment", "canary", 2)
    registry = _registry(repository)

    def check() -> None:
        assert registry.status() == "ready"
        assert [served.state for served in registry.served] == ["ready", "failed"]
        with pytest.raises(NotReady):
            registry.find(None, "canary").ready_model()

    _run(registry, check)


def test_an_unexpected_error_is_a_failure_without_details(repository: Path) -> None:
    def load(artifact: Artifact) -> Model:
        raise ZeroDivisionError("secret detail")

    async def scenario() -> None:
        registry = _registry(repository, load)
        task = asyncio.create_task(registry.run())
        await _until(lambda: registry.status() != "loading")
        assert registry.status() == "failed"
        assert "secret" not in registry.message()
        task.cancel()

    asyncio.run(scenario())


def test_the_loop_runs_while_a_model_loads(repository: Path) -> None:
    release = threading.Event()

    def slow(artifact: Artifact) -> Model:
        release.wait(10)
        return loading(GatedBackend())(artifact)

    async def scenario() -> None:
        registry = _registry(repository, slow)
        task = asyncio.create_task(registry.run())
        await _until(lambda: bool(registry.served))
        assert registry.status() == "loading"
        with pytest.raises(NotReady, match="still loading"):
            registry.find(None, None).ready_model()
        release.set()
        await asyncio.wait_for(task, 10)
        await registry.close()

    asyncio.run(scenario())


def test_gauges_are_set_for_a_scrape(repository: Path) -> None:
    metrics = Metrics(process=False)
    registry = Registry(Repository(repository), _real, metrics)

    def check() -> None:
        registry.refresh_metrics()
        labels = {"model": "sentiment", "version": "1", "task": "text-classification"}
        assert metrics.registry.get_sample_value("slipway_queue_size", labels) == 0
        assert metrics.registry.get_sample_value("slipway_models", {"state": "ready"}) == 1

    _run(registry, check)


def test_errors_cross_threads() -> None:
    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        asyncio.run(in_thread(fail))


def _assert(condition: bool) -> None:
    assert condition
