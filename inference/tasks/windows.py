"""A long text runs as several windows: where they begin and end, which is the same when training and when serving."""

from inference.tasks.base import Prepared

Span = tuple[int, int]


def window_count(tokens: int, room: int) -> int:
    """How many windows of at most `room` tokens it takes to hold `tokens`, one at least."""
    return max(1, -(-tokens // room))


def spans(tokens: int, count: int) -> list[Span]:
    """`count` spans that cover `tokens` in order, each token in one; lengths differ by one at most, longer ones first.

    Equal lengths leave nothing to pad, and no window is left with a last few words to judge a text by.
    """
    length, longer = divmod(tokens, count)
    starts = [number * length + min(number, longer) for number in range(count + 1)]
    return [(starts[number], starts[number + 1]) for number in range(count)]


def windows(tokens: int, room: int) -> list[Span]:
    """Spans of a text's own tokens where a window has room for `room`: as few as hold it, as equal as can be."""
    return spans(tokens, window_count(tokens, room))


def rows_of(prepared: Prepared) -> list[Prepared]:
    """What is collated of one input: itself, or each of its windows in order."""
    if prepared.windows == 1:
        return [prepared]
    ids = prepared.ids
    return [Prepared(ids[start:end], end - start) for start, end in spans(len(ids), prepared.windows)]
