"""Every series the service exports, on a registry its owner makes, so that a test can have its own.

Label values are closed sets: what is loaded, route templates, status codes, error codes. Never text from a request.
"""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeVar

import onnxruntime
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Metric,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from artifact.manifest import Manifest
from inference.errors import BackendFailed
from inference.tasks.base import Prediction, Prepared
from service.drift import Drift, drift_of

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
MODEL_LABELS: Final = ("model", "version", "task")
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_F = TypeVar("_F", Counter, Gauge, Histogram)
# What a gauge says of several processes: their sum, their greatest value, or that of the dead ones too.
Across = Literal["livesum", "livemax", "max"]
# What the process collectors say, where it is not to be added up. The newest start shows every restart.
_MIRRORED: Final[dict[str, Across]] = {"process_start_time_seconds": "max", "process_max_fds": "livemax"}


def own_version() -> str:
    """Slipway's version; `source` where it runs from a checkout that nobody installed."""
    try:
        return version("slipway")
    except PackageNotFoundError:
        return "source"


def share_values(folder: Path, number: int) -> None:
    """Keep every value made from now on in `folder`, where other processes read it. Call before making Metrics.

    Files are named by the worker's number instead of its process id: the one that replaces it counts on, and there
    never are more files than workers. Source: prometheus_client's documentation of multiprocess mode.
    """
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.ValueClass = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]  # left out there


