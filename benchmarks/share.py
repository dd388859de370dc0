"""What part of the machine's measured peak a rate of texts is: printed beside every throughput."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from artifact.repository import Artifact
from benchmarks import machine
from benchmarks.workload import Workload

Peaks = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Share:
    """What a text costs (10^9 operations of its real tokens), and what the machine's peak is (GOP/s)."""

    gigaoperations_per_text: float
    peak_gops: float

    def percent(self, texts_per_second: float) -> float | None:
        """Percent of the peak; None where the graph or the peak could not be measured."""
        if not (self.gigaoperations_per_text and self.peak_gops):
            return None
        return 100 * texts_per_second * self.gigaoperations_per_text / self.peak_gops


def measure_share(artifact: Artifact, precision: str, peaks: Peaks, tokens: Sequence[int]) -> Share:
    """Of texts of these lengths, against the peak of `precision` (GOP/s by library, as `gemm_peaks` gives them)."""
    reference = next(each for each in artifact.manifest.variants if each.precision == "fp32")
    try:
        operations = machine.operations_per_text(artifact.path / reference.file, tokens)
    except ValueError:
        operations = 0.0
    return Share(operations / 1e9, max(peaks.get(precision, {}).values(), default=0.0))


def measure_shares(
    artifact: Artifact, precision: str, peaks: Peaks, workload: Workload, count_tokens: Callable[[str], int]
) -> dict[str, Share]:
    """One for each kind of text: `short`, `long`, `mixed`."""
    mixed = [text for body in workload.mixed for text in body]
    kinds = {"short": workload.short, "long": workload.long, "mixed": mixed}
    return {
        kind: measure_share(artifact, precision, peaks, [count_tokens(text) for text in texts])
        for kind, texts in kinds.items()
    }


def in_words(percent: float | None) -> str:
    """`34 % of peak`, or nothing."""
    return "" if percent is None else f"{percent:.0f} % of peak"
