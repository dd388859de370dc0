"""`slipway train`: from a recipe to the next version, or a published model once more."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.errors import FAILED, WrongUsage, needs
from cli.options import RepositoryFolder, open_model, parse_reference
from cli.output import make_table, open_console, write_json

if TYPE_CHECKING:
    from training.reproduce import Check, Repeat


def train(
    recipe: Annotated[
        str | None, typer.Argument(help="A bundled recipe's name, or a TOML file.", show_default=False)
    ] = None,
    repository: RepositoryFolder = Path("models"),
    promote: Annotated[
        bool, typer.Option("--promote", help="Make the new version `production`. The first version always is.")
    ] = False,
    run_dir: Annotated[
        Path | None, typer.Option(help="Folder for checkpoints and the report; a run found there goes on.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--from", help="Repeat this published model, NAME:VERSION or NAME@ALIAS, and compare."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="With --from: where the local table lies now; of several, their folder.")
    ] = None,
    encoder: Annotated[Path | None, typer.Option(help="With --from: where the local encoder lies now.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --from: one JSON document instead of tables.")] = False,
) -> int:
    """Train a model, put it through the gate, and publish it as the next version.

    With --from nothing is published: the model is trained again from its own manifest, and the exit status is 0 when
    it came out the same, 1 when it did not.
    """
    if (recipe is None) == (source is None):
        raise WrongUsage("give a recipe, or --from with the model to repeat (see slipway train --help)")
    if source is None and (data or encoder or as_json):
        raise WrongUsage("--data, --encoder and --json go with --from")
    if source is not None and promote:
        raise WrongUsage("--from publishes nothing, so there is nothing to --promote")
    with needs("train", "train"):
        if recipe is not None:
            from training.pipeline import run_cli

            return run_cli(recipe, repository=repository, promote=promote, run_dir=run_dir)
        from training.reproduce import repeat

        found = repeat(open_model(repository, *parse_reference(str(source))), run_dir, data=data, encoder=encoder)
    return report_repeat(found, as_json=as_json)


def report_repeat(found: "Repeat", *, as_json: bool) -> int:
    """Whether a repeated model came out the same, and what was not as it had been."""
    if as_json:
        write_json(asdict(found) | {"verdict": found.verdict}, indent=2)
    else:
        for checks in filter(None, (found.outcome, found.differences)):
            open_console().print(make_table(["", "published", "now", ""], [_check_cells(check) for check in checks]))
        open_console().print(_repeat_sentence(found), markup=False, soft_wrap=True)
    return FAILED if found.verdict == "different" else 0


def _check_cells(check: "Check") -> list[str]:
    """A check for a table: of a digest its first sixteen digits."""
    shown = [re.sub(r"\b([0-9a-f]{16})[0-9a-f]{24,48}\b", r"\1...", fact) for fact in (check.published, check.now)]
    return [check.name, *shown, {True: "same", False: "differs", None: ""}[check.same]]


def _repeat_sentence(found: "Repeat") -> str:
    others = ", ".join(each.name for each in found.differences)
    if not found.outcome:
        return f"{found.model} was not trained again; what differs: {others}"
    if found.verdict == "different":
        suspects = f"what else differs: {others}" if others else "nothing that is recorded explains it"
        missed = ", ".join(each.name for each in found.outcome if each.same is False)
        return f"{found.model} came out different: {missed}; {suspects}"
    how = (
        "the same, bit for bit"
        if found.verdict == "identical"
        else "with the same answers; its manifest has no digest of the weights to compare"
    )
    return f"{found.model} came out {how}" + (f", although these differ: {others}" if others else "")
