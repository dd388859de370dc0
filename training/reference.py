"""What held-out inputs and the model's answers to them look like: the artifact's `reference`, against which the
service's traffic is compared. Inputs are prepared by the code that serves them.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from artifact.manifest import Binned, Manifest, Reference
from inference.tasks.text_classification import TextClassification

# Ten bins are what the index's rules of thumb assume (Siddiqi, Credit Risk Scorecards, 2006, chapter 10).
BINS: Final = 10
# Most inputs hold no unknown token at all, so quantiles would be no bins; the first holds exactly those.
UNKNOWN_EDGES: Final = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


def reference_of(
    manifest: Manifest,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    scores: npt.NDArray[np.floating],
    *,
    split: str = "test",
) -> Reference:
    """The reference of `texts`, held out from training, whose probabilities are `scores`: shape (texts, labels)."""
    task = TextClassification(manifest, tokenizer)
    prepared = [task.prepare(text, truncate=True) for text in texts]
    tokens = np.array([each.tokens for each in prepared], dtype=np.float64)
    unknown = np.array([each.unknown for each in prepared], dtype=np.float64)
    winners = np.bincount(scores.argmax(axis=1), minlength=scores.shape[1])
    return Reference(
        rows=len(texts),
        split=split,
        input_tokens=binned(tokens, quantile_edges(tokens)),
        unknown_tokens=binned(unknown / np.maximum(tokens, 1), UNKNOWN_EDGES),
        unknown_token_share=float(unknown.sum() / max(1.0, tokens.sum())),
        label_shares=_shares(winners),
        scores=binned(scores.max(axis=1), score_edges(scores.shape[1])),
    )


def quantile_edges(values: npt.NDArray[np.floating]) -> tuple[float, ...]:
    """Members of `values` that cut them into at most ten bins of about the same size."""
    # Values that occur, not ones between them: every bin then holds a row, and none makes the index explode.
    cuts = np.quantile(values, np.arange(1, BINS) / BINS, method="inverted_cdf")
    return tuple(float(cut) for cut in np.unique(cuts) if cut < values.max())


def score_edges(labels: int) -> tuple[float, ...]:
    """Ten equal bins from chance to certainty, for the winning label's score.

    Not quantiles: of a model that is sure of most inputs they crowd near 1, where a quantized variant differs already.
    """
    lowest = 1 / max(2, labels)
    return tuple(round(lowest + (1 - lowest) * step / BINS, 6) for step in range(1, BINS))


def binned(values: npt.NDArray[np.floating], edges: Sequence[float]) -> Binned:
    """Shares of `values` in (`edges[i - 1]`, `edges[i]]`."""
    counts = np.bincount(np.searchsorted(np.asarray(edges), values, side="left"), minlength=len(edges) + 1)
    return Binned(edges=tuple(edges), shares=_shares(counts))


def _shares(counts: npt.NDArray[np.integer]) -> tuple[float, ...]:
    return tuple(float(share) for share in counts / counts.sum())
