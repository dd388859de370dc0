"""Every series the service exports, on a registry its owner makes, so that a test can have its own.

Label values are closed sets: what is loaded, route templates, status codes, error codes. Never text from a request.
"""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Final, NamedTuple, TypeVar

import onnxruntime
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from artifact.manifest import Manifest
from inference.errors import BackendFailed
from inference.tasks.base import Prediction, Prepared
from service.drift import Drift, drift_of

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
MODEL_LABELS: Final = ("model", "version", "task")
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_F = TypeVar("_F", Counter, Gauge, Histogram)


def own_version() -> str:
    """Slipway's version; `source` where it runs from a checkout that nobody installed."""
    try:
        return version("slipway")
    except PackageNotFoundError:
        return "source"


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

    def __init__(self, registry: CollectorRegistry | None = None, *, process: bool = True) -> None:
        # A `_created` series beside every counter and histogram doubles the page and nothing reads it.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library left it out
        self.registry = registry or CollectorRegistry()
        self._families: list[Counter | Gauge | Histogram] = []
        self._drifts: list[Drift] = []
        self._request_series: dict[tuple[str | int, ...], tuple[Counter, Histogram]] = {}
        self.requests = self._counter(
            "slipway_requests", "Answered HTTP requests by route template and status.", *MODEL_LABELS, "route", "code"
        )
        self.request_duration = self._seconds(
            "slipway_request_duration_seconds", "From the request's headers to its answer.", "route"
        )
        self.rejected = self._counter("slipway_rejected", "Requests that got an error, by its code.", "reason")
        self.in_flight = self._gauge(
            "slipway_requests_in_flight", "Requests being answered right now, without the scrape that asks."
        )
        self.queue_duration = self._seconds(
            "slipway_queue_duration_seconds", "An input's wait for a worker.", *MODEL_LABELS
        )
        self.tokenization_duration = self._seconds(
            "slipway_tokenization_duration_seconds", "Text to token ids, of one execution's inputs.", *MODEL_LABELS
        )
        self.inference_duration = self._seconds(
            "slipway_inference_duration_seconds", "One execution of the backend.", *MODEL_LABELS
        )
        self.batch_size = self._sizes("slipway_batch_size", "Inputs in one execution.", *MODEL_LABELS)
        self.inputs = self._counter("slipway_inputs", "Inputs executed.", *MODEL_LABELS)
        self.failed_batches = self._counter(
            "slipway_failed_executions", "Executions in which at least one input failed.", *MODEL_LABELS
        )
        self.tokens = self._counter("slipway_tokens", "Tokens of executed inputs.", *MODEL_LABELS)
        self.padded_tokens = self._counter("slipway_padded_tokens", "Tokens computed, padding included.", *MODEL_LABELS)
        self.queue_size = self._gauge("slipway_queue_size", "Inputs accepted and not yet executing.", *MODEL_LABELS)
        self.executing = self._gauge("slipway_inputs_executing", "Inputs being executed.", *MODEL_LABELS)
        self.model_info = self._gauge(
            "slipway_model_info", "1 for each loaded version.", *MODEL_LABELS, "variant", "engine", "digest", "default"
        )
        self.model_load_duration = self._gauge(
            "slipway_model_load_seconds", "Opening, warming up and checking a version took this long.", *MODEL_LABELS
        )
        self.models = self._gauge("slipway_models", "Versions this process was asked to serve, by state.", "state")
        self.ready = self._gauge("slipway_ready", "1 while this process wants traffic.")
        self.connections = self._gauge("slipway_connections", "Open connections.")
        self.build_info = self._gauge("slipway_build_info", "1; what is running.", "version", "python", "onnxruntime")
        self.build_info.labels(own_version(), platform.python_version(), onnxruntime.__version__).set(1)
        self._add_drift()
        self._add_limits()
        if process:
            for collector in (ProcessCollector, PlatformCollector, GCCollector):
                collector(registry=self.registry)

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
        self.queue_limit = self._gauge("slipway_queue_limit", "Inputs that may wait for one model before a 429.")
        self.workers = self._gauge("slipway_workers", "Worker threads of each loaded version.")
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

    def render(self) -> bytes:
        """The Prometheus text format."""
        for drift in self._drifts:
            drift.flush()
        return generate_latest(self.registry)

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

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return self._keep(Gauge(name, text, labels, registry=self.registry))

    def _seconds(self, name: str, text: str, *labels: str) -> Histogram:
        return self._keep(Histogram(name, text, labels, buckets=_SECONDS, registry=self.registry))

    def _sizes(self, name: str, text: str, *labels: str) -> Histogram:
        return self._keep(Histogram(name, text, labels, buckets=_SIZES, registry=self.registry))

    def _keep(self, family: _F) -> _F:
        self._families.append(family)
        return family


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

    def batch_done(
        self,
        *,
        inputs: int,
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
        self._batch_size.observe(inputs)
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
