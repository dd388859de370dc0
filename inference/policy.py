"""Which waiting inputs run together next. Plain functions over token counts: no clock, no thread, no model."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What one execution and the queue may hold.

    `max_batch_tokens` counts padding: longest input times inputs is what the backend really computes. An input
    longer than that runs alone. `max_padding` bounds padded over real tokens in one batch; `execution_tokens` is what
    starting an execution costs, as the tokens that could be computed instead: companions are taken only as long as
    that makes a real token cheaper. `window` bounds how far behind the oldest entry companions are looked for, and so
    how often an entry can be passed over.
    """

    max_batch_size: int = 16
    max_batch_tokens: int = 512
    max_padding: float = 1.2
    execution_tokens: int = 15
    window: int = 128
    max_queue_size: int = 512

    def __post_init__(self) -> None:
        """Refuse limits under which nothing could ever run."""
        if min(self.max_batch_size, self.max_batch_tokens, self.window, self.max_queue_size) < 1:
            raise ValueError("max_batch_size, max_batch_tokens, window and max_queue_size must be at least 1")
        if self.execution_tokens < 0:
            raise ValueError("execution_tokens must not be negative")
        if self.max_padding < 1:
            raise ValueError("max_padding must be at least 1: padded tokens are never fewer than real ones")


def choose(tokens: Sequence[int], limits: Limits, idle_workers: int = 1) -> list[int]:
    """Positions of the entries to run next; `tokens` are those of the waiting entries, oldest first.

    The oldest entry always goes, so an entry at position p waits for at most p executions to start before its own.
    Its companions are the nearest in length within the window, each taken if it makes the batch cost less per real
    token. Work is shared: with several workers idle no batch takes more than its part of what waits.
    """
    if not tokens:
        return []
    size = min(limits.max_batch_size, -(-len(tokens) // max(1, idle_workers)))
    chosen, longest, real = [0], tokens[0], tokens[0]
    window = range(1, min(len(tokens), limits.window))
    for position in sorted(window, key=lambda p: abs(tokens[p] - tokens[0])):
        if len(chosen) == size:
            break
        before, padded = longest * len(chosen), max(longest, tokens[position]) * (len(chosen) + 1)
        total = real + tokens[position]
        if padded > limits.max_batch_tokens or padded > limits.max_padding * total:
            continue
        if (limits.execution_tokens + padded) * real >= (limits.execution_tokens + before) * total:
            continue
        chosen.append(position)
        longest, real = max(longest, tokens[position]), total
    return chosen
