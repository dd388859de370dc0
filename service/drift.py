"""How live traffic is distributed over the bins for which the artifact holds a reference. Counts only: no text, no ids.

The service counts and Prometheus compares (monitoring/rules): shares of several replicas add up, the window is the
reader's choice, and a restart loses nothing. What is counted of an input is four bin numbers.
"""

import threading
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from prometheus_client import Counter, Gauge

from artifact.manifest import Binned, Manifest, Reference
from inference.errors import BackendFailed
from inference.tasks.base import Prediction, Prepared

INPUT_TOKENS: Final = "input_tokens"
UNKNOWN_TOKENS: Final = "unknown_tokens"
LABEL: Final = "label"
SCORE: Final = "score"
# A series per label is a closed set, but not a small one for every model: with more labels than this, none is kept.
MOST_LABELS: Final = 64


class Feature(NamedTuple):
    """The bins of one feature: their names, as series carry them, and the share of the reference in each."""

    name: str
    bins: tuple[str, ...]
    shares: tuple[float, ...]


def features(reference: Reference, labels: Sequence[str]) -> Iterator[Feature]:
    """Everything that is compared. A numeric bin is named by its upper edge, as in a histogram's `le`."""
    yield _binned(INPUT_TOKENS, reference.input_tokens)
    yield _binned(UNKNOWN_TOKENS, reference.unknown_tokens)
    yield _binned(SCORE, reference.scores)
    if len(labels) <= MOST_LABELS:
        yield Feature(LABEL, tuple(labels), reference.label_shares)


def _binned(name: str, binned: Binned) -> Feature:
    return Feature(name, (*(f"{edge:g}" for edge in binned.edges), "+Inf"), binned.shares)


class Drift:
    """Tallies one version's inputs. Every series exists from the start, at zero, so that rates miss nothing.

    Tallies are plain numbers under one lock, carried over to the series when somebody reads them: an input costs about
    a microsecond this way, four counters would cost five.
    """

    def __init__(
        self, reference: Reference, labels: Sequence[str], observed: Counter, expected: Gauge, key: tuple[str, ...]
    ) -> None:
        self._token_edges = reference.input_tokens.edges
        self._unknown_edges = reference.unknown_tokens.edges
        self._score_edges = reference.scores.edges
        self._label_index = {label: index for index, label in enumerate(labels)}
        self._lock = threading.Lock()
        self._series = {
            feature.name: [observed.labels(*key, feature.name, name) for name in feature.bins]
            for feature in features(reference, labels)
        }
        self._tallies = {name: [0] * len(series) for name, series in self._series.items()}
        self._tallies.setdefault(LABEL, [0] * len(labels))
        for feature in features(reference, labels):
            for name, share in zip(feature.bins, feature.shares, strict=True):
                expected.labels(*key, feature.name, name).set(share)

    def observe(self, inputs: Sequence[Prepared], outcomes: Sequence[Prediction | BackendFailed]) -> None:
        """Count the inputs that were answered. Called from worker threads."""
        tallies = self._tallies
        tokens, unknown, scores = tallies[INPUT_TOKENS], tallies[UNKNOWN_TOKENS], tallies[SCORE]
        with self._lock:
            for prepared, outcome in zip(inputs, outcomes, strict=True):
                if isinstance(outcome, Prediction):
                    size = prepared.tokens
                    tokens[bisect_left(self._token_edges, size)] += 1
                    unknown[bisect_left(self._unknown_edges, prepared.unknown / size) if size else 0] += 1
                    scores[bisect_left(self._score_edges, outcome.score)] += 1
                    tallies[LABEL][self._label_index[outcome.label]] += 1

    def flush(self) -> None:
        """Carry the tallies over to the series."""
        with self._lock:
            for name, series in self._series.items():
                tally = self._tallies[name]
                for index, count in enumerate(tally):
                    if count:
                        series[index].inc(count)
                        tally[index] = 0


def drift_of(manifest: Manifest, observed: Counter, expected: Gauge, key: tuple[str, ...]) -> Drift | None:
    """The counters of one version; None for an artifact without a reference, of which no drift can be told."""
    if manifest.reference is None:
        return None
    return Drift(manifest.reference, manifest.labels, observed, expected, key)
