"""A step of load against simulated pods that an autoscaler adds and removes: when is the promise kept again?

A pod is a queue with one server whose service times are given (measured on a real one). The autoscaler sees what
Prometheus would hand it: averages over the last minute, as late as the scrape. New pods serve after the measured cold
start.
"""

import bisect
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from tools.simulated.autoscaler import SYNC_SECONDS, Autoscaler, Scaler

IN_FLIGHT: Final = "slipway_requests_in_flight"
QUEUED: Final = "slipway_queue_seconds_per_second"
SCRAPE_SECONDS: Final = 15.0
AVERAGED_SECONDS: Final = 60.0


@dataclass
class Server:
    """One pod: first come, first served. Times in seconds."""

    ready_at: float
    free_at: float = 0.0
    answered_at: list[float] = field(default_factory=list)

    def serve(self, now: float, seconds: float) -> float:
        """Queue one request; the moment of its answer."""
        self.free_at = max(self.free_at, now) + seconds
        self.answered_at.append(self.free_at)
        return self.free_at

    def in_flight(self, now: float) -> int:
        """Requests accepted and not answered at `now`."""
        return len(self.answered_at) - bisect.bisect_right(self.answered_at, now)


@dataclass(frozen=True)
class Moment:
    """What one second looked like."""

    now: float
    rate: float
    replicas: int
    in_flight: float
    late_share: float


@dataclass(frozen=True)
class World:
    """What is measured and what is promised."""

    service_seconds: Sequence[float]
    cold_start_seconds: float
    slo_seconds: float = 0.5
    slo_share: float = 0.99


def simulate(
    scaler: Scaler, world: World, rate: Callable[[float], float], duration: float, seed: int = 3
) -> list[Moment]:
    """Run it, one entry a second. `rate` is requests a second at a moment."""
    run = _Run(scaler, world, random.Random(seed))
    return [run.second(float(second), rate(float(second))) for second in range(int(duration))]


class _Run:
    def __init__(self, scaler: Scaler, world: World, numbers: random.Random) -> None:
        self._autoscaler = Autoscaler(scaler)
        self._world = world
        self._random = numbers
        self._servers = [Server(ready_at=0.0) for _ in range(scaler.least)]
        self._seen: list[tuple[float, float, float]] = []  # moment, requests in flight and waiting, of all pods

    def second(self, now: float, rate: float) -> Moment:
        """Requests of one second, the scrape and the decision that fall into it."""
        late = self._requests(now, rate)
        in_flight = [server.in_flight(now + 1) for server in self._servers]
        waiting = sum(max(0, number - 1) for number in in_flight)
        self._seen.append((now, float(sum(in_flight)), float(waiting)))
        if now % SYNC_SECONDS == 0 and now:
            self._decide(now)
        return Moment(now, rate, len(self._servers), sum(in_flight) / len(self._servers), late)

    def _requests(self, now: float, rate: float) -> float:
        """The share that is answered too late."""
        moment, late, sent = now, 0, 0
        while rate > 0 and (moment := moment + self._random.expovariate(rate)) < now + 1:
            ready = [server for server in self._servers if server.ready_at <= moment]
            answered = self._random.choice(ready).serve(moment, self._random.choice(self._world.service_seconds))
            late += answered - moment > self._world.slo_seconds
            sent += 1
        return late / sent if sent else 0.0

    def _decide(self, now: float) -> None:
        seen = [
            each for each in self._seen if now - SCRAPE_SECONDS - AVERAGED_SECONDS < each[0] <= now - SCRAPE_SECONDS
        ]
        if not seen:
            return
        pods = len(self._servers)
        averages = {
            name: sum(each[place] for each in seen) / len(seen) / pods for place, name in ((1, IN_FLIGHT), (2, QUEUED))
        }
        wanted = self._autoscaler.decide(now, pods, averages)
        self._servers += [Server(ready_at=now + self._world.cold_start_seconds) for _ in range(wanted - pods)]
        del self._servers[wanted:]


def recovered_after(moments: Sequence[Moment], step_at: float, share: float, calm_seconds: int = 30) -> float | None:
    """Seconds from the step until the promise is kept for `calm_seconds` on end; None where that never happens."""
    after = [moment for moment in moments if moment.now >= step_at]
    calm = 0
    for moment in after:
        calm = calm + 1 if moment.late_share <= 1 - share else 0
        if calm >= calm_seconds:
            return moment.now - calm_seconds + 1 - step_at
    return None
