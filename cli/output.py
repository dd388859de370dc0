"""How the commands speak: data on stdout, talk on stderr."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from artifact.manifest import Estimate

Result = dict[str, Any]


def open_console(*, talk: bool = False) -> "Console":
    """A console on stdout for data, or on stderr for talk; wide where nobody's window sets a limit."""
    from rich.console import Console

    stream = sys.stderr if talk else sys.stdout
    return Console(file=stream, highlight=False, width=None if stream.isatty() else 160)


def talk(text: str, style: str = "") -> None:
    """One line on stderr, never wrapped, never read as markup."""
    open_console(talk=True).print(text, style=style, markup=False, soft_wrap=True)


def write_json(value: object, indent: int | None = None) -> None:
    """One JSON document on stdout, there at once for whoever reads along."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=indent) + "\n")
    sys.stdout.flush()


def error_document(code: str, message: str) -> Result:
    return {"error": {"code": code, "message": message}}


def interval_of(estimate: "Estimate") -> str:
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def make_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> object:
    """A plain table. Without headings it is a list of facts."""
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE, show_header=any(columns), pad_edge=False)
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
