"""`slipway runs`: what went through the gate, one beside the other."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import AsJson
from cli.output import interval_of, make_table, open_console, talk, write_json

if TYPE_CHECKING:
    from training.runs import Run


def list_runs(
    names: Annotated[
        list[str] | None, typer.Argument(help="Runs to compare, by the beginning of their folder's name.")
    ] = None,
    root: Annotated[Path, typer.Option(help="Folder of runs.")] = Path("runs"),
    as_json: AsJson = False,
) -> int:
    """List the runs that went through the gate, or compare some of them."""
    from training.runs import differences, find_runs
    from training.runs import list_runs as read

    runs = read(root)
    chosen = find_runs(runs, names) if names else runs
    different = differences(chosen) if names else {}
    if as_json:
        found = [{"run": run.name, "folder": str(run.folder)} | run.summary.model_dump(mode="json") for run in chosen]
        write_json({"runs": found, "differences": different}, indent=2)
    elif not runs:
        talk(f"no finished runs in {root}; slipway train leaves one, --root looks elsewhere")
    else:
        open_console().print(_comparison_table(chosen, different) if names else _runs_table(chosen))
    return 0


def _runs_table(runs: Sequence["Run"]) -> object:
    rows = []
    for run in runs:
        summary = run.summary
        accuracy = summary.metrics.get("accuracy")
        rows.append(
            [
                run.name,
                f"{summary.finished:%Y-%m-%d %H:%M}",
                f"{summary.model}:{summary.version}" if summary.version else "refused",
                interval_of(accuracy) if accuracy else "",
                f"{summary.steps:,}",
                f"{summary.seconds:.0f}",
            ]
        )
    return make_table(["run", "finished", "published", "accuracy [95%]", "steps", "seconds"], rows)


def _comparison_table(runs: Sequence["Run"], different: dict[str, list[str]]) -> object:
    """One column for each run: what differs between them, then what each was worth."""
    names = dict.fromkeys(name for run in runs for name in run.summary.metrics)
    rows = [[name, *values] for name, values in different.items()]
    for name in names:
        found = [run.summary.metrics.get(name) for run in runs]
        rows.append([name, *(interval_of(estimate) if estimate else "" for estimate in found)])
    return make_table(["", *(run.name for run in runs)], rows)
