"""What an execution costs on this machine, learned while serving."""

import numpy as np
from numpy.typing import NDArray

# Weight of the past after one more execution: about the last 200 count, so a machine that slows down is noticed.
_FORGETTING = 0.995
_PRIOR_VARIANCE = 1e6
_MAX_VARIANCE = 1e12


class CostModel:
    """seconds = constant + a * real tokens + b * padded tokens, fitted by recursive least squares with forgetting.

    Source: Haykin, Adaptive Filter Theory, chapter on the RLS algorithm. Features are in thousands of tokens so that
    the matrix stays well scaled. Not thread-safe: its owner holds a lock.
    """

    def __init__(self) -> None:
        self._weights: NDArray[np.float64] = np.zeros(3)
        self._covariance: NDArray[np.float64] = np.eye(3) * _PRIOR_VARIANCE
        self.observations = 0

    def observe(self, real_tokens: int, padded_tokens: int, seconds: float) -> None:
        """Learn from one finished execution."""
        features = _features(real_tokens, padded_tokens)
        projected = self._covariance @ features
        gain = projected / (_FORGETTING + features @ projected)
        self._weights = self._weights + gain * (seconds - features @ self._weights)
        covariance = (self._covariance - np.outer(gain, projected)) / _FORGETTING
        # Without bound a direction that is never excited (real and padded tokens move together) would grow for ever.
        self._covariance = covariance if np.trace(covariance) < _MAX_VARIANCE else np.eye(3) * _PRIOR_VARIANCE
        self.observations += 1

    def predict(self, real_tokens: float, padded_tokens: float, executions: float = 1) -> float:
        """Seconds that work of this size takes on one worker. Zero before the first observation, never negative."""
        features = _features(real_tokens, padded_tokens)
        features[0] = executions
        return max(0.0, float(features @ self._weights))


def _features(real_tokens: float, padded_tokens: float) -> NDArray[np.float64]:
    return np.array([1.0, real_tokens / 1000, padded_tokens / 1000])