class Family(NamedTuple):
    """One exported metric, for docs and dashboards."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str


@dataclass(frozen=True)
class ModelKey:
    """Label values that every series about a model carries."""

    model: str
    version: str
    task: str


class Metrics:
    """The families, and one method for each thing that happens."""

    def __init__(
        self, registry: CollectorRegistry | None = None, *, process: bool = True, shared: Path | None = None
    ) -> None:
        """With `shared`, the folder of `share_values`, a scrape tells of all processes that count there."""
        # A `_created` series beside every counter and histogram doubles the page and nothing reads it.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library left it out
        self.registry = registry or CollectorRegistry()
        self._families: list[Counter | Gauge | Histogram] = []
        self._shared = shared
        self._drifts: list[Drift] = []
        self._mirrors: list[_Mirror] = []
        self._request_series: dict[tuple[str | int, ...], tuple[Counter, Histogram]] = {}
        self._add_requests()
        self._add_executions()
        self._add_models()
        self._add_response_cache()
        self._add_drift()
        self._add_limits()
        if process:
            self._add_process()

    def _add_requests(self) -> None:
        self.requests = self._counter(
            "slipway_requests", "Answered HTTP requests by route template and status.", *MODEL_LABELS, "route", "code"
        )
        self.request_duration = self._seconds(
            "slipway_request_duration_seconds", "From the request's headers to its answer.", "route"
        )
        self.rejected = self._counter("slipway_rejected", "Requests that got an error, by its code.", "reason")
        self.in_flight = self._gauge(
            "slipway_requests_in_flight",
            "Requests being answered right now, without the scrape that asks.",
            across="livesum",
        )
        self.connections = self._gauge("slipway_connections", "Open connections.", across="livesum")

    def _add_executions(self) -> None:
        self.queue_duration = self._seconds(
            "slipway_queue_duration_seconds", "An input's wait for a worker.", *MODEL_LABELS
        )
        self.tokenization_duration = self._seconds(
            "slipway_tokenization_duration_seconds", "Text to token ids, of one execution's inputs.", *MODEL_LABELS
        )
        self.inference_duration = self._seconds(
            "slipway_inference_duration_seconds", "One execution of the backend.", *MODEL_LABELS
        )
        self.batch_size = self._sizes(
            "slipway_batch_size", "Rows in one execution: inputs, and of long ones their windows.", *MODEL_LABELS
        )
        self.inputs = self._counter("slipway_inputs", "Inputs executed.", *MODEL_LABELS)
        self.failed_batches = self._counter(
            "slipway_failed_executions", "Executions in which at least one input failed.", *MODEL_LABELS
        )
        self.tokens = self._counter("slipway_tokens", "Tokens of executed inputs.", *MODEL_LABELS)
        self.padded_tokens = self._counter("slipway_padded_tokens", "Tokens computed, padding included.", *MODEL_LABELS)
        self.queue_size = self._gauge(
            "slipway_queue_size", "Inputs accepted and not yet executing.", *MODEL_LABELS, across="livesum"
        )
        self.executing = self._gauge(
            "slipway_inputs_executing",
            "Rows being executed: inputs, and of long ones their windows.",
            *MODEL_LABELS,
            across="livesum",
        )

    def _add_models(self) -> None:
        self.model_info = self._gauge(
            "slipway_model_info", "1 for each loaded version.", *MODEL_LABELS, "variant", "engine", "digest", "default"
        )
        self.model_load_duration = self._gauge(
            "slipway_model_load_seconds", "Opening, warming up and checking a version took this long.", *MODEL_LABELS
        )
        self.models = self._gauge("slipway_models", "Versions this process was asked to serve, by state.", "state")
        self.ready = self._gauge("slipway_ready", "1 while this process wants traffic.")
        self.ready_processes = self._gauge(
            "slipway_ready_processes", "Processes that want traffic, of those that share the port.", across="livesum"
        )
        self.build_info = self._gauge("slipway_build_info", "1; what is running.", "version", "python", "onnxruntime")
        self.build_info.labels(own_version(), platform.python_version(), onnxruntime.__version__).set(1)

    def _add_process(self) -> None:
        PlatformCollector(registry=self.registry)
        if self._shared is None:
            ProcessCollector(registry=self.registry)
            GCCollector(registry=self.registry)
        else:
            aside = CollectorRegistry()
            self._mirrors = [_Mirror(ProcessCollector(registry=aside)), _Mirror(GCCollector(registry=aside))]

    def _add_response_cache(self) -> None:
        self.response_cache_inputs = self._counter(
            "slipway_response_cache_inputs",
            "Accepted inputs that the response cache knew (`hit`), found under way (`joined`) or neither (`miss`).",
            *MODEL_LABELS,
            "outcome",
        )
        self.response_cache_bytes = self._gauge(
            "slipway_response_cache_bytes", "Memory held by remembered predictions.", *MODEL_LABELS
        )

    def _add_drift(self) -> None:
        self.drift_inputs = self._counter(
            "slipway_drift_inputs",
            "Answered inputs by the bin they fall into, for each feature the artifact has a reference for.",
            *MODEL_LABELS,
            "feature",
            "bin",
        )
        self.drift_reference = self._gauge(
            "slipway_drift_reference_share",
            "Share of the artifact's held-out rows in each bin.",
            *MODEL_LABELS,
            "feature",
            "bin",
        )
        self.unknown_tokens = self._counter(
            "slipway_unknown_tokens", "Tokens that stand for text outside the vocabulary.", *MODEL_LABELS
        )
        self.unknown_reference = self._gauge(
            "slipway_unknown_tokens_reference_share",
            "Share of unknown tokens in the artifact's held-out rows.",
            *MODEL_LABELS,
        )

    def _add_limits(self) -> None:
        self.queue_limit = self._gauge(
            "slipway_queue_limit", "Inputs that may wait for one model before a 429.", across="livesum"
        )
        self.workers = self._gauge("slipway_workers", "Worker threads of each loaded version.", across="livesum")
        self.memory_limit = self._gauge(
            "slipway_memory_limit_bytes", "Memory this process may use: its container's limit, else the machine's."
        )

    def families(self) -> list[Family]:
        """Every metric of ours, as a scraper sees its name."""
        found = []
        for family in self._families:
            described = next(iter(family.describe()))
            name = f"{described.name}_total" if described.type == "counter" else described.name
            found.append(Family(name, described.type, tuple(family._labelnames), described.documentation))
        return found

    def refresh(self) -> None:
        """Carry over what is kept aside, for whoever reads the series."""
        for drift in self._drifts:
            drift.flush()
        for mirror in self._mirrors:
            mirror.refresh()

    def render(self) -> bytes:
        """The Prometheus text format; of every process where they share their values."""
        self.refresh()
        if self._shared is None:
            return generate_latest(self.registry)
        everybody = CollectorRegistry()
        PlatformCollector(registry=everybody)
        MultiProcessCollector(everybody, str(self._shared))  # type: ignore[no-untyped-call]  # left out there
        return generate_latest(everybody)

    def drift(self, manifest: Manifest, key: tuple[str, ...]) -> Drift | None:
        """Count this version's drift from now on; None for an artifact without a reference."""
        drift = drift_of(manifest, self.drift_inputs, self.drift_reference, key)
        if drift is not None:
            self._drifts.append(drift)
        return drift

    def request_done(self, model: tuple[str, str, str], route: str, status: int, seconds: float) -> None:
        """Count one answered request; `model` holds the values of MODEL_LABELS, empty where none was found."""
        key = (*model, route, status)
        series = self._request_series.get(key)
        if series is None:
            # Looking series up costs more than counting, and there are few: all labels come from closed sets.
            series = (self.requests.labels(*model, route, str(status)), self.request_duration.labels(route))
            self._request_series[key] = series
        series[0].inc()
        series[1].observe(seconds)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return self._keep(Counter(name, text, labels, registry=self.registry))

    def _gauge(self, name: str, text: str, *labels: str, across: Across = "livemax") -> Gauge:
        return self._keep(Gauge(name, text, labels, registry=self.registry, multiprocess_mode=across))

    def _seconds(self, name: str, text: str, *labels: str) -> Histogram:
        return self._keep(Histogram(name, text, labels, buckets=_SECONDS, registry=self.registry))

    def _sizes(self, name: str, text: str, *labels: str) -> Histogram:
        return self._keep(Histogram(name, text, labels, buckets=_SIZES, registry=self.registry))

    def _keep(self, family: _F) -> _F:
        self._families.append(family)
        return family


