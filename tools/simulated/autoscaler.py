"""The HorizontalPodAutoscaler's documented rule, as plain functions of numbers and times.

https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/#algorithm-details
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

TOLERANCE: Final = 0.1
SYNC_SECONDS: Final = 15.0


@dataclass(frozen=True)
class Policy:
    """At most `value` pods, or percent of them, in `period_seconds`."""

    kind: str  # "Pods" or "Percent"
    value: int
    period_seconds: float


@dataclass(frozen=True)
class Direction:
    """One half of `behavior`."""

    window_seconds: float
    policies: tuple[Policy, ...]
    select: str = "Max"

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Read `scaleUp` or `scaleDown`."""
        policies = tuple(Policy(each["type"], each["value"], each["periodSeconds"]) for each in given["policies"])
        return cls(given["stabilizationWindowSeconds"], policies, given.get("selectPolicy", "Max"))


@dataclass(frozen=True)
class Scaler:
    """What an HPA object says. `targets` are averages over the pods, by metric name."""

    least: int
    most: int
    targets: Mapping[str, float]
    up: Direction
    down: Direction

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Self:
        """Read a HorizontalPodAutoscaler with metrics of type Pods."""
        spec = found["spec"]
        targets = {
            each["pods"]["metric"]["name"]: quantity(each["pods"]["target"]["averageValue"]) for each in spec["metrics"]
        }
        behavior = spec["behavior"]
        up, down = Direction.of(behavior["scaleUp"]), Direction.of(behavior["scaleDown"])
        return cls(spec["minReplicas"], spec["maxReplicas"], targets, up, down)


def quantity(value: str) -> float:
    """A Kubernetes quantity as far as HPA targets use it: "2", "500m"."""
    return int(value.removesuffix("m")) / 1000 if value.endswith("m") else float(value)


def proposal(replicas: int, average: float, target: float) -> int:
    """ceil(replicas * average / target); the same number while the ratio is within the tolerance."""
    ratio = average / target
    return replicas if abs(ratio - 1.0) <= TOLERANCE else math.ceil(replicas * ratio)


@dataclass
class Autoscaler:
    """One HPA over time: call `decide` every SYNC_SECONDS."""

    scaler: Scaler
    _proposals: list[tuple[float, int]] = field(default_factory=list)
    _changes: list[tuple[float, int]] = field(default_factory=list)

    def decide(self, now: float, replicas: int, averages: Mapping[str, float]) -> int:
        """The number of pods wanted at `now` (seconds), where each has `averages` of the metrics now."""
        wanted = max(proposal(replicas, averages[name], target) for name, target in self.scaler.targets.items())
        wanted = min(max(wanted, self.scaler.least), self.scaler.most)
        self._proposals.append((now, wanted))
        wanted = self._stabilized(now, replicas)
        wanted = self._limited(now, replicas, wanted)
        if wanted != replicas:
            self._changes.append((now, wanted - replicas))
        return wanted

    def _stabilized(self, now: float, replicas: int) -> int:
        """Grow to the least proposal of its window, shrink to the greatest of its own: no flapping."""
        up = min(self._since(now - self.scaler.up.window_seconds))
        down = max(self._since(now - self.scaler.down.window_seconds))
        return min(max(replicas, up), down)

    def _since(self, moment: float) -> list[int]:
        recent = [wanted for when, wanted in self._proposals if when > moment]
        return recent or [self._proposals[-1][1]]

    def _limited(self, now: float, replicas: int, wanted: int) -> int:
        """What the policies allow."""
        if wanted > replicas:
            return min(wanted, self._bound(now, replicas, self.scaler.up.policies, sign=1))
        if wanted < replicas:
            return max(wanted, self._bound(now, replicas, self.scaler.down.policies, sign=-1))
        return wanted

    def _bound(self, now: float, replicas: int, policies: Sequence[Policy], *, sign: int) -> int:
        """The most generous policy's limit; what was changed within a policy's period counts against it."""
        bounds = []
        for policy in policies:
            changed = sum(
                change for when, change in self._changes if now - when < policy.period_seconds and change * sign > 0
            )
            before = replicas - changed
            allowed = policy.value if policy.kind == "Pods" else math.ceil(before * policy.value / 100)
            bounds.append(before + sign * allowed)
        return max(bounds) if sign > 0 else min(bounds)
