"""`slipway evaluate`: a published model, or a recipe by cross-validation, measured."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from cli.errors import WrongUsage, needs
from cli.options import AsJson, RepositoryFolder, open_model, parse_reference
from cli.output import Result, open_console, write_json

if TYPE_CHECKING:
    from rich.console import RenderableType

    from training.evaluation import Asked


def evaluate(
    target: Annotated[
        str, typer.Argument(help="NAME, NAME:VERSION or NAME@ALIAS; with --folds a recipe.", show_default=False)
    ],
    data: Annotated[
        Path | None, typer.Option(help="Labelled .csv, .tsv, .jsonl or .parquet file. Default: the test split.")
    ] = None,
    text_column: Annotated[str | None, typer.Option(help="Column of --data with the text.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Column of --data with the label or rating.")] = None,
    variant: Annotated[str | None, typer.Option(help="Variant to run. Default: the model's first.")] = None,
    against: Annotated[
        str | None, typer.Option(help="Another model on the same rows; with --folds another recipe.")
    ] = None,
    against_variant: Annotated[str | None, typer.Option(help="Variant of --against. Default: its first.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="Column to cut slices by; may be repeated.")] = None,
    slices: Annotated[
        list[str] | None,
        typer.Option("--slice", help="Condition that cuts a slice, such as 'tokens > 40'; may be repeated."),
    ] = None,
    probes: Annotated[Path | None, typer.Option(help="TOML file of terms to swap, in place of our own.")] = None,
    perturbed_rows: Annotated[int, typer.Option(min=0, help="Rows to change and predict again; 0 for none.")] = 500,
    recipe: Annotated[str | None, typer.Option(help="The model's recipe, where its data is a local file.")] = None,
    folds: Annotated[
        str | None, typer.Option(metavar="N|sources", help="Cross-validate a recipe: N folds, or a source left out.")
    ] = None,
    baseline: Annotated[bool, typer.Option("--baseline", help="With --folds: only the frozen encoder.")] = False,
    run_dir: Annotated[Path | None, typer.Option(help="With --folds: where finished folds are kept.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a self-contained HTML page here.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws resamples and changes to texts.")] = 0,
    repository: RepositoryFolder = Path("models"),
    as_json: AsJson = False,
) -> None:
    """Measure a published model through the code that serves it, or a recipe by cross-validation.

    Metrics with intervals, slices, swapped terms, changed texts and calibration; with --against the paired
    bootstrap and McNemar's test. docs/evaluate.md explains each figure.
    """
    _check_evaluate(
        folds,
        {"--baseline": baseline, "--run-dir": run_dir},
        {"--data": data, "--variant": variant, "--against-variant": against_variant},
    )
    with needs("evaluate", "train"):
        from training.evaluation import Asked, write_page

        asked = Asked(
            data=data,
            text_column=text_column,
            label_column=label_column,
            recipe=recipe,
            variant=variant,
            against_variant=against_variant,
            groups=tuple(group or ()),
            conditions=tuple(slices or ()),
            probes=probes,
            perturbed_rows=perturbed_rows,
            seed=seed,
        )
        if folds is None:
            found = _measured(repository, target, against, asked)
        else:
            found = _cross_validated(target, folds, against=against, baseline=baseline, run_dir=run_dir)
        if report is not None:
            write_page(report, found.page)
    _show(found, as_json=as_json)


class Shown(NamedTuple):
    """One finding in its three forms."""

    document: Result
    parts: "Iterable[RenderableType]"
    page: str


def _measured(repository: Path, target: str, against: str | None, asked: "Asked") -> Shown:
    from training.evaluation import evaluate_model
    from training.evaluation_page import render_model
    from training.evaluation_tables import model_tables

    other = open_model(repository, *parse_reference(against)) if against else None
    found = evaluate_model(open_model(repository, *parse_reference(target)), other, asked, open_console(talk=True))
    return Shown(found.document(), model_tables(found), render_model(found))


def _cross_validated(target: str, folds: str, *, against: str | None, baseline: bool, run_dir: Path | None) -> Shown:
    from training.evaluation import evaluate_recipe
    from training.evaluation_page import render_folds
    from training.evaluation_tables import fold_tables
    from training.fold_plan import parse_folds

    console = open_console(talk=True)
    found = evaluate_recipe(target, parse_folds(folds), console, against=against, baseline=baseline, run_dir=run_dir)
    return Shown(found.document(), fold_tables(found), render_folds(found))


def _show(found: Shown, *, as_json: bool) -> None:
    if as_json:
        write_json(found.document, indent=2)
        return
    console = open_console()
    for part in found.parts:
        console.print(part, markup=False)


def _check_evaluate(folds: str | None, with_folds: Result, without: Result) -> None:
    """Options that mean nothing together. Raises WrongUsage."""
    for option, value in (with_folds if folds is None else without).items():
        if value:
            goes = "goes with --folds" if folds is None else "is for a published model, --folds for a recipe"
            raise WrongUsage(f"{option} {goes}")