class _Mirror:
    """Copies what a collector says of this process into values that are shared, so that they add up."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._series: dict[str, Counter | Gauge] = {}
        self._seen: dict[tuple[str, ...], float] = {}
        self.refresh()

    def refresh(self) -> None:
        """Bring the copies up to date."""
        for family in self._collector.collect():
            for sample in family.samples:
                if family.name not in self._series:
                    self._series[family.name] = _copy_of(family, tuple(sample.labels))
                series = self._series[family.name]
                child = series.labels(**sample.labels) if sample.labels else series
                if isinstance(child, Gauge):
                    child.set(sample.value)
                    continue
                key = (family.name, *sample.labels.values())
                child.inc(sample.value - self._seen.get(key, 0.0))
                self._seen[key] = sample.value


def _copy_of(family: Metric, labels: tuple[str, ...]) -> Counter | Gauge:
    if family.type == "counter":
        return Counter(family.name, family.documentation, labels, registry=None)
    across = _MIRRORED.get(family.name, "livesum")
    return Gauge(family.name, family.documentation, labels, registry=None, multiprocess_mode=across)


class ModelObserver:
    """Feeds one model's executions into the metrics. Series are looked up once; called from worker threads."""

    def __init__(self, metrics: Metrics, key: ModelKey, manifest: Manifest | None = None) -> None:
        labels = (key.model, key.version, key.task)
        self._drift = metrics.drift(manifest, labels) if manifest else None
        self._unknown = metrics.unknown_tokens.labels(*labels)
        if manifest is not None and manifest.reference is not None:
            metrics.unknown_reference.labels(*labels).set(manifest.reference.unknown_token_share)
        self._queue = metrics.queue_duration.labels(*labels)
        self._tokenization = metrics.tokenization_duration.labels(*labels)
        self._inference = metrics.inference_duration.labels(*labels)
        self._batch_size = metrics.batch_size.labels(*labels)
        self._inputs = metrics.inputs.labels(*labels)
        self._failed = metrics.failed_batches.labels(*labels)
        self._tokens = metrics.tokens.labels(*labels)
        self._padded = metrics.padded_tokens.labels(*labels)
        self._looked_up = [metrics.response_cache_inputs.labels(*labels, each) for each in ("hit", "joined", "miss")]

    def batch_done(
        self,
        *,
        inputs: int,
        rows: int,
        real_tokens: int,
        padded_tokens: int,
        queue_seconds: Sequence[float],
        tokenization_seconds: float,
        inference_seconds: float,
        failed: bool,
    ) -> None:
        """Record one execution."""
        for seconds in queue_seconds:
            self._queue.observe(seconds)
        self._tokenization.observe(tokenization_seconds)
        self._inference.observe(inference_seconds)
        self._batch_size.observe(rows)
        self._inputs.inc(inputs)
        self._tokens.inc(real_tokens)
        self._padded.inc(padded_tokens)
        if failed:
            self._failed.inc()

    def inputs_done(self, inputs: Sequence[Prepared], outcomes: Sequence[Prediction | BackendFailed]) -> None:
        """Record what one execution's inputs and predictions were like."""
        self._unknown.inc(sum(prepared.unknown for prepared in inputs))
        if self._drift:
            self._drift.observe(inputs, outcomes)

    def inputs_looked_up(self, *, hits: int, joined: int, misses: int) -> None:
        """Record what the response cache said of one request's inputs."""
        for series, count in zip(self._looked_up, (hits, joined, misses), strict=True):
            if count:
                series.inc(count)

    def inputs_answered_again(self, inputs: Sequence[Prepared], predictions: Sequence[Prediction]) -> None:
        """Record traffic that was answered without being executed: it drifts like any other."""
        if self._drift and inputs:
            self._drift.observe(inputs, predictions)
