"""Which plan serves here: what was measured and kept, else a rule; and what runs when the choice does not work.

`choose` decides, `Cache` remembers, `load_model` acts. What is chosen depends on the machine, so it is kept in a cache
folder and never in the artifact.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from artifact.errors import SlipwayError
from artifact.files import write_atomically
from artifact.repository import Artifact
from inference.backends.registry import installed_engines
from inference.calibration import Measurement, Sample, calibrate, options_of
from inference.layout import Cpu, read_cpu
from inference.model import Model, Options
from inference.plan import Plan, Wish, candidates, default_plan, plan_for, wished_plan

_log = logging.getLogger("slipway.engines")

_FORMAT: Final = 1
# Two plans nearer than this in texts/s are equally fast, as far as a short measurement can tell.
_AS_FAST: Final = 0.95
# Share of the wanted time that others had the cores, above which throughput is not comparable.
_BUSY: Final = 0.25
_ROUNDS: Final = 3
# Of the time: for every variant and engine with a worker per core. The rest is for the winner's threads.
_FIRST_STAGE: Final = 0.6
# How many texts answers are compared on.
_TEXTS: Final = 64
_TEXTS_IN_A_HURRY: Final = 16
_UNHURRIED_SECONDS: Final = 10.0
_ROUNDS_AT_START: Final = 2


@dataclass(frozen=True, slots=True)
class Floors:
    """What a plan must keep to be chosen, however fast it is. The gate's own floors, on a smaller sample."""

    max_neighbour_difference: float = 1e-3
    min_agreement: float = 0.98

    def broken_by(self, found: Measurement) -> str | None:
        """The first floor that does not hold, in words. Written so that NaN breaks it."""
        if found.failure:
            return found.failure
        checks = found.checks
        if not checks.golden_difference <= checks.golden_allowed:
            return f"golden scores off by {checks.golden_difference:.2g}, {checks.golden_allowed:.2g} is allowed"
        if not checks.neighbour_difference <= self.max_neighbour_difference or checks.neighbour_flips:
            moved, flipped = checks.neighbour_difference, checks.neighbour_flips
            return f"neighbours move scores by {moved:.2g} and flip {flipped} labels"
        if not checks.agreement >= self.min_agreement:
            return f"agrees with fp32 on {checks.agreement:.1%}, {self.min_agreement:.0%} is required"
        return None


@dataclass(frozen=True, slots=True)
class Choice:
    """What to run and the reason, for the log, for /health and for people."""

    plan: Plan
    why: str


def choose(found: Sequence[Measurement], floors: Floors | None = None) -> Choice | None:
    """The fastest plan that keeps every floor; of those as fast, the one that answers a lone request first.

    While others used the cores, times say more about them than about a plan: then CPU time per text decides, and of
    equals the one with the fewest threads per execution. None when no plan keeps the floors.
    """
    kept = [each for each in found if (floors or Floors()).broken_by(each) is None]
    if not kept:
        return None
    busy = max(each.contention for each in kept) > _BUSY
    speed = [1 / each.cpu_seconds_per_text if busy else each.texts_per_second for each in kept]
    fastest = [each for each, fast in zip(kept, speed, strict=True) if fast >= _AS_FAST * max(speed)]
    best = min(fastest, key=lambda each: (each.plan.threads if busy else 0, each.alone_p50_seconds))
    figures = f"{best.texts_per_second:.0f} texts/s, {best.alone_p50_seconds * 1e3:.1f} ms for one alone"
    how = ", by CPU time as the machine was busy" if busy else ""
    return Choice(best.plan, f"measured here: {figures}, the best of {len(found)} plans{how}")


# --- what was measured, kept -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cache:
    """Choices by CPU, usable cores and artifact: one small JSON file each, replaced atomically.

    Nothing read from it is trusted with more than the choice among plans that are possible anyway.
    """

    folder: Path
    cpu: Cpu
    installed: Mapping[str, str]

    def path(self, digest: str) -> Path:
        """Where the choice for an artifact is kept."""
        key = json.dumps([asdict(self.cpu), digest], sort_keys=True)
        return self.folder / "engines" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"

    def read(self, artifact: Artifact) -> Choice | None:
        """The choice kept for `artifact`, or None when there is none that can be used; the log says why."""
        path = self.path(artifact.digest)
        try:
            return self._parse(json.loads(path.read_bytes()), artifact)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            _log.warning("%s is ignored: %s", path, error if str(error) else type(error).__name__)
            return None

    def _parse(self, content: Any, artifact: Artifact) -> Choice:
        """Raises ValueError, TypeError or KeyError for anything but a choice that holds here and now."""
        if content["format"] != _FORMAT:
            raise ValueError("it was written in another format")
        if content["engines"] != dict(self.installed):
            raise ValueError("engines were installed, removed or updated since it was measured")
        choice = Choice(Plan(**content["plan"]), str(content["why"]))
        if choice.plan not in candidates(artifact.manifest, self.cpu, self.installed):
            raise ValueError("its plan is not possible here")
        return choice

    def write(self, artifact: Artifact, choice: Choice, found: Sequence[Measurement]) -> Path:
        """Keep `choice`, with the figures behind it for who wants to look. Raises OSError."""
        content = {
            "format": _FORMAT,
            "model": f"{artifact.manifest.name}:{artifact.manifest.version}",
            "digest": artifact.digest,
            "cpu": asdict(self.cpu),
            "engines": dict(self.installed),
            "plan": asdict(choice.plan),
            "why": choice.why,
            "measured": [asdict(each) for each in found],
        }
        path = self.path(artifact.digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(content, indent=2).encode() + b"\n")
        return path


