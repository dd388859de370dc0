"""Which of the measured candidates is worth having: the Pareto front, and the one that reaches a target."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from artifact.manifest import Estimate, Uncut


class Measured(BaseModel):
    """What one candidate was measured to be on the validation split, through the serving code.

    `seconds_alone` and `seconds_batch`: one execution with 1 and with 32 texts of `tokens` tokens on one thread.
    `accuracy_difference` and `agreement` are against the fine-tuned model in fp32, paired. `moved` and `flipped`: how
    far a score, and how many labels, other texts of the batch moved. `refused`: why the gate would not let it through,
    or why it could not be built; then figures may be 0.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    bytes: int = 0
    seconds_alone: float = 0.0
    seconds_batch: float = 0.0
    tokens: int = 0
    accuracy: Estimate | None = None
    accuracy_difference: Estimate | None = None
    agreement: float = 0.0
    moved: float = 0.0
    flipped: int = 0
    refused: str = ""

    @property
    def points_lost(self) -> float:
        """Percentage points of accuracy below fp32; negative when above."""
        return -100 * self.accuracy_difference.value if self.accuracy_difference else float("inf")

    @property
    def most_lost(self) -> float:
        """The same at the far end of the interval."""
        return -100 * self.accuracy_difference.low if self.accuracy_difference else float("inf")


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked for: so many times smaller and faster than fp32, at most so many points of accuracy lost.

    0 asks nothing of size or speed: a candidate may then be larger, or slower.
    """

    smaller: float = 0.0
    faster: float = 0.0
    lose: float = 0.5

    def __str__(self) -> str:
        wanted = [f"{self.smaller:g} x smaller"] if self.smaller else []
        wanted += [f"{self.faster:g} x faster"] if self.faster else []
        return ", ".join([*wanted, f"at most {self.lose:g} points lost"])

    def met_by(self, candidate: Measured, reference: Measured) -> bool:
        """Whether `candidate` passes the gate's floors and every bound. Faster means batches of 32."""
        return (
            not candidate.refused
            and candidate.bytes * self.smaller <= reference.bytes
            and candidate.seconds_batch * self.faster <= reference.seconds_batch
            and candidate.points_lost <= self.lose + 1e-9
        )


class Confirmed(Uncut):
    """One candidate on the test split: its accuracy minus that of fp32, paired, and the share of equal labels."""

    @property
    def points_lost(self) -> float:
        """Percentage points of accuracy below fp32."""
        return -100 * self.accuracy_difference.value

    def keeps(self, target: Target) -> bool:
        """Whether it loses no more than was allowed."""
        return self.points_lost <= target.lose + 1e-9


class Outcome(BaseModel):
    """Everything one run found. The first of `measured` is fp32; `found` reaches `target`.

    `skipped`: candidates that take training, left out because something that does not reached the target.
    """

    model_config = ConfigDict(frozen=True)

    measured: tuple[Measured, ...]
    front: tuple[str, ...]
    target: str = ""
    found: str | None = None
    test: Confirmed | None = None
    published: str | None = None
    skipped: int = 0


def find(measured: Sequence[Measured], target: Target) -> Measured | None:
    """Of those that reach the target the fastest in batches of 32, None if none does. The first is the reference.

    Those come first whose whole interval lies within the loss allowed: among many candidates some reach it by luck, and
    the test split would tell. Not the most accurate: that one is mostly the luckiest.
    """
    fitting = [candidate for candidate in measured if target.met_by(candidate, measured[0])]
    shown = [candidate for candidate in fitting if candidate.most_lost <= target.lose]
    return min(shown or fitting, key=lambda each: each.seconds_batch, default=None)


def nearest(measured: Sequence[Measured], target: Target) -> Measured | None:
    """Of those small and fast enough that are not refused the one that loses least: for who asked too much."""
    able = Target(target.smaller, target.faster, lose=100.0)
    fitting = [candidate for candidate in measured if able.met_by(candidate, measured[0])]
    return min(fitting, key=lambda each: each.points_lost, default=None)


def front(measured: Sequence[Measured]) -> tuple[str, ...]:
    """Names of the candidates no other beats: smaller or equal, as fast or faster, as accurate or more, and one better.

    What the gate would refuse is neither on the front nor beats anything. Speed is that of batches of 32.
    """
    able = [candidate for candidate in measured if not candidate.refused]
    return tuple(each.name for each in able if not any(_beats(other, each) for other in able))


def _beats(one: Measured, other: Measured) -> bool:
    ours = (one.bytes, one.seconds_batch, one.points_lost)
    theirs = (other.bytes, other.seconds_batch, other.points_lost)
    return ours != theirs and all(a <= b for a, b in zip(ours, theirs, strict=True))
