"""What an execution costs on this machine, learned while serving."""

import numpy as np
from numpy.typing import NDArray

# Weight of the past after one more execution: about the last 200 count, so a machine that slows down is noticed.
_FORGETTING = 0.995
# Executions after which the weights are worked out anew: they change slowly, and every waiting request asks for them.
_STALE_AFTER = 16
# Small beside what a few executions tell (features are near 0.1 to 1), enough where they tell nothing.
_RIDGE = 1e-3
_THOUSAND = 1000


class CostModel:
    """seconds = constant + a * real tokens + b * padded tokens, none of the three negative.

    Least squares over the recent past with a ridge penalty (Hoerl & Kennard 1970). The penalty is never forgotten:
    real and padded tokens move together, and recursive least squares without it let the difference of their weights
    grow until a queue of 30 texts was predicted to take two minutes (docs/log.md). Not thread-safe: its owner holds a
    lock.
    """

    def __init__(self) -> None:
        self._products: NDArray[np.float64] = np.zeros((3, 3))
        self._targets: NDArray[np.float64] = np.zeros(3)
        self._weights = (0.0, 0.0, 0.0)
        self._unlearned = 0
        self._seen = 0

    def observe(self, real_tokens: int, padded_tokens: int, seconds: float) -> None:
        """Learn from one finished execution."""
        features = _features(1.0, real_tokens, padded_tokens)
        self._products = self._products * _FORGETTING + np.outer(features, features)
        self._targets = self._targets * _FORGETTING + features * seconds
        self._unlearned += 1
        self._seen += 1

    def predict(self, real_tokens: float, padded_tokens: float, executions: float = 1) -> float:
        """Seconds that work of this size takes on one worker. Zero before the first observation, never negative."""
        # Not while observing: between a worker's answer and its next batch somebody waits.
        if self._unlearned >= min(_STALE_AFTER, self._seen):
            self._learn()
        constant, real, padded = self._weights
        return constant * executions + (real * real_tokens + padded * padded_tokens) / _THOUSAND

    def _learn(self) -> None:
        self._unlearned = 0
        constant, real, padded = _non_negative(self._products + _RIDGE * np.eye(3), self._targets).tolist()
        self._weights = (constant, real, padded)


def _features(executions: float, real_tokens: float, padded_tokens: float) -> NDArray[np.float64]:
    """In thousands of tokens, so that the three are of one size."""
    return np.array([executions, real_tokens / _THOUSAND, padded_tokens / _THOUSAND])


def _non_negative(products: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """The solution of the normal equations, without the features whose weight would be negative."""
    kept = np.arange(3)
    weights = np.zeros(3)
    while kept.size:
        solution = np.linalg.solve(products[np.ix_(kept, kept)], targets[kept])
        if (solution >= 0).all():
            weights[kept] = solution
            break
        kept = kept[solution >= 0]
    return weights