def open_cache(folder: Path, processes: int = 1) -> Cache:
    """The cache as this machine and this installation see it, for one of `processes` that share the cores."""
    cpu = read_cpu()
    return Cache(folder, replace(cpu, cores=max(1, cpu.cores // processes)), installed_engines())


# --- measuring ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Report:
    """Every measurement of one artifact here, and the choice made of them (None: no plan keeps the floors)."""

    found: Sequence[Measurement]
    choice: Choice | None
    default: Plan
    kept: Path | None = None
    refused: Mapping[Plan, str] = field(default_factory=dict)


def bench(
    artifact: Artifact,
    cache: Cache,
    *,
    seconds: float,
    rounds: int = _ROUNDS,
    patient: bool = True,
    on_turn: Callable[[Plan], None] = lambda _: None,
) -> Report:
    """Measure every plan that is possible here and keep the choice. This is `slipway bench --engines`.

    A choice that cannot be written is still returned, with a warning in the log.
    """
    plans = candidates(artifact.manifest, cache.cpu, cache.installed)
    sample = Sample(artifact, _TEXTS if seconds >= _UNHURRIED_SECONDS else _TEXTS_IN_A_HURRY)
    measure = partial(calibrate, sample, rounds=rounds, patient=patient, on_turn=on_turn)
    usual = [plan for plan in plans if plan.threads == 1]
    found = measure(usual, seconds=seconds * _FIRST_STAGE)
    choice, kept = choose(found), None
    if choice is not None:
        # Only what won is tried with other threads: the whole grid would take the time that makes figures good.
        grid = [plan for plan in plans if (plan.variant, plan.engine) == (choice.plan.variant, choice.plan.engine)]
        again = measure(grid, seconds=seconds * (1 - _FIRST_STAGE)) if len(grid) > 1 else []
        found = [*(each for each in found if each.plan not in grid or not again), *again]
        choice = choose(found)
    if choice is not None:
        try:
            kept = cache.write(artifact, choice, found)
        except OSError as error:
            _log.warning("the choice cannot be kept in %s: %s", cache.folder, error.strerror)
    floors = Floors()
    refused = {each.plan: reason for each in found if (reason := floors.broken_by(each))}
    return Report(found, choice, plans[0], kept, refused)


# --- serving -----------------------------------------------------------------------------------------------------


def load_model(
    artifact: Artifact,
    *,
    cache: Cache,
    wish: Wish | None = None,
    options: Options | None = None,
    calibrate_seconds: float = 0.0,
) -> Model:
    """Load what was asked for, else what was measured here, else what the rule says; `model.why` tells which.

    A plan that nobody asked for and that does not load, or misses its golden answers, gives way to the next, down to
    the artifact's first variant on its default engine. Raises what the last one raised: SlipwayError.
    """
    wish = wish or Wish()
    choices = list(_choices(artifact, cache, wish, calibrate_seconds))
    for number, choice in enumerate(choices, 1):
        try:
            model = _load(artifact, choice, options)
        except SlipwayError as error:
            if number == len(choices):
                raise
            _log.warning("%s does not work here, trying the next: %s", choice.plan, error.message)
            continue
        if number > 1:
            model.why = f"{choices[0].plan} does not work here, see the log; {model.why}"
        return model
    raise AssertionError("there is always a plan")


def _load(artifact: Artifact, choice: Choice, options: Options | None) -> Model:
    model = Model.load(artifact, variant=choice.plan.variant, options=options_of(choice.plan, options))
    model.why = choice.why
    _log.info("%s runs %s: %s", artifact.manifest.name, choice.plan, choice.why)
    return model


def _choices(artifact: Artifact, cache: Cache, wish: Wish, calibrate_seconds: float) -> Iterator[Choice]:
    """What to try, best first, each plan once. Raises ArtifactNotFound for a variant there is not."""
    manifest, cores = artifact.manifest, cache.cpu.cores
    if wish.decides:
        yield Choice(wished_plan(manifest, wish, cache.cpu), "set by the operator")
        return
    found = cache.read(artifact) or (_calibrated(artifact, cache, calibrate_seconds) if calibrate_seconds else None)
    ruled = Choice(default_plan(manifest, cache.cpu), _why_ruled(cache.cpu))
    safe = Choice(plan_for(manifest.variants[0], cache.cpu), "the artifact's first variant")
    tried: set[Plan] = set()
    for choice in (found, ruled, safe):
        if choice is not None and (plan := wish.lay_out(choice.plan, cores)) not in tried:
            tried.add(plan)
            yield Choice(plan, choice.why)


def _why_ruled(cpu: Cpu) -> str:
    int8 = "has" if cpu.fast_int8 else "lacks"
    return (
        f"by rule, as nothing was measured here: this CPU {int8} int8 instructions (slipway bench --engines measures)"
    )


def _calibrated(artifact: Artifact, cache: Cache, seconds: float) -> Choice | None:
    return bench(artifact, cache, seconds=seconds, rounds=_ROUNDS_AT_START, patient=False).choice
