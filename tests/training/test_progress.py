"""The display draws on the console it was given and leaves nothing behind."""

import io

from rich.console import Console

from training.progress import progress_on


def test_it_leaves_nothing_on_a_console_that_is_no_terminal() -> None:
    out = io.StringIO()
    with progress_on(Console(file=out)) as bars:
        for _ in bars.track(range(3), description="Working"):
            pass
    assert "Working" not in out.getvalue()
