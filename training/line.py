"""What every step of a long command needs, and the one line in which it says what it did."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import Progress

from training.data import read_table
from training.prepare import Prepared, prepare
from training.recipe import Recipe
from training.sources import EncoderFolder, fetch_encoder

_TITLE_WIDTH: Final = 10


@dataclass(frozen=True)
class Line:
    """What every step needs."""

    recipe: Recipe
    cache: Path
    console: Console
    progress: Progress

    def say(self, step: str, what: str, seconds: float | None = None) -> None:
        """One line for a step that is over; without `seconds` it was found finished."""
        took = "[dim]found finished[/dim]" if seconds is None else f"[dim]{seconds:.1f} s[/dim]"
        self.console.print(f"[green]✓[/green] {step:<{_TITLE_WIDTH}} {what}  {took}", soft_wrap=True)

    @contextmanager
    def timed(self, step: str) -> Iterator[list[str]]:
        """Times a step; the caller puts what there is to say about it into the list."""
        began = time.monotonic()
        said: list[str] = []
        yield said
        self.say(step, " ".join(said), time.monotonic() - began)

    def fetch_and_prepare(self) -> tuple[EncoderFolder, Prepared]:
        """Data and encoder into the cache, rows into splits."""
        with self.timed("fetch") as said:
            encoder = fetch_encoder(self.recipe.encoder, self.cache, self.progress)
            table = read_table(self.recipe, self.cache, self.progress)
            sources = len(self.recipe.sources)
            name = table.name if sources == 1 else f"{sources} sources"
            said.append(f"{len(table.rows):,} rows of {name}; encoder {encoder.name}")
        with self.timed("prepare") as said:
            prepared = prepare(table, self.recipe, self.progress)
            sizes = (f"{len(split):,}" for split in (prepared.train, prepared.validation, prepared.test))
            said.append(f"{prepared.counts['kept']:,} rows kept: {' / '.join(sizes)} to train / validate / test")
        return encoder, prepared
